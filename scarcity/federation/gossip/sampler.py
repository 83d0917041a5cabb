"""Choose whom to gossip with: a keyed random walk over the peers.

Peers are taken `fanout` at a time from a keyed random permutation, a new one when it is used up. So of R samples among
m peers each peer gets at most ceil(R K / m) + 1, whatever others do: nobody else's word has a part in the choice
(plain Cyclon hands 10 % liars half of the views), and without the key nobody can tell who is next.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from scarcity.errors import ConfigError

_PERSON = b"scarcity.sampler"
_MIN_KEY_BYTES = 16
_DRAWS = struct.Struct("<8Q")


def keyed_permutation(names: Iterable[str], *, key: bytes, own_id: str, counter: int) -> list[str]:
    """Return the names ordered by a BLAKE2b stream keyed by (key, own id, counter).

    Each of the sorted names draws 64 bits; they are then sorted by draw, so the order in which names are given does not
    matter, nor which other permutations were made.

    Cost: O(m log m), m / 8 hashes.
    """
    ordered = sorted(names)
    label = struct.pack("<Q", counter) + own_id.encode()
    draws: list[int] = []
    for block in range(-(-len(ordered) // 8)):
        hashed = hashlib.blake2b(struct.pack("<Q", block) + label, key=key, person=_PERSON, digest_size=64)
        draws.extend(_DRAWS.unpack(hashed.digest()))
    return [name for _, name in sorted(zip(draws, ordered, strict=False))]


class PeerSampler:
    """The walk of one member.

    Args:
        own_id: this member; it never samples itself.
        peers: whom it may choose; none is allowed.
        key: 16 to 64 secret bytes.
        fanout: peers of one sample, K. More spreads faster and sends more.
    """

    def __init__(self, own_id: str, peers: Iterable[str], key: bytes, fanout: int) -> None:
        if not _MIN_KEY_BYTES <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ConfigError(f"the sampler's key must have 16 to 64 bytes, got {len(key)}")
        if fanout < 1:
            raise ConfigError(f"fanout must be at least 1, got {fanout}")
        self._own_id = own_id
        self._key = key
        self._fanout = fanout
        self._counter = 0
        self._rest: list[str] = []
        self._peers: frozenset[str] = frozenset()
        self.update(peers)

    def update(self, peers: Iterable[str]) -> None:
        """Follow the roster and the links; who is new waits for the next permutation.

        The current permutation goes on, so that a peer that comes and goes cannot restart it.
        """
        self._peers = frozenset(peers) - {self._own_id}
        self._rest = [name for name in self._rest if name in self._peers]

    def _permute(self) -> list[str]:
        self._counter += 1
        return keyed_permutation(self._peers, key=self._key, own_id=self._own_id, counter=self._counter)

    def sample(self) -> tuple[str, ...]:
        """Return the next K distinct peers, fewer when there are fewer."""
        if len(self._rest) >= self._fanout:
            picked, self._rest = self._rest[: self._fanout], self._rest[self._fanout :]
            return tuple(picked)
        picked, fresh = self._rest, self._permute()
        # A peer that closes one permutation and opens the next is not taken twice: it stays at the head of the next.
        room = min(self._fanout, len(self._peers)) - len(picked)
        taken = [name for name in fresh if name not in picked][:room]
        self._rest = [name for name in fresh if name not in taken]
        return tuple(picked + taken)
