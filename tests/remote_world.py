"""Two systems of actors, a and b, over every transport; and actors that show what the runtime does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import attrs

from actors import Actor, ActorRef, ActorSystem, Context, Down, Mailbox, handles, message
from actors.links import TcpTransport
from actors.remote_peer import RemoteLimits
from actors.trace import DeadLetter
from actors.transport import MemoryHub, MemoryTransport, Transport
from tests.links_world import Secure, config, until


@message("remote.note")
class Note:
    content: object


@message("remote.letter", reliable=True)
class Letter:
    content: object


@message("remote.question")
class Question:
    content: object = None


@message("remote.unheard")
class Unheard:
    pass


@message("remote.fail")
class Fail:
    text: str


@message("remote.hold")
class Hold:
    """Busy until the gate opens."""


@message("remote.odd")
class Odd:
    """Asks for a reply that cannot travel."""


class Desk(Actor):
    """Keeps what it is told, and answers with what it is asked."""

    def __init__(self) -> None:
        self.kept: list[object] = []
        self.senders: list[ActorRef | None] = []
        self.gate = anyio.Event()
        self.busy = anyio.Event()
        self.odd: object = object()

    @handles(Note, Letter)
    def keep(self, msg: Any, ctx: Context) -> None:
        self.kept.append(msg.content)
        self.senders.append(ctx.sender)

    @handles(Question)
    def question(self, msg: Question, ctx: Context) -> object:
        self.senders.append(ctx.sender)
        return msg.content

    @handles(Fail)
    def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError(msg.text)

    @handles(Hold)
    async def hold(self, msg: Hold, ctx: Context) -> str:
        self.busy.set()
        await self.gate.wait()
        return "held"

    @handles(Odd)
    def strange(self, msg: Odd, ctx: Context) -> object:
        return self.odd


class SmallDesk(Desk):
    mailbox = Mailbox(1)


@message("remote.watch")
class Watch:
    ref: ActorRef


@message("remote.say")
class Say:
    """Tell the message to the reference, as this actor."""

    to: ActorRef
    content: object


class Guard(Actor):
    """Monitors whom it is told to, and keeps what it hears."""

    def __init__(self) -> None:
        self.downs: list[tuple[ActorRef, str]] = []

    @handles(Watch)
    def watch(self, msg: Watch, ctx: Context) -> None:
        ctx.monitor(msg.ref)

    @handles(Say)
    def say(self, msg: Say, ctx: Context) -> None:
        ctx.tell(msg.to, msg.content)

    @handles(Down)
    def down(self, msg: Down, ctx: Context) -> None:
        self.downs.append((msg.ref, msg.reason))


@attrs.frozen
class Two:
    """Two systems that run.

    Attributes:
        a, b: the systems.
        cut: breaks their link, which comes back by itself.
        restart: ends b and starts another process of that name; returns its system, which ends with the block.
    """

    a: ActorSystem
    b: ActorSystem
    cut: Callable[[], Awaitable[None]]
    restart: Callable[[], AbstractAsyncContextManager[ActorSystem]]

    def far(self, path: str) -> ActorRef:
        """The reference that a has of an actor at b."""
        return self.a.ref(f"scarcity://b/{path}")

    async def linked(self) -> None:
        await until(lambda: up(self.a, "b") and up(self.b, "a"))


OpenTwo = Callable[..., AbstractAsyncContextManager[Two]]


def up(system: ActorSystem, node: str) -> bool:
    peer = system.remote_statistics().get(node)
    return peer is not None and peer.up


@asynccontextmanager
async def memory_two(limits: RemoteLimits | None = None, budget_bytes: int = 8 << 20) -> AsyncIterator[Two]:
    hub = MemoryHub(("a", "b", "absent"))

    def system(name: str) -> ActorSystem:
        transport = MemoryTransport(name, hub, budget_bytes=budget_bytes)
        return ActorSystem(name, transport=transport, remote_limits=limits, drain_s=0.5)

    async def cut() -> None:
        hub.cut("a", "b")
        hub.heal("a", "b")

    async with _two(system, cut, lambda a, b: None) as two:
        yield two


@asynccontextmanager
async def tcp_two(secure: Secure, limits: RemoteLimits | None = None) -> AsyncIterator[Two]:
    transports: dict[ActorSystem, TcpTransport] = {}

    def system(name: str) -> ActorSystem:
        transport = TcpTransport(config(name), secure(name))
        made = ActorSystem(name, transport=transport, remote_limits=limits, drain_s=0.5)
        transports[made] = transport
        return made

    def meet(a: ActorSystem, b: ActorSystem) -> None:
        transports[a].dial("b", "127.0.0.1", transports[b].port)
        transports[b].dial("a", "127.0.0.1", transports[a].port)

    async def cut() -> None:
        next(iter(transports.values())).disconnect("b")

    async with _two(system, cut, meet) as two:
        yield two


@asynccontextmanager
async def _two(
    system: Callable[[str], ActorSystem],
    cut: Callable[[], Awaitable[None]],
    meet: Callable[[ActorSystem, ActorSystem], object],
) -> AsyncIterator[Two]:
    a, b = system("a"), system("b")
    end, ended = anyio.Event(), anyio.Event()

    async def live(started: anyio.Event) -> None:
        """Run b in a task of its own: a block cannot end in the middle of another."""
        async with b:
            started.set()
            await end.wait()
        ended.set()

    @asynccontextmanager
    async def restart() -> AsyncIterator[ActorSystem]:
        end.set()
        await ended.wait()
        async with system("b") as again:
            meet(a, again)
            yield again

    async with anyio.create_task_group() as group, a:
        started = anyio.Event()
        group.start_soon(live, started)
        await started.wait()
        meet(a, b)
        two = Two(a, b, cut, restart)
        await two.linked()
        yield two
        end.set()
        await ended.wait()


async def until_letters(system: ActorSystem, count: int) -> list[DeadLetter]:
    await until(lambda: len(system.dead_letters) >= count)
    return list(system.dead_letters)


class Stranger:
    """A raw transport as node b, so that a test can say to system a what no system would."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.heard: list[tuple[int, bytes, bytes]] = []
        self.links: list[tuple[bool, str]] = []
        transport.attach(self._deliver, lambda _node, up, reason: self.links.append((up, reason)))

    def _deliver(self, _node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        self.heard.append((kind, header, bytes(blob)))

    def say(self, kind: int, header: bytes, blob: bytes = b"") -> None:
        self.transport.send("a", kind, header, blob, reliable=True)


@asynccontextmanager
async def memory_stranger(limits: RemoteLimits | None = None) -> AsyncIterator[tuple[ActorSystem, Stranger]]:
    hub = MemoryHub(("a", "b"))
    stranger = Stranger(MemoryTransport("b", hub))
    async with ActorSystem("a", transport=MemoryTransport("a", hub), remote_limits=limits) as a, stranger.transport:
        yield a, stranger


@asynccontextmanager
async def tcp_stranger(
    secure: Secure, limits: RemoteLimits | None = None
) -> AsyncIterator[tuple[ActorSystem, Stranger]]:
    transport = TcpTransport(config("a"), secure("a"))
    far = TcpTransport(config("b"), secure("b"))
    stranger = Stranger(far)
    async with ActorSystem("a", transport=transport, remote_limits=limits) as a, far:
        far.dial("a", "127.0.0.1", transport.port)
        await until(lambda: up(a, "b") and bool(stranger.links))
        yield a, stranger
