"""The first words on a connection as bytes move: reading a Hello or a Welcome, and saying no so that it arrives."""

from __future__ import annotations

import contextlib

import anyio
import anyio.abc

from actors.links.frame import split_frame
from actors.links.session import CHUNK_BYTES, Hello, Limits, Refusal, decode_hello, encode_refuse

BROKEN = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError)
"""What a stream raises when it is of no more use."""
LINGER_S = 1.0  # what a refused peer gets to read why


async def read_hello(stream: anyio.abc.ByteStream, kind: int, limits: Limits) -> tuple[Hello, bytes]:
    """Return the first frame, of this kind, and what came behind it.

    Raises:
        LinkRefused: the peer refused, or speaks another version.
        BadFrame: it says anything else.
    """
    data = b""
    while True:
        data += await stream.receive(CHUNK_BYTES)
        split = split_frame(data, limits.hello_bytes_max)
        if split is not None:
            return decode_hello(split[0], kind), split[1]


async def say_no(raw: anyio.abc.SocketStream, inside: anyio.abc.ByteStream | None, refusal: Refusal) -> None:
    """Tell a peer why, and give it a second to go.

    To close while bytes of its are unread would reset the connection, and the reason could be lost on its way.

    Args:
        raw: the connection.
        inside: the stream that `Security` made of it, `None` when it did not: then TLS has said why.
        refusal: why.
    """
    with anyio.move_on_after(LINGER_S), contextlib.suppress(*BROKEN):
        if inside is not None:
            await inside.send(encode_refuse(refusal))
        await raw.send_eof()
        left = CHUNK_BYTES
        while left > 0:
            left -= len(await raw.receive(left))
