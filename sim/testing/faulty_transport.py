"""Faults of a plan between actors of one's own: a transport around another one.

A swarm runs the federation's roles. Whoever tests other actors puts this between their systems and what carries their
messages. Network laws, `Partition` and `Clog` strike here, for groups of node names; faults of members do not.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self

import anyio

from actors.errors import LinkFull, TransportClosed
from actors.transport import Deliver, OnLink, Transport, TransportStatistics
from scarcity.errors import ConfigError
from scarcity.federation.packets import GossipPull, Header, Packet
from sim.chance import Chance
from sim.faults.network import Network
from sim.faults.plan import Clog, FaultPlan, Partition, kind_name
from sim.faults.stage import FaultStage, Fired

MAX_DELAYED: Final = 10_000  # messages on their way from one node, a bound as every queue has
_RESEND_S: Final = 0.2  # after which a reliable message that was lost is said again, about what TCP takes
ANY_PACKET: Final = Packet(Header("", 0, "", 0, ""), GossipPull(()))  # laws of the network do not look at what is said


class FaultyTransport:
    """A `Transport` whose messages are lost, late, doubled and held up as a plan says.

    A reliable message is never lost: it is late, and what is behind it waits.

    Args:
        inner: what carries them.
        plan: what goes wrong; times are seconds from the begin of the block, on the event loop's clock.
        nodes: names of all nodes, the groups of the plan.
        seed: decides, together with sender, receiver and number of the message.

    Raises:
        ConfigError: the plan has a fault of members, or a group without nodes.
    """

    def __init__(self, inner: Transport, plan: FaultPlan, nodes: Iterable[str], seed: int) -> None:
        for index, entry in enumerate(plan.entries):
            if not isinstance(entry, Network | Partition | Clog):
                raise ConfigError(
                    f"{plan.place(index)}: {kind_name(entry)} strikes members of a swarm; allowed between actors: "
                    "network laws, partition, clog"
                )
        self._inner = inner
        self._stage = FaultStage(plan, {node: node for node in nodes}, Chance(seed), math.inf)
        self._began_at = 0.0
        self._running = False
        self._waiting: list[tuple[float, int, str, int, bytes, bytes | memoryview, bool]] = []
        self._order = 0
        self._changed = anyio.Event()
        self._due: dict[str, float] = {}  # node -> when the newest reliable message leaves
        self._run = self._live()

    @property
    def node(self) -> str:
        """This node's name."""
        return self._inner.node

    def attach(self, deliver: Deliver, on_link: OnLink) -> None:
        """Say who is told of messages and links."""
        self._inner.attach(deliver, on_link)

    async def __aenter__(self) -> Self:
        """Link up; the plan's time begins."""
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End all links; what is on its way is lost."""
        return await self._run.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        async with self._inner, anyio.create_task_group() as group:
            self._began_at, self._running = anyio.current_time(), True
            group.start_soon(self._carry)
            try:
                yield
            finally:
                self._running = False
                group.cancel_scope.cancel()

    def send(
        self, to_node: str, kind: int, header: bytes, blob: bytes | memoryview = b"", *, reliable: bool = False
    ) -> None:
        """Take a message; see `Transport.send`. What the inner transport refuses later than now is lost."""
        if not self._running:
            raise TransportClosed(f"{self.node} is not running")
        if len(self._waiting) >= MAX_DELAYED:
            raise LinkFull(f"{to_node}: {len(self._waiting)} messages are on their way")
        now, size_bytes = anyio.current_time() - self._began_at, len(header) + len(blob)
        delays = self._reliable(to_node, size_bytes, now) if reliable else self._passages(to_node, size_bytes, now)
        for delay in delays:
            if delay > 0:
                self._order += 1
                heapq.heappush(self._waiting, (now + delay, self._order, to_node, kind, header, blob, reliable))
                self._changed.set()
            else:
                self._inner.send(to_node, kind, header, blob, reliable=reliable)

    def _passages(self, to_node: str, size_bytes: int, now: float) -> tuple[float, ...]:
        return self._stage.passages(self.node, to_node, ANY_PACKET, size_bytes, now)

    def _reliable(self, to_node: str, size_bytes: int, now: float) -> tuple[float, ...]:
        """Say it again until it passes; a message of a pair never overtakes another."""
        said_at = now
        while not (delays := self._passages(to_node, size_bytes, said_at)):
            said_at += _RESEND_S
        due = self._due[to_node] = max(said_at + min(delays), self._due.get(to_node, 0.0))
        return (due - now,)

    async def _carry(self) -> None:
        """Hand on what is due, in order; what the inner transport refuses now is lost."""
        while True:
            now = anyio.current_time() - self._began_at
            while self._waiting and self._waiting[0][0] <= now:
                _due, _order, to_node, kind, header, blob, reliable = heapq.heappop(self._waiting)
                with suppress(LinkFull, TransportClosed):
                    self._inner.send(to_node, kind, header, blob, reliable=reliable)
            self._changed = anyio.Event()
            with anyio.move_on_after(self._waiting[0][0] - now if self._waiting else math.inf):
                await self._changed.wait()

    def statistics(self) -> TransportStatistics:
        """Return the inner transport's counts."""
        return self._inner.statistics()

    def fired(self) -> tuple[Fired, ...]:
        """Return how often each entry of the plan has struck what this node sent."""
        return self._stage.fired(anyio.current_time() - self._began_at)
