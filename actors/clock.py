"""One heap of timers a system, served by one task, on an injected clock.

A cancel scope per deadline would cost 2.5 times as much as an entry here. Equal instants fire in the order in which
they were set. A cancelled timer stays in the heap until its time comes or half the heap is cancelled, whichever is
earlier, so the heap stays within about twice the timers that are alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import anyio

from actors.errors import BadSetting

_COMPACT_MIN = 64  # below this a sweep saves nothing


def check_seconds(name: str, seconds: float) -> float:
    """Return `seconds` when it is positive and finite, else raise `BadSetting` that names it."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadSetting(f"{name}: expected positive, finite seconds, got {seconds!r}")
    return seconds


class Timer:
    """A callback that is due at an instant, or every period from there, until it is cancelled."""

    __slots__ = ("_action", "_timers", "due_at", "period_s")

    def __init__(self, timers: Timers, due_at: float, action: Callable[[], None], period_s: float | None) -> None:
        self._timers = timers
        self._action: Callable[[], None] | None = action
        self.due_at = due_at
        self.period_s = period_s

    @property
    def active(self) -> bool:
        """Whether it is still going to fire."""
        return self._action is not None

    def cancel(self) -> None:
        """Make sure that it does not fire. Idempotent."""
        if self._action is not None:
            self._action = None
            self._timers.forget_one()

    def fire(self, now: float) -> None:
        """Run the callback, and set the next instant when it has a period; the heap's task alone calls this."""
        action = self._action
        assert action is not None
        if self.period_s is None:
            self._action = None
        else:
            self.due_at += self.period_s
            if self.due_at <= now:  # late by a period or more: skip what was missed, do not catch up in a burst
                self.due_at = now + self.period_s
            self._timers.push(self)
        action()


class Timers:
    """The heap and the task that serves it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._num_cancelled = 0
        self._asleep_until = -math.inf
        self._wake: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._heap) - self._num_cancelled

    def at(self, due_at: float, action: Callable[[], None], *, period_s: float | None = None) -> Timer:
        """Call `action` at the instant `due_at`, and every `period_s` from there; it must neither block nor raise."""
        timer = Timer(self, due_at, action, period_s)
        self.push(timer)
        return timer

    def push(self, timer: Timer) -> None:
        """Put a timer in the heap for its next instant."""
        self._sequence += 1
        heappush(self._heap, (timer.due_at, self._sequence, timer))
        if self._wake is not None and timer.due_at < self._asleep_until:
            self._wake.set()

    def forget_one(self) -> None:
        """Count a cancelled timer, and sweep when they are the majority."""
        self._num_cancelled += 1
        if self._num_cancelled > _COMPACT_MIN and 2 * self._num_cancelled > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].active]
            heapify(self._heap)
            self._num_cancelled = 0

    async def run(self) -> None:
        """Serve the heap until cancelled."""
        while True:
            self._fire_due()
            self._asleep_until = self._heap[0][0] if self._heap else math.inf
            self._wake = anyio.Event()
            # The clock may be another than the loop's: sleep for the difference, then look again.
            with anyio.move_on_after(self._asleep_until - self.now()):
                await self._wake.wait()
            self._wake = None

    def _fire_due(self) -> None:
        now = self.now()
        while self._heap and self._heap[0][0] <= now:
            timer = heappop(self._heap)[2]
            if timer.active:
                timer.fire(now)
            else:
                self._num_cancelled -= 1
