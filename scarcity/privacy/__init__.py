"""Differential privacy: calibration, mechanisms, the filter and its ledger. Pure numbers: no packets."""

from scarcity.privacy.accountant import PrivacyAccountant, PrivacyFilter, Reservation
from scarcity.privacy.calibration import calibrate_gaussian, epsilon_of, mu_max
from scarcity.privacy.events import GaussianEvent, NeighboringRelation, PrivacyParams, PrivacyUnit
from scarcity.privacy.ledger import (
    LedgerRecord,
    LedgerStore,
    LedgerTerms,
    MemoryLedgerStore,
    RecordState,
    decode_ledger,
    encode_record,
)
from scarcity.privacy.mechanisms import add_noise, clip_to_lattice, ledger_budget, noise_share_sigma, rounded_gaussian

__all__ = [
    "GaussianEvent",
    "LedgerRecord",
    "LedgerStore",
    "LedgerTerms",
    "MemoryLedgerStore",
    "NeighboringRelation",
    "PrivacyAccountant",
    "PrivacyFilter",
    "PrivacyParams",
    "PrivacyUnit",
    "RecordState",
    "Reservation",
    "add_noise",
    "calibrate_gaussian",
    "clip_to_lattice",
    "decode_ledger",
    "encode_record",
    "epsilon_of",
    "ledger_budget",
    "mu_max",
    "noise_share_sigma",
    "rounded_gaussian",
]
