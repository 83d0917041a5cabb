"""What each fault does to a packet, a member or a clock, and how it counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from scarcity.federation.packets import GossipPull, ModelRequest, SecureSum, TrustMode
from sim.chance import Chance
from sim.faults.plan import (
    Bandwidth,
    Churn,
    ClockSkew,
    Clog,
    Crash,
    Dropout,
    Duplicate,
    Latency,
    Loss,
    Partition,
    Reorder,
    SlowHandler,
)
from sim.faults.stage import CrashEvent, FaultStage, Fired
from sim.faults.stages import STAGES, stage_name
from tests.faults_world import CLIENTS, END_S, SEATS, packet_of, plan_of, stage_bodies, stage_of

BASKET, OTHER_BASKET = "basket/basket-0", "basket/basket-1"


def _sent(stage: FaultStage, src: str, dst: str, now: float = 1.0, size_bytes: int = 100) -> tuple[float, ...]:
    return stage.passages(src, dst, packet_of(src), size_bytes, now)


def test_without_faults_a_packet_arrives_at_once() -> None:
    stage = stage_of()
    assert _sent(stage, "c0000", BASKET) == (0.0,)
    assert (stage.crashes(), stage.local_time("c0000", 3.0), stage.handling_s("c0000", 3.0)) == ((), 3.0, 0.0)
    assert (stage.fired(), stage.unfired()) == ((), ())


def test_delays_add_up() -> None:
    stage = stage_of(Latency.fixed(0.2), Latency.fixed(0.3, of=("c0001",)), Reorder(1.0, 0.5, of=("c0001",)))
    assert _sent(stage, "c0000", BASKET) == (0.2,)
    assert _sent(stage, "c0001", BASKET) == (pytest.approx(1.0),)
    assert _sent(stage, BASKET, "c0001") == (pytest.approx(1.0),)


def test_a_law_holds_in_its_window_alone() -> None:
    stage = stage_of(Loss(1.0, at_s=10, until_s=20))
    assert [len(_sent(stage, "c0000", BASKET, now)) for now in (9.99, 10.0, 19.99, 20.0)] == [1, 0, 0, 1]


def test_bandwidth_lets_packets_of_a_pair_leave_one_after_another() -> None:
    stage = stage_of(Bandwidth(1000.0))
    assert _sent(stage, "c0000", BASKET, 1.0, 500) == (0.5,)
    assert _sent(stage, "c0000", BASKET, 1.0, 500) == (1.0,)
    assert _sent(stage, "c0000", "c0002", 1.0, 500) == (0.5,)
    assert _sent(stage, BASKET, "c0000", 1.0, 500) == (0.5,)
    assert _sent(stage, "c0000", BASKET, 5.0, 500) == (0.5,)


def test_what_is_lost_on_the_way_took_its_time_on_the_line() -> None:
    stage = stage_of(Bandwidth(1000.0), Loss(1.0, until_s=1.5))
    assert _sent(stage, "c0000", BASKET, 1.0, 1000) == ()
    assert _sent(stage, "c0000", BASKET, 1.5, 1000) == (1.5,)


def test_a_duplicate_takes_a_passage_of_its_own() -> None:
    stage = stage_of(Duplicate(1.0), Latency.exponential(0.02), Bandwidth(1e3))
    first, second = _sent(stage, "c0000", BASKET, 1.0, 100)
    assert first > 0.1  # the line's share
    assert 0 < second != first
    assert {fired.name: fired.count for fired in stage.fired()} == {"duplicate": 1, "latency": 2, "bandwidth": 1}


BOTH = ("basket-0", "basket-1")
CLIENTS_AND_BASKETS = ("clients", "baskets")
PARTED = [
    # groups, mode, symmetric, (src, dst, arrives)
    (("basket-0",), "isolate", True, [("c0000", "coordinator", 0), ("coordinator", BASKET, 0), ("c0000", "c0002", 1)]),
    (("basket-0",), "isolate", True, [("c0001", "coordinator", 1), ("c0000", BASKET, 1), ("c0000", "c0001", 0)]),
    (("basket-0",), "isolate", False, [("c0000", "coordinator", 0), ("coordinator", BASKET, 1), (BASKET, "c0000", 1)]),
    (BOTH, "isolate", True, [("c0000", "c0001", 0), (BASKET, "coordinator", 0), ("coordinator", BASKET, 0)]),
    (BOTH, "isolate", False, [("c0000", "c0001", 0), ("c0001", "c0000", 0), ("coordinator", BASKET, 1)]),
    (("c0000", "c0001"), "isolate", True, [("c0000", "c0002", 0), ("c0002", "c0001", 0), ("c0003", "c0002", 1)]),
    (BOTH, "split", True, [("c0000", "c0001", 0), ("c0001", "c0000", 0), ("c0000", "coordinator", 1)]),
    (BOTH, "split", False, [("c0000", "c0001", 0), ("c0001", "c0000", 1), ("c0000", "c0002", 1)]),
    (CLIENTS_AND_BASKETS, "split", True, [("c0000", BASKET, 0), ("c0000", "c0001", 1), (BASKET, "coordinator", 1)]),
]


@pytest.mark.parametrize(("groups", "mode", "symmetric", "ways"), PARTED)
def test_a_partition_keeps_groups_apart_until_it_heals(
    groups: tuple[str, ...], mode: str, symmetric: bool, ways: list[tuple[str, str, int]]
) -> None:
    stage = stage_of(Partition(30, 45, groups, symmetric, mode))
    for src, dst, arrives in ways:
        assert len(_sent(stage, src, dst, 31.0)) == arrives
        assert _sent(stage, src, dst, 45.0) == (0.0,)
    lost = [src for src, _, arrives in ways if not arrives]
    assert stage.fired() == (Fired(0, "partition", len(lost), tuple(sorted(set(lost)))),)


def test_an_unstable_partition_comes_and_goes_for_all_at_once() -> None:
    stage = stage_of(Partition(10, 50, ("basket-0",), stability_s=2.0))
    instants = [10 + number / 100 for number in range(4000)]
    arrives = [len(_sent(stage, "c0000", "coordinator", at)) for at in instants]
    assert arrives == [len(_sent(stage, BASKET, "coordinator", at)) for at in instants]
    turns = [at for at, before, after in zip(instants[1:], arrives, arrives[1:], strict=False) if before != after]
    held = [after - before for before, after in zip([10.0, *turns], turns, strict=False)]
    assert arrives[0] == 0
    assert 13 <= len(turns) <= 39
    assert all(0.98 <= seconds <= 3.02 for seconds in held)
    assert max(held) - min(held) > 0.5
    assert _sent(stage, "c0000", "coordinator", 50.0) == _sent(stage, "c0000", "coordinator", 9.9) == (0.0,)


def test_turns_of_a_late_and_short_partition_end_too() -> None:
    stage = stage_of(Partition(1e15, 1e15 + 1, ("basket-0",), stability_s=1e-4))
    assert len(_sent(stage, "c0000", "coordinator", 1e15 + 1)) == 1


def test_what_is_clogged_waits_until_the_end_and_then_takes_its_time() -> None:
    stage = stage_of(Clog(10, 20, ("c0000",)), Latency.fixed(0.5))
    assert _sent(stage, "c0000", BASKET, 12.0) == (8.5,)
    assert _sent(stage, BASKET, "c0000", 19.0) == (1.5,)
    assert _sent(stage, "c0002", BASKET, 12.0) == (0.5,)
    assert stage.fired()[1] == Fired(1, "clog", 2, ("c0000",))


def test_slow_handlers_and_skewed_clocks_add_up() -> None:
    stage = stage_of(
        SlowHandler(("clients",), 0.1),
        SlowHandler(("c0001",), 0.2, at_s=5),
        ClockSkew(("c0001",), 3.0, 0.5),
        ClockSkew(("basket-1",), -1.0),
    )
    assert [stage.handling_s("c0001", now) for now in (1.0, 5.0)] == [0.1, pytest.approx(0.3)]
    assert stage.handling_s(BASKET, 5.0) == 0.0
    assert stage.local_time("c0001", 10.0) == 17.0
    assert stage.world_time("c0001", 17.0) == 10.0
    assert (stage.local_time("c0000", 10.0), stage.world_time("c0000", 10.0)) == (10.0, 10.0)
    assert [(fired.name, fired.count, fired.on) for fired in stage.fired()] == [
        ("slow-handler", 2, ("c0001",)),
        ("slow-handler", 1, ("c0001",)),
        ("clock-skew", 1, ("c0001",)),
        ("clock-skew", 1, ("c0001",)),
    ]


# Crashes.


def test_a_crash_strikes_each_member_of_its_groups() -> None:
    stage = stage_of(Crash(3, ("baskets", "c0001"), 2.0, torn=True))
    assert stage.crashes() == tuple(
        CrashEvent(3.0, member, 5.0, torn=True, fault_index=0) for member in (BASKET, OTHER_BASKET, "c0001")
    )


def test_who_is_struck_while_down_stays_down_for_longer() -> None:
    stage = stage_of(
        Crash(3, ("c0001",), 4.0), Crash(5, ("c0001",), 10.0), Crash(15, ("c0001",), 1.0), Crash(20, ("c0001",))
    )
    outages = [(event.at_s, event.up_at_s, event.fault_index) for event in stage.crashes()]
    assert outages == [(3.0, 16.0, 0), (20.0, math.inf, 3)]
    assert [fired.count for fired in stage.fired()] == [1, 1, 1, 1]


def test_crashes_that_have_not_come_yet_have_not_fired() -> None:
    stage = stage_of(Crash(3, ("c0001",), 1.0), Crash(30, ("c0001",), 1.0), Crash(END_S, ("c0001",), 1.0))
    assert len(stage.crashes()) == 2
    assert [fired.index for fired in stage.unfired()] == [2]
    assert [fired.index for fired in stage.unfired(now=29.0)] == [1, 2]


def test_churn_keeps_to_its_window_and_strikes_nobody_who_is_down() -> None:
    stage = stage_of(Churn(600, 4.0, ("basket-0",), at_s=10, until_s=30))
    crashes = stage.crashes()
    assert {crash.member for crash in crashes} == {BASKET, *CLIENTS[::2]}
    assert all(10 <= crash.at_s < 30 for crash in crashes)
    for member in CLIENTS[::2]:
        own = [crash for crash in crashes if crash.member == member]
        assert all(a.up_at_s <= b.at_s for a, b in itertools.pairwise(own))
    assert stage.fired()[0].count == len(crashes)


# Silence.


@pytest.mark.parametrize(
    ("mode", "at"), [(mode, index) for mode, stages in STAGES.items() for index in range(len(stages))]
)
def test_a_dropout_silences_its_stage_and_all_later_ones_of_the_round(mode: TrustMode, at: int) -> None:
    names = [stage_name(said) for said in STAGES[mode]]
    stage = stage_of(Dropout(names[at], of=("c0000",), round_id=2))
    bodies = stage_bodies()
    for round_id in (1, 2, 3):
        for index, name in enumerate(names):
            arrived = stage.passages("c0000", BASKET, packet_of("c0000", bodies[name], round_id), 10, 1.0)
            assert bool(arrived) is (round_id != 2 or index < at)
    assert stage.fired() == (Fired(0, "dropout", 1, ("c0000",)),)


def test_a_silent_client_says_nothing_at_all_until_the_next_round() -> None:
    stage = stage_of(Dropout("unprotected", of=("c0000",), round_id=1))
    body = stage_bodies()["unprotected"]

    def says(what: Any, round_id: int) -> bool:
        return bool(stage.passages("c0000", "c0002", packet_of("c0000", what, round_id), 10, 1.0))

    assert says(GossipPull(()), 1)
    assert not says(body, 1)
    assert not says(GossipPull(()), 1)
    assert not says(ModelRequest(), 0)
    assert says(body, 2)
    assert says(ModelRequest(), 0)
    assert not says(body, 1)  # what it did not say in time it does not say later
    assert stage.passages("c0002", "c0000", packet_of("c0002", body), 10, 1.0) == (0.0,)


def test_a_secure_sum_of_garbage_is_at_no_stage() -> None:
    stage = stage_of(Dropout("masked"))
    assert stage.passages("c0000", BASKET, packet_of("c0000", SecureSum(b"\xff" * 40)), 10, 1.0) == (0.0,)


# What counts.


def test_every_entry_counts_whom_it_strikes_and_those_that_strike_nobody_are_known() -> None:
    stage = stage_of(
        Loss(1.0, of=("c0001",)),
        Loss(0.0),
        Latency.fixed(0.1, at_s=50),
        Partition(1, 2, ("basket-0",)),
        Dropout("masked"),
    )
    _sent(stage, "c0001", OTHER_BASKET, 3.0)
    _sent(stage, OTHER_BASKET, "c0001", 3.0)
    _sent(stage, "c0003", OTHER_BASKET, 3.0)
    assert stage.fired()[0] == Fired(0, "loss", 2, ("c0001",))
    assert [fired.index for fired in stage.unfired()] == [1, 2, 3, 4]


def test_a_packet_that_two_faults_strike_counts_for_both() -> None:
    stage = stage_of(Loss(1.0), Partition(0, 10, ("basket-0",)), Dropout("unprotected"))
    packet = packet_of("c0000", stage_bodies()["unprotected"])
    assert stage.passages("c0000", "coordinator", packet, 10, 1.0) == ()
    assert [fired.count for fired in stage.fired()] == [1, 1, 1]


def test_decisions_are_golden() -> None:
    stage = FaultStage(plan_of(Latency.exponential(0.02, 0.005), Loss(0.3), Churn(6, 10)), SEATS, Chance(7), END_S)
    delays = [_sent(stage, "c0000", BASKET) for _ in range(10)]
    arrivals = {number: round(delay[0], 6) for number, delay in enumerate(delays) if delay}
    assert arrivals == {0: 0.012952, 1: 0.007864, 8: 0.011559}
    crashes = [(round(crash.at_s, 3), crash.member) for crash in stage.crashes()]
    assert crashes[:3] == [(10.041, "c0009"), (11.542, "c0000"), (22.491, "c0003")]
