"""One reader for all members of a simulated world: what is a pure function of signed bytes is done once.

Honest, because nothing is left out that could come out otherwise: the same bytes decode to the same frozen packet, a
signature holds for this very packet and key or it does not, and what a key of this process has just signed holds. Real
members each pay for all of it; the simulator's own time is all that is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from nacl.signing import SigningKey

from scarcity.federation.codec import decode_packet, signature_holds
from scarcity.federation.packets import Packet
from scarcity.federation.reader import Item, item_of

T = TypeVar("T")
_OF_A_MEMBER = 16  # packets kept in mind: it signs one or two a round
_OF_A_BASKET = 8  # values of `once`: a gate for each round, which holds the round's items


class SharedReader:
    """Reads each item once in this process, however many members get it.

    Args:
        num_members: how many read with it; what it keeps in mind is bounded by their newest rounds.
        num_baskets: in how many baskets.
    """

    def __init__(self, num_members: int, num_baskets: int) -> None:
        self.memory = _OF_A_MEMBER * num_members
        self._most_values = _OF_A_BASKET * num_baskets
        self._items: dict[bytes, Item] = {}
        self._packed: dict[int, Item] = {}
        # A packet that is held keeps its id().
        self._verdicts: dict[tuple[int, bytes], tuple[Packet, bool]] = {}
        self._values: dict[Hashable, Any] = {}

    def item(self, encoded: bytes) -> Item:
        """Return the item of canonical bytes; CodecError otherwise."""
        item = self._items.get(encoded)
        if item is None:
            item = self._met(item_of(decode_packet(encoded), encoded))
        return item

    def item_of(self, packet: Packet) -> Item:
        """Return the item of a packet."""
        return self._packed.get(id(packet)) or self._met(item_of(packet))

    def _met(self, item: Item) -> Item:
        # An item that is held keeps its packet, and so the packet's id().
        _keep(self._items, item.encoded, item, self.memory)
        _keep(self._packed, id(item.packet), item, self.memory)
        return item

    def holds(self, packet: Packet, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the packet."""
        known = self._verdicts.get((id(packet), public_key))
        if known is None:
            known = (packet, signature_holds(packet, public_key))
            _keep(self._verdicts, (id(packet), public_key), known, self.memory)
        return known[1]

    def item_holds(self, item: Item, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the item's packet."""
        return self.holds(item.packet, public_key)

    def signed(self, packet: Packet, key: SigningKey) -> None:
        """Learn of a packet that a member of this process has just signed."""
        _keep(self._verdicts, (id(packet), bytes(key.verify_key)), (packet, True), self.memory)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, the same for an equal key."""
        if key not in self._values:
            _keep(self._values, key, make(), self._most_values)
        return cast("T", self._values[key])


def _keep(memory: dict[Any, Any], place: Any, value: Any, most: int) -> None:
    memory[place] = value
    if len(memory) > most:
        del memory[next(iter(memory))]
