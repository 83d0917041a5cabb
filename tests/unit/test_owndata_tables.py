from __future__ import annotations

import datetime as dt
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scarcity.engine import Schema, Variable
from scarcity.errors import ConfigError, FederationError, InvalidRow
from scarcity.node.data.source import Calendar, TableColumns, chosen, read_rows, table_source
from scarcity.node.data.table_files import read_table

COLUMNS = TableColumns("who", "where", "when")
HEAD = "who,where,when,x,y\n"
ROWS = "".join(f"a,n,2024-01-{day:02d},{day},{day % 3}\n" for day in range(1, 31))
WITHOUT_ARROW = "pyarrow, the extra [parquet], is not installed: Parquet cannot be written for the test"


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text)
    return path


def parquet_file(folder: Path, columns: dict[str, Any], name: str = "data.parquet") -> Path:
    arrow = pytest.importorskip("pyarrow", reason=WITHOUT_ARROW)
    path = folder / name
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), path)
    return path


def days(count: int) -> list[dt.date]:
    return [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(count)]


# Parquet


def test_a_parquet_file_gives_the_parties_that_the_csv_file_gives(tmp_path: Path) -> None:
    rows = list(range(1, 31))
    columns = {
        "who": ["a"] * 30,
        "where": ["n"] * 30,
        "when": days(30),
        "x": rows,
        "y": [float(row % 3) for row in rows],
    }
    by_parquet = table_source(parquet_file(tmp_path, columns), COLUMNS)
    by_csv = table_source(csv_file(tmp_path, HEAD + ROWS), COLUMNS)
    assert by_parquet.parties == by_csv.parties
    assert by_parquet.schema == by_csv.schema


def test_null_truth_and_midnight_are_read_as_a_csv_file_would_have_them(tmp_path: Path) -> None:
    stamps = [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, 13, tzinfo=dt.UTC)]
    path = parquet_file(tmp_path, {"at": stamps, "flag": [True, False], "x": [None, 1.5]})
    heading, lines = read_table(path)
    assert heading == ["at", "flag", "x"]
    assert lines[0] == (2, ["2024-01-01", "1", ""])
    assert lines[1] == (3, ["2024-01-02T13:00:00+00:00", "0", "1.5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [1.0, float("inf"), 3.0]}, "row 3, column 'x': value 'inf' is not a finite number"),
        ({"x": ["1", "much", "3"]}, "row 3, column 'x': value 'much' is not a number"),
        ({"who": ["a", None, "a"]}, "row 3, column 'who': value '' is not a name"),
        ({"when": ["2024-01-01", "soon", "2024-01-03"]}, "row 3, column 'when': value 'soon' is not an ISO date"),
        ({"x": [[1.0], [2.0], [3.0]]}, r"row 2, column 'x': value '\[1.0\]' is not a number"),
    ],
)
def test_a_bad_cell_of_a_parquet_file_is_named_by_row_and_column(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    columns = {"who": ["a"] * 3, "where": ["n"] * 3, "when": days(3), "x": [1.0, 2.0, 3.0], **change}
    with pytest.raises(InvalidRow, match=message) as caught:
        read_rows(parquet_file(tmp_path, columns), COLUMNS)
    assert "data.parquet" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"who,where\n", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason=WITHOUT_ARROW)
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        read_table(path)


def test_without_pyarrow_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow.*pip install 'scarcity-federation\[parquet\]'"):
        read_table(path)


def test_a_parquet_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.parquet: No such file"):
        read_table(tmp_path / "none.parquet")


# Roles of columns


def test_a_file_of_one_party_needs_neither_party_nor_domain_nor_time(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "x,y\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    (party,) = read_rows(path, TableColumns()).parties(1.0)
    assert (party.id, party.domain, party.times.tolist()) == ("data", "all", list(range(20)))


def test_several_parties_need_a_time() -> None:
    with pytest.raises(ConfigError, match=r"'who'.* need a column of times"):
        TableColumns(party="who")


def test_one_party_is_chosen_by_its_id_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    path = csv_file(tmp_path, HEAD + ROWS + ROWS.replace("a,n", "b,n"))
    parties = read_rows(path, COLUMNS).parties()
    assert [party.id for party in chosen(parties, None)] == ["a", "b"]
    assert [party.id for party in chosen(parties, "b")] == ["b"]
    with pytest.raises(ConfigError, match="no party 'c' in the file; there are a, b"):
        chosen(parties, "c")


def test_the_learning_share_decides_what_is_held_out(tmp_path: Path) -> None:
    table = read_rows(csv_file(tmp_path, HEAD + ROWS), COLUMNS)
    assert [len(party.rows) for party in table.parties()] == [20]
    assert [len(party.held_out) for party in table.parties(1.0)] == [0]


@pytest.mark.parametrize(
    ("times", "unit", "step", "following"),
    [
        (["2024-01-31", "2024-03-31", "2024-05-31"], "months", 2, "2024-07"),
        (["2023-11-30", "2023-12-30"], "months", 1, "2024-01"),
        (["2024-02-20", "2024-02-27"], "days", 7, "2024-03-05"),
        (["1971", "1976", "1986"], "numbers", 5, "1991"),
        (["1", "3"], "numbers", 2, "5"),
    ],
)
def test_the_time_after_the_last_is_written_as_the_file_writes_times(
    tmp_path: Path, times: list[str], unit: str, step: int, following: str
) -> None:
    path = csv_file(tmp_path, "when,x\n" + "".join(f"{time},1\n" for time in times))
    table = read_rows(path, TableColumns(time="when"))
    assert (table.calendar.unit, table.calendar.step) == (unit, step)
    assert table.calendar.text(table.records[-1].time + 1) == following


def test_a_calendar_without_an_offset_counts_from_zero() -> None:
    assert Calendar("numbers").text(7) == "7"


# A schema that contradicts the file


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (Variable("y", kind="binary"), "row 3, column 'y': value '2' is not 0 or 1, and the schema says .* is binary"),
        (Variable("x", bounds=(100, 200)), r"column 'x': all values lie between 1 and 30, .* bounds are \[100, 200\]"),
        (Variable("x", bounds=(-5, 1)), "column 'x': all values lie between 1 and 30"),
        (Variable("z"), r"columns \['z'\] are missing; .*; the schema names them"),
    ],
)
def test_a_schema_that_contradicts_the_file_is_refused_with_the_way_out(
    tmp_path: Path, variable: Variable, message: str
) -> None:
    with pytest.raises(FederationError, match=message) as caught:
        read_rows(csv_file(tmp_path, HEAD + ROWS), COLUMNS, Schema([variable]))
    assert "\n" not in str(caught.value)


def test_bounds_that_clip_some_values_are_no_contradiction(tmp_path: Path) -> None:
    schema = Schema([Variable("x", bounds=(5, 10))])
    assert len(read_rows(csv_file(tmp_path, HEAD + ROWS), COLUMNS, schema).records) == 30


def test_a_binary_column_may_miss_values(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "when,b\n1,0\n2,\n3,1\n")
    rows = read_rows(path, TableColumns(time="when"), Schema([Variable("b", kind="binary")])).records
    assert np.isnan(rows[1].values[0])
