"""Spread signed items inside a basket: push what is new, pull what is missing.

Who sends what when: at each push timer a member sends its hot items to K sampled peers; at each pull timer it sends its
digest to K sampled peers, and each answers with what the digest lacks. Members are the basket's clients and the basket.

    item                        becomes hot                         is pushed
    own, a Model, a proof       at once                             `hot_pushes` times
    learnt contribution         when the view has moved enough      `hot_pushes` times
    superseded or barred        never                               no longer

Trusts: the roster's keys. A relay cannot alter an item, because its origin signed it; an origin that signs two items
for one round proves its own guilt, and both are spread as the proof. Every item is checked against its origin's key
once. Does not defend against: an origin that lies consistently (the basket's rule does), a peer that says nothing, or
one that pulls and pretends to know nothing (answers are bounded; the validator's token bucket bounds how many).

How fast, n = 300, K = 3, 60 runs: with a push and a pull each period all are informed after 5 periods at the 99th
percentile, 6 with 20 % of the messages lost. Push alone, without end, takes 9 and 10: the last few are hard to hit.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict

import attrs

from scarcity.errors import CodecError, ConfigError
from scarcity.federation.codec import encode_packet, kind_of
from scarcity.federation.effects import EntropySource, Reject
from scarcity.federation.gossip.exchange import Exchange, Item, Key, Outcome, item_key
from scarcity.federation.gossip.materiality import MaterialityDetector, ReleasedView
from scarcity.federation.gossip.sampler import PeerSampler
from scarcity.federation.identity import Identity, PlainReader, Reader
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    LAYER2,
    FloatArray,
    GossipPull,
    GossipPush,
    Model,
    Packet,
    Release,
    RoundSettings,
    TrustMode,
    Unprotected,
    basket_scope,
    digest_of,
)
from scarcity.federation.roster import COORDINATOR, Role, Roster, basket_id
from scarcity.federation.validator import Code, Equivocation, Expected, Fault, check_body, reject

_SAMPLER_KEY_BYTES = 32
# What gossip carries beside Models.
CARRIED: dict[TrustMode, type | None] = {
    TrustMode.LOCAL: Release,
    TrustMode.DISTRIBUTED: None,
    TrustMode.CENTRAL: None,
    TrustMode.NONE: Unprotected,
}


def _positive(_instance: object, field: attrs.Attribute[int], value: int) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be positive, got {value!r}")


@attrs.frozen(kw_only=True)
class GossipLimits:
    """Bounds of the protocol.

    Attributes:
        hot_pushes: how often a member pushes an item. With pull 1, 2 and 4 are equally fast (5 periods at the 99th
            percentile, 6 with 20 % loss); 2 forgives a lost first push. Each costs K messages a member.
        push_items: items of a received push that are looked at.
        known_entries: entries of a received digest that are looked at.
        verdicts: item digests whose signature check is remembered.
        answers: answers to one peer's pulls between two of our own timers; an honest peer needs two. An answer is much
            larger than its question.
    """

    hot_pushes: int = attrs.field(default=2, validator=_positive)
    push_items: int = attrs.field(default=128, validator=_positive)
    known_entries: int = attrs.field(default=16_384, validator=_positive)
    verdicts: int = attrs.field(default=4096, validator=_positive)
    answers: int = attrs.field(default=8, validator=_positive)


@attrs.frozen
class Received:
    """What a push brought: items that are new here, refusals, and proofs against origins."""

    new: tuple[Packet, ...] = ()
    rejects: tuple[Reject, ...] = ()
    proofs: tuple[Equivocation, ...] = ()


@attrs.define(eq=False)
class _Hot:
    item: Item
    left: int


def gossip_of(identity: Identity, settings: RoundSettings, entropy: EntropySource) -> GossipProtocol:
    """Return the gossip of a member under a round's settings; its peers follow from the roster."""
    member = identity.member
    key = entropy((member.id, basket_scope(member.domain), 0, 0, 0, "gossip"))(_SAMPLER_KEY_BYTES)
    sampler = PeerSampler(member.id, (), key, settings.gossip_fanout)
    return GossipProtocol(
        member.id, identity.roster, member.domain, settings.mode, sampler=sampler, reader=identity.reader
    )


class GossipProtocol:
    """The gossip of one member.

    Args:
        own_id: this member, a client of the basket or the basket.
        roster: who is who.
        domain_id: the basket.
        mode: trust mode; it decides which contributions are carried.
        sampler: chooses the peers of push and of pull.
        exchange: what is held.
        detector: decides whether learnt contributions are pushed.
        limits: bounds.
        reader: decodes items and checks their signatures.

    Attributes:
        counts: how often a bound was hit or work was saved, by name: "push_items", "known_entries",
            "verdicts" and "answers" (bounds), "known" (items that changed nothing), "verified" (signatures checked),
            "held back" (pushes that were not material).
    """

    def __init__(
        self,
        own_id: str,
        roster: Roster,
        domain_id: str,
        mode: TrustMode,
        *,
        sampler: PeerSampler,
        exchange: Exchange | None = None,
        detector: MaterialityDetector | None = None,
        limits: GossipLimits | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._own_id = own_id
        self._roster = roster
        self._domain_id = domain_id
        self._mode = mode
        self._scope = basket_scope(domain_id)
        self._sampler = sampler
        self.exchange = Exchange() if exchange is None else exchange
        self._detector = detector or MaterialityDetector()
        self._limits = limits or GossipLimits()
        self._reader = PlainReader() if reader is None else reader
        self._expected: Expected | None = None
        self._in_other_rounds: Expected | None = None
        self._members: frozenset[str] = frozenset()
        self._hot: dict[tuple[Key, bool], _Hot] = {}  # the flag marks the second half of a proof
        self._fresh: dict[Key, Item] = {}
        self._view = ReleasedView()
        self._pushed_view: FloatArray | None = None
        self._verdicts: OrderedDict[bytes, bool] = OrderedDict()
        self._answered: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.adopt(roster)

    def adopt(self, roster: Roster) -> None:
        """Follow a roster; items of members that left and contributions of other epochs are dropped."""
        clients = {member.id for member in roster.clients_of(self._domain_id)}
        basket = basket_id(self._domain_id)
        self._roster = roster
        self._members = frozenset(clients | ({basket} if basket in roster else set()))
        self._sampler.update(self._members)
        self.exchange.retain(self._members | {COORDINATOR}, roster.epoch)
        self._fresh = {key: item for key, item in self._fresh.items() if self.exchange.item(key) is item}
        # Peers take no contribution of another epoch, not even as half of a proof.
        self._hot = {
            place: hot
            for place, hot in self._hot.items()
            if hot.item.packet.header.epoch == roster.epoch or isinstance(hot.item.packet.body, Model)
        }
        self._rebuild_view()
        self._verdicts.clear()

    def expect(self, expected: Expected | None) -> None:
        """Say what vectors must look like from now on; None: any sound item is taken.

        What was taken before and does not fit is dropped, so that the local view can be fed to a rule.
        """
        self._expected = expected
        # Schema and dimension hold for all rounds of an epoch; what another round allows beside them we do not know.
        self._in_other_rounds = expected and attrs.evolve(expected, norm_bound=math.inf, max_weight=2**63 - 1)
        unfit = [p for p in self.exchange.packets() if check_body(p.body, self._expected_of(p)) is not None]
        for packet in unfit:
            self.exchange.discard(item_key(packet))
        if unfit:
            self._rebuild_view()

    def local_view(self, round_id: int) -> tuple[Packet, ...]:
        """Return the contributions of a round that are held, sorted by origin: input of the basket's rule."""
        return self.exchange.releases(round_id)

    def offer(self, packet: Packet, encoded: bytes | None = None) -> Outcome:
        """Take an item that is ours, or that came another way (a Model from the coordinator) and has been verified.

        What the mode's gossip does not carry is not taken: a clean update is for its own basket alone.

        Args:
            packet: signed.
            encoded: its canonical bytes, if at hand.
        """
        if type(packet.body) not in (Model, CARRIED[self._mode]):
            return Outcome.NOT_CARRIED
        return self._learn(Item(packet, encode_packet(packet) if encoded is None else encoded))

    def _learn(self, item: Item) -> Outcome:
        key = item_key(item.packet)
        before, num_evicted = self.exchange.get(key), self.exchange.num_evicted
        outcome = self.exchange.add(item.packet, item.encoded)
        if self.exchange.num_evicted > num_evicted:
            self._rebuild_view()
        elif outcome is Outcome.NEW:
            self._follow(before, item.packet)
        elif outcome is Outcome.EQUIVOCATION:
            self._follow(before, None)
        if outcome is Outcome.EQUIVOCATION:
            self._fresh.pop(key, None)
            self._spread_proof(key)
        elif outcome is Outcome.NEW:
            own = item.packet.header.sender == self._own_id
            if own or isinstance(item.packet.body, Model):
                self._heat(key, item)
            else:
                self._fresh[key] = item
        return outcome

    def _follow(self, before: Packet | None, after: Packet | None) -> None:
        if before is not None and isinstance(before.body, CONTRIBUTIONS):
            self._view.remove(before.body.vector)
        if after is not None and isinstance(after.body, CONTRIBUTIONS):
            self._view.add(after.body.vector)

    def _rebuild_view(self) -> None:
        self._view = ReleasedView()
        for packet in self.exchange.packets():
            self._follow(None, packet)

    def _heat(self, key: Key, item: Item, *, second: bool = False) -> None:
        self._hot[key, second] = _Hot(item, self._limits.hot_pushes)

    def _spread_proof(self, key: Key) -> None:
        """Make both halves hot, so that peers that hold either learn of the other."""
        proof = self.exchange.proofs[key]
        for second, packet in enumerate((proof.first, proof.second)):
            self._heat(key, Item(packet, encode_packet(packet)), second=bool(second))

    def receive_push(self, body: GossipPush, sender: str) -> Received:
        """Take the items of a push, or of the answer to a pull, from the authenticated peer `sender`.

        A bad item is a refusal and does not harm the others.
        """
        if sender not in self._members:
            return Received(rejects=(reject(sender, Code.NOT_ALLOWED, "no member of this basket"),))
        self.counts["push_items"] += max(0, len(body.items) - self._limits.push_items)
        new: dict[Key, Packet] = {}
        rejects: list[Reject] = []
        proofs: list[Equivocation] = []
        for encoded in body.items[: self._limits.push_items]:
            if self.exchange.holds(encoded):
                self.counts["known"] += 1
                continue
            packet = self._open(encoded, sender)
            if isinstance(packet, Reject):
                rejects.append(packet)
                continue
            if self.exchange.knows(packet, encoded):
                self.counts["known"] += 1
                continue
            if refusal := self._check_origin(packet, encoded, sender):
                rejects.append(refusal)
                continue
            key = item_key(packet)
            outcome = self._learn(Item(packet, encoded))
            if outcome is Outcome.NEW:
                new[key] = packet
            elif outcome is Outcome.EQUIVOCATION:
                new.pop(key, None)
                proofs.append(self.exchange.proofs[key])
                rejects.append(reject(key[1], Code.EQUIVOCATION, f"signed two of {key[0]}, shown by {sender}"))
        return Received(tuple(new.values()), tuple(rejects), tuple(proofs))

    def _open(self, encoded: bytes, sender: str) -> Packet | Reject:
        """Decode an item and check its place; what is wrong with it is the relay's fault."""
        try:
            packet = self._reader.decode(encoded)
        except CodecError as error:
            return reject(sender, Code.MALFORMED, f"an item is no packet: {error}")
        fault = self._check_place(packet)
        return packet if fault is None else reject(sender, *fault)

    def _check_place(self, packet: Packet) -> Fault | None:
        head, roster = packet.header, self._roster
        if head.federation != roster.federation:
            return (Code.FEDERATION, f"an item of federation {head.federation[:40]!r}")
        # The newest model may be one of an earlier epoch; its receiver checks it against a config.
        if head.epoch != roster.epoch and not isinstance(packet.body, Model):
            return (Code.STALE_ROSTER, f"an item of epoch {head.epoch}, here it is {roster.epoch}")
        if head.round_id < 0:
            return (Code.RANGE, f"an item of round {head.round_id}")
        kind = type(packet.body)
        if kind is Model:
            allowed, scope = head.sender in roster and roster.member(head.sender).role is Role.COORDINATOR, LAYER2
        elif kind is CARRIED[self._mode]:
            allowed, scope = head.sender in self._members and head.sender != basket_id(self._domain_id), self._scope
        else:
            return (Code.NOT_ALLOWED, f"gossip carries no {kind_of(packet.body)} in mode {self._mode.value}")
        if not allowed:
            return (Code.NOT_ALLOWED, f"{head.sender[:40]!r} does not say a {kind.__name__} here")
        if isinstance(packet.body, Model) and packet.body.round_id != head.round_id:
            return (Code.RANGE, f"a Model of round {packet.body.round_id} in a header of round {head.round_id}")
        return None if head.scope == scope else (Code.SCOPE, f"an item of scope {head.scope[:40]!r}, not {scope!r}")

    def _check_origin(self, packet: Packet, encoded: bytes, sender: str) -> Reject | None:
        """Check the signature (once per item), then the content, which then is the origin's own fault."""
        origin = packet.header.sender
        if not self._signed(packet, encoded):
            return reject(sender, Code.SIGNATURE, f"an item does not carry the signature of {origin}")
        fault = check_body(packet.body, self._expected_of(packet))
        return reject(origin, *fault) if fault else None

    def _expected_of(self, packet: Packet) -> Expected | None:
        expected = self._expected
        same_round = expected is None or expected.round_id == packet.header.round_id
        return expected if same_round else self._in_other_rounds

    def _signed(self, packet: Packet, encoded: bytes) -> bool:
        digest = digest_of(encoded)
        if digest not in self._verdicts:
            self.counts["verified"] += 1
            self._verdicts[digest] = self._reader.holds(packet, self._roster.keys[packet.header.sender])
            if len(self._verdicts) > self._limits.verdicts:
                self._verdicts.popitem(last=False)
                self.counts["verdicts"] += 1
        return self._verdicts[digest]

    def answer_pull(self, body: GossipPull, sender: str) -> GossipPush | None:
        """Return what the peer lacks, as much as one message takes; None when it lacks nothing or is no member."""
        if sender not in self._members:
            return None
        if self._answered[sender] >= self._limits.answers:
            self.counts["answers"] += 1
            return None
        self.counts["known_entries"] += max(0, len(body.known) - self._limits.known_entries)
        missing = self.exchange.missing_for(body.known[: self._limits.known_entries])
        if not missing:
            return None
        self._answered[sender] += 1
        return GossipPush(tuple(item.encoded for item in missing))

    def pull(self) -> list[tuple[str, GossipPull]]:
        """Return the digests to send now; called by the pull timer."""
        self._answered.clear()
        body = GossipPull(self.exchange.digest())
        return [(peer, body) for peer in self._sampler.sample()]

    def push(self) -> list[tuple[str, GossipPush]]:
        """Return the hot items to send now; called by the push timer."""
        self._answered.clear()
        self._warm()
        self._hot = {place: hot for place, hot in self._hot.items() if hot.left > 0 and self._is_current(place, hot)}
        # What was pushed least goes first, Models and proofs before contributions.
        queue = sorted(self._hot.items(), key=lambda entry: (_is_contribution(entry[1].item), -entry[1].left, entry[0]))
        batch = self.exchange.fit(hot.item for _, hot in queue)
        if not batch:
            return []
        sent = {id(item) for item in batch}
        for _, hot in queue:
            hot.left -= id(hot.item) in sent
        body = GossipPush(tuple(item.encoded for item in batch))
        return [(peer, body) for peer in self._sampler.sample()]

    def _warm(self) -> None:
        """Make learnt contributions hot once they have moved the view since the last time."""
        if not self._fresh:
            return
        view = self._view.mean()
        if not self._detector.is_material(self._pushed_view, view):
            self.counts["held back"] += 1
            return
        for key, item in self._fresh.items():
            self._heat(key, item)
        self._fresh = {}
        self._pushed_view = view

    def _is_current(self, place: tuple[Key, bool], hot: _Hot) -> bool:
        proof = self.exchange.proofs.get(place[0])
        if proof is not None and (hot.item.packet is proof.first or hot.item.packet is proof.second):
            return True
        return self.exchange.get(place[0]) is hot.item.packet


def _is_contribution(item: Item) -> bool:
    return isinstance(item.packet.body, CONTRIBUTIONS)
