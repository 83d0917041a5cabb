"""Values out of files: each is asked for by name and kind, and nothing is left over.

A `Kind` says what is allowed and reads it; `Fields` walks one object and names the place of whatever is wrong, so that
an error of any depth reads `<where>: expected <what>, got <that>`. JSON and TOML files are read through it alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

import attrs

from scarcity.errors import ConfigError

_T = TypeVar("_T")
_SHOWN: Final = 60  # characters of a wrong value in a message: enough to find it, too few to flood a screen
Location = tuple[str | int, ...]


@attrs.frozen
class Kind(Generic[_T]):
    """What a value may be.

    Attributes:
        expected: what is allowed, for messages and documents.
        read: returns the value, or raises ValueError (ConfigError is one) or TypeError.
    """

    expected: str
    read: Callable[[Any], _T]


@attrs.frozen
class Required:
    """Stands where a default would: there is none."""


REQUIRED: Final = Required()


@attrs.frozen
class Key(Generic[_T]):
    """One key of a file: the parser, the writer and the documents all read this.

    Attributes:
        name: as it is written.
        kind: what is allowed.
        meaning: what it is, in one line.
        default: what holds when it is left out.
    """

    name: str
    kind: Kind[_T]
    meaning: str
    default: _T | Required = REQUIRED


def of_type(kind: type[_T], value: object) -> _T:
    """Return a value of exactly this type: True is no number."""
    if type(value) is not kind:
        raise TypeError
    return value


def _real(value: object) -> float:
    number = float(cast("float", value)) if type(value) in (int, float) else math.nan
    if math.isnan(number):
        raise TypeError
    return number


def text(expected: str, *, least: int = 1, most: int = 4096) -> Kind[str]:
    """Return the kind of printable text of so many characters."""

    def read(value: object) -> str:
        found = of_type(str, value)
        if not least <= len(found) <= most or not found.isprintable():
            raise ValueError
        return found

    return Kind(expected, read)


def choice(*names: str) -> Kind[str]:
    """Return the kind of one of these words."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError
        return of_type(str, value)

    return Kind(f"one of {', '.join(names)}", read)


def whole(low: int, high: int) -> Kind[int]:
    """Return the kind of whole numbers in [low, high]."""

    def read(value: object) -> int:
        if not low <= of_type(int, value) <= high:
            raise ValueError
        return of_type(int, value)

    return Kind(f"a whole number in {low}..{high}", read)


def real(expected: str, holds: Callable[[float], bool]) -> Kind[float]:
    """Return the kind of numbers, never NaN, for which something holds."""

    def read(value: object) -> float:
        if not holds(_real(value)):
            raise ValueError
        return _real(value)

    return Kind(expected, read)


def hexadecimal(size_bytes: int) -> Kind[bytes]:
    """Return the kind of bytes of a fixed size, written as lower-case hexadecimal digits: one text for one value."""

    def read(value: object) -> bytes:
        found = bytes.fromhex(of_type(str, value))
        if len(found) != size_bytes or found.hex() != value:
            raise ValueError
        return found

    return Kind(f"{2 * size_bytes} lower-case hexadecimal digits", read)


def list_of(kind: Kind[_T], expected: str) -> Kind[tuple[_T, ...]]:
    """Return the kind of lists whose items are of a kind."""
    return Kind(expected, lambda value: tuple(kind.read(item) for item in of_type(list, value)))


def optional(kind: Kind[_T]) -> Kind[_T | None]:
    """Return the kind of a key that may be left out; what it means then, its meaning says."""
    return Kind(kind.expected, kind.read)


def checked_by(check: Callable[[str], _T], expected: str) -> Kind[_T]:
    """Return the kind of texts that a function takes."""
    return Kind(expected, lambda value: check(of_type(str, value)))


class Fields:
    """One object of a file, read key by key.

    Args:
        values: what the file holds there.
        at: where in the file: keys and indices.
        where: turns such a place into words, file first.
        known: the keys that there may be.

    Raises:
        ConfigError: it is no object, or has a key that is not known.
    """

    def __init__(self, values: object, at: Location, where: Callable[[Location], str], known: Iterable[str]) -> None:
        self._at, self._where = at, where
        names = list(known)
        if not isinstance(values, dict):
            self.refuse("", f"expected a group of {', '.join(names)}, got {shown(values)}")
        self._values: Mapping[str, object] = values
        if unknown := [name for name in values if name not in names]:
            self.refuse(unknown[0], f"unknown; expected one of {', '.join(names)}")

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, key: Key[_T]) -> _T:
        """Return the value of a key.

        Raises:
            ConfigError: it is missing and has no default, or is not of its kind.
        """
        if key.name not in self._values:
            if isinstance(key.default, Required):
                self.refuse(key.name, f"missing; expected {key.kind.expected}")
            return key.default
        value = self._values[key.name]
        try:
            return key.kind.read(value)
        except (ValueError, TypeError, OverflowError):
            self.refuse(key.name, f"expected {key.kind.expected}, got {shown(value)}")

    def all(self, keys: Iterable[Key[Any]]) -> dict[str, Any]:
        """Return the values of several keys, by name."""
        return {key.name: self.get(key) for key in keys}

    def group(self, name: str, known: Iterable[str]) -> Fields:
        """Return an object inside this one; an empty one when it is not there, so that what is missing is named."""
        return Fields(self._values.get(name, {}), (*self._at, name), self._where, known)

    def groups(self, name: str, known: Iterable[str]) -> list[Fields]:
        """Return a list of objects inside this one, empty when it is not there."""
        items = self._values.get(name, [])
        if not isinstance(items, list):
            self.refuse(name, f"expected a list of groups, got {shown(items)}")
        names = list(known)
        return [Fields(item, (*self._at, name, i), self._where, names) for i, item in enumerate(items)]

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Raise ConfigError about a key (about the whole object when the name is empty)."""
        raise ConfigError(f"{self._where((*self._at, name) if name else self._at)}: {reason}")


def shown(value: object) -> str:
    """Return a value for a message, cut short, in the words of files rather than of Python."""
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return "a private key, where its path belongs"  # pasted by mistake: it must not go on into a log
    words = repr(value) if not isinstance(value, bool) else str(value).lower()
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def dotted(at: Location) -> str:
    """Return a place as text: `nodes[2].key`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else '?'}" for part in at]
    return "".join(parts).lstrip(".")[:200]


def in_file(path: Path) -> Callable[[Location], str]:
    """Return the `where` of a file without lines: `<file>: nodes[2].key`."""
    return lambda at: f"{path}: {dotted(at)}" if at else str(path)


def read_bounded(path: Path, max_size_bytes: int) -> bytes:
    """Return a file's bytes.

    Raises:
        ConfigError: it cannot be read, or is larger than any that is honest; no more than that is read of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_size_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > max_size_bytes:
        raise ConfigError(f"{path}: more than {max_size_bytes} bytes: this is another kind of file")
    return data


def parse_json(data: bytes, path: Path) -> object:
    """Return the value of JSON bytes, without what JSON leaves open: no key twice, no NaN or infinity.

    Raises:
        ConfigError: they are something else.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"key {next(n for n in names if names.count(n) > 1)[:_SHOWN]!r} occurs twice")
        return found

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        value: object = json.loads(data.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    return value
