"""A table in a file, CSV or Parquet, as rows of text cells: one form, so that both are checked by the same lines.

Parquet needs pyarrow, the extra [parquet]; the csv module reads the rest, so that a plain installation is enough.
Row numbers are those of a CSV file, whose heading is line 1: the first row of a Parquet file is row 2.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scarcity.errors import ConfigError

PARQUET_SUFFIXES: Final = frozenset({".parquet", ".pq"})
_EXTRA: Final = "pip install 'scarcity-federation[parquet]'"
_MIDNIGHT: Final = dt.time()

Line = tuple[int, list[str]]


def read_table(path: Path) -> tuple[list[str], list[Line]]:
    """Return the heading and (row number, cells) of every row of a file; its suffix says whether it is Parquet.

    Raises:
        ConfigError: no such file, not of its format, or pyarrow is not there to read it.
    """
    return _read_parquet(path) if path.suffix.lower() in PARQUET_SUFFIXES else _read_csv(path)


def _read_csv(path: Path) -> tuple[list[str], list[Line]]:
    """Blank lines are left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(reader, [])]
            return heading, [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _read_parquet(path: Path) -> tuple[list[str], list[Line]]:
    # Before pyarrow opens it, because its own words for a file that is not there depend on its version.
    if not path.is_file():
        raise ConfigError(f"{path}: No such file or directory")
    arrow, parquet = _arrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            return [name.strip() for name in file.schema_arrow.names], list(_parquet_rows(file))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable Parquet file: {error}") from None


def _arrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{path}: Parquet needs pyarrow, which is not installed: {_EXTRA}") from None


def _parquet_rows(file: Any) -> Iterator[Line]:
    number = 1
    for batch in file.iter_batches():
        # By position: a name may come twice, and the caller is who refuses that.
        columns = [batch.column(index).to_pylist() for index in range(batch.num_columns)]
        for values in zip(*columns, strict=True):
            number += 1
            yield number, [_text(value) for value in values]


def _text(value: object) -> str:
    """Return a value as a CSV file would have it: nothing for null, 1 and 0 for truth, a date for a midnight."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case dt.datetime():
            return value.date().isoformat() if value.time() == _MIDNIGHT else value.isoformat()
        case dt.date():
            return value.isoformat()
        case _:
            return str(value)
