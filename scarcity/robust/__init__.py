"""Aggregation rules that hold while some of the inputs lie. Pure numbers: no packets, no senders."""

from scarcity.robust.coordinate import Average, Median, TrMean
from scarcity.robust.distance import Krum, MultiKrum
from scarcity.robust.pipeline import DEFAULT_RULE, RULES, Bulyan, Pipeline, make_rule
from scarcity.robust.preaggregate import NNM, PreAggregator
from scarcity.robust.rule import AggregationResult, FloatArray, Rule

__all__ = [
    "DEFAULT_RULE",
    "NNM",
    "RULES",
    "AggregationResult",
    "Average",
    "Bulyan",
    "FloatArray",
    "Krum",
    "Median",
    "MultiKrum",
    "Pipeline",
    "PreAggregator",
    "Rule",
    "TrMean",
    "make_rule",
]
