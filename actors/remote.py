"""A system's side of its links: messages to and from actors of other nodes.

| here | said | at the other node | comes back |
|---|---|---|---|
| `tell`, `send` | tell | offered to the mailbox | returned, when it could not be: a dead letter here |
| `ask` | ask | offered, with a deadline of the seconds left | reply, or failure |
| `monitor` | watch, unwatch | a watcher at the actor | down, when it is gone or nobody lives there |

| event | asks to the node | its asks | monitored there | monitored from there |
|---|---|---|---|---|
| no link yet | wait, within their deadlines | | `Down`, `link lost: ...`, at once | |
| link up | those that wait are sent | | | |
| link lost | fail with `ActorStopped` | forgotten | `Down`, `link lost: ...` | forgotten |

Everything but a reliable tell is best effort, which loses nothing while a link lasts and ends with it. So who waits is
told at once when a link is lost, and the question was handled before that or never will be: the reliable channel could
bring it long after its deadline. A process that starts again has lost its links before: its new life never answers for
the old one.

Trusted is the name of the node at the other end, which the transport has proven; that node may say anything in the name
of its own actors. A frame that no honest system sends raises `BadFrame`, which ends the link. A message that cannot be
decoded is refused, counted and returned: another version may know other classes. What a peer says never raises into
the transport otherwise, and never becomes a message of the runtime (`actors.*`), though a message may hold one as data.
Not defended against: a listed node that claims undelivered what was delivered, or floods actors that have room.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, cast

import anyio
import anyio.lowlevel

from actors import remote_wire as wire
from actors.address import ActorRef, Address
from actors.cell import Cell
from actors.clock import Timers, check_seconds
from actors.errors import (
    ActorError,
    ActorStopped,
    AskTimeout,
    BadFrame,
    BadMessage,
    LinkFull,
    MailboxFull,
    TransportClosed,
    UnknownActor,
    UnknownPeer,
)
from actors.mailbox import Envelope, Reply
from actors.message import Down, decode, encode, is_local, is_reliable, message_name
from actors.remote_peer import Peer, PeerLoad, RemoteAnswer, RemoteLimits, RemoteStatistics, RemoteWatcher, Watch
from actors.trace import Returned
from actors.transport import OnLink, Transport

log = logging.getLogger("actors")

_RETRY_S = 0.02  # a transport does not say when there is room: look again after about a chunk's time on a slow line
_ROUTES_MAX = 1024  # routes that were parsed and are remembered; all are forgotten when there are more


class Home(Protocol):
    """What links need of their system."""

    name: str
    timers: Timers
    rng: Callable[[], float]

    def ref(self, address: str | Address) -> ActorRef:
        """Return the reference of an address."""

    def find(self, path: str) -> Cell | None:
        """Return the actor of that name, if it lives."""

    def bury(self, envelope: Envelope, to: ActorRef, reason: str) -> None:
        """Record a dead letter."""


class Remote:
    """The router of all references to other nodes, and the receiver of what they send.

    Args:
        home: the system.
        transport: carries bytes; attached here.
        on_link: told of links, after the system has drawn its conclusions.
        limits: what another node may cost.
    """

    def __init__(self, home: Home, transport: Transport, on_link: OnLink, limits: RemoteLimits) -> None:
        self._home = home
        self._transport = transport
        self._on_link = on_link
        self._limits = limits
        self._peers: dict[str, Peer] = {}
        self._watching: dict[Cell, set[ActorRef]] = {}
        # Not from 1: a reply that waited for the last life of this process must not answer a question of this one.
        self._numbers = itertools.count(int(home.rng() * 2**53) << 10)
        self._routes: dict[tuple[str, bytes], tuple[ActorRef, ActorRef | None]] = {}
        self._running = False
        self._receivers: dict[int, Callable[[Peer, bytes, bytes | memoryview], None]] = {
            wire.TELL: self._take_tell,
            wire.ASK: self._take_ask,
            wire.REPLY: self._take_reply,
            wire.FAILURE: self._take_failure,
            wire.RETURNED: self._take_returned,
            wire.WATCH: self._take_watch,
            wire.UNWATCH: self._take_unwatch,
            wire.DOWN: self._take_down,
        }
        transport.attach(self.deliver, self.link)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the transport."""
        async with self._transport:
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def statistics(self) -> dict[str, RemoteStatistics]:
        """Return what was seen of every node that there has been a link to."""
        return {node: peer.statistics() for node, peer in sorted(self._peers.items())}

    # What actors here say.

    def route_tell(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Send now (the seam behind `ActorRef.tell`)."""
        body, node = self._encode(message), to.address.node
        self._transport.send(node, wire.TELL, self._route(to, sender), body, reliable=is_reliable(type(message)))
        peer = self._peers.get(node)
        if (peer is None or not peer.up) and not is_reliable(type(message)):
            peer = self._known(node)
            peer.counts["dropped"] += 1
            self._home.bury(Envelope(message, sender, None, None), to, f"no link to {node}: {self._why(node)}")

    async def route_send(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Send when the link has room (the seam behind `ActorRef.send`); room in the mailbox is not waited for."""
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self.route_tell(to, message, sender)
            except LinkFull:
                await anyio.sleep(_RETRY_S)

    async def route_ask(self, to: ActorRef, message: object, deadline: float, sender: ActorRef | None) -> object:
        """Send and wait for the reply (the seam behind `ActorRef.ask`)."""
        timers, route, body = self._home.timers, self._route(to, sender), self._encode(message)
        due_at = timers.now() + check_seconds("deadline", deadline)
        peer = self._known(to.address.node)
        if len(peer.asks) >= self._limits.asks_out:
            peer.counts["asks_full"] += 1
            raise LinkFull(f"{peer.node}: {self._limits.asks_out} asks wait for it")
        number, reply = next(self._numbers), Reply()

        def ask() -> None:
            header = wire.pack_ask(number, due_at - timers.now(), route)
            self._transport.send(peer.node, wire.ASK, header, body)

        peer.asks[number] = reply
        timer = timers.at(due_at, reply.expire)
        try:
            if peer.up:
                ask()
            else:
                peer.held[number] = ask
            return await reply.result()
        finally:
            timer.cancel()
            reply.abandon()
            del peer.asks[number]
            peer.held.pop(number, None)

    def monitor(self, watcher: Cell, ref: ActorRef) -> None:
        """Let the watcher get one `Down` when the actor or the link is gone, now when there is no link."""
        address = ref.address
        peer = self._peers.get(address.node)
        if peer is None or not peer.up:
            watcher.control(Down(ref, f"link lost: {self._why(address.node)}"))
            return
        watch = peer.watches.get(address.path)
        if watch is None:
            watch = peer.watches[address.path] = Watch(ref, next(self._numbers))
            self._owe(peer, wire.WATCH, wire.pack_number(watch.number, address.path))
        watch.cells[watcher] = None
        self._watching.setdefault(watcher, set()).add(ref)

    def forget(self, watcher: Cell) -> None:
        """A cell that may have monitored is gone."""
        for ref in self._watching.pop(watcher, ()):
            peer = self._peers[ref.address.node]
            watch = peer.watches[ref.address.path]
            del watch.cells[watcher]
            if not watch.cells:
                del peer.watches[ref.address.path]
                self._owe(peer, wire.UNWATCH, wire.pack_number(watch.number, ref.address.path))

    # What the transport says.

    def link(self, node: str, up: bool, reason: str) -> None:
        """Take note of a link (the transport's `OnLink`)."""
        peer = self._peer(node)
        peer.up = up
        if up:
            self._send_held(peer)
        else:
            self._lose(peer, f"link lost: {reason}")
        try:
            self._on_link(node, up, reason)
        except Exception:  # whoever looks on must not end the links
            log.exception("on_link failed")

    def deliver(self, node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        """Take what a peer says (the transport's `Deliver`)."""
        peer = self._peer(node)
        try:
            receiver = self._receivers.get(kind)
            if receiver is None:
                raise BadFrame(f"kind {kind} has no meaning")  # noqa: TRY301 - all refusals are counted in one place
            receiver(peer, header, blob)
        except BadFrame:
            peer.counts["bad_frames"] += 1
            raise

    def _take_tell(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        to, sender = self._routed(peer, header)
        try:
            message = self._decode(blob)
        except BadMessage as error:
            peer.counts["refused"] += 1
            self._return(peer, header, "", f"refused: {error}")
            return
        trouble = self._put(peer, to, Envelope(message, sender, None, None, PeerLoad(peer, len(blob))))
        if trouble is not None:
            busy = "busy: " if isinstance(trouble, MailboxFull) else ""
            self._return(peer, header, message_name(type(message)) or "", f"{busy}{trouble}")

    def _take_ask(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        number, seconds, route = wire.unpack_ask(header)
        to, sender = self._routed(peer, route)
        if number in peer.answers:
            raise BadFrame(f"ask {number} comes again")
        if len(peer.answers) >= self._limits.asks_in:
            peer.counts["busy"] += 1
            self.refuse(peer, number, MailboxFull(f"{self._limits.asks_in} asks of {peer.node} wait already"))
            return
        try:
            message = self._decode(blob)
        except BadMessage as error:
            peer.counts["refused"] += 1
            self.refuse(peer, number, BadMessage(str(error)))
            return
        if seconds <= 0:
            self.refuse(peer, number, AskTimeout("it came after its deadline"))
            return
        due_at = self._home.timers.now() + seconds
        answer = RemoteAnswer(self, peer, number)
        answer.timer = self._home.timers.at(due_at, answer.expire)
        trouble = self._put(peer, to, Envelope(message, sender, due_at, answer, PeerLoad(peer, len(blob))))
        if trouble is not None:
            answer.fail(trouble)

    def _take_reply(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        reply = peer.asks.get(wire.unpack_number(header))
        if reply is None:
            peer.counts["late"] += 1
            return
        try:
            reply.resolve(decode(blob, self._resolve, self._limits.wire))
        except BadMessage as error:
            peer.counts["refused"] += 1
            reply.fail(error)

    def _take_failure(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        number, error = wire.unpack_failure(header, blob)
        reply = peer.asks.get(number)
        if reply is None:
            peer.counts["late"] += 1
        else:
            reply.fail(error)

    def _take_returned(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        to, sender = wire.unpack_route(header, peer.node, self._home.name)
        name, reason = wire.unpack_returned(blob)
        peer.counts["returned"] += 1
        origin = None if sender is None else self._home.ref(sender)
        self._home.bury(Envelope(Returned(name), origin, None, None), ActorRef(to, self), reason)

    def _take_watch(self, peer: Peer, header: bytes, _blob: bytes | memoryview) -> None:
        number, address = wire.unpack_watch(header, self._home.name)
        cell = self._home.find(address.path)
        if cell is not None:
            RemoteWatcher(peer, cell, number, lambda *news: self._say_down(peer, *news))
        elif len(peer.owed) >= self._limits.owed:
            raise BadFrame("watches more than it reads about")
        else:
            self._say_down(peer, number, address.path, "unknown")

    def _take_unwatch(self, peer: Peer, header: bytes, _blob: bytes | memoryview) -> None:
        number, address = wire.unpack_watch(header, self._home.name)
        watcher = peer.watchers.get(address.path)
        if watcher is not None and watcher.number == number:
            watcher.close()

    def _take_down(self, peer: Peer, header: bytes, blob: bytes | memoryview) -> None:
        number, address = wire.unpack_watch(header, peer.node)
        reason = wire.unpack_text(blob)
        watch = peer.watches.get(address.path)
        if watch is not None and watch.number == number:  # else it is of a watch that a lost link has ended
            del peer.watches[address.path]
            self._tell_down(watch, reason)

    # What goes back.

    def answer(self, peer: Peer, number: int, value: object) -> None:
        """Send a reply; what cannot be sent is the asker's error, not the actor's."""
        try:
            body = encode(value, self._limits.wire)
            self._transport.send(peer.node, wire.REPLY, wire.pack_number(number), body)
        except (LinkFull, TransportClosed):
            peer.counts["unsaid"] += 1
        except ActorError as error:
            self.refuse(peer, number, BadMessage(f"the reply cannot travel: {error}"))

    def refuse(self, peer: Peer, number: int, error: ActorError) -> None:
        """Send a failure."""
        try:
            self._transport.send(peer.node, wire.FAILURE, *wire.pack_failure(number, error))
        except (LinkFull, TransportClosed):
            peer.counts["unsaid"] += 1

    def _return(self, peer: Peer, route: bytes, name: str, reason: str) -> None:
        try:
            self._transport.send(peer.node, wire.RETURNED, route, wire.pack_returned(name, reason))
        except (LinkFull, TransportClosed):
            peer.counts["unsaid"] += 1

    def _say_down(self, peer: Peer, number: int, path: str, reason: str) -> None:
        self._owe(peer, wire.DOWN, wire.pack_number(number, path), wire.pack_text(reason))

    def _owe(self, peer: Peer, kind: int, header: bytes, blob: bytes = b"") -> None:
        """Say something that must be said while the link lasts, as soon as it has room."""
        peer.owed.append((kind, header, blob))
        if not peer.owing:
            self._pay(peer)

    def _pay(self, peer: Peer) -> None:
        peer.owing = False
        try:
            while peer.owed:
                self._transport.send(peer.node, *peer.owed[0])
                peer.owed.popleft()
        except LinkFull:
            peer.owing = True
            self._home.timers.at(self._home.timers.now() + _RETRY_S, lambda: self._pay(peer))
        except TransportClosed:
            peer.owed.clear()

    def _put(self, peer: Peer, to: ActorRef, envelope: Envelope) -> ActorError | None:
        """Deliver to an actor here; return why that failed."""
        cell = self._home.find(to.address.path)
        if cell is None:
            trouble: ActorError | None = UnknownActor(f"nobody lives at {to.address}")
        elif cell.inbox.closed:
            trouble = ActorStopped(f"{to.address} is stopping")
        else:
            trouble = self._offer(peer, cell, envelope)
        if isinstance(trouble, MailboxFull):
            peer.counts["busy"] += 1
        elif trouble is not None:
            peer.counts["undelivered"] += 1
            self._home.bury(envelope, to, str(trouble))
        return trouble

    def _offer(self, peer: Peer, cell: Cell, envelope: Envelope) -> ActorError | None:
        """Put a message in a mailbox, within what the peer's messages may take of all of them."""
        load = cast("PeerLoad", envelope.load)
        if not load.take(self._limits.inbox_bytes):
            return MailboxFull(f"{peer.inbox_bytes} bytes of {peer.node} wait already")
        cell.inbox.loaded = True
        try:
            cell.inbox.offer(envelope)
        except MailboxFull as error:
            load.let_go()
            return error
        except Exception as error:  # a mailbox's own `key` raised: it must not end the transport
            load.let_go()
            log.exception("%s cannot take a message", cell.ref.address)
            return ActorError(f"the mailbox failed: {type(error).__name__}")
        return None

    # Small steps.

    def _encode(self, message: object) -> bytes:
        name = message_name(type(message))
        if name is None or is_local(type(message)):
            raise BadMessage(
                f"{message!r:.80} is no message that leaves its node, decorate its class with @message(name)"
            )
        return encode(message, self._limits.wire)

    def _decode(self, blob: bytes | memoryview) -> object:
        """Return a message.

        Raises:
            BadMessage: it is none that we know, or is malformed.
            BadFrame: no honest system sends it: a bare value, or what only a runtime says to its own actors.
        """
        message = decode(blob, self._resolve, self._limits.wire)
        name = message_name(type(message))
        if name is None or is_local(type(message)):
            raise BadFrame(f"{name or type(message).__name__} cannot be told")
        return message

    def _resolve(self, address: str) -> ActorRef:
        return self._home.ref(Address.parse(address))

    def _route(self, to: ActorRef, sender: ActorRef | None) -> bytes:
        if sender is None:
            return wire.pack_route(to.address.path, "")
        if sender.address.node != self._home.name:
            raise BadMessage(f"sender: expected an actor of {self._home.name}, got {sender.address}")
        return wire.pack_route(to.address.path, sender.address.path)

    def _routed(self, peer: Peer, route: bytes) -> tuple[ActorRef, ActorRef | None]:
        found = self._routes.get((peer.node, route))
        if found is None:
            to, sender = wire.unpack_route(route, self._home.name, peer.node)
            found = self._home.ref(to), None if sender is None else ActorRef(sender, self)
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            self._routes[peer.node, route] = found
        return found

    def _peer(self, node: str) -> Peer:
        """Return the state towards a node of which the transport has spoken, so that only such nodes have one."""
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer(node)
        return peer

    def _known(self, node: str) -> Peer:
        peer = self._peers.get(node)
        if peer is not None and peer.up:
            return peer
        if not self._running:
            raise TransportClosed(f"{self._home.name} is not running")
        if node not in self._transport.statistics().links:
            raise UnknownPeer(f"{self._home.name} knows no {node!r}")
        return self._peer(node)

    def _why(self, node: str) -> str:
        link = self._transport.statistics().links.get(node)
        return "the node is not known" if link is None else link.last_reason

    def _send_held(self, peer: Peer) -> None:
        held = [(peer.asks[number], ask) for number, ask in peer.held.items()]
        peer.held.clear()
        for reply, ask in held:
            try:
                ask()
            except ActorError as error:
                reply.fail(error)

    def _lose(self, peer: Peer, reason: str) -> None:
        peer.owed.clear()
        for reply in list(peer.asks.values()):
            reply.fail(ActorStopped(f"{peer.node}: {reason}"))
        for answer in list(peer.answers.values()):
            answer.close()
        for watcher in list(peer.watchers.values()):
            watcher.close()
        watches = list(peer.watches.values())
        peer.watches.clear()
        for watch in watches:
            self._tell_down(watch, reason)

    def _tell_down(self, watch: Watch, reason: str) -> None:
        for cell in watch.cells:
            self._watching[cell].discard(watch.ref)
            cell.control(Down(watch.ref, reason))
