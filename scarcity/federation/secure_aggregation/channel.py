"""Pairwise channels: the epoch's X25519 key of a member, the keys K_ij it shares with peers, and sealed boxes.

An epoch key is signed once by its owner's identity and pinned by every peer, so each edge costs one verification and
one exchange an epoch. It lives in memory only: a leaked one opens its owner's boxes of all rounds it was used in, so it
is deleted at the epoch's end and never written down. A restarted member makes a new one and brings it to a later round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs
import msgpack
import nacl.bindings as sodium
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from scarcity.federation.secure_aggregation.masks import Secret, derive, exchange, is_sound_point, public_of, u32
from scarcity.federation.secure_aggregation.reasons import Reason

# Every box has a key of its own, so the nonce can be constant.
_NONCE: Final = bytes(24)


def sign(key: SigningKey, label: bytes, body: bytes) -> bytes:
    """Return the Ed25519 signature over label || body."""
    return key.sign(label + body).signature


def signature_holds(public_key: bytes, label: bytes, body: bytes, signature: bytes) -> bool:
    """Say whether the owner of the key signed label || body."""
    try:
        VerifyKey(public_key).verify(label + body, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


@attrs.frozen
class EpochPlace:
    """What an epoch key is bound to."""

    suite: int
    federation: str
    roster_root: bytes
    epoch: int

    def claim(self, member_id: str, public_key: bytes) -> bytes:
        """Return the bytes that a member signs for its epoch key."""
        place = [self.suite, self.federation, self.roster_root, self.epoch, member_id, public_key]
        return bytes(msgpack.packb(place))


@attrs.define(eq=False)
class EpochKeys:
    """Which channel key each member has: one within a round, and a newer one only in a later round.

    A member that was restarted has lost its key and signs another. Nobody goes back: a key that was replaced is refused
    for good, so that a host cannot play old and new against each other. Peers and hosts hold one book an epoch each.
    """

    _held: dict[str, tuple[bytes, int]] = attrs.field(factory=dict, init=False)  # member -> key, newest round it was in
    _replaced: set[bytes] = attrs.field(factory=set, init=False)

    def uses(self, member_id: str, public_key: bytes, round_id: int) -> bool:
        """Say whether this is the member's key, and note the round."""
        key, last_round = self._held.get(member_id, (b"", round_id))
        if key != public_key:
            return False
        self._held[member_id] = (key, max(last_round, round_id))
        return True

    def fault(self, member_id: str, public_key: bytes, round_id: int) -> Reason | None:
        """Say why another key may not become the member's, None if it may."""
        held = self._held.get(member_id)
        if held is not None and (round_id <= held[1] or public_key in self._replaced):
            return Reason.EPOCH_KEY_CHANGED
        doubled = public_key in self._replaced or any(public_key == key for key, _ in self._held.values())
        return Reason.BAD_KEY if doubled or not is_sound_point(public_key) else None

    def take(self, member_id: str, public_key: bytes, round_id: int) -> None:
        """Make it the member's key from this round on."""
        if member_id in self._held:
            self._replaced.add(self._held[member_id][0])
        self._held[member_id] = (public_key, round_id)

    def clear(self) -> None:
        """Forget all: the epoch is over."""
        self._held.clear()
        self._replaced.clear()


class EpochChannel:
    """One member's channel key of one epoch and the peers' keys it has pinned."""

    def __init__(
        self,
        own_id: str,
        signing_key: SigningKey,
        roster: Mapping[str, bytes],
        place: EpochPlace,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._own_id = own_id
        self._roster = roster
        self._place = place
        self._secret = Secret("EpochKey", entropy(32))
        self.public_key = public_of(self._secret)
        self.signature = sign(signing_key, b"ssa1.epoch", place.claim(own_id, self.public_key))
        self._pinned = EpochKeys()
        self._keys: dict[str, Secret] = {}

    def pin(self, peer_id: str, public_key: bytes, signature: bytes, round_id: int) -> Reason | None:
        """Pin a peer's epoch key on first sight and compare it afterwards; a restarted peer's is replaced.

        Returns:
            None, or why the key is refused.
        """
        if self._pinned.uses(peer_id, public_key, round_id):
            return None
        if public_key == self.public_key:
            return Reason.BAD_KEY
        if fault := self._pinned.fault(peer_id, public_key, round_id):
            return fault
        if not signature_holds(self._roster[peer_id], b"ssa1.epoch", self._place.claim(peer_id, public_key), signature):
            return Reason.BAD_SIGNATURE
        shared = exchange(self._secret, public_key)
        if shared is None:
            return Reason.BAD_KEY
        low, high = sorted((self.public_key, public_key))
        where = self._place.roster_root + self._place.epoch.to_bytes(8, "little")
        self._pinned.take(peer_id, public_key, round_id)
        self._keys[peer_id] = Secret("ChannelKey", derive(low + high + where, key=shared, person=b"ssa1.epoch"))
        return None

    def box_key(self, peer_id: str, ctx: bytes, u1: bytes, *, upward: bool) -> bytes:
        """Return the key of the one box from one end to the other in this sum; `upward`: to the higher position."""
        direction = b".up" if upward else b".down"
        return derive(ctx + u1, key=self._keys[peer_id].value, person=b"ssa1.chan" + direction)

    def mac_key(self, peer_id: str, ctx: bytes, u1: bytes) -> bytes:
        """Return the key of this sum's confirmations on this edge."""
        return derive(ctx + u1, key=self._keys[peer_id].value, person=b"ssa1.conf")

    def wipe(self) -> None:
        """Delete the epoch key and all keys that came of it."""
        self._secret.wipe()
        for key in self._keys.values():
            key.wipe()
        self._keys.clear()
        self._pinned.clear()


def box_context(ctx: bytes, u1: bytes, i: int, j: int, mask_key_i: bytes, mask_key_j: bytes) -> bytes:
    """Return what a box from i to j authenticates beside its content."""
    return ctx + u32(i, j) + mask_key_i + mask_key_j + u1


def seal(key: bytes, shares: bytes, context: bytes) -> bytes:
    """Return the box of shares under a key that is used once."""
    return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(shares, context, _NONCE, key)


def unseal(key: bytes, box: bytes, context: bytes) -> bytes | None:
    """Return the shares in a box, or None."""
    try:
        return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(box, context, _NONCE, key)
    except CryptoError:
        return None


def confirmation(mac_key: bytes, h3: bytes, i: int, j: int) -> bytes:
    """Return MAC(i->j) on h3; without the sender in it, a MAC could be reflected to its maker."""
    return derive(h3 + u32(i, j), key=mac_key, person=b"ssa1.mac")
