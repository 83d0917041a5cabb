"""Values worked out by hand: a rule that gives another one is another rule."""

from __future__ import annotations

import numpy as np
import pytest

from scarcity.robust import NNM, Bulyan, FloatArray, Krum, Median, MultiKrum, Pipeline, Rule, TrMean, make_rule


def column(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)[:, None]


FIVE = column(0, 1, 2.5, 3, 100)


@pytest.mark.parametrize(
    ("rule", "vectors", "expected"),
    [
        (Median(), np.array([(1.0, 10.0), (2.0, 20.0), (100.0, -5.0)]), [2.0, 10.0]),
        (TrMean(1), column(0, 1, 2, 3, 100), [2.0]),
        (Krum(1), FIVE, [2.5]),
        (Krum(1, neighbours="allouah"), FIVE, [1.0]),
        (MultiKrum(1), FIVE, [1.625]),
        (Pipeline([NNM(1)], TrMean(1)), FIVE, [1.625]),
        (Bulyan(1), column(0, 1, 2, 3, 4, 5, 100), [2.0]),
        (make_rule("average", 1), column(0, 1, 2), [1.0]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_rule_gives_the_value_worked_out_by_hand(rule: Rule, vectors: FloatArray, expected: list[float]) -> None:
    assert rule(vectors).tolist() == expected


def test_nnm_mixes_each_row_with_its_nearest() -> None:
    assert NNM(1)(FIVE).ravel().tolist() == [1.625, 1.625, 1.625, 1.625, 26.625]


def test_krum_names_the_row_it_chose_and_the_scores_it_judged_by() -> None:
    result = Krum(1).aggregate(FIVE)
    assert result.selected == (2,)
    assert result.scores[:4].tolist() == [7.25, 3.25, 2.5, 4.25]
    assert (result.rule, result.n, result.f) == ("krum", 5, 1)


def test_a_liar_gets_no_share_of_the_default_rule() -> None:
    result = make_rule("nnm+trmean", 1).aggregate(FIVE)
    assert result.rule == "nnm+trmean"
    assert result.weights.tolist() == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert result.scores.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_weights_weigh_what_the_trimming_left() -> None:
    result = TrMean(1).aggregate(column(0, 1, 2, 3, 100), weights=[1.0, 0.5, 0.25, 0.25, 1.0])
    assert result.vector == pytest.approx([0.5 * 1 + 0.25 * 2 + 0.25 * 3])
    assert result.weights == pytest.approx([0.0, 0.5, 0.25, 0.25, 0.0])


def test_the_mean_is_weighted() -> None:
    assert make_rule("average", 0).aggregate(column(0, 4), weights=[1.0, 0.25]).vector == pytest.approx([0.8])
