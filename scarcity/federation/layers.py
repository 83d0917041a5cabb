"""The mathematics of the two layers: contributions to an aggregate, aggregates to a model.

Layer 1 applies a rule to contributions that can be seen one by one, or reads the sum that a secure sum has opened.
Layer 2 is always a secure sum over the baskets, so what is here is only how an aggregate enters that sum, as integers,
and how a model comes out of it; weights are public. A total that is a sum of integers enters as it is: nothing is
multiplied or rounded between the noise and the model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import attrs
import numpy as np

from scarcity.errors import InvalidUpdate
from scarcity.federation.aggregator import Average, Rule, aggregate_by_sender, byzantine_count, make_rule
from scarcity.federation.codec import body_digest, digest_in
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    Aggregate,
    BasketReport,
    FloatArray,
    IntArray,
    Model,
    Packet,
    RoundConfig,
    RoundSettings,
    TrustMode,
    Unit,
)

# Bits of Layer 2's fixed point. Clean moments need 36 to keep coefficients within 1e-9 (24 give 7e-7). Aggregates of
# releases are in lattice units already, whose noise alone spans thousands of units: 16 further bits lose nothing.
_CLEAN_BITS = 36
_RELEASED_BITS = 16
# Clean sums of lattice rows are integers near 2^45 already; their mean times the weight is off by less than this.
_LATTICE_BITS = 8
# A rule for f < n/2 liars is safe from their mass at 2: a fifth of liars at the cap hold a third of it.
_WEIGHT_CAP = 2.0
# Half of int64 is the ring's sign; the other half is shared by all baskets of a round.
_RING_BITS = 62
# What a round's model can be. Rows that were accepted make sums below 1e130 each, and 10^9 rows a client with 10^4
# clients are 10^13 < 2^53; ten thousand million models of this size add up to less than the engine's largest sum.
_MODEL_SUM_MAX = 1e140
_MODEL_WEIGHT_MAX = 2.0**53
_MODEL_WEIGHT_MIN = 1e-6  # as the least weight of a basket's report
_MODEL_COUNT_MAX = 2**53


@attrs.frozen
class Contributed:
    """One contribution as Layer 1 sees it.

    Attributes:
        vector: shape (d,), sum over `weight`, in the contribution's own units.
        weight: rows, or 1; positive.
        multiplier: in (0, 1], for age; it scales the weight, never the content.
    """

    vector: FloatArray | IntArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    weight: int
    multiplier: float = 1.0


def aggregate_contributions(rule: Rule, contributions: Mapping[str, Contributed], sigma: float) -> Aggregate:
    """Return a basket's aggregate of contributions that were seen one by one.

    The rule runs over the contributions per unit of weight, in sorted order of sender ids.

    Args:
        rule: the robust rule, n >= its min_inputs.
        contributions: sender id -> contribution, vectors of one shape.
        sigma: noise in a unit-scale coordinate of each contribution; 0 in mode none.

    Returns:
        `total` = the rule's mean times the total weight. The noise variance takes the rule's weights where it has any;
        for coordinate rules, which have none, it is that of the plain mean of as many.

    Raises:
        InsufficientInputs: fewer contributions than the rule needs.
    """
    weights = capped_weights(rule, {name: c.weight * c.multiplier for name, c in contributions.items()})
    means = {name: (c.vector / c.weight, weights[name]) for name, c in contributions.items()}
    result = aggregate_by_sender(rule, means)
    weight = math.fsum(weights.values())
    exact = _exact_sum(contributions) if isinstance(rule, Average) else None
    shares = result.weights or dict.fromkeys(means, 1 / len(means))
    per_unit = sum((shares[name] * sigma / contributions[name].weight) ** 2 for name in sorted(shares))
    total = result.vector * weight if exact is None else exact
    return Aggregate(total, weight, len(means), result.rule, per_unit * weight**2)


def capped_weights(rule: Rule, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights with which contributions enter a rule.

    Weights are what their senders say. Where the rule has to withstand liars, none counts for more than twice the (low)
    median: otherwise one liar that claims most of the rows would either own the aggregate or, since no rule holds
    against half of the mass, silence its basket. The plain average withstands no liar anyway, and stays exact.
    """
    if not rule.sees_inputs or not weights:
        return dict(weights)
    cap = _WEIGHT_CAP * statistics.median_low(weights.values())
    return {name: min(weight, cap) for name, weight in weights.items()}


def _exact_sum(contributions: Mapping[str, Contributed]) -> IntArray | None:
    """Return the plain sum of integer contributions that all count in full, None where there is none."""
    if any(c.multiplier != 1.0 or c.vector.dtype != np.int64 for c in contributions.values()):
        return None
    vectors = np.stack([contributions[name].vector for name in sorted(contributions)])
    return np.asarray(vectors.sum(axis=0), dtype=np.int64)


def clip_about(aggregate: Aggregate, centre: FloatArray, radius: float) -> Aggregate:
    """Return the aggregate with its mean moved to within `radius` of the centre, L2; units of the contributions.

    Args:
        aggregate: a basket's.
        centre: shape (d,), public: the last model, or zero before the first.
        radius: layer2_clip; infinity changes nothing.

    Raises:
        InvalidUpdate: the centre is of another dimension: the coordinator has changed it from one round to the next.

    Source: Karimireddy et al., ICML 2021 (centred clipping, one step).
    """
    if centre.shape != aggregate.total.shape:
        raise InvalidUpdate(f"the last model has {centre.size} numbers, the aggregate {aggregate.total.size}")
    away = aggregate.mean - centre
    distance = float(np.linalg.norm(away))
    if distance <= radius:
        return aggregate
    return attrs.evolve(aggregate, total=(centre + away * (radius / distance)) * aggregate.weight)


def aggregate_of_sum(total: IntArray, weights: Mapping[str, int], noise_variance: float) -> Aggregate:
    """Return a basket's aggregate of an opened secure sum over the members in `weights`."""
    return Aggregate(total, float(sum(weights.values())), len(weights), "average", noise_variance)


def layer2_scale(config: RoundConfig) -> int:
    """Return the lattice steps per unit with which a round's totals enter Layer 2."""
    mode = config.settings.mode
    if mode in (TrustMode.DISTRIBUTED, TrustMode.CENTRAL) or config.layer2_noise.sigma > 0:
        return 1  # totals are integers, or noise is added on the contributions' own lattice
    if mode is TrustMode.NONE:
        return 1 << (_LATTICE_BITS if config.noise.steps else _CLEAN_BITS)
    return 1 << _RELEASED_BITS


def layer2_bits(num_baskets: int) -> int:
    """Return b: a basket's coordinates must stay within 2^b so that the sum over all baskets fits the ring."""
    return _RING_BITS - max(0, math.ceil(math.log2(num_baskets)))


def layer2_input(aggregate: Aggregate, scale: int, bits: int) -> IntArray:
    """Return the total as integers, shape (d,), int64; the weight is public and stands in the basket's report.

    Raises:
        InvalidUpdate: a coordinate exceeds the bound, so the ring could overflow.
    """
    raw = np.asarray(aggregate.total, dtype=np.float64) * scale
    if not (np.abs(raw) < 2.0**bits).all():
        at = int(np.argmax(np.abs(raw)))
        raise InvalidUpdate(f"coordinate {at} of the aggregate is {raw[at]:.3g}, beyond Layer 2's bound 2^{bits}")
    if aggregate.total.dtype == np.int64:
        return np.asarray(aggregate.total * scale, dtype=np.int64)  # exact beyond the 53 bits of a float
    return np.asarray(np.trunc(raw), dtype=np.int64)


def model_of_sum(total: IntArray, reports: Sequence[BasketReport], *, config: RoundConfig, round_id: int) -> Model:
    """Return the model of an opened Layer 2 sum.

    Args:
        total: shape (d,), int64: the sum of what `layer2_input` gave, with Layer 2's noise where there is any.
        reports: of the baskets in it.
        config: the round's config.
        round_id: the round.
    """
    weight = math.fsum(report.weight for report in reports)
    unit = contribution_unit(config)
    mean = np.asarray(total, dtype=np.float64) / layer2_scale(config) / weight * unit
    variance = math.fsum([*(report.noise_variance for report in reports), config.layer2_noise.sigma**2])
    count = sum(report.count for report in reports)
    noise_std = math.sqrt(variance) * unit
    return Model(round_id, config.schema_hash, mean, weight, count, noise_std, body_digest(config))


def contribution_unit(config: RoundConfig) -> float:
    """Return what one unit of a contribution is in the units of the model.

    Plain arrays are clipped to clip_norm = K lattice steps; records stay in lattice units, which the engine reads.
    """
    clipped = config.settings.mode is not TrustMode.NONE and config.settings.unit is Unit.CLIENT
    if config.noise.steps and clipped:
        return config.settings.clip_norm / config.noise.steps
    return 1.0


def model_fault(model: Model) -> str:
    """Say why no round can have made this finite model, empty if one can: what passes can be added up for ever.

    Evidence that a sum cannot take would stop every member that holds it, again after each restart.
    """
    if not 1 <= model.count <= _MODEL_COUNT_MAX or not _MODEL_WEIGHT_MIN <= model.weight <= _MODEL_WEIGHT_MAX:
        return f"model of count {model.count}, weight {model.weight}"
    if not 0 <= model.noise_std <= _MODEL_SUM_MAX:
        return f"model with noise of std {model.noise_std}"
    largest = float(np.abs(model.vector).max(initial=0.0))
    if largest <= _MODEL_SUM_MAX / model.weight:
        return ""
    return f"a coordinate of {largest:.6g} times weight {model.weight:.6g} is above {_MODEL_SUM_MAX}"


def model_belongs(said: Packet, opened: Packet) -> bool:
    """Say whether a model is the one of the round that was opened, or an earlier one that its config starts from.

    Args:
        said: the packet of a Model.
        opened: the packet of a RoundConfig.
    """
    model, config, round_id = cast("Model", said.body), cast("RoundConfig", opened.body), opened.header.round_id
    if (model.schema_hash, model.vector.size) != (config.schema_hash, config.dimension):
        return False
    if model.round_id == round_id:
        return model.config_hash == digest_in(opened)
    return model.round_id < round_id and digest_in(said) == config.model_hash


def has_view(packets: Iterable[Packet], settings: RoundSettings, members: int) -> bool:
    """Say whether `view_of` would give a view; the same arguments, without the cost of the rule."""
    rule = make_rule(settings.rule, byzantine_count(settings.byzantine_share, members))
    return sum(isinstance(packet.body, CONTRIBUTIONS) for packet in packets) >= rule.min_inputs


def view_of(packets: Iterable[Packet], settings: RoundSettings, members: int) -> FloatArray | None:
    """Return a member's view of its basket: the basket's rule over the contributions that gossip has brought.

    Args:
        packets: contributions of one round, at most one a member.
        settings: the round's; its rule and share of liars.
        members: members of the basket on the roster.

    Returns:
        shape (d,), per unit of weight, in units of the contributions; None while they are too few for the rule.
    """
    contributions = tuple(packets)
    if not has_view(contributions, settings, members):
        return None
    rule = make_rule(settings.rule, byzantine_count(settings.byzantine_share, members))
    bodies = {p.header.sender: p.body for p in contributions if isinstance(p.body, CONTRIBUTIONS)}
    weights = capped_weights(rule, {name: float(body.weight) for name, body in bodies.items()})
    means = {name: (body.vector / body.weight, weights[name]) for name, body in bodies.items()}
    return aggregate_by_sender(rule, means).vector
