"""Ctrl-C while a swarm runs and its report is written: noted, and answered when there is something to show.

Python raises `KeyboardInterrupt` wherever the main thread happens to be: between a charge and its record, in the midst
of a fit, in an event loop's own clean-up. A budget that was spent would then be lost with the report that says so. An
`Interrupts` that holds only remembers that it was asked to stop.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """SIGINT's handler while this context is open; outside the main thread, or where SIGINT is ignored, nothing.

    Contexts may be nested: the inner one alone is told, and the outer one is there again when it is closed.

    Attributes:
        noted: an interrupt has come while they were held.
    """

    def __init__(self) -> None:
        self.noted = False
        self._held = False
        self._hear: Callable[[], object] | None = None
        self._before: _Handler | None = None

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGINT)
        # An int is the default action of the system or SIG_IGN, as under nohup; None is a handler that C has set.
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hear = None
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def hold(self) -> None:
        """From now on only note interrupts; until then they go where they went before."""
        self._held = True

    def tell(self, hear: Callable[[], object] | None) -> None:
        """Call `hear` at the first interrupt, at once if it has come; it runs in the handler, so it must not block."""
        self._hear = hear
        if self.noted and hear is not None:
            hear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._held:
            assert self._before is not None, "installed in the place of another"
            self._before(number, frame)
            return
        first, self.noted = not self.noted, True
        if first and self._hear is not None:
            self._hear()
