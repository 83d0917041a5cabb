"""Laws that every rule obeys. A rule that is added to the package is found here and tried unasked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scarcity.robust
from scarcity.robust import NNM, RULES, Bulyan, FloatArray, Krum, MultiKrum, Pipeline, Rule, make_rule

F = 1
ALL: dict[str, Rule] = {
    **{name: make_rule(name, F) for name in RULES},
    "krum, allouah": Krum(F, neighbours="allouah"),
    "multikrum, allouah": MultiKrum(F, neighbours="allouah"),
}
#: Mixing makes groups of equal rows, and the Krum scores of two groups can tie to the last bit; rounding then decides
#: which is taken. Such a pipeline is bound by the laws that do not ask which.
ALSO: dict[str, Rule] = {
    **ALL,
    "nnm+krum": Pipeline([NNM(F)], Krum(F)),
    "nnm+bulyan": Pipeline([NNM(F)], Bulyan(F)),
    "nnm+nnm+multikrum": Pipeline([NNM(F), NNM(F)], MultiKrum(F)),
}
#: Rules that see geometry only, so that they turn with the space.
TURNS = {"average", "krum", "multikrum", "krum, allouah", "multikrum, allouah"}
#: Rules that see coordinates, and those of them that never leave the range of the honest rows.
BY_COORDINATE = {"trmean", "median", "bulyan", "nnm+trmean"}
IN_RANGE = {"trmean", "median"}

every_rule = pytest.mark.parametrize("name", ALL)
pipelines_too = pytest.mark.parametrize("name", ALSO)
#: The same examples every time: near ties of random rows must not make a red build by chance.
few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> tuple[np.random.Generator, FloatArray]:
    """Return a generator and 8 to 14 rows without ties, of 1 to 6 values."""
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((rng.integers(8, 15), rng.integers(1, 7)))


def test_every_rule_of_the_package_is_under_these_laws() -> None:
    modules = [
        importlib.import_module(f"scarcity.robust.{m.name}") for m in pkgutil.iter_modules(scarcity.robust.__path__)
    ]
    found = {
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and hasattr(cls, "aggregate") and cls is not Rule
    }
    assert found == {type(rule) for rule in ALL.values()}
    assert set(ALL) == TURNS | BY_COORDINATE, "say of a new rule whether it turns with the space"
    assert not TURNS & BY_COORDINATE


@every_rule
@few
@given(seed=seeds)
def test_the_order_of_the_rows_does_not_matter(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    order = rng.permutation(len(rows))
    weights = rng.uniform(0.7, 1.0, len(rows)) if rng.integers(2) else np.ones(len(rows))
    one, other = ALL[name].aggregate(rows, weights), ALL[name].aggregate(rows[order], weights[order])
    np.testing.assert_allclose(other.vector, one.vector, atol=1e-9)
    if "+" not in name:  # Of mixed rows that are equal, rounding decides which one counts as trimmed.
        np.testing.assert_allclose(other.weights, one.weights[order], atol=1e-9)


@every_rule
@few
@given(seed=seeds)
def test_moving_all_rows_moves_the_aggregate(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    shift = 10.0 * rng.standard_normal(rows.shape[1])
    np.testing.assert_allclose(ALL[name](rows + shift), ALL[name](rows) + shift, atol=1e-9)


@every_rule
@few
@given(seed=seeds)
def test_far_from_the_origin_the_reference_keeps_the_digits(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    shift = 1e6 * np.sign(rng.standard_normal(rows.shape[1]))
    moved = ALL[name].aggregate(rows + shift, reference=shift).vector
    np.testing.assert_allclose(moved - shift, ALL[name](rows), atol=1e-5)


@every_rule
@few
@given(seed=seeds, factor=st.sampled_from([1e-100, 1e-3, -1.0, 7.0, 1e100]))
def test_scaling_all_rows_scales_the_aggregate(name: str, seed: int, factor: float) -> None:
    _, rows = drawn(seed)
    np.testing.assert_allclose(ALL[name](factor * rows) / factor, ALL[name](rows), atol=1e-9)


@pytest.mark.parametrize("name", sorted(TURNS))
@few
@given(seed=seeds)
def test_turning_the_space_turns_the_aggregate_of_a_distance_rule(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((rows.shape[1], rows.shape[1])))
    np.testing.assert_allclose(ALL[name](rows @ turn), ALL[name](rows) @ turn, atol=1e-9)


@pytest.mark.parametrize("name", sorted(IN_RANGE))
@few
@given(seed=seeds, size=st.sampled_from([1.0, 2.0, 1e3, 1e30]))
def test_a_coordinate_rule_stays_inside_the_range_of_the_honest_rows(name: str, seed: int, size: float) -> None:
    rng, honest = drawn(seed)
    lies = size * rng.standard_normal((F, honest.shape[1]))
    vector = ALL[name](np.vstack([lies, honest]))
    assert np.all(vector >= honest.min(axis=0) - 1e-12)
    assert np.all(vector <= honest.max(axis=0) + 1e-12)


@pipelines_too
@few
@given(seed=seeds, size=st.sampled_from([1e3, 1e30, 1e160, 1.7e308]), row=st.integers(0, 8))
def test_f_huge_rows_keep_the_aggregate_near_the_honest_rows(name: str, seed: int, size: float, row: int) -> None:
    rng, honest = drawn(seed)
    lies = size * np.sign(rng.standard_normal((F, honest.shape[1])))
    result = ALSO[name].aggregate(np.insert(honest, [min(row, len(honest))] * F, lies, axis=0))
    assert np.isfinite(result.vector).all()
    if result.f == 0:
        assert np.abs(result.vector).max() > min(size, 1e140) / 100, "one liar is enough to break the mean"
    else:
        assert np.linalg.norm(result.vector) <= 2.0 * np.linalg.norm(honest, axis=1).max()


@pipelines_too
@few
@given(seed=seeds)
def test_equal_rows_give_themselves(name: str, seed: int) -> None:
    _, rows = drawn(seed)
    np.testing.assert_allclose(ALSO[name](np.tile(rows[0], (9, 1))), rows[0], rtol=1e-12)


@every_rule
@few
@given(seed=seeds)
def test_the_input_is_never_modified_and_its_layout_does_not_matter(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    rows[3] = 1e300  # This row is bounded, in a copy.
    weights, reference = rng.uniform(0.5, 1.0, len(rows)), rng.standard_normal(rows.shape[1])
    before = (rows.tobytes(), weights.tobytes(), reference.tobytes())
    for array in (rows, weights, reference):
        array.flags.writeable = False
    expected = ALL[name].aggregate(rows, weights, reference).vector
    for layout in (list(rows), rows.tolist(), np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2]):
        assert ALL[name].aggregate(layout, weights, reference).vector.tobytes() == expected.tobytes()
    assert (rows.tobytes(), weights.tobytes(), reference.tobytes()) == before


@every_rule
@few
@given(seed=seeds, scale=st.sampled_from([0.25, 0.125]))
def test_weights_are_relative_and_equal_ones_change_nothing(name: str, seed: int, scale: float) -> None:
    rng, rows = drawn(seed)
    plain = ALL[name].aggregate(rows)
    np.testing.assert_allclose(ALL[name].aggregate(rows, np.full(len(rows), scale)).vector, plain.vector, rtol=1e-12)
    weights = rng.uniform(0.7, 1.0, len(rows))
    one, other = ALL[name].aggregate(rows, weights), ALL[name].aggregate(rows, scale * weights)
    np.testing.assert_allclose(other.vector, one.vector, rtol=1e-12, atol=1e-12)


@pipelines_too
@few
@given(seed=seeds)
def test_the_weights_of_a_result_are_shares_and_name_the_selected(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    result = ALSO[name].aggregate(rows, rng.uniform(0.7, 1.0, len(rows)))
    assert np.all(result.weights >= 0.0)
    np.testing.assert_allclose(result.weights.sum(), 1.0)
    assert result.selected == tuple(np.flatnonzero(result.weights).tolist())
    assert (result.n, result.vector.dtype, result.scores.shape) == (len(rows), np.float64, (len(rows),))
    if name in TURNS:  # The aggregate of such a rule is its weights on the rows.
        np.testing.assert_allclose(result.vector, result.weights @ rows, atol=1e-12)


@pytest.mark.parametrize("name", ["krum", "krum, allouah", "multikrum"])
def test_ties_go_to_the_lowest_row(name: str) -> None:
    corners = np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)] * 10)
    kept = len(corners) - F if name == "multikrum" else 1
    assert ALL[name].aggregate(corners).selected == tuple(range(kept))


@pytest.mark.parametrize("name", ["average", "trmean", "multikrum", "bulyan", "nnm+trmean"])
@few
@given(seed=seeds)
def test_where_nobody_may_lie_a_rule_that_leaves_out_f_rows_is_the_weighted_mean(name: str, seed: int) -> None:
    rng, rows = drawn(seed)
    weights = rng.uniform(0.1, 1.0, len(rows))
    vector = make_rule(name, 0).aggregate(rows, weights).vector
    np.testing.assert_allclose(vector, np.average(rows, axis=0, weights=weights), atol=1e-12)


def test_ties_go_to_the_lowest_rows_where_many_are_chosen() -> None:
    corners = np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])
    rows = np.vstack([2.0 * corners, corners] * 7)
    near = [row for row in range(56) if row % 8 >= 4]
    far = [row for row in range(56) if row % 8 < 4]
    result = MultiKrum(15).aggregate(rows)
    assert len(set(result.scores.tolist())) == 2
    assert result.selected == tuple(sorted(near + far[: 56 - 15 - len(near)]))


@every_rule
def test_float32_is_summed_in_float64(name: str) -> None:
    rows = np.random.default_rng(4).standard_normal((12, 5000)).astype(np.float32)
    np.testing.assert_allclose(ALL[name](rows), ALL[name](rows.astype(np.float64)), rtol=1e-12, atol=1e-12)
