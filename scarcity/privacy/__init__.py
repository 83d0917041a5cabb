"""Differential privacy: calibration, mechanisms, the filter and its ledger. Pure numbers: no packets."""
