"""How a member reads what others have signed.

All of it is pure: the same bytes are the same packet, and a signature holds for this very packet and key or it does
not. So members that share a process may share the work; a member alone has a `PlainReader`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

import attrs
from nacl.signing import SigningKey

from scarcity.federation.codec import decode_packet, encode_packet, kind_of, signature_holds
from scarcity.federation.packets import CONTRIBUTIONS, Packet, digest_of

T = TypeVar("T")
Key = tuple[str, str]  # kind, origin: gossip holds the newest round of each
_VERDICTS = 4096  # signature checks that a reader remembers


@attrs.frozen(eq=False)
class Item:
    """A signed packet as gossip carries it, and what is asked of it again and again.

    Attributes:
        packet: as decoded.
        encoded: its canonical bytes, which are what travels.
        key: (kind, origin).
        round_id: the round it is of.
        is_contribution: or a Model.
    """

    packet: Packet
    encoded: bytes
    key: Key
    round_id: int
    is_contribution: bool


def item_of(packet: Packet, encoded: bytes | None = None) -> Item:
    """Return the item of a packet; `encoded` are its canonical bytes, if at hand."""
    head, body = packet.header, packet.body
    return Item(
        packet,
        encode_packet(packet) if encoded is None else encoded,
        (kind_of(body), head.sender),
        head.round_id,
        isinstance(body, CONTRIBUTIONS),
    )


class Reader(Protocol):
    """Reads signed packets.

    Attributes:
        memory: how many items whoever reads with it may keep in mind beside those that it holds anyway.
    """

    memory: int

    def item(self, encoded: bytes) -> Item:
        """Return the item of canonical bytes; CodecError otherwise."""

    def item_of(self, packet: Packet) -> Item:
        """Return the item of a packet."""

    def holds(self, packet: Packet, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the packet."""

    def item_holds(self, item: Item, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the item's packet; asked again, it is cheap."""

    def signed(self, packet: Packet, key: SigningKey) -> None:
        """Learn of a packet that a member of this process has just signed."""

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives, a function of the key; whoever asks with an equal key may be given the same."""


class PlainReader:
    """Reads every packet anew, and remembers of items which signatures hold.

    Attributes:
        num_verified: signatures of items that were checked.
        num_forgotten: verdicts that the bound pushed out.
    """

    memory = 0

    def __init__(self, verdicts: int = _VERDICTS) -> None:
        self._bound = verdicts
        self._verdicts: OrderedDict[tuple[bytes, bytes], bool] = OrderedDict()
        self.num_verified = 0
        self.num_forgotten = 0

    def item(self, encoded: bytes) -> Item:
        """Return the item of canonical bytes; CodecError otherwise."""
        return item_of(decode_packet(encoded), encoded)

    def item_of(self, packet: Packet) -> Item:
        """Return the item of a packet."""
        return item_of(packet)

    def holds(self, packet: Packet, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the packet."""
        return signature_holds(packet, public_key)

    def item_holds(self, item: Item, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the item's packet: each item is checked once."""
        place = (digest_of(item.encoded), public_key)
        if place not in self._verdicts:
            self.num_verified += 1
            self._verdicts[place] = signature_holds(item.packet, public_key)
            if len(self._verdicts) > self._bound:
                self._verdicts.popitem(last=False)
                self.num_forgotten += 1
        return self._verdicts[place]

    def signed(self, packet: Packet, key: SigningKey) -> None:
        """Forget it: nobody else reads with this reader."""

    def once(self, _key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives."""
        return make()
