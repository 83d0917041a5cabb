"""Lies about packets: what a byzantine client says instead of what its core wants to say.

A lie gets each packet of its liar, with the receiver, and returns what is sent instead. `None` from a helper means that
the packet is not one to lie about. Where the forged packet must carry a signature, the liar signs: a lie is none if the
first check refuses it. `sim.faults.liars` binds lies to members.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.federation.codec import decode_packet, encode_packet
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    Body,
    GossipPush,
    Header,
    Packet,
    Ready,
    Release,
    SecureSum,
    Unprotected,
)
from sim.chance import Chance
from sim.faults.stages import STAGE_TYPES, said_in

# Signs a body in the name of the header's sender: lies that carry a signature need the liar's key.
Sign = Callable[[Header, Body], Packet]
_KEPT: Final = 16  # packets that a liar keeps to replay: two rounds' worth, and a bound
Vector = NDArray[Any]


@attrs.frozen
class Part:
    """The part of one liar in one fault.

    Attributes:
        member: the liar.
        identity: of the fault; colluders share it.
        strength: of the behaviour.
        chance: decides what is random.
        sign: signs.
        public: mask of the coordinates of an update that others can check, once known.
    """

    member: str
    identity: str
    strength: float
    chance: Chance
    sign: Sign
    public: Callable[[], NDArray[np.bool_] | None]

    def labels(self, *more: str | int) -> tuple[str | int, ...]:
        """Return what names a draw of this liar."""
        return ("lie", self.identity, self.member, *more)


class Lie(Protocol):
    """One liar's lie."""

    def say(self, dst: str, packet: Packet) -> tuple[Packet, ...]:
        """Return what is sent instead of a packet; the packet itself, alone, when it is not lied about."""


def forged(part: Part, packet: Packet) -> Packet | None:
    """Return a contribution with its vector negated, or a Ready of more weight, signed; None for all else."""
    body = packet.body
    if isinstance(body, Ready):
        return part.sign(packet.header, Ready(body.weight + 1))
    if not isinstance(body, CONTRIBUTIONS):
        return None
    vector: Any = _kept_public(part, body.vector, -body.vector)
    return part.sign(packet.header, attrs.evolve(body, vector=vector))


def _kept_public(part: Part, honest: Vector, lie: Vector) -> Vector:
    mask = part.public()
    if mask is None or mask.shape != honest.shape:
        return lie
    return np.asarray(np.where(mask, honest, lie), dtype=honest.dtype)


def _items_forged(part: Part, body: GossipPush, forge: Callable[[Packet], Packet | None]) -> GossipPush:
    """Return a push whose items by the liar itself are forged."""
    items = []
    for item in body.items:
        packet = decode_packet(item)
        lie = forge(packet) if packet.header.sender == part.member else None
        items.append(item if lie is None else encode_packet(lie))
    return GossipPush(tuple(items))


def _everywhere(part: Part, packet: Packet, forge: Callable[[Packet], Packet | None]) -> Packet:
    """Return a packet with what the liar itself has said forged, in gossip too."""
    if isinstance(packet.body, GossipPush):
        body = _items_forged(part, packet.body, forge)
        return packet if body == packet.body else attrs.evolve(packet, body=body)
    return forge(packet) or packet


@attrs.define(eq=False)
class _Equivocate:
    part: Part

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        lie = forged(self.part, packet)
        return (packet,) if lie is None else (packet, lie)


@attrs.define(eq=False)
class _Dissensus:
    part: Part

    def say(self, dst: str, packet: Packet) -> tuple[Packet, ...]:
        if not isinstance(packet.body, GossipPush) or self.part.chance.uniform(*self.part.labels(dst)) >= 0.5:
            return (packet,)
        return (_everywhere(self.part, packet, lambda item: forged(self.part, item)),)


@attrs.define(eq=False)
class _Noiseless:
    """All colluders send one vector; it hides among those that carry noise, and has none. robustness: sqrt(d) sigma."""

    part: Part

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        return (_everywhere(self.part, packet, self._forge),)

    def _forge(self, packet: Packet) -> Packet | None:
        body = packet.body
        if not isinstance(body, Release):
            return None
        part, round_id = self.part, packet.header.round_id
        signs = part.chance.generator("lie", part.identity, round_id).integers(0, 2, body.vector.size) * 2 - 1
        length = part.strength * float(np.sqrt(np.mean(body.vector.astype(np.float64) ** 2)))
        vector = _kept_public(part, body.vector, np.rint(length * signs).astype(np.int64))
        return part.sign(packet.header, attrs.evolve(body, vector=vector))


@attrs.define(eq=False)
class _NonFinite:
    part: Part

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        return (_everywhere(self.part, packet, self._forge),)

    def _forge(self, packet: Packet) -> Packet | None:
        body = packet.body
        if not isinstance(body, Unprotected):
            return None
        vector = np.full(body.vector.shape, np.nan)
        vector[::2] = np.inf
        return self.part.sign(packet.header, attrs.evolve(body, vector=vector))


@attrs.define(eq=False)
class _Replay:
    part: Part
    _said: deque[Packet] = attrs.field(factory=lambda: deque(maxlen=_KEPT))
    _num_said: int = 0

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        self._num_said += 1
        part, num_old = self.part, max(1, int(self.part.strength))
        draws = [part.chance.uniform(*part.labels(self._num_said, i)) for i in range(num_old)]
        old = tuple(self._said[int(draw * len(self._said))] for draw in draws) if self._said else ()
        self._said.append(packet)
        return (packet, *old)


@attrs.define(eq=False)
class _Stale:
    part: Part
    _said: dict[type, dict[int, Packet]] = attrs.field(factory=dict)

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        return (_everywhere(self.part, packet, self._old),)

    def _old(self, packet: Packet) -> Packet | None:
        said, age = said_in(packet), max(1, int(self.part.strength))
        if said not in STAGE_TYPES:
            return None
        rounds, now = self._said.setdefault(said, {}), packet.header.round_id
        rounds[now] = packet
        for old in [round_id for round_id in rounds if round_id < now - age]:
            del rounds[old]
        return rounds.get(now - age)


@attrs.define(eq=False)
class _Garbage:
    part: Part
    _num_said: int = 0

    def say(self, _dst: str, packet: Packet) -> tuple[Packet, ...]:
        self._num_said += 1
        labels = self.part.labels(self._num_said)
        if self.part.chance.uniform(*labels) >= self.part.strength:
            return (packet,)
        body = packet.body
        if isinstance(body, SecureSum):
            noise = self.part.chance.bytes(len(body.payload), *labels, "bytes")
            return (attrs.evolve(packet, body=SecureSum(noise)),)
        if isinstance(body, GossipPush):
            items = (self.part.chance.bytes(len(item), *labels, i) for i, item in enumerate(body.items))
            return (attrs.evolve(packet, body=GossipPush(tuple(items))),)
        if not packet.signature:
            return (packet,)
        return (attrs.evolve(packet, signature=self.part.chance.bytes(len(packet.signature), *labels, "bytes")),)


LIES: Final[Mapping[str, Callable[[Part], Lie]]] = MappingProxyType(
    {
        "noiseless": _Noiseless,
        "non-finite": _NonFinite,
        "equivocate": _Equivocate,
        "dissensus": _Dissensus,
        "replay": _Replay,
        "stale": _Stale,
        "garbage": _Garbage,
    }
)
SIGNED_LIES: Final = frozenset({"noiseless", "non-finite", "equivocate", "dissensus"})
