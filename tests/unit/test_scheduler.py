"""A basket waits for reasons, and stops for reasons."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.federation.packets import RoundSettings
from scarcity.federation.scheduler import RoundScheduler, Verdict, quorum_need

TIMED = RoundScheduler(RoundSettings(quorum=0.7, ready_s=2.0, close_s=10.0, deadline_s=30.0))
UNTIMED = RoundScheduler(RoundSettings(quorum=0.7))
WAIT, CLOSE, ABSENT = Verdict.WAIT, Verdict.CLOSE, Verdict.ABSENT


def decide(
    scheduler: RoundScheduler, arrived: int, at: float, *, declined: int = 0, forced: bool = False, min_inputs: int = 1
) -> tuple[Verdict, float]:
    decision = scheduler.decide(
        members=10,
        arrived=arrived,
        declined=declined,
        opened_at=100.0,
        now=100.0 + at,
        min_inputs=min_inputs,
        forced=forced,
    )
    return decision.verdict, decision.until


@pytest.mark.parametrize(
    ("quorum", "expected", "min_inputs", "need"),
    [
        (0.7, 10, 1, 7),
        (0.55, 100, 1, 55),
        (0.7, 0, 1, 1),
        (0.0, 10, 1, 1),
        (1.0, 10, 1, 10),
        (0.7, 3, 1, 3),
        (0.1, 10, 5, 5),
    ],
)
def test_the_quorum_is_a_share_of_the_expected_rounded_up(
    quorum: float, expected: int, min_inputs: int, need: int
) -> None:
    assert quorum_need(quorum, expected, min_inputs) == need


def test_a_round_closes_at_once_when_all_expected_have_come() -> None:
    assert decide(TIMED, 10, 0.0)[0] is CLOSE
    assert decide(TIMED, 8, 0.0, declined=2)[0] is CLOSE
    assert decide(UNTIMED, 10, 0.0)[0] is CLOSE


def test_a_quorum_closes_after_close_s_and_not_before() -> None:
    assert decide(TIMED, 7, 9.9) == (WAIT, 110.0)
    assert decide(TIMED, 7, 10.0)[0] is CLOSE


def test_without_quorum_the_basket_waits_to_the_deadline_and_is_then_absent() -> None:
    assert decide(TIMED, 6, 29.9) == (WAIT, 130.0)
    assert decide(TIMED, 6, 30.0)[0] is ABSENT


def test_a_deadline_before_close_s_closes_what_has_its_quorum() -> None:
    hasty = RoundScheduler(RoundSettings(quorum=0.7, close_s=50.0, deadline_s=30.0))
    assert decide(hasty, 7, 29.0) == (WAIT, 130.0)
    assert decide(hasty, 7, 30.0)[0] is CLOSE


def test_infinite_durations_wait_for_ever_unless_forced() -> None:
    assert decide(UNTIMED, 7, 1e12) == (WAIT, math.inf)
    assert decide(UNTIMED, 0, 1e12) == (WAIT, math.inf)
    assert decide(UNTIMED, 7, 0.0, forced=True)[0] is CLOSE
    assert decide(UNTIMED, 6, 0.0, forced=True)[0] is ABSENT


def test_a_basket_that_can_no_longer_reach_its_need_is_absent_at_once() -> None:
    assert decide(TIMED, 0, 0.0, declined=10)[0] is ABSENT
    assert decide(TIMED, 2, 0.0, declined=8, min_inputs=3)[0] is ABSENT


def test_fewer_inputs_than_the_rule_needs_are_absence_and_never_a_weaker_rule() -> None:
    assert decide(TIMED, 7, 30.0, min_inputs=8)[0] is ABSENT
    assert decide(TIMED, 8, 30.0, min_inputs=8)[0] is CLOSE


def test_the_reason_counts_what_is_there_and_what_is_needed() -> None:
    decision = TIMED.decide(members=10, arrived=6, declined=1, opened_at=0.0, now=40.0)
    assert decision.reason == "6 of 9 expected have come, 7 are needed"
    assert decision.need == 7


def test_participants_are_known_when_all_have_answered_or_ready_s_has_passed() -> None:
    def ready(count: int, at: float, *, forced: bool = False) -> Verdict:
        return TIMED.ready(members=10, ready=count, declined=2, opened_at=0.0, now=at, forced=forced).verdict

    assert ready(8, 0.0) is CLOSE
    assert ready(7, 1.9) is WAIT
    assert ready(7, 2.0) is CLOSE
    assert ready(0, 0.0, forced=True) is CLOSE


@given(
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
    st.floats(0, 50),
    st.booleans(),
    st.integers(1, 6),
    st.sampled_from([TIMED, UNTIMED]),
)
def test_a_round_never_closes_below_its_need_and_a_wait_ends_later_than_now(
    members: int, arrived: int, declined: int, now: float, forced: bool, min_inputs: int, scheduler: RoundScheduler
) -> None:
    decision = scheduler.decide(
        members=members,
        arrived=arrived,
        declined=min(declined, members),
        opened_at=0.0,
        now=now,
        min_inputs=min_inputs,
        forced=forced,
    )
    if decision.verdict is CLOSE:
        assert arrived >= decision.need
    if decision.verdict is ABSENT:
        assert arrived < decision.need
    if decision.verdict is WAIT:
        assert not forced
        assert decision.until > now
