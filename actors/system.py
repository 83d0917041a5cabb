"""A system of actors: spawn, tell, send, ask, monitor, stop, in one task group.

The system ends with its `async with` block. When the block ends well the system first lets the actors finish: it waits
until every actor is idle, closes the mailboxes and waits until the actors have gone, all within `drain_s`; what is left
then is cancelled, and messages that nobody handled are dead letters. Tasks of `Context.start_soon` are not waited for.
When the block raises or is cancelled, the system cancels at once.

With a transport there are other nodes: `actors.remote` is the router of their references, and the transport runs
within the system, from before the first actor until after the last one.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Literal, Self

import anyio
import anyio.abc
import anyio.lowlevel

from actors.actor import Actor
from actors.address import SCHEME, ActorRef, Address
from actors.cell import Cell, make
from actors.clock import Timers, check_seconds
from actors.errors import ActorStopped, BadMessage, BadSetting, NameTaken, UnknownActor
from actors.mailbox import Activity, CopyReply, Envelope, MailboxStatistics, Reply
from actors.message import Down, decode, encode, is_message, message_name
from actors.remote import Remote
from actors.remote_peer import RemoteLimits, RemoteStatistics
from actors.trace import ActorStatistics, DeadLetter, EventKind, Failure, Omitted, SystemStatistics, TraceEvent
from actors.transport import OnLink, Transport, TransportStatistics, ignore_link

log = logging.getLogger("actors")

_LETTER_BYTES = 4096  # of a dead letter from another node that is kept whole: a full record of them is a megabyte
_RECORDS = 256  # dead letters and failures that are kept to be looked at; beyond that they are only counted


class ActorSystem:
    """Actors that live and end together in one event loop, asyncio's or trio's; an async context manager, used once.

    Args:
        name: the node's name, first part of every address.
        now: the clock in seconds, by default the event loop's. Timers and deadlines are instants of it.
        drain_s: bound on the time that stopping may take; longer saves more messages and delays the end.
        rng: uniform in [0, 1), for the pauses before restarts and the numbers of incarnations; by default the
            operating system's. Neither is a secret.
        trace: called with every event, in the middle of things: it must be quick and must not call the system. If it
            raises, the error is logged and it is not called again. Without it tracing costs nothing.
        copy: `reference` passes messages as they are. `wire` is for tests: it encodes and decodes every message and
            reply that one actor sends another, so what could not travel between hosts fails here.
        transport: the links to other nodes, of a node of the same name; attached and run by the system.
        on_link: called with `(node, up, reason)` for every link that comes or goes; it must be quick.
        remote_limits: what another node may cost.

    Raises:
        BadSetting: a name, a time or a way to copy is out of range, or the transport is another node's.
    """

    def __init__(
        self,
        name: str,
        *,
        now: Callable[[], float] = anyio.current_time,
        drain_s: float = 5.0,
        rng: Callable[[], float] | None = None,
        trace: Callable[[TraceEvent], None] | None = None,
        copy: Literal["reference", "wire"] = "reference",
        transport: Transport | None = None,
        on_link: OnLink | None = None,
        remote_limits: RemoteLimits | None = None,
    ) -> None:
        if copy not in ("reference", "wire"):
            raise BadSetting(f"copy: expected reference or wire, got {copy!r}")
        Address(name, "x")  # refuses a bad name here rather than at the first spawn
        if transport is not None and transport.node != name:
            raise BadSetting(f"transport: expected one of node {name}, got {transport.node}'s")
        self.name = name
        self.drain_s = check_seconds("drain_s", drain_s)
        self.timers = Timers(now)
        self.activity = Activity()
        self.rng = random.SystemRandom().random if rng is None else rng
        self._trace = trace
        self._wire = self._copy if copy == "wire" else None
        self._cells: dict[str, Cell] = {}
        self._num_spawned = 0
        self._gone: anyio.Event | None = None
        self._closed = True
        self._group: anyio.abc.TaskGroup
        self._life: AbstractAsyncContextManager[None] | None = None
        self._dead_letters: deque[DeadLetter] = deque(maxlen=_RECORDS)
        self._failures: deque[Failure] = deque(maxlen=_RECORDS)
        self._num_dead_letters = 0
        self._num_failures = 0
        self._num_restarts = 0
        self._transport = transport
        self._remote: Remote | None = None
        if transport is not None:
            self._remote = Remote(self, transport, on_link or ignore_link, remote_limits or RemoteLimits())

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise BadSetting("a system is used once: make a new one")
        self._life = self._live()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._life is not None
        return await self._life.__aexit__(kind, error, trace)

    async def spawn(self, what: Callable[[], Actor] | Actor, *, name: str | None = None) -> ActorRef:
        """Start an actor and return its reference once its `on_start` has ended.

        Args:
            what: a factory, an actor class for instance, or an instance. An instance cannot be made anew, so it is
                not restarted, whatever its class says.
            name: unique among the living; by default made of the class's name and a number.

        Raises:
            NameTaken: an actor of this name is alive.
            BadSetting: the name is malformed, or the factory is neither an actor nor callable.
            ActorStopped: it failed in `on_start` (the cause is attached), or the system is not running.

        An error of the factory itself is the caller's and passes through.
        """
        return await self._spawn(what, name, None)

    async def spawn_child(self, parent: Cell, what: Callable[[], Actor] | Actor, name: str | None) -> ActorRef:
        """Start an actor for another (the seam behind `Context.spawn`)."""
        return await self._spawn(what, name, parent)

    def ref(self, address: str | Address) -> ActorRef:
        """Return the reference of an address, `scarcity://<node>/<name>` or just `<name>`; nobody needs to live there.

        Raises:
            BadSetting: the address is malformed.
            UnknownActor: it is of another node, and this system has no links. With links any node is accepted here;
                whether the transport knows it is seen when something is sent.
        """
        if isinstance(address, str):
            address = Address.parse(address) if address.startswith(SCHEME) else Address(self.name, address)
        if address.node == self.name:
            return ActorRef(address, self)
        if self._remote is None:
            raise UnknownActor(f"{address}: {self.name} has no link to that node")
        return ActorRef(address, self._remote)

    def find(self, path: str) -> Cell | None:
        """Return the actor of that name, if it lives (the seam to `actors.remote`)."""
        return self._cells.get(path)

    def stop(self, ref: ActorRef) -> None:
        """Ask an actor to accept nothing more, handle what waits and stop; without effect when it is gone.

        Raises:
            UnknownActor: it is of another node, whose own system alone can stop it.
        """
        cell = self._cells.get(self._own(ref).address.path)
        if cell is not None:
            cell.stop()

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The latest messages that no handler got, oldest first."""
        return tuple(self._dead_letters)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The latest errors that ended an actor, oldest first."""
        return tuple(self._failures)

    def statistics(self) -> SystemStatistics:
        """Return the counts so far."""
        return SystemStatistics(
            num_actors=len(self._cells),
            num_timers=len(self.timers),
            num_dead_letters=self._num_dead_letters,
            num_failures=self._num_failures,
            num_restarts=self._num_restarts,
        )

    def transport_statistics(self) -> TransportStatistics:
        """Return what the transport has seen of its links; nothing without a transport."""
        return TransportStatistics({}) if self._transport is None else self._transport.statistics()

    def remote_statistics(self) -> dict[str, RemoteStatistics]:
        """Return what this system has seen of the actors of each node that there has been a link to."""
        return {} if self._remote is None else self._remote.statistics()

    def mailbox_statistics(self, ref: ActorRef) -> MailboxStatistics:
        """Return what an actor's mailbox has seen.

        Raises:
            UnknownActor: the actor is gone, or of another node.
        """
        return self._find(self._own(ref)).inbox.statistics()

    def actor_statistics(self, ref: ActorRef) -> ActorStatistics:
        """Return what there is to say about an actor: its incarnation, restarts, children and mailbox.

        Raises:
            UnknownActor: the actor is gone, or of another node.
        """
        return self._find(self._own(ref)).statistics()

    def route_tell(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Deliver now (the seam behind `ActorRef.tell`)."""
        if self._wire is not None:
            message = self._wire(message)
        envelope = Envelope(message, sender, None, None)
        cell = self._cells.get(to.address.path)
        if cell is None or cell.inbox.closed:
            self.bury(envelope, to, "no such actor" if cell is None else "the actor is stopping")
        else:
            cell.inbox.offer(envelope)

    async def route_send(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Deliver when there is room (the seam behind `ActorRef.send`)."""
        await anyio.lowlevel.checkpoint()
        if self._wire is not None:
            message = self._wire(message)
        inbox = self._find(to).inbox
        envelope = Envelope(message, sender, None, None)
        if not inbox.must_wait():
            inbox.offer(envelope)
            return
        admitted = anyio.Event()
        waiting = inbox.enlist(envelope, admitted)
        try:
            await admitted.wait()
        finally:
            inbox.withdraw(waiting)
        if waiting.refused:
            raise ActorStopped(f"{to.address} stopped before there was room")

    async def route_ask(self, to: ActorRef, message: object, deadline: float, sender: ActorRef | None) -> object:
        """Deliver and wait for the reply (the seam behind `ActorRef.ask`)."""
        inbox = self._find(to).inbox
        due_at = self.timers.now() + check_seconds("deadline", deadline)
        reply = Reply()
        if self._wire is not None:
            message, reply = self._wire(message), CopyReply(self._copy_value)
        envelope = Envelope(message, sender, due_at, reply)
        waiting = None
        if inbox.setting.overflow == "block" and inbox.must_wait():
            waiting = inbox.enlist(envelope, None)
        else:
            inbox.offer(envelope)
        timer = self.timers.at(due_at, reply.expire)
        try:
            return await reply.result()
        finally:
            timer.cancel()
            reply.abandon()
            if waiting is not None:
                inbox.withdraw(waiting)

    @property
    def tracing(self) -> bool:
        """Whether there is a hook for events."""
        return self._trace is not None

    def emit(self, kind: EventKind, to: ActorRef, envelope: Envelope | None = None, detail: str = "") -> None:
        """Show an event to the hook, if there is one."""
        if self._trace is None:
            return
        message, sender = (None, None) if envelope is None else envelope[:2]
        try:
            self._trace(TraceEvent(kind, self.timers.now(), to.address, message, sender, detail))
        except Exception:  # whoever looks on must not change what happens
            log.exception("the trace hook failed and is not called again")
            self._trace = None

    def bury(self, envelope: Envelope, to: ActorRef, reason: str) -> None:
        """Record a dead letter."""
        self._num_dead_letters += 1
        message, load = envelope.message, envelope.load
        if load is not None and load.size_bytes > _LETTER_BYTES:
            message = Omitted(message_name(type(message)) or "", load.size_bytes)
        self._dead_letters.append(DeadLetter(message, to.address, envelope.sender, reason))
        self.emit("dead_letter", to, envelope, reason)

    def restarted(self, cell: Cell) -> None:
        """Count a restart."""
        self._num_restarts += 1
        self.emit("restarted", cell.ref, detail=f"incarnation {cell.incarnation}")

    def monitor(self, watcher: Cell, ref: ActorRef) -> None:
        """Let the watcher get one `Down` when the actor is gone, now when it is gone already."""
        own = ref.address.node == self.name
        if not own and self._remote is not None:
            self._remote.monitor(watcher, ref)
            return
        cell = self._cells.get(ref.address.path) if own else None
        if cell is None:
            watcher.control(Down(ref, "unknown"))
        else:
            cell.watchers[watcher.ref] = watcher
            watcher.watched.add(cell)

    def gone(self, cell: Cell, reason: str) -> None:
        """Take a finished actor off the books and tell its parent and who monitors it."""
        del self._cells[cell.ref.address.path]
        for watched in cell.watched:
            watched.watchers.pop(cell.ref, None)
        if self._remote is not None:
            self._remote.forget(cell)
        if cell.error is not None:
            self._escalate(cell, cell.error)
        self.emit("stopped", cell.ref, detail=reason)
        for watcher in cell.watchers.values():
            watcher.watched.discard(cell)
            watcher.control(Down(cell.ref, reason))
        if cell.parent is not None:
            cell.parent.forget(cell)
        if not self._cells and self._gone is not None:
            self._gone.set()

    def _escalate(self, cell: Cell, error: Exception) -> None:
        """See that a failure is heard: by the parent, once even if it monitors too, or by who reads the record."""
        log.error("%s failed", cell.ref.address, exc_info=error)
        # One that did not start at all is no news to its parent: it is the error of the `spawn` that the parent awaits.
        parent = None if cell.failed_to_start else cell.supervisor
        if parent is not None:
            cell.watchers.setdefault(parent.ref, parent)
        else:
            self._num_failures += 1
            self._failures.append(Failure(cell.ref, error))

    def _copy(self, message: object) -> object:
        if not is_message(type(message)):
            raise BadMessage(f"{message!r:.80} is not a message, decorate its class with @message(name)")
        return self._copy_value(message)

    def _copy_value(self, value: object) -> object:
        return decode(encode(value), self.ref)

    async def _spawn(self, what: Callable[[], Actor] | Actor, name: str | None, parent: Cell | None) -> ActorRef:
        if not isinstance(what, Actor) and not callable(what):
            raise BadSetting(f"spawn: expected an actor or a factory of one, got {what!r}")
        actor, factory = (what, None) if isinstance(what, Actor) else (make(what), what)
        self._num_spawned += 1
        if name is None:
            name = f"{type(actor).__name__.lower()}-{self._num_spawned}"
        ref = ActorRef(Address(self.name, name), self)
        if self._closed:
            raise ActorStopped(f"{self.name} is not running")
        if name in self._cells:
            raise NameTaken(f"{ref.address} is alive")
        cell = Cell(self, ref, actor, factory, parent)
        self._cells[name] = cell
        if parent is not None:
            parent.children[cell] = None
        self.activity.begin()
        self.emit("spawned", ref, detail=f"incarnation {cell.incarnation}")
        self._group.start_soon(cell.run, name=str(ref.address))
        await cell.started.wait()
        if cell.failed_to_start:
            raise ActorStopped(f"{ref.address} did not start: {cell.error!r}") from cell.error
        return ref

    def _own(self, ref: ActorRef) -> ActorRef:
        """Refuse what lives elsewhere: an actor here may have the same path."""
        if ref.address.node != self.name:
            raise UnknownActor(f"{ref.address} does not live at {self.name}")
        return ref

    def _find(self, ref: ActorRef) -> Cell:
        cell = self._cells.get(ref.address.path)
        if cell is None:
            raise UnknownActor(f"nobody lives at {ref.address}")
        if cell.inbox.closed:
            raise ActorStopped(f"{ref.address} is stopping")
        return cell

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self.timers.run, name=f"{self.name} timers")
                try:
                    async with nullcontext() if self._remote is None else self._remote.run():
                        self._closed = False
                        yield
                        with anyio.move_on_after(self.drain_s):
                            await self._drain()
                except Exception as error:  # noqa: BLE001 - raised again below, not wrapped in the group's own exception
                    failure = error
                self._closed = True
                self._group.cancel_scope.cancel()
        finally:
            self._closed = True
        if failure is not None:
            raise failure

    async def _drain(self) -> None:
        """Wait until all actors are idle, close their mailboxes, and wait until they have gone."""
        await self.activity.wait_idle()
        for cell in list(self._cells.values()):
            cell.close()
        while self._cells:
            self._gone = anyio.Event()
            await self._gone.wait()
