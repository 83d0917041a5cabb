"""A CSV file of the user's as a `Source`: one row a party and time, checked before anything is believed.

Every refusal names file, row (the file's line, the heading is line 1), column and value. An empty cell or NA is a
missing value; `nan` and `inf` are refused. The csv module reads it, so that a plain installation is enough.
"""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import numpy as np

from scarcity.engine import Schema, Variable
from scarcity.errors import ConfigError, InvalidRow
from sim.sources import Party, Source, split_party, unusable

LEARN_SHARE: Final = 2 / 3  # of the time that the file covers; the rest is held out
_MISSING: Final = frozenset({"", "NA"})
_MAX_ABSOLUTE: Final = 1e100  # the engine's own bound of a value
_MAX_TIME: Final = 10**15


@attrs.frozen
class TableColumns:
    """Which columns of the file say whose row it is, where the party belongs, and when.

    Attributes:
        party: column of party ids.
        domain: column of the domains (baskets).
        time: column of ISO dates or whole numbers.
        variables: columns to learn from; empty: the schema's, or all others without a schema.
    """

    party: str
    domain: str
    time: str
    variables: tuple[str, ...] = ()


def table_source(path: Path, columns: TableColumns, schema: Schema | None = None) -> Source:
    """Return the parties of a CSV file; the first two thirds of the time it covers are for learning.

    Parties whose learning rows are too few for one difference or all lags are left out and named.

    Raises:
        ConfigError: the file cannot be read, or columns are missing, unknown or named twice.
        InvalidRow: a bad cell, a time that comes twice for a party, a party without a complete row or in two domains.
    """
    heading, lines = _read(path)
    schema = _schema_of(path, heading, columns, schema)
    reader = _LineReader(path, columns, schema, heading)
    cells = [reader.read(number, line) for number, line in lines]
    if not cells:
        raise InvalidRow(f"{path}: no rows behind the heading")
    step = _time_step(path, columns.time, cells)
    return _assemble(path, schema, [attrs.evolve(cell, time=step(cell)) for cell in cells])


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the heading and (line number, cells) of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(reader, [])]
            return heading, [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _schema_of(path: Path, heading: list[str], columns: TableColumns, schema: Schema | None) -> Schema:
    """Return the schema of the wanted variables, all of which are columns."""
    twice = sorted({name for name in heading if heading.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: columns {twice} come twice in the heading")
    roles = (columns.party, columns.domain, columns.time)
    if len(set(roles)) < len(roles):
        raise ConfigError(f"party, domain and time must be three different columns, got {', '.join(roles)}")
    known = schema.names if schema else tuple(name for name in heading if name not in roles)
    wanted = columns.variables or known
    if strange := [name for name in wanted if name not in known or name in roles]:
        raise ConfigError(f"variables {strange} are unknown; known are {', '.join(known)}")
    if missing := [name for name in (*roles, *wanted) if name not in heading]:
        raise ConfigError(f"{path}: columns {missing} are missing; the heading has {', '.join(heading)}")
    if schema is None:
        return Schema([Variable(name) for name in wanted])
    return attrs.evolve(schema, variables=[schema.variables[schema.names.index(name)] for name in wanted])


@attrs.frozen
class _Cell:
    """One line of the file. `date` is None when the time column holds whole numbers."""

    line: int
    party: str
    domain: str
    time: int
    date: dt.date | None
    values: tuple[float, ...]


@attrs.frozen
class _LineReader:
    path: Path
    columns: TableColumns
    schema: Schema
    heading: list[str]

    def read(self, number: int, cells: list[str]) -> _Cell:
        if len(cells) != len(self.heading):
            raise InvalidRow(f"{self.path}, row {number}: {len(cells)} cells, the heading has {len(self.heading)}")
        text = dict(zip(self.heading, (cell.strip() for cell in cells), strict=True))
        time, date = self._time(number, text[self.columns.time])
        return _Cell(
            line=number,
            party=self._id(number, self.columns.party, text, slashes=False),
            domain=self._id(number, self.columns.domain, text, slashes=True),
            time=time,
            date=date,
            values=tuple(self._number(number, name, text[name]) for name in self.schema.names),
        )

    def _bad(self, number: int, column: str, value: str, expected: str) -> InvalidRow:
        return InvalidRow(f"{self.path}, row {number}, column {column!r}: value {value!r} is not {expected}")

    def _id(self, number: int, column: str, text: dict[str, str], *, slashes: bool) -> str:
        value = text[column]
        # 100 bytes leave room for the role's prefix within the roster's limit.
        if not value or not value.isprintable() or len(value.encode()) > 100:
            raise self._bad(number, column, value, "a name of 1 to 100 printable bytes")
        if not slashes and ("/" in value or value == "coordinator"):
            raise self._bad(number, column, value, "a party's name: it may hold no slash and not be 'coordinator'")
        return value

    def _time(self, number: int, value: str) -> tuple[int, dt.date | None]:
        try:
            date = dt.date.fromisoformat(value) if "-" in value[1:] else None
            time = int(value.replace("_", "?")) if date is None else date.toordinal()
        except ValueError:
            raise self._bad(number, self.columns.time, value, "an ISO date (2024-03-31) or a whole number") from None
        if abs(time) > _MAX_TIME:
            raise self._bad(number, self.columns.time, value, f"a time index within {_MAX_TIME:.0e}")
        return time, date

    def _number(self, number: int, column: str, value: str) -> float:
        if value in _MISSING:
            return math.nan
        try:
            parsed = float(value.replace("_", "?"))  # Python reads 1_000 as a number, a table does not mean it
        except ValueError:
            raise self._bad(number, column, value, "a number (leave a missing one empty)") from None
        if not abs(parsed) <= _MAX_ABSOLUTE:
            raise self._bad(number, column, value, "a finite number (leave a missing one empty)")
        return parsed


def _time_step(path: Path, column: str, cells: Sequence[_Cell]) -> Callable[[_Cell], int]:
    """Return what turns a line into a time index such that the file's usual step is one.

    Dates of one day of the month (monthly, quarterly, yearly data) count months, others days. Either is divided by the
    largest step that fits all of them, so that weekly or yearly rows have neighbours.
    """
    dated = [cell for cell in cells if cell.date is not None]
    if dated and len(dated) < len(cells):
        other = next(cell for cell in cells if cell.date is None)
        raise InvalidRow(f"{path}, row {other.line}, column {column!r}: value {other.time} stands among ISO dates")
    monthly = len(dated) > 0 and len({cell.date.day for cell in dated if cell.date}) == 1
    unit = _month if monthly else _own_time
    times = sorted({unit(cell) for cell in cells})
    step = math.gcd(*(b - a for a, b in itertools.pairwise(times))) or 1
    return lambda cell: unit(cell) // step


def _month(cell: _Cell) -> int:
    return cell.time if cell.date is None else 12 * cell.date.year + cell.date.month


def _own_time(cell: _Cell) -> int:
    return cell.time


def _assemble(path: Path, schema: Schema, cells: Sequence[_Cell]) -> Source:
    by_party: dict[str, list[_Cell]] = {}
    for cell in cells:
        by_party.setdefault(cell.party, []).append(cell)
    first, last = min(cell.time for cell in cells), max(cell.time for cell in cells)
    learn_before = first + math.ceil((last - first + 1) * LEARN_SHARE)
    parties, left_out = [], []
    for name in sorted(by_party):
        party = _party(path, name, sorted(by_party[name], key=lambda cell: cell.time), learn_before)
        if reason := unusable(party, schema):
            left_out.append((name, reason))
        else:
            parties.append(party)
    if not parties:
        raise InvalidRow(f"{path}: no party has enough rows for learning; {left_out[0][0]}: {left_out[0][1]}")
    note = f"{path.name}: {len(parties)} parties, rows before time index {learn_before} for learning"
    return Source(schema, tuple(parties), note, tuple(left_out))


def _party(path: Path, name: str, cells: Sequence[_Cell], learn_before: int) -> Party:
    for before, cell in itertools.pairwise(cells):
        if cell.time == before.time:
            raise InvalidRow(f"{path}, row {cell.line}: party {name!r} has this time in row {before.line} already")
        if cell.domain != before.domain:
            raise InvalidRow(
                f"{path}, row {cell.line}: party {name!r} is in domain {cell.domain!r}, "
                f"in row {before.line} in {before.domain!r}"
            )
    rows = np.array([cell.values for cell in cells], dtype=np.float64)
    if not np.isfinite(rows).all(axis=1).any():
        raise InvalidRow(f"{path}: party {name!r} is empty: none of its {len(rows)} rows has a value in every column")
    times = np.array([cell.time for cell in cells], dtype=np.int64)
    return split_party(name, cells[0].domain, times, rows, learn_before=learn_before)
