"""Ctrl-C in a real process, on both event loops. The child listens to SIGINT even where these tests are deaf to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sim.interrupts import Interrupts

PROJECT = Path(__file__).resolve().parents[2]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
RUN = """
import sys
from importlib.metadata import EntryPoint
import scarcity.cli.main as cli
cli.entry_points = lambda: {"swarm": EntryPoint("swarm", "sim.commands:swarm", cli.GROUP)}
cli.main()
"""
# Interrupts come from within, at the one place that the test is about.
AT_EVALUATION = """
import sim.swarms.swarm
fits = sim.swarms.swarm.local_fits
def interrupted(source):
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
    return fits(source)
sim.swarms.swarm.local_fits = interrupted
"""
AT_WRITING = """
import sim.commands
write = sim.commands.write_model
def interrupted(*what):
    signal.raise_signal(signal.SIGINT)
    write(*what)
sim.commands.write_model = interrupted
"""
AT_READING = """
import sim.swarms.swarm
def interrupted(number, seed):
    signal.raise_signal(signal.SIGINT)
sim.swarms.swarm.synthetic = interrupted
"""
SWARM = ["swarm", "--synthetic", "12", "--seed", "1"]
# Every packet takes three seconds, so that the interrupt comes in the middle of the round.
SLOW = [*SWARM, "--latency", "3"]


@contextmanager
def child(script: str, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A swarm in a process that does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(script: str, arguments: list[str]) -> tuple[int, str, str]:
    with child(script, arguments) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@BACKENDS
@pytest.mark.parametrize("gap_s", [None, 0.0, 0.03])
def test_ctrl_c_once_or_twice_is_status_130_with_a_report_and_no_traceback(backend: str, gap_s: float | None) -> None:
    with child(LISTEN + RUN, [*SLOW, "--backend", backend]) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # progress: the round is under way
        process.send_signal(signal.SIGINT)
        if gap_s is not None:
            time.sleep(gap_s)  # a real process on a real clock: there is nothing to wait for but time
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "waits for" in first
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Warning" not in err
    assert out.splitlines()[-1] == "interrupted: 0 contributions had been made, 0 models"


@BACKENDS
def test_ctrl_c_during_the_evaluation_loses_nothing(backend: str, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "r.json"), "--model", str(tmp_path / "m.json"), "--backend", backend]
    status, out, err = run(LISTEN + AT_EVALUATION + RUN, [*SWARM, *files, "--quiet"])
    assert (status, err) == (130, "")
    assert out.splitlines()[-1] == "interrupted: 12 contributions had been made, 1 models"
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["privacy"]["layers"]["layer 1"]["clients"] == 12
    assert (tmp_path / "m.json").exists()


def test_ctrl_c_while_files_are_written_is_answered_when_they_are(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "r.json"), "--model", str(tmp_path / "m.json")]
    status, out, err = run(LISTEN + AT_WRITING + RUN, [*SWARM, *files, "--quiet"])
    assert (status, err) == (130, "")
    assert "Relations of the global model" in out
    assert out.splitlines()[-1] == "interrupted: the run had ended, and all of it is written"
    assert (tmp_path / "m.json").exists()


def test_ctrl_c_before_anything_runs_ends_at_once() -> None:
    status, out, err = run(LISTEN + AT_READING + RUN, SWARM)
    assert (status, out, err.strip()) == (130, "", "interrupted")


def test_a_swarm_that_is_deaf_to_ctrl_c_runs_to_its_end() -> None:
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    status, out, err = run(deaf + AT_EVALUATION + RUN, [*SWARM, "--quiet"])
    assert (status, err) == (0, "")
    assert "interrupted" not in out


# The handler alone


@pytest.fixture
def listening() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_an_interrupt_is_raised_until_it_is_held_and_the_handler_comes_back() -> None:
    heard: list[str] = []
    with Interrupts() as outer:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        outer.hold()
        with Interrupts() as inner:
            inner.hold()
            inner.tell(lambda: heard.append("once"))
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert (inner.noted, outer.noted, heard) == (True, False, ["once"])
        signal.raise_signal(signal.SIGINT)
        assert outer.noted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
def test_who_listens_late_hears_of_an_earlier_interrupt() -> None:
    heard: list[str] = []
    with Interrupts() as interrupts:
        interrupts.hold()
        signal.raise_signal(signal.SIGINT)
        interrupts.tell(lambda: heard.append("late"))
    assert heard == ["late"]
