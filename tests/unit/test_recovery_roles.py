"""Each role, restored from its journal: what it says again, what it never says twice, what it gives up."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import LedgerCorrupt, LocalError
from scarcity.federation.basket import BasketCore, BasketState
from scarcity.federation.client import ClientCore, ClientState
from scarcity.federation.codec import encode_packet
from scarcity.federation.coordinator import CoordinatorCore, CoordinatorState
from scarcity.federation.effects import Effect, Emit, Persist, RoundAborted, Send, SetTimer
from scarcity.federation.packets import (
    Aborted,
    Absent,
    Ack,
    Aggregate,
    BasketReport,
    Declined,
    Model,
    ModelRequest,
    Packet,
    Ready,
    Release,
    RoundConfig,
    SecureSum,
)
from scarcity.federation.privacy_guard import LEDGER, PrivacyFilter, event_of
from scarcity.federation.recovery import Outcome, basket_past, statement
from scarcity.federation.roster import COORDINATOR
from scarcity.federation.secure_aggregation import SumConfigMessage, decode
from sim.chance import reproducible_entropy
from tests.federation_world import World, payloads

VECTOR = [0.1, 0.2, 0.3, 0.4]
ALL = ("a1", "a2", "a3", "b1", "b2", "b3")


def world_of(mode: str, **settings: Any) -> World:
    if mode == "central":
        domains = {"a1": "a", "b1": "b", "c1": "c"}
        return World(domains, mode=mode, min_clients=1, **settings)
    return World(mode=mode, **({"rule": "average"} if mode == "local" else {}), **settings)


def disk(world: World, member: str, without: str = "") -> dict[str, list[bytes]]:
    return {kind: kept for kind, kept in payloads(world.net.journals[member]).items() if kind != without}


def next_life(world: World) -> Any:
    """Return an assembly whose secrets and noise are those of another life."""
    return attrs.evolve(world.assembly, entropy=reproducible_entropy(77))


def coordinator_again(world: World, journal: Any = None, **given: Any) -> CoordinatorCore:
    journal = disk(world, COORDINATOR) if journal is None else journal
    core = next_life(world).coordinator(world.seats.identity(COORDINATOR), terms=world.terms, journal=journal, **given)
    world.coordinator = world.net._cores[COORDINATOR] = core
    return core


def basket_again(world: World, name: str = "basket/a", journal: Any = None) -> BasketCore:
    journal = disk(world, name) if journal is None else journal
    core = next_life(world).basket(world.seats.identity(name), world.seats.operator_public_key, journal=journal)
    world.baskets[name] = world.net._cores[name] = core
    return core


def client_again(world: World, name: str = "a1", learner: Any = None) -> ClientCore:
    identity, operator = world.seats.identity(name), world.seats.operator_public_key
    core = next_life(world).client(identity, operator, journal=disk(world, name), learner=learner)
    world.clients[name] = world.net._cores[name] = core
    return core


def said(effects: list[Effect], kind: type) -> list[Packet]:
    return [effect.packet for effect in effects if isinstance(effect, Send) and isinstance(effect.packet.body, kind)]


def start(world: World, member: str, core: Any) -> list[Effect]:
    effects: list[Effect] = core.start(world.net.now)
    world.net.carry(member, effects)
    world.net.run()
    return effects


# The coordinator.


def test_a_restarted_coordinator_sends_the_config_of_the_open_round_again_byte_for_byte() -> None:
    world = world_of("local")
    world.open()
    (first, _) = world.net.sent_by(COORDINATOR, RoundConfig)
    again = coordinator_again(world)
    effects = again.start(0.0)
    assert {encode_packet(packet) for packet in said(effects, RoundConfig)} == {encode_packet(first)}
    assert again.state is CoordinatorState.COLLECTING
    assert [effect.at for effect in effects if isinstance(effect, SetTimer)] == [world.assembly.settings.patience_s]


def test_baskets_answer_a_repeated_config_with_the_same_report_and_the_round_has_its_model() -> None:
    world = world_of("local")
    world.open()
    for name in ALL[:5]:
        world.submit(name, VECTOR)
    (report,) = world.net.sent_by("basket/a", BasketReport)
    again = coordinator_again(world)
    start(world, COORDINATOR, again)
    assert {encode_packet(p) for p in world.net.sent_by("basket/a", BasketReport)} == {encode_packet(report)}
    world.submit("b3", VECTOR)
    assert again.model is not None
    assert again.model.count == 6


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_sum_that_had_begun_is_begun_again_as_the_next_attempt(mode: str) -> None:
    world = world_of(mode)
    world.open()
    world.net.lose = lambda _sender, to, packet: to == COORDINATOR and isinstance(packet.body, SecureSum)
    for name in world.domains:
        world.submit(name, VECTOR)
    assert world.coordinator.state is CoordinatorState.SUMMING
    world.net.lose = lambda *_: False
    again = coordinator_again(world)
    start(world, COORDINATOR, again)
    configs = [decode(packet.body.payload) for packet in world.net.sent_by(COORDINATOR, SecureSum)]
    attempts = [message.config.attempt for message in configs if isinstance(message, SumConfigMessage)]
    assert sorted(set(attempts)) == [0, 1]
    assert again.model is not None
    assert again.model.count == len(world.domains)


def test_in_mode_central_a_sum_that_had_begun_is_given_up() -> None:
    world = world_of("central")
    world.open()
    world.net.lose = lambda _sender, to, packet: to == COORDINATOR and isinstance(packet.body, SecureSum)
    for name in world.domains:
        world.submit(name, VECTOR)
    effects = coordinator_again(world).start(0.0)
    assert isinstance(effects[0], Persist)
    assert effects[0].entry.kind == "aborted"
    (event,) = [effect.event for effect in effects if isinstance(effect, Emit)]
    assert isinstance(event, RoundAborted)
    assert "not summed twice" in event.reason


def test_a_coordinator_that_died_in_both_attempts_gives_the_round_up() -> None:
    world = world_of("local")
    world.open()
    world.net.lose = lambda _sender, to, packet: to == COORDINATOR and isinstance(packet.body, SecureSum)
    for name in world.domains:
        world.submit(name, VECTOR)
    start(world, COORDINATOR, coordinator_again(world))
    (aborted, *_) = said(coordinator_again(world).start(0.0), Aborted)
    assert "attempt 2 of Layer 2" in aborted.body.reason


def test_a_crash_between_the_charge_of_layer_2_and_the_model_ends_the_round_with_a_reason() -> None:
    world = world_of("local", central_share=0.5, layer2_clip=1.0)
    world.open()
    for name in world.domains:
        world.submit(name, VECTOR)
    journal = disk(world, COORDINATOR, without="model")
    assert journal[LEDGER]
    again = coordinator_again(world, journal)
    (aborted, *_) = said(start(world, COORDINATOR, again), Aborted)
    assert "noise was charged" in aborted.body.reason
    again.open_round(0.0)  # and the chain of the ledger goes on


def test_layer_2_noise_that_cannot_be_paid_ends_the_round_instead_of_the_coordinator() -> None:
    world = world_of("central", epsilon=1.0, planned_rounds=1)
    world.open()
    ledger = world.coordinator._ledger
    assert isinstance(ledger, PrivacyFilter)
    ledger.reserve(event_of(world.terms.layer2_noise), "something else", "test", (1, 2))
    for name in world.domains:
        world.submit(name, VECTOR)
    (event,) = world.net.events_of(RoundAborted)
    assert "cannot be charged" in event.reason


def test_rounds_are_counted_over_restarts() -> None:
    world = world_of("local")
    coordinator_again(world, {}, rounds=2)
    start(world, COORDINATOR, world.coordinator)
    for _ in range(2):
        for name in world.domains:
            world.submit(name, VECTOR)
        again = coordinator_again(world, rounds=2)
        start(world, COORDINATOR, again)
    assert again.round_id == 2
    assert again.state is CoordinatorState.IDLE


@pytest.mark.parametrize("kind", [Model, Aborted])
def test_how_the_newest_round_ended_is_said_again_at_the_start_and_on_request(kind: type) -> None:
    world = world_of("local")
    world.open()
    if kind is Model:
        for name in world.domains:
            world.submit(name, VECTOR)
    else:
        world.close()
    first = encode_packet(world.net.sent_by(COORDINATOR, kind)[0])
    again = coordinator_again(world)
    assert {encode_packet(packet) for packet in said(again.start(0.0), kind)} == {first}
    ask = world.say("basket/a", ModelRequest(), 0, to=COORDINATOR)
    assert [encode_packet(packet) for packet in said(again.receive(ask, "basket/a", 0.0), kind)] == [first]


def test_a_round_under_other_settings_than_the_new_ones_is_given_up() -> None:
    world = world_of("local")
    world.open()
    assembly = attrs.evolve(next_life(world), settings=attrs.evolve(world.assembly.settings, close_s=5.0))
    core = assembly.coordinator(world.seats.identity(COORDINATOR), terms=world.terms, journal=disk(world, COORDINATOR))
    (aborted, *_) = said(core.start(0.0), Aborted)
    assert "settings or the roster" in aborted.body.reason


def test_between_rounds_the_coordinator_pauses_and_says_until_when() -> None:
    world = world_of("local")
    core = coordinator_again(world, {}, rounds=2, interval_s=30.0)
    start(world, COORDINATOR, core)
    for name in world.domains:
        world.submit(name, VECTOR)
    assert (core.round_id, core.state) == (1, CoordinatorState.IDLE)
    (waiting,) = core.waiting()
    assert waiting.describe(world.net.now) == "coordinator waits for the next round's time: 0 of 0 (30 s left)"
    world.net.advance(29.0)
    assert core.round_id == 1
    world.net.advance(1.0)
    assert core.round_id == 2


def test_the_first_round_opens_once_every_expected_basket_has_come_up() -> None:
    world = world_of("local")
    core = coordinator_again(world, {}, rounds=1, gather_s=60.0)
    start(world, COORDINATOR, core)
    ask = world.say("basket/a", ModelRequest(), 0, to=COORDINATOR)
    world.tell("basket/a", COORDINATOR, ask)
    world.tell("basket/a", COORDINATOR, ask)
    (waiting,) = core.waiting()
    assert "baskets to come up: 1 of 2 (60 s left); missing basket/b" in waiting.describe(0.0)
    world.tell("basket/b", COORDINATOR, world.say("basket/b", ModelRequest(), 0, to=COORDINATOR))
    assert (core.round_id, core.state) == (1, CoordinatorState.COLLECTING)
    world.net.advance(61.0)
    assert core.round_id == 1


def test_after_gather_s_the_first_round_opens_without_the_missing() -> None:
    world = world_of("local")
    core = coordinator_again(world, {}, rounds=1, gather_s=60.0)
    start(world, COORDINATOR, core)
    world.net.advance(60.0)
    assert core.round_id == 1


# A basket.


def test_a_restarted_basket_acknowledges_what_it_has_and_knows_an_equivocation() -> None:
    world = world_of("local")
    world.open()
    world.submit("a1", VECTOR)
    again = basket_again(world)
    start(world, "basket/a", again)
    (release,) = world.net.sent_by("a1", Release)[:1]
    assert [type(p.body) for p in said(again.receive(release, "a1", 0.0), Ack)] == [Ack]
    other = attrs.evolve(release.body, vector=release.body.vector + 1)
    effects = again.receive(world.say("a1", other, 1, to="basket/a"), "a1", 0.0)
    assert [effect.entry.kind for effect in effects if isinstance(effect, Persist)] == ["equivocation"] * 2
    world.net.carry("basket/a", effects)
    convicted = basket_again(world)
    start(world, "basket/a", convicted)
    (waiting,) = convicted.waiting()
    assert "a1" in waiting.missing


@pytest.mark.parametrize("mode", ["local", "distributed", "central", "none"])
def test_a_restarted_basket_says_its_report_again_and_joins_layer_2_with_the_same_vector(mode: str) -> None:
    whole, cut = world_of(mode), world_of(mode)
    for world in (whole, cut):
        world.open()
        for name in list(world.domains)[:-1]:
            world.submit(name, VECTOR)
    again = basket_again(cut)
    before = encode_packet(cut.net.sent_by("basket/a", BasketReport)[0])
    assert {encode_packet(p) for p in said(start(cut, "basket/a", again), BasketReport)} == {before}
    assert again.state is BasketState.REPORTED
    for world in (whole, cut):
        world.submit(list(world.domains)[-1], VECTOR)
        assert world.coordinator.model is not None
    assert np.array_equal(cut.coordinator.model.vector, whole.coordinator.model.vector)


def test_a_sum_inside_the_basket_that_had_begun_is_not_begun_again() -> None:
    world = world_of("distributed")
    world.open()
    world.net.lose = lambda sender, to, packet: to == "basket/a" and isinstance(packet.body, SecureSum)
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    (absent,) = said(start(world, "basket/a", basket_again(world)), Absent)
    assert "restarted in mid-sum" in absent.body.reason
    (same,) = said(start(world, "basket/a", basket_again(world)), Absent)
    assert encode_packet(same) == encode_packet(absent)


def test_a_basket_that_asks_again_hears_ready_again_in_the_same_bytes() -> None:
    world = world_of("distributed")
    world.open()
    world.submit("a1", VECTOR)
    again = basket_again(world)
    start(world, "basket/a", again)
    readies = world.net.sent_by("a1", Ready)
    assert len(readies) == 2
    assert len({encode_packet(packet) for packet in readies}) == 1
    (waiting,) = again.waiting()
    assert waiting.missing == ("a2", "a3")


def test_a_late_contribution_that_was_acknowledged_counts_after_a_restart() -> None:
    world = world_of("local", quorum=0.5, close_s=1.0, gossip_s=100.0)
    world.net.lose = lambda sender, _to, packet: sender == "a1" and isinstance(packet.body, Release)
    world.open()
    for name in ALL:
        world.submit(name, VECTOR)
    world.net.advance(1.0)
    world.tell("a1", "basket/a", world.net.sent_by("a1", Release)[0])  # late for round 1
    basket_again(world)
    start(world, "basket/a", world.baskets["basket/a"])
    world.open()
    for name in ALL[1:]:
        world.submit(name, VECTOR)
    world.net.advance(1.0)
    assert world.coordinator.model is not None
    assert world.coordinator.model.count == 6
    assert world.coordinator.model.weight == 5.5


def test_a_restarted_basket_takes_no_second_config_for_its_round() -> None:
    world = world_of("local")
    world.open()
    again = basket_again(world)
    start(world, "basket/a", again)
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0]
    other = attrs.evolve(config.body, model_hash=b"x" * 32)
    effects = again.receive(world.say(COORDINATOR, other, 1, to="basket/a"), COORDINATOR, 0.0)
    assert "equivocation" in effects[-1].reason


def test_a_round_that_was_given_up_is_shown_to_no_member_again() -> None:
    world = world_of("local")
    world.open()
    world.close()
    again = basket_again(world)
    effects = start(world, "basket/a", again)
    assert again.state is BasketState.IDLE
    assert said(effects, RoundConfig) == []
    start(world, "a1", client_again(world))
    assert world.clients["a1"].state is ClientState.IDLE


@pytest.mark.parametrize("total", [np.array([1, -(2**62)]), np.array([0.5, -1e300])], ids=["integers", "reals"])
def test_an_outcome_is_read_back_as_it_was(total: Any) -> None:
    world = world_of("local")
    packet = world.say("basket/a", BasketReport(2.5, 2, 0.125), 3, to=COORDINATOR)
    outcome = Outcome(packet, Aggregate(total, 2.5, 2, "average", 0.125), (("a1", 2), ("a2", 3)))
    config = statement("config", world.say(COORDINATOR, RoundConfig(*some_terms(world)), 3, to="basket/a"))
    past = basket_past({"aggregate": [outcome.entry().payload], "config": [config.payload]}, 2)
    assert past.outcome == outcome
    assert (past.closed, past.used) == (3, {"a1": 2, "a2": 3})


def test_receipts_that_can_no_longer_count_are_not_read() -> None:
    world = world_of("local")
    release = Release(b"", np.array([1, 2, 3, 4]), 1)
    rounds = [1, 1, 2, 4, 3, 5, 6, 6, 8, 7, 9, 10]
    receipts = [encode_packet(world.say("a1", release, at, to="basket/a")) for at in rounds]
    config = statement("config", world.say(COORDINATOR, RoundConfig(*some_terms(world)), 10, to="basket/a"))
    past = basket_past({"receipt": receipts, "config": [config.payload]}, 2)
    assert [packet.header.round_id for packet in past.receipts] == [5, 6, 6, 8, 7, 9, 10]


def some_terms(world: World) -> tuple[Any, ...]:
    terms, root = world.terms, world.seats.roster.root
    return (world.assembly.settings, terms.noise, b"", 4, root, b"", terms.layer2_noise)


# A client.


def test_a_restarted_client_sends_its_contribution_again_until_it_is_acknowledged() -> None:
    world = world_of("local")
    world.open()
    world.net.lose = lambda sender, to, packet: isinstance(packet.body, Release | Ack)
    world.submit("a1", VECTOR)
    again = client_again(world)
    start(world, "a1", again)
    assert again.state is ClientState.CONTRIBUTED
    world.net.advance(2.0)
    releases = world.net.sent_by("a1", Release)
    assert len({encode_packet(packet) for packet in releases}) == 1
    assert len(releases) >= 4
    world.net.lose = lambda *_: False
    world.net.advance(1.0)
    sent = len(world.net.sent_by("a1", Release))
    world.net.advance(3.0)
    assert len(world.net.sent_by("a1", Release)) == sent


def test_a_client_that_was_charged_and_has_sent_nothing_declines_with_a_fixed_word_and_the_charge_stays() -> None:
    world = world_of("local")
    world.open()
    world.submit("a1", VECTOR)
    spent = world.clients["a1"].epsilon_spent
    world.net.journals["a1"] = world.net.journals["a1"][:1]  # the ledger's record, and no more
    again = client_again(world)
    start(world, "a1", again)
    (declined,) = world.net.sent_by("a1", Declined)
    assert declined.body.reason == "it was restarted in mid-round"
    assert again.epsilon_spent == spent > 0
    start(world, "a1", client_again(world))
    assert {encode_packet(packet) for packet in world.net.sent_by("a1", Declined)} == {encode_packet(declined)}


def test_a_learner_is_given_every_model_again() -> None:
    class Learner:
        layout = None

        def __init__(self) -> None:
            self.rounds: list[int] = []

        def update_for(self, round_id: int) -> None:
            return None

        def accepted(self, update: Any) -> None:
            pass

        def receive_model(self, model: Model) -> None:
            self.rounds.append(model.round_id)

    world = world_of("local")
    for _ in range(2):
        world.open()
        for name in world.domains:
            world.submit(name, VECTOR)
    learner = Learner()
    again = client_again(world, learner=learner)
    start(world, "a1", again)
    assert learner.rounds == [1, 2]
    assert again.model == world.coordinator.model


def test_a_client_does_not_enter_a_round_whose_model_it_had() -> None:
    world = world_of("local")
    world.open()
    for name in world.domains:
        world.submit(name, VECTOR)
    again = client_again(world)
    start(world, "a1", again)
    assert again.state is ClientState.IDLE
    assert said(start(world, "a1", client_again(world)), Release) != []  # the Ack may not have come


def test_a_client_that_refused_a_model_for_want_of_the_config_is_given_it_again() -> None:
    world = world_of("local")
    world.net.lose = lambda _sender, to, packet: to == "a1" and isinstance(packet.body, RoundConfig)
    world.open()
    for name in ALL[1:]:
        world.submit(name, VECTOR)
    world.close()
    assert world.clients["a1"].model is None
    world.net.lose = lambda *_: False
    world.open()
    assert world.clients["a1"].model == world.coordinator.model


@pytest.mark.parametrize("kind", ["contribution", "declined", "model"])
def test_a_record_that_cannot_be_read_is_damage(kind: str) -> None:
    world = world_of("local")
    with pytest.raises(LedgerCorrupt, match=kind):
        world.assembly.client(
            world.seats.identity("a1"), world.seats.operator_public_key, journal={kind: [b"\xc1 no packet"]}
        )


@pytest.mark.parametrize("kind", ["config", "aggregate", "sum-opened", "receipt"])
def test_a_baskets_record_that_cannot_be_read_is_damage(kind: str) -> None:
    world = world_of("local")
    with pytest.raises(LedgerCorrupt, match=kind):
        world.assembly.basket(
            world.seats.identity("basket/a"), world.seats.operator_public_key, journal={kind: [b"\xc1 nothing"]}
        )


def test_another_key_does_not_open_the_ledger() -> None:
    world = world_of("local")
    world.open()
    world.submit("a1", VECTOR)
    identity = world.seats.identity("a2")
    with pytest.raises(LocalError, match="was opened with"):
        world.assembly.client(identity, world.seats.operator_public_key, journal=disk(world, "a1"))
