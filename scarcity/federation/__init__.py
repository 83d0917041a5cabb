"""The protocol: pure cores of the three roles, and what drives them in one thread."""

from scarcity.federation.client import Receipt
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.hierarchical import GossipReport, HierarchicalFederation, HierarchicalFederationConfig
from scarcity.federation.packets import Model, Release, Update

__all__ = [
    "FederationClientAgent",
    "GossipReport",
    "HierarchicalFederation",
    "HierarchicalFederationConfig",
    "Model",
    "Receipt",
    "Release",
    "Update",
]
