"""The README's own samples, run as they stand there."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def _write_wards(path: Path) -> None:
    """Write 40 wards x 200 days in which admissions drive waiting a day later."""
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ward", "region", "day", "admissions", "waiting"])
        for ward in range(40):
            admissions, waiting = 50.0, 60.0
            for day in range(200):
                admissions, waiting = (
                    50 + 0.5 * (admissions - 50) + rng.normal(0, 8),
                    60 + 0.4 * (waiting - 60) + (admissions - 50) + rng.normal(0, 15),
                )
                writer.writerow([f"w{ward}", ("north", "south")[ward % 2], day, round(admissions), round(waiting)])


def test_the_python_sample_finds_the_link_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (sample,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    _write_wards(tmp_path / "wards.csv")
    monkeypatch.chdir(tmp_path)
    exec(compile(sample, "README.md", "exec"), {})  # noqa: S102 - the README's own words
    assert "('admissions',) ('waiting',) 1" in capsys.readouterr().out


def test_the_command_for_ones_own_data_runs(tmp_path: Path) -> None:
    (line,) = re.findall(r"^ {4}scarcity (swarm --data .*)$", README, re.MULTILINE)
    _write_wards(tmp_path / "wards.csv")
    (tmp_path / "schema.toml").write_text(
        'lags = 2\nhorizon = 5\n[[variables]]\nname = "admissions"\nscale = 10.0\n'
        '[[variables]]\nname = "waiting"\nscale = 30.0\n'
    )
    script = "from sim.commands import swarm; import sys; swarm(sys.argv[1:], prog_name='swarm')"
    run = subprocess.run(
        [sys.executable, "-c", script, *line.split()[1:]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "admissions -> waiting, lag 1" in run.stdout


def test_the_readme_names_only_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", README):
        assert (PROJECT / target).exists(), target
