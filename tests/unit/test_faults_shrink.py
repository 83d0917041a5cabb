"""A failing plan shrinks to what its failure needs, in a bounded number of runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.errors import LocalError
from sim.faults.plan import Churn, Clog, Crash, Dropout, Entry, FaultPlan, Latency, Loss, Partition, SlowHandler
from sim.faults.shrink import ShrinkStep, shrink
from tests.faults_world import PLANS, plan_of, stage_of

TWELVE = plan_of(
    Latency.exponential(0.02),
    Loss(0.05),
    Loss(0.1, of=("baskets",)),
    Partition(30, 45, ("basket-0", "basket-1")),
    Partition(10, 12, ("coordinator",)),
    Clog(5, 20, ("c0001", "c0002")),
    Crash(3, ("basket-0",), 2.0),
    Crash(8, ("c0003",), 4.0, torn=True),
    Churn(6, 10),
    Dropout("masked", 0.2),
    Dropout("release", 0.5, ("basket-0",)),
    SlowHandler(("baskets",), 0.3),
)


def _needs(*needed: Entry) -> Callable[[FaultPlan], bool]:
    """Return a predicate that fails exactly where each of these is in the plan, as it was or narrowed."""
    identities = {TWELVE.ids[TWELVE.entries.index(entry)] for entry in needed}
    return lambda plan: identities <= set(plan.ids)


def test_a_failure_that_needs_two_of_twelve_faults_shrinks_to_exactly_these_two() -> None:
    for first in range(12):
        for second in range(first + 1, 12):
            needed = (TWELVE.entries[first], TWELVE.entries[second])
            runs: list[ShrinkStep] = []
            found = shrink(TWELVE, _needs(*needed), runs.append)
            assert found.ids == (TWELVE.ids[first], TWELVE.ids[second])
            assert len(runs) < 120


def test_a_failure_that_needs_no_fault_shrinks_to_none_in_two_runs() -> None:
    runs: list[ShrinkStep] = []
    assert shrink(TWELVE, lambda _plan: True, runs.append) == FaultPlan()
    assert len(runs) == 2


def test_a_failure_that_needs_all_keeps_all() -> None:
    found = shrink(TWELVE, _needs(*TWELVE.entries))
    assert found.ids == TWELVE.ids


@settings(max_examples=60)
@given(PLANS, st.data())
def test_what_is_left_fails_and_none_of_it_can_be_left_out(plan: FaultPlan, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.sampled_from(plan.ids))) if plan.ids else set()
    found = shrink(plan, lambda part: needed <= set(part.ids), max_runs=2000)
    assert set(found.ids) == needed


def test_no_plan_is_run_twice_and_never_more_than_allowed() -> None:
    for max_runs in (1, 2, 7, 30, 400):
        asked: list[FaultPlan] = []
        told: list[ShrinkStep] = []

        def fails(plan: FaultPlan, asked: list[FaultPlan] = asked) -> bool:
            asked.append(plan)
            return _needs(TWELVE.entries[2], TWELVE.entries[9])(plan)

        found = shrink(TWELVE, fails, told.append, max_runs=max_runs)
        assert len(asked) == len(set(asked)) <= max_runs
        assert [step.runs for step in told] == list(range(1, len(asked) + 1))
        assert all(step.max_runs == max_runs for step in told)
        assert found == told[-1].plan
        assert _needs(TWELVE.entries[2], TWELVE.entries[9])(found)


def test_times_groups_and_probabilities_are_narrowed_while_it_still_fails() -> None:
    def fails(plan: FaultPlan) -> bool:
        lossy = any(isinstance(e, Loss) and e.probability >= 0.02 for e in plan.entries)
        clogged = any(isinstance(e, Clog) and "c0002" in e.of and e.at_s <= 7 < e.until_s for e in plan.entries)
        return lossy and clogged

    found = shrink(TWELVE, fails)
    loss, clog = found.entries
    assert isinstance(loss, Loss)
    assert isinstance(clog, Clog)
    assert 0.02 <= loss.probability < 0.04
    assert clog.of == ("c0002",)
    assert clog.at_s <= 7 < clog.until_s < clog.at_s + 0.1
    assert set(found.ids) < set(TWELVE.ids)


def test_a_window_without_an_end_is_narrowed_within_the_run() -> None:
    plan = plan_of(Loss(0.5))

    def fails(part: FaultPlan) -> bool:
        return any(isinstance(e, Loss) and e.at_s <= 50 < e.until_s for e in part.entries)

    (loss,) = shrink(plan, fails, until_s=120.0).entries
    assert isinstance(loss, Loss)
    assert 50 < loss.until_s < 51
    (whole,) = shrink(plan, fails).entries
    assert isinstance(whole, Loss)
    assert whole.at_s == 0


def test_narrowed_entries_strike_a_part_of_the_packets_that_they_struck() -> None:
    plan = plan_of(Loss(0.5), Latency.fixed(0.1))
    found = shrink(plan, lambda part: any(isinstance(e, Loss) for e in part.entries))
    (loss,) = found.entries
    assert isinstance(loss, Loss)
    assert loss.probability < 0.02
    assert found.ids == plan.ids[1:] or found.ids == plan.ids[:1]
    stage_of(plan=found)  # it still meets its seats


def test_a_torn_crash_becomes_a_clean_one_where_that_suffices() -> None:
    (crash,) = shrink(TWELVE, _needs(TWELVE.entries[7])).entries
    assert isinstance(crash, Crash)
    assert not crash.torn


def test_two_groups_that_are_kept_apart_both_stay() -> None:
    (partition,) = shrink(TWELVE, _needs(TWELVE.entries[3])).entries
    assert isinstance(partition, Partition)
    assert partition.groups == ("basket-0", "basket-1")


def test_a_plan_that_does_not_fail_is_refused() -> None:
    with pytest.raises(LocalError, match="the plan of 12 entries does not fail, so there is nothing to shrink"):
        shrink(TWELVE, lambda _plan: False)
