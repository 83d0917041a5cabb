"""Federated discovery of what drives what, with gossip, secure aggregation and an enforced privacy budget.

The names below load on first use, so that `import scarcity` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "FederationClientAgent": "scarcity.federation.client_agent",
    "HierarchicalFederation": "scarcity.federation.hierarchical",
    "HierarchicalFederationConfig": "scarcity.federation.hierarchical",
    "OnlineDiscoveryEngine": "scarcity.engine.online",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'scarcity' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
