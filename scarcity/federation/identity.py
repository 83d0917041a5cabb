"""A member's voice: its id and key, and the roster that it speaks under."""

from __future__ import annotations

import attrs
from nacl.signing import SigningKey

from scarcity.federation.codec import sign_packet
from scarcity.federation.packets import SIGNED, Body, Header, Packet
from scarcity.federation.roster import Member, Roster


@attrs.define(eq=False)
class Identity:
    """Makes a member's packets.

    Attributes:
        member_id: the member's id on every roster.
        signing_key: its long-lived Ed25519 key.
        roster: the roster in force; a newer one replaces it.
    """

    member_id: str
    signing_key: SigningKey = attrs.field(repr=False)
    roster: Roster = attrs.field(repr=False)

    @property
    def member(self) -> Member:
        """This member's own entry on the roster."""
        return self.roster.member(self.member_id)

    def say(self, scope: str, round_id: int, body: Body) -> Packet:
        """Return a packet of this member, signed where its kind is."""
        header = Header(self.roster.federation, self.roster.epoch, scope, round_id, self.member_id)
        return sign_packet(header, body, self.signing_key) if type(body) in SIGNED else Packet(header, body)
