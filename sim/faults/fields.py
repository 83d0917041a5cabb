"""What the values of a fault plan may be. Every error names the key, what came, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from scarcity.errors import ConfigError
from scarcity.node.setup.fields import Kind, of_type, real, text

SHOWN: Final = 60  # characters of a wrong value in a message
MOST: Final = 1_000_000_000
_FLOAT_BITS: Final = 1000  # whole numbers up to here are floats

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def checked(kind: Kind[Any]) -> Check:
    """Return the validator of a field that holds values of a kind."""

    def check(_entry: object, field: attrs.Attribute[Any], value: object) -> None:
        try:
            kind.read(value)
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(f"{field.name} is {repr(value)[:SHOWN]}; allowed: {kind.expected}") from None

    return check


def _after_start(entry: Any, field: attrs.Attribute[float], value: float) -> None:
    if value <= entry.at_s:
        raise ConfigError(f"{field.name} is {value}; allowed: more than at_s, which is {entry.at_s}")


def _tuple_of(least: int, value: object) -> tuple[str, ...]:
    names = of_type(tuple, value)
    if len(names) < least or len(set(names)) != len(names):
        raise ValueError
    return tuple(_GROUP.read(name) for name in names)


def as_float(value: float) -> float:
    """Return whole numbers as floats, so that 30 and 30.0 are one plan; all else as it is, for the check to refuse."""
    return float(value) if type(value) is int and value.bit_length() < _FLOAT_BITS else value


def as_names(value: Iterable[str]) -> tuple[str, ...]:
    """Return a list as a tuple; a bare text stays one, for the check to refuse."""
    return tuple(value) if isinstance(value, list | tuple) else value  # type: ignore[return-value]  # checked next


def of_kinds(value: object, kinds: tuple[type, ...]) -> object:
    """Return a value that is of one of these classes; TypeError otherwise."""
    if not isinstance(value, kinds):
        raise TypeError
    return value


_GROUP: Final = text("a group", most=128)
PROBABILITY = checked(real("a number in [0, 1]", lambda v: 0 <= v <= 1))
START = checked(real("seconds from the start of the run, 0 or more", lambda v: 0 <= v < math.inf))
END = [checked(real("seconds above at_s, or inf", lambda v: v > 0)), _after_start]
HEALED = [checked(real("seconds above at_s, not inf: it must end", lambda v: 0 < v < math.inf)), _after_start]
LASTING = checked(real("seconds above 0, or inf", lambda v: v > 0))
DELAY = checked(real("seconds, 0 or more, not inf", lambda v: 0 <= v < math.inf))
POSITIVE = checked(real("a number above 0, not inf", lambda v: 0 < v < math.inf))
ANY_OF = checked(Kind("a list of groups, each once", lambda v: _tuple_of(0, v)))
SOME_OF = checked(Kind("a list of at least one group, each once", lambda v: _tuple_of(1, v)))
FLAG = checked(Kind("true or false", lambda v: of_type(bool, v)))
