"""What a system shows of itself: events for a hook, the latest dead letters and failures, counts. All frozen."""

from __future__ import annotations

from typing import Literal

import attrs

from actors.address import ActorRef, Address
from actors.mailbox import MailboxStatistics

EventKind = Literal["spawned", "restarted", "stopped", "delivered", "dropped", "dead_letter", "expired"]


@attrs.frozen
class TraceEvent:
    """Something that happened to an actor or to a message for it.

    Attributes:
        kind: `delivered` is the handler being called, `dropped` the mailbox's policy at work (what it rejects is the
            sender's exception and no event), `expired` an ask past its deadline when its turn came.
        at: the instant on the system's clock, in seconds.
        to: the actor.
        message: what was said, `None` for what happens to the actor itself.
        sender: who said it, as far as is known.
        detail: the reason, the policy, or the incarnation.
    """

    kind: EventKind
    at: float
    to: Address
    message: object
    sender: ActorRef | None
    detail: str


@attrs.frozen
class Returned:
    """Stands for a message that another node could not deliver: its name comes back, not the message."""

    name: str


@attrs.frozen
class Omitted:
    """Stands for a message from another node that is too large to be kept as a dead letter."""

    name: str
    size_bytes: int


@attrs.frozen
class DeadLetter:
    """A message that no handler got, or that its handler failed at."""

    message: object
    to: Address
    sender: ActorRef | None
    reason: str


@attrs.frozen
class Failure:
    """An error that ended an actor for good, when no parent was there to be told."""

    ref: ActorRef
    error: Exception


@attrs.frozen
class ActorStatistics:
    """One actor now.

    Attributes:
        address: where it lives.
        kind: the name of its class.
        incarnation: random at each spawn, one more at each restart: tells lives at one address apart.
        num_restarts: restarts since it was spawned.
        num_children: actors that it spawned and that live.
        parent: the actor that spawned it, if one did.
        mailbox: what its mailbox has seen, in all incarnations.
    """

    address: Address
    kind: str
    incarnation: int
    num_restarts: int
    num_children: int
    parent: Address | None
    mailbox: MailboxStatistics


@attrs.frozen
class SystemStatistics:
    """How many actors and timers there are, and how many dead letters, failures and restarts there have been."""

    num_actors: int
    num_timers: int
    num_dead_letters: int
    num_failures: int
    num_restarts: int
