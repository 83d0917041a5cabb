"""Unit client with nine parties: the noise dwarfs the signal, and a swarm says so by finding nothing."""

from __future__ import annotations

import pytest

from sim.swarms.swarm import SwarmConfig, run_swarm


@pytest.mark.parametrize("seed", [1, 2, 3, 4])  # the seeds on which 18, 29, 6 and 18 false links were once found
@pytest.mark.parametrize("privacy", ["distributed", "local"])
def test_a_swarm_of_nine_finds_no_link_in_noise(seed: int, privacy: str) -> None:
    result = run_swarm(SwarmConfig(synthetic=9, unit="client", epsilon=1.0, rounds=3, seed=seed, privacy=privacy))
    assert result.rounds == 3
    assert result.relations == ()
    assert all(not found for found in result.basket_relations.values())
