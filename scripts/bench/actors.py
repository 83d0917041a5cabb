"""Measure `actors` against a raw anyio memory object stream, in one run, on asyncio and on trio.

Prints one JSON line: messages and round trips a second, and their ratios. The stream does what the actor does with as
little as possible: one consumer, one counter, the same bound; the round trip uses a second stream for the answer.
`tell_traced` is tell with a hook that counts events, `tell_wire` with every message encoded and decoded, both against
plain tell; `mesh` is 300 actors that pass messages on to each other; `start` is 10,000 actors.
Run with OMP_NUM_THREADS=1 on an idle core: `python scripts/bench/actors.py [messages]`.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel

# This file has the package's own name, and Python puts the folder of a script first: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from actors import (  # noqa: E402 - needs the line above
    Actor,
    ActorRef,
    ActorSystem,
    Context,
    Mailbox,
    MailboxFull,
    handles,
    message,
)

CAPACITY = 256
REPEATS = 5
MESH = 300
CROWD = 10_000


@message("bench.ping")
class Ping:
    n: int


class Counter(Actor):
    mailbox = Mailbox(CAPACITY)

    def __init__(self) -> None:
        self.count = 0

    @handles(Ping)
    def ping(self, msg: Ping, _ctx: Context) -> int:
        self.count += 1
        return msg.n


async def tell_actor(messages: int) -> float:
    return await tell(ActorSystem("bench"), messages)


async def tell_traced(messages: int) -> float:
    events = 0

    def count(_event: object) -> None:
        nonlocal events
        events += 1

    rate = await tell(ActorSystem("bench", trace=count), messages)
    assert events >= messages
    return rate


async def tell_wire(messages: int) -> float:
    return await tell(ActorSystem("bench", copy="wire"), messages)


async def tell(system: ActorSystem, messages: int) -> float:
    async with system:
        counter = Counter()
        ref = await system.spawn(counter)
        started = time.perf_counter()
        for n in range(messages):
            ping = Ping(n)
            try:
                ref.tell(ping)
            except MailboxFull:
                await ref.send(ping)
        while counter.count < messages:
            await anyio.lowlevel.checkpoint()
        return messages / (time.perf_counter() - started)


async def tell_stream(messages: int) -> float:
    send, receive = anyio.create_memory_object_stream[Ping](CAPACITY)
    count = 0

    async def consume() -> None:
        nonlocal count
        async with receive:
            async for _ping in receive:
                count += 1

    started = time.perf_counter()
    async with anyio.create_task_group() as group, send:
        group.start_soon(consume)
        for n in range(messages):
            await send.send(Ping(n))
        send.close()
    assert count == messages
    return messages / (time.perf_counter() - started)


async def ask_actor(messages: int) -> float:
    async with ActorSystem("bench") as system:
        ref = await system.spawn(Counter)
        started = time.perf_counter()
        for n in range(messages):
            await ref.ask(Ping(n), deadline=30.0)
        return messages / (time.perf_counter() - started)


async def ask_stream(messages: int) -> float:
    send, receive = anyio.create_memory_object_stream[Ping](CAPACITY)
    answer, answers = anyio.create_memory_object_stream[int](CAPACITY)

    async def serve() -> None:
        async with receive, answer:
            async for ping in receive:
                await answer.send(ping.n)

    started = time.perf_counter()
    async with anyio.create_task_group() as group, send, answers:
        group.start_soon(serve)
        for n in range(messages):
            await send.send(Ping(n))
            await answers.receive()
        send.close()
    return messages / (time.perf_counter() - started)


@message("bench.hop")
class Hop:
    left: int


class Node(Actor):
    """Passes a message on to the next of its peers, until it has hopped enough."""

    def __init__(self) -> None:
        self.peers: list[ActorRef] = []
        self.turn = 0

    @handles(Hop)
    def hop(self, msg: Hop, _ctx: Context) -> None:
        if msg.left:
            self.turn = (self.turn + 1) % len(self.peers)
            self.peers[self.turn].tell(Hop(msg.left - 1))


async def mesh(messages: int) -> float:
    nodes = [Node() for _ in range(MESH)]
    async with ActorSystem("bench") as system:
        refs = [await system.spawn(node) for node in nodes]
        for number, node in enumerate(nodes):
            node.peers = refs[number + 1 :] + refs[:number]
        hops = messages // MESH
        started = time.perf_counter()
        for ref in refs:
            ref.tell(Hop(hops))
        await system.activity.wait_idle()
        return MESH * (hops + 1) / (time.perf_counter() - started)


async def start_crowd(crowd: int) -> float:
    async with ActorSystem("bench") as system:
        started = time.perf_counter()
        for _ in range(crowd):
            await system.spawn(Counter)
        return time.perf_counter() - started


async def crowd_bytes(crowd: int) -> float:
    """What Python allocates for one actor with its task; apart from the time, because counting slows it."""
    async with ActorSystem("bench") as system:
        gc.collect()
        tracemalloc.start()
        for _ in range(crowd):
            await system.spawn(Counter)
        gc.collect()
        allocated, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return allocated / crowd


def measure(
    ours: Callable[[int], Awaitable[float]], theirs: Callable[[int], Awaitable[float]], n: int, on: str
) -> dict:
    """Alternate the two, so that a busy machine slows both, and take medians."""
    rates = [(anyio.run(ours, n, backend=on), anyio.run(theirs, n, backend=on)) for _ in range(REPEATS)]
    return {
        "actor_per_s": round(statistics.median(rate for rate, _ in rates)),
        "stream_per_s": round(statistics.median(rate for _, rate in rates)),
        "ratio": round(statistics.median(rate / other for rate, other in rates), 2),
    }


def share(ours: Callable[[int], Awaitable[float]], n: int, on: str) -> dict:
    """Return the rate, and which share of plain tell's it is."""
    found = measure(ours, tell_actor, n, on)
    return {"actor_per_s": found["actor_per_s"], "of_tell": found["ratio"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("messages", type=int, nargs="?", default=50_000)
    messages: int = parser.parse_args().messages
    result: dict[str, object] = {"bench": "actors", "messages": messages}
    for backend in ("asyncio", "trio"):
        result[backend] = {
            "tell": measure(tell_actor, tell_stream, messages, backend),
            "ask": measure(ask_actor, ask_stream, messages // 5, backend),
            "tell_traced": share(tell_traced, messages, backend),
            "tell_wire": share(tell_wire, messages, backend),
            "mesh_per_s": round(anyio.run(mesh, 4 * messages, backend=backend)),
            "start": {
                "actors": CROWD,
                "seconds": round(anyio.run(start_crowd, CROWD, backend=backend), 2),
                "bytes_each": round(anyio.run(crowd_bytes, CROWD // 10, backend=backend)),
            },
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
