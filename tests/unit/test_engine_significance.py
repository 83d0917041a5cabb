"""Tail probabilities against published values and closed forms; multiplicity against its definition."""

import math

import numpy as np
import pytest

from scarcity.engine.significance import accept_false_discovery, effect_p_values, normal_upper_tail, t_upper_tail
from scarcity.errors import ConfigError


@pytest.mark.parametrize(
    ("df", "t", "upper"),
    [
        (1, 12.706204736432095, 0.025),
        (2, 4.302652729696142, 0.025),
        (10, 2.2281388519649385, 0.025),
        (30, 2.042272456301238, 0.025),
        (100, 1.9839715185235556, 0.025),
        (1000, 1.9623390808264078, 0.025),
        (5, 4.032142983557536, 0.005),
    ],
)
def test_the_t_tail_has_its_tabulated_values(df, t, upper):
    assert t_upper_tail(t, df) == pytest.approx(upper, rel=1e-10)
    assert t_upper_tail(-t, df) == pytest.approx(1 - upper, rel=1e-10)


def test_the_t_tail_has_its_closed_forms_at_one_and_two_degrees():
    t = np.array([-50.0, -1.0, -1e-9, 0.0, 1e-9, 0.3, 1.0, 7.0, 1e4, 1e8])
    one = np.where(t > 0, np.arctan(1 / np.where(t == 0, 1, t)) / math.pi, 0.5 - np.arctan(t) / math.pi)
    np.testing.assert_allclose(t_upper_tail(t, 1), one, rtol=1e-9)
    np.testing.assert_allclose(t_upper_tail(t[:8], 2), 0.5 - t[:8] / (2 * np.sqrt(2 + t[:8] ** 2)), rtol=1e-9)


def test_the_t_tail_does_not_jump_where_the_method_changes():
    t = np.linspace(-10, 10, 81)
    below, above = t_upper_tail(t, np.nextafter(200.0, 0.0)), t_upper_tail(t, 200.0)
    np.testing.assert_allclose(below, above, rtol=1e-9)


def test_the_t_tail_goes_over_into_the_normal_one():
    t = np.linspace(-6, 6, 49)
    np.testing.assert_allclose(t_upper_tail(t, 1e6), normal_upper_tail(t), rtol=4e-4)
    assert t_upper_tail(1.959963984540054, 1e9) == pytest.approx(0.025, rel=1e-8)
    with pytest.raises(ConfigError, match="df"):
        t_upper_tail(1.0, 0.0)


def test_the_minimum_effect_test_is_two_sided_at_zero_and_half_at_its_edge():
    effects, se = np.array([0.3, -0.3, 0.02]), np.array([0.1, 0.1, 1e-6])
    np.testing.assert_allclose(effect_p_values(effects, se, 50)[:2], 2 * t_upper_tail(3.0, 50))
    assert effect_p_values(effects, se, 50, 0.02)[2] == pytest.approx(0.5)
    assert np.all(effect_p_values(effects, se, 50, 0.02)[:2] > effect_p_values(effects, se, 50)[:2])


def test_nothing_measured_gives_p_one():
    np.testing.assert_array_equal(effect_p_values(np.ones(3), np.array([np.inf, 0.0, np.nan]), 9), np.ones(3))


def test_the_smallest_effect_holds_its_level_at_the_edge():
    rng = np.random.default_rng(4)
    p_values = effect_p_values(0.02 + 0.01 * rng.standard_normal(100_000), np.full(100_000, 0.01), 1e9, 0.02)
    assert (p_values <= 0.05).mean() == pytest.approx(0.05, abs=0.0035)  # 5 standard deviations


@pytest.mark.parametrize("multiplicity", ["bh", "by"])
def test_step_up_agrees_with_its_definition(multiplicity):
    rng = np.random.default_rng(5)
    for _ in range(50):
        p_values = np.concatenate((rng.uniform(size=30), rng.uniform(0, 0.01, size=rng.integers(0, 10))))
        ranked, tests = np.sort(p_values), len(p_values)
        penalty = sum(1 / k for k in range(1, tests + 1)) if multiplicity == "by" else 1.0
        passing = [k for k in range(1, tests + 1) if ranked[k - 1] <= 0.05 * k / (tests * penalty)]
        expected = p_values <= (ranked[max(passing) - 1] if passing else -1)
        np.testing.assert_array_equal(accept_false_discovery(p_values, 0.05, multiplicity), expected)


def test_settings_out_of_range_are_refused():
    p_values = np.array([0.1])
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="alpha"):
            accept_false_discovery(p_values, alpha)
    with pytest.raises(ConfigError, match="multiplicity"):
        accept_false_discovery(p_values, 0.05, "holm")
    with pytest.raises(ConfigError, match="min_effect"):
        effect_p_values(p_values, p_values, 5, -0.1)
    assert accept_false_discovery(np.zeros((0,)), 0.05).shape == (0,)
