"""What a party measures: ordered variables, lags, and the public constants that the private form needs.

A schema is public and agreed by all parties; its hash travels with every update. Nothing in it may be computed from
the parties' rows: scales and bounds come from common knowledge (a factor of two off does not matter).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from scarcity.errors import ConfigError

KINDS = ("numeric", "binary")
MAX_VARIABLES = 256  # the statistic has (lags + 1) p^2 numbers: 256 variables and 3 lags are 2 MB already
MAX_LAGS = 64
MAX_HORIZON = 10_000
MIN_LATTICE, MAX_LATTICE = 16, 1 << 16  # products below 2^32: a block is exact in float64, 2^31 rows fit int64
MAX_NAME_CHARS = 200
MIN_SCALE, MAX_SCALE = 1e-15, 1e15  # with values below 1e50, sums of squares of scaled values stay below 1e150


def _finite(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{field} must be a finite number, got {value!r}")
    return float(value)


def _whole(value: object, field: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{field} must be a whole number from {low} to {high}, got {value!r}")


def require_text(value: object, field: str, shortest: int = 0) -> None:
    """Raise ConfigError unless the value is text of `shortest` to MAX_NAME_CHARS characters."""
    if not isinstance(value, str) or not shortest <= len(value) <= MAX_NAME_CHARS:
        raise ConfigError(f"{field} must be text of {shortest} to {MAX_NAME_CHARS} characters, got {value!r}")


@attrs.frozen
class Variable:
    """One measured quantity.

    Attributes:
        name: what rows and relations call it; unique in the schema.
        kind: "numeric", or "binary" (0 or 1).
        unit: for people, "" when it has none.
        scale: public guess of its standard deviation, in its unit; None when nobody knows one.
        centre: public guess of its mean, in its unit.
        bounds: public (low, high) to which values are clipped, or None.

    Raises:
        ConfigError: a field is out of range; the message names it.
    """

    name: str
    kind: str = "numeric"
    unit: str = ""
    scale: float | None = None
    centre: float = 0.0
    bounds: tuple[float, float] | None = None

    def __attrs_post_init__(self) -> None:
        require_text(self.name, "variable name", shortest=1)
        where = f"variable {self.name!r}: "
        if self.kind not in KINDS:
            raise ConfigError(f"{where}kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        require_text(self.unit, f"{where}unit")
        if self.scale is not None:
            scale = _finite(self.scale, f"{where}scale")
            if not MIN_SCALE <= scale <= MAX_SCALE:
                raise ConfigError(
                    f"{where}scale must lie in [{MIN_SCALE}, {MAX_SCALE}], got {self.scale!r}: it is "
                    "what the variable usually deviates by; leave it out where nobody knows"
                )
            object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "centre", _finite(self.centre, f"{where}centre"))
        if self.bounds is not None:
            object.__setattr__(self, "bounds", _checked_bounds(self.bounds, where))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON or msgpack."""
        return {
            "name": self.name,
            "kind": self.kind,
            "unit": self.unit,
            "scale": self.scale,
            "centre": self.centre,
            "bounds": None if self.bounds is None else list(self.bounds),
        }


def _checked_bounds(bounds: object, where: str) -> tuple[float, float]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ConfigError(f"{where}bounds must be (low, high), got {bounds!r}")
    low, high = _finite(bounds[0], f"{where}bounds[0]"), _finite(bounds[1], f"{where}bounds[1]")
    if not low < high:
        raise ConfigError(f"{where}bounds must have low < high, got {bounds!r}")
    return low, high


def _as_variables(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    return tuple(variables)


@attrs.frozen
class Schema:
    """Ordered variables and the public constants of the statistics.

    Attributes:
        variables: at least one, names unique; the order is the order of every vector.
        lags: L, how many rows back a cause may lie.
        horizon: H, rows between the two values of a difference D_t = (x_t - x_{t-H}) / scale.
        clip_factor: rows of D are projected to the norm C = clip_factor * sqrt(2 p).
        lattice: K, the number of integer steps that C has.

    Raises:
        ConfigError: a field is out of range or a name comes twice; the message names it.
    """

    variables: tuple[Variable, ...] = attrs.field(converter=_as_variables)
    lags: int = 3
    horizon: int = 10
    clip_factor: float = 0.55
    lattice: int = 4096

    def __attrs_post_init__(self) -> None:
        if not 0 < len(self.variables) <= MAX_VARIABLES:
            raise ConfigError(f"variables: need 1 to {MAX_VARIABLES}, got {len(self.variables)}")
        for variable in self.variables:
            if not isinstance(variable, Variable):
                raise ConfigError(f"variables must hold Variable values, got {variable!r}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(f"variables: duplicate names {', '.join(map(repr, twice))}")
        _whole(self.lags, "lags", 1, MAX_LAGS)
        _whole(self.horizon, "horizon", 1, MAX_HORIZON)
        _whole(self.lattice, "lattice", MIN_LATTICE, MAX_LATTICE)
        factor = _finite(self.clip_factor, "clip_factor")
        if not 1e-6 <= factor <= 1e6:
            raise ConfigError(f"clip_factor must lie in [1e-6, 1e6], got {self.clip_factor!r}")
        object.__setattr__(self, "clip_factor", factor)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(variable.name for variable in self.variables)

    @property
    def num_variables(self) -> int:
        """The number p of variables."""
        return len(self.variables)

    @property
    def has_public_scales(self) -> bool:
        """Whether every variable has a scale: the differenced, record-private form needs it."""
        return all(variable.scale is not None for variable in self.variables)

    @property
    def row_norm(self) -> float:
        """C, the largest norm of a row of D, in units of the scales."""
        return self.clip_factor * math.sqrt(2 * self.num_variables)

    @property
    def hash(self) -> bytes:
        """BLAKE2b-256 of the canonical bytes (JSON, sorted keys, shortest exact floats)."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=32, person=b"scarcity-schema").digest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON or msgpack."""
        return {
            "variables": [variable.to_dict() for variable in self.variables],
            "lags": self.lags,
            "horizon": self.horizon,
            "clip_factor": self.clip_factor,
            "lattice": self.lattice,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Schema:
        """Return the schema of plain values; absent fields take their defaults.

        Raises:
            ConfigError: an unknown key (the known ones are listed), or a field out of range.
        """
        known = _known_fields(cls, fields, "schema")
        variables = known.pop("variables", ())
        if not isinstance(variables, list | tuple):
            raise ConfigError(f"variables must be a list, got {variables!r}")
        made = [Variable(**_known_fields(Variable, entry, "variable")) for entry in variables]
        return cls(variables=made, **known)


def _known_fields(cls: type[attrs.AttrsInstance], fields: object, what: str) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{what} must be a mapping, got {fields!r}")
    known = [attribute.name for attribute in attrs.fields(cls)]
    unknown = sorted(str(key) for key in fields if key not in known)
    if unknown:
        raise ConfigError(f"{what}: unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
    required = "name" if what == "variable" else "variables"
    if required not in fields:
        raise ConfigError(f"{what}: {required} is missing")
    return dict(fields)
