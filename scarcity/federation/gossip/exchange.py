"""What a member holds for gossip: the newest signed item of each (kind, origin).

Newest round wins, so the state is bounded by the roster; items and bytes have named bounds beside that. Two different
bodies of one origin for one round are an equivocation: both are kept as proof, neither is used any more, and the place
stays barred up to that round. The same body under another signature of its origin is the same item.

Nothing is verified here: the caller adds what it has verified.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.codec import body_digest
from scarcity.federation.packets import Packet
from scarcity.federation.reader import Item, Key
from scarcity.federation.refusals import Equivocation

_MODEL: Final = "model"  # its kind
Known = tuple[tuple[str, int, tuple[str, ...]], ...]  # (kind, round, origins), as in `GossipPull`


class Outcome(enum.Enum):
    """What became of an item."""

    NEW = "new"
    DUPLICATE = "duplicate"
    OLDER = "older"
    EQUIVOCATION = "equivocation"
    FULL = "full"
    NOT_CARRIED = "not-carried"


def _positive(_instance: object, field: attrs.Attribute[int], value: int) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be positive, got {value!r}")


@attrs.frozen(kw_only=True)
class ExchangeLimits:
    """Bounds of what is held and of one message.

    Attributes:
        max_items: items held; a basket of n clients has at most n + 1. Beyond it older rounds make room.
        max_bytes: encoded bytes held. 256 MiB hold 300 vectors of 10^5 int64.
        message_items: items of one push.
        message_bytes: encoded bytes of one push. The codec takes 4 MiB of such items; one larger item (a vector above
            350,000 numbers) is not gossiped.
    """

    max_items: int = attrs.field(default=16_384, validator=_positive)
    max_bytes: int = attrs.field(default=256 << 20, validator=_positive)
    message_items: int = attrs.field(default=128, validator=_positive)
    message_bytes: int = attrs.field(default=3 << 20, validator=_positive)


def _age_order(item: Item) -> tuple[int, bool, Key]:
    """Order of eviction: oldest round first, Models last in it, then by key, so that it does not depend on arrival."""
    return (item.round_id, not item.is_contribution, item.key)


def _need_order(place: tuple[str, int]) -> tuple[bool, int, str]:
    """Order of an answer: Models first, then newest rounds."""
    return (place[0] != _MODEL, -place[1], place[0])


class Exchange:
    """The map (kind, origin) -> newest item.

    Attributes:
        counts: outcomes of `add`.
        num_evicted: items of older rounds that made room.
        num_oversized: items that no message can carry.
        proofs: (kind, origin) -> its newest equivocation.
    """

    def __init__(self, limits: ExchangeLimits | None = None) -> None:
        self._limits = limits or ExchangeLimits()
        self._items: dict[Key, Item] = {}
        self._encoded: set[bytes] = set()  # of the items
        self._rounds: dict[tuple[str, int], dict[str, Item]] = {}  # the items by (kind, round), then origin
        self._size_bytes = 0
        self.counts: Counter[Outcome] = Counter()
        self.num_evicted = 0
        self.num_oversized = 0
        self.proofs: dict[Key, Equivocation] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size_bytes(self) -> int:
        """Encoded bytes held."""
        return self._size_bytes

    @property
    def encoded(self) -> AbstractSet[bytes]:
        """The very bytes that are held: most of a push is known, and need not even be decoded."""
        return self._encoded

    def add(self, item: Item) -> Outcome:
        """Hold a verified item, of a kind that gossip carries, if it is the newest of its (kind, origin)."""
        outcome = self._add(item, self._items.get(item.key))
        self.counts[outcome] += 1
        return outcome

    def add_all(self, items: Collection[Item]) -> tuple[list[Item], list[Equivocation]]:
        """Add verified items one after another; return which are new, and the equivocations found."""
        held = self._items
        new: list[Item] = []
        found: list[Equivocation] = []
        for item in items:
            known = self.proofs.get(item.key)
            outcome = self._add(item, held.get(item.key))
            if outcome is Outcome.NEW:
                new.append(item)
                continue
            self.counts[outcome] += 1
            if (proof := self.proofs.get(item.key)) is not None and proof is not known:
                found.append(proof)
        self.counts[Outcome.NEW] += len(new)
        # The first half of an equivocation may have come just before the second.
        return ([item for item in new if item.key not in self.proofs or held.get(item.key) is item], found)

    def unknown(self, items: Iterable[Item]) -> list[Item]:
        """Return the items that would change something; the signatures of the others need not be checked."""
        held, proofs = self._items, self.proofs
        return [
            item
            for item in items
            if ((at := held.get(item.key)) is None or at.round_id < item.round_id or _differ(at, item))
            and not (proofs and item.round_id <= self._barred(item.key))
        ]

    def _barred(self, key: Key) -> int:
        proof = self.proofs.get(key)
        return -1 if proof is None else proof.first.header.round_id

    def _add(self, item: Item, held: Item | None) -> Outcome:
        key = item.key
        if self.proofs and item.round_id <= (barred := self._barred(key)):
            return Outcome.EQUIVOCATION if item.round_id == barred else Outcome.OLDER
        if held is not None and item.round_id <= held.round_id:
            if item.round_id < held.round_id:
                return Outcome.OLDER
            if _same(held, item):
                return Outcome.DUPLICATE
            self.discard(key)
            self.proofs[key] = Equivocation(held.packet, item.packet)
            return Outcome.EQUIVOCATION
        size_bytes = self._size_bytes + len(item.encoded) - (0 if held is None else len(held.encoded))
        num_items = len(self._items) + (held is None)
        too_much = size_bytes > self._limits.max_bytes or num_items > self._limits.max_items
        if too_much and not self._evict_for(item, size_bytes, num_items):
            return Outcome.FULL
        self.num_oversized += len(item.encoded) > self._limits.message_bytes
        self._put(item, held)
        return Outcome.NEW

    def _put(self, item: Item, replaced: Item | None) -> None:
        if replaced is not None:
            self.discard(item.key)
        key, encoded = item.key, item.encoded
        self._items[key] = item
        self._encoded.add(encoded)
        self._size_bytes += len(encoded)
        of_round = self._rounds.get((key[0], item.round_id))
        if of_round is None:
            of_round = self._rounds[key[0], item.round_id] = {}
        of_round[key[1]] = item

    def _evict_for(self, item: Item, size_bytes: int, num_items: int) -> bool:
        """Let items of older rounds make room, if they can; the sizes are those with the item."""
        evicted: list[Key] = []
        for other in sorted((held for held in self._items.values() if held.key != item.key), key=_age_order):
            fits = size_bytes <= self._limits.max_bytes and num_items <= self._limits.max_items
            if fits or other.round_id >= item.round_id:
                break
            evicted.append(other.key)
            size_bytes -= len(other.encoded)
            num_items -= 1
        if size_bytes > self._limits.max_bytes or num_items > self._limits.max_items:
            return False
        for gone in evicted:
            self.discard(gone)
        self.num_evicted += len(evicted)
        return True

    def discard(self, key: Key) -> None:
        """Drop what is held of (kind, origin), if anything."""
        gone = self._items.pop(key, None)
        if gone is None:
            return
        self._encoded.discard(gone.encoded)
        self._size_bytes -= len(gone.encoded)
        place = (key[0], gone.round_id)
        of_round = self._rounds[place]
        del of_round[key[1]]
        if not of_round:
            del self._rounds[place]

    def get(self, key: Key) -> Packet | None:
        """Return the packet held of (kind, origin)."""
        held = self._items.get(key)
        return None if held is None else held.packet

    @property
    def held(self) -> Mapping[Key, Item]:
        """The items by (kind, origin)."""
        return self._items

    def is_proof(self, key: Key, item: Item) -> bool:
        """Say whether an item is half of a proof."""
        proof = self.proofs.get(key)
        return proof is not None and (item.packet is proof.first or item.packet is proof.second)

    def digest(self) -> Known:
        """Return (kind, round, origins) of what is held or barred, sorted: a barred item need not be sent again."""
        origins: dict[tuple[str, int], Iterable[str]] = dict(self._rounds)
        for kind, origin in self.proofs:
            held, barred = self._items.get((kind, origin)), self._barred((kind, origin))
            if held is None or held.round_id < barred:
                origins[kind, barred] = [*origins.get((kind, barred), ()), origin]
        return tuple((kind, round_id, tuple(sorted(origins[kind, round_id]))) for kind, round_id in sorted(origins))

    def missing_for(self, known: Known) -> tuple[Item, ...]:
        """Return what a peer with this digest lacks: Models first, then newest rounds, as much as one message takes.

        Its next pull names what it got, so what did not fit comes next.
        """
        theirs: dict[str, list[tuple[int, tuple[str, ...]]]] = {}  # by kind, newest rounds last
        for kind, round_id, origins in sorted(known):
            theirs.setdefault(kind, []).append((round_id, origins))
        lacking: list[Item] = []
        held_there: dict[str, set[str]] = {kind: set() for kind in theirs}  # of this round or a newer one
        for kind, round_id in sorted(self._rounds, key=_need_order):
            groups, newer = theirs.get(kind, []), held_there.get(kind, set())
            while groups and groups[-1][0] >= round_id:
                newer.update(groups.pop()[1])
            held = self._rounds[kind, round_id]
            lacking += [held[origin] for origin in sorted(held.keys() - newer)]
        return self.fit(lacking)

    def fit(self, items: Collection[Item]) -> tuple[Item, ...]:
        """Return the items, in order, that one message takes."""
        left_bytes = self._limits.message_bytes
        if len(items) <= self._limits.message_items and sum([len(item.encoded) for item in items]) <= left_bytes:
            return tuple(items)
        chosen: list[Item] = []
        for item in items:
            if len(chosen) == self._limits.message_items:
                break
            if len(item.encoded) <= left_bytes:
                chosen.append(item)
                left_bytes -= len(item.encoded)
        return tuple(chosen)

    def items(self) -> tuple[Item, ...]:
        """Return everything held, by sorted (kind, origin)."""
        return tuple(self._items[key] for key in sorted(self._items))

    def contributions(self) -> list[Item]:
        """Return the contributions held, in the order in which their origins first came."""
        return [item for item in self._items.values() if item.is_contribution]

    def packets(self) -> tuple[Packet, ...]:
        """Return everything held, by sorted (kind, origin)."""
        return tuple(item.packet for item in self.items())

    def of_round(self, round_id: int) -> tuple[Item, ...]:
        """Return what is held of one round, sorted by origin."""
        held = [item for place, items in self._rounds.items() if place[1] == round_id for item in items.values()]
        return tuple(sorted(held, key=lambda item: (item.key[1], item.key[0])))

    def releases(self, round_id: int) -> tuple[Packet, ...]:
        """Return the contributions held of one round, sorted by origin."""
        return tuple(item.packet for item in self.of_round(round_id) if item.is_contribution)

    def retain(self, origins: Iterable[str], epoch: int) -> None:
        """Drop items and proofs of origins that left, and contributions of other epochs, which no peer takes any more.

        The newest Model outlives its epoch: the next round starts from it.
        """
        kept = set(origins)
        for key, item in list(self._items.items()):
            outlived = item.packet.header.epoch != epoch and item.is_contribution
            if key[1] not in kept or outlived:
                self.discard(key)
        self.proofs = {key: proof for key, proof in self.proofs.items() if key[1] in kept}


def _differ(held: Item, item: Item) -> bool:
    """Say whether an item of the round that is held is another one."""
    return held.round_id == item.round_id and not _same(held, item)


def _same(held: Item, item: Item) -> bool:
    if held.encoded == item.encoded:
        return True
    # An origin can sign one body in several ways; only another body (or place) is another item.
    same_place = held.packet.header == item.packet.header
    return same_place and body_digest(held.packet.body) == body_digest(item.packet.body)
