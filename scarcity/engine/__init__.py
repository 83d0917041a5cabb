"""Discovery from additive statistics: what is summed over parties is the statistic of the pooled data."""

from scarcity.engine.discovery import discover, relations_of
from scarcity.engine.moments import Moments
from scarcity.engine.online import EngineConfig, OnlineDiscoveryEngine
from scarcity.engine.relation import Relation
from scarcity.engine.schema import Schema, Variable
from scarcity.engine.store import EvidenceRecord, Explanation, HypergraphStore
from scarcity.engine.var import VarFit, fit_var
from scarcity.engine.vector import Increment, VectorLayout, record_layout

__all__ = [
    "EngineConfig",
    "EvidenceRecord",
    "Explanation",
    "HypergraphStore",
    "Increment",
    "Moments",
    "OnlineDiscoveryEngine",
    "Relation",
    "Schema",
    "VarFit",
    "Variable",
    "VectorLayout",
    "discover",
    "fit_var",
    "record_layout",
    "relations_of",
]
