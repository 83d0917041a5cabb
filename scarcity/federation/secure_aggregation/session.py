"""The secrets of one participant in one sum, and the steps that use them.

`client` decides whether a step may be taken; here it is taken. Nothing in here touches a disk, and `wipe` overwrites
what is held. Each member is a position in the config's participants; rows follow positions.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

import numpy as np
from nacl.signing import SigningKey
from numpy.typing import NDArray

from scarcity.federation.secure_aggregation.channel import (
    EpochChannel,
    box_context,
    confirmation,
    seal,
    sign,
    unseal,
)
from scarcity.federation.secure_aggregation.config import RoundSumConfig
from scarcity.federation.secure_aggregation.masks import (
    Secret,
    add_mask,
    commitment_of,
    derive,
    exchange,
    is_sound_point,
    member_set_digest,
    pair_seed,
    public_of,
    self_seed,
    survivors_digest,
    u32,
)
from scarcity.federation.secure_aggregation.messages import (
    SHARE_BYTES,
    Advertise,
    Boxes,
    Confirm,
    Keys,
    Macs,
    Masked,
    Members,
    Reveal,
    Shares,
)
from scarcity.federation.secure_aggregation.ring import to_ring
from scarcity.federation.secure_aggregation.shamir import deal

_MASK_KEY, _SELF_SEED = 0, 1  # the two shares in a box, in this order


def advertise_body(ctx: bytes, position: int, mask_key: bytes, commitment: bytes) -> bytes:
    """Return what an Advertise signs."""
    return ctx + u32(position) + mask_key + commitment


def masked_body(ctx: bytes, u1: bytes, position: int, words: NDArray[np.uint8]) -> bytes:
    """Return what a Masked signs."""
    return derive(ctx + u1 + u32(position) + words.tobytes(), person=b"ssa1.masked")


class Session:
    """One participant's part in one sum, up to and including what it reveals."""

    def __init__(self, config: RoundSumConfig, position: int, entropy: Callable[[int], bytes]) -> None:
        self.config = config
        self.position = position
        self._entropy = entropy
        self._mask_secret = Secret("MaskKey", entropy(32))
        self._self_seed = Secret("MaskSeed", entropy(32))
        self.mask_key = public_of(self._mask_secret)
        self.commitment = commitment_of(self._self_seed.value)
        self._input: NDArray[np.unsignedinteger] | None = None
        self._own_share = Secret("SecretShare", b"")
        self._peer_shares: NDArray[np.uint8] | None = None  # (|U2| - 1, 2, 34)
        self._mask_keys: dict[int, bytes] = {}
        self._u1 = self._h3 = b""
        self._u1_members: list[int] = []
        self._u2_peers: list[int] = []
        self._survived: list[bool] = []  # one for each of _u2_peers: decides the kind of share that may be revealed

    @property
    def ctx(self) -> bytes:
        """The sum's digest."""
        return self.config.ctx

    @property
    def has_input(self) -> bool:
        """Whether the input is there and not sent yet."""
        return self._input is not None

    def _name(self, position: int) -> str:
        return self.config.participants[position]

    def hold(self, vector: NDArray[np.int64]) -> None:
        """Keep a copy of the input as ring words until it is masked."""
        self._input = to_ring(vector, self.config.bits)

    def advertise(self, signing_key: SigningKey, channel: EpochChannel) -> Advertise:
        """R0: public mask key and commitment, signed."""
        body = advertise_body(self.ctx, self.position, self.mask_key, self.commitment)
        return Advertise(
            ctx=self.ctx,
            position=self.position,
            mask_key=self.mask_key,
            commitment=self.commitment,
            epoch_key=channel.public_key,
            epoch_signature=channel.signature,
            signature=sign(signing_key, b"ssa1.adv", body),
        )

    def keys_are_sound(self, keys: Keys) -> bool:
        """Say whether one's own row is unchanged and no mask key is doubled, echoed or of small order."""
        rows = [row.tobytes() for row in keys.mask_keys]
        mine = int(np.searchsorted(keys.members, self.position))
        unchanged = rows[mine] == self.mask_key and keys.commitments[mine].tobytes() == self.commitment
        return unchanged and len(set(rows)) == len(rows) and all(map(is_sound_point, rows))

    def deal(self, keys: Keys, channel: EpochChannel) -> Shares:
        """R1: share mask key and self-mask seed among U1, one box for each other member."""
        self._u1_members = keys.members.tolist()
        self._u1 = member_set_digest(self.ctx, keys.members, keys.mask_keys, keys.commitments)
        self._mask_keys = dict(zip(self._u1_members, (row.tobytes() for row in keys.mask_keys), strict=True))
        points = tuple(1 + member for member in self._u1_members)
        secrets = (self._mask_secret.value, self._self_seed.value)
        shares = deal(secrets, points, self.config.threshold, self._entropy)
        boxes = []
        for peer, pair in zip(self._u1_members, shares, strict=True):
            if peer == self.position:
                self._own_share = Secret("SecretShare", pair[_SELF_SEED].tobytes())
                continue
            key = channel.box_key(self._name(peer), self.ctx, self._u1, upward=self.position < peer)
            boxes.append(seal(key, pair.tobytes(), self._box_context(self.position, peer)))
        shares.fill(0)
        return Shares(self.ctx, self.position, _table(boxes, 2 * SHARE_BYTES + 16))

    def _box_context(self, i: int, j: int) -> bytes:
        return box_context(self.ctx, self._u1, i, j, self._mask_keys[i], self._mask_keys[j])

    def in_u1(self, members: Members) -> bool:
        """Say whether all are members of U1."""
        return set(members.tolist()) <= set(self._u1_members)

    def open(self, message: Boxes, channel: EpochChannel) -> str | None:
        """R2: open the boxes of all other members of U2.

        Returns:
            None, or the id of the first peer whose box does not open.
        """
        self._u2_peers = [peer for peer in message.members.tolist() if peer != self.position]
        opened = np.zeros((len(self._u2_peers), 2, SHARE_BYTES), dtype=np.uint8)
        failed = None
        for row, peer, box in zip(opened, self._u2_peers, message.boxes, strict=True):
            key = channel.box_key(self._name(peer), self.ctx, self._u1, upward=peer < self.position)
            shares = unseal(key, box.tobytes(), self._box_context(peer, self.position))
            if shares is not None:
                row[:] = np.frombuffer(shares, dtype=np.uint8).reshape(2, SHARE_BYTES)
            failed = failed or (self._name(peer) if shares is None else None)
        self._peer_shares = opened
        return failed

    def mask(self, signing_key: SigningKey) -> Masked | str:
        """R2: y = q + PRG(k_b) + sum of the pairs' masks; the input is gone afterwards.

        Returns:
            The message, or the id of a peer whose key gives no secret.
        """
        assert self._input is not None, "mask() without an input"
        total, self._input = self._input, None
        add_mask(total, self_seed(self.ctx, self._self_seed.value), subtract=False)
        for peer in self._u2_peers:
            shared = exchange(self._mask_secret, self._mask_keys[peer])
            if shared is None:
                total.fill(0)
                return self._name(peer)
            # The lower position adds and the higher one subtracts, so that the pair cancels in the sum.
            seed = pair_seed(shared, self.ctx, self._u1, self.position, peer)
            add_mask(total, seed, subtract=self.position > peer)
        words = total.view(np.uint8)
        signature = sign(signing_key, b"ssa1.masked", masked_body(self.ctx, self._u1, self.position, words))
        return Masked(self.ctx, self.position, self.config.bits, self.config.dimension, words, signature)

    def in_u2(self, members: Members) -> bool:
        """Say whether all are members of U2."""
        return set(members.tolist()) <= {self.position, *self._u2_peers}

    def confirm(self, survivors: Members, channel: EpochChannel) -> Confirm:
        """R3: fix each peer's fate once and confirm U3 to every other survivor."""
        alive = set(survivors.tolist())
        self._survived = [peer in alive for peer in self._u2_peers]
        self._h3 = survivors_digest(self.ctx, self._u1, survivors)
        macs = [
            confirmation(channel.mac_key(self._name(peer), self.ctx, self._u1), self._h3, self.position, peer)
            for peer in sorted(alive - {self.position})
        ]
        return Confirm(self.ctx, self.position, _table(macs, 32))

    def confirmers_are_survivors(self, senders: Members) -> bool:
        """Say whether all are members of one's own U3 other than oneself."""
        alive = {peer for peer, survived in zip(self._u2_peers, self._survived, strict=True) if survived}
        return set(senders.tolist()) <= alive

    def check(self, message: Macs, channel: EpochChannel) -> str | None:
        """R4: return None, or the id of the first peer whose MAC does not hold on one's own h3."""
        for peer, mac in zip(message.senders.tolist(), message.macs, strict=True):
            key = channel.mac_key(self._name(peer), self.ctx, self._u1)
            if not hmac.compare_digest(confirmation(key, self._h3, peer, self.position), mac.tobytes()):
                return self._name(peer)
        return None

    def reveal(self) -> Reveal:
        """R4: for each peer the one share that its fate allows: of its seed if it survived, else of its mask key."""
        assert self._peer_shares is not None, "reveal() before the boxes"
        kinds = np.where(np.asarray(self._survived, dtype=bool), _SELF_SEED, _MASK_KEY)
        slots = self._peer_shares[np.arange(len(kinds)), kinds]
        return Reveal(self.ctx, self.position, self._own_share.value, slots)

    def wipe(self) -> None:
        """Overwrite and drop every secret of this sum."""
        for secret in (self._mask_secret, self._self_seed, self._own_share):
            secret.wipe()
        if self._peer_shares is not None:
            self._peer_shares.fill(0)
        if self._input is not None:
            self._input.fill(0)
        self._peer_shares = self._input = None
        self._survived = []


def _table(rows: list[bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width)
