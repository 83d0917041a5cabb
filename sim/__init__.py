"""Whole swarms in one process: worlds, faults, attacks, reports.

    from sim import Churn, Latency, Loss, Partition, World

The names below load on first use, so that a command that needs none of them does not wait for them.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    **dict.fromkeys(("Bandwidth", "Duplicate", "Latency", "Loss", "Reorder"), "sim.faults.network"),
    **dict.fromkeys(("Byzantine", "Churn", "ClockSkew", "Clog", "Crash", "Dropout", "FaultPlan"), "sim.faults.plan"),
    **dict.fromkeys(("Partition", "SlowHandler"), "sim.faults.plan"),
    **dict.fromkeys(("SimResult", "Violation"), "sim.worlds.result"),
    "World": "sim.worlds.world",
    "WorldConfig": "sim.worlds.built",
}

__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
