"""A failing plan shrinks to what its failure needs, in a bounded number of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.errors import LocalError
from sim.faults.outages import members_in
from sim.faults.plan import (
    Churn,
    Clog,
    Crash,
    Dropout,
    Entry,
    FaultPlan,
    Latency,
    Loss,
    Partition,
    SlowHandler,
)
from sim.faults.shrink import ShrinkStep, shrink
from tests.faults_world import PLANS, SEATS, plan_of, stage_of

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
# Kinds that name groups, and what else they need.
WITH_GROUPS: dict[str, dict[str, Any]] = {
    "crash": {"at_s": 3},
    "churn": {"per_minute": 6, "down_s": 1},
    "clog": {"at_s": 1, "until_s": 2},
    "slow-handler": {"seconds": 0.1},
    "clock-skew": {"offset_s": 5},
    "dropout": {"stage": "masked"},
    "byzantine": {"behaviour": "ipm"},
    "loss": {"probability": 0.1},
}
SWARM = {f"basket/basket-{i}": f"basket-{i}" for i in range(3)} | {f"c{i:04d}": f"basket-{i % 3}" for i in range(300)}


def _of(entry: Entry) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(entry, "of", ())
    return names


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


@pytest.mark.parametrize(("mode", "groups"), [("split", ("basket-0", "basket-1")), ("isolate", ("basket-1",))])
def test_two_groups_that_are_split_both_stay_and_of_isolated_ones_one(mode: str, groups: tuple[str, ...]) -> None:
    plan = plan_of(Partition(30, 45, ("basket-0", "basket-1"), mode=mode))
    (partition,) = shrink(plan, lambda part: len(part.entries) == 1, seats=SEATS).entries
    assert isinstance(partition, Partition)
    assert partition.groups == groups


@pytest.mark.parametrize("group", ["*", "clients", "basket-1"])
@pytest.mark.parametrize("kind", WITH_GROUPS)
def test_a_failure_that_needs_one_client_of_a_group_shrinks_to_that_client(kind: str, group: str) -> None:
    section = "network" if kind == "loss" else "faults"
    plan = FaultPlan.from_dict({section: [{"kind": kind, "of": [group], **WITH_GROUPS[kind]}]})
    runs: list[ShrinkStep] = []

    def fails(part: FaultPlan) -> bool:
        return any("c0112" in members_in(_of(entry), SWARM) for entry in part.entries)

    (left,) = shrink(plan, fails, runs.append, seats=SWARM).entries
    assert _of(left) == ("c0112",)
    assert len(runs) < 80


def test_a_failure_that_needs_some_of_a_group_shrinks_to_these() -> None:
    needed = {"c0001", "c0002", "c0009"}
    plan = plan_of(Crash(3, ("clients",), 2.0))

    def fails(part: FaultPlan) -> bool:
        return any(needed <= set(members_in(_of(entry), SEATS)) for entry in part.entries)

    (left,) = shrink(plan, fails, seats=SEATS).entries
    assert _of(left) == tuple(sorted(needed))


def test_a_group_of_which_all_members_are_needed_keeps_its_name() -> None:
    plan = plan_of(Churn(6, 10), Crash(3, ("basket-0",)))

    def fails(part: FaultPlan) -> bool:
        struck = [members_in(_of(entry), SEATS) for entry in part.entries]
        return struck == [members_in(("clients",), SEATS), members_in(("basket-0",), SEATS)]

    assert [_of(entry) for entry in shrink(plan, fails, seats=SEATS).entries] == [("clients",), ("basket-0",)]


def test_a_plan_that_does_not_fail_is_refused() -> None:
    with pytest.raises(LocalError, match="the plan of 12 entries does not fail, so there is nothing to shrink"):
        shrink(TWELVE, lambda _plan: False)
