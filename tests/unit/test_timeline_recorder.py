"""What is left of a run for its timeline: counted into parts, whatever the run."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Churn, ClockSkew, Crash, Latency, Loss, World
from sim.timelines import Recorder
from sim.timelines.bins import Bins, Outage, Outages
from sim.timelines.recorder import MOST_ROUNDS, NUM_BINS, NUM_STRIKES
from sim.worlds.result import SimResult
from sim.worlds.trace import TraceEvent


def line(at: float, kind: str, member: str = "c0001", peer: str = "", what: str = "") -> str:
    return json.dumps({"at": at, "kind": kind, "member": member, "peer": peer, "what": what})


def watched(world: World, until_s: float) -> tuple[Recorder, SimResult, list[TraceEvent]]:
    recorder, events = Recorder(until_s), list[TraceEvent]()

    def take(said: str) -> None:
        recorder.take(said)
        events.append(TraceEvent.from_json(said))

    return recorder, world.run(until_s, watch=[recorder], sink=take), events


@given(st.lists(st.floats(0, 100)), st.integers(1, 50))
def test_bins_keep_every_count_and_put_it_where_it_was(instants: list[float], num: int) -> None:
    bins = Bins(num, 100.0)
    for at in instants:
        bins.add(at)
        place = bins.place(at)
        assert place * 100 / num <= at + 1e-9
        assert at <= (place + 1) * 100 / num + 1e-9
    assert sum(bins.counts) == len(instants)
    assert len(bins.counts) == num


def test_a_run_of_no_time_has_bins_too() -> None:
    bins = Bins(4, 0.0)
    bins.add(0.0)
    assert bins.counts == [1, 0, 0, 0]


@given(st.lists(st.floats(0.001, 5.0), max_size=80))
def test_outages_are_apart_and_count_every_crash(gaps: list[float]) -> None:
    outages, now = Outages(1.0), 0.0
    for i, gap in enumerate(gaps):
        now += gap
        (outages.crash if i % 2 == 0 else outages.up)(now)
    assert sum(outage.crashes for outage in outages.all) == (len(gaps) + 1) // 2
    for before, after in pairwise(outages.all):
        assert after.at_s - before.up_at_s >= 1.0
    assert len(outages.all) <= now / 1.0 + 1


def test_who_never_comes_up_is_down_to_the_end() -> None:
    outages = Outages(1.0)
    outages.up(0.0)
    outages.crash(3.0)
    assert outages.all == (Outage(3.0, math.inf),)


def test_a_recorder_counts_what_the_result_counts() -> None:
    world = World(seed=4).clients(6, baskets=2).network(Latency.fixed(0.05), Loss(0.05)).faults(Churn(40, 2.0))
    recorder, result, events = watched(world, 30.0)
    recording = recorder.recording()
    assert sum(recording.counts["deliver"]) == result.deliveries > 0
    assert sum(recording.counts["lose"]) == result.lost > 0
    assert sum(recording.counts["dead"]) == result.dead_letters > 0
    assert sum(recording.counts["model"]) == result.num_models
    assert sum(recording.counts["aborted"]) == result.num_aborted
    assert [sum(strikes) for strikes in recording.strikes] == [fired.count for fired in result.fired]
    assert sum(outage.crashes for found in recording.outages.values() for outage in found) == result.crashes
    assert sum(n for found in recording.refusals.values() for n in found.values()) == sum(result.refusals.values())
    crashes = [event.at for event in events if event.kind == "crash"]
    assert crashes[0] == min(outage.at_s for found in recording.outages.values() for outage in found)


def test_rounds_are_there_one_by_one_with_their_end() -> None:
    recorder, result, _ = watched(World(seed=4).clients(4, baskets=1), 12.0)
    rounds = recorder.recording().rounds
    assert [found.round_id for found in rounds] == list(range(1, len(rounds) + 1))
    assert sum(found.model is True for found in rounds) == result.num_models > 2
    assert all(found.at_s <= found.until_s for found in rounds)


def test_faults_strike_when_they_may() -> None:
    world = World(seed=4).clients(4, baskets=1).faults(Crash(6.5, ("c0001",), down_s=1.0))
    recorder, _, _ = watched(world, 20.0)
    ((strikes,), parts) = recorder.recording().strikes, 20
    assert [place for place, n in enumerate(strikes) if n] == [6]
    assert len(strikes) == parts


def test_who_looks_on_changes_nothing() -> None:
    world = World(seed=4).clients(6, baskets=2).network(Loss(0.05)).faults(ClockSkew(("c0001",), 1.5), Churn(30, 2.0))
    _, result, _ = watched(world, 20.0)
    alone = world.run(20.0)
    assert result.trace_hash == alone.trace_hash
    assert result.fired == alone.fired


@pytest.mark.parametrize("executor", ["heap", "loop"])
def test_who_is_down_or_waits_at_the_end_is_known(executor: str) -> None:
    world = World(seed=4).clients(4, baskets=1).executor(executor).faults(Crash(3.0, ("basket/basket-0",)))
    recorder = Recorder(4.5)
    world.run(4.5, heal_s=0.0, watch=[recorder], sink=recorder.take)
    recording = recorder.recording()
    assert recording.down == ("basket/basket-0",)
    assert [wait.who for wait in recording.waits].count("coordinator") == 1
    assert recording.num_waits == len(recording.waits)
    assert recording.outages["basket/basket-0"] == (Outage(3.0, math.inf),)


def test_an_hour_leaves_as_much_behind_as_a_minute() -> None:
    recorder = Recorder(3600.0)
    for i in range(100_000):
        at = i * 3600.0 / 100_000
        recorder.take(line(at, ("deliver", "crash", "up", "refuse", "lose")[i % 5]))
    recording = recorder.recording()
    assert sum(recording.counts["deliver"]) == 20_000
    assert len(recording.outages["c0001"]) <= NUM_BINS
    assert sum(outage.crashes for outage in recording.outages["c0001"]) == 20_000
    assert len(recording.refusals["c0001"]) <= NUM_BINS
    assert all(len(counts) == NUM_BINS for counts in recording.counts.values())


def test_of_too_many_rounds_only_counts_are_left() -> None:
    recorder, result, _ = watched(World(seed=4).clients(2, baskets=1).settings(round_every_s=0.01), 8.0)
    recording = recorder.recording()
    assert result.num_models > MOST_ROUNDS
    assert recording.rounds == ()
    assert sum(recording.counts["opened"]) >= result.num_models
    assert len(recorder._rounds) <= MOST_ROUNDS + 1


def test_a_line_in_another_form_is_read_too() -> None:
    recorder = Recorder(10.0)
    recorder.take('{"kind": "deliver", "at": 1, "member": "a", "peer": "b", "what": ""}')
    assert sum(recorder.recording().counts["deliver"]) == 1


def test_the_stage_is_asked_a_bounded_number_of_times() -> None:
    recorder = Recorder(100_000.0)
    assert recorder._num_strikes == NUM_STRIKES
