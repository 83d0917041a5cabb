"""Audits of the noise: from inside (we know the clipped input) and from outside (we see outputs alone).

Every statistical test uses fixed entropy, states its false-alarm rate (<= 1e-6), and is shown to catch a mutant.
"""

import hashlib
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from scarcity.privacy import (
    GaussianEvent,
    PrivacyAccountant,
    PrivacyParams,
    add_noise,
    clip_to_lattice,
    rounded_gaussian,
)

_Z = NormalDist().inv_cdf(1 - 0.5e-6)  # two-sided false alarm 1e-6
_STEPS = 1 << 12
IntArray = NDArray[np.int64]


def _draw(sigma: float, count: int, label: str) -> IntArray:
    accountant = PrivacyAccountant(PrivacyParams(10.0, 1e-5))
    reservation = accountant.reserve(GaussianEvent(1.0, 1.0), label, "audit")
    return rounded_gaussian(
        sigma, count, reservation, lambda n: hashlib.blake2b(label.encode(), digest_size=n).digest()
    )


def _release(x: NDArray[np.float64], sigma: float, count: int, label: str) -> IntArray:
    """`count` independent releases of x in one draw, shape (count, d)."""
    v = clip_to_lattice(x, 1.0, _STEPS)
    return add_noise(np.tile(v, count), _draw(sigma, count * v.size, label)).reshape(count, v.size)


def _variance_score(residual: IntArray, sigma: float) -> float:
    """Deviation of the sum of squares from sigma^2 + 1/12 a term, in standard deviations of the chi-square."""
    terms = residual.astype(np.float64).ravel() ** 2
    return (float(terms.sum()) / (sigma**2 + 1 / 12) - terms.size) / math.sqrt(2 * terms.size)


@pytest.mark.parametrize("sigma", [1.0, 3.0, 1000.0, 2.0**28, 2.0**36])
def test_white_box_the_residual_has_the_variance_that_was_charged(sigma: float) -> None:
    x = np.array([0.3, -0.2, 5.0, 0.0])
    residual = _release(x, sigma, 400_000, f"white {sigma}") - clip_to_lattice(x, 1.0, _STEPS)
    assert residual.dtype == np.int64
    # Rounding at sigma = 1 keeps variance and kurtosis within 1e-7 of the normal's, far below what 1.6e6 draws can see.
    assert abs(_variance_score(residual, sigma)) < _Z
    assert abs(float(residual.mean())) < _Z * sigma / math.sqrt(residual.size)
    assert abs(_variance_score(_draw(sigma * 1.005, residual.size, "mutant") if sigma * 1.005 <= 2.0**36 else
                               _draw(sigma * 0.995, residual.size, "mutant"), sigma)) > _Z  # fmt: skip


def test_white_box_noise_has_the_shape_of_the_rounded_normal() -> None:
    sigma, count = 3.0, 1_000_000
    noise = _draw(sigma, count, "shape")
    edges = np.arange(-13, 14) - 0.5
    cells = np.bincount(np.searchsorted(edges, noise), minlength=len(edges) + 1)
    cumulative = np.array([0.0, *(NormalDist(0, sigma).cdf(edge) for edge in edges), 1.0])
    expected = count * np.diff(cumulative)
    statistic = float(((cells - expected) ** 2 / expected).sum())
    # Wilson-Hilferty: (chi2 / k)^(1/3) is normal with mean 1 - 2/(9k) and variance 2/(9k).
    k = len(expected) - 1
    assert ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k)) < NormalDist().inv_cdf(1 - 1e-6)


def test_white_box_noise_is_uncorrelated_across_coordinates_and_releases() -> None:
    n, d = 200_000, 4
    first, second = (_draw(100.0, n * d, f"release {index}").reshape(n, d) / 100.0 for index in range(2))
    joined = np.hstack([first, second, np.roll(first, 1, axis=0)])
    correlation = joined.T @ joined / n
    pairs = correlation[np.triu_indices(3 * d, 1)]
    limit = NormalDist().inv_cdf(1 - 0.5e-6 / len(pairs)) / math.sqrt(n)
    assert float(np.abs(pairs).max()) < limit
    copied = np.hstack([first, 0.98 * second + 0.2 * first])
    assert float(np.abs((copied.T @ copied / n)[:d, d:]).max()) > limit


def test_white_box_neighbouring_draws_of_the_stream_are_uncorrelated_in_size_too() -> None:
    size = np.log(np.abs(_draw(1e6, 1_000_000, "stream")) + 1.0)
    size = (size - size.mean()) / size.std()
    for lag in (1, 2, 3):
        assert abs(float(size[lag:] @ size[:-lag]) / len(size)) < _Z / math.sqrt(len(size))


def _upper_bound(successes: int, n: int, alpha: float) -> float:
    """Clopper-Pearson: the p at which P(Binomial(n, p) <= successes) = alpha."""
    k = np.arange(successes + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    choose = logs[n] - logs[k] - logs[n - k]
    low, high = successes / n, 1.0 - 1e-12
    for _ in range(60):
        p = (low + high) / 2
        terms = choose + k * math.log(p) + (n - k) * math.log1p(-p)
        peak = float(terms.max())
        if peak + math.log(float(np.exp(terms - peak).sum())) > math.log(alpha):
            low = p
        else:
            high = p
    return high


def _audited_mu(release: Callable[[float, int, str], IntArray], n: int = 100_000) -> float:
    """A lower bound on mu from outputs at +C e1 and -C e1, false alarm 1e-6 (half for each error rate).

    The likelihood ratio of two Gaussians that differ in the first coordinate is monotone in it, and by symmetry the
    threshold is 0. For a mu-GDP mechanism Phi^-1(1 - alpha) - Phi^-1(beta) <= mu for the two error rates of any test.
    """
    plus, minus = release(1.0, n, "plus"), release(-1.0, n, "minus")
    errors = (int((plus[:, 0] <= 0).sum()), int((minus[:, 0] > 0).sum()))
    normal = NormalDist()
    return -sum(normal.inv_cdf(_upper_bound(count, n, 0.5e-6)) for count in errors)


_SIGMA = 2.0 * _STEPS  # in lattice units: replace-one sensitivity 2 K, so mu = 1
_MU = 1.0


def _input(sign: float) -> NDArray[np.float64]:
    return sign * 50.0 * np.eye(4)[0]


def test_black_box_the_audited_mu_stays_below_the_charged_one() -> None:
    mu = _audited_mu(lambda sign, n, label: _release(_input(sign), _SIGMA, n, label))
    assert 0.95 < mu <= _MU


@pytest.mark.parametrize("mutant", ["half the noise", "C for 2C", "four copies averaged", "no clip", "noiseless"])
def test_black_box_the_auditor_catches(mutant: str) -> None:
    def release(sign: float, n: int, label: str) -> IntArray:
        v = clip_to_lattice(_input(sign), 1.0, _STEPS)
        if mutant in ("half the noise", "C for 2C"):
            return _release(_input(sign), _SIGMA / 2, n, label)
        if mutant == "four copies averaged":
            return sum(
                (_release(_input(sign), _SIGMA, n, f"{label} {copy}") for copy in range(4)), np.zeros((n, 4), int)
            )
        if mutant == "no clip":
            return add_noise(np.tile(50 * v, n), _draw(_SIGMA, n * v.size, label)).reshape(n, v.size)
        return np.tile(v, (n, 1))

    assert _audited_mu(release) > 1.05 * _MU


def test_the_clopper_pearson_bound_covers() -> None:
    assert _upper_bound(0, 100_000, 0.5e-6) == pytest.approx(1 - (0.5e-6) ** 1e-5, rel=1e-9)
    p = _upper_bound(3, 50, 0.05)
    assert sum(math.comb(50, k) * p**k * (1 - p) ** (50 - k) for k in range(4)) == pytest.approx(0.05, rel=1e-9)
