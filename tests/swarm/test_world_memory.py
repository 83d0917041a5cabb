"""A simulation may run for hours: what it holds depends on its members, not on how long it has run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts/bench/sim_memory.py"


def flat_share(clients: int, seconds: int, after_s: int) -> float:
    """Run in a process of its own: the memory of this one is that of all tests before."""
    size = ["--clients", str(clients), "--seconds", str(seconds), "--after", str(after_s)]
    done = subprocess.run([sys.executable, str(BENCH), *size], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["crashes"] > 0
    assert said["models"] > 0
    share: float = said["flat"]
    return share


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which is Linux's")
def test_a_world_under_churn_keeps_its_memory() -> None:
    assert flat_share(12, 240, 120) < 0.1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which is Linux's")
@pytest.mark.timeout(3600)
def test_an_hour_of_a_world_under_churn_keeps_its_memory() -> None:
    assert flat_share(30, 3600, 600) < 0.1
