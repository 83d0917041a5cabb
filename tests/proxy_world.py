"""Byte streams in memory for tests of the proxy's connections, and federations of daemons behind the proxy."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs
from anyio.abc import ByteStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream


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
