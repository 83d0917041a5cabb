"""Crash anywhere: whatever dies and when, no stage is answered twice, nothing is refunded, lost or counted twice.

A small federation in every mode and unit, a disk for each member, one thread, virtual time: `tests/crash_world.py`.
Safety is checked over the whole run, liveness after it has calmed down.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.crash_world import CASES, DURATIONS, Case, Crash, CrashWorld, check, models

NAMES = [case.name for case in CASES]
# Round 1 has about 130 points; the default run takes every fourth one, others in each case.
_STRIDE = 4


def single(case: Case, point: int, down_s: float, is_lost: bool) -> None:
    world = CrashWorld(case, [(point, down_s, is_lost)], interval_s=pause_after(down_s)).play()
    check(world)
    assert world.died, f"there is no point {point}"
    made = models(world)
    assert 2 in made, f"{world.died[0]} died at point {point}: round 2 has no model, {world.events}"
    assert made[2].count == len(case.domains), f"{world.died[0]} died at point {point}: not all are in round 2"


def pause_after(down_s: float) -> float:
    """Return a pause between rounds after which a member that was down in round 1 is up in round 2."""
    return 0.0 if down_s < DURATIONS["ready_s"] else down_s + 3.0


def num_points(case: Case, down_s: float = 0.0) -> int:
    """Return the points up to the opening of round 2, or up to the spreading of round 1's model if there is a pause."""
    world = CrashWorld(case, interval_s=pause_after(down_s)).play()
    return world.points_at_end[1] + 12 if pause_after(down_s) else world.points_at_round[2]


def calm_down(case: Case, crashes: list[Crash]) -> None:
    world = CrashWorld(case, crashes, rounds=3, calm_after=2, interval_s=10.0).play()
    check(world)
    made = models(world)
    assert 3 in made, f"deaths of {world.died}: round 3 has no model"
    assert made[3].count == len(case.domains), f"deaths of {world.died}: not all are in round 3"


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_without_a_crash_both_rounds_have_their_models(case: Case) -> None:
    world = CrashWorld(case).play()
    check(world)
    assert [model.count for model in models(world).values()] == [len(case.domains)] * 2
    assert world.rejects == []


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_crash_at_any_point_of_a_round_breaks_no_law_and_the_next_round_has_everybody(case: Case) -> None:
    for point in range(CASES.index(case) % _STRIDE, num_points(case), _STRIDE):
        single(case, point, (0.0, 1.5)[point % 2], point % 3 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [False, True], ids=["what it sent arrives", "what it sent is lost"])
@pytest.mark.parametrize("down_s", [0.0, 1.5, 7.0])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_crash_at_every_point_of_a_round_breaks_no_law(case: Case, down_s: float, is_lost: bool) -> None:
    for point in range(num_points(case, down_s)):
        single(case, point, down_s, is_lost)


CRASH = st.tuples(st.integers(0, 700), st.sampled_from([0.0, 0.5, 1.5, 3.0, 9.0]), st.booleans())
CRASHES = st.lists(CRASH, min_size=1, max_size=6)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_crashes_over_two_rounds_break_no_law_and_the_third_round_has_everybody(case: Case) -> None:
    @settings(max_examples=6)
    @given(CRASHES)
    # A client that had refused the model of a round it knew nothing of was never given it again.
    @example([(460, 3.0, False), (667, 3.0, False), (214, 0.0, False), (499, 0.0, False)])
    @example(
        [
            (43, 0.5, False),
            (442, 1.5, False),
            (416, 3.0, False),
            (452, 3.0, False),
            (672, 9.0, False),
            (631, 3.0, False),
        ]
    )
    @example([(151, 9.0, False), (110, 3.0, False), (324, 9.0, False), (430, 1.5, False), (349, 1.5, False)])
    def crash(crashes: list[Crash]) -> None:
        calm_down(case, crashes)

    crash()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_many_crashes_over_two_rounds_break_no_law(case: Case) -> None:
    @settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
    @given(CRASHES)
    def crash(crashes: list[Crash]) -> None:
        calm_down(case, crashes)

    crash()
