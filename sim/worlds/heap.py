"""Run a world in virtual time without any event loop: cores and one heap of (time, order, what).

What is due at one instant happens in the order in which it was put on the heap, so a run is a function of its world.
The stage stands between `Send` and delivery and decides every fault; cores are called with their own clocks' time.

A crash takes a core, its timers and its mailbox; what is on its way to it stays on its way, and its disk stays. A torn
crash strikes at the next record that the member writes: that record is lost, and nothing behind it leaves. Who writes
nothing for a second (or half of the time that it will be down) dies then, with nothing to lose.

A member that takes time over a message (`handling_s`) has a mailbox: what comes meanwhile waits there, in order, up to
the bound that the actors' mailboxes have.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from scarcity.federation.effects import Core, Effect, Entry, Persist, Send, SetTimer
from sim.faults.stage import CrashEvent
from sim.worlds.book import MAILBOX, TICK_S, TORN_S, Book, Executor, size_of
from sim.worlds.built import Built
from sim.worlds.result import SimResult

_DELIVER, _FIRE, _HANDLED, _CRASH, _UP, _TICK = range(6)


class Heap(Executor):
    """Cores without any event loop."""

    def execute(self, world: Built, until_s: float) -> SimResult:
        """Run a world from its start until an instant."""
        return _Run(world, self._book(world)).play(until_s)


class _Run:
    """One execution; a `checkers.View` of itself."""

    def __init__(self, built: Built, book: Book) -> None:
        self.built = built
        self.now = 0.0
        self.cores: dict[str, Core] = {}
        self._stage = self._clocks = built.stage
        self._book = book
        self._heap: list[tuple[Any, ...]] = []
        self._order = 0
        self._timers: dict[str, dict[str, int]] = {}  # member -> name -> the order of what is to fire
        self._inbox: dict[str, deque[tuple[Any, ...]]] = {}  # of the members that have something in hand
        self._hand: dict[str, float] = {}  # when what they have in hand came
        self._life: Counter[str] = Counter()
        self._torn: dict[str, CrashEvent] = {}  # crashes that wait for a record
        skewed = (m for m in built.members if any(self._clocks.shown_time(m, t) != t for t in (0.0, 1.0)))
        self._skewed = frozenset(skewed)

    # What checkers look at.

    def local_time(self, member: str) -> float:
        return self._clocks.shown_time(member, self.now)

    def mailbox_sizes(self) -> Mapping[str, int]:
        return {member: len(waiting) for member, waiting in self._inbox.items() if waiting}

    def behind_s(self, member: str) -> float:
        return self.now - self._hand[member] if member in self._inbox else 0.0

    # The run.

    def play(self, until_s: float) -> SimResult:
        for event in self._stage.crashes():
            self._push(event.at_s, _CRASH, event, False)
        if self.built.config.heal_s > 0:
            self._push(self.built.config.heal_at, _UP, "")
        for member in self.built.members:
            self._start(member)
        self._push(TICK_S, _TICK)
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_s:
            item = pop(heap)
            self.now = item[0]
            self._happen(item)
        self.now = until_s
        return self._book.close(self)

    def _happen(self, item: tuple[Any, ...]) -> None:
        what = item[2]
        if what <= _FIRE:
            self._arrive(item)
        elif what == _HANDLED:
            self._handled(*item[3:])
        elif what == _CRASH:
            self._crash(*item[3:])
        elif what == _UP:
            self._come_up(item[3])
        else:
            self._book.tick(self)
            self._push(self.now + TICK_S, _TICK)

    def _push(self, at: float, what: int, *rest: Any) -> int:
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, what, *rest))
        return self._order

    # Deliveries and timers.

    def _arrive(self, item: tuple[Any, ...]) -> None:
        """Let a member take what is due, at once or after what it has in hand."""
        member = item[3]
        if item[2] == _FIRE:
            if self._timers[member].get(item[4]) != item[1]:
                return  # it was set anew or disarmed, or its member died
        elif member not in self.cores:
            self._dead(item)
            return
        waiting = self._inbox.get(member)
        if waiting is not None:
            if len(waiting) >= MAILBOX and item[2] == _DELIVER:
                self._dead(item)
            else:
                waiting.append(item)
            return
        takes_s = self._stage.handling_s(member, self.now)
        if takes_s > 0:
            self._hand[member] = self.now
            self._inbox[member] = deque()
            self._push(self.now + takes_s, _HANDLED, member, self._life[member], item)
        else:
            self._take(item)

    def _handled(self, member: str, life: int, item: tuple[Any, ...]) -> None:
        """A member is done with what it had in hand, and turns to the next."""
        if self._life[member] != life:
            return
        self._take(item)
        waiting = self._inbox.get(member)
        if waiting is None:
            return  # it died of it
        if not waiting:
            del self._inbox[member]
            return
        following = waiting.popleft()
        self._hand[member] = following[0]
        takes_s = self._stage.handling_s(member, self.now)
        self._push(self.now + takes_s, _HANDLED, member, life, following)

    def _take(self, item: tuple[Any, ...]) -> None:
        """Give a core what is due and carry out what it answers."""
        member = item[3]
        now = self._clocks.local_time(member, self.now) if member in self._skewed else self.now
        if item[2] == _DELIVER:
            _, _, _, _, sender, packet = item
            self._book.delivered(self.now, member, sender, packet)
            self._carry(member, self.cores[member].receive(packet, sender, now))
            return
        name, due = item[4:]
        if self._timers[member].get(name) != item[1]:
            return
        del self._timers[member][name]
        self._book.fired(self.now, member, name)
        # A skewed clock may round to just before the instant that it was asked for.
        self._carry(member, self.cores[member].fire(name, max(now, due)))

    def _dead(self, item: tuple[Any, ...]) -> None:
        self._book.dead(self.now, *item[3:])

    # Effects.

    def _carry(self, member: str, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(member, effect)
            elif isinstance(effect, Persist):
                if not self._persist(member, effect.entry):
                    return
            elif isinstance(effect, SetTimer):
                self._arm(member, effect.name, effect.at)
            else:
                self._book.said(self.now, member, effect)

    def _send(self, member: str, effect: Send) -> None:
        to, stage, now = effect.to, self._stage, self.now
        self._book.sent(now, member, effect)
        for packet in stage.say(member, to, effect.packet):
            delays = stage.passages(member, to, packet, size_of(packet), now)
            for delay in delays:
                self._push(now + delay, _DELIVER, to, member, packet)
            if not delays:
                self._book.lost(now, member, to, packet)

    def _persist(self, member: str, entry: Entry) -> bool:
        """Make a record durable; say whether its member lives on."""
        disk, torn = self.built.disks[member], self._torn.get(member)
        if torn is not None:
            disk.begin(entry)
            self._die(member, torn=True, up_at=torn.up_at_s)
            return False
        disk.append(entry)
        self._book.wrote(self.now, member, entry)
        return True

    def _arm(self, member: str, name: str, at: float) -> None:
        timers = self._timers[member]
        if math.isinf(at):
            timers.pop(name, None)
        else:
            due = self._clocks.world_time(member, at) if member in self._skewed else at
            timers[name] = self._push(max(self.now, due), _FIRE, member, name, at)

    # Lives.

    def _start(self, member: str) -> None:
        self._life[member] += 1
        self._timers[member] = {}
        core = self.cores[member] = self.built.core(member)
        self._book.up(self.now, member)
        self._carry(member, core.start(self.local_time(member)))

    def _crash(self, event: CrashEvent, waited: bool) -> None:
        member = event.member
        if member not in self.cores:
            return
        if event.torn and not waited:
            self._torn[member] = event
            self._push(event.at_s + min(TORN_S, (event.up_at_s - event.at_s) / 2), _CRASH, event, True)
        elif not event.torn or self._torn.get(member) is event:
            self._die(member, torn=False, up_at=event.up_at_s)

    def _die(self, member: str, *, torn: bool, up_at: float) -> None:
        self.built.disks[member].crash(torn=torn)
        del self.cores[member]
        self._timers[member] = {}
        self._inbox.pop(member, None)
        self._torn.pop(member, None)
        self._life[member] += 1
        self._book.died(self.now, member, torn=torn)
        if not math.isinf(up_at):
            self._push(max(self.now, up_at), _UP, member)

    def _come_up(self, member: str) -> None:
        """Start a member again; nobody in particular: the heal, all that are down."""
        if not member:
            self._torn.clear()
            self._stage.heal()
            self._stage = self.built.calm
        for name in (member,) if member else self.built.members:
            if name not in self.cores:
                self._start(name)
