"""A bounded mailbox: a deque and one parked receiver.

A memory object stream takes a full checkpoint per message; here the receiver drains up to `BATCH` messages per
checkpoint, which is several times faster. Every mailbox has a bound and a named policy for when it is reached:

| policy | when full, `tell` and `ask` | when full, `send` |
|---|---|---|
| `reject` | raise `MailboxFull` | waits |
| `block` | `tell` raises, `ask` waits within its deadline | waits |
| `drop_oldest` | the oldest message makes room | the same |
| `drop_newest` | the new message is dropped | the same |
| `conflate` | a message always replaces the one of equal key; a new key when full raises `MailboxFull` | the same |

Places that become free go to those who wait, in their order; while somebody waits nobody can overtake, so the order
between one sender and one receiver is kept. What the runtime itself says (`Down`) has a lane of its own, drained first;
it is bounded by the number of references that the actor monitors and of actors that it has spawned. A mailbox outlives
a restart of its actor: what waits in it waits for the new instance.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple, Protocol, get_args

import anyio
import attrs

from actors.address import ActorRef
from actors.errors import ActorError, ActorStopped, AskTimeout, BadSetting, MailboxFull

BATCH = 64  # messages per checkpoint: enough to hide its price, few enough that neighbours wait under a millisecond
Overflow = Literal["reject", "drop_oldest", "drop_newest", "conflate", "block"]
Key = Callable[[object, ActorRef | None], Hashable]


@attrs.frozen
class Mailbox:
    """The bound of an actor's mailbox, and what happens there.

    Attributes:
        capacity: messages that may wait, >= 1. More absorbs longer bursts and costs memory and staleness.
        overflow: the policy, see the module.
        key: with `conflate` only: `(message, sender)` to what identifies the thing that is superseded.
    """

    capacity: int = 256
    overflow: Overflow = "reject"
    key: Key | None = None

    def __attrs_post_init__(self) -> None:
        if type(self.capacity) is not int or self.capacity < 1:
            raise BadSetting(f"capacity: expected an integer >= 1, got {self.capacity!r}")
        if self.overflow not in get_args(Overflow):
            raise BadSetting(f"overflow: expected one of {', '.join(get_args(Overflow))}, got {self.overflow!r}")
        if (self.overflow == "conflate") != (self.key is not None):
            raise BadSetting(f"key: needed with conflate and with nothing else, overflow is {self.overflow!r}")


@attrs.frozen
class MailboxStatistics:
    """What a mailbox has seen so far; `accepted` counts what was put in its queue, the other counts are of messages."""

    capacity: int
    queued: int
    waiting: int
    high_water: int
    accepted: int
    rejected: int
    dropped: int
    conflated: int
    expired: int


class Outcome(Protocol):
    """Where the outcome of an ask goes; the first counts."""

    def resolve(self, value: object) -> None:
        """Give the answer."""

    def fail(self, error: ActorError) -> None:
        """Say that there will be no answer."""


class Reply:
    """The place where an asker waits. The first outcome counts, later ones are ignored."""

    __slots__ = ("_done", "_error", "_event", "_value")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._done = False
        self._value: object = None
        self._error: ActorError | None = None

    def resolve(self, value: object) -> None:
        """Give the answer."""
        if not self._done:
            self._done = True
            self._value = value
            self._event.set()

    def fail(self, error: ActorError) -> None:
        """Say that there will be no answer."""
        if not self._done:
            self._done = True
            self._error = error
            self._event.set()

    def expire(self) -> None:
        """Say that the deadline has passed."""
        self.fail(AskTimeout("no reply before the deadline"))

    def abandon(self) -> None:
        """Ignore whatever comes from now on."""
        self._done = True

    async def result(self) -> object:
        """Wait for the outcome."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._value


class CopyReply(Reply):
    """A reply whose value is copied on its way; one that cannot be is the asker's error."""

    __slots__ = ("_copy",)

    def __init__(self, copy: Callable[[object], object]) -> None:
        super().__init__()
        self._copy = copy

    def resolve(self, value: object) -> None:
        """Give a copy of the answer."""
        try:
            copy = self._copy(value)
        except ActorError as error:
            self.fail(error)
        else:
            super().resolve(copy)


class Load(Protocol):
    """What a message from another node takes of that node's bound in bytes, while it waits in a mailbox."""

    @property
    def size_bytes(self) -> int:
        """What it took."""

    def let_go(self) -> None:
        """Give it back. Idempotent."""


class Envelope(NamedTuple):
    """A message on its way; a tuple, because a frozen attrs value costs three times as much to make."""

    message: object
    sender: ActorRef | None
    deadline_at: float | None
    reply: Outcome | None
    load: Load | None = None


class Waiting:
    """A sender that waits for room, with its message."""

    __slots__ = ("admitted", "envelope", "refused")

    def __init__(self, envelope: Envelope, admitted: anyio.Event | None) -> None:
        self.envelope = envelope
        self.admitted = admitted
        self.refused = False


class Activity:
    """Counts the receivers that are not parked, so that a system can wait until all are."""

    def __init__(self) -> None:
        self.num_active = 0
        self._idle: anyio.Event | None = None

    def begin(self) -> None:
        """One more has something to do."""
        self.num_active += 1

    def end(self) -> None:
        """One has nothing left to do."""
        self.num_active -= 1
        if self.num_active == 0 and self._idle is not None:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return at an instant at which all are parked."""
        while self.num_active:
            self._idle = anyio.Event()
            await self._idle.wait()


class Inbox:
    """The queue of one actor; many put, one takes."""

    __slots__ = (
        "_accepted",
        "_activity",
        "_conflated",
        "_control",
        "_dropped",
        "_high_water",
        "_newest",
        "_on_drop",
        "_parked",
        "_queue",
        "_rejected",
        "_waiting",
        "closed",
        "expired",
        "loaded",
        "setting",
    )

    def __init__(
        self, setting: Mailbox, activity: Activity, on_drop: Callable[[Envelope, str], None] | None = None
    ) -> None:
        self.setting = setting
        self._on_drop = on_drop
        self.closed = False
        self.expired = 0
        # Set by who offers an envelope with a load: what only actors of this node write to never looks for one.
        self.loaded = False
        self._activity = activity
        self._queue: deque[Envelope] = deque()
        self._newest: OrderedDict[Hashable, Envelope] | None = None if setting.key is None else OrderedDict()
        # Made when first needed: an empty deque takes 760 bytes, and most actors never need these two.
        self._control: deque[Envelope] | None = None
        self._waiting: deque[Waiting] | None = None
        self._parked: anyio.Event | None = None
        self._high_water = 0
        self._accepted = 0
        self._rejected = 0
        self._dropped = 0
        self._conflated = 0

    def offer(self, envelope: Envelope) -> None:
        """Put a message in, or do what the policy says.

        Raises:
            MailboxFull: no room, and the policy refuses.
            ActorStopped: closed.
        """
        if self.closed:
            raise ActorStopped("the actor has stopped")
        if self._newest is not None:
            self._conflate(envelope, self._newest)
        elif len(self._queue) < self.setting.capacity or self._make_room(envelope):
            self._put(envelope)

    def must_wait(self) -> bool:
        """Return whether it is full, and the policy lets senders wait."""
        return self.setting.overflow in ("reject", "block") and len(self._queue) >= self.setting.capacity

    def enlist(self, envelope: Envelope, admitted: anyio.Event | None) -> Waiting:
        """Wait in line for room; `admitted` is set when the message is in, or refused because the actor stopped."""
        waiting = Waiting(envelope, admitted)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(waiting)
        return waiting

    def withdraw(self, waiting: Waiting) -> None:
        """Leave the line; without effect once the message is in."""
        if self._waiting and waiting in self._waiting:
            self._waiting.remove(waiting)

    def control(self, envelope: Envelope) -> None:
        """Put a message of the runtime in the lane that is drained first; it is never refused."""
        if self._control is None:
            self._control = deque()
        self._control.append(envelope)
        self._unpark()

    def take(self) -> Envelope | None:
        """Return the next message, `None` when there is none."""
        if self._control:
            return self._control.popleft()
        if self._newest:
            envelope = self._newest.popitem(last=False)[1]
        elif self._queue:
            envelope = self._queue.popleft()
            if self._waiting:
                self._admit(self._waiting.popleft())
        else:
            return None
        if self.loaded and envelope.load is not None:
            envelope.load.let_go()
        return envelope

    async def park(self) -> None:
        """Wait until there may be something to take, or the inbox is closed."""
        parked = self._parked = anyio.Event()
        self._activity.end()
        try:
            await parked.wait()
        finally:
            self._unpark()

    def close(self) -> None:
        """Accept nothing more; those in line are refused. What is queued stays until it is taken. Idempotent."""
        self.closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            waiting.refused = True
            if waiting.admitted is not None:
                waiting.admitted.set()
            if waiting.envelope.reply is not None:
                waiting.envelope.reply.fail(ActorStopped("the actor stopped before there was room"))
        self._unpark()

    def statistics(self) -> MailboxStatistics:
        """Return the counts so far."""
        return MailboxStatistics(
            capacity=self.setting.capacity,
            queued=len(self._queue) + len(self._newest or ()),
            waiting=len(self._waiting or ()),
            high_water=self._high_water,
            accepted=self._accepted,
            rejected=self._rejected,
            dropped=self._dropped,
            conflated=self._conflated,
            expired=self.expired,
        )

    def _put(self, envelope: Envelope) -> None:
        self._queue.append(envelope)
        self._accepted += 1
        if len(self._queue) > self._high_water:
            self._high_water = len(self._queue)
        if self._parked is not None:
            self._unpark()

    def _make_room(self, envelope: Envelope) -> bool:
        """Apply the policy of a full queue; return whether the new message goes in."""
        policy = self.setting.overflow
        if policy == "drop_oldest":
            self._drop(self._queue.popleft())
            return True
        if policy == "drop_newest":
            self._drop(envelope)
            return False
        self._rejected += 1
        raise MailboxFull(f"{self.setting.capacity} messages wait already")

    def _drop(self, envelope: Envelope) -> None:
        self._dropped += 1
        if envelope.load is not None:
            envelope.load.let_go()
        if self._on_drop is not None:
            self._on_drop(envelope, self.setting.overflow)
        if envelope.reply is not None:
            envelope.reply.fail(MailboxFull(f"dropped by policy {self.setting.overflow}"))

    def _conflate(self, envelope: Envelope, newest: OrderedDict[Hashable, Envelope]) -> None:
        assert self.setting.key is not None
        key = self.setting.key(envelope.message, envelope.sender)
        old = newest.pop(key, None)
        if old is not None:
            self._conflated += 1
            if old.load is not None:
                old.load.let_go()
            if self._on_drop is not None:
                self._on_drop(old, self.setting.overflow)
            if old.reply is not None:
                old.reply.fail(MailboxFull("superseded by a newer message of the same key"))
        elif len(newest) >= self.setting.capacity:
            self._rejected += 1
            raise MailboxFull(f"{self.setting.capacity} keys wait already")
        # Not in the old one's place but at the end: it must not overtake what its sender said between the two.
        newest[key] = envelope
        self._accepted += 1
        self._high_water = max(self._high_water, len(newest))
        self._unpark()

    def _admit(self, waiting: Waiting) -> None:
        self._put(waiting.envelope)
        if waiting.admitted is not None:
            waiting.admitted.set()

    def _unpark(self) -> None:
        if self._parked is not None:
            parked, self._parked = self._parked, None
            self._activity.begin()
            parked.set()
