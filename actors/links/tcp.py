"""Links over TCP: listen, dial with backoff, one reader and one coalescing writer per link. The thin shell.

What a link means is decided in `session` and `link`; here bytes move. What is between TCP and a frame is a `Security`.

| task | one per | does |
|---|---|---|
| listener | transport | takes a place at the gate, shakes hands, adopts the link |
| dialer | peer with an address | while there is no link: connect, Hello, Welcome; else waits until it ends |
| reader, writer | link | `receive` and deliver; `take` and send |
| ticker | transport | looks at the clock four times a second |
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import attrs
from anyio.streams.stapled import MultiListener

from actors.errors import BadFrame, BadSetting, TransportClosed, UnknownPeer
from actors.links.greeting import BROKEN, read_hello, say_no
from actors.links.link import PeerLink
from actors.links.security import Security
from actors.links.session import (
    CHUNK_BYTES,
    FIRST_BYTES,
    HELLO,
    INCARNATION_BYTES,
    WELCOME,
    Gate,
    Hello,
    LinkRefused,
    Refusal,
    judge,
    keep_old,
)
from actors.links.settings import TcpConfig, check_peers
from actors.links.tls import tls_refusal
from actors.transport import Deliver, OnLink, TransportStatistics, ignore_link

log = logging.getLogger("actors")

_TICK_S = 0.25  # far below the shortest limit, far above its cost


@attrs.define(eq=False)
class _Port:
    """A peer and what runs for it now."""

    link: PeerLink
    incarnation: bytes  # of this node, as that peer is told
    address: tuple[str, int] | None = None
    scope: anyio.CancelScope | None = None  # of the link that is up, `None` when there is none
    parked: anyio.Event | None = None  # where the writer waits for work
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    dialed: bool = False  # whether this side dialed the link that is up
    greeting: bool = False  # whether a Hello of ours waits for its Welcome
    dialer: anyio.CancelScope | None = None

    def wake(self) -> None:
        if self.parked is not None and self.link.has_work():
            self.parked.set()
            self.parked = None


class TcpTransport:
    """A `Transport` over TCP. An async context manager, used once.

    Args:
        config: who this node is and whom it knows.
        security: `Plaintext()` or a `MutualTls`.
        now: the clock in seconds.
        rng: jitter of the backoff.
        entropy: random bytes, for the incarnation and where numbers start.

    Raises:
        BadSetting: plain TCP was asked to leave the machine, or the key is not the one that `security` proves.
    """

    def __init__(
        self,
        config: TcpConfig,
        security: Security,
        *,
        now: Callable[[], float] = anyio.current_time,
        rng: random.Random | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._config = config
        self._security = security
        self._check_host(config.host)
        if security.key not in (None, config.key):
            raise BadSetting(
                f"key: the certificate of {config.node} is for another key than the one that is configured"
            )
        self._now = now
        self._rng = rng or random.Random(int.from_bytes(entropy(8)))  # noqa: S311 - jitter is no secret
        self._entropy = entropy
        self._incarnation = entropy(INCARNATION_BYTES)
        self._peers: Mapping[str, bytes] = {}
        self._ports: dict[str, _Port] = {}  # who was ever listed: counts stay when a node is taken off
        self._gate = Gate(config.limits)
        self._reasons: Counter[Refusal] = Counter()
        self._deliver: Deliver | None = None
        self._on_link: OnLink = ignore_link
        self._group: anyio.abc.TaskGroup | None = None
        self._intake: anyio.abc.TaskGroup | None = None
        self._bound_port = 0
        self.set_peers(config.peers)
        self._run = self._live()

    @property
    def node(self) -> str:
        """This node's name."""
        return self._config.node

    @property
    def port(self) -> int:
        """Where it listens, once it runs."""
        return self._bound_port

    def attach(self, deliver: Deliver, on_link: OnLink) -> None:
        """Say who is told of messages and links."""
        self._deliver, self._on_link = deliver, on_link

    async def __aenter__(self) -> Self:
        """Begin to listen and to dial."""
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Send what waits within `drain_s`, and end all links."""
        return await self._run.__aexit__(kind, error, trace)

    def dial(self, node: str, host: str, port: int) -> None:
        """Keep a link to a peer from now on, by this address; before or in the block, and again when it moves.

        Raises:
            UnknownPeer: it is not listed.
            BadSetting: plain TCP was asked to leave the machine.
        """
        self._check_host(host)
        peer = self._find(node)
        known, peer.address = peer.address, (host, port)
        if known is None and self._intake is not None:
            self._start_dialing(peer, self._intake)

    def set_peers(self, peers: Mapping[str, bytes]) -> None:
        """Replace the list of keys, before or in the block: this is how a node is revoked, added, or given a new key.

        A node that is not on it any more, or with another key, loses its link at once, and what waits for it is dropped
        and counted. One that is not on it is not dialed any more either; one that is new is unreachable until it dials,
        or `dial` says where it is. The others see nothing of it.

        Raises:
            BadSetting: an entry is malformed, or this node's own key is another one there, which makes all peers refuse
                it: then nothing has changed.
        """
        check_peers(self.node, self._config.key, peers)
        before, self._peers = self._peers, dict(peers)
        for node in sorted(peers.keys() - self._ports.keys() - {self.node}):
            link = PeerLink(node, self._config.limits, self._config.reliable)
            self._ports[node] = _Port(link, self._incarnation)
        for node, key in before.items():
            if node != self.node and peers.get(node) != key:
                self._revoke(self._ports[node], Refusal.WRONG_KEY if node in peers else Refusal.UNKNOWN_NODE)

    def _revoke(self, port: _Port, reason: Refusal) -> None:
        self._end(port, port.scope, reason)
        port.link.forget(reason.value)
        # Whoever comes next starts anew here. This tells it, should it be the same process, to start anew there too.
        port.incarnation = self._entropy(INCARNATION_BYTES)
        if reason is Refusal.UNKNOWN_NODE:
            port.address = None
            if port.dialer is not None:
                port.dialer.cancel()
                port.dialer = None

    def send(
        self, to_node: str, kind: int, header: bytes, blob: bytes | memoryview = b"", *, reliable: bool = False
    ) -> None:
        """Take a message and return at once; see `Transport.send`."""
        if self._intake is None:
            raise TransportClosed(f"{self.node} is not running")
        port = self._find(to_node)
        port.link.send(kind, header, blob, reliable=reliable)
        if port.parked is not None:
            port.wake()

    def disconnect(self, node: str) -> None:
        """End the link to a peer, if there is one; a dialer, here or there, dials again.

        Raises:
            UnknownPeer: it is not listed.
        """
        port = self._find(node)
        self._end(port, port.scope, Refusal.STOPPED)

    def statistics(self) -> TransportStatistics:
        """Return the counts so far."""
        return TransportStatistics(
            links={node: port.link.statistics() for node, port in self._ports.items()},
            reasons={reason.value: count for reason, count in sorted(self._reasons.items(), key=lambda x: x[0].value)},
            num_half_open=self._gate.num_open,
        )

    def _find(self, node: str) -> _Port:
        port = self._ports.get(node)
        if port is None or node not in self._peers:
            raise UnknownPeer(f"{self.node} knows no {node!r}")
        return port

    def _check_host(self, host: str) -> None:
        if self._security.loopback_only:
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(host).is_loopback:
                    return
            raise BadSetting(f"host: plain TCP stays on loopback addresses, got {host!r}; use MutualTls")

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        if self._deliver is None:
            raise BadSetting("attach: say who gets the messages before the transport begins")
        failure: Exception | None = None
        async with (
            await anyio.create_tcp_listener(local_host=self._config.host, local_port=self._config.port) as listener,
            anyio.create_task_group() as group,
        ):
            self._bound_port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
            self._group = group
            group.start_soon(self._tick)
            await group.start(self._take_in, listener)
            try:
                yield
                with anyio.move_on_after(self._config.limits.drain_s):
                    await self._drain()
            except Exception as error:  # noqa: BLE001 - raised again below, not wrapped in the group's own exception
                failure = error
            finally:
                self._intake = None
                for port in list(self._ports.values()):
                    self._end(port, port.scope, Refusal.STOPPED)
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _take_in(
        self, listener: MultiListener[anyio.abc.SocketStream], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        async with anyio.create_task_group() as intake:
            self._intake = intake
            for one in listener.listeners:
                intake.start_soon(self._listen, one, intake)
            for port in list(self._ports.values()):
                if port.address is not None:
                    self._start_dialing(port, intake)
            task_status.started()

    async def _listen(self, listener: anyio.abc.Listener[anyio.abc.SocketStream], intake: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                await listener.serve(self._accept, intake)
            # No descriptors left, or the connection was gone at once: the next may do better.
            except (OSError, anyio.BrokenResourceError) as error:
                log.warning("%s cannot accept: %s", self.node, error)
                await anyio.sleep(_TICK_S)

    async def _drain(self) -> None:
        assert self._intake is not None
        self._intake.cancel_scope.cancel()
        self._intake = None
        for port in list(self._ports.values()):
            if port.scope is not None:
                port.link.leave()
                port.wake()
        for port in list(self._ports.values()):
            if port.scope is not None:
                await port.ended.wait()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(_TICK_S)
            now = self._now()
            for port in list(self._ports.values()):
                if port.scope is not None:
                    port.link.tick(now)
                    if port.link.fault is not None:
                        self._end(port, port.scope, port.link.fault)
                    else:
                        port.wake()

    def _hello(self, to: str) -> Hello:
        first = int.from_bytes(self._entropy(FIRST_BYTES))
        port = self._ports.get(to)
        incarnation = self._incarnation if port is None else port.incarnation
        return Hello(self._config.federation, self.node, to, incarnation, self._config.key, first)

    async def _accept(self, stream: anyio.abc.SocketStream) -> None:
        remote = stream.extra_attributes.get(anyio.abc.SocketAttribute.remote_address)
        address = "" if remote is None else str(remote()[0])
        refusal = Refusal.VANISHED if remote is None else self._gate.enter(address)  # it may be reset before we look
        if refusal is not None:
            self._reasons[refusal] += 1
            await anyio.aclose_forcefully(stream)
            return
        adopted = False
        try:
            with anyio.move_on_after(self._config.limits.hello_s) as patience:
                adopted = await self._welcome(stream)
            if patience.cancelled_caught:
                self._reasons[Refusal.HELLO_LATE] += 1
        finally:
            self._gate.leave(address)
            if not adopted:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(stream)

    async def _welcome(self, raw: anyio.abc.SocketStream) -> bool:
        """Answer a connection; return whether it became a link."""
        stream: anyio.abc.ByteStream | None = None
        try:
            stream, proven = await self._security.secure(raw, dialing=False)
            hello, rest = await read_hello(stream, HELLO, self._config.limits)
            mine = self._hello(hello.node)
            refusal = judge(hello, mine, self._peers, proven_key=proven, expected=None)
            if refusal is None:
                refusal = self._place(hello, mine, stream, rest, dialed=False)
        except BadFrame:
            refusal = Refusal.BAD_FRAME
        except LinkRefused as error:
            refusal = error.reason
        except BROKEN as error:
            refusal, stream = tls_refusal(error) if isinstance(error, ssl.SSLError) else Refusal.VANISHED, None
        if refusal is None:
            return True
        self._reasons[refusal] += 1
        if refusal is not Refusal.VANISHED:
            await say_no(raw, stream, refusal)
        return False

    def _place(
        self, hello: Hello, mine: Hello, stream: anyio.abc.ByteStream, rest: bytes, *, dialed: bool
    ) -> Refusal | None:
        """Give a link its port, if it wins over what is there; the old one ends."""
        port = self._ports[hello.node]
        same = port.link.incarnation in (None, hello.incarnation)
        old_dialed = port.dialed if port.scope is not None else True
        exists = port.scope is not None or (port.greeting and not dialed)
        if self._intake is None or mine.incarnation != port.incarnation:
            return Refusal.STOPPED  # here, or because the list changed while they shook hands
        if exists and keep_old(self.node, hello.node, old_dialed=old_dialed, new_dialed=dialed, same_process=same):
            return Refusal.DUPLICATE
        self._end(port, port.scope, Refusal.SUPERSEDED)
        port.link.open(hello, mine, self._now(), opening=b"" if dialed else mine.encode(WELCOME))
        port.scope, port.dialed, port.ended = anyio.CancelScope(), dialed, anyio.Event()
        assert self._group is not None
        self._group.start_soon(self._serve, port, port.scope, stream, rest)
        self._on_link(port.link.node, True, "")
        return None

    def _start_dialing(self, port: _Port, intake: anyio.abc.TaskGroup) -> None:
        port.dialer = anyio.CancelScope()
        intake.start_soon(self._keep_dialing, port, port.dialer)

    async def _keep_dialing(self, port: _Port, scope: anyio.CancelScope) -> None:
        backoff, attempt = self._config.backoff, 0
        with scope:
            while port.dialer is scope:
                attempt += 1
                if port.scope is None:
                    await self._greet(port)
                if port.scope is not None:
                    since = self._now()
                    await port.ended.wait()
                    if self._now() - since > backoff.stable_s:
                        attempt = 1
                await anyio.sleep(backoff.wait_s(attempt, self._rng))

    async def _greet(self, port: _Port) -> None:
        """Dial once. Every failure is counted and kept as the link's last reason."""
        raw: anyio.abc.SocketStream | None = None
        placed = False
        refusal: Refusal | None = Refusal.HELLO_LATE
        try:
            with anyio.move_on_after(self._config.limits.hello_s):
                assert port.address is not None
                raw = await anyio.connect_tcp(*port.address)
                stream, proven = await self._security.secure(raw, dialing=True)
                refusal = await self._introduce(port, stream, proven)
                placed = refusal is None
        except BadFrame:
            refusal = Refusal.BAD_FRAME
        except LinkRefused as error:
            refusal = error.reason
        except BROKEN as error:
            refusal = tls_refusal(error) if isinstance(error, ssl.SSLError) else Refusal.VANISHED
        finally:
            port.greeting = False
            if raw is not None and not placed:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(raw)
        if refusal is not None:
            self._reasons[refusal] += 1
            if port.scope is None:
                port.link.last_reason = refusal.value

    async def _introduce(self, port: _Port, stream: anyio.abc.ByteStream, proven: bytes | None) -> Refusal | None:
        if port.scope is not None:  # it dialed us while we connected
            return Refusal.DUPLICATE
        mine = self._hello(port.link.node)
        listed = self._peers.get(port.link.node)
        if listed is None:  # the list changed while we connected
            return Refusal.UNKNOWN_NODE
        if proven not in (None, listed):
            return Refusal.WRONG_KEY  # before a word is said to it
        port.greeting = True
        await stream.send(mine.encode(HELLO))
        hello, rest = await read_hello(stream, WELCOME, self._config.limits)
        refusal = judge(hello, mine, self._peers, proven_key=proven, expected=port.link.node)
        return refusal or self._place(hello, mine, stream, rest, dialed=True)

    def _end(self, port: _Port, scope: anyio.CancelScope | None, reason: Refusal) -> None:
        """End a link, once: later calls for the same scope do nothing."""
        if scope is None or port.scope is not scope:
            return
        if self._intake is None and reason is Refusal.VANISHED:
            reason = Refusal.STOPPED  # we said goodbye, and the peer closed
        port.scope = port.parked = None
        self._reasons[reason] += 1
        port.link.close(reason.value)
        scope.cancel()
        port.ended.set()
        self._on_link(port.link.node, False, reason.value)

    async def _serve(self, port: _Port, scope: anyio.CancelScope, stream: anyio.abc.ByteStream, rest: bytes) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._write, port, scope, stream)
                    group.start_soon(self._read, port, scope, stream, rest)
        finally:
            self._end(port, scope, Refusal.STOPPED)
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)

    async def _read(self, port: _Port, scope: anyio.CancelScope, stream: anyio.abc.ByteStream, data: bytes) -> None:
        link, node, deliver, now = port.link, port.link.node, self._deliver, self._now
        assert deliver is not None
        reason = Refusal.VANISHED
        try:
            while port.scope is scope:
                if data:
                    messages, wait_s = link.receive(data, now())
                    for kind, header, blob in messages:
                        deliver(node, kind, header, blob)
                    if link.fault is not None:
                        reason = link.fault
                        break
                    if port.parked is not None:
                        port.wake()
                    if wait_s:
                        await anyio.sleep(wait_s)
                data = await stream.receive(CHUNK_BYTES)
        except BadFrame as error:
            log.warning("%s sent what cannot be decoded: %s", node, error)
            reason = Refusal.BAD_FRAME
        except BROKEN:
            pass
        self._end(port, scope, reason)

    async def _write(self, port: _Port, scope: anyio.CancelScope, stream: anyio.abc.ByteStream) -> None:
        link = port.link
        try:
            while port.scope is scope:
                if not link.has_work():
                    port.parked = parked = anyio.Event()
                    await parked.wait()
                    continue
                for piece in link.take(self._now()):
                    await stream.send(piece)  # type: ignore[arg-type]  # sockets and TLS take views, anyio says bytes
                if port.scope is scope:
                    link.sent()
        except BROKEN:
            self._end(port, scope, Refusal.VANISHED)
