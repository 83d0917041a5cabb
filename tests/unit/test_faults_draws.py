"""Draws by number, which decide about packets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.chance import Chance


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_a_draw_depends_on_its_number_alone(numbers: list[int]) -> None:
    in_order = Chance(1).draws("loss", "a", "b")
    known = [in_order.uniform(number) for number in range(101)]
    asked = Chance(1).draws("loss", "a", "b")
    assert [asked.uniform(number) for number in numbers] == [known[number] for number in numbers]


def test_draws_of_different_labels_or_seeds_differ() -> None:
    draws = [Chance(seed).draws("loss", *labels).uniform(0) for seed in (1, 2) for labels in (("a", "b"), ("b", "a"))]
    assert len(set(draws)) == 4


def test_draws_fill_the_unit_interval_and_neighbours_are_independent() -> None:
    source = Chance(5).draws("loss", "a", "b")
    draws = np.array([source.uniform(number) for number in range(8000)])
    # Both bounds are crossed with probability 1e-6; the seed is fixed.
    assert np.abs(np.sort(draws) - (np.arange(8000) + 0.5) / 8000).max() < 2.7 / np.sqrt(8000)
    for lag in (1, 7, 8):
        assert abs(np.corrcoef(draws[lag:], draws[:-lag])[0, 1]) < 4.9 / np.sqrt(8000)


def test_draws_are_golden() -> None:
    draws = Chance(7).draws("loss", "a", "b")
    assert [round(draws.uniform(number), 6) for number in (0, 7, 8)] == [0.398497, 0.04735, 0.831836]
