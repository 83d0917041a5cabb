"""The seam between a system of actors and whatever carries its messages to other nodes.

A transport carries opaque messages: a small number that says what it is, a header, a blob. It does not decode them.
Best effort is at most once and in order per link; reliable is once only and in order as long as both processes live.
`MemoryTransport` is the verified fake: it keeps the same contract (`actors.testing.check_link`) without bytes or
sockets, for several nodes in one process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

import anyio
import attrs

from actors.errors import BadFrame, BadSetting, LinkFull, TransportClosed, UnknownPeer

KIND_MAX = 63  # two bits of the byte on the wire say what guarantee a message has
Deliver = Callable[[str, int, bytes, "bytes | memoryview"], None]
"""`(from_node, kind, header, blob)`; it must not block. Raising `BadFrame` ends the link to who sent it."""
OnLink = Callable[[str, bool, str], None]
"""`(node, up, reason)`; up and down alternate for a node."""


@attrs.frozen
class LinkStatistics:
    """What a link has seen since the transport began; frames are the application's messages, bytes are of the wire.

    Attributes:
        node: the peer.
        up: whether there is a link now.
        last_reason: why there is none, or why the last attempt failed.
        num_links: how often it came up.
        sent_frames: messages handed to the wire, those sent again included.
        sent_bytes: bytes handed to the wire.
        received_frames: messages delivered.
        received_bytes: bytes that came.
        held_bytes: what waits or is unacknowledged, with 64 bytes a message.
        held_bytes_max: the most it ever was.
        num_full: messages refused because the budget was used up.
        num_dropped: best-effort messages dropped because there was no link.
        num_given_up: reliable messages that may or may not have reached a process of the peer that is gone, or that
            waited for a key that was taken off the list.
        num_resent: reliable messages sent again.
        num_duplicates: reliable messages that came again.
        num_early: reliable messages that overtook another, and were dropped to come again.
        num_throttled: how often reading waited because the peer was too fast.
    """

    node: str
    up: bool
    last_reason: str
    num_links: int
    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    held_bytes: int
    held_bytes_max: int
    num_full: int
    num_dropped: int
    num_given_up: int = 0
    num_resent: int = 0
    num_duplicates: int = 0
    num_early: int = 0
    num_throttled: int = 0


@attrs.frozen
class TransportStatistics:
    """All links by node, how often each reason refused or ended a connection, and the connections without Hello."""

    links: Mapping[str, LinkStatistics]
    reasons: Mapping[str, int] = MappingProxyType({})
    num_half_open: int = 0


class Transport(Protocol):
    """Carries messages between nodes while its `async with` block runs."""

    @property
    def node(self) -> str:
        """This node's name."""

    def attach(self, deliver: Deliver, on_link: OnLink) -> None:
        """Say who is told of messages and links; once, before the block."""

    async def __aenter__(self) -> Self:
        """Begin to listen, and to link up with the peers."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Send what waits, for a short time, and end all links."""

    def send(
        self, to_node: str, kind: int, header: bytes, blob: bytes | memoryview = b"", *, reliable: bool = False
    ) -> None:
        """Take a message and return at once. The blob is not copied: it must not change afterwards.

        Args:
            to_node: a peer; to a known one without a link best effort is dropped and counted, reliable waits.
            kind: 0 to 63.
            header: a few hundred bytes at most, it is copied.
            blob: raw bytes.
            reliable: once only and in order within the life of both processes, instead of at most once.

        Raises:
            UnknownPeer: nobody of that name is known.
            LinkFull: the byte budget to it is used up.
            BadSetting: the kind or the size can never be sent.
            TransportClosed: the block has not begun, or has ended.
        """

    def statistics(self) -> TransportStatistics:
        """Return the counts so far."""


def ignore_link(node: str, up: bool, reason: str) -> None:
    """Do nothing; an `OnLink` for who does not care."""


def flat(blob: bytes | memoryview) -> bytes | memoryview:
    """Return a blob whose length is in bytes; what is shown stays where it is.

    Raises:
        BadSetting: it is no contiguous buffer.
    """
    if isinstance(blob, bytes):
        return blob
    try:
        return memoryview(blob).cast("B")
    except (TypeError, ValueError) as error:
        raise BadSetting(f"blob: expected bytes or a contiguous memoryview: {error}") from None


class MemoryHub:
    """The network of `MemoryTransport`s: who may be there, and which pairs are cut.

    Args:
        nodes: all names; a node that is not running is a known peer without a link.
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = frozenset(nodes)
        self.running: dict[str, MemoryTransport] = {}
        self._cut: set[frozenset[str]] = set()

    def linked(self, one: str, other: str) -> bool:
        """Return whether both run and are not cut off from each other."""
        return one in self.running and other in self.running and frozenset((one, other)) not in self._cut

    def cut(self, one: str, other: str, reason: str = "cut") -> None:
        """Take the link of a pair down, until `heal`."""
        was = self.linked(one, other)
        self._cut.add(frozenset((one, other)))
        if was:
            self.running[one].link_down(other, reason)
            self.running[other].link_down(one, reason)

    def heal(self, one: str, other: str) -> None:
        """Let the pair link again."""
        was = self.linked(one, other)
        self._cut.discard(frozenset((one, other)))
        if not was and self.linked(one, other):
            self.running[one].link_up(other)
            self.running[other].link_up(one)


@attrs.define(eq=False)
class _Lane:
    """What one node has for another, and counts about it."""

    queue: deque[tuple[int, bytes, bytes | memoryview, bool]] = attrs.field(factory=deque)
    held: int = 0
    held_max: int = 0
    last_reason: str = "never up"
    num_links: int = 0
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    num_full: int = 0
    num_dropped: int = 0


class MemoryTransport:
    """Carries messages between the nodes of a `MemoryHub`, by reference.

    Args:
        node: this node, one of the hub's.
        hub: the network.
        budget_bytes: what may wait for one peer.
        message_bytes_max: bound of one message.
    """

    def __init__(
        self,
        node: str,
        hub: MemoryHub,
        *,
        budget_bytes: int = 8 * 1024 * 1024,
        message_bytes_max: int = 4 * 1024 * 1024,
    ) -> None:
        if node not in hub.nodes:
            raise BadSetting(f"node: expected one of {sorted(hub.nodes)}, got {node!r}")
        self._node = node
        self._hub = hub
        self._budget_bytes = budget_bytes
        self._message_bytes_max = message_bytes_max
        self._lanes = {peer: _Lane() for peer in sorted(hub.nodes - {node})}
        self._deliver: Deliver | None = None
        self._on_link: OnLink = ignore_link
        self._work = anyio.Event()
        self._run = self._live()

    @property
    def node(self) -> str:
        """This node's name."""
        return self._node

    def attach(self, deliver: Deliver, on_link: OnLink) -> None:
        """Say who is told of messages and links."""
        self._deliver, self._on_link = deliver, on_link

    async def __aenter__(self) -> Self:
        """Link up with the nodes that run."""
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Deliver what waits and end all links."""
        return await self._run.__aexit__(kind, error, trace)

    def send(
        self, to_node: str, kind: int, header: bytes, blob: bytes | memoryview = b"", *, reliable: bool = False
    ) -> None:
        """Take a message and return at once; see `Transport.send`."""
        if self._hub.running.get(self._node) is not self:
            raise TransportClosed(f"{self._node} is not running")
        lane = self._lanes.get(to_node)
        if lane is None:
            raise UnknownPeer(f"{self._node} knows no {to_node!r}")
        blob = flat(blob)
        size = len(header) + len(blob)
        if not 0 <= kind <= KIND_MAX or size > self._message_bytes_max:
            raise BadSetting(
                f"message: expected a kind in 0 .. {KIND_MAX} and at most {self._message_bytes_max} bytes, "
                f"got kind {kind!r} and {size} bytes"
            )
        if lane.held + size + 64 > self._budget_bytes:
            lane.num_full += 1
            raise LinkFull(f"{to_node}: {lane.held} of {self._budget_bytes} bytes wait for it")
        if not reliable and not self._hub.linked(self._node, to_node):
            lane.num_dropped += 1
            return
        lane.held += size + 64
        lane.held_max = max(lane.held_max, lane.held)
        lane.queue.append((kind, header, blob, reliable))
        self._work.set()

    def statistics(self) -> TransportStatistics:
        """Return the counts so far."""
        return TransportStatistics(
            {
                node: LinkStatistics(
                    node=node,
                    up=self._hub.linked(self._node, node),
                    last_reason=lane.last_reason,
                    num_links=lane.num_links,
                    sent_frames=lane.sent,
                    sent_bytes=lane.sent_bytes,
                    received_frames=lane.received,
                    received_bytes=lane.received_bytes,
                    held_bytes=lane.held,
                    held_bytes_max=lane.held_max,
                    num_full=lane.num_full,
                    num_dropped=lane.num_dropped,
                )
                for node, lane in self._lanes.items()
            }
        )

    def link_up(self, node: str) -> None:
        """The hub says that there is a link."""
        lane = self._lanes[node]
        lane.num_links += 1
        lane.last_reason = ""
        self._work.set()
        self._on_link(node, True, "")

    def link_down(self, node: str, reason: str) -> None:
        """The hub says that there is none any more."""
        lane = self._lanes[node]
        lane.last_reason = reason
        kept = deque(entry for entry in lane.queue if entry[3])
        lane.num_dropped += len(lane.queue) - len(kept)
        lane.queue = kept
        lane.held = sum(64 + len(entry[1]) + len(entry[2]) for entry in kept)
        self._on_link(node, False, reason)

    def take(self, node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        """Get a message from another node."""
        lane = self._lanes[node]
        lane.received += 1
        lane.received_bytes += len(header) + len(blob)
        assert self._deliver is not None
        self._deliver(node, kind, header, memoryview(blob).toreadonly() if isinstance(blob, memoryview) else blob)

    def _flush(self) -> None:
        for node, lane in self._lanes.items():
            while lane.queue and self._hub.linked(self._node, node):
                kind, header, blob, _ = lane.queue.popleft()
                lane.held -= 64 + len(header) + len(blob)
                lane.sent += 1
                lane.sent_bytes += len(header) + len(blob)
                try:
                    self._hub.running[node].take(self._node, kind, header, blob)
                except BadFrame:  # the link ends, and comes back as if one of the two dialed
                    self._hub.cut(self._node, node, "bad frame")
                    self._hub.heal(self._node, node)

    async def _pump(self) -> None:
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            self._flush()

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        if self._deliver is None:
            raise BadSetting("attach: say who gets the messages before the transport begins")
        hub, me = self._hub, self._node
        if me in hub.running:
            raise BadSetting(f"node: {me} runs already")
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            hub.running[me] = self
            group.start_soon(self._pump)
            for peer in self._lanes:
                if hub.linked(me, peer):
                    self.link_up(peer)
                    hub.running[peer].link_up(me)
            try:
                yield
                self._flush()
            except Exception as error:  # noqa: BLE001 - raised again below, not wrapped in the group's own exception
                failure = error
            finally:
                linked = [peer for peer in self._lanes if hub.linked(me, peer)]
                del hub.running[me]
                for peer in linked:
                    self.link_down(peer, "stopped here")
                    hub.running[peer].link_down(me, "peer closed")
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
