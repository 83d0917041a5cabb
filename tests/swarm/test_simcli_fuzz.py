"""Random plans over random worlds break no promise, and try everything there is."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from sim.faults.network import Duplicate
from sim.faults.plan import CUTS, Churn, FaultPlan, Partition, SlowHandler
from sim.faults.stages import STAGE_NAMES
from sim.worlds.built import WorldConfig
from sim.worlds.checkers import Checker, View
from sim.worlds.fuzz import MODES, UNITS, Case, Coverage, random_case, try_case


def search(first: int, plans: int) -> Coverage:
    coverage = Coverage()
    for number in range(first, first + plans):
        tried = try_case(random_case(0, number))
        assert tried.result.violations == (), f"seed 0, plan {number}: scarcity sim fuzz --first {number} --plans 1"
        coverage.add(tried)
    print(coverage.describe())
    return coverage


def test_fifty_random_plans_break_no_promise() -> None:
    coverage = search(0, 50)
    assert len(coverage.combinations) >= 40
    assert len(coverage.kinds) == 13
    assert {stage for _mode, stage in coverage.stages} == set(STAGE_NAMES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_random_plans_break_no_promise() -> None:
    coverage = search(0, 1000)
    assert len(coverage.combinations) >= 600
    assert {mode for mode, _stage in coverage.stages} == set(MODES)


def test_a_case_is_a_function_of_seed_and_number() -> None:
    assert random_case(3, 17) == random_case(3, 17)
    assert random_case(3, 17) != random_case(4, 17)
    assert random_case(3, 17) != random_case(3, 18)


def test_every_case_is_a_world_that_can_run() -> None:
    cases = [random_case(1, number) for number in range(200)]
    assert {case.config.mode for case in cases} == set(MODES)
    assert {case.config.unit for case in cases} == set(UNITS)
    for case in cases:
        assert len(case.plan.entries) >= 2
        assert case.config.heal_s >= case.config.healing_s


def test_every_role_crashes_and_comes_up_and_every_cut_is_tried() -> None:
    cases = [random_case(0, number) for number in range(400)]
    entries = [entry for case in cases for entry in case.plan.entries]
    churned = {group for entry in entries if isinstance(entry, Churn) for group in entry.of}
    assert {"clients", "coordinator", "basket/basket-0", "basket-0", "c0000", "*"} <= churned
    cuts = [entry for entry in entries if isinstance(entry, Partition)]
    assert {(cut.mode, cut.symmetric, cut.stability_s < math.inf) for cut in cuts} == {
        (mode, symmetric, unstable) for mode in CUTS for symmetric in (True, False) for unstable in (True, False)
    }


def test_a_slow_members_timer_waits_its_turn_however_much_is_before_it() -> None:
    """Found by random plans: a basket is told everything twice or more, and its deadline rings behind all of it."""
    config = WorldConfig(clients=9, baskets=2, mode="distributed", round_every_s=5.0, until_s=16.0)
    plan = FaultPlan((Duplicate(0.9), Duplicate(0.9)), (SlowHandler(("basket/basket-0",), 0.09),))
    late: list[float] = []

    class Lateness(Checker):
        def tick(self, view: View) -> Iterable[str]:
            core, now = view.cores["basket/basket-0"], view.now
            late.extend(now - waiting.until for waiting in core.waiting() if waiting.until < now)
            return ()

    assert try_case(Case(0, config, plan), [Lateness()]).result.violations == ()
    assert max(late) > 10 * 0.09
