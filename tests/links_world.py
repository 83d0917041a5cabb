"""A small federation of nodes for tests of links: keys, certificates, transports, strangers."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import attrs
from anyio.abc import ByteStream
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.links import (
    Backoff,
    Files,
    Limits,
    MutualTls,
    Plaintext,
    Security,
    TcpConfig,
    TcpTransport,
    make_authority,
    private_pem,
    sign_node,
)
from actors.testing import LinkPair, Probe
from actors.transport import MemoryHub, MemoryTransport

FEDERATION = "fed-1"
DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
QUICK = Backoff(first_s=0.01, most_s=0.05)  # reconnects at once: tests wait for it


def private_key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name: tests need no fresh ones."""
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")[:32])


def public_key(name: str) -> bytes:
    return private_key(name).public_key().public_bytes_raw()


@attrs.frozen
class Authority:
    """Signs certificates into a folder."""

    folder: Path
    name: str = FEDERATION

    def files(self, node: str, *, key: str | None = None, days: tuple[int, int] = (-1, 1)) -> Files:
        """PEM files of a node, with the key of that name, valid between these days from now."""
        root = private_key(f"authority {self.name}")
        authority = make_authority(root, self.name, not_before=NOW - DAY, not_after=NOW + 5 * DAY)
        certificate = sign_node(
            root,
            authority,
            node,
            public_key(key or node),
            not_before=NOW + days[0] * DAY,
            not_after=NOW + days[1] * DAY,
        )
        stem = f"{self.name}-{node}-{key}-{days[1]}"
        files = Files(*(self.folder / f"{stem}.{part}.pem" for part in ("certificate", "key", "authority")))
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(private_pem(private_key(key or node)))
        files.authority.write_bytes(authority)
        return files

    def tls(self, node: str, *, key: str | None = None, days: tuple[int, int] = (-1, 1)) -> MutualTls:
        """What it was when the certificate was valid: one that is not, does not get past the start today."""
        then = (NOW + days[0] * DAY).timestamp() + 1.0
        return MutualTls(self.files(node, key=key, days=days), now=lambda: then)


PEERS: Mapping[str, bytes] = {name: public_key(name) for name in ("a", "b", "c", "absent")}
Secure = Callable[[str], Security]


def plain(_node: str) -> Security:
    return Plaintext()


def config(
    node: str, *, limits: Limits | None = None, peers: Mapping[str, bytes] = PEERS, key: str | None = None
) -> TcpConfig:
    return TcpConfig(node, FEDERATION, public_key(key or node), peers, limits=limits or Limits(), backoff=QUICK)


def node(name: str, probe: Probe, security: Security, limits: Limits | None = None) -> TcpTransport:
    transport = TcpTransport(config(name, limits=limits), security)
    transport.attach(probe.deliver, probe.on_link)
    return transport


@asynccontextmanager
async def tcp_pair(secure: Secure, at_a: Probe, at_b: Probe) -> AsyncIterator[LinkPair]:
    """Nodes a and b, each of which dials the other."""
    a, b = node("a", at_a, secure("a")), node("b", at_b, secure("b"))
    async with a, b:
        a.dial("b", "127.0.0.1", b.port)
        b.dial("a", "127.0.0.1", a.port)

        async def cut() -> None:
            a.disconnect("b")

        yield LinkPair(a, b, cut)


@asynccontextmanager
async def memory_pair(at_a: Probe, at_b: Probe) -> AsyncIterator[LinkPair]:
    hub = MemoryHub(("a", "b", "absent"))
    a, b = MemoryTransport("a", hub), MemoryTransport("b", hub)
    a.attach(at_a.deliver, at_a.on_link)
    b.attach(at_b.deliver, at_b.on_link)

    async def cut() -> None:
        hub.cut("a", "b")
        hub.heal("a", "b")

    async with a, b:
        yield LinkPair(a, b, cut)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what no probe sees: counts of refusals, sockets that close."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - counts have no event
            await anyio.sleep(0.002)


@asynccontextmanager
async def stranger(port: int, address: str = "127.0.0.2") -> AsyncIterator[ByteStream]:
    """A raw connection from another loopback address, so that it does not take the honest nodes' places."""
    stream = await anyio.connect_tcp("127.0.0.1", port, local_host=address)
    try:
        yield stream
    finally:
        await anyio.aclose_forcefully(stream)


async def read_all(stream: ByteStream) -> bytes:
    """What the other side says until it closes."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return data


open_tcp = partial(tcp_pair, plain)
