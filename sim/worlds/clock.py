"""asyncio's own event loop on a virtual clock: instead of waiting it goes on to the instant that it waits for.

Public API only: a selector that never blocks is handed to `asyncio.SelectorEventLoop`, whose `time` it advances. What
is ready runs first in, first out, so a program without threads, sockets and real clocks is deterministic.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class VirtualSelector(selectors.SelectSelector):
    """Takes no time, and advances a clock by the time that it was asked to wait.

    Attributes:
        now_s: virtual seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if that is nothing, the time asked for has passed.

        Without a time there is no timer: only another thread can wake the loop (its own shutdown does so).
        """
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout is not None:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` is virtual: it starts at 0 and jumps."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._virtual.now_s


def run_virtual(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an async function in virtual time and return what it returns."""
    return anyio.run(main, *args, backend="asyncio", backend_options={"loop_factory": VirtualLoop})
