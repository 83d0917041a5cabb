"""How a packet crosses from one node to another: the canonical bytes of `federation.codec` in one opaque message.

Two messages, because what a packet needs of its carrier is known from its kind (`federation.transport.guarantee_of`):
gossip repairs its own losses, all else goes over the reliable channel. Who says it is not in the parcel: that is the
actor that told it, whose node the link has proven.

A peer's message is built from whatever values its bytes hold, so a parcel looks at the type of its field itself: the
decoder then refuses it, and no handler ever meets a parcel of something else.
"""

from __future__ import annotations

import attrs

from actors import message
from scarcity.errors import CodecError
from scarcity.federation.codec import encode_packet
from scarcity.federation.packets import Packet
from scarcity.federation.transport import Guarantee, guarantee_of


def _bytes(_instance: object, field: attrs.Attribute[bytes], value: object) -> None:
    if type(value) is not bytes:
        raise CodecError(f"{field.name}: expected bytes, got {type(value).__name__}")


@message("scarcity.protocol", reliable=True)
class Parcel:
    """A packet that must arrive: once, in order."""

    packet: bytes = attrs.field(validator=_bytes)


@message("scarcity.gossip")
class GossipParcel:
    """A packet that may be lost."""

    packet: bytes = attrs.field(validator=_bytes)


def parcel_of(packet: Packet) -> Parcel | GossipParcel:
    """Return a packet as the message that carries it between nodes."""
    data = encode_packet(packet)
    return Parcel(data) if guarantee_of(packet.body) is Guarantee.RELIABLE else GossipParcel(data)
