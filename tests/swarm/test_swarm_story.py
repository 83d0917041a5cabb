"""What a real run keeps of itself for its report: who waited for whom, how baskets closed, what ledgers held."""

from __future__ import annotations

import itertools

import pytest

from sim.swarms.report import SwarmResult
from sim.swarms.swarm import SwarmConfig, run_swarm


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def result(request: pytest.FixtureRequest) -> SwarmResult:
    return run_swarm(SwarmConfig(synthetic=12, seed=3, rounds=2, backend=request.param))


def test_every_stage_of_every_sum_is_a_wait_of_its_host(result: SwarmResult) -> None:
    stages = ("advertise", "shares", "masked", "confirm", "reveal")
    hosts = {"coordinator": "layer2", **{f"basket/domain-{i}": f"basket/domain-{i}" for i in range(3)}}
    wanted = {
        (r, who, f"stage {s} of the secure sum in {of}") for r in (1, 2) for who, of in hosts.items() for s in stages
    }
    assert wanted <= {(wait.round_id, wait.who, wait.what) for wait in result.waits}
    assert {wait.round_id for wait in result.waits} == {1, 2}


def test_waits_of_one_member_follow_each_other(result: SwarmResult) -> None:
    for who in {wait.who for wait in result.waits}:
        mine = sorted((wait for wait in result.waits if wait.who == who), key=lambda wait: wait.until)
        assert all(wait.since <= wait.until for wait in mine)
        assert all(one.until <= other.since for one, other in itertools.pairwise(mine))
        assert not any(wait.by_clock for wait in mine)


def test_every_basket_closes_with_all_its_members_and_every_ledger_is_read_after_each_round(
    result: SwarmResult,
) -> None:
    assert [(c.round_id, c.domain, len(c.members), c.missing) for c in result.closings] == [
        (r, f"domain-{i}", 4, ()) for r in (1, 2) for i in range(3)
    ]
    assert {(s.round_id, s.client_id) for s in result.spendings} == {(r, c) for r in (1, 2) for c, _ in result.seats}
    last = {s.client_id: s.epsilon for s in result.spendings if s.round_id == 2}
    assert last == {charge.client_id: charge.epsilon for charge in result.privacy.spent}
