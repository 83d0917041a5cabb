from __future__ import annotations

import functools
import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from scarcity.cli import main as cli
from scarcity.engine.schema_file import read_schema
from scarcity.node.data.model_file import ModelFile, read_model, write_model
from scarcity.node.data.source import TableColumns, read_rows
from sim import commands
from sim.swarms.plan import Outcome
from sim.swarms.swarm import SwarmConfig, run_swarm

ROOT = Path(__file__).parents[2]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.GROUP]
ROLES = ("--party", "who", "--domain", "where", "--time", "when")
Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _declared_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, value, cli.GROUP) for name, value in POINTS.items()}
    monkeypatch.setattr(cli, "entry_points", lambda: points)


def scarcity(*arguments: object) -> int:
    return cli.run(cli.scarcity, [str(argument) for argument in arguments])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve parties of 90 days in which x drives y a day later, each around its own level."""
    rng = np.random.default_rng(5)
    lines = ["who,where,when,x,y"]
    for party in range(12):
        level, x, y = rng.normal(0, 20), 0.0, 0.0
        for day in range(1, 91):
            x, y = 0.3 * x + rng.normal(), 0.3 * y + 0.8 * x + rng.normal()
            lines.append(f"p{party:02},d{party % 2},{day},{level + x:.4f},{level + y:.4f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def schema(table: Path, tmp_path: Path) -> Path:
    path = tmp_path / "schema.toml"
    assert scarcity("schema", "infer", table, *ROLES, "--out", path) == 0
    return path


@pytest.fixture
def model(table: Path, schema: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.model"
    options = ("--schema", schema, "--privacy", "none", "--seed", "1", "--quiet", "--model", path)
    assert scarcity("swarm", "--data", table, *ROLES, *options, "--json", tmp_path / "swarm.json") == 0
    return path


# schema infer


def test_an_inferred_schema_goes_round_through_a_swarm(model: Path, schema: Path) -> None:
    assert read_model(model).schema == read_schema(schema)
    assert read_schema(schema).has_public_scales


def test_the_screen_and_the_file_say_that_scales_must_be_public(table: Path, capsys: Shown) -> None:
    assert scarcity("schema", "infer", table, *ROLES) == 0
    shown = capsys.readouterr()
    assert "Inferring them from the private data would leak it." in " ".join(shown.err.split())
    assert "# Inferred from table.csv. Everything in a schema is public" in shown.out
    assert tomllib.loads(shown.out)["variables"][0]["name"] == "x"


def test_a_schema_that_was_finished_by_hand_is_not_overwritten(schema: Path, table: Path, capsys: Shown) -> None:
    schema.write_text("finished")
    assert scarcity("schema", "infer", table, *ROLES, "--out", schema) == 2
    assert "is there already; --force replaces it" in capsys.readouterr().err
    assert schema.read_text() == "finished"
    assert scarcity("schema", "infer", table, *ROLES, "--out", schema, "--force") == 0
    assert read_schema(schema).names == ("x", "y")


def test_nothing_is_written_for_a_file_that_is_refused(tmp_path: Path, capsys: Shown) -> None:
    (tmp_path / "bad.csv").write_text("x\n1\nmuch\n")
    assert scarcity("schema", "infer", tmp_path / "bad.csv", "--out", tmp_path / "schema.toml") == 2
    assert "row 3, column 'x': value 'much'" in capsys.readouterr().err
    assert not (tmp_path / "schema.toml").exists()


# discover


def test_discover_finds_what_one_party_can_know_alone(table: Path, schema: Path, capsys: Shown) -> None:
    assert scarcity("discover", table, *ROLES, "--schema", schema, "--who", "p03", "--lags", "1") == 0
    text = capsys.readouterr().out
    assert text.startswith("p03: 90 rows, ")
    assert "x -> y, lag 1" in text
    assert "y -> x" not in text


def test_discover_as_json_says_the_same(table: Path, tmp_path: Path, capsys: Shown) -> None:
    capsys.readouterr()
    assert scarcity("discover", table, *ROLES, "--lags", "1", "--json", "-") == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert list(found) == ["version", "variables", "lags", "alpha", "min_effect", "parties"]
    assert [party["party"] for party in found["parties"]] == [f"p{i:02}" for i in range(12)]
    assert set(found["parties"][0]["relations"][0]) == {"kind", "sources", "targets", "lag", "effect", "se", "p"}
    assert "p00: 90 rows" in shown.err


def test_a_party_with_too_few_rows_is_told_what_would_help(tmp_path: Path, capsys: Shown) -> None:
    (tmp_path / "few.csv").write_text("x,y\n1,2\n2,1\n1,1\n3,2\n")
    assert scarcity("discover", tmp_path / "few.csv") == 2
    assert "a fit needs more rows or fewer lags (--lags)" in capsys.readouterr().err


# predict


def test_the_score_is_the_one_that_the_swarm_measured(model: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "score.json"
    assert scarcity("predict", model, table, *ROLES, "--score", "--json", out) == 0
    score = json.loads(out.read_text())["skill"]
    swarm = json.loads((tmp_path / "swarm.json").read_text())["prediction"]
    assert score["median"]["model"] == pytest.approx(swarm["median"]["global"], abs=1e-12)
    assert score["median"]["alone"] == pytest.approx(swarm["median"]["alone"], abs=1e-12)
    assert score["variables"]["y"]["model"] == pytest.approx(swarm["variables"]["y"]["global"], abs=1e-12)
    assert {party["rows"] for party in score["parties"].values()} == {30}


def test_the_next_row_is_the_fit_around_the_partys_own_mean(model: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.json"
    assert scarcity("predict", model, table, *ROLES, "--who", "p07", "--json", out) == 0
    (row,) = json.loads(out.read_text())["rows"]
    (party,) = (p for p in read_rows(table, TableColumns("who", "where", "when")).parties(1.0) if p.id == "p07")
    expected = read_model(model).fit().predict(party.rows, party.rows.mean(axis=0))
    assert row["time"] == "91"
    assert [row["next"]["x"], row["next"]["y"]] == pytest.approx(expected.tolist())
    assert [row["last"]["x"], row["last"]["y"]] == pytest.approx(party.rows[-1].tolist())


def test_a_gap_before_the_next_row_is_said_and_the_others_are_predicted(
    model: Path, table: Path, tmp_path: Path, capsys: Shown
) -> None:
    text = table.read_text().splitlines()
    gone = tmp_path / "gap.csv"
    gone.write_text("\n".join(line for line in text if not line.startswith("p00,d0,89,")) + "\n")
    capsys.readouterr()
    assert scarcity("predict", model, gone, *ROLES) == 0
    shown = capsys.readouterr().out
    assert "p00: the last 2 rows are not complete and without a gap" in shown
    assert shown.count("p01 ") == 2


def test_the_text_says_where_the_model_comes_from(model: Path, table: Path, capsys: Shown) -> None:
    capsys.readouterr()
    assert scarcity("predict", model, table, *ROLES, "--score") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("model of 12 clients in 2 baskets (scarcity ")
    assert "All 360 rows of 12 parties" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("horizon = 10", "horizon = 9"),
            "the model was made under another schema (its horizon is 10, not 9); use the",
        ),
        (('name = "y"', 'name = "z"'), "(its variables are x, y, not x, z)"),
        (('unit = ""', 'unit = "mm"'), "(its unit of 'x' is , not mm)"),
    ],
)
def test_a_model_of_another_schema_is_refused_in_one_line(
    model: Path, table: Path, schema: Path, change: tuple[str, str], message: str, capsys: Shown
) -> None:
    schema.write_text(schema.read_text().replace(*change, 1))
    capsys.readouterr()
    assert scarcity("predict", model, table, *ROLES, "--schema", schema) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


def test_a_table_without_the_models_variables_is_refused_in_one_line(
    model: Path, tmp_path: Path, capsys: Shown
) -> None:
    (tmp_path / "other.csv").write_text("who,where,when,x\na,b,1,2\n")
    capsys.readouterr()
    assert scarcity("predict", model, tmp_path / "other.csv", *ROLES) == 2
    assert "columns ['y'] are missing; the heading has who, where, when, x; the schema names" in capsys.readouterr().err


# swarm --model


def test_a_swarm_that_releases_nothing_writes_no_model(
    table: Path, schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = functools.partial(run_swarm, execute=lambda _plan, _observe: Outcome())
    monkeypatch.setattr(commands, "run_swarm", runner)
    path = tmp_path / "none.model"
    assert scarcity("swarm", "--data", table, *ROLES, "--schema", schema, "--quiet", "--model", path) == 3
    assert not path.exists()


def test_a_model_that_cannot_be_written_is_refused_before_anything_runs(capsys: Shown) -> None:
    assert scarcity("swarm", "--synthetic", "9", "--model", "/nowhere/at/all.model") == 2
    assert "--model /nowhere/at/all.model: cannot write into /nowhere/at" in capsys.readouterr().err


def test_the_models_provenance_is_what_was_run(tmp_path: Path) -> None:
    result = run_swarm(SwarmConfig(synthetic=9, seed=3, epsilon=2.0))
    assert isinstance(result.model, ModelFile)
    made = result.model.provenance
    assert (made.mode, made.unit, made.epsilon, made.delta) == ("distributed", "record", 2.0, 1e-6)
    assert (made.clients, made.baskets, made.rounds, made.reproducible) == (9, 3, 1, True)
    write_model(result.model, tmp_path / "a.model", "--model")
    assert read_model(tmp_path / "a.model") == result.model
