"""A schema out of a public table: infer one, and write it so that a person can finish it.

Everything in a schema is public and travels with every message, so it is inferred from a PUBLIC or reference file.
Inferring scales, centres or bounds from the private rows would publish something about them that no budget covers; what
is written says so.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from scarcity.engine import Schema, Variable
from scarcity.engine.arrays import FloatArray
from scarcity.errors import ConfigError, InvalidRow
from scarcity.node.data.source import Calendar, Party, Table, TableColumns, read_rows

WARNING: Final = (
    "Everything in a schema is public: scales, centres and bounds must be common knowledge or come from a public file. "
    "Inferring them from the private data would leak it."
)
_DEFAULTS: Final = Schema([Variable("any")])
_MAD_TO_STD: Final = 1.4826  # of a normal variable
_GRID: Final = (1.0, 2.0, 5.0, 10.0)
# Rows that a difference compares: the same weekday, month or quarter where the calendar has one. Elsewhere the default.
_HORIZONS: Final = {("days", 1): 7, ("months", 1): 12, ("months", 3): 4}
# A row of learning in so many may be lost to the differences' first rows; below it hardly a difference is left.
_ROWS_PER_HORIZON: Final = 8
_LAGS_BY_ROWS: Final = ((30, 1), (300, 2))  # below 30 rows a party, one lag; below 300, two; else the default


def infer_schema(path: Path, columns: TableColumns) -> Schema:
    """Return a schema for tables like a PUBLIC one: kinds, and rounded robust guesses of scale, centre and bounds.

    A scale is what rows usually deviate from their party's own level, rounded to 1, 2 or 5 times a power of ten: the
    median over parties of 1.48 times the median absolute deviation, or of the standard deviation where that is zero.
    Centres are rounded to half a scale; bounds lie ten scales beyond all values, but not below zero where no
    value does.

    Raises:
        ConfigError: as `read_rows`, or a column that never changes within a party.
        InvalidRow: as `read_rows` and `Table.parties`.
    """
    table = read_rows(path, columns)
    parties = table.parties(learn_share=1.0)
    rows = int(np.median([len(party.rows) for party in parties]))
    variables = [
        _variable(table, name, [_known(party, index) for party in parties])
        for index, name in enumerate(table.schema.names)
    ]
    return Schema(variables, lags=_lags(rows), horizon=_horizon(table.calendar, rows))


def _known(party: Party, index: int) -> FloatArray:
    column = party.rows[:, index]
    return np.asarray(column[np.isfinite(column)])


def _variable(table: Table, name: str, parties: Iterable[FloatArray]) -> Variable:
    columns = [column for column in parties if len(column)]
    if not columns:
        raise InvalidRow(f"{table.path}, column {name!r}: no row has a value")
    values = np.concatenate(columns)
    spread = _spread(columns)
    if spread <= 0:
        raise ConfigError(
            f"{table.path}, column {name!r}: never changes within a party, so nothing drives it and it drives nothing; "
            "leave it out with --variables"
        )
    scale = _rounded(spread)
    if np.isin(values, (0.0, 1.0)).all():
        return Variable(name, kind="binary", scale=scale, centre=_multiple(values.mean(), scale / 2))
    low, high = _multiple(values.min() - 10 * scale, scale), _multiple(values.max() + 10 * scale, scale)
    bounds = (max(low, 0.0) if values.min() >= 0 else low), high
    return Variable(name, scale=scale, centre=_multiple(float(np.median(values)), scale / 2), bounds=bounds)


def _spread(columns: Iterable[FloatArray]) -> float:
    """Return the usual deviation from a party's own level; 0 when nothing changes within any party."""
    robust = [_MAD_TO_STD * float(np.median(np.abs(column - np.median(column)))) for column in columns]
    plain = [float(column.std()) for column in columns]
    return float(np.median(robust)) or float(np.median(plain)) or max(plain)


def _rounded(value: float) -> float:
    """Return the nearest of 1, 2, 5 times a power of ten, nearest in ratio."""
    exponent = math.floor(math.log10(value))
    lead = min(_GRID, key=lambda step: abs(math.log(value / (step * 10.0**exponent))))
    return float(f"{lead:g}e{exponent}")  # the shortest decimal, where a product could be off by a rounding


def _multiple(value: float, step: float) -> float:
    """Return the multiple of a step that is nearest, without the dust of the multiplication and without a -0."""
    digits = 2 - math.floor(math.log10(step))
    return round(round(float(value) / step) * step, digits) + 0.0


def _lags(rows: int) -> int:
    return next((lags for below, lags in _LAGS_BY_ROWS if rows < below), _DEFAULTS.lags)


def _horizon(calendar: Calendar, rows: int) -> int:
    return max(1, min(_HORIZONS.get((calendar.unit, calendar.step), _DEFAULTS.horizon), rows // _ROWS_PER_HORIZON))


def schema_text(schema: Schema, source: str) -> str:
    """Return a schema as TOML that `read_schema` reads back, with the words that a person needs to finish it.

    Args:
        schema: what to write.
        source: name of the file that it was inferred from.
    """
    lines = [
        *(f"# {line}" for line in textwrap.wrap(f"Inferred from {source}. {WARNING}", 110)),
        "# Check every line, round generously (a factor of two does not matter), and fill in the units.",
        "",
        f"lags = {schema.lags}  # rows back that a cause may lie",
        f"horizon = {schema.horizon}  # rows between the two values of a difference",
    ]
    if schema.clip_factor != _DEFAULTS.clip_factor:
        lines.append(f"clip_factor = {schema.clip_factor!r}")
    if schema.lattice != _DEFAULTS.lattice:
        lines.append(f"lattice = {schema.lattice}")
    for variable in schema.variables:
        lines += ["", *_variable_lines(variable)]
    return "\n".join(lines) + "\n"


def _variable_lines(variable: Variable) -> list[str]:
    lines = ["[[variables]]", f"name = {_quoted(variable.name)}", f"kind = {_quoted(variable.kind)}"]
    lines.append(f"unit = {_quoted(variable.unit)}  # for people")
    if variable.scale is not None:
        lines.append(f"scale = {variable.scale!r}  # usual deviation from a party's own level, in the unit")
    lines.append(f"centre = {variable.centre!r}")
    if variable.bounds is not None:
        lines.append(f"bounds = [{variable.bounds[0]!r}, {variable.bounds[1]!r}]  # values beyond are clipped")
    return lines


def _quoted(text: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's, but for DEL, and for surrogate pairs, which stay as they are."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
