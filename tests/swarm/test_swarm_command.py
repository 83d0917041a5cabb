from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scarcity.cli.main import run
from scarcity.federation.effects import BasketClosed, ContributionMade, ModelMade, RoundAborted, RoundDeclined, Waiting
from scarcity.federation.packets import Aggregate, Model
from sim import commands
from sim.swarms.report import JSON_KEYS
from sim.swarms.swarm import run_swarm
from tests.swarm.summing import summing

Run = Callable[..., int]


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command over an executor without a federation."""

    def call(*arguments: str, before_model: Callable[[], None] = lambda: None) -> int:
        runner = functools.partial(run_swarm, execute=summing(before_model=before_model))
        monkeypatch.setattr(commands, "run_swarm", runner)
        return run(commands.swarm, ["--synthetic", "9", "--privacy", "none", "--seed", "1", *arguments])

    return call


def test_the_report_goes_to_stdout_and_progress_to_stderr(swarm: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm() == 0
    shown = capsys.readouterr()
    assert "Relations of the global model" in shown.out
    assert "round 1: basket/domain-0 has 3 contributions" in shown.err
    assert "round 1: model of 9 clients, 3 baskets" in shown.err


def test_quiet_silences_progress_alone(swarm: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm("--quiet") == 0
    shown = capsys.readouterr()
    assert shown.out
    assert shown.err == ""


def test_json_goes_to_a_file_or_alone_to_stdout(swarm: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    assert swarm("--json", str(path)) == 0
    assert tuple(json.loads(path.read_text())) == JSON_KEYS
    capsys.readouterr()
    assert swarm("--json", "-", "--quiet") == 0
    assert tuple(json.loads(capsys.readouterr().out)) == JSON_KEYS


def test_an_interrupt_is_status_130_with_a_report_and_no_traceback(
    swarm: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    path = tmp_path / "result.json"
    assert swarm("--json", str(path), before_model=interrupt) == 130
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "interrupted: 9 contributions had been made, 0 models"
    assert "Traceback" not in shown.err
    assert path.exists()


def test_progress_counts_and_names_what_matters() -> None:
    lines: list[str] = []
    tell = commands.progress(lines.append)
    for i in range(100):
        tell(ContributionMade(f"c{i}", 1, "release"), 0.0)
    tell(RoundDeclined("c7", 1, "no rows"), 0.0)
    aggregate = Aggregate(np.zeros(1), 1.0, 2, "average", 0.0)
    tell(BasketClosed("basket/a", 1, aggregate, ("c1", "c2"), (("c3", "silent"),)), 0.0)
    tell(ModelMade(Model(1, b"", np.zeros(1), 1.0, 2, 0.0, b""), ("basket/a",)), 0.0)
    tell(RoundAborted(2, "too few", 0, 1), 0.0)
    assert lines == [
        "round 1: 50 contributions",
        "round 1: 100 contributions",
        "round 1: c7 declined: no rows",
        "round 1: basket/a has 2 contributions, 1 missing",
        "round 1: model of 2 clients, 1 baskets",
        "round 2: given up (0 of 1 baskets): too few",
    ]


def test_waiting_is_told_with_its_deadline_but_not_all_the_time() -> None:
    lines: list[str] = []
    tell = commands.progress(lines.append)
    for now in (0.0, 0.5, 1.9, 2.1, 3.0):
        tell(Waiting("basket/a", "contributions", 3, 10, ("c1",), 0.0, 60.0), now)
    tell(Waiting("basket/b", "contributions", 3, 10, ("c1",), 0.0, 60.0), 3.0)
    assert lines == [
        "basket/a waits for contributions: 3 of 10 (60 s left); missing c1",
        "basket/a waits for contributions: 3 of 10 (58 s left); missing c1",
        "basket/b waits for contributions: 3 of 10 (57 s left); missing c1",
    ]
