"""Decide whether a packet may reach a role's core: cheap checks first, each refusal with a reason code.

Every role owns one `Validator` and asks it before it looks at a packet. What is checked, in this order: the sender is
on the roster, its link is its own (or the packet may be relayed), the kind is one that this author may say to this
receiver, federation, epoch and scope, the round, the sender's token bucket, what was said before, the content, and
last the author's signature, which costs more than all the rest.

Trusts: the link's word on who `sender` is; the roster. Does not defend against: a lie within the bounds (the rules of
Layer 1 do), nor what a secure sum hides: of a `SecureSum` only place and author are checked here, its own cores check
the message, and no one can check the masked integers.

Statements: most signed kinds are said once per (author, round). The same body again is DUPLICATE (links resend),
another one with a valid signature is EQUIVOCATION, and both packets are kept as proof.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.codec import digest_in
from scarcity.federation.content import Expected, check_body
from scarcity.federation.effects import Reject
from scarcity.federation.packets import (
    LAYER2,
    SIGNED,
    Aborted,
    Absent,
    Ack,
    BasketReport,
    Contribution,
    Declined,
    GossipPull,
    GossipPush,
    Model,
    ModelRequest,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unprotected,
    basket_scope,
)
from scarcity.federation.reader import PlainReader, Reader
from scarcity.federation.refusals import Code, Equivocation, Fault, reject
from scarcity.federation.roster import Member, Role, Roster

_CLIENT, _BASKET, _COORDINATOR = Role.CLIENT, Role.BASKET, Role.COORDINATOR

# Who may say what to whom: (author, receiver). Releases reach other clients inside a GossipPush only.
MAY_SAY: Final[dict[type, frozenset[tuple[Role, Role]]]] = {
    RoundConfig: frozenset({(_COORDINATOR, _BASKET), (_COORDINATOR, _CLIENT)}),
    RosterNotice: frozenset({(_COORDINATOR, _BASKET), (_COORDINATOR, _CLIENT), (_BASKET, _CLIENT)}),
    ModelRequest: frozenset({(_CLIENT, _BASKET), (_CLIENT, _COORDINATOR), (_BASKET, _COORDINATOR)}),
    Ready: frozenset({(_CLIENT, _BASKET)}),
    Declined: frozenset({(_CLIENT, _BASKET)}),
    Release: frozenset({(_CLIENT, _BASKET)}),
    TrustedUpdate: frozenset({(_CLIENT, _BASKET)}),
    Unprotected: frozenset({(_CLIENT, _BASKET)}),
    Ack: frozenset({(_BASKET, _CLIENT)}),
    SecureSum: frozenset(
        {(_CLIENT, _BASKET), (_BASKET, _CLIENT), (_BASKET, _COORDINATOR), (_COORDINATOR, _BASKET)},
    ),
    BasketReport: frozenset({(_BASKET, _COORDINATOR)}),
    Absent: frozenset({(_BASKET, _COORDINATOR)}),
    Aborted: frozenset({(_COORDINATOR, _BASKET), (_COORDINATOR, _CLIENT)}),
    Model: frozenset({(_COORDINATOR, _BASKET), (_COORDINATOR, _CLIENT)}),
    GossipPush: frozenset({(_CLIENT, _CLIENT), (_CLIENT, _BASKET), (_BASKET, _CLIENT)}),
    GossipPull: frozenset({(_CLIENT, _CLIENT), (_CLIENT, _BASKET), (_BASKET, _CLIENT)}),
}
# A basket hands these on to its clients; the coordinator's signature goes with them.
RELAYED: Final = (RosterNotice, RoundConfig, Model, Aborted)
# These belong to no round, or carry rounds of their own. A model may be an old one that a late member asked for: the
# open round's config names it by digest.
_ROUNDLESS: Final = frozenset({RosterNotice, ModelRequest, GossipPush, GossipPull, Model})
_MODE_OF: Final[dict[type, TrustMode]] = {
    Release: TrustMode.LOCAL,
    TrustedUpdate: TrustMode.CENTRAL,
    Unprotected: TrustMode.NONE,
    Ready: TrustMode.DISTRIBUTED,
}


def scope_between(author: Member, receiver: Member) -> str:
    """Return the scope of what one member says to another: layer2 with the coordinator, else the basket's."""
    if Role.COORDINATOR in (author.role, receiver.role):
        return LAYER2
    return basket_scope(receiver.domain)


def _positive(_instance: Any, field: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be positive, got {value!r}")


@attrs.frozen(kw_only=True)
class ValidatorLimits:
    """Bounds of a validator.

    Attributes:
        max_staleness: rounds after which a statement is refused as stale.
        max_ahead: rounds by which a statement may be ahead of what we know; 1, because a client can hear of a round
            before its basket does. What the coordinator signs may be any number ahead: we may have slept.
        packets_per_s: refill of each sender's token bucket; infinity switches the bucket off (logical clocks).
        answers_per_s: refill of further buckets of each sender, one for ModelRequests and one for contributions said
            again; off with the first. Each answer is up to four packets, each a record of the outbox.
        answers_burst: tokens of these when full. A member asks when it starts and when it missed a model.
        burst: tokens of a full bucket. Gossip and a secure sum need about 10 packets a second of one peer.
        max_statements: statements remembered; beyond it the oldest is forgotten and counted. 10^5 is three rounds of
            10,000 members that say three things each.
        max_proofs: proofs kept; one author with one proof is enough to quarantine it.
    """

    max_staleness: int = 2
    max_ahead: int = 1
    packets_per_s: float = attrs.field(default=64.0, validator=_positive)
    answers_per_s: float = attrs.field(default=1.0, validator=_positive)
    answers_burst: float = attrs.field(default=8.0, validator=_positive)
    burst: float = attrs.field(default=256.0, validator=_positive)
    max_statements: int = attrs.field(default=100_000, validator=_positive)
    max_proofs: int = attrs.field(default=256, validator=_positive)


@attrs.define(eq=False)
class _Bucket:
    tokens: float
    filled_at: float

    def take(self, now: float, per_s: float, burst: float) -> bool:
        """Take a token; a clock that goes back gives none."""
        if per_s == math.inf:
            return True
        if now > self.filled_at:
            self.tokens = min(burst, self.tokens + (now - self.filled_at) * per_s)
            self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


_Route = tuple[str, str, type]  # link, author, kind
_Place = tuple[str, str, str, int]  # author, kind's class name, scope, round


def _place(packet: Packet) -> _Place:
    head = packet.header
    return (head.sender, type(packet.body).__name__, head.scope, head.round_id)


class Validator:
    """The gate before one member's core.

    Args:
        own_id: the member that receives.
        roster: who is who; replaced by `adopt` when the epoch changes.
        limits: bounds.
        reader: checks signatures.

    Attributes:
        counts: refusals by code.
        proofs: equivocations found, by place.
        num_forgotten: statements and proofs that the bounds pushed out.
    """

    def __init__(
        self, own_id: str, roster: Roster, limits: ValidatorLimits | None = None, reader: Reader | None = None
    ) -> None:
        self._own_id = own_id
        self._reader = PlainReader() if reader is None else reader
        self._limits = limits or ValidatorLimits()
        self.counts: Counter[Code] = Counter()
        self.proofs: dict[_Place, Equivocation] = {}
        self.num_forgotten = 0
        self._said: dict[_Place, tuple[bytes, Packet]] = {}
        self._routes: dict[_Route, str] = {}  # that packets may take -> their scope
        self._buckets: dict[str, _Bucket] = {}
        self._asks: dict[tuple[str, object], _Bucket] = {}  # (sender, what it asks)
        self._pruned_below = 0
        self.adopt(roster)

    def adopt(self, roster: Roster) -> None:
        """Go over to another roster: buckets of members that left are dropped, and what was said in another epoch.

        A packet of another epoch is refused, so it can be neither a repetition nor half of an equivocation.
        """
        self._own = roster.member(self._own_id)
        self._roster = roster
        self._routes = {}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in roster}
        self._asks = {place: bucket for place, bucket in self._asks.items() if place[0] in roster}
        here = (roster.federation, roster.epoch)
        self._said = {
            place: said
            for place, said in self._said.items()
            if place[0] in roster and (said[1].header.federation, said[1].header.epoch) == here
        }

    def check(self, packet: Packet, sender: str, now: float, expected: Expected | None = None) -> Reject | None:
        """Return the refusal of a packet from the authenticated peer `sender`, None if it may pass.

        A packet that passes counts as said: the caller keeps it, or calls `forget` so that it may come again. A
        contribution that gossip brought has its origin as `sender`: the relay vouches for nothing.

        Args:
            packet: as decoded.
            sender: id at the other end of the link.
            now: seconds on the injected clock.
            expected: what the open round lets a packet be; None when no round is open (contributions are refused then).
        """
        fault = (
            self._check_place(packet, sender)
            or self._check_round(packet, expected)
            or self._check_rate(packet, sender, now)
        )
        if fault is None and type(packet.body) in SIGNED:
            self._prune(expected)
            fault = self._check_content(packet, expected)
        if fault is None:
            return None
        code, detail = fault
        self.counts[code] += 1
        return reject(packet.header.sender if code is Code.EQUIVOCATION else sender, code, detail)

    def forget(self, packet: Packet) -> None:
        """Take a statement back that the caller could not keep."""
        self._said.pop(_place(packet), None)

    def _check_parties(self, packet: Packet, sender: str) -> Fault | None:
        author_id, kind = packet.header.sender, type(packet.body)
        if sender not in self._roster or author_id not in self._roster:
            return (Code.UNKNOWN_SENDER, f"{sender[:40]!r} or {author_id[:40]!r} is not on the roster")
        link, author, own = self._roster.member(sender), self._roster.member(author_id), self._own
        own_basket = link.role is Role.BASKET and own.role is Role.CLIENT and link.domain == own.domain
        if link != author and not (own_basket and kind in RELAYED):
            return (Code.NOT_THE_AUTHOR, f"{sender} sent a {kind.__name__} of {author_id}")
        if (author.role, own.role) not in MAY_SAY.get(kind, frozenset()):
            return (Code.NOT_ALLOWED, f"a {author.role.value} does not send a {kind.__name__} to a {own.role.value}")
        if Role.COORDINATOR not in (author.role, own.role) and author.domain != own.domain:
            return (Code.NOT_ALLOWED, f"{author_id} belongs to another basket")
        return None

    def _check_place(self, packet: Packet, sender: str) -> Fault | None:
        head, roster, route = packet.header, self._roster, (sender, packet.header.sender, type(packet.body))
        scope = self._routes.get(route)
        if scope is None:
            if fault := self._check_parties(packet, sender):
                return fault
            scope = self._routes[route] = scope_between(roster.member(head.sender), self._own)
        if head.federation != roster.federation:
            return (Code.FEDERATION, f"of federation {head.federation[:40]!r}")
        # A new roster comes with its new epoch; the operator's signature inside it is what counts.
        # A model of an earlier epoch may be the one that the open round starts from; its hash decides.
        if head.epoch != roster.epoch and type(packet.body) not in (RosterNotice, Model):
            return (Code.STALE_ROSTER, f"of epoch {head.epoch}, here it is {roster.epoch}")
        return None if head.scope == scope else (Code.SCOPE, f"of scope {head.scope[:40]!r}, not {scope!r}")

    def _check_round(self, packet: Packet, expected: Expected | None) -> Fault | None:
        body, round_id = packet.body, packet.header.round_id
        if type(body) in _ROUNDLESS:
            return None
        if round_id < 0:
            return (Code.RANGE, f"round {round_id}")
        if expected is None:
            needs_round = isinstance(body, Contribution | Ready | BasketReport)
            return (Code.NO_ROUND, f"round {round_id} is not open") if needs_round else None
        if isinstance(body, Contribution | Ready) and expected.mode is not _MODE_OF[type(body)]:
            return (Code.NOT_ALLOWED, f"a {type(body).__name__} in mode {expected.mode.value}")
        if round_id < expected.round_id - self._limits.max_staleness:
            return (Code.STALE, f"round {round_id}, round {expected.round_id} is open")
        ahead = round_id > expected.round_id + self._limits.max_ahead
        if ahead and self._roster.member(packet.header.sender).role is not Role.COORDINATOR:
            return (Code.AHEAD, f"round {round_id}, round {expected.round_id} is open")
        return None

    def _check_rate(self, packet: Packet, sender: str, now: float) -> Fault | None:
        limits = self._limits
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = _Bucket(limits.burst, now)
        if not bucket.take(now, limits.packets_per_s, limits.burst):
            return (Code.RATE, f"{sender} sends faster than allowed")
        if type(packet.body) is not ModelRequest or self._answers(ModelRequest, sender, now):
            return None
        return (Code.RATE, f"{sender} asks for the model faster than allowed")

    def answers_repetition(self, sender: str, now: float) -> bool:
        """Say whether a contribution that this sender has said again may be answered again; it takes a token."""
        return self._answers(Contribution, sender, now)

    def _answers(self, question: object, sender: str, now: float) -> bool:
        limits = self._limits
        if math.isinf(limits.packets_per_s):
            return True
        asks = self._asks.setdefault((sender, question), _Bucket(limits.answers_burst, now))
        return asks.take(now, limits.answers_per_s, limits.answers_burst)

    def _check_content(self, packet: Packet, expected: Expected | None) -> Fault | None:
        place, digest = _place(packet), digest_in(packet)
        said = self._said.get(place)
        # The signature of a repetition need not be checked: it changes nothing.
        if said is not None and said[0] == digest:
            return (Code.DUPLICATE, f"{place[1]} of {place[0]} in round {place[3]}")
        if said is None and (fault := check_body(packet.body, expected)):
            return fault
        if not self._reader.holds(packet, self._roster.keys[place[0]]):
            return (Code.SIGNATURE, f"{place[1]} does not carry the signature of {place[0]}")
        if said is not None:
            self._prove(place, Equivocation(said[1], packet))
            return (Code.EQUIVOCATION, f"{place[0]} signed two of {place[1]} for round {place[3]}")
        self._said[place] = (digest, packet)
        if len(self._said) > self._limits.max_statements:
            del self._said[next(iter(self._said))]
            self.num_forgotten += 1
        return None

    def _prove(self, place: _Place, proof: Equivocation) -> None:
        if place in self.proofs:
            return
        if len(self.proofs) >= self._limits.max_proofs:
            self.num_forgotten += 1
            return
        self.proofs[place] = proof

    def _prune(self, expected: Expected | None) -> None:
        """Forget statements of rounds that are refused as stale anyway."""
        oldest = 0 if expected is None else expected.round_id - self._limits.max_staleness
        if oldest > self._pruned_below:
            self._said = {place: said for place, said in self._said.items() if place[3] >= oldest}
            self._pruned_below = oldest
