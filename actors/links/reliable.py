"""Once only and in order, over links that lose, repeat and reorder, as long as both processes live. Pure.

The sender numbers its messages 1, 2, 3, ... and keeps each until it is acknowledged. The receiver takes exactly the
next number and drops every other one: what is lower is a duplicate, what is higher comes again (go back N). So it
holds no message at all, which leaves a hostile sender nothing to fill; the links we have keep order, and only a new
link makes the sender go back. An acknowledgement is cumulative and says how many more messages the receiver takes.

| event | sender | receiver |
|---|---|---|
| offer | appends to the backlog | |
| due | sends what the window allows | |
| nothing acknowledged for `resend_s`, then twice that, ... | all of it is due again | |
| message n = next | | delivers, next + 1 |
| n < next, n > next | | drops, counts a duplicate, an early one |
| n beyond the window | | refuses |
| ack a | drops 1..a; an `a` never sent is refused | |
| new link, same incarnation | goes back to the oldest unacknowledged | keeps its place |
| new incarnation | gives up what may have been handled, numbers the rest from 1 | starts at 1 |
| taken off the list, another key | gives up everything, starts at 1 | starts at 1 |

Not defended against: a receiver that acknowledges and forgets. What must outlive a process is for a journal above.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs

from actors.clock import check_seconds
from actors.errors import BadFrame, BadSetting

Message = tuple[int, bytes, "bytes | memoryview"]
"""Kind, header, blob, as the application gave them."""

MESSAGE_OVERHEAD_BYTES = 64  # charged for every message that is held, so that a budget bounds empty ones too


def held_bytes(message: Message) -> int:
    """Return what a held message is charged for."""
    return MESSAGE_OVERHEAD_BYTES + len(message[1]) + len(message[2])


@attrs.frozen
class ReliableConfig:
    """Bounds of the reliable channel.

    Attributes:
        window: messages that may be unacknowledged on the way, >= 1. The receiver tells its own; more hides a longer
            round trip, and is sent again after a link broke.
        resend_s: without an acknowledgement for this long, everything on the way is sent again. Links that keep order
            lose nothing, so this is slow on purpose.
        resend_s_max: bound of its doubling.
    """

    window: int = 1024
    resend_s: float = 5.0
    resend_s_max: float = 60.0

    def __attrs_post_init__(self) -> None:
        if type(self.window) is not int or not 1 <= self.window < 2**32:
            raise BadSetting(f"window: expected an integer in 1 .. 2**32 - 1, got {self.window!r}")
        check_seconds("resend_s", self.resend_s)
        if not self.resend_s <= self.resend_s_max:
            raise BadSetting(f"resend_s_max: expected at least resend_s = {self.resend_s}, got {self.resend_s_max!r}")


class ReliableSender:
    """The sender's half. `held` bytes are its backlog and what is on the way."""

    __slots__ = (
        "_base",
        "_config",
        "_deadline_at",
        "_next",
        "_room",
        "_top",
        "_unacked",
        "_wait_s",
        "held",
        "num_resent",
    )

    def __init__(self, config: ReliableConfig) -> None:
        self._config = config
        self._unacked: deque[Message] = deque()
        self._base = 1  # the number of the oldest message held
        self._next = 1  # the number that goes out next, between base and top
        self._top = 1  # one above the highest number that ever went out
        self._room = 1  # one message is the probe that makes the receiver say where it is
        self._wait_s = config.resend_s
        self._deadline_at: float | None = None
        self.held = 0
        self.num_resent = 0

    def __len__(self) -> int:
        return len(self._unacked)

    def offer(self, message: Message) -> None:
        """Take a message; the caller has checked its budget against `held`."""
        self._unacked.append(message)
        self.held += held_bytes(message)

    @property
    def next_offer(self) -> int:
        """The number that the next message offered will have, unless the peer's process is a new one."""
        return self._base + len(self._unacked)

    @property
    def ready(self) -> bool:
        """Whether `due` has something to send without going back."""
        sent = self._next - self._base
        return sent < len(self._unacked) and sent < self._room

    def due(self, now: float) -> Iterator[tuple[int, Message]]:
        """Yield what the window allows to send, with its number; stop early and the rest stays due."""
        while self.ready:
            yield self.take(now)

    def take(self, now: float) -> tuple[int, Message]:
        """Return the next that is due, with its number; only when `ready`."""
        number = self._next
        self._next += 1
        if number < self._top:
            self.num_resent += 1
        self._top = max(self._top, self._next)
        if self._deadline_at is None:
            self._deadline_at = now + self._wait_s
        return number, self._unacked[number - self._base]

    @property
    def next_due(self) -> int:
        """The number of the message that `take` would return."""
        return self._next

    def tick(self, now: float) -> bool:
        """Go back to the oldest message when its time is up; return whether that happened."""
        if self._deadline_at is None or now < self._deadline_at:
            return False
        self._wait_s = min(2 * self._wait_s, self._config.resend_s_max)
        self._go_back()
        return True

    def acked(self, cumulative: int, room: int, now: float) -> None:
        """Drop what the receiver has, and note how many more it takes.

        Raises:
            BadFrame: it acknowledges what was never sent.
        """
        if cumulative >= self._top:
            raise BadFrame(f"acknowledged {cumulative}, which was not sent")
        while self._base <= cumulative:
            self.held -= held_bytes(self._unacked.popleft())
            self._base += 1
            self._wait_s = self._config.resend_s
            self._deadline_at = now + self._wait_s
        self._next = max(self._next, self._base)
        if self._next == self._base:
            self._deadline_at = None
        # At least the probe, or one lost acknowledgement could silence the channel for ever.
        self._room = max(1, min(room, self._config.window))

    def rewind(self) -> None:
        """A link is new and the peer's process is the same: probe with one message, then go on from its answer."""
        self._wait_s = self._config.resend_s
        self._room = 1
        self._go_back()

    def clear(self) -> int:
        """The peer is another one: drop everything, number from 1; return how many were given up."""
        given_up = len(self._unacked)
        self._unacked.clear()
        self.held = 0
        self._base = self._next = self._top = 1
        self.rewind()
        return given_up

    def restart(self) -> int:
        """The peer's process is new: keep only what was never sent, numbered from 1; return how many were given up."""
        given_up = self._top - self._base
        for _ in range(given_up):
            self.held -= held_bytes(self._unacked.popleft())
        self._base = self._next = self._top = 1
        self.rewind()
        return given_up

    def _go_back(self) -> None:
        self._next = self._base
        self._deadline_at = None


class ReliableReceiver:
    """The receiver's half: one number, and counts."""

    __slots__ = ("_config", "_next", "num_duplicates", "num_early")

    def __init__(self, config: ReliableConfig) -> None:
        self._config = config
        self._next = 1
        self.num_duplicates = 0
        self.num_early = 0

    def receive(self, number: int) -> bool:
        """Return whether the message of this number is the next one, and is to be delivered now.

        Raises:
            BadFrame: it is beyond the window, which no honest sender does.
        """
        if number == self._next:
            self._next += 1
            return True
        if number < self._next:
            self.num_duplicates += 1
        elif number < self._next + self._config.window:
            self.num_early += 1
        else:
            raise BadFrame(f"reliable message {number} is beyond the window at {self._next}")
        return False

    def ack(self) -> tuple[int, int]:
        """Return the highest number that was delivered, and how many more are taken."""
        return self._next - 1, self._config.window

    def restart(self) -> None:
        """The peer's process is new and counts from 1."""
        self._next = 1
