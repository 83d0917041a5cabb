"""What a member holds for gossip: the newest signed item of each (kind, origin).

Newest round wins, so the state is bounded by the roster; items and bytes have named bounds beside that. Two different
bodies of one origin for one round are an equivocation: both are kept as proof, neither is used any more, and the place
stays barred up to that round. The same body under another signature of its origin is the same item.

Nothing is verified here: the caller adds what it has verified.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.codec import body_digest, encode_packet, kind_of
from scarcity.federation.packets import CONTRIBUTIONS, Packet
from scarcity.federation.validator import Equivocation

Key = tuple[str, str]  # kind, origin


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


@attrs.frozen(eq=False)
class Item:
    """A signed packet and its canonical bytes, which are what travels."""

    packet: Packet
    encoded: bytes

    @property
    def round_id(self) -> int:
        """The round it is of."""
        return self.packet.header.round_id


def item_key(packet: Packet) -> Key:
    """Return (kind, origin), of which the newest round is held."""
    return (kind_of(packet.body), packet.header.sender)


def _age_order(held: tuple[Key, Item]) -> tuple[int, bool, Key]:
    """Order of eviction: oldest round first, Models last in it, then by key, so that it does not depend on arrival."""
    key, item = held
    return (item.round_id, not isinstance(item.packet.body, CONTRIBUTIONS), key)


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

    def add(self, packet: Packet, encoded: bytes | None = None) -> Outcome:
        """Hold a verified packet if it is the newest of its (kind, origin).

        Args:
            packet: of a kind that gossip carries.
            encoded: its canonical bytes, if at hand.
        """
        item = Item(packet, encode_packet(packet) if encoded is None else encoded)
        outcome = self._add(item_key(packet), item)
        self.counts[outcome] += 1
        return outcome

    def holds(self, encoded: bytes) -> bool:
        """Say whether these very bytes are held, so that they need not even be decoded: most of a push is known."""
        return encoded in self._encoded

    def knows(self, packet: Packet, encoded: bytes) -> bool:
        """Say whether adding this would change nothing, so that its signature need not be checked."""
        key, round_id = item_key(packet), packet.header.round_id
        if round_id <= self._barred(key):
            return True
        held = self._items.get(key)
        if held is None or round_id > held.round_id:
            return False
        return round_id < held.round_id or _same(held, Item(packet, encoded))

    def _barred(self, key: Key) -> int:
        proof = self.proofs.get(key)
        return -1 if proof is None else proof.first.header.round_id

    def _add(self, key: Key, item: Item) -> Outcome:
        held, barred = self._items.get(key), self._barred(key)
        if item.round_id <= barred:
            return Outcome.EQUIVOCATION if item.round_id == barred else Outcome.OLDER
        if held is not None and item.round_id < held.round_id:
            return Outcome.OLDER
        if held is not None and item.round_id == held.round_id:
            if _same(held, item):
                return Outcome.DUPLICATE
            self.discard(key)
            self.proofs[key] = Equivocation(held.packet, item.packet)
            return Outcome.EQUIVOCATION
        if len(item.encoded) > self._limits.message_bytes:
            self.num_oversized += 1
        return self._store(key, item)

    def _store(self, key: Key, item: Item) -> Outcome:
        replaced = self._items.get(key)
        size_bytes = self._size_bytes + len(item.encoded) - (0 if replaced is None else len(replaced.encoded))
        excess_items = len(self._items) + (replaced is None) - self._limits.max_items
        evicted: list[Key] = []
        if size_bytes > self._limits.max_bytes or excess_items > 0:
            for other_key, other in sorted((held for held in self._items.items() if held[0] != key), key=_age_order):
                if (size_bytes <= self._limits.max_bytes and excess_items <= 0) or other.round_id >= item.round_id:
                    break
                evicted.append(other_key)
                size_bytes -= len(other.encoded)
                excess_items -= 1
        if size_bytes > self._limits.max_bytes or excess_items > 0:
            return Outcome.FULL
        for gone in evicted:
            self.discard(gone)
        self.num_evicted += len(evicted)
        self.discard(key)
        self._items[key] = item
        self._encoded.add(item.encoded)
        self._size_bytes += len(item.encoded)
        return Outcome.NEW

    def discard(self, key: Key) -> None:
        """Drop what is held of (kind, origin), if anything."""
        gone = self._items.pop(key, None)
        if gone is not None:
            self._encoded.discard(gone.encoded)
            self._size_bytes -= len(gone.encoded)

    def get(self, key: Key) -> Packet | None:
        """Return the packet held of (kind, origin)."""
        held = self._items.get(key)
        return None if held is None else held.packet

    def item(self, key: Key) -> Item | None:
        """Return the packet held with its bytes."""
        return self._items.get(key)

    def digest(self) -> tuple[tuple[str, str, int], ...]:
        """Return (kind, origin, round) of what is held or barred, sorted: a barred item need not be sent again."""
        rounds = {key: item.round_id for key, item in self._items.items()}
        for key in self.proofs:
            rounds[key] = max(rounds.get(key, -1), self._barred(key))
        return tuple((*key, rounds[key]) for key in sorted(rounds))

    def missing_for(self, known: Iterable[tuple[str, str, int]]) -> tuple[Item, ...]:
        """Return what a peer with this digest lacks: Models first, then newest rounds, as much as one message takes.

        Its next pull names what it got, so what did not fit comes next.
        """
        rounds = {(kind, origin): round_id for kind, origin, round_id in known}
        lacking = [held for held in self._items.items() if held[1].round_id > rounds.get(held[0], -1)]
        lacking.sort(key=lambda held: (isinstance(held[1].packet.body, CONTRIBUTIONS), -held[1].round_id, held[0]))
        return self.fit(item for _, item in lacking)

    def fit(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Return the items, in order, that one message takes."""
        chosen: list[Item] = []
        left_bytes = self._limits.message_bytes
        for item in items:
            if len(chosen) == self._limits.message_items:
                break
            if len(item.encoded) <= left_bytes:
                chosen.append(item)
                left_bytes -= len(item.encoded)
        return tuple(chosen)

    def packets(self) -> tuple[Packet, ...]:
        """Return everything held, by sorted (kind, origin)."""
        return tuple(self._items[key].packet for key in sorted(self._items))

    def releases(self, round_id: int) -> tuple[Packet, ...]:
        """Return the contributions held of one round, sorted by origin."""
        held = (self._items[key].packet for key in sorted(self._items, key=lambda key: (key[1], key[0])))
        return tuple(p for p in held if p.header.round_id == round_id and isinstance(p.body, CONTRIBUTIONS))

    def retain(self, origins: Iterable[str], epoch: int) -> None:
        """Drop items and proofs of origins that left, and contributions of other epochs, which no peer takes any more.

        The newest Model outlives its epoch: the next round starts from it.
        """
        kept = set(origins)
        for key, item in list(self._items.items()):
            outlived = item.packet.header.epoch != epoch and isinstance(item.packet.body, CONTRIBUTIONS)
            if key[1] not in kept or outlived:
                self.discard(key)
        self.proofs = {key: proof for key, proof in self.proofs.items() if key[1] in kept}


def _same(held: Item, item: Item) -> bool:
    if held.encoded == item.encoded:
        return True
    # An origin can sign one body in several ways; only another body (or place) is another item.
    same_place = held.packet.header == item.packet.header
    return same_place and body_digest(held.packet.body) == body_digest(item.packet.body)
