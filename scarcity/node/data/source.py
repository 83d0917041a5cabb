"""Rows at rest: parties, their domains and the schema that they share, read from a file and checked before use.

A table has one row a party and time, as CSV or Parquet (`scarcity.node.data.table_files`). Every refusal names file,
row (the heading is line 1), column and value. An empty cell or NA is a missing value; `nan` and `inf` are refused.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import attrs
import numpy as np

from scarcity.engine import Schema, Variable
from scarcity.engine.arrays import FloatArray, IntArray
from scarcity.engine.rows import MAX_ABSOLUTE
from scarcity.errors import ConfigError, InvalidRow
from scarcity.node.data.table_files import read_table

LEARN_SHARE: Final = 2 / 3  # of the time that the file covers; the rest is held out
_MISSING: Final = frozenset({"", "NA"})
_MAX_TIME: Final = 10**15
_same_array = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen
class Party:
    """One party's rows, sorted by time.

    Attributes:
        id: a client id of the federation.
        domain: its basket.
        times: shape (T,), int64, strictly increasing durable time indices.
        rows: shape (T, p), float64 in the schema's order; NaN where a value is missing.
        held_out_times: shape (S,), all behind `times`.
        held_out: shape (S, p): rows that no federation sees, for measuring prediction.
    """

    id: str
    domain: str
    times: IntArray = attrs.field(eq=_same_array)
    rows: FloatArray = attrs.field(eq=_same_array)
    held_out_times: IntArray = attrs.field(eq=_same_array)
    held_out: FloatArray = attrs.field(eq=_same_array)


def chosen(parties: Sequence[Party], who: str | None) -> tuple[Party, ...]:
    """Return the party of an id, all of them for None.

    Raises:
        ConfigError: nobody has that id.
    """
    found = tuple(party for party in parties if who is None or party.id == who)
    if not found:
        known = ", ".join(party.id for party in parties[:8]) + (", .." if len(parties) > 8 else "")
        raise ConfigError(f"no party {who!r} in the file; there are {known}")
    return found


@attrs.frozen
class Source:
    """What a swarm learns from.

    Attributes:
        schema: shared by all parties.
        parties: sorted by id.
        note: one line for people.
        left_out: (party, reason) of those that have too few rows to take part.
    """

    schema: Schema
    parties: tuple[Party, ...]
    note: str
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains, sorted."""
        return tuple(sorted({party.domain for party in self.parties}))


def split_party(name: str, domain: str, times: IntArray, rows: FloatArray, *, learn_before: int) -> Party:
    """Return the party whose rows before the time index `learn_before` are for learning, the rest held out."""
    cut = int(np.searchsorted(times, learn_before))
    return Party(name, domain, times[:cut], rows[:cut], times[cut:], rows[cut:])


def unusable(party: Party, schema: Schema) -> str:
    """Return why nothing can be formed from a party's learning rows; empty when something can.

    A lagged link needs L + 1 complete rows in a run, a difference two complete rows H apart.
    """
    complete = party.times[np.isfinite(party.rows).all(axis=1)]
    runs = np.ones(len(complete), dtype=np.bool_)
    for lag in range(1, schema.lags + 1):
        runs &= np.isin(complete - lag, complete)
    if not runs.any():
        return f"no {schema.lags + 1} complete rows in a run"
    if not np.isin(complete - schema.horizon, complete).any():
        return f"no two complete rows {schema.horizon} apart"
    return ""


@attrs.frozen
class TableColumns:
    """Which columns of the file say whose row it is, where the party belongs, and when.

    Attributes:
        party: column of party ids; empty: the file is one party's.
        domain: column of the domains (baskets); empty: there is one.
        time: column of ISO dates or whole numbers; empty: a row a step, in the file's order.
        variables: columns to learn from; empty: the schema's, or all others without a schema.

    Raises:
        ConfigError: a party column without a time column.
    """

    party: str = ""
    domain: str = ""
    time: str = ""
    variables: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.party and not self.time:
            raise ConfigError(f"rows of several parties (column {self.party!r}) need a column of times")

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that are named and hold no variable."""
        return tuple(name for name in (self.party, self.domain, self.time) if name)


def schema_of(path: Path, heading: list[str], columns: TableColumns, schema: Schema | None) -> Schema:
    """Return the schema of the wanted variables, all of which are columns.

    Raises:
        ConfigError: columns are missing, unknown or named twice.
    """
    twice = sorted({name for name in heading if heading.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: columns {twice} come twice in the heading")
    roles = columns.roles
    if len(set(roles)) < len(roles):
        raise ConfigError(f"party, domain and time must be different columns, got {', '.join(roles)}")
    known = schema.names if schema else tuple(name for name in heading if name not in roles)
    wanted = columns.variables or known
    if strange := [name for name in wanted if name not in known or name in roles]:
        raise ConfigError(f"variables {strange} are unknown; known are {', '.join(known)}")
    if missing := [name for name in (*roles, *wanted) if name not in heading]:
        hint = "; the schema names them: rename columns, or correct it" if schema and set(missing) & set(wanted) else ""
        raise ConfigError(f"{path}: columns {missing} are missing; the heading has {', '.join(heading)}{hint}")
    if schema is None:
        return Schema([Variable(name) for name in wanted])
    return attrs.evolve(schema, variables=[schema.variables[schema.names.index(name)] for name in wanted])


@attrs.frozen
class Record:
    """One row of the file.

    Attributes:
        line: its number in the file, the heading's is 1.
        party: whose it is.
        domain: where the party belongs.
        time: durable time index; steps of the file's calendar are one apart.
        date: None when the time column holds whole numbers.
        values: in the schema's order, NaN where missing.
    """

    line: int
    party: str
    domain: str
    time: int
    date: dt.date | None
    values: tuple[float, ...]


@attrs.frozen
class LineReader:
    """Reads and checks the rows of a file one by one.

    Attributes:
        path: the file, for messages.
        columns: the roles of its columns.
        schema: of the wanted variables.
        heading: the names of all columns.
    """

    path: Path
    columns: TableColumns
    schema: Schema
    heading: list[str]

    def read(self, order: int, number: int, cells: list[str]) -> Record:
        """Return the record of a row: its position among the rows, its number in the file, its cells.

        Raises:
            InvalidRow: a bad cell, or not as many as the heading has.
        """
        if len(cells) != len(self.heading):
            raise InvalidRow(f"{self.path}, row {number}: {len(cells)} cells, the heading has {len(self.heading)}")
        text = dict(zip(self.heading, (cell.strip() for cell in cells), strict=True))
        time, date = self._time(number, text[self.columns.time]) if self.columns.time else (order, None)
        return Record(
            line=number,
            party=self._id(number, self.columns.party, text, slashes=False) if self.columns.party else self.path.stem,
            domain=self._id(number, self.columns.domain, text, slashes=True) if self.columns.domain else "all",
            time=time,
            date=date,
            values=tuple(self._value(number, variable, text[variable.name]) for variable in self.schema.variables),
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
        if time < 0:
            # A ledger charges intervals of rows, and these begin at 0: every client would decline.
            raise self._bad(number, self.columns.time, value, "a time of at least 0: add the same number to all times")
        if time > _MAX_TIME:
            raise self._bad(number, self.columns.time, value, f"a time index of at most {_MAX_TIME:.0e}")
        return time, date

    def _value(self, number: int, variable: Variable, text: str) -> float:
        value = self._number(number, variable.name, text)
        if variable.kind == "binary" and value not in (0.0, 1.0) and not math.isnan(value):
            raise self._bad(number, variable.name, text, "0 or 1, and the schema says that this column is binary")
        return value

    def _number(self, number: int, column: str, value: str) -> float:
        if value in _MISSING:
            return math.nan
        try:
            parsed = float(value.replace("_", "?"))  # Python reads 1_000 as a number, a table does not mean it
        except ValueError:
            raise self._bad(number, column, value, "a number (leave a missing one empty)") from None
        if not math.isfinite(parsed):
            raise self._bad(number, column, value, "a finite number (leave a missing one empty)")
        if abs(parsed) > MAX_ABSOLUTE:
            expected = f"within ±{MAX_ABSOLUTE:.0e}, the bound of a value: bring the column to a larger unit"
            raise self._bad(number, column, value, expected)
        return parsed


@attrs.frozen
class Calendar:
    """What one step of the time index is.

    Attributes:
        unit: what the file counts in: dates of one day of the month (monthly, quarterly, yearly data) count months.
        step: how many units the usual step has; the largest number that fits all times, so that weekly or yearly rows
            have neighbours.
        offset: what is left when a time is divided by the step, the same for all.
    """

    unit: Literal["days", "months", "numbers"]
    step: int = 1
    offset: int = 0

    def index(self, record: Record) -> int:
        """Return the durable time index of a record that was just read."""
        if self.unit == "months" and record.date is not None:
            return (12 * record.date.year + record.date.month - 1) // self.step
        return record.time // self.step

    def text(self, index: int) -> str:
        """Return a time index as the file would write it, months without their day."""
        time = index * self.step + self.offset
        if self.unit == "months":
            return f"{time // 12:04}-{time % 12 + 1:02}"
        return dt.date.fromordinal(time).isoformat() if self.unit == "days" else str(time)


def _calendar(path: Path, column: str, records: Sequence[Record]) -> Calendar:
    dated = [record for record in records if record.date is not None]
    if dated and len(dated) < len(records):
        other = next(record for record in records if record.date is None)
        raise InvalidRow(f"{path}, row {other.line}, column {column!r}: value {other.time} stands among ISO dates")
    one_day = len({record.date.day for record in dated if record.date}) == 1
    unit: Literal["days", "months", "numbers"] = "numbers" if not dated else "months" if one_day else "days"
    times = sorted({Calendar(unit).index(record) for record in records})
    step = math.gcd(*(b - a for a, b in itertools.pairwise(times))) or 1
    return Calendar(unit, step, times[0] % step)


@attrs.frozen
class Table:
    """A file that was read and checked.

    Attributes:
        path: the file, for messages.
        schema: of the wanted variables.
        calendar: what a step of the time index is.
        records: at least one, in the file's order.
    """

    path: Path
    schema: Schema
    calendar: Calendar
    records: tuple[Record, ...]

    def parties(self, learn_share: float = LEARN_SHARE) -> tuple[Party, ...]:
        """Return all parties, sorted by id.

        Args:
            learn_share: share of the time that the file covers whose rows are for learning; the rest is held out.

        Raises:
            InvalidRow: a time that comes twice for a party, a party without a complete row or in two domains.
        """
        by_party: dict[str, list[Record]] = {}
        for record in self.records:
            by_party.setdefault(record.party, []).append(record)
        cut = self.learn_before(learn_share)
        return tuple(
            _party(self.path, name, sorted(by_party[name], key=lambda record: record.time), cut)
            for name in sorted(by_party)
        )

    def learn_before(self, learn_share: float) -> int:
        """Return the time index from which on rows are held out."""
        times = [record.time for record in self.records]
        return min(times) + math.ceil((max(times) - min(times) + 1) * learn_share)


def read_rows(path: Path, columns: TableColumns, schema: Schema | None = None) -> Table:
    """Return the checked rows of a CSV or Parquet file.

    Raises:
        ConfigError: the file cannot be read, columns are missing, unknown or named twice, or the schema's bounds leave
            nothing of a variable.
        InvalidRow: a bad cell.
    """
    heading, lines = read_table(path)
    schema = schema_of(path, heading, columns, schema)
    reader = LineReader(path, columns, schema, heading)
    records = [reader.read(order, number, line) for order, (number, line) in enumerate(lines)]
    if not records:
        raise InvalidRow(f"{path}: no rows behind the heading")
    _require_within_bounds(path, schema, records)
    calendar = _calendar(path, columns.time, records)
    indexed = (attrs.evolve(record, time=calendar.index(record)) for record in records)
    return Table(path, schema, calendar, tuple(indexed))


def _require_within_bounds(path: Path, schema: Schema, records: Sequence[Record]) -> None:
    """Refuse bounds that the file contradicts: clipped to them, every value would be the same."""
    values = np.array([record.values for record in records])
    for column, variable in zip(values.T, schema.variables, strict=True):
        known = column[np.isfinite(column)]
        if variable.bounds is None or not len(known):
            continue
        low, high = variable.bounds
        if known.max() <= low or known.min() >= high:
            raise ConfigError(
                f"{path}, column {variable.name!r}: all values lie between {known.min():g} and {known.max():g}, the "
                f"schema's bounds are [{low:g}, {high:g}]: correct the bounds, or bring the column to the schema's unit"
            )


def table_source(path: Path, columns: TableColumns, schema: Schema | None = None) -> Source:
    """Return the parties of a file; the first two thirds of the time it covers are for learning.

    Parties whose learning rows are too few for one difference or all lags are left out and named.

    Raises:
        ConfigError: as `read_rows`.
        InvalidRow: as `read_rows` and `Table.parties`, or no party has enough rows.
    """
    table = read_rows(path, columns, schema)
    parties, left_out = [], []
    for party in table.parties():
        if reason := unusable(party, table.schema):
            left_out.append((party.id, reason))
        else:
            parties.append(party)
    if not parties:
        raise InvalidRow(f"{path}: no party has enough rows for learning; {left_out[0][0]}: {left_out[0][1]}")
    cut = table.learn_before(LEARN_SHARE)
    note = f"{path.name}: {len(parties)} parties, rows before time index {cut} for learning"
    return Source(table.schema, tuple(parties), note, tuple(left_out))


def _party(path: Path, name: str, records: Sequence[Record], learn_before: int) -> Party:
    for before, record in itertools.pairwise(records):
        if record.time == before.time:
            raise InvalidRow(f"{path}, row {record.line}: party {name!r} has this time in row {before.line} already")
        if record.domain != before.domain:
            raise InvalidRow(
                f"{path}, row {record.line}: party {name!r} is in domain {record.domain!r}, "
                f"in row {before.line} in {before.domain!r}"
            )
    rows = np.array([record.values for record in records], dtype=np.float64)
    if not np.isfinite(rows).all(axis=1).any():
        raise InvalidRow(f"{path}: party {name!r} is empty: none of its {len(rows)} rows has a value in every column")
    times = np.array([record.time for record in records], dtype=np.int64)
    return split_party(name, records[0].domain, times, rows, learn_before=learn_before)
