"""Counts and spans over virtual time, in a memory that does not grow with the run."""

from __future__ import annotations

import math

import attrs


class Bins:
    """Counts in equal parts of a run.

    Args:
        num: how many parts.
        until_s: end of the run.
    """

    def __init__(self, num: int, until_s: float) -> None:
        self.counts = [0] * num
        self._per_s = num / until_s if until_s > 0 else 0.0

    def place(self, at: float) -> int:
        """Return the part that an instant is in; the end of the run is in the last one."""
        return min(len(self.counts) - 1, max(0, int(at * self._per_s)))

    def add(self, at: float, count: int = 1) -> None:
        """Count something at an instant."""
        self.counts[self.place(at)] += count


@attrs.frozen
class Outage:
    """A member was down from `at_s` until `up_at_s` (infinity: to the end), with so many `crashes` in between."""

    at_s: float
    up_at_s: float
    crashes: int = 1


class Outages:
    """When a member was down. Who crashes again sooner than `least_s` after it came up counts as down in between.

    So starts are at least `least_s` apart, and a run has room for `until_s / least_s` outages of a member, whatever
    it does.
    """

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._found: list[Outage] = []

    def crash(self, at: float) -> None:
        """Note a crash."""
        if self._found and at - self._found[-1].up_at_s < self._least_s:
            last = self._found.pop()
            self._found.append(Outage(last.at_s, math.inf, last.crashes + 1))
        else:
            self._found.append(Outage(at, math.inf))

    def up(self, at: float) -> None:
        """Note a start; the first one of all ends nothing."""
        if self._found and math.isinf(self._found[-1].up_at_s):
            self._found[-1] = attrs.evolve(self._found[-1], up_at_s=at)

    @property
    def all(self) -> tuple[Outage, ...]:
        """All of them, in order."""
        return tuple(self._found)
