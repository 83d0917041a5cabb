"""Whose lanes a timeline has, and where on it faults and violations are."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import attrs

from scarcity.federation.roster import COORDINATOR, basket_id
from sim.faults.plan import ClockSkew, Crash, Entry
from sim.timelines.recorder import Recording
from sim.worlds.built import WorldConfig
from sim.worlds.result import Violation

MOST_MEMBERS: Final = 40
_WORD: Final = re.compile(r"[^\s,;:()'\"]+")


def members_of(config: WorldConfig) -> tuple[str, ...]:
    """Return all members: the coordinator, baskets, clients."""
    return (COORDINATOR, *(basket_id(domain) for domain in config.domains), *sorted(config.seats))


def named_by(violation: Violation, members: Collection[str]) -> str:
    """Return the member that a violation is about; empty: none is named.

    A checker that looks around from outside names members in its sentence alone.
    """
    if violation.member in members:
        return violation.member
    return next((word for word in _WORD.findall(violation.what) if word in members), "")


@attrs.frozen
class Lanes:
    """Who has a lane, and how many who crashed, were named or are no clients have none for want of room."""

    members: tuple[str, ...]
    left_out: int


def lanes_of(
    config: WorldConfig, violations: Iterable[Violation], recording: Recording, most: int = MOST_MEMBERS
) -> Lanes:
    """Choose: who is named by a violation, the coordinator, baskets, and who crashed, most often first.

    They stand in the order of `members_of`.
    """
    order = members_of(config)
    known = frozenset(order)
    crashes = crashes_of(recording)
    named = (named_by(violation, known) for violation in violations)
    roles = order[: 1 + config.baskets]
    crashed = sorted((name for name in crashes if name in known), key=lambda name: (-crashes[name], name))
    wanted = list(dict.fromkeys(name for name in (*named, *roles, *crashed) if name))
    chosen = frozenset(wanted[:most])
    return Lanes(tuple(name for name in order if name in chosen), len(wanted) - len(chosen))


def crashes_of(recording: Recording) -> Mapping[str, int]:
    """Return how often each member crashed; who never did is left out."""
    return {member: sum(outage.crashes for outage in found) for member, found in recording.outages.items()}


def window_of(entry: Entry, config: WorldConfig) -> tuple[float, float]:
    """Return from when until when an entry of the plan may strike; the heal ends all but skewed clocks."""
    end = config.until_s if isinstance(entry, ClockSkew) else config.heal_at
    at_s = getattr(entry, "at_s", 0.0)
    until_s = at_s + entry.down_s if isinstance(entry, Crash) else getattr(entry, "until_s", math.inf)
    return min(at_s, end), min(until_s, end)


@attrs.frozen
class Cluster:
    """Violations so close together that they share a label.

    Attributes:
        first: number of the first one, from 1.
        x: where it is.
        violations: in order.
    """

    first: int
    x: float
    violations: tuple[Violation, ...]

    @property
    def number(self) -> str:
        """Their numbers."""
        last = self.first + len(self.violations) - 1
        return str(self.first) if last == self.first else f"{self.first}–{last}"

    @property
    def label(self) -> str:
        """Their numbers, and whose promises they are."""
        checkers = sorted({violation.checker for violation in self.violations})
        more = f" and {len(checkers) - 2} more" if len(checkers) > 2 else ""
        return f"{self.number} {', '.join(checkers[:2])}{more}"


def clusters_of(violations: Sequence[Violation], xs: Sequence[float], near: float) -> tuple[Cluster, ...]:
    """Group violations whose places are less than `near` behind the first one of their group."""
    found: list[Cluster] = []
    for number, (violation, x) in enumerate(zip(violations, xs, strict=True), start=1):
        if found and 0 <= x - found[-1].x < near:
            found[-1] = attrs.evolve(found[-1], violations=(*found[-1].violations, violation))
        else:
            found.append(Cluster(number, x, (violation,)))
    return tuple(found)


def ticks_of(until_s: float, most: int) -> tuple[str, tuple[tuple[float, str], ...]]:
    """Return the unit of the axis and its ticks (instant, label), at most `most` and the one at 0."""
    unit, unit_s = ("s", 1.0) if until_s <= 300 else ("min", 60.0) if until_s <= 18_000 else ("h", 3600.0)
    span = until_s / unit_s
    if span <= 0:
        return unit, ((0.0, "0"),)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)
    # The rounding error of a quotient must not cost the last tick.
    return unit, tuple((i * step * unit_s, f"{i * step:g}") for i in range(int(span / step + 1e-9) + 1))
