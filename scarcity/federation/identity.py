"""A member's voice: its id and key, and the roster that it speaks under; and how it reads what others have signed."""

from __future__ import annotations

from typing import Protocol

import attrs
from nacl.signing import SigningKey

from scarcity.errors import ProtocolError
from scarcity.federation.codec import decode_packet, sign_packet, signature_holds
from scarcity.federation.packets import SIGNED, Body, Header, Packet, RosterNotice
from scarcity.federation.roster import Member, Roster, verify_roster


class Reader(Protocol):
    """Reads signed packets: two pure functions. Members that share a process may share the work."""

    def decode(self, encoded: bytes) -> Packet:
        """Return the packet of canonical bytes; CodecError otherwise."""

    def holds(self, packet: Packet, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the packet."""


class PlainReader:
    """Reads every packet anew."""

    def decode(self, encoded: bytes) -> Packet:
        """Return the packet of canonical bytes; CodecError otherwise."""
        return decode_packet(encoded)

    def holds(self, packet: Packet, public_key: bytes) -> bool:
        """Say whether the owner of the key signed the packet."""
        return signature_holds(packet, public_key)


@attrs.define(eq=False)
class Identity:
    """Makes a member's packets.

    Attributes:
        member_id: the member's id on every roster.
        signing_key: its long-lived Ed25519 key.
        roster: the roster in force; a newer one replaces it.
        reader: how gossip's items are read.
    """

    member_id: str
    signing_key: SigningKey = attrs.field(repr=False)
    roster: Roster = attrs.field(repr=False)
    reader: Reader = attrs.field(factory=PlainReader, repr=False)

    @property
    def member(self) -> Member:
        """This member's own entry on the roster."""
        return self.roster.member(self.member_id)

    def newer_roster(self, notice: RosterNotice, operator_key: bytes) -> Roster | None:
        """Return the roster of a notice if this member should go over to it, None if it is a copy of what is known.

        Raises:
            ProtocolError: the operator did not sign it, or it has no place, or another key or domain, for this member.
        """
        roster = verify_roster(notice.roster, notice.signature, operator_key)
        if roster.epoch <= self.roster.epoch:
            return None
        if self.member not in roster.members:
            raise ProtocolError(f"the roster of epoch {roster.epoch} does not hold this member with its key and domain")
        return roster

    def say(self, scope: str, round_id: int, body: Body) -> Packet:
        """Return a packet of this member, signed where its kind is."""
        header = Header(self.roster.federation, self.roster.epoch, scope, round_id, self.member_id)
        return sign_packet(header, body, self.signing_key) if type(body) in SIGNED else Packet(header, body)
