"""Randomness that a name decides: every draw is a keyed BLAKE2b of (seed, labels), whatever was drawn before it.

One shared generator would reshuffle a whole world whenever one fault is taken out. Here a draw depends on its own
labels only, so that drivers may ask in any order and a failing plan can shrink.

`Chance` decides worlds, faults and liars. `ReproducibleEntropy` feeds privacy noise and secrets from a seed: whoever
knows the seed can take the noise off again, so it protects nobody, and it exists for tests and comparisons alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import ClassVar

import attrs
import numpy as np

from scarcity.federation.effects import EntropyLabel

Label = str | int | bytes
_BLOCK_BYTES = 64
_WORD = struct.Struct("<Q").unpack_from


def _key(purpose: bytes, seed: int, labels: tuple[Label, ...]) -> bytes:
    """Return 32 bytes for the labels; each is typed and length-prefixed, so that ("a", "bc") is not ("ab", "c")."""
    parts = []
    for label in (seed, *labels):
        data = label if isinstance(label, bytes) else str(label).encode()
        parts.append(b"%b:%d:%b" % (type(label).__name__.encode(), len(data), data))
    return hashlib.blake2b(b"".join(parts), digest_size=32, person=purpose).digest()


def _stream(key: bytes) -> Callable[[int], bytes]:
    """Return a reader of BLAKE2b in counter mode: each call continues where the last one ended."""
    counter, rest = 0, b""

    def read(num_bytes: int) -> bytes:
        nonlocal counter, rest
        blocks = [rest]
        missing = num_bytes - len(rest)
        while missing > 0:
            blocks.append(hashlib.blake2b(counter.to_bytes(8, "little"), key=key, digest_size=_BLOCK_BYTES).digest())
            counter += 1
            missing -= _BLOCK_BYTES
        data = b"".join(blocks)
        rest = data[num_bytes:]
        return data[:num_bytes]

    return read


@attrs.frozen
class Chance:
    """Counter-based randomness of one seed. Never for secrets or privacy noise."""

    seed: int

    def bytes(self, num_bytes: int, *labels: Label) -> bytes:
        """Return `num_bytes` bytes that depend on the seed and the labels alone."""
        return _stream(_key(b"sim.chance", self.seed, labels))(num_bytes)

    def uniform(self, *labels: Label) -> float:
        """Return a float in [0, 1), with the 53 bits that a float has."""
        return (int.from_bytes(self.bytes(8, *labels), "little") >> 11) * 2.0**-53

    def draws(self, *labels: Label) -> Draws:
        """Return uniform draws by number, for who draws often under the same labels."""
        return Draws(_key(b"sim.draws", self.seed, labels))

    def generator(self, *labels: Label) -> np.random.Generator:
        """Return a numpy generator of its own for the labels."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.bytes(16, *labels), "little")))


class Draws:
    """Uniform draws in [0, 1) by number: the n-th is the same whichever others were asked for.

    One BLAKE2b gives eight of them, so a draw in order costs a fifth of a microsecond and not five; the last block is
    all that is kept.

    Args:
        key: 32 bytes that name the draws.
    """

    __slots__ = ("_block", "_data", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._block = -1
        self._data = b""

    def uniform(self, number: int) -> float:
        """Return the draw of a number, 0 or more, with the 53 bits that a float has."""
        block = number >> 3
        if block != self._block:
            self._data = hashlib.blake2b(block.to_bytes(8, "little"), key=self._key, digest_size=_BLOCK_BYTES).digest()
            self._block = block
        word: int = _WORD(self._data, (number & 7) << 3)[0]
        return (word >> 11) * 2.0**-53


@attrs.frozen
class ReproducibleEntropy:
    """NOT PRIVATE: an `EntropySource` whose streams follow from a seed.

    Asking twice with one label starts the same stream again, as a rerun of the whole swarm would.

    Attributes:
        seed: decides every stream.
        reproducible: what reports and transports look at; the system's entropy has no such attribute.
    """

    seed: int
    reproducible: ClassVar[bool] = True

    def __call__(self, label: EntropyLabel) -> Callable[[int], bytes]:
        """Return the label's stream: a function from a number of bytes to the next that many."""
        return _stream(_key(b"sim.notprivate", self.seed, tuple(label)))


def reproducible_entropy(seed: int) -> ReproducibleEntropy:
    """Return the entropy of a reproducible swarm: NOT PRIVATE, see `ReproducibleEntropy`."""
    return ReproducibleEntropy(seed)
