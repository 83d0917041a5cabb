from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/demo", "scripts/local-federation", "scripts/docs", "scripts/test", "scripts/screenshots", ".ci/run")


def _without_python() -> dict[str, str]:
    """Return the environment without PYTHON, by which a caller may have named an interpreter."""
    return {name: value for name, value in os.environ.items() if name != "PYTHON"}


def run_bash(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f"set -euo pipefail; source {ROOT}/scripts/environment.sh; {code}"]
    variables = {**_without_python(), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_executable_strict_and_sound(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("name", ["actors", "links"])
def test_a_bench_says_what_it_takes(name: str) -> None:
    bench = [sys.executable, str(ROOT / "scripts" / "bench" / f"{name}.py"), "--help"]
    done = subprocess.run(bench, capture_output=True, text=True, check=True)
    assert "[messages]" in done.stdout
    assert done.stderr == ""


def test_ci_runs_the_same_script_as_a_developer() -> None:
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


def fake_python(folder: Path, name: str, status: int, version: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\nexit {status}\n')
    path.chmod(0o755)


def test_an_old_python3_is_passed_over_for_a_newer_one(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", 1, "3.9.2")
    fake_python(tmp_path, "python3.13", 127, "broken")
    fake_python(tmp_path, "python3.12", 0, "3.12.1")
    found = run_bash("find_python", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert (found.returncode, found.stdout.strip()) == (0, "python3.12")


def test_without_a_new_python_the_error_says_what_is_needed_and_what_there_is(tmp_path: Path) -> None:
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        fake_python(tmp_path, name, 1, "3.9.2")
    found = run_bash("find_python", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert found.returncode == 1
    assert "Python 3.11 or newer is needed; python3 is Python 3.9.2" in found.stderr


def test_an_environment_that_is_made_is_used_again(tmp_path: Path) -> None:
    venv = tmp_path / "env"
    fake_python(tmp_path, "python", 1, "3.12.1")
    (venv / "bin").mkdir(parents=True)
    (tmp_path / "python").rename(venv / "bin" / "python")
    code = f'VENV={venv}; cat "$PROJECT/pyproject.toml" "$PROJECT/constraints.txt" | cksum > "$VENV/.installed-demo"'
    again = run_bash(f"{code}; make_environment demo")
    assert (again.returncode, again.stderr.strip()) == (0, f">> using {venv}")


def test_an_environment_of_other_versions_is_not(tmp_path: Path) -> None:
    venv = tmp_path / "env"
    (venv / "bin").mkdir(parents=True)
    fake_python(venv / "bin", "python", 0, "3.12.1")
    (venv / ".installed-demo").write_text("of another time\n")
    again = run_bash(f"VENV={venv}; make_environment demo")
    assert "installing the project with [demo]" in again.stderr
