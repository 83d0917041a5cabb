"""One connection through the proxy: bytes go both ways, late, in order, until both ends are silent or a loss cuts it.

| task | one per | does |
|---|---|---|
| reader | direction | takes a chunk, asks how long it takes; a loss cuts the connection, with a reset to both sides |
| writer | direction | waits until a chunk is due, hands it on |

The end of a stream and a reset are chunks without bytes: they are late, wait and are lost as others. Between reader and
writer at most `MAX_WAITING` chunks wait; then the sender is not read from, as on a line whose window is full.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
from collections.abc import Callable
from typing import Final

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

CHUNK_BYTES: Final = 1 << 16
MAX_WAITING: Final = 64  # chunks, with CHUNK_BYTES 4 MiB a direction: a frame of a link fits
GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

Decide = Callable[[int], float | None]
"""Takes the size of a chunk in bytes, returns the seconds that it takes; None: it is lost."""
_Chunk = tuple[float, bytes | None]  # when it is due; b"": the end of the stream, None: a reset


class Ending(enum.Enum):
    """Why a connection is over."""

    ENDED = "both sides have ended"
    GONE = "one side was reset"
    CUT = "a chunk was lost"


@attrs.define(eq=False)
class ProxyCounts:
    """What the proxy has done.

    Attributes:
        opened: connections carried to their node.
        cut: of these, ended by a loss or a partition.
        refused: connections reset at once, by a loss, a partition, or `MAX_LINKS`.
        unreachable: connections reset because the node did not listen.
        full: how often a sender had to wait because too much was on its way.
    """

    opened: int = 0
    cut: int = 0
    refused: int = 0
    unreachable: int = 0
    full: int = 0


class Link:
    """A connection between two byte streams, used once.

    Args:
        near: the side of who dialled.
        far: the side of who listens.
        there: decides about chunks from near to far.
        back: decides about chunks from far to near.
        counts: where a cut and a full line are counted.
    """

    def __init__(self, near: ByteStream, far: ByteStream, there: Decide, back: Decide, counts: ProxyCounts) -> None:
        self._ways = ((near, far, there), (far, near, back))
        self._ending = Ending.ENDED
        self._scope = anyio.CancelScope()
        self._counts = counts

    async def run(self) -> Ending:
        """Carry bytes until the connection is over; both streams are closed then, whatever happens."""
        near, far, _ = self._ways[0]
        soft = False
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for source, sink, decide in self._ways:
                        onward, coming = anyio.create_memory_object_stream[_Chunk](MAX_WAITING)
                        group.start_soon(self._read, source, decide, onward)
                        group.start_soon(self._write, coming, sink)
            soft = self._ending is Ending.ENDED
        finally:
            for stream in (near, far):
                await (close_softly if soft else reset)(stream)
        return self._ending

    def _hang_up(self, ending: Ending) -> None:
        if self._ending is Ending.ENDED:
            self._ending = ending
            self._counts.cut += ending is Ending.CUT
            self._scope.cancel()

    async def _read(self, source: ByteStream, decide: Decide, onward: MemoryObjectSendStream[_Chunk]) -> None:
        due_at = 0.0
        async with onward:
            while True:
                data = await _next_chunk(source)
                delay_s = decide(len(data or b""))
                if delay_s is None:
                    self._hang_up(Ending.CUT)
                    return
                due_at = max(due_at, anyio.current_time() + delay_s)  # no chunk overtakes another
                if onward.statistics().current_buffer_used == MAX_WAITING:
                    self._counts.full += 1
                await onward.send((due_at, data))
                if not data:
                    return

    async def _write(self, coming: MemoryObjectReceiveStream[_Chunk], sink: ByteStream) -> None:
        async with coming:
            async for due_at, data in coming:
                await anyio.sleep_until(due_at)
                try:
                    if data is None:
                        self._hang_up(Ending.GONE)
                    elif data:
                        await sink.send(data)
                    else:
                        await sink.send_eof()
                except GONE:
                    self._hang_up(Ending.GONE)


async def _next_chunk(source: ByteStream) -> bytes | None:
    try:
        return await source.receive(CHUNK_BYTES)
    except anyio.EndOfStream:
        return b""
    except GONE:
        return None


async def close_softly(stream: ByteStream) -> None:
    """Close a stream; what was handed to it still arrives."""
    with anyio.CancelScope(shield=True):
        await stream.aclose()


async def reset(stream: ByteStream) -> None:
    """Close a stream so that the other side is told of a broken connection, not of an end; what waits is dropped."""
    if isinstance(stream, SocketStream):
        raw = stream.extra_attributes[SocketAttribute.raw_socket]()
        with contextlib.suppress(OSError):  # the other side was faster: it is closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with anyio.CancelScope(shield=True):
        await anyio.aclose_forcefully(stream)
