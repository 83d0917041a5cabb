"""What a gossip period reports, and at what price."""

from __future__ import annotations

import numpy as np

from scarcity.federation.hierarchical import HierarchicalFederation, HierarchicalFederationConfig
from sim.chance import reproducible_entropy


def test_the_views_that_a_gossip_period_reports_are_those_that_can_be_had() -> None:
    config = HierarchicalFederationConfig(gossip_fanout=1, entropy=reproducible_entropy(1))
    federation = HierarchicalFederation(config)
    names = [f"client_{n}" for n in range(12)]
    for n, name in enumerate(names):
        federation.register_client(name, f"basket_{n % 2}")
    seen = []
    for n, name in enumerate(names[:-2]):  # the last of each basket is silent, so that the round stays open
        federation.submit_update(name, np.full(5, float(n)))
        views = federation.run_gossip_round().views
        assert views == sum(federation.local_view(other) is not None for other in names)
        seen.append(views)
    assert seen[0] == 0
    assert seen[-1] == len(names)
