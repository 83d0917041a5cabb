"""What a core asks its driver to do, as values.

A driver carries the effects of one call out in list order and completes each before it starts the next: a `Persist` is
durable before the `Send` behind it leaves. So nothing that depends on a spent budget, a receipt or a protocol stage
leaves before its record is on disk. `Emit` tells observers (progress, reports, tests); a driver may drop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import attrs

from scarcity.federation.packets import Aggregate, Model, Packet

# Production gives os.urandom whatever the label; tests and simulation a keyed stream per label, so that the order in
# which drivers call does not matter. The label is (id, scope, epoch, round, attempt, purpose).
EntropyLabel = tuple[str, str, int, int, int, str]
EntropySource = Callable[[EntropyLabel], Callable[[int], bytes]]


@attrs.frozen
class Entry:
    """A record of a role's journal: append-only, `payload` in the kind's own canonical bytes."""

    kind: str
    key: str
    payload: bytes


@attrs.frozen
class Persist:
    """Make an entry durable before the next effect."""

    entry: Entry


@attrs.frozen
class Send:
    """Hand a packet to the transport. `to` is a member id."""

    to: str
    packet: Packet


@attrs.frozen
class SetTimer:
    """Call `fire(name, now)` once `at` is reached; replaces a timer of this name; infinity disarms it."""

    name: str
    at: float


@attrs.frozen
class Reject:
    """A peer's packet was refused; it changed nothing."""

    peer: str
    reason: str


@attrs.frozen
class ContributionMade:
    """A client has released its contribution to a round."""

    client_id: str
    round_id: int
    kind: str


@attrs.frozen
class RoundDeclined:
    """A client will not contribute to a round."""

    client_id: str
    round_id: int
    reason: str


@attrs.frozen
class BasketClosed:
    """A basket has its aggregate; None in mode central, where it is shown to nobody.

    `missing` were expected and are not in it, each with the reason where that is known.
    """

    basket_id: str
    round_id: int
    aggregate: Aggregate | None
    members: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]


@attrs.frozen
class BasketAbsent:
    """A basket does not take part in a round's Layer 2; `missing` says which members, and why where that is known."""

    basket_id: str
    round_id: int
    reason: str
    have: int
    need: int
    missing: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class ModelMade:
    """The coordinator has signed a model."""

    model: Model
    baskets: tuple[str, ...]


@attrs.frozen
class ModelAccepted:
    """A client or basket has verified a model and holds it."""

    member_id: str
    model: Model


@attrs.frozen
class RoundAborted:
    """The coordinator has given a round up; nothing was released by it."""

    round_id: int
    reason: str
    have: int
    need: int


Event = ContributionMade | RoundDeclined | BasketClosed | BasketAbsent | ModelMade | ModelAccepted | RoundAborted


@attrs.frozen
class Emit:
    """Tell observers."""

    event: Event


Effect = Persist | Send | SetTimer | Reject | Emit


@attrs.frozen
class Waiting:
    """What a core waits for, from whom, since when and until when (infinity: only until somebody closes it)."""

    who: str
    what: str
    have: int
    need: int
    missing: tuple[str, ...]
    since: float
    until: float

    def describe(self, now: float) -> str:
        """Return one line for people."""
        names = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
        left = "no deadline" if math.isinf(self.until) else f"{max(0.0, self.until - now):.0f} s left"
        tail = f"; missing {names}" if names else ""
        return f"{self.who} waits for {self.what}: {self.have} of {self.need} ({left}){tail}"


class Core(Protocol):
    """A role's protocol: pure, driven from outside, never raising for what a peer sends."""

    def start(self, now: float) -> list[Effect]:
        """Return the effects of coming up."""

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a packet from the authenticated peer `sender`."""

    def fire(self, timer: str, now: float) -> list[Effect]:
        """Take the expiry of a timer set by `SetTimer`."""

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what this core waits for."""
