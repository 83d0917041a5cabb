"""The analytic Gaussian mechanism: from a budget to the noise, and from the noise to what it costs.

A Gaussian release with sensitivity / sigma = mu is (epsilon, delta)-DP iff (Balle & Wang 2018, Theorem 8)

    delta >= Q(a) - e^epsilon Q(b),     a = epsilon / mu - mu / 2,   b = epsilon / mu + mu / 2,

Q the upper tail of the normal law. Because epsilon = (b^2 - a^2) / 2, this is e^(-a^2/2) (E(a) - E(b)) / 2 with
E(x) = erfcx(x / sqrt 2), which neither overflows for epsilon in the hundreds nor underflows for a tiny delta: all
comparisons are made on its logarithm. The classic sqrt(2 ln(1.25/delta)) / epsilon is not used: above epsilon = 1 it
is wrong (at epsilon = 10, delta = 1e-5 it gives .4845 where .4999 is needed).

Answers are certified: the logarithm carries a bound on its rounding error, and whatever is returned lies on the side
that promises less. `charge` and `allowance` are the same quantities as exact integers, so that a sum of charges does
not depend on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from scarcity.errors import ConfigError
from scarcity.privacy.events import GaussianEvent, PrivacyParams

_ROOT_2 = math.sqrt(2.0)
_LOG_2 = math.log(2.0)
# exp(x^2) erfc(x) loses x^2 ulp, so the continued fraction takes over early; 80 terms reach the last bit at x = 3.
_DIRECT_UNTIL = 3.0
_FRACTION_TERMS = 80
# A bound on the relative error of `_erfcx`: 9 ulp from exp(x^2) at x = 3, a few from erfc and exp.
_ERFCX_SLACK = 1e-14
# Charges are integers in units of 2^-256: the coarsest step is below 1e-60 of any mu that a real budget allows.
CHARGE_BITS = 256
# Below this many units the integer rounding would no longer be negligible beside a double's.
_SMALLEST_ALLOWANCE = 1 << 60


def _erfcx(x: float) -> float:
    """Return exp(x^2) erfc(x) for x >= 0 (continued fraction of Laplace: Abramowitz & Stegun 7.1.14)."""
    if x < _DIRECT_UNTIL:
        return math.exp(x * x) * math.erfc(x)
    tail = x
    for k in range(_FRACTION_TERMS, 0, -1):
        tail = x + 0.5 * k / tail
    return 1.0 / (math.sqrt(math.pi) * tail)


def _log_delta(mu: float, epsilon: float, *, side: int) -> float:
    """Return a bound on log delta(mu, epsilon) of the Gaussian mechanism: above it (side = +1) or below it (-1)."""
    a = epsilon / mu - 0.5 * mu
    b = epsilon / mu + 0.5 * mu  # a and b carry an absolute error of about b ulp
    if a < 0.0:
        near, far = math.erfc(a / _ROOT_2), _erfcx(b / _ROOT_2) * math.exp(-0.5 * a * a)
        log_scale, slack = -_LOG_2, 0.0
    else:
        near, far = _erfcx(a / _ROOT_2), _erfcx(b / _ROOT_2)
        log_scale, slack = -0.5 * a * a - _LOG_2, a * b * 1e-15
    gap = near - far + side * (near + far) * (_ERFCX_SLACK + b * 1e-15)
    if gap <= 0.0:
        return -math.inf
    return log_scale + math.log(gap) + side * (slack + 4e-16 * abs(log_scale))


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return neighbouring doubles between which `holds` turns from true (at `low`) to false (at `high`)."""
    while True:
        middle = low + 0.5 * (high - low)
        if not low < middle < high:
            return low, high
        if holds(middle):
            low = middle
        else:
            high = middle


def mu_max(epsilon: float, delta: float) -> float:
    """Return the largest mu whose Gaussian mechanism is (epsilon, delta)-DP, rounded down.

    Args:
        epsilon: finite, >= 0.
        delta: strictly between 0 and 1.

    Raises:
        ValueError: an argument is out of range.

    Source: Balle & Wang 2018, Theorem 8; Dong, Roth & Su 2022, Corollary 2.13.
    """
    goal = PrivacyParams(epsilon=epsilon, delta=delta)
    log_goal = math.log(goal.delta)

    def fits(mu: float) -> bool:
        return _log_delta(mu, goal.epsilon, side=1) <= log_goal

    low, high = 0.0, 1.0
    while fits(high):
        low, high = high, 2.0 * high
    while low == 0.0 and not fits(high / 2.0):
        high /= 2.0
        if high < 1e-290:
            return 0.0
    return _boundary(fits, low or high / 2.0, high)[0]


def _epsilon_bounds(mu: float, delta: float) -> tuple[float, float]:
    """Return epsilon(mu, delta) rounded down and rounded up; an infinite upper bound when no double is enough."""
    if not 0.0 <= mu < math.inf:
        raise ValueError(f"mu must be finite and >= 0, got {mu!r}")
    log_goal = math.log(PrivacyParams(epsilon=0.0, delta=delta).delta)
    if mu == 0.0:
        return 0.0, 0.0
    # delta <= Q(a) <= e^(-a^2 / 2): this epsilon is always enough, and a little more makes up for its rounding.
    high = (0.5 * mu * mu + mu * math.sqrt(-2.0 * log_goal)) * (1.0 + 1e-9) + 1e-300
    if not high < math.inf:
        return 0.0, math.inf
    bounds = []
    for side in (-1, 1):

        def short(epsilon: float, side: int = side) -> bool:
            return _log_delta(mu, epsilon, side=side) > log_goal

        bounds.append(_boundary(short, 0.0, high) if short(0.0) else (0.0, 0.0))
    return bounds[0][0], bounds[1][1]


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest epsilon for which Gaussian DP of parameter mu is (epsilon, delta)-DP, rounded up.

    Args:
        mu: finite, >= 0; for a composition the root of the sum of squares.
        delta: strictly between 0 and 1.

    Raises:
        ValueError: an argument is out of range.
    """
    return _epsilon_bounds(mu, delta)[1]


def epsilon_within(mu: float, delta: float) -> float:
    """Return the same epsilon rounded down: what may be promised as remaining.

    Raises:
        ValueError: an argument is out of range.
    """
    return _epsilon_bounds(mu, delta)[0]


def charge(event: GaussianEvent, *, factor: int = 1) -> int:
    """Return (factor * sensitivity / sigma)^2 in units of 2^-CHARGE_BITS, rounded up from the exact rational value.

    Args:
        event: the release.
        factor: 1 under ZERO_OUT, 2 under REPLACE_ONE.

    Integers add without rounding: the sum of charges is exact and the same in every order.
    """
    ratio = factor * Fraction(event.sensitivity) / Fraction(event.sigma)
    return math.ceil(ratio * ratio * (1 << CHARGE_BITS))


def allowance(budget: PrivacyParams) -> int:
    """Return mu_max(budget)^2 in units of 2^-CHARGE_BITS, rounded down."""
    largest = Fraction(mu_max(budget.epsilon, budget.delta))
    return math.floor(largest * largest * (1 << CHARGE_BITS))


def root_up(total: int) -> float:
    """Return the mu of a total charge, rounded up."""
    if total <= 0:
        return 0.0
    return math.nextafter(math.ldexp(float(math.isqrt(total) + 1), -CHARGE_BITS // 2), math.inf)


def root_down(total: int) -> float:
    """Return the mu of a total charge, rounded down."""
    if total <= 0:
        return 0.0
    return max(0.0, math.nextafter(math.ldexp(float(math.isqrt(total)), -CHARGE_BITS // 2), 0.0))


def calibrate_gaussian(budget: PrivacyParams, releases: int = 1, sensitivity: float = 1.0) -> float:
    """Return the smallest sigma with which a ledger of this budget admits exactly `releases` releases, rounded up.

    Args:
        budget: what all releases may cost together (for noise that is really drawn: `mechanisms.ledger_budget`).
        releases: how many Gaussian releases of one unit compose; >= 1.
        sensitivity: L2 sensitivity under the ledger's relation (2C under REPLACE_ONE); finite, > 0.

    Returns:
        sigma in the unit of `sensitivity`.

    Raises:
        ValueError: `releases` or `sensitivity` is out of range.
        ConfigError: the budget allows no Gaussian release at any sigma that a double can tell from another.

    Source: Balle & Wang 2018, Algorithm 1; composition by Dong, Roth & Su 2022, Corollary 3.3.
    """
    if type(releases) is not int or releases < 1:
        raise ValueError(f"releases must be an integer >= 1, got {releases!r}")
    unit = GaussianEvent(sigma=1.0, sensitivity=sensitivity)
    allowed = allowance(budget)
    if allowed // releases < _SMALLEST_ALLOWANCE:
        raise ConfigError(f"{budget} is too small for {releases} Gaussian releases")
    sigma = unit.sensitivity * math.sqrt(releases) / root_down(allowed)
    sigma *= 1.0 - 1e-14  # start below, so that the first sigma that fits is the smallest one
    while releases * charge(GaussianEvent(sigma=sigma, sensitivity=sensitivity)) > allowed:
        sigma = math.nextafter(sigma, math.inf)
    return sigma
