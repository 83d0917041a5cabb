"""Drive cores in one thread: one event queue under a logical clock.

Deliveries happen in the order in which they were sent, timers in the order of (instant, member, name), so a run is a
function of its inputs. `Pump` carries effects out in list order; its journals are in memory and count as durable at
once. Whoever wants faults puts them between `Send` and delivery: `route` decides.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable

from scarcity.errors import LocalError
from scarcity.federation.codec import decode_packet, encode_packet, kind_of
from scarcity.federation.effects import Core, Effect, Emit, Entry, Event, Persist, Reject, Send, SetTimer, Waiting
from scarcity.federation.packets import Packet
from scarcity.federation.transport import Reach

# Deliveries of one `run`: far above a round of 1,000 members, and below what a loop between two cores would take.
MAX_DELIVERIES = 50_000_000


class Pump:
    """Cores and one event queue.

    Args:
        observe: called with each event and refusal; None: they are kept in `events` and `rejects` only.
        wire: encode and decode every packet on its way, as a network would.

    Attributes:
        now: the logical clock, seconds.
        events: what cores have emitted.
        rejects: what cores have refused, with the refusing member.
        counts: deliveries by kind of packet.
        journals: member id -> its entries.
    """

    reach = Reach.IN_PROCESS

    def __init__(self, observe: Callable[[str, Event | Reject], None] | None = None, *, wire: bool = False) -> None:
        self.now = 0.0
        self.events: list[Event] = []
        self.rejects: list[tuple[str, Reject]] = []
        self.counts: Counter[str] = Counter()
        self.journals: defaultdict[str, list[Entry]] = defaultdict(list)
        self._observe = observe
        self._wire = wire
        self._cores: dict[str, Core] = {}
        self._queue: deque[tuple[str, str, Packet]] = deque()
        self._timers: dict[tuple[str, str], float] = {}
        self._heap: list[tuple[float, str, str]] = []

    def add(self, member_id: str, core: Core) -> None:
        """Put a core on the queue and start it.

        Raises:
            LocalError: there is a core of this id.
        """
        if member_id in self._cores:
            raise LocalError(f"a core of member {member_id!r} is there already")
        self._cores[member_id] = core
        self.carry(member_id, core.start(self.now))

    def carry(self, origin: str, effects: Iterable[Effect]) -> None:
        """Carry out the effects of `origin`'s core, in order."""
        for effect in effects:
            if isinstance(effect, Send):
                self._queue.append((origin, effect.to, effect.packet))
            elif isinstance(effect, Persist):
                self.journals[origin].append(effect.entry)
            elif isinstance(effect, SetTimer):
                self._arm(origin, effect)
            elif isinstance(effect, Emit):
                self.events.append(effect.event)
                self._tell(origin, effect.event)
            else:
                self.rejects.append((origin, effect))
                self._tell(origin, effect)

    def run(self) -> None:
        """Deliver all that is on its way and fire the timers that are due, until nothing is left to do now."""
        for _ in range(MAX_DELIVERIES):
            if self._queue:
                self._deliver(*self._queue.popleft())
            elif not self._fire_due():
                return
        raise AssertionError(f"cores exchanged {MAX_DELIVERIES} packets without coming to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass: every timer on the way fires at its own instant, in order."""
        end = self.now + seconds
        self.run()
        while (due := self._next_due()) <= end:
            self.now = due
            self.run()
        self.now = end

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what the cores wait for, in order of their ids."""
        return tuple(waiting for name in sorted(self._cores) for waiting in self._cores[name].waiting())

    def _tell(self, origin: str, what: Event | Reject) -> None:
        if self._observe is not None:
            self._observe(origin, what)

    def _deliver(self, sender: str, to: str, packet: Packet) -> None:
        core = self._cores.get(to)
        if core is None:
            return  # a member without a core here is silent
        self.counts[kind_of(packet.body)] += 1
        arrived = decode_packet(encode_packet(packet)) if self._wire else packet
        self.carry(to, core.receive(arrived, sender, self.now))

    def _arm(self, member_id: str, timer: SetTimer) -> None:
        self._timers[member_id, timer.name] = timer.at
        if not math.isinf(timer.at):
            heapq.heappush(self._heap, (timer.at, member_id, timer.name))

    def _next_due(self) -> float:
        while self._heap and self._timers.get(self._heap[0][1:]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # it was set anew or disarmed
        return self._heap[0][0] if self._heap else math.inf

    def _fire_due(self) -> bool:
        if self._next_due() > self.now:
            return False
        _, member_id, name = heapq.heappop(self._heap)
        del self._timers[member_id, name]
        self.carry(member_id, self._cores[member_id].fire(name, self.now))
        return True
