"""Daemons under a plan's faults, through a proxy on their links: late, cut, parted, clogged, killed; rounds go on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from scarcity.errors import FederationError
from sim.faults.network import Bandwidth, Latency, Loss
from sim.faults.plan import Churn, Clog, Crash, FaultPlan, Partition
from tests.nodes_world import APART, Federation, Rows, found, newest_round
from tests.proxy_world import Storm, storm

QUICK = {
    "gossip_s": 0.2, "ready_s": 0.4, "close_s": 0.4, "deadline_s": 6.0, "stage_s": 0.4, "quorum": 0.5,
}  # fmt: skip


def federation_of(folder: Path, mode: str) -> Federation:
    return found(folder, APART, settings=QUICK, mode=mode, rounds=10_000, interval_s=0.2, gather_s=5.0, epsilon=50.0)


def begin_in_mid_round(under: Storm, rows: Rows) -> int:
    """Wait for a first model, and then for a round that is open; begin, and return it."""
    hub = under.federation.daemons["hub"]

    def is_open() -> bool:
        rows.add(2)  # a client without new rows has nothing to give
        return bool(hub.models()) and newest_round(hub) > max(hub.models())

    under.wait("an open round after a model", is_open, 30)
    under.begin()
    return newest_round(hub)


def weather(under: Storm, rows: Rows, until_s: float) -> None:
    """Let rounds run until the plan's time is over."""

    def is_over() -> bool:
        rows.add(1)
        return under.now_s >= until_s

    under.wait("the end of the plan", is_over, until_s + 30)


def require_rounds_go_on(under: Storm, rows: Rows) -> set[int]:
    """A round that opens from now on gives its model to every node, which then hold the models that are returned.

    No client has spent more than it may.
    """
    daemons = under.federation.each()
    before = 0

    def is_up() -> bool:
        nonlocal before
        with contextlib.suppress(FederationError):
            before = max(newest_round(daemon) for daemon in daemons)
            return True
        return False

    def held() -> set[int]:
        return set.intersection(*(daemon.models() for daemon in daemons))

    def has_come() -> bool:
        rows.add(1)
        return max(held(), default=0) > before

    under.wait("all that were killed", is_up, 30)
    under.wait(f"a model after round {before} at every node", has_come, 60)
    for daemon in daemons:
        status = daemon.status()
        assert not status["failures"]
        for member in status["members"]:
            assert member["mailbox_lost"] == 0, member
            if member["epsilon_spent"] is not None:
                assert 0 < member["epsilon_spent"] <= member["epsilon_budget"]
    return held()


def play(folder: Path, plan: FaultPlan, *, seed: int, until_s: float, mode: str = "local") -> bool:
    """Run daemons through a plan; return whether the round in which it began has given its model to every node."""
    federation = federation_of(folder, mode)
    rows = Rows(federation)
    rows.add(40)
    with storm(federation, plan, seed, until_s=until_s) as under:
        with federation.running():
            struck = begin_in_mid_round(under, rows)
            weather(under, rows, until_s)
            models = require_rounds_go_on(under, rows)
        under.check()
    return struck in models


def test_daemons_come_through_latency_cut_links_a_partition_in_mid_round_and_a_clog(tmp_path: Path) -> None:
    network = (Latency.exponential(0.02, floor_s=0.005), Loss(0.02))
    faults = (Partition(0.1, 1.0, ("south",)), Clog(1.3, 1.9, ("basket/b",)))
    # By this seed four of the six pairs lose one of their first 25 chunks, and each pair says more than that.
    assert play(tmp_path, FaultPlan(network, faults), seed=1, until_s=2.0)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_daemons_come_through_a_minute_of_all_that_a_byte_stream_can_have(mode: str, tmp_path: Path) -> None:
    network = (Latency.lognormal(0.02, 0.8), Loss(0.01), Bandwidth(500_000.0, of=("hub",)))
    faults = (
        Partition(1.0, 6.0, ("a", "coordinator")),
        Clog(8.0, 12.0, ("south",)),
        Partition(14.0, 20.0, ("hub", "north"), symmetric=False),
        Crash(22.0, ("coordinator",), down_s=1.0),
        Clog(26.0, 44.0, ("hub",)),  # longer than a link takes for the other side's death
        Churn(per_minute=20.0, down_s=1.0, of=("*",), at_s=46.0),
    )
    play(tmp_path, FaultPlan(network, faults), seed=2, until_s=60.0, mode=mode)
