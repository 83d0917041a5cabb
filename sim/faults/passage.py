"""What happens to the packets of one directed pair: the network's laws, partitions and clogs, bound to two members.

Each law says how many seconds it adds to a passage; infinity: the packet is lost. Laws do not look at one another, so
a law's answers are the same whether another one is in force or not. Random ones ask for the draw of the packet's number
on the pair.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Protocol

import attrs

from scarcity.errors import ConfigError
from sim.chance import Chance, Draws
from sim.faults.network import Law
from sim.faults.plan import (
    SPLIT,
    Bandwidth,
    Clog,
    Duplicate,
    Entry,
    FaultPlan,
    Latency,
    Loss,
    Partition,
    Reorder,
    at_place,
    kind_name,
    members_of,
)


class Bound(Protocol):
    """A law that holds for one directed pair from `at_s` until `until_s`.

    Attributes:
        index: its place in the plan.
        victim: whom it strikes.
        hits: how often it has.
    """

    index: int
    victim: str
    at_s: float
    until_s: float
    hits: int

    def extra_s(self, number: int, now: float, size_bytes: int) -> float:
        """Return what the law adds to the passage of the pair's packet of this number."""


@attrs.define(eq=False)
class _Delayed:
    index: int
    victim: str
    at_s: float
    until_s: float
    law: Law
    draws: Draws
    hits: int = 0

    def extra_s(self, number: int, _now: float, _size_bytes: int) -> float:
        self.hits += 1
        return self.law.delay_s(self.draws.uniform(number))


@attrs.define(eq=False)
class _Chanced:
    """Loss, reorder and duplicate: something is added with a probability (for a duplicate, one copy)."""

    index: int
    victim: str
    at_s: float
    until_s: float
    probability: float
    added_s: float
    draws: Draws
    hits: int = 0

    def extra_s(self, number: int, _now: float, _size_bytes: int) -> float:
        if self.draws.uniform(number) >= self.probability:
            return 0.0
        self.hits += 1
        return self.added_s


@attrs.define(eq=False)
class _Line:
    """Bandwidth: packets leave one after another, lost ones too, for they are lost on the way."""

    index: int
    victim: str
    at_s: float
    until_s: float
    bytes_per_s: float
    free_at: float = -math.inf
    hits: int = 0

    def extra_s(self, _number: int, now: float, size_bytes: int) -> float:
        self.hits += 1
        self.free_at = max(now, self.free_at) + size_bytes / self.bytes_per_s
        return self.free_at - now


@attrs.define(eq=False)
class _Cut:
    index: int
    victim: str
    at_s: float
    until_s: float
    turns_at: tuple[float, ...]  # when the cut goes, comes again, goes and so on
    hits: int = 0

    def extra_s(self, _number: int, now: float, _size_bytes: int) -> float:
        if bisect.bisect_right(self.turns_at, now) % 2:
            return 0.0
        self.hits += 1
        return math.inf


@attrs.define(eq=False)
class _Held:
    index: int
    victim: str
    at_s: float
    until_s: float
    hits: int = 0

    def extra_s(self, _number: int, now: float, _size_bytes: int) -> float:
        self.hits += 1
        return self.until_s - now


@attrs.define(eq=False)
class Pair:
    """One directed pair.

    Attributes:
        laws: what holds for each packet.
        duplicates: what makes second copies.
        again: what holds for second copies: the same laws with draws of their own, but for the sender's line.
        num_packets: how many the sender has sent to the receiver.
    """

    laws: tuple[Bound, ...]
    duplicates: tuple[Bound, ...] = ()
    again: tuple[Bound, ...] = ()
    num_packets: int = 0

    def passages(self, now: float, size_bytes: int) -> tuple[float, ...]:
        """Return the delay of each copy of the next packet that arrives."""
        number = self.num_packets
        self.num_packets = number + 1
        delay_s = 0.0
        for law in self.laws:
            if law.at_s <= now < law.until_s:
                delay_s += law.extra_s(number, now, size_bytes)
        first = (delay_s,) if delay_s < math.inf else ()
        return first + self._copies(number, now, size_bytes) if self.duplicates else first

    def _copies(self, number: int, now: float, size_bytes: int) -> tuple[float, ...]:
        # Every law is asked, so that each counts what it would have done without the others.
        if sum(_adds(law, number, now, size_bytes) for law in self.duplicates) == 0:
            return ()
        delay_s = sum(_adds(law, number, now, size_bytes) for law in self.again)
        return (delay_s,) if delay_s < math.inf else ()


def _adds(law: Bound, number: int, now: float, size_bytes: int) -> float:
    return law.extra_s(number, now, size_bytes) if law.at_s <= now < law.until_s else 0.0


Groups = tuple[frozenset[str], ...]


def _turns_at(entry: Partition, draws: Draws) -> tuple[float, ...]:
    """Return the instants at which a cut goes or comes again, in order."""
    instants: list[float] = []
    passed_s, whole_s = 0.0, entry.until_s - entry.at_s  # since it began: late instants are too coarse to add to
    while (passed_s := passed_s + entry.stability_s * (0.5 + draws.uniform(len(instants)))) < whole_s:
        instants.append(entry.at_s + passed_s)
    return tuple(instants)


class Laws:
    """The laws of a plan that decide about packets, ready to be bound to pairs.

    Args:
        plan: the plan.
        seats: member id -> domain.
        chance: decides.

    Raises:
        ConfigError: a group has no members, or a member is in two groups of a partition.
    """

    def __init__(self, plan: FaultPlan, seats: Mapping[str, str], chance: Chance) -> None:
        self._chance = chance
        self._entries: list[tuple[int, str, Entry, Groups]] = []
        self._turns_at: dict[int, tuple[float, ...]] = {}
        for index, (entry, identity) in enumerate(zip(plan.entries, plan.ids, strict=True)):
            if isinstance(entry, _ON_PACKETS):
                with at_place(plan.place(index)):
                    self._entries.append((index, identity, entry, _groups_of(entry, seats)))
            if isinstance(entry, Partition):
                self._turns_at[index] = _turns_at(entry, chance.draws("partition", identity, "turns"))

    def bind(self, src: str, dst: str) -> Pair:
        """Return what holds from one member to another."""
        found = [
            (index, entry, victim, (kind_name(entry), identity, src, dst))
            for index, identity, entry, groups in self._entries
            if (victim := _victim(entry, groups, src, dst))
        ]
        laws = tuple(self._bound(*law) for law in found if not isinstance(law[1], Duplicate))
        duplicates = tuple(self._bound(*law) for law in found if isinstance(law[1], Duplicate))
        if not duplicates:
            return Pair(laws)
        again = tuple(
            self._bound(index, entry, victim, (*labels, "again"))
            for index, entry, victim, labels in found
            if not isinstance(entry, Bandwidth | Duplicate)
        )
        return Pair(laws, duplicates, again)

    def _bound(self, index: int, entry: Entry, victim: str, labels: tuple[str, ...]) -> Bound:
        match entry:
            case Latency():
                return _Delayed(index, victim, entry.at_s, entry.until_s, entry.law, self._chance.draws(*labels))
            case Loss():
                return self._chanced(index, entry, victim, math.inf, labels)
            case Duplicate():
                return self._chanced(index, entry, victim, 1.0, labels)  # one copy
            case Reorder():
                return self._chanced(index, entry, victim, entry.by_s, labels)
            case Bandwidth():
                return _Line(index, victim, entry.at_s, entry.until_s, entry.bytes_per_s)
            case Partition():
                return _Cut(index, victim, entry.at_s, entry.until_s, self._turns_at[index])
            case Clog():
                return _Held(index, victim, entry.at_s, entry.until_s)
            case _:
                raise AssertionError(f"{kind_name(entry)} decides nothing about packets")

    def _chanced(
        self, index: int, entry: Loss | Duplicate | Reorder, victim: str, added_s: float, labels: tuple[str, ...]
    ) -> Bound:
        draws = self._chance.draws(*labels)
        return _Chanced(index, victim, entry.at_s, entry.until_s, entry.probability, added_s, draws)


_ON_PACKETS = (Latency, Loss, Duplicate, Reorder, Bandwidth, Partition, Clog)


def _groups_of(entry: Entry, seats: Mapping[str, str]) -> Groups:
    """Return the groups that a law names, as sets; of a partition, disjoint ones."""
    if not isinstance(entry, Partition):
        return tuple(frozenset(members_of(group, seats)) for group in getattr(entry, "of", ()))
    groups = tuple(frozenset(members_of(group, seats)) for group in entry.groups)
    seen: set[str] = set()
    for group in groups:
        if shared := seen & group:
            named = ", ".join(entry.groups)
            raise ConfigError(f"groups is {named}; allowed: disjoint groups, {min(shared)!r} is in two")
        seen |= group
    if frozenset(seats) in groups:
        raise ConfigError(f"groups is {', '.join(entry.groups)}; allowed: groups that somebody is outside of")
    return groups


def _victim(entry: Entry, groups: Groups, src: str, dst: str) -> str:
    """Return whom a law strikes when src sends to dst; empty: it does not hold for this pair."""
    if isinstance(entry, Partition):
        return src if _apart(entry, groups, src, dst) else ""
    if not groups:
        return src
    return next((member for member in (src, dst) if any(member in group for group in groups)), "")


def _apart(cut: Partition, groups: Groups, src: str, dst: str) -> bool:
    side = {member: i for i, group in enumerate(groups) for member in (src, dst) if member in group}
    if cut.mode == SPLIT:
        return len(side) == 2 and (side[src] != side[dst] if cut.symmetric else side[src] < side[dst])
    return side.get(src) != side.get(dst) and (cut.symmetric or src in side)
