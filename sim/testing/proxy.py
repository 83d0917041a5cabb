"""Faults of a plan between real processes: a TCP proxy that every node dials instead of the others.

Each ordered pair of nodes has a port of its own, so the proxy knows who dials whom without reading a byte: what passes
is opaque (mutual TLS). A node's directory says the proxy's ports for the others (`directory_for`); where it listens
stays as it is. From `begin` on a `FaultStage` decides about every chunk that is read from a socket, as it decides in a
simulation about every packet: by seed, fault, pair, and number of the chunk. The system cuts chunks as it likes, so two
runs see the same decisions about other bytes: this is not a replay.

| entry of the plan | on a byte stream |
|---|---|
| Latency | each chunk takes so long; none overtakes another |
| Bandwidth | chunks of a pair, over all its connections, leave one after another |
| Loss | a chunk that is lost cuts its connection, both sides at once, with a reset; the nodes dial again |
| Partition | chunks between the groups are lost: what is said cuts its connection, new ones are reset at once |
| Partition, not symmetric | what is said the closed way cuts; the other way passes until an answer cuts it |
| Clog | chunks wait until it ends, and nobody is told: a cable that is out, seen through TCP, which says all again |
| Crash, Churn | not the proxy's: `due_crashes` tells the test which process to kill and when to start it again |
| Duplicate, Reorder | refused: TCP delivers once and in order |
| Dropout, Byzantine, SlowHandler, ClockSkew | refused: they strike a member inside its process |

Opening a connection, the end of a stream and a reset are chunks of no bytes: they are late, clogged and lost as others.
A process that dies takes its ends of the connections with it, and the others learn of it when the plan lets them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
import attrs
from anyio.abc import Listener, SocketAttribute, SocketStream

from scarcity.errors import ConfigError
from scarcity.node.setup.directory import Directory
from sim.chance import Chance
from sim.faults.plan import FaultPlan
from sim.faults.stage import CrashEvent, FaultStage, Fired, never_struck
from sim.testing.faulty_transport import ANY_PACKET
from sim.testing.proxy_link import Link, ProxyCounts, reset
from sim.testing.proxy_plan import ProxiedNode, nodes_of, plan_on_nodes

__all__ = ["FaultProxy", "ProxiedNode", "ProxyCounts", "nodes_of"]

HOST: Final = "127.0.0.1"
MAX_LINKS: Final = 1000  # two sockets each; a process may often have 1024 files only, a test never comes near
_RETRY_S: Final = 0.1  # before accepting again when the system would not


class FaultProxy:
    """Stands between nodes. An async context manager, used once; all of it belongs to the event loop that entered it.

    A test that is no coroutine runs it in a thread: `with start_blocking_portal() as portal,
    portal.wrap_async_context_manager(proxy):`, and asks it by `portal.call(proxy.begin)`; addresses and directories it
    may ask for as it is.

    Args:
        plan: what goes wrong; times are seconds from `begin`. Groups are names of nodes, or of members on them.
        nodes: name -> where it listens and whom it hosts.
        seed: decides, together with fault, pair and number of the chunk.
        until_s: crashes are known up to it.

    Raises:
        ConfigError: the plan has what a byte stream cannot have, or a group without nodes; the message names the entry
            and lists what is allowed.
    """

    def __init__(
        self, plan: FaultPlan, nodes: Mapping[str, ProxiedNode], seed: int, *, until_s: float = math.inf
    ) -> None:
        self.counts = ProxyCounts()
        self._given = plan
        self._nodes = dict(nodes)
        self._on_nodes = plan_on_nodes(plan, nodes)
        self._stage = FaultStage(self._on_nodes.plan, {name: name for name in nodes}, Chance(seed), until_s)
        self._began_at: float | None = None
        self._crashes = list(self._stage.crashes())
        self._told_s = -math.inf  # instant up to which crashes were told
        self._ports: dict[tuple[str, str], int] = {}
        self._num_open = 0
        self._run = self._live()

    async def __aenter__(self) -> Self:
        """Listen for every pair; bytes pass as they are until `begin`."""
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Reset all connections."""
        return await self._run.__aexit__(kind, error, trace)

    def address(self, src: str, dst: str) -> str:
        """Return `HOST:PORT` where `src` is to dial `dst`.

        Raises:
            ConfigError: one of them is no node, they are the same, or the proxy does not run.
        """
        if (src, dst) not in self._ports:
            known = ", ".join(sorted({name for pair in self._ports for name in pair})) or "none, for it does not run"
            raise ConfigError(f"from {src!r} to {dst!r} no port leads; two of these have one: {known}")
        return f"{HOST}:{self._ports[src, dst]}"

    def directory_for(self, node: str, directory: Directory) -> Directory:
        """Return the directory that a node is given: the others' addresses are the proxy's, all else is the same."""
        entries = [
            attrs.evolve(entry, address=self.address(node, entry.name))
            if entry.name in self._nodes and entry.name != node
            else entry
            for entry in directory.nodes
        ]
        return attrs.evolve(directory, nodes=tuple(entries))

    def begin(self) -> None:
        """Let the plan's time begin: now is instant 0. A second call changes nothing."""
        if self._began_at is None:
            self._began_at = anyio.current_time()

    @property
    def now_s(self) -> float:
        """The plan's time, below 0 before `begin`."""
        return -math.inf if self._began_at is None else anyio.current_time() - self._began_at

    def due_crashes(self) -> tuple[CrashEvent, ...]:
        """Return the crashes whose time has come since the last call; `member` is the node to kill.

        It is to be started again at `up_at_s`. Only what was returned here counts as fired.
        """
        self._told_s = max(self._told_s, self.now_s)
        due = tuple(event for event in self._crashes if event.at_s <= self._told_s)
        del self._crashes[: len(due)]
        return due

    def fired(self) -> tuple[Fired, ...]:
        """Return how often each entry of the plan has struck, and which nodes."""
        return self._on_nodes.as_given(self._given, self._stage.fired(self._told_s))

    def never_struck(self) -> str:
        """Return the entries that have struck nobody, so that nothing was tested by them; empty: all have."""
        return never_struck(self._given, self.fired())

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            listeners: list[tuple[str, str, Listener[SocketStream]]] = []
            for src in self._nodes:
                for dst in self._nodes.keys() - {src}:
                    many = await stack.enter_async_context(await anyio.create_tcp_listener(local_host=HOST))
                    self._ports[src, dst] = many.extra_attributes[SocketAttribute.local_port]()
                    listeners += [(src, dst, one) for one in many.listeners]
            async with anyio.create_task_group() as group:
                for src, dst, listener in listeners:
                    group.start_soon(self._listen, src, dst, listener)
                try:
                    yield
                finally:
                    self._ports.clear()
                    group.cancel_scope.cancel()

    async def _listen(self, src: str, dst: str, listener: Listener[SocketStream]) -> None:
        while True:
            try:
                await listener.serve(partial(self._accept, src, dst))
            except (OSError, anyio.BrokenResourceError):  # no descriptors left, or the connection was gone at once
                await anyio.sleep(_RETRY_S)

    async def _accept(self, src: str, dst: str, near: SocketStream) -> None:
        far: SocketStream | None = None
        self._num_open += 1
        try:
            delay_s = self._decide(src, dst, 0) if self._num_open <= MAX_LINKS else None
            if delay_s is None:
                self.counts.refused += 1
                return
            await anyio.sleep(delay_s)
            try:
                far = await anyio.connect_tcp(*self._nodes[dst].address)
            except OSError:
                self.counts.unreachable += 1
                return
            self.counts.opened += 1
            there, back = partial(self._decide, src, dst), partial(self._decide, dst, src)
            await Link(near, far, there, back, self.counts).run()
        finally:
            self._num_open -= 1
            if far is None:
                await reset(near)

    def _decide(self, src: str, dst: str, size_bytes: int) -> float | None:
        """Return how long a chunk takes from one node to another, None when it is lost."""
        if self._began_at is None:
            return 0.0
        # There are no duplicates, so there is one passage or none.
        return next(iter(self._stage.passages(src, dst, ANY_PACKET, size_bytes, self.now_s)), None)
