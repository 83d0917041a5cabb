"""Sums of rounded Gaussian shares against the ideal Gaussian: the argument of docs/secure-aggregation.md in figures.

The law of m rounded shares is computed exactly (differences of the normal distribution function, convolved), and its
privacy loss curve (hockey-stick divergence between a sum and the same sum moved by Delta) is compared with that of the
ideal Gaussian of variance m sigma_i^2.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from scarcity.federation.secure_aggregation.config import MIN_SHARE_SIGMA


def rounded_gaussian(sigma: float) -> np.ndarray:
    """Return P(round(N(0, sigma^2)) = k) for |k| <= 12 sigma + 2."""
    half = math.ceil(12 * sigma) + 2
    edges = [math.erfc((k - 0.5) / (sigma * math.sqrt(2))) / 2 for k in range(half + 2)]
    upper = np.array(edges[:-1]) - np.array(edges[1:])
    return np.concatenate([upper[:0:-1], upper])


def sum_of_shares(sigma: float, m: int) -> np.ndarray:
    share = rounded_gaussian(sigma)
    law = share
    for _ in range(m - 1):
        law = np.convolve(law, share)
    return law


def hockey_stick(law: np.ndarray, shift: int, epsilon: float) -> float:
    moved = np.concatenate([np.zeros(shift), law])
    fixed = np.concatenate([law, np.zeros(shift)])
    return float(np.maximum(fixed - math.exp(epsilon) * moved, 0).sum())


def ideal(sigma: float, shift: int, epsilon: float) -> float:
    """Return delta(epsilon) of the Gaussian mechanism (Balle and Wang 2018, theorem 5)."""
    a, b = shift / (2 * sigma), epsilon * sigma / shift
    return (math.erfc((b - a) / math.sqrt(2)) - math.exp(epsilon) * math.erfc((a + b) / math.sqrt(2))) / 2


def excess(sigma: float, m: int) -> float:
    """Return the largest relative excess over the ideal curve, over shifts and epsilons with delta above 1e-9."""
    law, total = sum_of_shares(sigma, m), sigma * math.sqrt(m)
    worst = -1.0
    for shift in sorted({1, max(1, round(total / 4)), max(1, round(total)), max(1, round(2 * total))}):
        for epsilon in (0.0, 0.25, 1.0, 3.0):
            bound = ideal(total, shift, epsilon)
            if bound > 1e-9:
                worst = max(worst, hockey_stick(law, shift, epsilon) / bound - 1)
    return worst


@pytest.mark.parametrize("m", [1, 2, 5, 20, 50])
def test_sums_of_rounded_shares_are_as_private_as_the_ideal_gaussian(m: int) -> None:
    assert excess(MIN_SHARE_SIGMA, m) < 1e-12


def test_narrow_shares_are_not_which_is_why_they_are_refused() -> None:
    assert max(excess(0.3, m) for m in (2, 5)) > 0.05
