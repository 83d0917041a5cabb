"""The canary: the event loop that a case names is the one that runs, and the guards refuse what would fake it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
import trio

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.anyio
async def test_the_running_library_is_the_one_the_case_names(
    anyio_backend_name: str, request: pytest.FixtureRequest
) -> None:
    assert anyio_backend_name in request.node.name
    if anyio_backend_name == "asyncio":
        assert asyncio.current_task() is not None
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
    else:
        assert trio.lowlevel.current_task() is not None
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_virtual_time_passes_an_hour_at_once() -> None:
    real, virtual = time.monotonic(), anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - virtual == pytest.approx(3600)
    assert time.monotonic() - real < 60


@pytest.mark.parametrize("option", [["-o", "trio_mode=true"], ["-o", "anyio_mode=auto"], ["--anyio-mode=auto"]])
def test_a_mode_that_takes_over_async_tests_is_refused(option: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *option, "tests/actors/test_actors_backends.py"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is refused" in run.stderr
