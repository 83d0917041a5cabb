"""Rows from outside, checked before anything is stored: a bad value stops here and leaves no trace.

A value is a finite number, or missing (None or NaN) where the policy allows it. Text, truth values, infinities and
numbers beyond `MAX_ABSOLUTE` are refused, each named by row, variable and value.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

import attrs
import numpy as np

from scarcity.engine.arrays import FloatArray, IntArray
from scarcity.engine.schema import Schema, Variable
from scarcity.errors import ConfigError, InvalidRow

MissingPolicy = Literal["nan", "error"]
MAX_ABSOLUTE = 1e50  # squares of scaled values stay far from overflow, so no value can poison a sum or a fit
MAX_TIME = 1 << 60


def _getter(schema: Schema) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if schema.num_variables == 1:
        name = schema.names[0]
        return lambda row: (row[name],)
    return itemgetter(*schema.names)


@attrs.frozen
class RowReader:
    """Checks rows against a schema.

    Attributes:
        schema: names and kinds.
        missing: "nan" keeps a missing value as NaN, "error" refuses it.
    """

    schema: Schema
    missing: MissingPolicy = "nan"
    _pick: Callable[[Mapping[str, Any]], tuple[Any, ...]] = attrs.field(init=False, eq=False, repr=False)
    _plain: bool = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.missing not in ("nan", "error"):
            raise ConfigError(f"missing must be 'nan' or 'error', got {self.missing!r}")
        object.__setattr__(self, "_pick", _getter(self.schema))
        object.__setattr__(self, "_plain", all(variable.kind == "numeric" for variable in self.schema.variables))

    def read_row(self, row: Mapping[str, Any] | Sequence[Any] | FloatArray, index: int) -> tuple[float, ...]:
        """Return the values in schema order; missing ones are NaN.

        Raises:
            InvalidRow: a missing or unknown column, a wrong length, or a value that is no finite number.
        """
        values = self._values(row, index)
        # One C-speed look over the row; whatever it cannot settle goes through the checks one by one.
        if (
            self._plain
            and [*map(type, values)].count(float) == len(values)
            and math.hypot(*values) <= MAX_ABSOLUTE  # no NaN and no infinity among them
        ):
            return values
        return tuple(
            self._check(value, variable, index) for value, variable in zip(values, self.schema.variables, strict=True)
        )

    def read_rows(self, rows: Any) -> FloatArray:
        """Return shape (n, p) float64 of a 2-d array, a data frame, or an iterable of rows; all or nothing.

        Raises:
            InvalidRow: as `read_row`; the index is the position among the given rows.
        """
        if isinstance(rows, np.ndarray):
            return self._check_array(rows)
        if hasattr(rows, "columns") and hasattr(rows, "to_numpy"):
            return self._check_frame(rows)
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise InvalidRow(
                f"rows must be a 2-d array, a data frame or an iterable of rows, got {type(rows).__name__}"
            )
        read = [self.read_row(row, index) for index, row in enumerate(rows)]
        return np.array(read, dtype=np.float64).reshape(len(read), self.schema.num_variables)

    def _values(self, row: Any, index: int) -> tuple[Any, ...]:
        if type(row) is dict or isinstance(row, Mapping):  # the first is settled in a quarter of the time
            if len(row) == self.schema.num_variables:
                try:
                    return self._pick(row)
                except KeyError:
                    pass  # named below
            names = self.schema.names
            absent = [name for name in names if name not in row]
            unknown = [str(name) for name in row if name not in names]
            raise InvalidRow(
                f"row {index}: missing columns {absent}, unknown columns {unknown}; expected {list(names)}"
            )
        if isinstance(row, np.ndarray) and row.ndim == 1:
            row = row.tolist() if row.dtype.kind in "fiu" else list(row)
        if isinstance(row, str | bytes) or not isinstance(row, Sequence):
            raise InvalidRow(f"row {index}: expected a mapping or a sequence of numbers, got {type(row).__name__}")
        if len(row) != self.schema.num_variables:
            raise InvalidRow(f"row {index}: expected {self.schema.num_variables} values, got {len(row)}")
        return tuple(row)

    def _check(self, value: Any, variable: Variable, index: int) -> float:
        where = f"row {index}, variable {variable.name!r}: value {value!r}"
        if value is None:
            number = math.nan
        elif isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
            raise InvalidRow(f"{where} is not a number (truth values are written 0 and 1)")
        else:
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
        if math.isnan(number):
            if self.missing == "error":
                raise InvalidRow(f"{where} is missing, and the policy is missing='error'")
            return number
        if not abs(number) <= MAX_ABSOLUTE:
            raise InvalidRow(f"{where} is not finite or beyond {MAX_ABSOLUTE}")
        if variable.kind == "binary" and number not in (0.0, 1.0):
            raise InvalidRow(f"{where} must be 0 or 1")
        return number

    def _check_array(self, rows: np.ndarray[Any, Any]) -> FloatArray:
        if rows.ndim != 2 or rows.shape[1] != self.schema.num_variables:
            raise InvalidRow(f"rows must have shape (n, {self.schema.num_variables}), got {rows.shape}")
        if rows.dtype.kind not in "fiu":
            return self.read_rows([tuple(row) for row in rows])
        values = rows.astype(np.float64, copy=False)
        if self._plain and self.missing == "nan":
            # Two passes without a temporary; fmin and fmax leave NaN out.
            low, high = (extreme.reduce(values, axis=None, initial=0.0) for extreme in (np.fmin, np.fmax))
            if low >= -MAX_ABSOLUTE and high <= MAX_ABSOLUTE:
                return values
        bad = ~(np.abs(values) <= MAX_ABSOLUTE)
        if self.missing == "nan":
            bad &= ~np.isnan(values)
        for column, variable in enumerate(self.schema.variables):
            if variable.kind == "binary":
                bad[:, column] |= (values[:, column] != 0) & (values[:, column] != 1) & ~np.isnan(values[:, column])
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            self._check(float(values[row, column]), self.schema.variables[column], row)
        return values

    def _check_frame(self, frame: Any) -> FloatArray:
        names = self.schema.names
        columns = [str(name) for name in frame.columns]
        if len(set(columns)) != len(columns):
            raise InvalidRow(f"data frame: duplicate columns in {columns}")
        if set(columns) != set(names):
            absent = [name for name in names if name not in columns]
            unknown = [name for name in columns if name not in names]
            raise InvalidRow(f"data frame: missing columns {absent}, unknown columns {unknown}; expected {list(names)}")
        picked = [frame.iloc[:, columns.index(name)] for name in names]
        if all(column.dtype.kind in "fiu" for column in picked):
            arrays = [column.to_numpy(dtype=np.float64, na_value=np.nan) for column in picked]
            return self._check_array(np.column_stack(arrays).reshape(len(frame), len(names)))
        return self.read_rows(list(zip(*(column.tolist() for column in picked), strict=True)))


def infer_schema(rows: Any) -> Schema | None:
    """Return a schema (names only, no scales) from a first row or rows; None when there are none.

    A mapping or a data frame gives its names; values without names become x0, x1, ...

    Raises:
        InvalidRow: nothing that has columns.
    """
    if hasattr(rows, "columns"):
        return Schema([Variable(str(name)) for name in rows.columns])
    if isinstance(rows, Mapping):
        return Schema([Variable(str(name)) for name in rows])
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return Schema([Variable(f"x{i}") for i in range(rows.shape[1])])
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence | np.ndarray):
        raise InvalidRow(f"expected a row or rows, got {type(rows).__name__}")
    if len(rows) == 0:
        return None
    if isinstance(rows[0], Mapping | Sequence | np.ndarray) and not isinstance(rows[0], str | bytes):
        return infer_schema(rows[0])
    return Schema([Variable(f"x{i}") for i in range(len(rows))])


def read_times(at: Any, count: int, last: int | None) -> IntArray:
    """Return the time indices of `count` rows: those given, or the whole numbers after `last`.

    Raises:
        InvalidRow: not whole numbers, wrong length, a duplicate, or a step backwards.
    """
    following = 0 if last is None else last + 1
    if at is None:
        return np.arange(following, following + count, dtype=np.int64)
    given = np.asarray(at)
    if given.ndim != 1 or len(given) != count or (count and given.dtype.kind not in "iu"):
        raise InvalidRow(f"at must hold {count} whole numbers, got shape {given.shape} of {given.dtype}")
    times = given.astype(np.int64)
    before = (
        np.concatenate(([following - 1], times[:-1]))
        if last is not None
        else np.concatenate((times[:1] - 1, times[:-1]))
    )
    bad = np.flatnonzero((times <= before) | (np.abs(times) > MAX_TIME))
    if len(bad):
        row = int(bad[0])
        raise InvalidRow(f"row {row}: time index {given[row]} does not come after {int(before[row])}")
    return times
