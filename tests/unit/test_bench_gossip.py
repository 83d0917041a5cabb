"""What a gossip period reports, and at what price."""

from __future__ import annotations

import numpy as np

from scarcity.federation.assembly import Assembly, round_settings, seat
from scarcity.federation.gossip import gossip_of
from scarcity.federation.hierarchical import HierarchicalFederation, HierarchicalFederationConfig
from scarcity.federation.packets import Release, basket_scope
from scarcity.federation.privacy_guard import PrivacyParams
from scarcity.federation.reader import item_of
from sim.chance import reproducible_entropy


def test_one_encoding_of_a_contribution_serves_journal_and_gossip() -> None:
    assembly = Assembly(
        settings=round_settings({}),
        budget=PrivacyParams(epsilon=1.0, delta=1e-5),
        planned_rounds=1,
        entropy=reproducible_entropy(1),
        federation="f",
    )
    seats = seat(assembly, [("c", "d")])
    gossip = gossip_of(seats.identity("c"), assembly.settings, assembly.entropy)
    packet = seats.identity("c").say(basket_scope("d"), 1, Release(b"", np.arange(3), 1))
    item = item_of(packet)
    gossip.offer(item)
    assert gossip.exchange.held[item.key].encoded is item.encoded


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
