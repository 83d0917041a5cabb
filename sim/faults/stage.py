"""The one place that decides faults: what is lost and how long the rest takes, who crashes, lies or falls silent.

Executors of a `World` ask a `FaultStage` about every packet and do as it says. A decision is a function of the seed,
the fault's own identity, sender, receiver and the number of packets between the two so far: taking one fault out of a
plan leaves all other decisions as they were, so a failing plan can shrink. Faults do not look at one another: a packet
that two faults strike counts for both.

The laws are elsewhere: `passage` (packets of a pair), `outages` (crashes, silences), `liars` (lies).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from scarcity.federation.client import Learner
from scarcity.federation.packets import Packet
from sim.chance import Chance
from sim.faults.liars import Liars
from sim.faults.lies import Sign
from sim.faults.outages import CrashEvent, crashes_of, members_in, silences_of, without_overlaps
from sim.faults.passage import Laws, Pair
from sim.faults.plan import ClockSkew, FaultPlan, SlowHandler, at_place, kind_name
from sim.faults.stages import said_in

__all__ = ["CrashEvent", "FaultStage", "Fired", "Sign", "never_struck"]


@attrs.frozen
class Fired:
    """How often an entry of the plan has struck, and whom.

    Attributes:
        index: place of the entry in `FaultPlan.entries`.
        name: its kind.
        count: how often; of a dropout, in how many rounds of how many clients.
        on: the members that it struck, sorted: senders, or receivers where only these are in `of`.
    """

    index: int
    name: str
    count: int
    on: tuple[str, ...]


def never_struck(plan: FaultPlan, fired: Iterable[Fired]) -> str:
    """Return place and kind of the entries that have struck nobody: a run that asked for them has not tested them."""
    return ", ".join(f"{plan.place(each.index)} ({each.name})" for each in fired if each.count == 0)


@attrs.define(eq=False)
class _Clock:
    offset_s: float = 0.0
    rate: float = 1.0


class FaultStage:
    """Decides the faults of one plan.

    Args:
        plan: what goes wrong.
        seats: member id -> its domain, empty for the coordinator.
        chance: decides, together with what a decision is about.
        until_s: end of the run; crashes are known up to it.
        sign: signs lies; a plan with a behaviour of `sim.faults.lies.SIGNED_LIES` needs it.

    Raises:
        ConfigError: a group of the plan has no members, or lies cannot be signed; the message names the entry.
    """

    def __init__(
        self,
        plan: FaultPlan,
        seats: Mapping[str, str],
        chance: Chance,
        until_s: float,
        *,
        sign: Sign | None = None,
    ) -> None:
        self._plan = plan
        self._noted: list[Counter[str]] = [Counter() for _ in plan.entries]
        self._laws = Laws(plan, seats, chance)
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._silences = silences_of(plan, seats, chance)
        self._last: tuple[Packet | None, type] = (None, object)
        self._struck = crashes_of(plan, seats, chance, until_s)
        self._crashes = without_overlaps(self._struck)
        self._liars = Liars(plan, seats, chance, sign, self._note)
        self._slow: dict[str, list[tuple[int, SlowHandler]]] = {}
        self._clocks: dict[str, _Clock] = {}
        self._skewed: dict[str, list[int]] = {}
        for index, entry in enumerate(plan.entries):
            if isinstance(entry, SlowHandler | ClockSkew):
                with at_place(plan.place(index)):
                    self._seat(index, entry, members_in(entry.of, seats))

    def _seat(self, index: int, entry: SlowHandler | ClockSkew, members: tuple[str, ...]) -> None:
        for member in members:
            if isinstance(entry, SlowHandler):
                self._slow.setdefault(member, []).append((index, entry))
            else:
                clock = self._clocks.setdefault(member, _Clock())
                clock.offset_s += entry.offset_s
                clock.rate += entry.drift
                self._skewed.setdefault(member, []).append(index)

    def passages(self, src: str, dst: str, packet: Packet, size_bytes: int, now: float) -> tuple[float, ...]:
        """Return the delay of each copy of a packet that arrives; none: it is lost.

        Args:
            src: the sender.
            dst: the receiver.
            packet: what is sent.
            size_bytes: its size, which bandwidth asks for.
            now: the instant of the world at which it is sent.
        """
        pair = self._pairs.get((src, dst))
        if pair is None:
            pair = self._pairs[src, dst] = self._laws.bind(src, dst)
        delays = pair.passages(now, size_bytes)
        return delays if not self._silences or self._speaks(src, packet) else ()

    def _speaks(self, src: str, packet: Packet) -> bool:
        silences = self._silences.get(src)
        if silences is None:
            return True
        if packet is not self._last[0]:
            self._last = packet, said_in(packet)  # a secure sum's message is decoded once, however many copies leave
        said = self._last[1]
        # Each is asked, so that each counts what it would have done without the others.
        return not [silence for silence in silences if silence.silences(packet, said)]

    def crashes(self) -> tuple[CrashEvent, ...]:
        """Return all crashes of the run, sorted; nobody crashes while it is down."""
        return self._crashes

    def local_time(self, member: str, now: float) -> float:
        """Return what a member's clock shows at an instant of the world; the member goes by it, which counts."""
        for index in self._skewed.get(member, ()):
            self._noted[index][member] += 1
        return self.shown_time(member, now)

    def shown_time(self, member: str, now: float) -> float:
        """Return what a member's clock shows, to somebody who only looks."""
        clock = self._clocks.get(member)
        return now if clock is None else clock.offset_s + clock.rate * now

    def world_time(self, member: str, local: float) -> float:
        """Return the instant of the world at which a member's clock shows `local`: when its timers are due."""
        clock = self._clocks.get(member)
        return local if clock is None else (local - clock.offset_s) / clock.rate

    def handling_s(self, member: str, now: float) -> float:
        """Return how long a member takes for a packet that it takes up now."""
        total_s = 0.0
        for index, entry in self._slow.get(member, ()):
            if entry.at_s <= now < entry.until_s:
                self._noted[index][member] += 1
                total_s += entry.seconds
        return total_s

    def learner(self, member: str, learner: Learner) -> Learner:
        """Return the learner that a member's core is given: a liar's forges its updates."""
        return self._liars.learner(member, learner)

    def say(self, src: str, dst: str, packet: Packet) -> tuple[Packet, ...]:
        """Return what a member sends instead of a packet; each then passes on its own. The honest send it as it is."""
        return self._liars.say(src, dst, packet)

    def heal(self) -> None:
        """Let nobody lie from now on: learners outlive the plan, for cores hold them."""
        self._liars.heal()

    def fired(self, now: float | None = None) -> tuple[Fired, ...]:
        """Return how often each entry has struck; crashes after `now` (None: the end of the run) do not count."""
        totals = [Counter(noted) for noted in self._noted]
        for pair in self._pairs.values():
            for law in (*pair.laws, *pair.duplicates, *pair.again):
                totals[law.index][law.victim] += law.hits
        for silence in (silence for own in self._silences.values() for silence in own):
            totals[silence.index][silence.member] += silence.falls
        for event in self._struck:
            totals[event.fault_index][event.member] += now is None or event.at_s <= now
        return tuple(
            Fired(index, kind_name(entry), total.total(), tuple(sorted(name for name in total if total[name])))
            for index, (entry, total) in enumerate(zip(self._plan.entries, totals, strict=True))
        )

    def unfired(self, now: float | None = None) -> tuple[Fired, ...]:
        """Return the entries that have struck nobody: a plan that holds one has not tested what it says."""
        return tuple(fired for fired in self.fired(now) if fired.count == 0)

    def _note(self, index: int, member: str) -> None:
        self._noted[index][member] += 1
