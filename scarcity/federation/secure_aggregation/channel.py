"""Pairwise channels: the epoch's X25519 key of a member, the keys K_ij it shares with peers, and sealed boxes.

An epoch key is signed once by its owner's identity and pinned by every peer for the epoch, so each edge costs one
verification and one exchange an epoch. It lives in memory only: a leaked one opens its owner's boxes of the whole
epoch, so it is deleted at the epoch's end and a restarted member waits for the next.
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
        self._pinned: dict[str, bytes] = {}
        self._keys: dict[str, Secret] = {}

    def pin(self, peer_id: str, public_key: bytes, signature: bytes) -> Reason | None:
        """Pin a peer's epoch key on first sight and compare it afterwards.

        Returns:
            None, or why the key is refused.
        """
        known = self._pinned.get(peer_id)
        if known is not None:
            return None if known == public_key else Reason.EPOCH_KEY_CHANGED
        echoed = public_key == self.public_key or public_key in self._pinned.values()
        if echoed or not is_sound_point(public_key):
            return Reason.BAD_KEY
        if not signature_holds(self._roster[peer_id], b"ssa1.epoch", self._place.claim(peer_id, public_key), signature):
            return Reason.BAD_SIGNATURE
        shared = exchange(self._secret, public_key)
        if shared is None:
            return Reason.BAD_KEY
        low, high = sorted((self.public_key, public_key))
        where = self._place.roster_root + self._place.epoch.to_bytes(8, "little")
        self._pinned[peer_id] = public_key
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
