"""Make a failing plan smaller: which of its faults does the failure need, and how little of each?

First delta debugging over the entries (Zeller and Hildebrandt, IEEE TSE 2002, Alg. ddmin): halves, quarters and so on
are taken out, and what still fails is kept. Then each entry that is left is narrowed: fewer groups, fewer members of
them, a shorter window, a smaller probability. Entries keep their identities throughout, so what is left decides as it
did in the whole plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from scarcity.errors import LocalError
from sim.faults.outages import members_in
from sim.faults.plan import SPLIT, Byzantine, Dropout, Entry, FaultPlan, Partition, clients_of

MAX_RUNS: Final = 400  # a plan of 30 faults needs about 200; a run takes a second or so
_MOST_NARROWED: Final = 24  # of one entry: three numbers halved eight times each are small enough for anybody to read
_LEAST_WINDOW_S: Final = 0.001
_PARTS: Final = (2, 4, 8)  # of groups or members that are left out in turn: 14 runs at most before it is given up
Fails = Callable[[FaultPlan], bool]


@attrs.frozen
class ShrinkStep:
    """Progress: what is known after so many runs.

    Attributes:
        runs: runs so far.
        max_runs: most that there may be.
        plan: the smallest plan that fails.
    """

    runs: int
    max_runs: int
    plan: FaultPlan


class _OutOfRuns(Exception):
    pass


def shrink(
    plan: FaultPlan,
    fails: Fails,
    tell: Callable[[ShrinkStep], None] | None = None,
    *,
    max_runs: int = MAX_RUNS,
    until_s: float = math.inf,
    seats: Mapping[str, str] | None = None,
) -> FaultPlan:
    """Return a plan that fails and is no larger; with runs enough, one of which no single entry can be left out.

    Args:
        plan: a plan that fails.
        fails: runs a plan and says whether it fails; asked at most `max_runs` times, never twice about one plan.
        tell: told after every run.
        max_runs: bound; when it is reached, the smallest plan so far is returned.
        until_s: end of the run, so that windows without an end can be narrowed too.
        seats: member id -> its domain, so that groups can be narrowed to some of their members; None: they are not.

    Raises:
        LocalError: the plan does not fail, so there is nothing to shrink.
    """
    search = _Search(plan, fails, tell or (lambda _step: None), max_runs, until_s, seats or {})
    try:
        if not search.fails(plan):
            raise LocalError(f"the plan of {len(plan.entries)} entries does not fail, so there is nothing to shrink")
        search.drop_entries()
        search.narrow_entries()
    except _OutOfRuns:
        pass
    return search.best


@attrs.define(eq=False)
class _Search:
    best: FaultPlan
    _run: Fails
    _tell: Callable[[ShrinkStep], None]
    _max_runs: int
    _end_s: float
    _seats: Mapping[str, str]
    _known: dict[FaultPlan, bool] = attrs.field(factory=dict)

    def fails(self, plan: FaultPlan) -> bool:
        """Run a plan that has not been run; a failing one becomes the best."""
        if plan in self._known:
            return self._known[plan]
        if len(self._known) >= self._max_runs:
            raise _OutOfRuns
        failed = self._known[plan] = self._run(plan)
        if failed:
            self.best = plan
        self._tell(ShrinkStep(len(self._known), self._max_runs, self.best))
        return failed

    def drop_entries(self) -> None:
        """Take entries out, in ever smaller parts, until none can be left out."""
        num_parts = 1  # all of them first: a failure that needs no fault at all is found in one run
        while self.best.entries:
            whole = range(len(self.best.entries))
            num_parts = min(num_parts, len(whole))
            size = math.ceil(len(whole) / num_parts)
            parts = [whole[at : at + size] for at in range(0, len(whole), size)]
            if any(self.fails(self.best.only(set(whole) - set(part))) for part in parts):
                num_parts = max(num_parts - 1, 1)
            elif num_parts == len(whole):
                return
            else:
                num_parts = min(2 * num_parts, len(whole))

    def narrow_entries(self) -> None:
        """Narrow one entry after the other for as long as something gives way."""
        for index in range(len(self.best.entries)):
            num_narrowed = 0
            candidates = narrower(self.best.entries[index], self._end_s, self._seats)
            while (entry := next(candidates, None)) is not None and num_narrowed < _MOST_NARROWED:
                if self.fails(self.best.replaced(index, entry)):
                    num_narrowed += 1
                    candidates = narrower(entry, self._end_s, self._seats)


def narrower(entry: Entry, end_s: float, seats: Mapping[str, str]) -> Iterator[Entry]:
    """Yield entries of the same kind that do less, groups first, then their members, times, and numbers.

    Args:
        entry: the entry.
        end_s: end of the run, which ends all windows; infinity: those without an end stay as they are.
        seats: member id -> its domain; empty: groups stay whole.
    """
    if isinstance(entry, Partition):
        # Its groups stay whole: one that is cut in pieces loses what they say to each other.
        least = 2 if entry.mode == SPLIT else 1
        yield from (_with(entry, "groups", left) for left in _parts(entry.groups) if len(left) >= least)
    else:
        names: tuple[str, ...] = getattr(entry, "of", ())
        yield from (_with(entry, "of", left) for left in _parts(names))
        if seats and names and (members := _members(entry, names, seats)) != tuple(sorted(names)):
            yield from (_with(entry, "of", left) for left in _parts(members))
    at_s, until_s = getattr(entry, "at_s", 0.0), min(getattr(entry, "until_s", 0.0), end_s)
    if _LEAST_WINDOW_S < until_s - at_s < math.inf:
        middle_s = (at_s + until_s) / 2
        yield _with(entry, "until_s", middle_s)
        yield _with(entry, "at_s", middle_s)
    for name, enough in _SMALLER.items():
        value: float | None = getattr(entry, name, None)
        if value is not None and enough < value < math.inf:
            yield _with(entry, name, value / 2)
    if getattr(entry, "torn", False):
        yield _with(entry, "torn", False)


# Numbers that can be halved, and below which it is not worth a run.
_SMALLER: Final = {"probability": 0.01, "per_minute": 0.1, "down_s": 0.1, "by_s": 0.01, "seconds": 0.01}


def _parts(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield names without a half of them, a quarter, and an eighth: of up to eight, without each one in the end."""
    for num_parts in _PARTS:
        size = math.ceil(len(names) / num_parts)
        starts = range(0, len(names), size) if size < len(names) else ()
        yield from (names[:at] + names[at + size :] for at in starts)


def _members(entry: Entry, groups: tuple[str, ...], seats: Mapping[str, str]) -> tuple[str, ...]:
    """Return the members that an entry strikes, sorted; of what only clients do, the clients."""
    if isinstance(entry, Byzantine | Dropout):
        return clients_of(groups, seats)
    return members_in(groups, seats)


def _with(entry: Entry, key: str, value: Any) -> Entry:
    return attrs.evolve(entry, **{key: value})
