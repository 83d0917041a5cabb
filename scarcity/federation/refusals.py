"""Why packets are refused, and what proves that an author contradicts itself."""

from __future__ import annotations

import enum
from typing import Final

import attrs

from scarcity.federation.codec import body_digest, encode_packet, signature_holds
from scarcity.federation.effects import Entry, Reject
from scarcity.federation.packets import Packet


class Code(enum.Enum):
    """Why a packet was refused."""

    MALFORMED = "malformed"
    UNKNOWN_SENDER = "unknown-sender"
    NOT_THE_AUTHOR = "not-the-author"
    NOT_ALLOWED = "not-allowed"
    FEDERATION = "wrong-federation"
    STALE_ROSTER = "stale-roster"
    SCOPE = "wrong-scope"
    NO_ROUND = "no-round"
    STALE = "stale"
    AHEAD = "ahead"
    RATE = "rate"
    DUPLICATE = "duplicate"
    EQUIVOCATION = "equivocation"
    SCHEMA = "wrong-schema"
    SHAPE = "wrong-shape"
    NOT_FINITE = "not-finite"
    RANGE = "out-of-range"
    NORM = "norm"
    SIGNATURE = "signature"


# Refusals that say nothing against the peer: resent, late or early packets, and a roster that has not arrived yet.
HARMLESS: Final = frozenset({Code.DUPLICATE, Code.STALE, Code.AHEAD, Code.NO_ROUND, Code.STALE_ROSTER})


Fault = tuple[Code, str]  # what is wrong with a packet, and the words


def reject(peer: str, code: Code, detail: str) -> Reject:
    """Return the effect that refuses a packet; its reason starts with the code."""
    return Reject(peer, f"{code.value}: {detail}")


def code_of(refusal: Reject) -> Code:
    """Return the code of a refusal made by `reject`."""
    return Code(refusal.reason.partition(":")[0])


@attrs.frozen
class Equivocation:
    """Two signed packets of one author for the same kind, scope and round. It proves itself to whoever has the key."""

    first: Packet
    second: Packet

    @property
    def author(self) -> str:
        """Who said both."""
        return self.first.header.sender

    def entries(self) -> tuple[Entry, Entry]:
        """Return both halves as entries of a journal."""
        head = self.first.header
        key = f"{head.round_id}/{head.sender}"
        first, second = (Entry("equivocation", key, encode_packet(said)) for said in (self.first, self.second))
        return first, second

    def holds(self, public_key: bytes) -> bool:
        """Say whether this is a proof against the owner of the key."""
        same_place = self.first.header == self.second.header and type(self.first.body) is type(self.second.body)
        differs = body_digest(self.first.body) != body_digest(self.second.body)
        return same_place and differs and all(signature_holds(p, public_key) for p in (self.first, self.second))
