"""Gossip inside a basket: signed items spread by push and pull."""

from scarcity.federation.gossip.exchange import Exchange, ExchangeLimits, Outcome
from scarcity.federation.gossip.materiality import MaterialityDetector, ReleasedView
from scarcity.federation.gossip.protocol import GossipLimits, GossipProtocol, Received, gossip_of
from scarcity.federation.gossip.sampler import PeerSampler

__all__ = [
    "Exchange",
    "ExchangeLimits",
    "GossipLimits",
    "GossipProtocol",
    "MaterialityDetector",
    "Outcome",
    "PeerSampler",
    "Received",
    "ReleasedView",
    "gossip_of",
]
