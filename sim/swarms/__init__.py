"""Swarms on a real clock and real rows: what `scarcity swarm` runs and reports."""
