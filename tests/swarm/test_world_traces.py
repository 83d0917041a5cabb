"""One seed, one trace: twenty seeds under every kind of fault, in fresh processes with three hash seeds."""

from __future__ import annotations

from collections import Counter

import attrs

from sim.faults.network import Bandwidth, Duplicate, Latency, Loss, Reorder
from sim.faults.plan import (
    FAULT_KINDS,
    NETWORK_KINDS,
    Byzantine,
    Churn,
    ClockSkew,
    Clog,
    Crash,
    Dropout,
    FaultPlan,
    Partition,
    SlowHandler,
    kind_name,
)
from sim.worlds.built import EXECUTORS, WorldConfig
from sim.worlds.result import SimResult
from sim.worlds.world import World
from tests.sim_world import in_fresh_process

SEEDS, HASH_SEEDS = 20, (0, 1, 4242)
SMALL = WorldConfig(clients=8, baskets=2, until_s=9.0, heal_s=1.0, round_every_s=0.5, settings={"quorum": 0.5})
EVERYTHING = FaultPlan(
    (
        Latency.exponential(0.02, 0.005),
        Loss(0.03),
        Duplicate(0.1),
        Reorder(0.1, 0.2),
        Bandwidth(50_000, of=("c0005",)),
    ),
    (
        Churn(15, 0.3),
        Crash(4.0, ("basket/basket-1",), 0.3, torn=True),
        Partition(1.0, 2.5, ("c0002",)),
        Clog(6.0, 6.5, ("c0006",)),
        Dropout("unprotected", 0.2),
        Byzantine("sign-flip", of=("c0000",)),
        Byzantine("equivocate", of=("c0001",)),
        ClockSkew(("c0003", "basket/basket-0"), -2.0, 0.02),
        SlowHandler(("c0004", "basket/basket-1"), 0.01),
    ),
)
_PROGRAM = """
from tests.swarm.test_world_traces import hashes
print(*hashes())
"""


def weathered(seed: int, executor: str) -> SimResult:
    """Run the small world of a seed under everything."""
    return World.of(attrs.evolve(SMALL, seed=seed, executor=executor), EVERYTHING).run()


def hashes() -> list[str]:
    """Return the trace hash of every executor and seed, in this order."""
    return [weathered(seed, executor).trace_hash for executor in EXECUTORS for seed in range(SEEDS)]


def test_twenty_seeds_have_one_trace_each_in_both_executors_whatever_the_hash_seed() -> None:
    found = {tuple(in_fresh_process(_PROGRAM, hash_seed).split()) for hash_seed in HASH_SEEDS}
    assert len(found) == 1, "a trace depends on the process it is made in"
    traces = found.pop()
    assert len(traces) == len(set(traces)) == SEEDS * len(EXECUTORS)


def test_the_plan_of_these_traces_has_every_kind_of_fault_and_all_of_them_strike() -> None:
    assert {kind_name(entry) for entry in EVERYTHING.entries} == {*NETWORK_KINDS, *FAULT_KINDS}
    for executor in EXECUTORS:
        results = [weathered(seed, executor) for seed in range(4)]
        struck = Counter(fired.index for result in results for fired in result.fired if fired.count)
        assert set(struck) == set(range(len(EVERYTHING.entries)))
        assert sum(result.num_models for result in results) >= 10
        assert all(result.violations == () for result in results)
