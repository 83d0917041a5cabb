"""What a rule refuses, and with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scarcity.errors import ConfigError, InsufficientInputs, InvalidUpdate
from scarcity.robust import (
    DEFAULT_RULE,
    NNM,
    RULES,
    Average,
    Bulyan,
    Krum,
    Median,
    MultiKrum,
    Pipeline,
    TrMean,
    make_rule,
)

GOOD = np.arange(30.0).reshape(10, 3)


def spoiled(row: int, value: float) -> Any:
    vectors = GOOD.copy()
    vectors[row, 1] = value
    return vectors


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([], "at least one vector"),
        (np.empty((0, 3)), "at least one vector"),
        (np.empty((3, 0)), "at least one value"),
        ([[], [], []], "at least one value"),
        (np.arange(3.0), "1 dimensions"),
        (np.zeros((2, 2, 2)), "3 dimensions"),
        ([[0.0, 1.0], [0.0], [1.0, 2.0]], "row 1: 1 values, expected 2"),
        ([np.zeros(2), np.zeros((2, 1))], "row 1: expected 1 dimension"),
        ([[0.0], [[0.0], [0.0, 1.0]]], "row 1: not a vector"),
        (GOOD.astype(int), "floating point vectors, got int64"),
        (GOOD.astype(complex), "got complex"),
        (GOOD.astype(bool), "got bool"),
        (GOOD.astype(object), "got object"),
        ([[0.0], ["one"]], "row 1: expected floating point"),
        ([[0.0], [1]], "row 1: expected floating point values, got int64"),
        (spoiled(7, np.nan), "row 7: value 1 is nan"),
        (spoiled(0, np.inf), "row 0: value 1 is inf"),
        (spoiled(9, -np.inf), "row 9: value 1 is -inf"),
        (spoiled(4, np.nan).astype(np.float32), "row 4: value 1 is nan"),
    ],
)
def test_bad_vectors_are_refused_by_every_rule_with_the_row(name: str, vectors: Any, words: str) -> None:
    rule = make_rule(name, 0)
    with pytest.raises(InvalidUpdate, match=words):
        rule.aggregate(vectors)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0] * 9, "expected 10 weights"),
        ([[1.0]] * 10, "expected 10 weights"),
        (["1"] * 10, "expected 10 weights"),
        ([1.0] * 9 + [0.0], "row 9: weight 0.0"),
        ([1.5] + [1.0] * 9, "row 0: weight 1.5"),
        ([1.0, -0.5] + [1.0] * 8, "row 1: weight -0.5"),
        ([1.0, 1.0, np.nan] + [1.0] * 7, "row 2: weight nan"),
    ],
)
def test_bad_weights_are_refused_with_the_row(weights: Any, words: str) -> None:
    with pytest.raises(InvalidUpdate, match=words):
        TrMean(1).aggregate(GOOD, weights=weights)


@pytest.mark.parametrize(
    "reference",
    [np.zeros(2), np.zeros((1, 3)), np.array([0.0, np.nan, 0.0]), np.zeros(3, dtype=int), np.full(3, 1e300)],
)
def test_a_bad_reference_is_refused(reference: Any) -> None:
    with pytest.raises(InvalidUpdate, match="reference"):
        Krum(1).aggregate(GOOD, reference=reference)


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (Average(), 1),
        (TrMean(2), 5),
        (Median(2), 5),
        (NNM(2), 5),
        (Krum(2), 7),
        (Krum(2, neighbours="allouah"), 5),
        (MultiKrum(2), 7),
        (Bulyan(2), 11),
        (Pipeline([NNM(2)], TrMean(2)), 5),
        (Pipeline([NNM(2)], Krum(1)), 5),
        (Pipeline([NNM(1)], Bulyan(1)), 7),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_a_rule_says_how_many_inputs_it_needs(rule: Any, least: int) -> None:
    assert rule.min_inputs == least
    rule(np.random.default_rng(0).standard_normal((least, 4)))
    if least > 1:
        with pytest.raises(InsufficientInputs, match=f"needs {least} inputs, got {least - 1}"):
            rule(np.zeros((least - 1, 4)))


def test_a_heavy_minority_is_refused_though_the_count_is_enough() -> None:
    with pytest.raises(InsufficientInputs, match=r"1 heaviest inputs hold 0.526 of the weight.*1/2"):
        TrMean(1).aggregate(GOOD, weights=[1.0] + [0.1] * 9)
    with pytest.raises(InsufficientInputs, match=r"0.270 of the weight.*1/4"):
        Bulyan(1).aggregate(GOOD, weights=[1.0] + [0.3] * 9)
    Average().aggregate(GOOD, weights=[1.0] + [0.1] * 9)


@pytest.mark.parametrize("f", [True, 1.0, "1", None, np.int64(1)])
@pytest.mark.parametrize("name", RULES)
def test_a_number_of_liars_that_is_no_int_is_a_type_error(name: str, f: Any) -> None:
    with pytest.raises(TypeError, match="f must be an int"):
        make_rule(name, f)


@pytest.mark.parametrize("name", RULES)
def test_a_negative_number_of_liars_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="got -1"):
        make_rule(name, -1)


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'mean'; known: average, bulyan, krum, median, multikrum, nnm.trmean, trmean"
    ):
        make_rule("mean", 0)


def test_an_unknown_neighbourhood_is_refused() -> None:
    with pytest.raises(ValueError, match="neighbours"):
        Krum(1, neighbours="all")  # type: ignore[arg-type]  # the bad value is the point


def test_only_the_mean_works_on_a_masked_sum() -> None:
    assert [name for name in RULES if not make_rule(name, 0).sees_inputs] == ["average"]
    assert DEFAULT_RULE in RULES


@pytest.mark.parametrize("name", RULES)
def test_one_input_is_enough_where_nobody_lies(name: str) -> None:
    rule = make_rule(name, 0)
    vectors = GOOD[: rule.min_inputs]
    assert np.isfinite(rule(vectors)).all()
