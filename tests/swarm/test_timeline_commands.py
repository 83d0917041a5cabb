"""`scarcity sim run|replay --report FILE.html`: what is written, when, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from scarcity.cli.main import run
from sim.faults.files import plan_toml
from sim.faults.plan import Churn, Crash, FaultPlan, Loss
from sim.sim_commands import sim
from sim.worlds.checkers import Checker, View
from sim.worlds.liveness import Liveness
from tests.timeline_world import Outline, pictures

PLAN = FaultPlan((Loss(0.1),), (Crash(2.0, ("basket/basket-0",), down_s=1.0, torn=True), Churn(60, 1.0)))
SMALL = ("--clients", "4", "--baskets", "1", "--until", "8", "--heal", "2", "--seed", "3", "--quiet")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("storm.toml").write_text(plan_toml(PLAN))


@pytest.mark.parametrize("executor", ["heap", "loop"])
def test_a_run_is_written_as_a_page(executor: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", *SMALL, "--plan", "storm.toml", "--executor", executor, "--report", "run.html"]
    assert run(sim, arguments) == 0
    out = capsys.readouterr().out
    assert "report: run.html" in out
    trace_hash = next(line.split(": ")[1] for line in out.splitlines() if line.startswith("trace hash"))
    page = Path("run.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert outline.open == []
    assert "Passed: no promise was broken" in outline.text
    assert trace_hash in outline.text
    assert f"executor {executor}, 8 virtual seconds, the last 2 without faults" in outline.text
    for svg in pictures(page):
        looks = {element.get("class") for element in svg.iter()}
        assert {"up", "down", "cross", "strike", "heal", "deliver"} <= looks


def test_a_report_and_a_trace_are_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", *SMALL, "--plan", "storm.toml"]
    assert run(sim, arguments) == 0
    alone = capsys.readouterr().out
    assert run(sim, [*arguments, "--report", "run.html", "--trace", "t.jsonl"]) == 0
    assert capsys.readouterr().out == f"report: run.html\n{alone}"
    delivered = sum(json.loads(line)["kind"] == "deliver" for line in Path("t.jsonl").read_text().splitlines())
    assert f"Delivered{delivered}packets" in Outline(Path("run.html").read_text()).text.replace("\u202f", "")


def test_a_broken_promise_is_on_the_page_with_what_was_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_self: Checker, _view: View) -> Iterable[str]:
        return ["c0002 is down after the heal"]

    monkeypatch.setattr(Liveness, "end", end)
    assert run(sim, ["run", *SMALL, "--report", "run.html", "--capsule", "c.json"]) == 1
    page = Path("run.html").read_text()
    said = Outline(page).text
    assert "At 8.000 s, Liveness, c0002: c0002 is down after the heal" in said
    assert "What was waited for at the end" in said
    assert all("c0002" in {text.text for text in svg.iter("text")} for svg in pictures(page))
    capsys.readouterr()
    assert run(sim, ["replay", "c.json", "--report", "again.html", "--quiet"]) == 0
    assert "report: again.html" in capsys.readouterr().out
    assert Path("again.html").read_text() == page


def test_a_replay_that_is_another_run_says_so_on_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, ["run", *SMALL, "--trace", "t.jsonl", "--capsule", "c.json"]) == 0
    named = json.loads(Path("c.json").read_text())
    Path("c.json").write_text(json.dumps({**named, "seed": 4}))
    assert run(sim, ["replay", "c.json", "--against", "t.jsonl", "--report", "r.html", "--quiet"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert any(line.startswith("event ") for line in out)
    said = Outline(Path("r.html").read_text()).text
    assert "Failed: no promise was broken, but the run is not what was asked for" in said
    assert out[-1].startswith("not the same run: trace hash")
    assert out[-1] in said


@pytest.mark.parametrize("path", ["no/such/run.html", ".", "-"])
@pytest.mark.parametrize("command", ["run", "replay"])
def test_a_page_that_could_not_be_written_is_refused_before_the_run(
    command: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sim, ["run", *SMALL, "--capsule", "c.json"]) == 0
    before = sorted(Path().iterdir())
    capsys.readouterr()
    arguments = ["run", *SMALL, "--until", "100000"] if command == "run" else ["replay", "c.json", "--quiet"]
    assert run(sim, [*arguments, "--report", path]) == 2
    assert "--report" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(Path().iterdir()) == before
