"""Value types of the accounting: the budget, what it protects, and the one kind of event that is charged.

A budget without a unit and a neighbouring relation says nothing, so a ledger is opened with all three and keeps them.
"""

from __future__ import annotations

import enum
import math
from typing import Any

import attrs


def _real(name: str, value: object) -> float:
    """Return `value` as a float, or name the field that is not a real number (bool and NaN are refused)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"{name} must be a real number, got {value!r}")
    return float(value)


def _epsilon(_instance: Any, _attribute: Any, value: float) -> None:
    if not 0.0 <= _real("epsilon", value) < math.inf:
        raise ValueError(f"epsilon must be finite and >= 0, got {value!r}")


def _delta(_instance: Any, _attribute: Any, value: float) -> None:
    if not 0.0 < _real("delta", value) < 1.0:
        raise ValueError(f"delta must lie strictly between 0 and 1, got {value!r}")


def _positive(_instance: Any, attribute: Any, value: float) -> None:
    if not 0.0 < _real(attribute.name, value) < math.inf:
        raise ValueError(f"{attribute.name} must be finite and > 0, got {value!r}")


@attrs.frozen
class PrivacyParams:
    """A point (epsilon, delta) of approximate differential privacy.

    Attributes:
        epsilon: finite, >= 0.
        delta: strictly between 0 and 1; Gaussian noise gives no pure guarantee.

    Raises:
        ValueError: a field is NaN, no number or out of range; the field is named.
    """

    epsilon: float = attrs.field(validator=_epsilon)
    delta: float = attrs.field(validator=_delta)


class PrivacyUnit(enum.Enum):
    """What one guarantee covers: a client's whole input vector, or one time step of one client."""

    CLIENT = "client"
    RECORD = "record"


class NeighboringRelation(enum.Enum):
    """How two inputs differ: the unit becomes the zero vector, or any other admissible value.

    Two values of norm <= C are 2C apart, one and zero only C: replace-one is charged twice the sensitivity.
    """

    ZERO_OUT = "zero-out"
    REPLACE_ONE = "replace-one"


@attrs.frozen
class GaussianEvent:
    """One release with Gaussian noise.

    Attributes:
        sigma: standard deviation of the noise, in the unit of `sensitivity`; finite, > 0.
        sensitivity: L2 sensitivity under ZERO_OUT, that is the bound C on the norm of what one unit contributes. A
            ledger whose relation is REPLACE_ONE doubles it by itself: never pass 2C.

    Raises:
        ValueError: a field is NaN, infinite, zero or negative; the field is named.
    """

    sigma: float = attrs.field(validator=_positive)
    sensitivity: float = attrs.field(validator=_positive)

    @property
    def mu(self) -> float:
        """The parameter of Gaussian DP under ZERO_OUT: sensitivity / sigma (Dong, Roth & Su 2022)."""
        return self.sensitivity / self.sigma
