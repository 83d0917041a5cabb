"""Key derivation and the mask generator of SSA-1, suite 1.

Every derived key is BLAKE2b with its own `person` string, and its input names the sum (`ctx`), the member set (`u1`)
and the pair, so equal bytes in two places of the protocol, in two sums or in two directions never give one key.
The generator is ChaCha20 (IETF, counter 1) in chunks of 128 KiB, nonce = chunk index: a chunk stays in the cache while
it is added to the vector. The same bytes come out of AEAD over zeros, which the tests use as a twin.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import nacl.bindings as sodium
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

CHUNK_BYTES: Final = 1 << 17
_ZEROS: Final = bytes(CHUNK_BYTES)
_FIELD: Final = 2**255 - 19
# The canonical encodings of the points of small order on Curve25519 (order 4, 1, 8, 8, 2).
_LOW_ORDER: Final = frozenset(
    {
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (_FIELD - 1).to_bytes(32, "little"),
    }
)


class Secret:
    """Secret bytes that print as a length and can be overwritten."""

    __slots__ = ("_data", "_name")

    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = bytearray(data)

    def __repr__(self) -> str:
        return f"<{self._name}: {len(self._data)} secret bytes>"

    @property
    def value(self) -> bytes:
        """The bytes; zeros once wiped."""
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite the bytes."""
        self._data[:] = bytes(len(self._data))


def derive(data: bytes, *, person: bytes, key: bytes = b"") -> bytes:
    """Return BLAKE2b-256 of data; `person` separates the places of the protocol."""
    return hashlib.blake2b(data, digest_size=32, key=key, person=person).digest()


def u32(*positions: int) -> bytes:
    """Return positions as u32, little-endian."""
    return b"".join(position.to_bytes(4, "little") for position in positions)


def is_sound_point(public_key: bytes) -> bool:
    """Say whether an X25519 public key is canonical and not of small order."""
    return int.from_bytes(public_key, "little") < _FIELD and public_key not in _LOW_ORDER


def public_of(secret: Secret) -> bytes:
    """Return the X25519 public key of a secret."""
    return sodium.crypto_scalarmult_base(secret.value)


def exchange(secret: Secret, public_key: bytes) -> bytes | None:
    """Return X25519(secret, public_key), or None where the shared secret would be all zero."""
    try:
        return sodium.crypto_scalarmult(secret.value, public_key)
    except CryptoError:
        return None


def commitment_of(self_seed: bytes) -> bytes:
    """Return cmt, which binds a member to its self-mask seed."""
    return derive(self_seed, person=b"ssa1.cmt")


def member_set_digest(
    ctx: bytes, members: NDArray[np.uint32], mask_keys: NDArray[np.uint8], commitments: NDArray[np.uint8]
) -> bytes:
    """Return u1: the sum and, for each member of U1 in order, its position, mask key and commitment."""
    positions = members.astype("<u4").view(np.uint8).reshape(-1, 4)
    return derive(ctx + np.hstack([positions, mask_keys, commitments]).tobytes(), person=b"ssa1.u1")


def survivors_digest(ctx: bytes, u1: bytes, survivors: NDArray[np.uint32]) -> bytes:
    """Return h3: the sum, U1 and U3."""
    return derive(ctx + u1 + survivors.astype("<u4").tobytes(), person=b"ssa1.u3")


def pair_seed(shared: bytes, ctx: bytes, u1: bytes, i: int, j: int) -> bytes:
    """Return s_ij, the same at both ends."""
    return derive(ctx + u1 + u32(min(i, j), max(i, j)), key=shared, person=b"ssa1.mask")


def self_seed(ctx: bytes, b: bytes) -> bytes:
    """Return k_b, the seed of a member's own mask."""
    return derive(ctx, key=b, person=b"ssa1.self")


def add_mask(total: NDArray[Any], seed: bytes, *, subtract: bool) -> None:
    """Add PRG(seed) to a ring vector in place, or subtract it.

    Args:
        total: shape (d,), little-endian uint32 or uint64, contiguous; overwritten.
        seed: 32 bytes, used for this vector only.
        subtract: the higher position of a pair subtracts, so that the pair cancels in the sum.
    """
    apply = np.subtract if subtract else np.add
    per_chunk = CHUNK_BYTES // total.itemsize
    buffer = bytearray(CHUNK_BYTES)
    stream = np.frombuffer(buffer, dtype=total.dtype)
    for index, start in enumerate(range(0, len(total), per_chunk)):
        part = total[start : start + per_chunk]
        cipher = Cipher(algorithms.ChaCha20(seed, u32(1) + index.to_bytes(12, "little")), mode=None)
        cipher.encryptor().update_into(_ZEROS[: part.nbytes], buffer)
        apply(part, stream[: len(part)], out=part)
