"""A member's voice: its id and key, and the roster that it speaks under."""

from __future__ import annotations

import attrs
from nacl.signing import SigningKey

from scarcity.errors import ProtocolError
from scarcity.federation.codec import sign_packet
from scarcity.federation.packets import SIGNED, Body, Header, Packet, RosterNotice
from scarcity.federation.reader import PlainReader, Reader
from scarcity.federation.roster import Member, Roster, verify_roster


@attrs.define(eq=False)
class Identity:
    """Makes a member's packets.

    Attributes:
        member_id: the member's id on every roster.
        signing_key: its long-lived Ed25519 key.
        roster: the roster in force; a newer one replaces it.
        reader: how it reads what others have signed.
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
        if type(body) not in SIGNED:
            return Packet(header, body)
        packet = sign_packet(header, body, self.signing_key)
        self.reader.signed(packet, self.signing_key)
        return packet
