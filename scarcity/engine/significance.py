"""Tail probabilities without scipy, tests against a smallest effect of interest, and multiplicity."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from scarcity.engine.arrays import BoolArray, FloatArray
from scarcity.errors import ConfigError

_HILL_FROM_DF = 200.0  # from there Hill's expansion is right to 2e-10 up to |t| = 10 and to 1e-5 at |t| = 36
_MAX_STEPS = 500  # below df = 200 the continued fraction settles in some 50 steps
_TINY = 1e-300
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _beta_fraction(a: float, b: float, x: FloatArray) -> FloatArray:
    """Return the continued fraction of the incomplete beta function (Lentz; Press et al., Numerical Recipes, 6.4)."""
    c = np.ones_like(x)
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d.copy()
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value = value * c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        value = value * c * d
        if bool(np.all(np.abs(c * d - 1.0) < 1e-15)):
            break
    return value


def _away_from_zero(value: FloatArray) -> FloatArray:
    return np.where(np.abs(value) < _TINY, _TINY, value)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def normal_upper_tail(z: npt.ArrayLike) -> FloatArray:
    """Return P(Z > z) of a standard normal Z."""
    scaled = np.asarray(z, dtype=np.float64) / math.sqrt(2.0)
    return np.asarray(0.5 * _erfc(scaled), dtype=np.float64)


def _normal_equivalent(t: FloatArray, df: float) -> FloatArray:
    """Return z with P(Z > z) = P(T > t), by Hill's expansion (CACM algorithm 395, 1970)."""
    df = min(df, 1e15)  # the normal limit, and no power below overflows
    a = df - 0.5
    b = 48.0 * a * a
    squared = a * np.log1p(np.square(np.clip(t, -1e150, 1e150)) / df)
    second = (((4.0 * squared + 33.0) * squared + 240.0) * squared + 855.0) / (10.0 * b)
    factor = 1.0 + (squared + 3.0) / b - second / (b + 0.8 * squared * squared + 100.0)
    return np.asarray(np.sign(t) * np.sqrt(squared) * factor, dtype=np.float64)


def t_upper_tail(t: npt.ArrayLike, df: float) -> FloatArray:
    """Return P(T > t) of Student's T with `df` > 0 degrees of freedom.

    Raises:
        ConfigError: df is not positive.
    """
    if not df > 0:
        raise ConfigError(f"df must be positive, got {df}")
    values = np.asarray(t, dtype=np.float64)
    if df >= _HILL_FROM_DF:
        return normal_upper_tail(_normal_equivalent(values, df))
    square = np.square(np.minimum(np.abs(values), 1e150))
    x, y = df / (df + square), square / (df + square)
    a, b = df / 2.0, 0.5
    with np.errstate(divide="ignore", under="ignore"):
        front = np.exp(-a * np.log1p(square / df) + b * np.log(y) - _log_beta(a, b))
    near = x >= (a + 1.0) / (a + b + 2.0)
    one_sided = np.empty_like(x)
    one_sided[~near] = 0.5 * front[~near] * _beta_fraction(a, b, x[~near]) / a
    one_sided[near] = 0.5 * (1.0 - front[near] * _beta_fraction(b, a, y[near]) / b)
    return np.where(values >= 0, one_sided, 1.0 - one_sided)


def effect_p_values(effects: FloatArray, se: FloatArray, df: float, min_effect: float = 0.0) -> FloatArray:
    """Return p-values of H0 |b| <= min_effect against |b| > min_effect; two-sided of H0 b = 0 at min_effect 0.

    The probability of a larger |estimate| grows with |b|, so under H0 it is largest at the edge |b| = min_effect.
    An infinite or zero standard error gives p = 1: nothing was measured.
    """
    if not 0 <= min_effect < math.inf:
        raise ConfigError(f"min_effect must be finite and >= 0, got {min_effect}")
    measured = np.isfinite(se) & (se > 0)
    spread = np.where(measured, se, 1.0)
    with np.errstate(over="ignore"):
        nearer, farther = (np.abs(effects) - min_effect) / spread, (np.abs(effects) + min_effect) / spread
    upper, lower = t_upper_tail(nearer, df), t_upper_tail(farther, df)
    return np.where(measured, np.minimum(upper + lower, 1.0), 1.0)


def accept_false_discovery(p_values: FloatArray, alpha: float, multiplicity: str = "bh") -> BoolArray:
    """Return which hypotheses are rejected at false discovery rate `alpha`, all p-values being one family.

    Args:
        p_values: any shape, in [0, 1].
        alpha: in (0, 1).
        multiplicity: "bh" (Benjamini and Hochberg 1995; independent or positively dependent tests) or "by" (Benjamini
            and Yekutieli 2001; any dependence, at a factor of about log m).

    Raises:
        ConfigError: alpha or multiplicity is out of range.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha must lie in (0, 1), got {alpha}")
    if multiplicity not in ("bh", "by"):
        raise ConfigError(f"multiplicity must be 'bh' or 'by', got {multiplicity!r}")
    flat = np.sort(p_values, axis=None)
    tests = len(flat)
    if multiplicity == "by":
        alpha /= math.fsum(1.0 / rank for rank in range(1, tests + 1))
    below = np.flatnonzero(flat <= alpha * np.arange(1, tests + 1) / max(tests, 1))
    if not len(below):
        return np.zeros(p_values.shape, dtype=np.bool_)
    return np.asarray(p_values <= flat[below[-1]], dtype=np.bool_)
