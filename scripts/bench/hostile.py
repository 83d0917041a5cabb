"""Attack a node from other processes, all at once, and see what it holds and whether its other peer notices.

Prints one JSON line: connects a second to the node's port, what the bystander sent and got back meanwhile and
how late, the node's memory against the documented budgets, and the reasons that it counted. Three processes: the node,
which only listens; a flood of connects that hang up at once; this one, with the bystander and all other attackers:

- strangers that hold most of the half-open places, with half a TLS handshake or with garbage, over and over;
- a listed peer that asks for far more than its budget and never reads;
- a listed peer that keeps 4 MiB, less a byte, of a frame;
- a listed peer whose messages are bombs for the decoder, over and over.

Run with `python scripts/bench/hostile.py [--seconds 3] [--loop asyncio|trio]`. Linux: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

import anyio
from anyio.abc import ByteStream, Process
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Python puts the folder of a script first, where another file has the package's own name: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from actors.errors import BadFrame, BadMessage, LinkFull  # noqa: E402 - needs the line above
from actors.links import (  # noqa: E402
    Files,
    Limits,
    MutualTls,
    TcpConfig,
    TcpTransport,
    make_authority,
    private_pem,
    sign_node,
)
from actors.links.frame import HEAD, encode_frame  # noqa: E402
from actors.links.greeting import BROKEN, read_hello  # noqa: E402
from actors.links.session import HELLO, WELCOME, Hello  # noqa: E402
from actors.message import decode  # noqa: E402

NODES = ("node", "bystander", "deaf", "heavy", "bomber")
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")) for name in NODES}
PUBLIC = {name: key.public_key().public_bytes_raw() for name, key in KEYS.items()}
ECHO, MORE, DECODE = 1, 2, 3
HALF_OPEN_BYTES = 100 * 1024  # what docs/links.md says a half-open connection may hold
LIMITS = Limits(silence_s=60.0, frame_s=60.0)  # so that the attacks on memory last as long as the run
BOMB = b"\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000  # a million empty dicts
PAUSE_S = 0.005


def certificates(folder: Path) -> None:
    """Write an authority and everybody's files."""
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    root = Ed25519PrivateKey.generate()
    (folder / "authority.pem").write_bytes(
        authority := make_authority(root, "f", not_before=now - day, not_after=now + day)
    )
    for name, key in KEYS.items():
        signed = sign_node(root, authority, name, PUBLIC[name], not_before=now - day, not_after=now + day)
        (folder / f"{name}.pem").write_bytes(signed)
        (folder / f"{name}.key").write_bytes(private_pem(key))


def tls_of(folder: Path, name: str) -> MutualTls:
    """What a node shows."""
    return MutualTls(Files(folder / f"{name}.pem", folder / f"{name}.key", folder / "authority.pem"))


def transport_of(folder: Path, name: str) -> TcpTransport:
    """A node of the federation."""
    return TcpTransport(TcpConfig(name, "f", PUBLIC[name], PUBLIC, limits=LIMITS), tls_of(folder, name))


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def node(folder: Path) -> None:
    """The attacked one: says its port, measures until a line comes in, and says what it saw."""
    transport = transport_of(folder, "node")

    def deliver(from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        if kind == ECHO:
            transport.send(from_node, ECHO, header, bytes(blob), reliable=True)
        elif kind == MORE:
            with contextlib.suppress(LinkFull):
                while True:
                    transport.send(from_node, MORE, b"", bytes(50_000))
        else:
            try:
                decode(bytes(blob))
            except BadMessage as error:
                raise BadFrame(str(error)) from error

    transport.attach(deliver, lambda _node, _up, _reason: None)
    async with transport:
        print(transport.port, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        before, most = resident_bytes(), 0
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, resident_bytes())
                    await anyio.sleep(0.02)

            group.start_soon(watch)
            print(flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            group.cancel_scope.cancel()
        seen = transport.statistics()
        held = {name: link.held_bytes_max for name, link in seen.links.items()}
        said = {"resident": most - before, "held_max": held, "reasons": dict(seen.reasons)}
        print(json.dumps(said), flush=True)


def flood(port: int, seconds: float) -> None:
    """Connect as fast as one process can, from thousands of addresses, and reset; say how many a second were tried.

    And how many came through: the others found the queue of the kernel full, so the node never saw them.
    """
    reset, started, tried, through = struct.pack("ii", 1, 0), time.perf_counter(), 0, 0
    while (took := time.perf_counter() - started) < seconds:
        with socket.socket() as one:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            one.bind((f"127.1.{tried // 250 % 250}.{1 + tried % 250}", 0))
            one.connect_ex(("127.0.0.1", port))
            tried += 1
            # On loopback the handshake is done when the call returns.
            with contextlib.suppress(OSError):
                one.getpeername()
                through += 1
    print(json.dumps({"tried": round(tried / took), "through": round(through / took)}), flush=True)


async def stranger(port: int, address: str, said: bytes) -> None:
    """Say something that is no Hello, keep the connection as long as it is let, and come again."""
    while True:
        with contextlib.suppress(*BROKEN):
            async with await anyio.connect_tcp("127.0.0.1", port, local_host=address) as stream:
                await stream.send(said)
                while True:
                    await stream.receive()
        await anyio.sleep(PAUSE_S)


async def linked(port: int, folder: Path, name: str) -> tuple[ByteStream, int]:
    """A link of a listed peer, by hand; and the number that its next frame needs."""
    raw = await anyio.connect_tcp("127.0.0.1", port, local_host=f"127.2.0.{1 + NODES.index(name)}")
    stream, _ = await tls_of(folder, name).secure(raw, dialing=True)
    await stream.send(Hello("f", name, "node", os.urandom(16), PUBLIC[name], 1).encode(HELLO))
    welcome, _ = await read_hello(stream, WELCOME, LIMITS)
    return stream, welcome.first


def frame(kind: int, number: int, blob: bytes = b"") -> bytes:
    """One message on a link."""
    return encode_frame(64 + kind, number.to_bytes(8, "little"), blob)


async def attack(port: int, folder: Path, name: str) -> None:
    """A listed peer that does its worst, and comes again when its link is ended."""
    while True:
        with contextlib.suppress(*BROKEN):
            stream, number = await linked(port, folder, name)
            async with stream:
                if name == "deaf":
                    while True:
                        await stream.send(frame(MORE, number))
                        number += 1
                        await anyio.sleep(PAUSE_S)
                if name == "heavy":
                    await stream.send(frame(DECODE, number, bytes(LIMITS.frame_bytes_max - 20))[:-1])
                    await anyio.sleep_forever()
                await stream.send(frame(DECODE, number, BOMB))
                while True:
                    await stream.receive()
        await anyio.sleep(PAUSE_S)


class Bystander:
    """The honest peer: sends numbers reliably at a steady pace, gets them back, and looks at order and delay."""

    def __init__(self, folder: Path) -> None:
        self.transport = transport_of(folder, "bystander")
        self.transport.attach(self.deliver, self.on_link)
        self.sent: list[float] = []
        self.delays: list[float] = []
        self.in_order = True
        self.up, self.quiet = anyio.Event(), anyio.Event()

    def on_link(self, _node: str, up: bool, _reason: str) -> None:
        if up:
            self.up.set()

    def deliver(self, _node: str, _kind: int, header: bytes, _blob: bytes | memoryview) -> None:
        number = int.from_bytes(header)
        self.in_order &= number == len(self.delays)
        self.delays.append(time.perf_counter() - self.sent[number])
        if len(self.delays) == len(self.sent):
            self.quiet.set()

    async def talk(self) -> None:
        while True:
            self.quiet = anyio.Event()
            self.sent.append(time.perf_counter())
            self.transport.send("node", ECHO, (len(self.sent) - 1).to_bytes(4), bytes(1000), reliable=True)
            await anyio.sleep(PAUSE_S)

    def summary(self) -> dict[str, object]:
        ordered = sorted(self.delays)
        return {
            "sent": len(self.sent),
            "back": len(self.delays),
            "in_order": self.in_order,
            "links": self.transport.statistics().links["node"].num_links,
            "delay_ms_median": round(1000 * statistics.median(ordered), 1),
            "delay_ms_max": round(1000 * ordered[-1], 1),
        }


def client_hello() -> bytes:
    """What TLS says first: half a handshake."""
    out = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


async def say(process: Process) -> None:
    """Let the node go on."""
    assert process.stdin is not None
    await process.stdin.send(b"\n")


async def line(process: Process) -> str:
    """Return the next line of a process."""
    assert process.stdout is not None
    data = b""
    while not data.endswith(b"\n"):
        data += await process.stdout.receive()
    return data.decode().strip()


async def siege(folder: Path, seconds: float, loop: str) -> dict[str, object]:
    """Everything at once, for some seconds."""
    me = [sys.executable, __file__]
    async with await anyio.open_process([*me, "--loop", loop, "--node", str(folder)], stderr=None) as process:
        port = int(await line(process))
        bystander = Bystander(folder)
        async with bystander.transport:
            bystander.transport.dial("node", "127.0.0.1", port)
            await bystander.up.wait()
            await say(process)
            await line(process)
            async with anyio.create_task_group() as group:
                for name in ("deaf", "heavy", "bomber"):
                    group.start_soon(attack, port, folder, name)
                for number in range(3 * LIMITS.half_open_max // 4):
                    said = HEAD.pack(0xFFFFFFFF, HELLO, 10) if number % 4 == 0 else client_hello()[:100]
                    group.start_soon(stranger, port, f"127.3.0.{1 + number // 4}", said)
                group.start_soon(bystander.talk)
                await anyio.sleep(seconds / 4)
                async with await anyio.open_process([*me, "--flood", str(port), str(seconds)], stderr=None) as flooding:
                    rates = json.loads(await line(flooding))
                await anyio.sleep(seconds / 4)
                group.cancel_scope.cancel()
            with anyio.move_on_after(20.0):
                while len(bystander.delays) < len(bystander.sent):
                    await bystander.quiet.wait()
            await say(process)
            node_saw = json.loads(await line(process))
        await process.wait()
    budget = LIMITS.half_open_max * HALF_OPEN_BYTES + (len(NODES) - 1) * (
        LIMITS.budget_out_bytes + LIMITS.budget_in_bytes
    )
    mib = 1024 * 1024
    return {
        "bench": "hostile",
        "loop": loop,
        "seconds": seconds,
        "connects_per_s": rates,
        "bystander": bystander.summary(),
        "memory_mib": {
            "resident_growth": round(node_saw["resident"] / mib, 1),
            "budget": round(budget / mib, 1),
        },
        "held_max_mib": {name: round(held / mib, 2) for name, held in node_saw["held_max"].items()},
        "reasons": node_saw["reasons"],
    }


def main() -> None:
    """Run the part that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--node", help=argparse.SUPPRESS)
    parser.add_argument("--flood", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.flood:
        flood(int(chosen.flood[0]), float(chosen.flood[1]))
    elif chosen.node:
        anyio.run(node, Path(chosen.node), backend=chosen.loop)
    else:
        with tempfile.TemporaryDirectory() as folder:
            certificates(Path(folder))
            print(json.dumps(anyio.run(siege, Path(folder), chosen.seconds, chosen.loop)))


if __name__ == "__main__":
    main()
