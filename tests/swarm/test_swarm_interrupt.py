"""Ctrl-C in a real process, on both event loops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# Every packet takes three seconds, so that the interrupt comes in the middle of the round.
COMMAND = ["swarm", "--synthetic", "12", "--latency", "3", "--seed", "1"]
SCRIPT = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
SCRIPT += "from scarcity.cli.main import run; import click; from sim.commands import swarm; "
SCRIPT += "sys.exit(run(click.Group(commands={'swarm': swarm}), sys.argv[1:]))"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_is_status_130_without_a_traceback_and_says_what_was_done(backend: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *COMMAND, "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # progress: the round is under way
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "waits for" in first
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out.splitlines()[-1].startswith("interrupted: ")
