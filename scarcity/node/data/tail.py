"""One party's rows as they are written: a CSV file that grows, and the learner that feeds them to a client's engine.

The cells are read by the lines that read a file at rest (`scarcity.node.data.source`), with the same words for what is
wrong. Only whole lines are read; the last one may still be being written. What was read before must still be there: a
file that became shorter, or that begins or ends differently up to where it was read, is refused, because its rows would
count twice or under other times. A line that has not been read yet may be mended in place.

A row's durable time index is its whole number or, for an ISO date, its day (or month): it must not depend on which rows
are there, as the calendar of a file at rest does, because a ledger charges intervals of it for ever. So rows that are a
week apart have no neighbours here; give such a file a column of whole numbers that count weeks.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import attrs
import numpy as np

from scarcity.engine import Schema
from scarcity.engine.arrays import FloatArray, IntArray
from scarcity.errors import ConfigError, InsufficientInputs, InvalidRow, LocalError
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.packets import Model, Update
from scarcity.federation.privacy_guard import Layout
from scarcity.node.data.source import Calendar, LineReader, Record, TableColumns, schema_of

CHECKED_BYTES: Final = 1 << 16  # at either end of what was read; what was read up to twice that is checked whole
LINE_BYTES_MAX: Final = 1 << 20  # 40,000 columns; a longer line is a file of another kind
_DAYS: Final = Calendar("days")
log = logging.getLogger("scarcity.node")


@attrs.frozen
class _Mark:
    """How far a file was read, and what it looked like up to there."""

    offset: int = 0
    lines: int = 0
    rows: int = 0
    head: bytes = b""
    end: bytes = b""


class TailedRows:
    """A growing CSV file of one party.

    Args:
        path: the file; it may not be there yet.
        schema: the federation's.
        time: column of ISO dates or whole numbers, which must increase from row to row.
        variables: the columns of the schema's variables, if the config repeats them; empty: the schema's.
        calendar: whether dates count days or months; whole numbers are taken as they are.

    Raises:
        ConfigError: no time column, or other variables than the schema's.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        time: str,
        variables: Sequence[str] = (),
        *,
        calendar: Calendar = _DAYS,
    ) -> None:
        if not time:
            raise ConfigError(f"{path}: rows that go on coming need a column of times")
        if variables and set(variables) != set(schema.names):
            raise ConfigError(
                f"{path}: variables must be the federation's, {', '.join(schema.names)}, got {', '.join(variables)}"
            )
        self._path = path
        self._schema = schema
        self._columns = TableColumns(time=time)
        self._calendar = calendar
        self._mark = _Mark()
        self._reader: LineReader | None = None
        self._last: Record | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def num_rows(self) -> int:
        """Rows that have been read."""
        return self._mark.rows

    def read_new(self, limit: int = 0) -> tuple[FloatArray, IntArray]:
        """Return the rows that were written since the last call, all of them or none.

        Args:
            limit: read at most so many rows; 0: all.

        Returns:
            rows, shape (n, p), float64 in the schema's order with NaN for missing values; times, shape (n,), int64.

        Raises:
            InvalidRow: a bad row among them, named with its column and value; the next call begins before it again.
            ConfigError: the file is not the one that was read before, or is no CSV file with these columns.

        Cost: 3 us a cell, and one look at both ends of what was read.
        """
        try:
            with self._path.open("rb") as file:
                self._require_same(file)
                file.seek(self._mark.offset)
                return self._read(file, limit)
        except FileNotFoundError:
            if self._mark.offset:
                raise ConfigError(f"{self._path}: it is gone, {self._mark.rows} rows of it were read") from None
            return _arrays([], self._schema)
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from None

    def _require_same(self, file: BinaryIO) -> None:
        mark, size = self._mark, file.seek(0, 2)
        if size < mark.offset:
            raise ConfigError(
                f"{self._path}: it has {size} bytes, {mark.offset} of it were read: rows may only be added at its end"
            )
        if _looks(file, mark.offset) != (mark.head, mark.end):
            raise ConfigError(
                f"{self._path}: rows that were read before are not the same any more: rows may only be added at its end"
            )

    def _read(self, file: BinaryIO, limit: int) -> tuple[FloatArray, IntArray]:
        mark, last, offset = self._mark, self._last, self._mark.offset
        reader, lines, records = self._reader, mark.lines, list[Record]()
        while line := self._whole_line(file, lines + 1):
            cells = self._cells(line, lines + 1)
            if reader is None:
                # The byte order mark of a heading is not of its first name.
                heading = [name.strip().removeprefix("\ufeff") for name in cells]
                schema_of(self._path, heading, self._columns, self._schema)
                reader = LineReader(self._path, self._columns, self._schema, heading)
            elif cells:
                last = self._record(reader, lines + 1, cells, last)
                records.append(last)
            lines, offset = lines + 1, offset + len(line)
            if limit and len(records) == limit:
                break
        self._reader, self._last = reader, last
        self._mark = _Mark(offset, lines, mark.rows + len(records), *_looks(file, offset))
        return _arrays(records, self._schema)

    def _whole_line(self, file: BinaryIO, number: int) -> bytes:
        line = file.readline(LINE_BYTES_MAX)
        if len(line) == LINE_BYTES_MAX:
            raise ConfigError(f"{self._path}, row {number}: a line of more than {LINE_BYTES_MAX} bytes")
        return line if line.endswith(b"\n") else b""

    def _cells(self, line: bytes, number: int) -> list[str]:
        try:
            return next(csv.reader([line.decode("utf-8").rstrip("\r\n")], strict=True), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidRow(f"{self._path}, row {number}: not a line of a CSV file in UTF-8: {error}") from None

    def _record(self, reader: LineReader, number: int, cells: list[str], last: Record | None) -> Record:
        record = reader.read(number, number, cells)
        where = f"{self._path}, row {number}, column {self._columns.time!r}"
        if last is not None and (record.date is None) is not (last.date is None):
            raise InvalidRow(f"{where}: ISO dates and whole numbers stand in one column")
        record = attrs.evolve(record, time=self._calendar.index(record) if record.date else record.time)
        if last is not None and record.time <= last.time:
            raise InvalidRow(f"{where}: its time does not come after that of row {last.line}")
        return record


def _looks(file: BinaryIO, offset: int) -> tuple[bytes, bytes]:
    """Return digests of the beginning and of the end of a file's first `offset` bytes."""
    file.seek(0)
    head = file.read(min(offset, CHECKED_BYTES))
    file.seek(max(0, offset - CHECKED_BYTES))
    end = file.read(min(offset, CHECKED_BYTES))
    return (hashlib.blake2b(head).digest(), hashlib.blake2b(end).digest()) if offset else (b"", b"")


def _arrays(records: Sequence[Record], schema: Schema) -> tuple[FloatArray, IntArray]:
    rows = np.array([record.values for record in records], dtype=np.float64).reshape(len(records), schema.num_variables)
    return rows, np.array([record.time for record in records], dtype=np.int64)


class RowsLearner:
    """A client's learner that reads new rows before each update.

    A bad row, or a file that is not the one read before, makes the client decline the round: its basket hears a fixed
    word, and what is wrong with which row is logged on this host alone. Nothing behind the bad row is used until
    somebody has mended it; then the next round goes on from there.

    Args:
        agent: the engine's agent, resumed at `spent_until`.
        tail: the rows.
        spent_until: rows before this time index are spent, as the client's ledger says: they are read for the client's
            own eyes, however many they are, and bring no round anything.
        rows_per_round: most new rows that a round brings; 0: all that are there. More than the federation's `max_rows`
            in one round are refused by everybody, and so a long file serves several rounds.

    Raises:
        ConfigError: `rows_per_round` is no number of rows.
    """

    def __init__(
        self, agent: FederationClientAgent, tail: TailedRows, *, spent_until: int = 0, rows_per_round: int = 0
    ) -> None:
        if rows_per_round < 0:
            raise ConfigError(f"rows_per_round must be a number of rows, 0 for all, got {rows_per_round!r}")
        self._agent = agent
        self._tail = tail
        self._spent_until = spent_until
        self._rows_per_round = rows_per_round
        self._fed_for = 0

    @property
    def layout(self) -> Layout | None:
        """The agent's layout."""
        return self._agent.layout

    @property
    def num_rows(self) -> int:
        """Rows that have been read."""
        return self._tail.num_rows

    def update_for(self, round_id: int) -> Update | None:
        """Feed new rows, and return the update.

        Raises:
            InvalidRow: a bad row; nothing of what is new was fed.
            ConfigError: the file is not the one that was read before.
            InsufficientInputs: too few new rows to form a product.
        """
        try:
            if round_id != self._fed_for:
                self._feed()
                self._fed_for = round_id
            return self._agent.get_shareable_update()
        except InsufficientInputs:
            raise
        except LocalError as error:
            log.warning("%s gives nothing to round %d: %s", self._agent.client_id, round_id, error)
            raise

    def _feed(self) -> None:
        """Feed the next rows; those that an earlier life of this client has spent do not count as such."""
        wanted = self._rows_per_round
        while True:
            rows, times = self._tail.read_new(wanted)
            if not len(times):
                return
            self._agent.engine.process_rows(rows, [int(time) for time in times])
            wanted -= int(np.count_nonzero(times >= self._spent_until))
            if not self._rows_per_round or wanted < 1:
                return

    def accepted(self, update: Update) -> None:
        """Spend the rows of the update."""
        self._agent.accepted(update)

    def receive_model(self, model: Model) -> None:
        """Merge a model into the engine's store."""
        self._agent.receive_model(model)
