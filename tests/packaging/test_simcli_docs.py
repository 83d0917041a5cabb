"""The page on simulating: its plan is one, its commands parse, its samples run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from scarcity.cli.main import run
from sim.faults.files import read_plan
from sim.sim_commands import sim
from tests.timeline_world import Outline

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to-simulate.md").read_text(encoding="utf-8")
COMMANDS = [line.split("    ")[0] for line in re.findall(r"^scarcity sim (.*)$", PAGE, re.MULTILINE)]


def test_the_plan_of_the_page_is_a_plan(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "storm.toml"
    path.write_text(text)
    assert len(read_plan(path).entries) == 3


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_parses(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = sim.commands[name]
    with command.make_context(name, arguments) as context:
        assert isinstance(context, click.Context)


def test_the_page_shows_all_four_commands() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(sim.commands)


def test_the_world_of_the_page_runs_and_every_fault_strikes(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(sample for sample in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "World(" in sample)
    exec(compile(code, "docs/how-to-simulate.md", "exec"), {})  # noqa: S102  # it is our own page
    assert capsys.readouterr().out == "0 True ['latency', 'loss', 'churn']\n"


def test_the_report_of_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (plan,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    Path("storm.toml").write_text(plan)
    (line,) = [line for line in COMMANDS if line.startswith("run ") and "--report" in line]
    assert run(sim, [*shlex.split(line), "--quiet"]) == 0
    assert "Passed: no promise was broken" in Outline(Path("run.html").read_text(encoding="utf-8")).text


def test_the_report_of_the_reference_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "reference" / "sim.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "docs/reference/sim.md", "exec"), {})  # noqa: S102  # it is our own page
    assert "Passed: no promise was broken" in Outline(Path("run.html").read_text(encoding="utf-8")).text
