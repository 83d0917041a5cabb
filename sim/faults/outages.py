"""When members are away: crashes and restarts, all known in advance, and silences at a stage of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.packets import Packet
from sim.chance import Chance, Draws
from sim.faults.plan import Churn, Crash, Dropout, FaultPlan, at_place, clients_of, members_of
from sim.faults.stages import UNSAID

# Of one churn in one run: a hundred members that crash once a minute for a day. Above it a plan is a mistake.
MAX_CRASHES = 200_000


@attrs.frozen
class CrashEvent:
    """A member stops at `at_s` and starts again from its disk at `up_at_s` (infinity: never).

    Attributes:
        at_s: when it stops.
        member: who.
        up_at_s: when it starts.
        torn: the record that was being written is half on disk.
        fault_index: place of the fault in `FaultPlan.entries`; of two at once, the earlier one.
    """

    at_s: float
    member: str
    up_at_s: float
    torn: bool
    fault_index: int


def crashes_of(plan: FaultPlan, seats: Mapping[str, str], chance: Chance, until_s: float) -> tuple[CrashEvent, ...]:
    """Return what every fault would do by itself before the end of a run, sorted; outages of one member may overlap.

    Raises:
        ConfigError: a group has no members, or there would be more than MAX_CRASHES.
    """
    events: list[CrashEvent] = []
    for index, (entry, identity) in enumerate(zip(plan.entries, plan.ids, strict=True)):
        with at_place(plan.place(index)):
            if isinstance(entry, Crash):
                members = members_in(entry.of, seats)
                up_at_s = entry.at_s + entry.down_s
                if entry.at_s < until_s:
                    events += [CrashEvent(entry.at_s, member, up_at_s, entry.torn, index) for member in members]
            elif isinstance(entry, Churn):
                events += _churned(index, identity, entry, members_in(entry.of, seats), chance, until_s)
    return tuple(sorted(events, key=lambda event: (event.at_s, event.member, event.fault_index)))


def members_in(groups: tuple[str, ...], seats: Mapping[str, str]) -> tuple[str, ...]:
    """Return the members of several groups, each once, sorted; ConfigError when one group has none."""
    return tuple(sorted({member for group in groups for member in members_of(group, seats)}))


def _churned(
    index: int, identity: str, entry: Churn, members: tuple[str, ...], chance: Chance, until_s: float
) -> list[CrashEvent]:
    rate, end_s = entry.per_minute / 60, min(entry.until_s, until_s)
    if not (end_s - entry.at_s) * rate <= MAX_CRASHES:
        raise ConfigError(
            f"per_minute is {entry.per_minute}, which is more than {MAX_CRASHES} crashes until {end_s} s; "
            "allowed: fewer, or an earlier end"
        )
    gaps, picks = chance.draws("churn", identity, "gap"), chance.draws("churn", identity, "who")
    events: list[CrashEvent] = []
    up_at: dict[str, float] = {}
    now, number = entry.at_s, 0
    while (now := now - math.log(1.0 - gaps.uniform(number)) / rate) < end_s:
        member = members[int(picks.uniform(number) * len(members))]
        number += 1
        if now > up_at.get(member, -math.inf):
            up_at[member] = now + entry.down_s
            events.append(CrashEvent(now, member, up_at[member], torn=False, fault_index=index))
    return events


def without_overlaps(events: tuple[CrashEvent, ...]) -> tuple[CrashEvent, ...]:
    """Return outages of which no two of a member overlap: who is struck while it is down stays down for longer."""
    outages: dict[str, list[CrashEvent]] = {}
    for event in events:
        own = outages.setdefault(event.member, [])
        if own and event.at_s <= own[-1].up_at_s:
            own[-1] = attrs.evolve(own[-1], up_at_s=max(own[-1].up_at_s, event.up_at_s))
        else:
            own.append(event)
    merged = [event for own in outages.values() for event in own]
    return tuple(sorted(merged, key=lambda event: (event.at_s, event.member)))


@attrs.define(eq=False)
class Silence:
    """One dropout and one client: from a stage of a round on it says nothing more in this round.

    Attributes:
        index: of the fault in the plan.
        member: the client.
        falls: in how many rounds it has fallen silent.
    """

    index: int
    member: str
    _unsaid: frozenset[type]
    _probability: float
    _round_id: int | None
    _draws: Draws
    falls: int = 0
    _newest: int = 0
    _fallen: bool = False

    def silences(self, packet: Packet, said: type) -> bool:
        """Return whether a packet that the client wants to send is not said."""
        round_id = packet.header.round_id
        if round_id > self._newest:
            self._newest, self._fallen = round_id, False
        if round_id in (0, self._newest) and self._fallen:  # round 0: what belongs to no round, such as a request
            return True
        if said not in self._unsaid or not self._doomed(round_id):
            return False
        if round_id == self._newest:
            self._fallen = True
            self.falls += 1
        return True

    def _doomed(self, round_id: int) -> bool:
        if self._round_id not in (None, round_id):
            return False
        return self._draws.uniform(round_id) < self._probability


def silences_of(plan: FaultPlan, seats: Mapping[str, str], chance: Chance) -> dict[str, tuple[Silence, ...]]:
    """Return the dropouts that each client has, by client; clients without one are left out.

    Raises:
        ConfigError: a group has no clients.
    """
    silences: dict[str, list[Silence]] = {}
    for index, (entry, identity) in enumerate(zip(plan.entries, plan.ids, strict=True)):
        if not isinstance(entry, Dropout):
            continue
        with at_place(plan.place(index)):
            for member in clients_of(entry.of, seats):
                draws = chance.draws("dropout", identity, member)
                silence = Silence(index, member, UNSAID[entry.stage], entry.probability, entry.round_id, draws)
                silences.setdefault(member, []).append(silence)
    return {member: tuple(own) for member, own in silences.items()}
