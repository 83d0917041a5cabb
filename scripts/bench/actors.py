"""Measure tell and ask of `actors` against a raw anyio memory object stream, in one run, on asyncio and on trio.

Prints one JSON line: messages and round trips a second, and their ratios. The stream does what the actor does with as
little as possible: one consumer, one counter, the same bound; the round trip uses a second stream for the answer.
Run with OMP_NUM_THREADS=1 on an idle core: `python scripts/bench/actors.py [messages]`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel

# This file has the package's own name, and Python puts the folder of a script first: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from actors import Actor, ActorSystem, Context, Mailbox, MailboxFull, handles, message  # noqa: E402 - needs the line above

CAPACITY = 256
REPEATS = 5


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
    async with ActorSystem("bench") as system:
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


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    result: dict[str, object] = {"bench": "actors", "messages": messages}
    for backend in ("asyncio", "trio"):
        result[backend] = {
            "tell": measure(tell_actor, tell_stream, messages, backend),
            "ask": measure(ask_actor, ask_stream, messages // 5, backend),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
