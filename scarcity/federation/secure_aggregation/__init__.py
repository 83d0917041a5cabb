"""Secure aggregation: a sum of vectors that shows nobody one of them. Protocol SSA-1, docs/secure-aggregation.md."""

from scarcity.federation.secure_aggregation.channel import EpochKeys
from scarcity.federation.secure_aggregation.client import SecureAggClient
from scarcity.federation.secure_aggregation.config import (
    DpTerms,
    Mechanism,
    RoundSumConfig,
    SecureAggPolicy,
    noise_tail,
    share_sigma,
    threshold_for,
)
from scarcity.federation.secure_aggregation.coordinator import SecureAggCoordinator
from scarcity.federation.secure_aggregation.messages import (
    CODEC,
    FromClient,
    FromCoordinator,
    SumConfigMessage,
    SumMessage,
    decode,
    encode,
)
from scarcity.federation.secure_aggregation.outputs import (
    SPENT,
    ClientState,
    CoordinatorState,
    Mark,
    Outgoing,
    Output,
    SumResult,
    To,
)
from scarcity.federation.secure_aggregation.reasons import Reason, Refused
from scarcity.federation.secure_aggregation.ring import dequantise, quantise
from scarcity.federation.secure_aggregation.runner import SecureAggConfig, SecureAggResult, run_secure_aggregation

__all__ = [
    "CODEC",
    "SPENT",
    "ClientState",
    "CoordinatorState",
    "DpTerms",
    "EpochKeys",
    "FromClient",
    "FromCoordinator",
    "Mark",
    "Mechanism",
    "Outgoing",
    "Output",
    "Reason",
    "Refused",
    "RoundSumConfig",
    "SecureAggClient",
    "SecureAggConfig",
    "SecureAggCoordinator",
    "SecureAggPolicy",
    "SecureAggResult",
    "SumConfigMessage",
    "SumMessage",
    "SumResult",
    "To",
    "decode",
    "dequantise",
    "encode",
    "noise_tail",
    "quantise",
    "run_secure_aggregation",
    "share_sigma",
    "threshold_for",
]
