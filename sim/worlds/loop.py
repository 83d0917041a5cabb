"""Run a world in virtual time with the real actors: mailboxes, timers and supervision, on asyncio's loop.

Deliveries, crashes and restarts go through one task, the wheel, at instants that are multiples of a millisecond; each
member's timers are its actor's own. A crash ends a life at once: what its core answers from then on is nothing, what it
has in its mailbox is drained to nobody, and its actor is stopped. The next life is a new actor of the same name, with a
core from the same disk.

A slow member's packets wait in the wheel, one after another, for as long as it takes over each.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel

from actors import ActorError, ActorRef, ActorSystem
from scarcity.errors import FederationError
from scarcity.federation.effects import Core, Effect, Emit, Entry, Event, Reject, Send, SetTimer, Waiting
from scarcity.federation.packets import Packet
from scarcity.node.shell import CoreActor, Delivery
from sim.faults.stage import CrashEvent
from sim.worlds.book import TICK_S, TORN_S, Book, Executor, size_of
from sim.worlds.built import FEDERATION, Built
from sim.worlds.clock import run_virtual
from sim.worlds.result import SimResult

_WHEEL_S = 0.001  # what happens within one turn happens at one instant
_DELIVER, _HANDLED, _CRASH, _UP, _TICK, _OVER = range(6)


class Loop(Executor):
    """The real actors on asyncio."""

    def execute(self, world: Built, until_s: float) -> SimResult:
        """Run a world from its start until an instant.

        Raises:
            FederationError: an actor failed (our own bug, with its cause).
        """
        return run_virtual(self.play, world, until_s)

    async def play(self, world: Built, until_s: float) -> SimResult:
        """Run a world on the event loop that is running, whose clock stands at 0.

        On trio under its `MockClock` promises hold as well, but one seed has many traces: it shuffles what is ready.

        Raises:
            FederationError: an actor failed (our own bug, with its cause).
        """
        return await _Run(world, self._book(world)).play(until_s)


class _Life:
    """One life of a member: its core between its actor and the world. It is a `Core`, a `JournalStore` and a post."""

    def __init__(self, run: _Run, member: str, core: Core) -> None:
        self._run = run
        self._member = member
        self.core = core
        self.is_over = False

    def start(self, now: float) -> list[Effect]:
        return self._timed(self.core.start(self._run.shown(self._member, now)))

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        if self.is_over:
            return []
        self._run.book.delivered(now, self._member, sender, packet)
        return self._timed(self.core.receive(packet, sender, self._run.shown(self._member, now)))

    def fire(self, timer: str, now: float) -> list[Effect]:
        if self.is_over:
            return []
        self._run.book.fired(now, self._member, timer)
        return self._timed(self.core.fire(timer, self._run.shown(self._member, now)))

    def waiting(self) -> tuple[Waiting, ...]:
        return self.core.waiting()

    def _timed(self, effects: list[Effect]) -> list[Effect]:
        """Set timers by the world's clock; a nanosecond late, so that no skewed clock shows less than was asked for."""
        if self._member not in self._run.skewed:
            return effects
        return [
            SetTimer(effect.name, self._run.due(self._member, effect.at)) if isinstance(effect, SetTimer) else effect
            for effect in effects
        ]

    # The journal.

    def append(self, kind: str, key: str, payload: bytes) -> None:
        if not self.is_over:
            self._run.write(self._member, Entry(kind, key, payload))

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        return [(entry.key, entry.payload) for entry in self._run.built.disks[self._member].entries(kind)]

    def kinds(self) -> list[str]:
        return sorted(self._run.built.disks[self._member].journal())

    def close(self) -> None:
        pass

    # What leaves.

    def post(self, _sender: str, to: str, packet: Packet) -> None:
        if not self.is_over:
            self._run.send(self._member, to, packet)

    def observe(self, _member: str, what: Event | Reject) -> None:
        if not self.is_over:
            effect: Effect = what if isinstance(what, Reject) else Emit(what)
            self._run.book.said(self._run.now, self._member, effect)


def _clock_here() -> Callable[[], float]:
    """Return the running loop's clock; asyncio's own needs no look at which library is running, twice a message."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return anyio.current_time


class _Run:
    """One execution; a `checkers.View` of itself."""

    def __init__(self, built: Built, book: Book) -> None:
        self.built = built
        self.book = book
        self._stage = self._clocks = built.stage
        self._wheel: list[tuple[Any, ...]] = []
        self._order = 0
        self._turned = anyio.Event()
        self._next = math.inf
        self._lives: dict[str, _Life] = {}
        self._refs: dict[str, ActorRef] = {}
        self._pace: dict[str, float] = {}
        self._busy: dict[str, float] = {}  # member -> when it has worked off what it was given
        self._torn: dict[str, CrashEvent] = {}
        self._clock = _clock_here()
        self._system = ActorSystem(FEDERATION, now=self._clock)
        skewed = (m for m in built.members if any(self._clocks.shown_time(m, t) != t for t in (0.0, 1.0)))
        self.skewed = frozenset(skewed)

    # What checkers look at.

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def cores(self) -> Mapping[str, Core]:
        return {member: life.core for member, life in self._lives.items()}

    def local_time(self, member: str) -> float:
        return self._clocks.shown_time(member, self.now)

    def mailbox_sizes(self) -> Mapping[str, int]:
        sizes = {member: self._system.mailbox_statistics(self._refs[member]).queued for member in self._lives}
        late = {member: busy - self.now for member, busy in self._busy.items() if busy > self.now}
        waiting = {member: math.ceil(seconds / self._pace[member]) for member, seconds in late.items()}
        return {member: size + waiting.get(member, 0) for member, size in sizes.items() if size or member in waiting}

    def behind_s(self, member: str) -> float:
        del member  # the slow wait for their packets in the wheel, and their timers are never late
        return 0.0

    # What lives ask.

    def shown(self, member: str, now: float) -> float:
        return self._clocks.local_time(member, now) if member in self.skewed else now

    def due(self, member: str, at: float) -> float:
        return at if math.isinf(at) else self._clocks.world_time(member, at) + 1e-9

    def send(self, member: str, to: str, packet: Packet) -> None:
        now, stage = self.now, self._stage
        self.book.sent(now, member, Send(to, packet))
        for said in stage.say(member, to, packet):
            delays = stage.passages(member, to, said, size_of(said), now)
            for delay in delays:
                self._push(now + delay, _DELIVER, to, member, said)
            if not delays:
                self.book.lost(now, member, to, said)

    def write(self, member: str, entry: Entry) -> None:
        disk, torn = self.built.disks[member], self._torn.get(member)
        if torn is not None:
            disk.begin(entry)
            self._die(member, torn=True, up_at=torn.up_at_s)
            return
        disk.append(entry)
        self.book.wrote(self.now, member, entry)

    # The wheel.

    async def play(self, until_s: float) -> SimResult:
        for event in self._stage.crashes():
            self._push(event.at_s, _CRASH, event, False)
        if self.built.config.heal_s > 0:
            self._push(self.built.config.heal_at, _UP, "")
        self._push(TICK_S, _TICK)
        self._push(until_s, _OVER)
        async with self._system:
            for member in self.built.members:
                await self._start(member)
            await self._turn()
            for failure in self._system.failures:
                raise FederationError(f"an actor failed: {failure.error!r}") from failure.error
            result = self.book.close(self)
            for life in self._lives.values():
                life.is_over = True
        return result

    def _push(self, at: float, what: int, *rest: Any) -> None:
        self._order += 1
        instant = math.ceil(at / _WHEEL_S - 1e-6)
        heapq.heappush(self._wheel, (instant, self._order, what, *rest))
        if instant < self._next:
            self._next = -math.inf
            self._turned.set()

    async def _turn(self) -> None:
        """Let happen what is due, until the run is over or an actor has failed."""
        while not self._system.failures:
            instant = self._wheel[0][0]
            wait_s = instant * _WHEEL_S - self.now
            if wait_s > 0:
                self._next, self._turned = instant, anyio.Event()
                with anyio.move_on_after(wait_s):
                    await self._turned.wait()
                self._next = -math.inf
                continue
            item = heapq.heappop(self._wheel)
            if item[2] == _OVER:
                return
            if item[2] <= _HANDLED:
                self._deliver(item[2], *item[3:])
                if self._wheel[0][0] > instant:
                    await anyio.lowlevel.checkpoint()
            else:
                await self._happen(item)

    async def _happen(self, item: tuple[Any, ...]) -> None:
        if item[2] == _CRASH:
            self._crash(*item[3:])
        elif item[2] == _TICK:
            self.book.tick(self)
            self._push(self.now + TICK_S, _TICK)
        else:
            await self._come_up(item[3])

    def _deliver(self, what: int, to: str, sender: str, packet: Packet) -> None:
        if to not in self._lives:
            self.book.dead(self.now, to, sender, packet)
            return
        takes_s = self._stage.handling_s(to, self.now) if what == _DELIVER else 0.0
        if takes_s > 0:
            self._pace[to] = takes_s
            self._busy[to] = max(self.now, self._busy.get(to, 0.0)) + takes_s
            self._push(self._busy[to], _HANDLED, to, sender, packet)
            return
        try:
            self._refs[to].tell(Delivery(sender, packet))
        except ActorError:
            self.book.dead(self.now, to, sender, packet)

    # Lives.

    async def _start(self, member: str) -> None:
        life = self._lives[member] = _Life(self, member, self.built.core(member))
        self.book.up(self.now, member)
        actor = CoreActor(member, life, post=life.post, journal=life, observe=life.observe)
        self._refs[member] = self._system.ref(member)
        try:
            await self._system.spawn(actor, name=member)
        except ActorError as error:
            raise FederationError(f"an actor failed: {error}") from error

    def _crash(self, event: CrashEvent, waited: bool) -> None:
        member = event.member
        if member not in self._lives:
            return
        if event.torn and not waited:
            self._torn[member] = event
            self._push(event.at_s + min(TORN_S, (event.up_at_s - event.at_s) / 2), _CRASH, event, True)
        elif not event.torn or self._torn.get(member) is event:
            self._die(member, torn=False, up_at=event.up_at_s)

    def _die(self, member: str, *, torn: bool, up_at: float) -> None:
        self.built.disks[member].crash(torn=torn)
        self._lives.pop(member).is_over = True
        self._torn.pop(member, None)
        self._busy.pop(member, None)
        self._system.stop(self._refs[member])
        self.book.died(self.now, member, torn=torn)
        if not math.isinf(up_at):
            self._push(max(self.now, up_at), _UP, member)

    async def _come_up(self, member: str) -> None:
        """Start a member again; nobody in particular: the heal, all that are down."""
        if not member:
            self._torn.clear()
            self._stage.heal()
            self._stage = self.built.calm
        for name in (member,) if member else self.built.members:
            if name not in self._lives:
                while self._system.find(name) is not None:
                    await anyio.lowlevel.checkpoint()  # the actor of the life before is about to be gone
                await self._start(name)
