"""`scarcity privacy plan` as it is called: what it prints, and how it refuses."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from scarcity.cli import main as cli

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.GROUP]
ARRAYS = ["--clients", "60", "--dimension", "10"]


@pytest.fixture(autouse=True)
def _declared_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, value, cli.GROUP) for name, value in DECLARED.items()}
    monkeypatch.setattr(cli, "entry_points", lambda: points)


@pytest.fixture
def schema(tmp_path: Path) -> str:
    path = tmp_path / "schema.toml"
    path.write_text('lags = 2\n[[variables]]\nname = "a"\nscale = 1.0\n[[variables]]\nname = "b"\nscale = 2.0\n')
    return str(path)


def plan(*arguments: str) -> int:
    return cli.run(cli.scarcity, ["privacy", "plan", *arguments])


def test_all_modes_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*ARRAYS, "--baskets", "3", "--epsilon", "10") == 0
    text = capsys.readouterr().out
    rows = [line.split()[0] for line in text.splitlines() if line and line.split()[-1] == "1"]
    assert rows == ["local", "distributed", "central"]
    assert "nothing" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_plan_warns_in_plain_words_when_a_budget_buys_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--clients", "20", "--dimension", "10000", "--mode", "local") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "local: nothing: the model's error is" in text
    assert "no mean of clipped vectors is longer than one. What helps: more clients" in text


def test_a_mode_that_these_clients_cannot_have_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*ARRAYS) == 0
    assert "central: not possible. mode central needs 3 baskets or more, got 1" in capsys.readouterr().out
    assert plan(*ARRAYS, "--mode", "central") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_schema_says_which_link_could_be_found(schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--clients", "30", "--schema", schema, "--rows", "300", "--mode", "distributed", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["question"]["unit"] == "record"
    assert said["question"]["weight"] == 290
    (mode,) = said["modes"]
    assert mode["releases"] == 1
    assert 0 < mode["found"]["se"] < mode["found"]["smallest_effect"] < 1


def test_too_few_rows_find_no_link_and_say_so(schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--clients", "3", "--schema", schema, "--rows", "20", "--epsilon", ".1") == 0
    assert "deviations per deviation would be found" in " ".join(capsys.readouterr().out.split())
    assert plan("--clients", "3", "--schema", schema, "--rows", "20", "--unit", "client") == 0
    assert "nothing" in capsys.readouterr().out
    assert plan("--clients", "3", "--schema", schema, "--rows", "20", "--unit", "client", "--json") == 0
    assert json.loads(capsys.readouterr().out)["modes"][0]["found"]["smallest_effect"] is None


def test_a_delta_that_would_show_a_whole_record_is_cautioned(schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--clients", "30", "--schema", schema, "--rows", "300", "--delta", "0.01") == 0
    assert "caution: delta 0.01 times 290 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ARRAYS, "--epsilon", "0"], "a budget of zero releases nothing"),
        ([*ARRAYS, "--epsilon", "-1"], "epsilon must lie in (0, 1e+06], got -1.0"),
        ([*ARRAYS, "--epsilon", "nan"], "epsilon must lie in"),
        ([*ARRAYS, "--delta", "0"], "delta must lie strictly between 0 and 1, got 0.0"),
        ([*ARRAYS, "--delta", "1"], "delta must lie strictly between 0 and 1, got 1.0"),
        (["--clients", "1", "--dimension", "3"], "plan for two or more"),
        (["--clients", "0", "--dimension", "3"], "clients must be a whole number from 2"),
        (["--clients", "9", "--dimension", "0"], "dimension must be a whole number from 1"),
        (["--clients", "9", "--dimension", "10000000"], "dimension must be a whole number from 1 to 999999"),
        ([*ARRAYS, "--rounds", "0"], "rounds must be a whole number from 1"),
        ([*ARRAYS, "--baskets", "99"], "baskets must be at most clients"),
        ([*ARRAYS, "--max-colluders", "-1"], "max_colluders must be a whole number from 0"),
        ([*ARRAYS, "--quorum", "0"], "a quorum of zero"),
        ([*ARRAYS, "--clip-norm", "0"], "clip_norm must be a positive finite number"),
        ([*ARRAYS, "--epsilon", "1e-9", "--delta", "1e-300"], "noise must lie in [1, 2^36] lattice steps"),
        (["--clients", "9", "--dimension", "1", "--epsilon", "1e4", "--mode", "distributed"], "noise share must lie"),
        ([*ARRAYS, "--mode", "best"], "mode must be one of local, distributed, central, got 'best'"),
        ([*ARRAYS, "--unit", "patient"], "unit must be one of record, client, got 'patient'"),
        ([*ARRAYS, "--unit", "record"], "need --schema FILE"),
        ([*ARRAYS, "--rows", "9"], "need --schema FILE"),
        (["--clients", "9"], "give either --dimension D or --schema FILE"),
        (["--clients", "9", "--schema", "no.toml", "--rows", "9"], "schema no.toml: No such file"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("scale", "rows", "message"),
    [
        ("0.0", "300", "variable 'a': scale must lie in [1e-15, 1000000000000000.0], got 0.0"),
        ("-1", "300", "scale must lie in"),
        ("1.0", "5", "5 rows form no product with 3 lags and horizon 10: take more"),
        ("1.0", "0", "rows must lie in 1..100000"),
        ("1.0", "100001", "rows must lie in 1..100000"),
    ],
)
def test_a_schema_that_cannot_be_planned_is_one_line(
    scale: str, rows: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(f'[[variables]]\nname = "a"\nscale = {scale}\n')
    assert plan("--clients", "9", "--schema", str(path), "--rows", rows) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_schema_without_scales_has_no_unit_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.toml"
    path.write_text('[[variables]]\nname = "a"\n')
    assert plan("--clients", "9", "--schema", str(path), "--rows", "99", "--unit", "record") == 2
    assert "needs a public scale" in capsys.readouterr().err
    assert plan("--clients", "99", "--schema", str(path), "--rows", "99") == 0
    assert "unit client" in capsys.readouterr().out


@pytest.mark.parametrize("path", [["privacy", "plan"], ["doctor"]])
def test_the_help_is_complete(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, [*path, "--help"]) == 0
    text = capsys.readouterr().out
    command: click.Command | None = cli.scarcity
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    for parameter in command.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help, parameter.name
        assert parameter.opts[0] in text
