"""Sums of rounded Gaussian shares against the ideal Gaussian: the numbers behind docs/privacy.md, section Shares.

The law of one share is computed, not sampled; sums are convolutions; the hockey-stick divergence of the sum from its
shift by an integer is compared with the closed form of the Gaussian at the same epsilon.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def _share_law(sigma: float, reach: int) -> FloatArray:
    """P(round(N(0, sigma^2)) = k), k = -reach..reach, to full relative accuracy: upper tails are subtracted."""
    tails = [0.5 * math.erfc((k - 0.5) / (sigma * math.sqrt(2))) for k in range(reach + 2)]
    half = np.array([tails[k] - tails[k + 1] for k in range(1, reach + 1)])
    return np.concatenate([half[::-1], [1.0 - 2.0 * tails[1]], half])


def _sum_law(sigma: float, shares: int) -> FloatArray:
    one = _share_law(sigma, math.ceil(11 * sigma) + 2)
    law = one
    for _ in range(shares - 1):
        law = np.convolve(law, one)
    return law


def _hockey_stick(law: FloatArray, shift: int, epsilon: float) -> float:
    """sup over events S of P(S) - e^epsilon P(S - shift): what delta must be at epsilon."""
    here = np.concatenate([law, np.zeros(shift)])
    there = np.concatenate([np.zeros(shift), law])
    return float(np.maximum(here - math.exp(epsilon) * there, 0.0).sum())


def _gaussian(mu: float, epsilon: float) -> float:
    def upper(x: float) -> float:
        return 0.5 * math.erfc(x / math.sqrt(2))

    return upper(epsilon / mu - mu / 2) - math.exp(epsilon) * upper(epsilon / mu + mu / 2)


def _excess(sigma: float, shares: int, shift: int) -> float:
    """Largest relative excess over the ideal, over epsilons whose delta lies above 1e-12."""
    law = _sum_law(sigma, shares)
    mu = shift / (sigma * math.sqrt(shares))
    worst = -1.0
    for epsilon in np.linspace(0.05, 8.0, 60):
        ideal = _gaussian(mu, float(epsilon))
        if ideal > 1e-12:
            worst = max(worst, _hockey_stick(law, shift, float(epsilon)) / ideal - 1.0)
    return worst


@pytest.mark.parametrize("shares", [1, 2, 5, 20, 50])
def test_a_sum_of_shares_of_eight_steps_is_as_private_as_the_ideal_gaussian(shares: int) -> None:
    for mu in (0.5, 1.5):
        shift = round(mu * 8.0 * math.sqrt(shares))
        assert _excess(8.0, shares, shift) <= 1e-12


def test_a_sum_of_shares_of_half_a_step_and_less_is_measurably_worse() -> None:
    assert _excess(0.5, 2, 1) > 0.05
    assert max(_excess(0.35, shares, 1) for shares in (2, 5)) > 1.0


@pytest.mark.parametrize(("sigma", "shares"), [(0.6, 2), (0.6, 5), (0.8, 3), (8.0, 4)])
def test_the_sum_has_the_law_of_one_rounded_gaussian_plus_uniforms(sigma: float, shares: int) -> None:
    """round(N(0, m sigma^2) + U_1 + .. + U_(m-1)) up to 2 m exp(-2 pi^2 sigma^2 (1 - 1/m)), by Poisson summation."""
    per_step = 64  # the continuous law on a grid of 1/64 step; spectrally accurate, since the law is smooth
    law = _sum_law(sigma, shares)
    reach = len(law) // 2
    grid = np.arange(-(reach + shares) * per_step, (reach + shares) * per_step + 1) / per_step
    frequency = np.fft.fftfreq(len(grid), d=1.0 / per_step)
    # Density of N(0, m sigma^2) + U_1 + .. + U_m; its value at integer k is the mass of the rounded variable there.
    transform = np.exp(-2 * math.pi**2 * shares * sigma**2 * frequency**2) * np.sinc(frequency) ** shares
    density = np.fft.fftshift(np.fft.ifft(transform).real) * per_step
    middle = len(grid) // 2
    mass = density[middle - reach * per_step : middle + reach * per_step + 1 : per_step]
    bound = 2 * shares * math.exp(-2 * math.pi**2 * sigma**2 * (1 - 1 / shares))
    bulk = law > 1e-6
    assert float(np.abs(mass[bulk] / law[bulk] - 1.0).max()) <= bound + 1e-9
