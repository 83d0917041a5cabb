"""Guards of the test run: both event loops really run, and no plugin mode can pretend that they do.

`trio_mode` and `anyio_mode = auto` take over every async test; trio_mode silently runs the asyncio cases on trio, and
they pass. Async tests here carry `@pytest.mark.anyio` and nothing else. Tests of timers add
`@pytest.mark.virtual_time`: the clock then jumps to the next deadline as soon as every task waits, so no test sleeps.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest
from hypothesis import settings
from trio.testing import MockClock

# A slow machine is no failure, and what fails once must fail again: no deadline, and the same examples every time.
settings.register_profile("scarcity", deadline=None, derandomize=True)
settings.load_profile("scarcity")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: the event loop's clock jumps instead of sleeping")
    modes = (
        ("trio_mode", _setting(config, "trio_mode"), (False, None)),
        ("anyio_mode", config.getoption("anyio_mode", None) or _setting(config, "anyio_mode"), ("strict", None)),
    )
    for name, value, harmless in modes:
        if value not in harmless:
            raise pytest.UsageError(f"{name} = {value!r} is refused: mark async tests with @pytest.mark.anyio")


def _setting(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except (KeyError, ValueError):  # the plugin that owns the setting is not there
        return None


class VirtualSelector(selectors.SelectSelector):
    """Advances a clock by the time it was asked to wait, and waits no time at all."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop on that clock."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Run the test on both event loops."""
    if request.node.get_closest_marker("virtual_time") is None:
        return str(request.param)
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": VirtualLoop}
    return "trio", {"clock": MockClock(autojump_threshold=0)}
