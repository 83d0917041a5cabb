"""A stream inside TLS that says goodbye with the reason: the bytes between a socket and OpenSSL, nothing else.

anyio's own stream drops what OpenSSL has to say when a handshake fails. That is the alert which tells a dialer that
its certificate was refused, and why; in TLS 1.3 it has no other way to learn it.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.abc

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024


class TlsStream(anyio.abc.ByteStream):
    """TLS over a stream. One task may send while another receives.

    Args:
        raw: the stream below.
        context: what is shown and trusted.
        server_side: whether this end accepts.
    """

    def __init__(self, raw: anyio.abc.ByteStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)

    async def handshake(self) -> None:
        """Shake hands; when that fails, the peer is told with an alert before the error is raised.

        Raises:
            ssl.SSLError: the peer, or this end, refuses.
            anyio.EndOfStream: the peer went away.
        """
        try:
            await self._pump(self._tls.do_handshake)
        except ssl.SSLError:
            with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._flush()
            raise
        await self._flush()

    def peer_certificate(self) -> bytes:
        """Return the peer's certificate in DER, after the handshake."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def receive(self, max_bytes: int = _CHUNK_BYTES) -> bytes:
        """Return some bytes.

        Raises:
            ssl.SSLError: the peer sent an alert, or what is no TLS.
            anyio.EndOfStream: the stream has ended, with a goodbye or without: where a message ends is said by frames.
        """
        data = await self._pump(lambda: self._tls.read(max_bytes))
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes | memoryview) -> None:
        """Send all of it."""
        self._tls.write(item)
        await self._flush()

    async def send_eof(self) -> None:
        """End the sending side."""
        await self._raw.send_eof()

    async def aclose(self) -> None:
        """Close the stream below. No closing handshake: a hostile peer could make closing wait for it."""
        await self._raw.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What the stream below knows."""
        return self._raw.extra_attributes

    async def _pump(self, step: Callable[[], T]) -> T:
        """Feed OpenSSL with bytes until `step` needs no more."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                try:
                    self._incoming.write(await self._raw.receive(_CHUNK_BYTES))
                except anyio.EndOfStream:
                    self._incoming.write_eof()
            except (ssl.SSLEOFError, ssl.SSLSyscallError):
                raise anyio.EndOfStream from None

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._raw.send(self._outgoing.read())
