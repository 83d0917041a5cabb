"""Senders to rows and back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from scarcity.errors import ConfigError, InsufficientInputs, InvalidUpdate
from scarcity.federation import aggregator
from scarcity.federation.aggregator import aggregate_by_sender, byzantine_count

VECTORS = {"d": [0.0, 1.0], "a": [1.0, 0.0], "c": [2.5, 2.0], "b": [3.0, 1.0], "e": [100.0, -7.0]}
CONTRIBUTIONS = {sender: (np.array(vector), 40.0) for sender, vector in VECTORS.items()}


@pytest.mark.parametrize("name", ["average", "trmean", "krum", "multikrum", "median", "nnm+trmean"])
def test_the_order_of_arrival_does_not_change_a_byte(name: str) -> None:
    rule = aggregator.make_rule(name, 1)
    results = [
        aggregate_by_sender(rule, {s: (CONTRIBUTIONS[s][0], 1.0 + 0.1 * ord(s)) for s in order})
        for order in itertools.islice(itertools.permutations(CONTRIBUTIONS), 0, 120, 13)
    ]
    assert len({result.vector.tobytes() for result in results}) == 1
    assert len({(result.senders, tuple(result.weights.items()), result.weight_total) for result in results}) == 1


def test_evidence_goes_back_to_the_senders() -> None:
    result = aggregate_by_sender(aggregator.Krum(1), CONTRIBUTIONS)
    assert result.senders == ("a", "b", "c", "d", "e")
    assert result.weights == {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0, "e": 0.0}
    assert result.vector.tolist() == [3.0, 1.0]
    assert [result.scores[sender] for sender in "abcd"] == [7.0, 6.25, 7.5, 9.25]
    assert (result.rule, result.f, result.n, result.weight_total) == ("krum", 1, 5, 200.0)


def test_weights_in_any_unit_weigh_the_mean() -> None:
    given = {"x": (np.array([0.0]), 3000.0), "y": (np.array([4.0]), 1000.0)}
    result = aggregate_by_sender(aggregator.Average(), given)
    assert result.vector.tolist() == [1.0]
    assert result.weight_total == 4000.0
    assert result.weights == {"x": 0.75, "y": 0.25}


def test_the_evidence_cannot_be_written_to() -> None:
    evidence: Any = aggregate_by_sender(aggregator.Average(), CONTRIBUTIONS).weights
    with pytest.raises(TypeError):
        evidence["a"] = 1.0


def test_a_reference_reaches_the_rule() -> None:
    far = {sender: (vector + 1e9, weight) for sender, (vector, weight) in CONTRIBUTIONS.items()}
    result = aggregate_by_sender(aggregator.Krum(1), far, reference=np.full(2, 1e9))
    assert [result.scores[sender] for sender in "abcd"] == [7.0, 6.25, 7.5, 9.25]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ((np.array([1.0]), 1.0), "sender 'b'.*shape"),
        ((np.array([[1.0, 2.0]]), 1.0), "sender 'b'.*shape"),
        ((np.array([1, 2]), 1.0), "sender 'b'.*int64"),
        ((np.array([1.0, np.nan]), 1.0), "sender 'b'.*value 1 is nan"),
        ((np.array([-np.inf, 1.0]), 1.0), "sender 'b'.*value 0 is -inf"),
        ((np.array([1.0, 2.0]), 0.0), "sender 'b'.*weight 0.0"),
        ((np.array([1.0, 2.0]), -1.0), "sender 'b'.*weight -1.0"),
        ((np.array([1.0, 2.0]), float("nan")), "sender 'b'.*weight nan"),
        ((np.array([1.0, 2.0]), float("inf")), "sender 'b'.*weight inf"),
    ],
)
def test_a_bad_contribution_is_refused_with_its_sender(bad: Any, words: str) -> None:
    with pytest.raises(InvalidUpdate, match=words):
        aggregate_by_sender(aggregator.Median(1), {**CONTRIBUTIONS, "b": bad})


def test_too_few_senders_are_refused_with_the_figures() -> None:
    few = {sender: CONTRIBUTIONS[sender] for sender in "abcd"}
    with pytest.raises(InsufficientInputs, match="krum with f=1 needs 5 inputs, got 4"):
        aggregate_by_sender(aggregator.Krum(1), few)
    with pytest.raises(InsufficientInputs, match="got 0"):
        aggregate_by_sender(aggregator.Average(), {})


@pytest.mark.parametrize(
    ("share", "members", "count"),
    [
        (0.2, 0, 0),
        (0.2, 4, 0),
        (0.2, 5, 1),
        (0.2, 99, 19),
        (0.29, 100, 29),
        (0.1, 30, 3),
        (0.0, 50, 0),
        (0.49, 100, 49),
    ],
)
def test_the_number_of_liars_is_the_floor_of_the_share_as_it_is_written(share: float, members: int, count: int) -> None:
    assert byzantine_count(share, members) == count


@pytest.mark.parametrize(("share", "members"), [(-0.1, 5), (0.5, 5), (float("nan"), 5), (0.2, -1)])
def test_a_share_or_a_number_of_members_out_of_range_is_refused(share: float, members: int) -> None:
    with pytest.raises(ConfigError):
        byzantine_count(share, members)


def test_the_public_names_of_the_rules_are_here() -> None:
    assert {"Average", "Bulyan", "Krum", "Median", "MultiKrum", "NNM", "Pipeline", "TrMean", "make_rule"} <= set(
        aggregator.__all__
    )
    assert all(hasattr(aggregator, name) for name in aggregator.__all__)
