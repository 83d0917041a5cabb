"""A node as a process of its own, for tests that need its descriptors, its memory or its network to be its own.

It says what happens as JSON lines and does what JSON lines on its input ask for:

| says | when |
|---|---|
| {"port": n} | it listens |
| {"link": [node, up, reason]} | a link changes |
| {"got": [node, number]} | a message came |
| {"statistics": {...}} | it was asked |

| asked | does |
|---|---|
| {"dial": [node, host, port]} | dials |
| {"send": [node, from, to]} | sends these numbers, reliably |
| {"descriptors": n} | leaves itself n more files and sockets |
| {"statistics": true} | says its counts |

It ends with its input. `python -m tests.links_node NAME [--tls FOLDER] [--host HOST] [--loop asyncio|trio]`
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import Process

from actors.links import Limits, TcpConfig, TcpTransport
from tests.links_world import FEDERATION, PEERS, QUICK, Authority, plain, public_key

WAIT_S = 30.0


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def leave_descriptors(count: int) -> None:
    used = max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def obey(transport: TcpTransport, asked: dict[str, Any]) -> None:
    match asked:
        case {"dial": [node, host, port]}:
            transport.dial(node, host, port)
        case {"send": [node, start, stop]}:
            for number in range(start, stop):
                transport.send(node, 1, number.to_bytes(4), reliable=True)
        case {"descriptors": count}:
            leave_descriptors(count)
        case _:
            seen = transport.statistics()
            links = {node: attrs.asdict(link) for node, link in seen.links.items()}
            say(statistics={"links": links, "reasons": dict(seen.reasons), "half_open": seen.num_half_open})


async def run(name: str, tls: str | None, host: str, silence_s: float) -> None:
    security = Authority(Path(tls)).tls(name) if tls else plain(name)
    limits = Limits(silence_s=silence_s)
    config = TcpConfig(name, FEDERATION, public_key(name), PEERS, host=host, limits=limits, backoff=QUICK)
    transport = TcpTransport(config, security)
    transport.attach(
        lambda node, _kind, header, _blob: say(got=[node, int.from_bytes(header)]),
        lambda *link: say(link=link),
    )
    async with transport:
        say(port=transport.port)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            obey(transport, json.loads(line))


@attrs.define(eq=False)
class NodeProcess:
    """The parent's end of such a process: what it said so far, and how to ask."""

    process: Process
    said: list[dict[str, Any]] = attrs.field(factory=list)
    _changed: anyio.Event = attrs.field(factory=anyio.Event)

    async def ask(self, **what: object) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps(what).encode() + b"\n")

    async def listen(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.said += map(json.loads, lines)
            self._changed.set()
            self._changed = anyio.Event()

    def of(self, kind: str) -> list[Any]:
        """Everything of a kind that it said."""
        return [what[kind] for what in self.said if kind in what]

    async def until(self, kind: str, count: int) -> Any:
        """Wait for so many of a kind in all, and return the last."""
        with anyio.fail_after(WAIT_S):
            while len(self.of(kind)) < count:
                await self._changed.wait()
        return self.of(kind)[-1]

    async def until_link(self, node: str, *, up: bool) -> None:
        """Wait until the last word on the link is this."""
        with anyio.fail_after(WAIT_S):
            while [link[1] for link in self.of("link") if link[0] == node][-1:] != [up]:
                await self._changed.wait()

    async def statistics(self) -> Any:
        """Return its counts."""
        count = len(self.of("statistics"))
        await self.ask(statistics=True)
        return await self.until("statistics", count + 1)

    async def until_idle(self, node: str) -> None:
        """Wait until nothing waits for a peer, or for its acknowledgement."""
        with anyio.fail_after(WAIT_S):
            while (await self.statistics())["links"][node]["held_bytes"]:
                pass


@asynccontextmanager
async def node_process(
    name: str, *options: str, prefix: Sequence[str] = (), errors: Path | None = None
) -> AsyncIterator[NodeProcess]:
    """A node that runs until the block ends.

    Args:
        name: of the node, one of `PEERS`.
        options: of the command line.
        prefix: a command that runs it somewhere else.
        errors: where its log goes.
    """
    command = [*prefix, sys.executable, "-m", "tests.links_node", name, *options]
    with (errors or Path("/dev/null")).open("wb") as log:
        async with await anyio.open_process(command, stderr=log) as process, anyio.create_task_group() as group:
            child = NodeProcess(process)
            group.start_soon(child.listen)
            try:
                await child.until("port", 1)
                yield child
            finally:
                process.kill()
                group.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--tls")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--silence", type=float, default=15.0)
    chosen = parser.parse_args()
    anyio.run(run, chosen.name, chosen.tls, chosen.host, chosen.silence, backend=chosen.loop)


if __name__ == "__main__":
    main()
