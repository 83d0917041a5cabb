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

from collections import Counter

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.codec import kind_of
from scarcity.federation.content import Expected
from scarcity.federation.effects import EntropySource, Reject
from scarcity.federation.gossip.exchange import Exchange, Known, Outcome
from scarcity.federation.gossip.gate import CARRIED, Gate, Terms
from scarcity.federation.gossip.hot import HotItems, Place
from scarcity.federation.gossip.materiality import MaterialityDetector, ReleasedView
from scarcity.federation.gossip.sampler import PeerSampler
from scarcity.federation.identity import Identity
from scarcity.federation.packets import (
    FloatArray,
    GossipPull,
    GossipPush,
    Model,
    Packet,
    RoundSettings,
    TrustMode,
    basket_scope,
)
from scarcity.federation.reader import Item, PlainReader, Reader, item_of
from scarcity.federation.refusals import Code, Equivocation, reject
from scarcity.federation.roster import COORDINATOR, Roster, basket_id

_SAMPLER_KEY_BYTES = 32


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
        answers: answers to one peer's pulls between two of our own timers; an honest peer needs two. An answer is much
            larger than its question.
    """

    hot_pushes: int = attrs.field(default=2, validator=_positive)
    push_items: int = attrs.field(default=128, validator=_positive)
    known_entries: int = attrs.field(default=16_384, validator=_positive)
    answers: int = attrs.field(default=8, validator=_positive)


@attrs.frozen
class Received:
    """What a push brought: items that are new here, refusals, and proofs against origins."""

    new: tuple[Item, ...] = ()
    rejects: tuple[Reject, ...] = ()
    proofs: tuple[Equivocation, ...] = ()


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
            "answers" (bounds), "known" (items that changed nothing), "held back" (pushes that were not material).
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
        self._domain_id = domain_id
        self._sampler = sampler
        self.exchange = Exchange() if exchange is None else exchange
        self._detector = detector or MaterialityDetector()
        self._limits = limits or GossipLimits()
        self._reader = PlainReader() if reader is None else reader
        self._gate = self._gate_for(Terms(roster, domain_id, mode))
        self._members: frozenset[str] = frozenset()
        self._hot = HotItems(self._limits.hot_pushes)
        self._fresh: dict[Place, Item] = {}
        self._view = ReleasedView()
        self._pushed_view: FloatArray | None = None
        self._answered: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.adopt(roster)

    def _gate_for(self, terms: Terms) -> Gate:
        return self._reader.once(terms, lambda: Gate(terms, self._reader))

    def adopt(self, roster: Roster) -> None:
        """Follow a roster; items of members that left and contributions of other epochs are dropped."""
        clients = {member.id for member in roster.clients_of(self._domain_id)}
        basket = basket_id(self._domain_id)
        self._gate = self._gate_for(attrs.evolve(self._gate.terms, roster=roster))
        self._members = frozenset(clients | ({basket} if basket in roster else set()))
        self._sampler.update(self._members)
        self.exchange.retain(self._members | {COORDINATOR}, roster.epoch)
        self._hot.keep_epoch(roster.epoch)

    def expect(self, expected: Expected | None) -> None:
        """Say what vectors must look like from now on; None: any sound item is taken.

        What was taken before and does not fit is dropped, so that the local view can be fed to a rule.
        """
        before = self._gate
        self._gate = gate = self._gate_for(attrs.evolve(before.terms, expected=expected))
        # What has passed for another round passes again, unless it is of the round that opens.
        same = expected is not None and gate.elsewhere == before.elsewhere
        held = self.exchange.of_round(expected.round_id) if expected and same else self.exchange.items()
        unfit = [item for item in held if gate.content_fault(item) is not None]
        for item in unfit:
            self.exchange.discard(item.key)

    def local_view(self, round_id: int) -> tuple[Packet, ...]:
        """Return the contributions of a round that are held, sorted by origin: input of the basket's rule."""
        return self.exchange.releases(round_id)

    def offer(self, item: Item) -> Outcome:
        """Take an item that is ours, or that came another way (a Model from the coordinator) and has been verified.

        What the mode's gossip does not carry is not taken: a clean update is for its own basket alone.
        """
        if type(item.packet.body) not in (Model, CARRIED[self._gate.terms.mode]):
            return Outcome.NOT_CARRIED
        outcome = self.exchange.add(item)
        if outcome is Outcome.NEW:
            self._heat([item])
        elif outcome is Outcome.EQUIVOCATION:
            self._spread([self.exchange.proofs[item.key]])
        return outcome

    def _heat(self, items: list[Item]) -> None:
        """Push Models and what is our own; contributions of others are pushed on if they matter (`_warm`)."""
        for item in items:
            if not item.is_contribution:
                self._hot.heat_first((item.key, False), item)
            elif item.key[1] == self._own_id:
                self._hot.heat({(item.key, False): item})

    def _spread(self, proofs: list[Equivocation]) -> None:
        """Push both halves of each, so that peers that hold either learn of the other."""
        for proof in proofs:
            for second, packet in enumerate((proof.first, proof.second)):
                item = item_of(packet)
                self._hot.heat_first((item.key, bool(second)), item)

    def receive_push(self, body: GossipPush, sender: str) -> Received:
        """Take the items of a push, or of the answer to a pull, from the authenticated peer `sender`.

        A bad item is a refusal and does not harm the others.
        """
        if sender not in self._members:
            return Received(rejects=(reject(sender, Code.NOT_ALLOWED, "no member of this basket"),))
        self.counts["push_items"] += max(0, len(body.items) - self._limits.push_items)
        taken, held = body.items[: self._limits.push_items], self.exchange.encoded
        rejects: list[Reject] = []
        unknown = self.exchange.unknown(self._opened([each for each in taken if each not in held], sender, rejects))
        faults = self._gate.judge(unknown)
        sound = [item for item, fault in zip(unknown, faults, strict=True) if fault is None]
        if len(sound) < len(unknown):
            at_fault = ((item, fault) for item, fault in zip(unknown, faults, strict=True) if fault is not None)
            rejects += [reject(sender if f[0] is Code.SIGNATURE else item.key[1], *f) for item, f in at_fault]
        new, proofs = self.exchange.add_all(sound)
        self._heat(new)
        self._spread(proofs)
        rejects += [
            reject(proof.author, Code.EQUIVOCATION, f"signed two of {kind_of(proof.first.body)}, shown by {sender}")
            for proof in proofs
        ]
        self.counts["known"] += len(taken) - len(new) - len(rejects)
        return Received(tuple(new), tuple(rejects), tuple(proofs))

    def _opened(self, encoded: list[bytes], sender: str, rejects: list[Reject]) -> list[Item]:
        """Return what can be opened; what is wrong with the rest is the relay's fault."""
        opened = self._gate.open(encoded)
        items = [each for each in opened if isinstance(each, Item)]
        if len(items) < len(opened):
            rejects += [reject(sender, *each) for each in opened if not isinstance(each, Item)]
        return items

    def answer_pull(self, body: GossipPull, sender: str) -> GossipPush | None:
        """Return what the peer lacks, as much as one message takes; None when it lacks nothing or is no member."""
        if sender not in self._members:
            return None
        if self._answered[sender] >= self._limits.answers:
            self.counts["answers"] += 1
            return None
        missing = self.exchange.missing_for(self._bounded(body.known))
        if not missing:
            return None
        self._answered[sender] += 1
        return GossipPush(tuple([item.encoded for item in missing]))

    def _bounded(self, known: Known) -> Known:
        """Return as much of a digest as is looked at: so many origins, and no more groups of them."""
        left, bounded = self._limits.known_entries, []
        if sum([1 + len(origins) for _, _, origins in known]) <= left:
            return known
        for kind, round_id, origins in known:
            if left <= 0:
                break
            bounded.append((kind, round_id, origins[:left]))
            left -= max(1, len(origins))
        if left < 0 or len(bounded) < len(known):
            self.counts["known_entries"] += 1
        return tuple(bounded)

    def pull(self) -> list[tuple[str, GossipPull]]:
        """Return the digests to send now; called by the pull timer."""
        self._answered.clear()
        body = GossipPull(self.exchange.digest())
        return [(peer, body) for peer in self._sampler.sample()]

    def push(self) -> list[tuple[str, GossipPush]]:
        """Return the hot items to send now; called by the push timer."""
        self._answered.clear()
        self._warm()
        self._hot.keep(self.exchange)
        batch = self.exchange.fit(tuple(self._hot))
        if not batch:
            return []
        self._hot.pushed(batch)
        body = GossipPush(tuple([item.encoded for item in batch]))
        return [(peer, body) for peer in self._sampler.sample()]

    def _warm(self) -> None:
        """Make learnt contributions hot once they have moved the view since the last time."""
        added = self._view.follow(self.exchange.contributions())
        self._fresh.update(((item.key, False), item) for item in added if item.key[1] != self._own_id)
        if not self._fresh:
            return
        view = self._view.mean()
        if not self._detector.is_material(self._pushed_view, view):
            self.counts["held back"] += 1
            return
        self._hot.heat(self._fresh)
        self._fresh = {}
        self._pushed_view = view
