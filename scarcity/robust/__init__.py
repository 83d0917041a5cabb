"""Aggregation rules that hold while some of the inputs lie. Pure numbers: no packets, no senders."""
