"""The pump: order of deliveries and timers, persists before sends, the wire."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scarcity.errors import LocalError
from scarcity.federation.effects import (
    Effect,
    Emit,
    Entry,
    Persist,
    Reject,
    RoundAborted,
    Send,
    SetTimer,
    Waiting,
)
from scarcity.federation.packets import Header, ModelRequest, Packet, Release
from scarcity.federation.pump import Pump
from scarcity.federation.transport import Reach
from tests.federation_world import World

HELLO = Packet(Header("f", 1, "layer2", 0, "x"), ModelRequest())


class Script:
    """A core that notes what it is told and answers from a script."""

    def __init__(self, log: list[Any], name: str = "x", **answers: list[Effect]) -> None:
        self.log, self.name, self.answers = log, name, answers

    def start(self, now: float) -> list[Effect]:
        return self.answers.get("start", [])

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        self.log.append((self.name, "packet", sender, now))
        return self.answers.get("receive", [])

    def fire(self, timer: str, now: float) -> list[Effect]:
        self.log.append((self.name, timer, now))
        return self.answers.get(timer, [])

    def waiting(self) -> tuple[Waiting, ...]:
        return (Waiting(self.name, "luck", 0, 1, (), 0.0, math.inf),)


def test_timers_fire_at_their_own_instants_in_order_of_instant_member_and_name() -> None:
    log: list[Any] = []
    pump = Pump()
    pump.add("b", Script(log, "b", start=[SetTimer("t", 2.0), SetTimer("s", 1.0)]))
    pump.add("a", Script(log, "a", start=[SetTimer("z", 2.0), SetTimer("y", 2.0)]))
    pump.advance(1.5)
    assert log == [("b", "s", 1.0)]
    assert pump.now == 1.5
    pump.advance(1.0)
    assert log[1:] == [("a", "y", 2.0), ("a", "z", 2.0), ("b", "t", 2.0)]


def test_a_timer_is_replaced_and_infinity_disarms_it() -> None:
    log: list[Any] = []
    pump = Pump()
    pump.add("a", Script(log, "a", start=[SetTimer("t", 1.0), SetTimer("t", 3.0), SetTimer("u", 1.0)]))
    pump.carry("a", [SetTimer("u", math.inf)])
    pump.advance(2.0)
    assert log == []
    pump.advance(2.0)
    assert log == [("a", "t", 3.0)]


def test_a_timer_that_rearms_itself_fires_once_a_period() -> None:
    log: list[Any] = []
    pump = Pump()
    core = Script(log, "a", start=[SetTimer("t", 1.0)])
    pump.add("a", core)
    for period in range(1, 4):
        core.answers["t"] = [SetTimer("t", period + 1.0)]
        pump.advance(1.0)
    assert log == [("a", "t", 1.0), ("a", "t", 2.0), ("a", "t", 3.0)]


def test_deliveries_come_in_the_order_of_sending_before_timers_that_are_due() -> None:
    log: list[Any] = []
    pump = Pump()
    pump.add("a", Script(log, "a", start=[SetTimer("now", 0.0), Send("b", HELLO), Send("c", HELLO)]))
    pump.add("c", Script(log, "c"))
    pump.add("b", Script(log, "b"))
    pump.run()
    assert log == [("b", "packet", "a", 0.0), ("c", "packet", "a", 0.0), ("a", "now", 0.0)]
    assert pump.counts == {"model-request": 2}


def test_effects_are_carried_out_in_list_order_and_kept() -> None:
    seen: list[tuple[str, Any]] = []
    pump = Pump(lambda who, what: seen.append((who, what)))
    event, refusal, entry = RoundAborted(1, "no", 0, 1), Reject("b", "no"), Entry("k", "1", b"x")
    pump.add("a", Script([], "a"))
    pump.carry("a", [Persist(entry), Send("b", HELLO), Emit(event), refusal])
    assert pump.journals["a"] == [entry]
    assert pump.events == [event]
    assert pump.rejects == [("a", refusal)]
    assert seen == [("a", event), ("a", refusal)]


def test_a_member_without_a_core_is_silent_and_an_id_has_one_core() -> None:
    pump = Pump()
    pump.add("a", Script([], "a", start=[Send("nobody", HELLO)]))
    pump.run()
    assert pump.counts == {}
    with pytest.raises(LocalError, match="'a'"):
        pump.add("a", Script([]))


def test_waiting_is_told_in_order_of_ids() -> None:
    pump = Pump()
    for name in ("b", "a"):
        pump.add(name, Script([], name))
    assert [waiting.who for waiting in pump.waiting()] == ["a", "b"]
    assert pump.reach is Reach.IN_PROCESS


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_the_wire_changes_nothing_and_hands_on_copies(mode: str) -> None:
    models = []
    for wire in (False, True):
        world = World(layer1=mode, wire=wire)
        world.open()
        for name in world.domains:
            world.submit(name, np.full(4, 0.1))
        assert world.coordinator.model is not None
        models.append(world.coordinator.model)
        assert world.net.rejects == []
    assert models[0].identity == models[1].identity


def test_a_run_is_a_function_of_its_seed() -> None:
    runs = []
    for _ in range(2):
        world = World()
        world.open()
        for name in world.domains:
            world.submit(name, np.full(4, 0.1))
            world.net.advance(1.0)
        runs.append([(s, t, p) for s, t, p in world.net.transcript])
    assert runs[0] == runs[1]
    assert any(isinstance(p.body, Release) for _, _, p in runs[0])
