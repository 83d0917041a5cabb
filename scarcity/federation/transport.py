"""The seam between cores and whatever carries packets: guarantees per kind, and what a transport must say of itself.

Addresses are member ids; the roster says which role and key stand behind one. A transport authenticates the peer at the
other end of each link and hands packets to the receiving core with that id as `sender`.
"""

from __future__ import annotations

import enum
from typing import Protocol

from scarcity.errors import ConfigError
from scarcity.federation.packets import Body, GossipPull, GossipPush, Packet, TrustMode


class Guarantee(enum.Enum):
    """What a packet needs of its carrier."""

    BEST_EFFORT = "best-effort"  # may be lost, repeated or overtaken
    RELIABLE = "reliable"  # once, in order per pair, resent until acknowledged


def guarantee_of(body: Body) -> Guarantee:
    """Gossip repairs its own losses, all else needs a reliable channel."""
    return Guarantee.BEST_EFFORT if isinstance(body, GossipPush | GossipPull) else Guarantee.RELIABLE


class Reach(enum.Enum):
    """How far a transport carries."""

    IN_PROCESS = "in-process"
    LOOPBACK = "loopback"
    NETWORK = "network"


class Transport(Protocol):
    """Carries packets between members."""

    @property
    def reach(self) -> Reach:
        """How far packets travel."""

    def send(self, to: str, packet: Packet) -> None:
        """Hand a packet over; returns at once."""


def refuse_unsafe(reach: Reach, mode: TrustMode, *, reproducible_noise: bool) -> None:
    """Refuse to carry clean vectors or reproducible noise over a network.

    Raises:
        ConfigError: mode `none`, or seeded entropy, with a transport that leaves the machine.
    """
    if reach is not Reach.NETWORK:
        return
    if mode is TrustMode.NONE:
        raise ConfigError("trust mode 'none' sends clean vectors: it is for in-process tests and comparison only")
    if reproducible_noise:
        raise ConfigError("noise from a seed protects nobody: a network transport needs the system's entropy")
