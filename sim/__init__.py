"""Whole swarms in one process: worlds, faults, attacks, reports."""
