"""Rows after a crash: an engine that reads its rows again goes on where its ledger says, and offers no row twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.engine import Increment, OnlineDiscoveryEngine, Schema, Variable
from scarcity.errors import InsufficientInputs, PrivacyBudgetExceeded
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.packets import NoiseTerms, RoundSettings, Unit
from scarcity.federation.privacy_guard import (
    LEDGER,
    PrivacyFilter,
    PrivacyParams,
    ledger_entry,
    open_filter,
    reserve_round,
)
from scarcity.federation.recovery import rows_spent_until

SCHEMA = Schema([Variable("x", scale=1.0), Variable("y", scale=1.0)], lags=1, horizon=2)
ROWS = np.random.default_rng(5).standard_normal((120, 2))
BUDGET = PrivacyParams(epsilon=10.0, delta=1e-5)
NOISE = NoiseTerms(steps=4, sensitivity=1.0, sigma=1.0)


def engine_after(rows: int, spent_until: int, gaps: frozenset[int] = frozenset()) -> OnlineDiscoveryEngine:
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.resume(spent_until)
    for at in range(rows):
        if at not in gaps:
            engine.process_row(ROWS[at], at)
    return engine


def increment_of(engine: OnlineDiscoveryEngine) -> Increment | None:
    try:
        return engine.increment("differenced")
    except InsufficientInputs:
        return None


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["accepted", "crash after the charge", "crash before"]))),
    st.frozensets(st.integers(0, 119), max_size=20),
)
def test_increments_never_share_a_row_over_arbitrary_crash_points(
    steps: list[tuple[int, str]], gaps: frozenset[int]
) -> None:
    """Each step: rows come in, an increment is charged, and the process may die before it is marked as released."""
    engine, released, spent, rows = engine_after(0, 0), list[tuple[int, int]](), 0, 0
    for more, end in steps:
        for at in range(rows, min(rows + more, 120)):
            if at not in gaps:
                engine.process_row(ROWS[at], at)
        rows = min(rows + more, 120)
        if (increment := increment_of(engine)) is None:
            continue
        if end != "crash before":
            released.append(increment.rows)
            spent = increment.rows[1]
        if end == "accepted":
            engine.mark_released(increment)
        else:
            engine = engine_after(rows, spent, gaps)
    ends = [0, *(end for _, end in released)]
    assert all(end <= start for end, (start, _) in zip(ends, released, strict=False))


@given(st.integers(1, 110), st.frozensets(st.integers(0, 119), max_size=30))
def test_an_increment_after_a_crash_is_that_of_an_engine_that_never_crashed(cut: int, gaps: frozenset[int]) -> None:
    steady = engine_after(cut, 0, gaps)
    if (first := increment_of(steady)) is None:
        return
    steady.mark_released(first)
    times = [at for at in range(cut, 120) if at not in gaps]
    steady.process_rows(ROWS[times], times)
    crashed = OnlineDiscoveryEngine(SCHEMA)
    crashed.resume(first.rows[1])
    again = [at for at in range(120) if at not in gaps]
    crashed.process_rows(ROWS[again], again)
    one, other = increment_of(steady), increment_of(crashed)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.rows == other.rows
        assert np.array_equal(one.vector, other.vector)
    assert steady.num_rows == crashed.num_rows
    assert np.array_equal(steady.statistics().vector, crashed.statistics().vector)


def test_before_a_new_row_has_come_there_is_nothing_to_release() -> None:
    engine = engine_after(20, 20)
    with pytest.raises(InsufficientInputs, match="before 20 are released"):
        engine.increment("differenced")


def test_an_engine_that_is_past_the_index_gives_rows_up_instead_of_offering_them_twice() -> None:
    engine = engine_after(30, 0)
    engine.resume(20)
    assert engine.num_rows_given_up == 10
    for at in range(30, 50):
        engine.process_row(ROWS[at], at)
    assert engine.increment("differenced").rows == (30, 50)


def test_an_engine_whose_released_rows_are_as_the_ledger_says_changes_nothing() -> None:
    engine = engine_after(30, 0)
    engine.mark_released(engine.increment("differenced"))
    engine.resume(30)
    for at in range(30, 50):
        engine.process_row(ROWS[at], at)
    assert engine.increment("differenced").rows == (30, 50)
    assert engine.num_rows_given_up == 0


def ledger() -> PrivacyFilter:
    opened = open_filter(RoundSettings(unit=Unit.RECORD, rule="average"), BUDGET, "me")
    assert opened is not None
    return opened


def test_rows_of_a_charge_that_was_given_back_are_offered_again() -> None:
    opened, entries = ledger(), []
    for number, rows in enumerate([(0, 10), (10, 25)]):
        reservations, kept = reserve_round(opened, {"layer 1": NOISE}, f"r{number}", rows)
        entries += kept
    payloads = [entry.payload for entry in entries]
    assert rows_spent_until({LEDGER: payloads}) == 25

    void = ledger_entry(opened.void(reservations["layer 1"]))
    assert rows_spent_until({LEDGER: [*payloads, void.payload]}) == 10
    assert rows_spent_until({}) == 0


def test_an_agent_that_resumes_is_not_refused_by_its_ledger_for_ever() -> None:
    opened = ledger()
    _, entries = reserve_round(opened, {"layer 1": NOISE}, "r1", (0, 40))
    for spent_until, is_payable in ((0, False), (rows_spent_until({LEDGER: [entries[0].payload]}), True)):
        agent = FederationClientAgent(OnlineDiscoveryEngine(SCHEMA), client_id="a1")
        agent.resume(spent_until)
        agent.engine.process_rows(ROWS[:80], range(80))
        rows = agent.get_shareable_update().rows
        huge = NoiseTerms(steps=4, sensitivity=2.9, sigma=1.5)
        if is_payable:
            reserve_round(opened, {"layer 1": huge}, "r2", rows)
        else:
            with pytest.raises(PrivacyBudgetExceeded):
                reserve_round(opened, {"layer 1": huge}, "r2", rows)
