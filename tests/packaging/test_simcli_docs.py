"""The page on simulating: its plan is one, its commands parse, its samples run."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

import click
import pytest
from anyio.from_thread import start_blocking_portal

from scarcity.node.setup import directory, keys
from sim import FaultPlan, Latency, Loss, Partition
from sim.faults.files import read_plan
from sim.sim_commands import sim
from sim.testing import proxy as proxy_module
from tests.nodes_world import APART, Rows, found

PAGE = (Path(__file__).parents[2] / "docs" / "how-to-simulate.md").read_text(encoding="utf-8")
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


def test_the_sample_with_real_nodes_runs_and_every_fault_strikes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(sample for sample in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "FaultProxy(" in sample)
    settings = {"gossip_s": 0.2, "ready_s": 0.4, "close_s": 0.4, "deadline_s": 6.0, "stage_s": 0.4}
    federation = found(tmp_path, APART, settings=settings, rounds=1000, interval_s=0.1)
    monkeypatch.chdir(tmp_path)
    rows = Rows(federation)
    rows.add(40)

    def start_nodes() -> None:
        for daemon in federation.each():
            daemon.start()
        federation.wait("a model", lambda: bool(federation.daemons["hub"].models()), 30)

    def wait_for_rounds() -> None:
        portal, proxy = names["portal"], names["proxy"]

        def come() -> bool:
            rows.add(1)
            over = portal.call(lambda: proxy.now_s) > 1.6 and not portal.call(proxy.never_struck)
            return over and max(federation.daemons["south"].models(), default=0) > 1

        federation.wait("a model after the plan's faults", come, 60)

    names: dict[str, Any] = {"Path": Path, "time": time, "start_blocking_portal": start_blocking_portal}
    for module in (directory, keys, proxy_module):
        names |= {name: getattr(module, name) for name in dir(module)}
    names |= {"FaultPlan": FaultPlan, "Latency": Latency, "Loss": Loss, "Partition": Partition}
    names |= {"start_nodes": start_nodes, "wait_for_rounds": wait_for_rounds}
    try:
        exec(compile(code, "docs/how-to-simulate.md", "exec"), names)  # noqa: S102  # it is our own page
    finally:
        for daemon in federation.each():
            if daemon.is_up:
                daemon.kill()
