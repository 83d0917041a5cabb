"""A party's growing file and the learner that feeds it: whole lines, no row twice, no row before its mending."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from scarcity.engine import OnlineDiscoveryEngine, Schema, Variable
from scarcity.errors import ConfigError, InsufficientInputs, InvalidRow
from scarcity.federation.client import Learner
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.node.data import tail as module
from scarcity.node.data.source import Calendar, TableColumns, read_rows
from scarcity.node.data.tail import RowsLearner, TailedRows

SCHEMA = Schema([Variable("a", scale=1.0), Variable("b", scale=2.0)], lags=1, horizon=1)
HEADING = "t,a,other,b\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def tailed(path: Path, calendar: Calendar = Calendar("days")) -> TailedRows:  # noqa: B008 - frozen
    return TailedRows(path, SCHEMA, "t", calendar=calendar)


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def lines(first: int, count: int) -> str:
    return "".join(f"{t},{t % 3},x,{(t * 7) % 5}\n" for t in range(first, first + count))


def test_nothing_is_there_then_rows_come_and_a_half_line_waits(path: Path) -> None:
    tail = tailed(path)
    assert tail.read_new()[0].shape == (0, 2)
    add(path, "t,a,oth")
    assert tail.read_new()[0].shape == (0, 2)
    add(path, "er,b\n3,1.5,x,NA\n4,2,x,")
    rows, times = tail.read_new()
    assert np.array_equal(rows, [[1.5, np.nan]], equal_nan=True)
    assert times.tolist() == [3]
    assert tail.read_new()[0].shape == (0, 2)
    add(path, "7\r\n\n5,,x,0\n")
    rows, times = tail.read_new()
    assert np.array_equal(rows, [[2, 7], [np.nan, 0]], equal_nan=True)
    assert (times.tolist(), tail.num_rows) == ([4, 5], 3)


def test_it_reads_a_file_as_the_reader_of_files_at_rest_does(path: Path) -> None:
    path.write_text("\ufeff" + HEADING + lines(1, 40))
    rows, times = tailed(path).read_new()
    (party,) = read_rows(path, TableColumns(time="t", variables=("a", "b")), SCHEMA).parties(1.0)
    assert np.array_equal(rows, party.rows)
    assert np.array_equal(times, party.times)


@pytest.mark.parametrize(
    ("calendar", "dates", "times"),
    [
        (Calendar("days"), ("2024-02-28", "2024-02-29", "2024-03-02"), [0, 1, 3]),
        (Calendar("months"), ("2023-12-01", "2024-01-01", "2024-03-01"), [0, 1, 3]),
    ],
)
def test_dates_have_a_time_of_their_own_whatever_stands_around_them(
    path: Path, calendar: Calendar, dates: tuple[str, ...], times: list[int]
) -> None:
    tail, found = tailed(path, calendar), list[int]()
    add(path, HEADING)
    for date in dates:
        add(path, f"{date},1,x,1\n")
        found += tail.read_new()[1].tolist()
    assert [time - found[0] for time in found] == times


def test_a_limit_takes_the_file_in_parts(path: Path) -> None:
    path.write_text(HEADING + lines(0, 10))
    tail = tailed(path)
    assert [len(tail.read_new(4)[1]) for _ in range(4)] == [4, 4, 2, 0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("9,one,x,2", r"rows\.csv, row 4, column 'a': value 'one' is not a number"),
        ("9,inf,x,2", "row 4, column 'a': value 'inf' is not a finite number"),
        ("9,1,x", "row 4: 3 cells, the heading has 4"),
        ("soon,1,x,2", "row 4, column 't': value 'soon' is not an ISO date"),
        ("1,1,x,2", "row 4, column 't': its time does not come after that of row 3"),
        ("2024-01-01,1,x,2", "ISO dates and whole numbers stand in one column"),
        ('9,1,"x,2', "row 4: not a line of a CSV file"),
        ("9,1,\udcff,2", "row 4: not a line of a CSV file in UTF-8"),
    ],
)
def test_a_bad_row_is_named_and_everything_new_waits_until_it_is_mended(path: Path, bad: str, why: str) -> None:
    path.write_text(HEADING + lines(0, 1))
    tail = tailed(path)
    assert len(tail.read_new()[1]) == 1
    before = path.read_text() + lines(1, 1)
    path.write_bytes((before + bad + "\n" + lines(10, 1)).encode(errors="surrogateescape"))
    for _ in range(2):
        with pytest.raises(InvalidRow, match=why):
            tail.read_new()
    path.write_text(before + "9,1,x,2\n" + lines(10, 1))
    assert tail.read_new()[1].tolist() == [1, 9, 10]


def test_a_file_that_is_not_the_one_that_was_read_is_refused(path: Path) -> None:
    text = HEADING + lines(0, 6)
    path.write_text(text)
    tail = tailed(path)
    tail.read_new()
    for changed, why in (
        (HEADING + lines(0, 5), "rows may only be added at its end"),
        (text.replace("0,0", "0,9", 1) + lines(6, 1), "not the same any more"),
        (HEADING + lines(1, 6) + lines(7, 2), "not the same any more"),
    ):
        path.write_text(changed)
        with pytest.raises(ConfigError, match=why):
            tail.read_new()
    path.unlink()
    with pytest.raises(ConfigError, match="it is gone, 6 rows of it were read"):
        tail.read_new()
    path.write_text(text + lines(6, 1))
    assert tail.read_new()[1].tolist() == [6]


def test_both_ends_of_a_long_file_are_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_BYTES", 64)
    text = HEADING + lines(100, 100)
    path.write_text(text)
    tail = tailed(path)
    tail.read_new()
    for at in (20, len(text) - 3):
        path.write_text(text[:at] + ("8" if text[at] != "8" else "9") + text[at + 1 :])
        with pytest.raises(ConfigError, match="not the same"):
            tail.read_new()


def test_a_table_that_does_not_fit_is_refused_in_words(path: Path) -> None:
    path.write_text("t,a\n")
    with pytest.raises(ConfigError, match=r"columns \['b'\] are missing"):
        tailed(path).read_new()
    with pytest.raises(ConfigError, match="need a column of times"):
        TailedRows(path, SCHEMA, "")
    with pytest.raises(ConfigError, match="variables must be the federation's, a, b, got a"):
        TailedRows(path, SCHEMA, "t", ("a",))
    with pytest.raises(ConfigError, match="Is a directory"):
        tailed(path.parent).read_new()
    path.write_bytes(b"x" * (1 << 21))
    with pytest.raises(ConfigError, match="a line of more than"):
        tailed(path).read_new()


def learner(path: Path, spent_until: int = 0, rows_per_round: int = 0) -> RowsLearner:
    agent = FederationClientAgent(OnlineDiscoveryEngine(SCHEMA), "h1")
    agent.resume(spent_until)
    return RowsLearner(agent, tailed(path), spent_until=spent_until, rows_per_round=rows_per_round)


def test_each_round_takes_the_rows_that_are_new(path: Path) -> None:
    mine: Learner = learner(path)
    with pytest.raises(InsufficientInputs):
        mine.update_for(1)
    path.write_text(HEADING + lines(0, 20))
    one = mine.update_for(2)
    assert one is not None
    assert one.rows == (0, 20)
    add(path, lines(20, 10))
    assert mine.update_for(3) is one  # it was not accepted
    mine.accepted(one)
    two = mine.update_for(4)
    assert two is not None
    assert two.rows == (20, 30)


def test_a_finished_file_serves_several_rounds(path: Path) -> None:
    path.write_text(HEADING + lines(0, 25))
    mine, seen = learner(path, rows_per_round=10), list[tuple[int, int] | None]()
    for round_id in (1, 2, 3):
        update = mine.update_for(round_id)
        assert update is not None
        assert mine.update_for(round_id) is update
        mine.accepted(update)
        seen.append(update.rows)
    assert seen == [(0, 10), (10, 20), (20, 25)]
    with pytest.raises(InsufficientInputs):
        mine.update_for(4)


@pytest.mark.parametrize("rows_per_round", [0, 4, 10])
def test_rows_that_an_earlier_life_has_spent_are_never_offered_again(path: Path, rows_per_round: int) -> None:
    path.write_text(HEADING + lines(0, 10) + lines(12, 4))
    again = learner(path, 10, rows_per_round)
    after = again.update_for(2)
    assert after is not None
    assert after.rows == (10, 16)
    assert again.num_rows == 14
    lone = FederationClientAgent(OnlineDiscoveryEngine(SCHEMA), "h1")
    rows, times = tailed(path).read_new()
    lone.engine.process_rows(rows[10:], times[10:].tolist())
    assert np.array_equal(after.vector, lone.get_shareable_update().vector)


def test_a_bad_row_declines_the_round_and_is_told_here_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(HEADING + lines(0, 8) + "8,one,x,1\n")
    mine = learner(path)
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidRow, match="row 10"):
        mine.update_for(1)
    assert "h1 gives nothing to round 1" in caplog.text
    path.write_text(HEADING + lines(0, 9))
    update = mine.update_for(2)
    assert update is not None
    assert update.rows == (0, 9)
    with pytest.raises(ConfigError, match="rows_per_round"):
        learner(path, rows_per_round=-1)
