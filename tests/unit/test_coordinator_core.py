"""`CoordinatorCore`: opening rounds, who is waited for, Layer 2 with dropouts, one model a round."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import LocalError
from scarcity.federation.coordinator import CoordinatorState
from scarcity.federation.effects import BasketClosed, ModelMade, Persist, Reject, RoundAborted, Send, SetTimer
from scarcity.federation.packets import (
    Aborted,
    Absent,
    BasketReport,
    Model,
    ModelRequest,
    Packet,
    RoundConfig,
    SecureSum,
)
from scarcity.federation.roster import COORDINATOR
from scarcity.federation.secure_aggregation.messages import Advertise, Confirm, Masked, Reveal, Shares
from tests.federation_world import DIMENSION, World, reasons, said

VECTOR = np.full(DIMENSION, 0.3)
FOUR = {f"{domain}{i}": domain for domain in "abcd" for i in range(3)}
STAGES = (Advertise, Shares, Masked, Confirm, Reveal)


def opened(domains: dict[str, str] | None = None, **settings: Any) -> World:
    world = World(domains, **settings)
    world.open()
    return world


def submit_all(world: World) -> None:
    for name in world.domains:
        world.submit(name, VECTOR)


def test_opening_sends_the_signed_config_to_every_basket() -> None:
    world = World()
    effects = world.coordinator.open_round(0.0)
    assert [(e.to, type(e.packet.body)) for e in effects if isinstance(e, Send)] == [
        ("basket/a", RoundConfig),
        ("basket/b", RoundConfig),
    ]
    assert isinstance(effects[-1], SetTimer)
    with pytest.raises(LocalError, match="round 1 is open"):
        world.coordinator.open_round(0.0)


def test_a_round_needs_terms() -> None:
    world = World()
    core = world.assembly.coordinator(world.seats.identity(COORDINATOR))
    with pytest.raises(LocalError, match="schema"):
        core.open_round(0.0)


def test_a_roster_takes_effect_between_rounds_only() -> None:
    world = opened()
    roster = attrs.evolve(world.seats.roster, epoch=2)
    with pytest.raises(LocalError, match="between rounds"):
        world.coordinator.adopt(roster, bytes(64))


def test_rounds_open_by_themselves_as_often_as_asked() -> None:
    world = World()
    core = world.assembly.coordinator(world.seats.identity(COORDINATOR), terms=world.terms, rounds=2)
    world.net._cores.pop(COORDINATOR)
    world.coordinator = core
    world.net.add(COORDINATOR, core)
    world.net.run()
    submit_all(world)
    assert core.round_id == 2
    submit_all(world)
    assert core.state is CoordinatorState.IDLE
    assert [event.model.round_id for event in world.net.events_of(ModelMade)] == [1, 2]


def test_waiting_names_the_baskets_that_are_missing() -> None:
    world = opened()
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    (waiting,) = world.coordinator.waiting()
    assert (waiting.have, waiting.need, waiting.missing) == (1, 2, ("basket/b",))


def test_an_absent_basket_is_not_waited_for_and_the_others_make_the_model() -> None:
    world = opened()
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    world.tell("basket/b", COORDINATOR, world.say("basket/b", Absent("no quorum", 1, 3), 1, to=COORDINATOR))
    (made,) = world.net.events_of(ModelMade)
    assert made.baskets == ("basket/a",)
    assert made.model.count == 3


def test_fewer_than_min_baskets_abort_the_round_and_say_why() -> None:
    world = opened(min_baskets=2)
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    world.tell("basket/b", COORDINATOR, world.say("basket/b", Absent("no quorum", 1, 3), 1, to=COORDINATOR))
    (event,) = world.net.events_of(RoundAborted)
    assert (event.have, event.need) == (1, 2)
    assert "basket/b: no quorum" in event.reason
    assert world.net.sent_by(COORDINATOR, Aborted)
    assert world.coordinator.state is CoordinatorState.IDLE
    world.open()
    assert world.coordinator.round_id == 2


def test_the_patience_timer_ends_the_wait_for_a_silent_basket() -> None:
    world = opened(ready_s=1.0, close_s=5.0, deadline_s=5.0, stage_s=1.0)
    world.net.lose = lambda sender, _to, _packet: sender == "basket/b"
    submit_all(world)
    assert world.net.events_of(ModelMade) == []
    world.net.advance(20.0)
    (made,) = world.net.events_of(ModelMade)
    assert made.baskets == ("basket/a",)


@pytest.mark.parametrize("kind", STAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_layer_2_loses_one_basket_of_four_at_any_stage(kind: type, mode: str) -> None:
    world = opened(FOUR, layer1=mode)
    later = STAGES[STAGES.index(kind) :]
    world.net.lose = lambda sender, to, packet: sender == "basket/d" and to == COORDINATOR and said(packet) in later
    submit_all(world)
    world.close()
    (made,) = world.net.events_of(ModelMade)
    in_sum = kind in (Confirm, Reveal)
    assert made.baskets == tuple(f"basket/{d}" for d in ("abcd" if in_sum else "abc"))
    assert made.model.count == 3 * len(made.baskets)
    by_basket = {event.basket_id: event.aggregate for event in world.net.events_of(BasketClosed)}
    variance = sum(by_basket[name].noise_variance for name in made.baskets)
    unit = world.assembly.settings.clip_norm / world.layout.steps if mode != "none" else 1.0
    assert made.model.noise_std == pytest.approx(np.sqrt(variance) * unit)
    total = sum(np.asarray(by_basket[name].total, dtype=np.float64) for name in made.baskets)
    np.testing.assert_allclose(made.model.vector, total * unit / made.model.weight, rtol=1e-6, atol=1e-8)


def test_a_sum_that_fails_is_tried_once_more_with_those_that_remain() -> None:
    world = opened({f"{d}{i}": d for d in "abc" for i in range(3)})
    world.net.lose = lambda sender, to, packet: sender == "basket/c" and to == COORDINATOR and said(packet) is Masked
    submit_all(world)
    world.close()
    (made,) = world.net.events_of(ModelMade)
    assert made.baskets == ("basket/a", "basket/b")


def test_after_the_second_failure_the_round_is_given_up() -> None:
    world = opened({f"{d}{i}": d for d in "abc" for i in range(3)})

    def lose(sender: str, to: str, packet: Packet) -> bool:
        attempt = world.coordinator._round.attempt if world.coordinator._round else 0
        return to == COORDINATOR and said(packet) is Masked and sender == ("basket/c", "basket/b")[attempt]

    world.net.lose = lose
    submit_all(world)
    world.close()
    assert world.net.events_of(ModelMade) == []
    (event,) = world.net.events_of(RoundAborted)
    assert event.reason
    assert world.coordinator.state is CoordinatorState.IDLE


def test_the_model_is_persisted_before_it_is_sent() -> None:
    world = opened()
    history: list[Any] = []
    carry = world.net.carry

    def listen(origin: str, effects: Any) -> None:
        kept = list(effects)
        if origin == COORDINATOR:
            history.extend(kept)
        carry(origin, kept)

    world.net.carry = listen  # type: ignore[method-assign]  # to see the order
    submit_all(world)
    kept = next(i for i, e in enumerate(history) if isinstance(e, Persist) and e.entry.kind == "model")
    sent = next(i for i, e in enumerate(history) if isinstance(e, Send) and isinstance(e.packet.body, Model))
    assert kept < sent


def test_the_next_config_names_the_model_before_and_every_member_holds_it() -> None:
    from scarcity.federation.codec import body_digest

    world = opened()
    submit_all(world)
    world.open()
    first, second = (p.body for p in {id(p): p for p in world.net.sent_by(COORDINATOR, RoundConfig)[::2]}.values())
    assert isinstance(first, RoundConfig)
    assert isinstance(second, RoundConfig)
    assert first.model_hash == b""
    assert world.coordinator.model is not None
    assert second.model_hash == body_digest(world.coordinator.model)


def test_reports_of_other_rounds_and_states_are_refused() -> None:
    world = World()
    report = world.say("basket/a", BasketReport(3.0, 3, 1.0), 1, to=COORDINATOR)
    assert reasons(world.coordinator.receive(report, "basket/a", 0.0))
    world.open()
    ahead = world.say("basket/a", BasketReport(3.0, 3, 1.0), 2, to=COORDINATOR)
    assert "report for round 2" in reasons(world.coordinator.receive(ahead, "basket/a", 0.0))[0]


@pytest.mark.parametrize(
    "report", [BasketReport(0.0, 3, 1.0), BasketReport(3.0, 0, 1.0), BasketReport(3.0, 3, -1.0)], ids=str
)
def test_a_report_out_of_range_is_refused(report: BasketReport) -> None:
    world = opened()
    effects = world.coordinator.receive(world.say("basket/a", report, 1, to=COORDINATOR), "basket/a", 0.0)
    assert [type(e) for e in effects] == [Reject]
    assert world.coordinator.waiting()[0].have == 0


def test_two_reports_of_one_basket_are_an_equivocation_and_the_second_counts_for_nothing() -> None:
    world = opened()
    world.coordinator.receive(world.say("basket/a", BasketReport(3.0, 3, 1.0), 1, to=COORDINATOR), "basket/a", 0.0)
    second = world.say("basket/a", BasketReport(9.0, 9, 1.0), 1, to=COORDINATOR)
    (effect,) = [e for e in world.coordinator.receive(second, "basket/a", 0.0) if isinstance(e, Reject)]
    assert effect.reason.startswith("equivocation")
    assert world.coordinator.waiting()[0].have == 1


def test_garbage_in_a_secure_sum_is_refused() -> None:
    world = opened()
    world.net.lose = lambda sender, to, packet: to == COORDINATOR and said(packet) is Masked
    submit_all(world)
    assert world.coordinator.state is CoordinatorState.SUMMING
    garbage = world.say("basket/a", SecureSum(b"\x00" * 40), 1, to=COORDINATOR)
    assert reasons(world.coordinator.receive(garbage, "basket/a", 0.0))
    assert world.coordinator.state is CoordinatorState.SUMMING


def test_a_basket_that_asks_is_told_config_and_model() -> None:
    world = opened()
    submit_all(world)
    asked = world.say("basket/a", ModelRequest(), 0, to=COORDINATOR)
    told = [type(e.packet.body) for e in world.coordinator.receive(asked, "basket/a", 0.0) if isinstance(e, Send)]
    assert told == [RoundConfig, Model]


def test_a_client_may_not_speak_to_the_coordinator_about_a_round() -> None:
    world = opened()
    packet = world.say("a1", Absent("I say so", 0, 1), 1, to=COORDINATOR)
    assert [type(e) for e in world.coordinator.receive(packet, "a1", 0.0)] == [Reject]
