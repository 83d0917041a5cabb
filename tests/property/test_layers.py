"""Laws of the two layers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.federation.aggregator import make_rule
from scarcity.federation.layers import Contributed, aggregate_contributions, layer2_bits, layer2_input
from scarcity.federation.packets import Aggregate

values = st.integers(-(2**40), 2**40)
members = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(st.lists(values, min_size=3, max_size=3), st.integers(1, 1000), st.sampled_from([1.0, 0.5, 0.25])),
    min_size=5,
    max_size=9,
)


def contributions(drawn: dict[str, tuple[list[int], int, float]]) -> dict[str, Contributed]:
    return {name: Contributed(np.array(v, dtype=np.int64), w, m) for name, (v, w, m) in drawn.items()}


@settings(max_examples=60, deadline=None)
@given(members, st.sampled_from(["average", "median", "trmean", "nnm+trmean"]), st.randoms())
def test_the_order_of_arrival_does_not_change_a_byte(
    drawn: dict[str, tuple[list[int], int, float]], name: str, random: object
) -> None:
    held = contributions(drawn)
    shuffled = dict(sorted(held.items(), key=lambda _: random.random()))  # type: ignore[attr-defined]  # hypothesis' own
    rule = make_rule(name, 0)
    one, two = aggregate_contributions(rule, held, 3.0), aggregate_contributions(rule, shuffled, 3.0)
    assert one.total.tobytes() == two.total.tobytes()
    assert (one.weight, one.noise_variance) == (two.weight, two.noise_variance)


@settings(max_examples=60, deadline=None)
@given(members)
def test_the_average_is_the_weighted_mean_of_the_obvious_formula(
    drawn: dict[str, tuple[list[int], int, float]],
) -> None:
    aggregate = aggregate_contributions(make_rule("average", 0), contributions(drawn), 1.0)
    weight = sum(w * m for _, w, m in drawn.values())
    mean = sum(np.array(v) * m for v, _, m in drawn.values()) / weight
    np.testing.assert_allclose(aggregate.mean, mean, rtol=1e-9, atol=1e-3)
    variance = sum(m**2 for _, _, m in drawn.values())
    assert np.isclose(aggregate.noise_variance, variance)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**59), 2**59), min_size=2, max_size=2), min_size=1, max_size=4))
def test_integer_totals_add_up_exactly_in_layer_2(totals: list[list[int]]) -> None:
    bits = layer2_bits(len(totals))
    entered = [
        layer2_input(Aggregate(np.array(t, dtype=np.int64), 1.0, 1, "average", 0.0), 1, bits)
        for t in totals
        if max(map(abs, t)) < 2**bits
    ]
    for column in range(2):
        exact = sum(int(vector[column]) for vector in entered)
        assert -(2**63) < exact < 2**63
        assert int(np.sum([v[column] for v in entered], dtype=np.int64)) == exact
