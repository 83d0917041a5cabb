"""Byte streams in memory for tests of the proxy's connections, and federations of daemons behind the proxy."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import attrs
from anyio.abc import ByteStream
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from scarcity.node.setup.directory import read_directory, sign_directory, write_directory
from scarcity.node.setup.keys import read_federation
from sim.faults.plan import FaultPlan
from sim.testing.proxy import FaultProxy, nodes_of
from tests.kill_world import check_all, read_disk
from tests.nodes_world import CLIENTS, Federation


@attrs.define(eq=False)
class MemoryBytes(ByteStream):
    """One end of a connection in memory. The other end sees an end after `send_eof`, a broken stream after `aclose`."""

    _sends: MemoryObjectSendStream[bytes]
    _hears: MemoryObjectReceiveStream[bytes]
    rest: bytes = b""
    sent_eof: bool = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self.rest:
            try:
                self.rest = await self._hears.receive()
            except anyio.EndOfStream:
                raise anyio.BrokenResourceError from None  # nobody said that this was the end
        if not self.rest:
            raise anyio.EndOfStream
        data, self.rest = self.rest[:max_bytes], self.rest[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        await self._sends.send(item)

    async def send_eof(self) -> None:
        if not self.sent_eof:
            self.sent_eof = True
            await self._sends.send(b"")

    async def aclose(self) -> None:
        self._sends.close()
        self._hears.close()


@asynccontextmanager
async def memory_bytes() -> AsyncIterator[tuple[MemoryBytes, MemoryBytes]]:
    """Both ends of a connection, which holds whatever is said."""
    there, arrives = anyio.create_memory_object_stream[bytes](math.inf)
    back, returns = anyio.create_memory_object_stream[bytes](math.inf)
    async with MemoryBytes(there, returns) as one, MemoryBytes(back, arrives) as other:
        yield one, other


@attrs.define(eq=False)
class Storm:
    """A federation of daemons whose links go through a proxy, in a thread of its own."""

    federation: Federation
    proxy: FaultProxy
    _portal: BlockingPortal
    _up_at: dict[str, float] = attrs.field(factory=dict)

    def begin(self) -> None:
        self._portal.call(self.proxy.begin)

    @property
    def now_s(self) -> float:
        return self._portal.call(lambda: self.proxy.now_s)

    def step(self) -> None:
        """Kill whom the plan kills by now, and start again whose time has come."""
        daemons = self.federation.daemons
        for event in self._portal.call(self.proxy.due_crashes):
            daemons[event.member].kill()
            self._up_at[event.member] = event.up_at_s
        now = self.now_s
        for name in [name for name, up_at in self._up_at.items() if up_at <= now]:
            del self._up_at[name]
            daemons[name].start()

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something is so, while the plan kills and daemons come up again."""

        def come() -> bool:
            self.step()
            return done()

        self.federation.wait(what, come, seconds)

    def check(self) -> None:
        """See that every fault has struck, no daemon broke, and no disk breaks a law. After the daemons' end."""
        never = self._portal.call(self.proxy.never_struck)
        assert not never, f"never struck, so nothing was tested by it: {never}"
        for daemon in self.federation.each():
            assert "Traceback" not in daemon.log, daemon.log
        check_all({name: read_disk(daemon.data) for name, daemon in self.federation.daemons.items()}, CLIENTS)


@contextmanager
def storm(federation: Federation, plan: FaultPlan, seed: int, *, until_s: float = 120.0) -> Iterator[Storm]:
    """Put the proxy between daemons that do not run yet: each gets a directory of its own, signed by the operator."""
    keys = read_federation(federation.operator / "keys")
    directory = read_directory(federation.operator / "roster.json", keys.operator_public_key, time.time()).directory
    proxy = FaultProxy(plan, nodes_of(directory), seed, until_s=until_s)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxy):
        for name, daemon in federation.daemons.items():
            own = sign_directory(proxy.directory_for(name, directory), keys.operator_key)
            write_directory(daemon.folder / "roster.json", own)
        yield Storm(federation, proxy, portal)
