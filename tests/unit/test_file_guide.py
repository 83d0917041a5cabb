"""The names that the overview promises: files, and the classes with their addresses."""

from __future__ import annotations

import importlib

import pytest

FILES = (
    "hierarchical",
    "aggregator",
    "gossip",
    "basket",
    "buffer",
    "layers",
    "secure_aggregation",
    "packets",
    "privacy_guard",
    "trust_scorer",
    "validator",
    "client_agent",
    "coordinator",
    "reconciler",
    "scheduler",
    "codec",
    "transport",
)
CLASSES = (
    ("scarcity.federation", "HierarchicalFederation"),
    ("scarcity.federation", "HierarchicalFederationConfig"),
    ("scarcity.federation", "FederationClientAgent"),
    ("scarcity.engine", "OnlineDiscoveryEngine"),
    ("scarcity.engine", "HypergraphStore"),
    ("scarcity.federation.hierarchical", "HierarchicalFederation"),
    ("scarcity.federation.basket", "BasketManager"),
    ("scarcity.federation.gossip", "GossipProtocol"),
    ("scarcity.federation.gossip", "PeerSampler"),
    ("scarcity.federation.gossip", "MaterialityDetector"),
    ("scarcity.federation.secure_aggregation", "SecureAggClient"),
    ("scarcity.federation.secure_aggregation", "SecureAggCoordinator"),
    ("scarcity.federation.privacy_guard", "PrivacyAccountant"),
    ("scarcity.federation.client_agent", "FederationClientAgent"),
    ("scarcity.federation.aggregator", "Krum"),
    ("scarcity.federation.aggregator", "Bulyan"),
)


def test_the_guide_has_seventeen_files() -> None:
    assert len(set(FILES)) == 17


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_guide_is_importable_and_says_what_it_is(name: str) -> None:
    module = importlib.import_module(f"scarcity.federation.{name}")
    assert module.__doc__


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_a_class_that_the_overview_names_is_where_it_implies(module: str, name: str) -> None:
    assert isinstance(getattr(importlib.import_module(module), name), type)
