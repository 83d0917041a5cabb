"""What a system knows of another one: what it waits for from it, what it owes to it, bounds and counts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

import attrs

from actors.address import ActorRef, Address
from actors.cell import Cell
from actors.clock import Timer
from actors.errors import ActorError, BadSetting
from actors.mailbox import Reply
from actors.message import Down, WireLimits

MESSAGE_BYTES = 256
"""What a message that waits takes beside its bytes, in Python 3.11: its envelope and load, the smallest message, a
place in a queue are 232."""


@attrs.frozen
class RemoteLimits:
    """What another node may cost a system, above what its link may cost the transport.

    Attributes:
        asks_out: asks that may wait for replies of one node, beyond them `LinkFull`. A node that never replies holds
            so many tasks here, each until its deadline.
        asks_in: asks of one node that may wait for actors here, beyond them it gets `MailboxFull`. Each costs a timer
            and a place in a mailbox.
        owed: small words of the runtime that may wait for a full link. Who makes us owe more than it reads loses its
            link.
        inbox_bytes: what messages of one node may take while they wait in mailboxes here, over all of them, beyond it
            it gets `MailboxFull`. A mailbox counts messages, and a message may have `wire.message_bytes`: an actor that
            waits for its restart, or is slow, would hold gigabytes. Counted are the bytes that came, and
            `MESSAGE_BYTES` for each message; so at least one of the largest must fit. A message that is nothing but
            small containers takes up to 64 times its bytes once it is decoded: `wire.nodes` bounds these.
        wire: bounds of a message, checked before anything of that size is allocated.
    """

    asks_out: int = 1024
    asks_in: int = 1024
    owed: int = 1024
    inbox_bytes: int = 8 << 20
    wire: WireLimits = attrs.field(factory=WireLimits)

    def __attrs_post_init__(self) -> None:
        least = {"asks_out": 1, "asks_in": 1, "owed": 1, "inbox_bytes": self.wire.message_bytes + MESSAGE_BYTES}
        for name, at_least in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < at_least:
                raise BadSetting(f"{name}: expected an integer >= {at_least}, got {value!r}")


@attrs.frozen
class RemoteStatistics:
    """What a system has seen of another node, beside what the transport counts of its link.

    Attributes:
        node: the other node.
        up: whether there is a link now.
        asks_out: asks to it that wait for their replies.
        asks_in: its asks that wait for actors here.
        watches_out: actors of it that are monitored from here.
        watches_in: actors here that are monitored from it.
        inbox_bytes: what its messages that wait in mailboxes here take of `RemoteLimits.inbox_bytes`.
        num_asks_full: asks to it refused because of `RemoteLimits.asks_out`.
        num_busy: its tells and asks refused because a mailbox, `RemoteLimits.asks_in` or `RemoteLimits.inbox_bytes`
            was full.
        num_undelivered: its tells and asks for actors that are not here, or not any more.
        num_refused: its messages and values that could not be decoded.
        num_bad_frames: how often it broke the protocol and lost its link.
        num_returned: tells to it that came back undelivered.
        num_dropped: tells to it that were dead at once because there was no link.
        num_late: its replies to asks that nobody waits for any more.
        num_unsaid: replies and returns to it that were lost because its link was full.
    """

    node: str
    up: bool
    asks_out: int
    asks_in: int
    watches_out: int
    watches_in: int
    inbox_bytes: int
    num_asks_full: int
    num_busy: int
    num_undelivered: int
    num_refused: int
    num_bad_frames: int
    num_returned: int
    num_dropped: int
    num_late: int
    num_unsaid: int


class Answers(Protocol):
    """Where the outcome of an incoming ask goes."""

    def answer(self, peer: Peer, number: int, value: object) -> None:
        """Send a reply."""

    def refuse(self, peer: Peer, number: int, error: ActorError) -> None:
        """Send a failure."""


class RemoteAnswer:
    """The place of an ask from another node, until the first outcome, its deadline, or the end of the link."""

    __slots__ = ("_answers", "_number", "_peer", "timer")

    def __init__(self, answers: Answers, peer: Peer, number: int) -> None:
        self._answers = answers
        self._peer = peer
        self._number = number
        self.timer: Timer | None = None
        peer.answers[number] = self

    def resolve(self, value: object) -> None:
        """Send the answer; what cannot be encoded is the asker's error."""
        if self.close():
            self._answers.answer(self._peer, self._number, value)

    def fail(self, error: ActorError) -> None:
        """Send why there is none."""
        if self.close():
            self._answers.refuse(self._peer, self._number, error)

    def expire(self) -> None:
        """The deadline has passed: the asker knows, its own clock told it."""
        self.close()

    def close(self) -> bool:
        """Give the place free; return whether it was taken."""
        if self._peer.answers.get(self._number) is not self:
            return False
        del self._peer.answers[self._number]
        if self.timer is not None:
            self.timer.cancel()
        return True


class PeerLoad:
    """What one message of a node takes of `RemoteLimits.inbox_bytes` (see `mailbox.Load`)."""

    __slots__ = ("_held", "_peer", "size_bytes")

    def __init__(self, peer: Peer, body_bytes: int) -> None:
        self.size_bytes = body_bytes + MESSAGE_BYTES
        self._peer = peer
        self._held = False

    def take(self, limit: int) -> bool:
        """Take it, if there is room for it."""
        if self._peer.inbox_bytes + self.size_bytes > limit:
            return False
        self._peer.inbox_bytes += self.size_bytes
        self._held = True
        return True

    def let_go(self) -> None:
        """Give it back. Idempotent."""
        if self._held:
            self._held = False
            self._peer.inbox_bytes -= self.size_bytes


class RemoteWatcher:
    """Stands at a cell for the node that monitors it."""

    def __init__(self, peer: Peer, cell: Cell, number: int, say: Callable[[int, str, str], None]) -> None:
        self.watched: set[Cell] = set()  # part of every watcher; who unwatches here is the link, not a cell
        self.number = number
        self._cell = cell
        self._peer = peer
        self._say = say
        # One key a node: a second watch of it takes the place of the first.
        self._key = ActorRef(Address(peer.node, "actors"), cell.ref._router)  # noqa: SLF001 - never told anything
        cell.watchers[self._key] = self
        peer.watchers[cell.ref.address.path] = self

    def control(self, message: Down) -> None:
        """The actor is gone. What it failed at may hold its data, so only the class of the error crosses to a node."""
        path = self._cell.ref.address.path
        if self._peer.watchers.get(path) is self:
            del self._peer.watchers[path]
            error = self._cell.error
            self._say(self.number, path, message.reason if error is None else f"failed: {type(error).__name__}")

    def close(self) -> None:
        """The other node does not want to know any more."""
        self._cell.watchers.pop(self._key, None)
        self._peer.watchers.pop(self._cell.ref.address.path, None)


@attrs.define(eq=False)
class Watch:
    """An actor of another node that cells here monitor."""

    ref: ActorRef
    number: int
    cells: dict[Cell, None] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Peer:
    """The state towards one node.

    Attributes:
        node: its name.
        up: whether there is a link.
        asks: where those wait who asked it, by number.
        held: asks that wait for the link, by number, each a function that sends it.
        answers: its asks that wait for actors here, by its number.
        watches: its actors that are monitored from here, by path.
        watchers: what stands for it at actors here, by path.
        owed: words of the runtime that found the link full: kind, header, blob.
        owing: whether a timer is set to try again.
        inbox_bytes: what its messages that wait in mailboxes here take.
        counts: by the names of `RemoteStatistics`, without `num_`.
    """

    node: str
    up: bool = False
    asks: dict[int, Reply] = attrs.field(factory=dict)
    held: dict[int, Callable[[], None]] = attrs.field(factory=dict)
    answers: dict[int, RemoteAnswer] = attrs.field(factory=dict)
    watches: dict[str, Watch] = attrs.field(factory=dict)
    watchers: dict[str, RemoteWatcher] = attrs.field(factory=dict)
    owed: deque[tuple[int, bytes, bytes]] = attrs.field(factory=deque)
    owing: bool = False
    inbox_bytes: int = 0
    counts: Counter[str] = attrs.field(factory=Counter)

    def statistics(self) -> RemoteStatistics:
        """Return the counts so far."""
        return RemoteStatistics(
            node=self.node,
            up=self.up,
            asks_out=len(self.asks),
            asks_in=len(self.answers),
            watches_out=len(self.watches),
            watches_in=len(self.watchers),
            inbox_bytes=self.inbox_bytes,
            num_asks_full=self.counts["asks_full"],
            num_busy=self.counts["busy"],
            num_undelivered=self.counts["undelivered"],
            num_refused=self.counts["refused"],
            num_bad_frames=self.counts["bad_frames"],
            num_returned=self.counts["returned"],
            num_dropped=self.counts["dropped"],
            num_late=self.counts["late"],
            num_unsaid=self.counts["unsaid"],
        )
