"""Measure links against the raw anyio stream doing the same over loopback, in one run, on asyncio and on trio.

Prints one JSON line: 100-byte messages one way over TCP, their round trips, 80 KB over mutual TLS, the time from
dialing to a link that is up, and the same from actor to actor (a round trip is an ask), each with its ratio to the raw
stream. Both ends run in one process, so a figure is what
one core does for both. Where a link has to wait, so does the stream: both sides of a pair take turns, and medians
count. Run with OMP_NUM_THREADS=1 on an idle core: `python scripts/bench/links.py [messages]`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketAttribute
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Python puts the folder of a script first, where another file has the package's own name: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from actors import Actor, ActorRef, ActorSystem, Mailbox, handles, message  # noqa: E402 - needs the line above
from actors.errors import LinkFull  # noqa: E402
from actors.links import (  # noqa: E402
    Files,
    Limits,
    MutualTls,
    Plaintext,
    TcpConfig,
    TcpTransport,
    make_authority,
    private_pem,
    sign_node,
)
from actors.remote_peer import RemoteLimits  # noqa: E402 - as above

SMALL, LARGE = bytes(100), bytes(80_000)
REPEATS = 3
# What a peer may cost is not what is measured here.
LIMITS = Limits(tokens_per_s=1e9, tokens_burst=1e9)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("a", "b")}
PUBLIC = {name: key.public_key().public_bytes_raw() for name, key in KEYS.items()}


class Node:
    """A transport whose messages go to a callback that can be exchanged."""

    def __init__(self, name: str, security: Plaintext | MutualTls) -> None:
        self.transport = TcpTransport(TcpConfig(name, "bench", PUBLIC[name], PUBLIC, limits=LIMITS), security)
        self.transport.attach(self.deliver, self.on_link)
        self.on_message: Callable[[], None] = lambda: None
        self.up = anyio.Event()

    def deliver(self, _node: str, _kind: int, _header: bytes, _blob: bytes | memoryview) -> None:
        self.on_message()

    def on_link(self, _node: str, up: bool, _reason: str) -> None:
        if up:
            self.up.set()


@asynccontextmanager
async def pair(secure: Callable[[str], Plaintext | MutualTls]) -> AsyncIterator[tuple[Node, Node]]:
    a, b = Node("a", secure("a")), Node("b", secure("b"))
    async with b.transport, a.transport:
        a.transport.dial("b", "127.0.0.1", b.transport.port)
        await a.up.wait()
        await b.up.wait()
        yield a, b


@asynccontextmanager
async def raw_pair(
    wrap: Callable[[ByteStream, bool], Awaitable[ByteStream]],
) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    ends: list[ByteStream] = []
    there = anyio.Event()

    async def serve(stream: ByteStream) -> None:
        ends.append(await wrap(stream, False))
        there.set()
        await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        dialed = await anyio.connect_tcp("127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]())
        stream = await wrap(dialed, True)
        await there.wait()
        yield stream, ends[0]
        group.cancel_scope.cancel()


async def bare(stream: ByteStream, _dialing: bool) -> ByteStream:
    return stream


async def one_way(secure: Callable[[str], Plaintext | MutualTls], blob: bytes, messages: int) -> float:
    async with pair(secure) as (a, b):
        left, done = messages, anyio.Event()

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        b.on_message = count
        started = time.perf_counter()
        for _ in range(messages):
            while True:
                try:
                    a.transport.send("b", 1, b"", blob)
                    break
                except LinkFull:
                    await anyio.sleep(0.002)  # the budget lasts longer than this: trying all the time would cost more
        await done.wait()
        return messages / (time.perf_counter() - started)


@message("bench.parcel")
class Parcel:
    content: bytes


class Counter(Actor):
    mailbox = Mailbox(1 << 20)

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = anyio.Event()

    @handles(Parcel)
    def count(self, msg: Parcel, _ctx: object) -> Parcel:
        self.left -= 1
        if not self.left:
            self.done.set()
        return msg


@asynccontextmanager
async def systems(secure: Callable[[str], Plaintext | MutualTls], counter: Counter) -> AsyncIterator[ActorRef]:
    """A reference, at node a, of the counter at node b."""
    a, b = (TcpTransport(TcpConfig(name, "bench", PUBLIC[name], PUBLIC, limits=LIMITS), secure(name)) for name in "ab")
    # The bench counts messages that wait by the hundred thousand: they must not come back as busy.
    deep = RemoteLimits(inbox_bytes=1 << 30)
    async with ActorSystem("b", transport=b, remote_limits=deep) as far, ActorSystem("a", transport=a) as here:
        await far.spawn(counter, name="counter")
        a.dial("b", "127.0.0.1", b.port)
        ref = here.ref("scarcity://b/counter")
        await ref.ask(Parcel(b""), deadline=10.0)
        yield ref


async def actor_one_way(secure: Callable[[str], Plaintext | MutualTls], content: bytes, messages: int) -> float:
    counter, parcel = Counter(messages + 1), Parcel(content)
    async with systems(secure, counter) as ref:
        started = time.perf_counter()
        for _ in range(messages):
            while True:
                try:
                    ref.tell(parcel)
                    break
                except LinkFull:
                    await anyio.sleep(0.002)
        await counter.done.wait()
        return messages / (time.perf_counter() - started)


async def actor_round_trip(secure: Callable[[str], Plaintext | MutualTls], messages: int) -> float:
    parcel = Parcel(SMALL)
    async with systems(secure, Counter(0)) as ref:
        started = time.perf_counter()
        for _ in range(messages):
            await ref.ask(parcel, deadline=10.0)
        return messages / (time.perf_counter() - started)


async def raw_one_way(wrap: Callable[[ByteStream, bool], Awaitable[ByteStream]], blob: bytes, messages: int) -> float:
    async with raw_pair(wrap) as (sender, receiver), anyio.create_task_group() as group:

        async def send() -> None:
            for _ in range(messages):
                await sender.send(blob)

        started = time.perf_counter()
        group.start_soon(send)
        left = messages * len(blob)
        while left:
            left -= len(await receiver.receive(65536))
        return messages / (time.perf_counter() - started)


async def round_trip(secure: Callable[[str], Plaintext | MutualTls], messages: int) -> float:
    async with pair(secure) as (a, b):
        left, done = messages, anyio.Event()

        def again() -> None:
            nonlocal left
            left -= 1
            if left:
                a.transport.send("b", 1, b"", SMALL)
            else:
                done.set()

        b.on_message = lambda: b.transport.send("a", 1, b"", SMALL)
        a.on_message = again
        started = time.perf_counter()
        a.transport.send("b", 1, b"", SMALL)
        await done.wait()
        return messages / (time.perf_counter() - started)


async def raw_round_trip(wrap: Callable[[ByteStream, bool], Awaitable[ByteStream]], messages: int) -> float:
    async with raw_pair(wrap) as (here, there), anyio.create_task_group() as group:

        async def echo() -> None:
            with contextlib.suppress(anyio.EndOfStream):
                while True:
                    await there.send(await there.receive())

        group.start_soon(echo)
        started = time.perf_counter()
        for _ in range(messages):
            await here.send(SMALL)
            await here.receive()
        rate = messages / (time.perf_counter() - started)
        group.cancel_scope.cancel()
        return rate


async def connect(secure: Callable[[str], Plaintext | MutualTls], times: int) -> float:
    """Seconds from dialing to up at both ends; the median."""
    taken = []
    for _ in range(times):
        a, b = Node("a", secure("a")), Node("b", secure("b"))
        async with b.transport, a.transport:
            started = time.perf_counter()
            a.transport.dial("b", "127.0.0.1", b.transport.port)
            await a.up.wait()
            await b.up.wait()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def raw_connect(wrap: Callable[[ByteStream, bool], Awaitable[ByteStream]], times: int) -> float:
    """Seconds to connect, and to hand 100 bytes over and get them back."""
    taken = []

    async def serve(stream: ByteStream) -> None:
        async with stream:
            inside = await wrap(stream, False)
            await inside.send(await inside.receive())
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await inside.receive()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        for _ in range(times):
            started = time.perf_counter()
            dialed = await anyio.connect_tcp("127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]())
            stream = await wrap(dialed, True)
            await stream.send(SMALL)
            await stream.receive()
            taken.append(time.perf_counter() - started)
            await anyio.aclose_forcefully(dialed)
        group.cancel_scope.cancel()
    return statistics.median(taken)


def compare(ours: Callable[[], Awaitable[float]], raw: Callable[[], Awaitable[float]], on: str, *, ms: bool) -> dict:
    """Alternate the two, so that a busy machine slows both, and take medians."""
    rounds = [(anyio.run(ours, backend=on), anyio.run(raw, backend=on)) for _ in range(REPEATS)]
    link, stream = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = round(statistics.median(one / other for one, other in rounds), 2)
    if ms:
        return {"link_ms": round(1000 * link, 2), "stream_ms": round(1000 * stream, 2), "ratio": ratio}
    return {"link_per_s": round(link), "stream_per_s": round(stream), "ratio": ratio}


def certificates(folder: Path) -> dict[str, Files]:
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    root = Ed25519PrivateKey.generate()
    authority = make_authority(root, "bench", not_before=now - day, not_after=now + day)
    found = {}
    for name, key in KEYS.items():
        files = Files(*(folder / f"{name}.{part}.pem" for part in ("certificate", "key", "authority")))
        files.certificate.write_bytes(
            sign_node(root, authority, name, PUBLIC[name], not_before=now - day, not_after=now + day)
        )
        files.key.write_bytes(private_pem(key))
        files.authority.write_bytes(authority)
        found[name] = files
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("messages", type=int, nargs="?", default=100_000)
    messages: int = parser.parse_args().messages
    result: dict[str, object] = {"bench": "links", "messages": messages}
    with tempfile.TemporaryDirectory() as folder:
        files = certificates(Path(folder))
        tls = {name: MutualTls(one) for name, one in files.items()}

        def plain(_name: str) -> Plaintext:
            return Plaintext()

        async def wrapped(stream: ByteStream, dialing: bool) -> ByteStream:
            return (await tls["a" if dialing else "b"].secure(stream, dialing=dialing))[0]

        cases: dict[str, tuple[Callable[[], Awaitable[float]], Callable[[], Awaitable[float]], bool]] = {
            "tcp_100b_one_way": (
                lambda: one_way(plain, SMALL, messages),
                lambda: raw_one_way(bare, SMALL, messages // 5),
                False,
            ),
            "tcp_100b_round_trip": (
                lambda: round_trip(plain, messages // 10),
                lambda: raw_round_trip(bare, messages // 10),
                False,
            ),
            "mtls_80kb_one_way": (
                lambda: one_way(tls.__getitem__, LARGE, messages // 50),
                lambda: raw_one_way(wrapped, LARGE, messages // 50),
                False,
            ),
            "mtls_connect_and_hello": (lambda: connect(tls.__getitem__, 20), lambda: raw_connect(wrapped, 20), True),
            "tcp_connect_and_hello": (lambda: connect(plain, 20), lambda: raw_connect(bare, 20), True),
        }
        for name, secure in (("tcp", plain), ("mtls", tls.__getitem__)):
            raw = bare if name == "tcp" else wrapped
            cases |= {
                f"actors_{name}_100b_one_way": (
                    partial(actor_one_way, secure, SMALL, messages // 2),
                    partial(raw_one_way, raw, SMALL, messages // 5),
                    False,
                ),
                f"actors_{name}_100b_ask": (
                    partial(actor_round_trip, secure, messages // 20),
                    partial(raw_round_trip, raw, messages // 10),
                    False,
                ),
                f"actors_{name}_80kb_one_way": (
                    partial(actor_one_way, secure, LARGE, messages // 50),
                    partial(raw_one_way, raw, LARGE, messages // 50),
                    False,
                ),
            }
        for backend in ("asyncio", "trio"):
            result[backend] = {name: compare(*both, backend, ms=ms) for name, (*both, ms) in cases.items()}
    result["tls"] = ssl.OPENSSL_VERSION
    print(json.dumps(result))


if __name__ == "__main__":
    main()
