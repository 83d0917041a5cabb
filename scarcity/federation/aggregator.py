"""From senders to rows and back: the one door to `scarcity.robust`.

A core collects contributions by sender id. Here they become rows in sorted order of the ids, so that the aggregate is
the same bytes whatever arrived first, a rule reduces them, and what it gave each row goes back to the sender's id as
evidence for trust and audit. A vector here is a mean, not a sum: a sender that contributes a sum over its rows is
divided by its weight first, or the rule would compare sizes instead of directions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.errors import ConfigError, InsufficientInputs, InvalidUpdate
from scarcity.robust.coordinate import Average, Median, TrMean
from scarcity.robust.distance import Krum, MultiKrum
from scarcity.robust.pipeline import DEFAULT_RULE, RULES, Bulyan, Pipeline, is_rule, make_rule
from scarcity.robust.preaggregate import NNM, PreAggregator
from scarcity.robust.rule import AggregationResult, FloatArray, Rule

__all__ = [
    "DEFAULT_RULE",
    "NNM",
    "RULES",
    "AggregationResult",
    "Average",
    "Bulyan",
    "Krum",
    "Median",
    "MultiKrum",
    "Pipeline",
    "PreAggregator",
    "Rule",
    "SenderAggregate",
    "TrMean",
    "aggregate_by_sender",
    "byzantine_count",
    "is_rule",
    "make_rule",
]


@attrs.frozen(eq=False)
class SenderAggregate:
    """What a rule made of the senders' contributions.

    Attributes:
        vector: shape (d,), float64, the aggregate, a mean.
        weight_total: sum of the weights as given, over all senders, whatever the rule selected.
        senders: ids in the order of the rows.
        weights: each sender's share of `vector`; the shares sum to one. Weak evidence: rare data weighs little too.
        scores: each sender's score, less is nearer; what it measures is the rule's (`AggregationResult`).
        rule: name of the rule.
        f: number of senders that may lie.
        n: number of senders.
    """

    vector: FloatArray
    weight_total: float
    senders: tuple[str, ...]
    weights: Mapping[str, float]
    scores: Mapping[str, float]
    rule: str
    f: int
    n: int


def aggregate_by_sender(
    rule: Rule,
    contributions: Mapping[str, tuple[FloatArray, float]],
    reference: npt.ArrayLike | None = None,
) -> SenderAggregate:
    """Return the rule's aggregate of the contributions.

    Args:
        rule: the rule, f inside.
        contributions: sender id -> (vector (d,), weight > 0); vectors are means, weights in any one unit.
        reference: shape (d,), a public point that distances are measured from, such as the last model.

    Raises:
        InvalidUpdate: a vector of another shape than the first one's, not floating point or not finite, or a weight
            that is not positive and finite; the sender is named.
        InsufficientInputs: too few senders for the rule, or too much weight in the hands of f of them.
    """
    senders = tuple(sorted(contributions))
    if not senders:
        raise InsufficientInputs(f"{rule.name} with f={rule.f} needs {rule.min_inputs} inputs, got 0")
    vectors = [np.asarray(contributions[sender][0]) for sender in senders]
    weights = [contributions[sender][1] for sender in senders]
    for sender, vector, weight in zip(senders, vectors, weights, strict=True):
        _check_contribution(sender, vector, weight, vectors[0].shape)
    result = rule.aggregate(np.stack(vectors), np.array(weights, dtype=np.float64) / max(weights), reference)
    return SenderAggregate(
        vector=result.vector,
        weight_total=math.fsum(weights),
        senders=senders,
        weights=MappingProxyType(dict(zip(senders, result.weights.tolist(), strict=True))),
        scores=MappingProxyType(dict(zip(senders, result.scores.tolist(), strict=True))),
        rule=result.rule,
        f=result.f,
        n=result.n,
    )


@functools.lru_cache(maxsize=64)  # a basket asks at each arrival
def byzantine_count(share: float, members: int) -> int:
    """Return how many of the members may lie: floor(share * members).

    Args:
        share: in [0, 0.5), taken as the decimal it is written as: .29 of 100 is 29, though the float is less.
        members: of the roster, not those that have arrived; silence must not lower f.

    Raises:
        ConfigError: share or members out of range.
    """
    if not 0.0 <= share < 0.5:
        raise ConfigError(f"byzantine_share must be in [0, 0.5), got {share}")
    if members < 0:
        raise ConfigError(f"members must be at least 0, got {members}")
    return math.floor(Fraction(str(float(share))) * members)


def _check_contribution(sender: str, vector: npt.NDArray[np.float64], weight: float, shape: tuple[int, ...]) -> None:
    if vector.ndim != 1 or vector.shape != shape:
        raise InvalidUpdate(f"sender {sender!r}: vector of shape {vector.shape}, expected {shape}")
    if vector.dtype.kind != "f":
        raise InvalidUpdate(f"sender {sender!r}: expected floating point values, got {vector.dtype}")
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise InvalidUpdate(f"sender {sender!r}: value {bad[0]} is {vector[bad[0]]}, expected a finite number")
    if not (math.isfinite(weight) and weight > 0.0):
        raise InvalidUpdate(f"sender {sender!r}: weight {weight} is not a positive number")
