"""What an item must be to be taken into a basket's gossip, whoever shows it.

Of the place: federation, epoch, scope, and an origin that may say this kind here. Then the origin's signature, and what
the round lets the content be. A bad place or signature is the relay's fault, who could have seen it; bad content under
a good signature is the origin's own.

Does not defend against: a lie within the bounds (the basket's rule does).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, TypeVar

import attrs

from scarcity.errors import CodecError
from scarcity.federation.codec import kind_of
from scarcity.federation.content import Expected, check_body
from scarcity.federation.packets import (
    LAYER2,
    Model,
    Packet,
    Release,
    TrustMode,
    Unprotected,
    basket_scope,
)
from scarcity.federation.reader import Item, Reader
from scarcity.federation.refusals import Code, Fault
from scarcity.federation.roster import Role, Roster

# A peer can hear of a round before we do; more rounds than that nobody has contributed to.
_MAX_AHEAD: Final = 1
T = TypeVar("T")
V = TypeVar("V")

# What gossip carries beside Models.
CARRIED: dict[TrustMode, type | None] = {
    TrustMode.LOCAL: Release,
    TrustMode.DISTRIBUTED: None,
    TrustMode.CENTRAL: None,
    TrustMode.NONE: Unprotected,
}


@attrs.frozen
class Terms:
    """What a gate lets through is a function of these.

    Attributes:
        roster: who is who.
        domain_id: the basket.
        mode: trust mode; it decides which contributions are carried.
        expected: what vectors of the open round must look like; None: any sound vector may pass.
    """

    roster: Roster = attrs.field(eq=id)
    domain_id: str
    mode: TrustMode
    expected: Expected | None = None

    @property
    def elsewhere(self) -> Expected | None:
        """What vectors of other rounds must look like.

        Schema and dimension hold for all rounds of an epoch; what another round allows beside them we do not know.
        """
        return self.expected and attrs.evolve(
            self.expected,
            round_id=-1,
            max_weight=2**63 - 1,
            norm_bound=math.inf,
            unit_bound=math.inf,
            noise_tail=0.0,
        )


class Gate:
    """Judges items under one set of terms, each item once.

    Args:
        terms: what to judge by.
        reader: decodes items and checks their signatures.
    """

    def __init__(self, terms: Terms, reader: Reader) -> None:
        self.terms = terms
        self.elsewhere = terms.elsewhere
        self._reader = reader
        self._scope = basket_scope(terms.domain_id)
        self._clients = frozenset(member.id for member in terms.roster.clients_of(terms.domain_id))
        self._opened: dict[bytes, Item | Fault] = {}
        self._judged: dict[Item, Fault | None] = {}

    def open(self, encoded: Iterable[bytes]) -> list[Item | Fault]:
        """Decode items and check their places."""
        opened = self._opened
        return [opened.get(each) or self._open(each) for each in encoded]

    def _open(self, encoded: bytes) -> Item | Fault:
        try:
            item = self._reader.item(encoded)
        except CodecError as error:
            return (Code.MALFORMED, f"an item is no packet: {error}")
        opened = self._check_place(item.packet) or item
        self._remember(self._opened, encoded, opened)
        return opened

    def judge(self, items: Iterable[Item]) -> list[Fault | None]:
        """Check the signatures of opened items, and then their content."""
        judged = self._judged
        return [judged[item] if item in judged else self._judge(item) for item in items]

    def _judge(self, item: Item) -> Fault | None:
        origin = item.packet.header.sender
        fault: Fault | None
        if self._reader.item_holds(item, self.terms.roster.keys[origin]):
            fault = self.content_fault(item)
        else:
            fault = (Code.SIGNATURE, f"an item does not carry the signature of {origin}")
        self._remember(self._judged, item, fault)
        return fault

    def _remember(self, memory: dict[T, V], place: T, value: V) -> None:
        if self._reader.memory > 0:
            memory[place] = value
            if len(memory) > self._reader.memory:
                del memory[next(iter(memory))]

    def content_fault(self, item: Item) -> Fault | None:
        """Return what is wrong with an item's content."""
        expected = self.terms.expected
        in_round = expected is not None and expected.round_id == item.round_id
        return check_body(item.packet.body, expected if in_round else self.elsewhere)

    def _check_place(self, packet: Packet) -> Fault | None:
        head, roster, mode = packet.header, self.terms.roster, self.terms.mode
        if head.federation != roster.federation:
            return (Code.FEDERATION, f"an item of federation {head.federation[:40]!r}")
        # The newest model may be one of an earlier epoch; its receiver checks it against a config.
        if head.epoch != roster.epoch and not isinstance(packet.body, Model):
            return (Code.STALE_ROSTER, f"an item of epoch {head.epoch}, here it is {roster.epoch}")
        if head.round_id < 0:
            return (Code.RANGE, f"an item of round {head.round_id}")
        kind, expected = type(packet.body), self.terms.expected
        if kind is not Model and expected is not None and head.round_id > expected.round_id + _MAX_AHEAD:
            return (Code.AHEAD, f"an item of round {head.round_id}, round {expected.round_id} is open")
        if kind is Model:
            allowed, scope = head.sender in roster and roster.member(head.sender).role is Role.COORDINATOR, LAYER2
        elif kind is CARRIED[mode]:
            allowed, scope = head.sender in self._clients, self._scope
        else:
            return (Code.NOT_ALLOWED, f"gossip carries no {kind_of(packet.body)} in mode {mode.value}")
        if not allowed:
            return (Code.NOT_ALLOWED, f"{head.sender[:40]!r} does not say a {kind.__name__} here")
        if isinstance(packet.body, Model) and packet.body.round_id != head.round_id:
            return (Code.RANGE, f"a Model of round {packet.body.round_id} in a header of round {head.round_id}")
        return None if head.scope == scope else (Code.SCOPE, f"an item of scope {head.scope[:40]!r}, not {scope!r}")
