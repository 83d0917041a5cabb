"""Attacks on the arithmetic: finite values that overflow, cancel or drown the others."""

from __future__ import annotations

import numpy as np
import pytest

from scarcity.errors import InvalidUpdate
from scarcity.robust import NNM, RULES, FloatArray, Krum, MultiKrum, Pipeline, TrMean, make_rule

ROBUST = [name for name in RULES if name != "average"]
N, F, D = 23, 5, 300


def honest(seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((N - F, D))


def with_liars(rows: FloatArray, lies: FloatArray) -> FloatArray:
    """Return the rows with the lies before, between and after them."""
    where = np.linspace(0, len(rows), len(lies)).astype(int)
    return np.insert(rows, where, lies, axis=0)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("size", [1e6, 1e25, 1e30, 1e155, 1.7e308])
@pytest.mark.parametrize("together", [True, False])
def test_f_huge_rows_do_not_blur_the_distances_between_honest_rows(name: str, size: float, together: bool) -> None:
    signs = np.sign(np.random.default_rng(1).standard_normal((1 if together else F, D)))
    lies = size * np.broadcast_to(signs, (F, D))
    near = 1e4 * np.broadcast_to(signs, (F, D))
    rule = make_rule(name, F)
    vector = rule(with_liars(honest(), lies))
    if name == "bulyan" and together:
        # Its last choices are among 2 f + 1 rows, where f equal liars are each other's neighbours: some are chosen, and
        # the second stage has to leave them out.
        assert np.abs(vector).max() <= np.abs(honest()).max()
        return
    # Far is far: the aggregate is the one under a plain outlier, to the last digits.
    np.testing.assert_allclose(vector, rule(with_liars(honest(), near)), atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_more_liars_than_f_may_win_but_never_make_a_nan(name: str) -> None:
    rows = honest()
    rows[::2] = 1.7e308 * np.sign(rows[::2])
    assert np.isfinite(make_rule(name, F)(rows if name != "bulyan" else np.vstack([rows, rows]))).all()


@pytest.mark.parametrize("name", ROBUST)
def test_a_reference_opposite_to_a_huge_row_does_not_overflow(name: str) -> None:
    lies = np.full((F, D), 1.7e308)
    vector = make_rule(name, F).aggregate(with_liars(honest(), lies), reference=np.full(D, -1e100)).vector
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 10.0


@pytest.mark.parametrize("name", RULES)
def test_a_nan_hides_behind_no_huge_row(name: str) -> None:
    rows = honest()
    rows[2] = 1.7e308
    rows[11, 7] = np.nan
    with pytest.raises(InvalidUpdate, match="row 11: value 7 is nan"):
        make_rule(name, 0)(rows)


@pytest.mark.parametrize("name", RULES)
def test_float32_rows_beyond_the_square_root_of_its_range_are_no_infinity(name: str) -> None:
    rows = honest().astype(np.float32)
    rows *= np.float32(1e30)
    np.testing.assert_allclose(make_rule(name, 1)(rows), make_rule(name, 1)(rows.astype(np.float64)), rtol=1e-9)


@pytest.mark.parametrize("rule", [Krum(F), MultiKrum(F), Pipeline([NNM(F)], TrMean(F))], ids=lambda rule: rule.name)
def test_float32_and_float64_select_the_same_far_from_the_origin(rule: Krum | MultiKrum | Pipeline) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        reference = 1e3 * np.sign(rng.standard_normal(D))
        rows = reference + with_liars(honest(seed), 3.0 + rng.standard_normal((F, D)))
        wide = rule.aggregate(rows, reference=reference)
        narrow = rule.aggregate(rows.astype(np.float32), reference=reference)
        assert narrow.selected == wide.selected
        np.testing.assert_allclose(narrow.vector, wide.vector, atol=1e-3)


@pytest.mark.parametrize("name", ROBUST)
def test_sign_flippers_get_no_or_little_weight(name: str) -> None:
    rows = 1.0 + 0.3 * honest()
    result = make_rule(name, F).aggregate(np.vstack([-3.0 * rows[:F], rows]))
    assert np.linalg.norm(result.vector - rows.mean(axis=0)) < 0.4 * np.sqrt(D)
    assert result.weights[:F].sum() < 0.1 * F / N
