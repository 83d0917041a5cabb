"""Daemons that are killed at random moments lose nothing that they acknowledged, and say nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def loop(kills: int, seed: int, mode: str) -> dict[str, Any]:
    command = ["scripts/bench/kill_loop.py", "--kills", str(kills), "--seed", str(seed), "--mode", mode]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["kills"] >= kills
    assert figures["models"] >= 1
    assert figures["contributions"] >= 1
    return figures


def test_six_kills_break_no_law_of_the_disks() -> None:
    assert loop(6, 3, "local")["acknowledgements"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_kills_lose_no_acknowledged_contribution_and_refund_nothing() -> None:
    assert loop(200, 1, "local")["acknowledgements"] >= 100


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mode", "seed"), [("distributed", 2), ("none", 4)])
def test_kills_in_other_modes_break_no_law_of_the_disks(mode: str, seed: int) -> None:
    loop(40, seed, mode)
