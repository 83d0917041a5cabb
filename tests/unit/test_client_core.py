"""`ClientCore`: what it sends when, what it refuses, and that the ledger is written before whatever depends on it."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import AlreadySubmittedError, ConfigError, LocalError, PrivacyBudgetExceeded
from scarcity.federation.client import ClientCore, ClientState
from scarcity.federation.codec import body_digest, decode_packet
from scarcity.federation.effects import Effect, Emit, Persist, Reject, RoundDeclined, Send, SetTimer
from scarcity.federation.packets import (
    Aborted,
    Ack,
    Declined,
    GossipPull,
    GossipPush,
    Model,
    ModelRequest,
    NoiseTerms,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    SecureSum,
    Unprotected,
)
from scarcity.federation.privacy_guard import LEDGER
from scarcity.federation.roster import COORDINATOR, Roster, sign_roster
from scarcity.federation.secure_aggregation.messages import Advertise, Masked
from scarcity.privacy import RecordState
from scarcity.privacy.ledger import decode_record
from sim.chance import reproducible_entropy
from tests.federation_world import DIMENSION, World, payloads, reasons, said, update_of

VECTOR = np.full(DIMENSION, 0.3)
PROTECTED = ["local", "distributed"]
MODES = ["local", "distributed", "none"]


def opened(mode: str = "local", **settings: Any) -> World:
    world = World(layer1=mode, **settings)
    world.open()
    return world


def sends(effects: list[Effect]) -> list[type]:
    return [type(effect.packet.body) for effect in effects if isinstance(effect, Send)]


def ledger_states(entries: list[Any]) -> list[RecordState]:
    return [decode_record(entry.payload).state for entry in entries if entry.kind == LEDGER]


# Contributing.


@pytest.mark.parametrize(("mode", "kind"), [("local", Release), ("distributed", Ready), ("none", Unprotected)])
def test_a_contribution_leaves_in_the_form_of_the_mode(mode: str, kind: type) -> None:
    world = opened(mode)
    effects = world.contribute("a1", VECTOR)
    assert sends(effects) == [kind]


def test_the_effects_of_a_release_are_charge_bytes_send_commit() -> None:
    world = opened()
    effects = world.contribute("a1", VECTOR)
    kinds = [e.entry.kind if isinstance(e, Persist) else type(e).__name__ for e in effects]
    assert kinds == [LEDGER, "contribution", "Send", LEDGER, "Emit"]
    assert ledger_states([e.entry for e in effects if isinstance(e, Persist)]) == [
        RecordState.RESERVED,
        RecordState.COMMITTED,
    ]


def test_in_mode_distributed_the_charge_stands_before_the_word_that_one_takes_part() -> None:
    world = opened("distributed")
    effects = world.contribute("a1", VECTOR)
    assert isinstance(effects[0], Persist)
    assert ledger_states([effects[0].entry]) == [RecordState.RESERVED]
    assert sends(effects[1:]) == [Ready]


def test_the_commit_and_the_mark_stand_before_the_masked_input() -> None:
    world = opened("distributed")
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    journal = world.net.journals["a1"]
    assert [entry.kind for entry in journal[:4]] == [LEDGER, "sum-mark", LEDGER, "sum-mark"]
    assert ledger_states(journal) == [RecordState.RESERVED, RecordState.COMMITTED]


@pytest.mark.parametrize("mode", PROTECTED)
def test_nothing_that_leaves_a_client_shows_its_vector(mode: str) -> None:
    # Zero and the largest vector differ in nothing but the noised numbers, and noise covers the difference.
    seen = {}
    for value in (0.0, 0.5):
        world = opened(mode, epsilon=0.5)
        for name in world.domains:
            world.submit(name, np.full(DIMENSION, value))
        seen[value] = [
            (sender, to, said(packet)) for sender, to, packet in world.net.transcript if sender in world.domains
        ]
        clean = [p for s, _, p in world.net.transcript if s in world.domains and isinstance(p.body, Unprotected)]
        assert clean == []
        if mode == "distributed":
            assert not any(isinstance(p.body, Release) for _, _, p in world.net.transcript)
    assert seen[0.0] == seen[0.5]


def test_a_release_is_the_truncated_vector_plus_the_noise_that_was_charged() -> None:
    residuals = []
    for seed in range(60):
        world = World({"a1": "a", "a2": "a"}, dimension=50, seed=seed)
        world.open()
        (effect,) = [e for e in world.contribute("a1", np.zeros(50)) if isinstance(e, Send)]
        assert isinstance(effect.packet.body, Release)
        residuals.append(effect.packet.body.vector)
    ratio = np.concatenate(residuals).std() / world.terms.noise.sigma
    # 3000 normals: the ratio's own deviation is .0129, five of them fail less than once in 10^6.
    assert abs(ratio - 1) < 0.065


def test_the_same_bytes_are_sent_again_until_they_are_acknowledged() -> None:
    world = opened()
    # Gossip is cut too: the basket would pull the release from a peer.
    lost = (Release, GossipPush, GossipPull)
    world.net.lose = lambda _s, _to, packet: isinstance(packet.body, lost)
    world.submit("a1", VECTOR)
    (first,) = world.net.sent_by("a1", Release)
    for _ in range(3):
        world.net.advance(1.0)
    assert {body_digest(p.body) for p in world.net.sent_by("a1", Release)} == {body_digest(first.body)}
    assert len(world.net.sent_by("a1", Release)) >= 3
    world.net.lose = lambda *_: False
    world.net.advance(1.0)
    count = len(world.net.sent_by("a1", Release))
    world.net.advance(3.0)
    assert len(world.net.sent_by("a1", Release)) == count
    assert len([e for e in world.net.journals["a1"] if e.kind == LEDGER]) == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_second_submit_of_a_round_is_refused_and_charges_nothing(mode: str) -> None:
    world = opened(mode)
    world.submit("a1", VECTOR)
    client = world.clients["a1"]
    before = (client.state, client.epsilon_spent)
    with pytest.raises(AlreadySubmittedError):
        client.submit(update_of("a1", VECTOR))
    assert (client.state, client.epsilon_spent) == before


def test_a_submit_without_a_round_is_refused() -> None:
    with pytest.raises(LocalError, match="no round is open"):
        World().clients["a1"].submit(update_of("a1", VECTOR))


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_only_mode_none_has_no_ledger(mode: str) -> None:
    world = World(layer1=mode)
    with pytest.raises(ConfigError, match="ledger"):
        ClientCore(
            world.seats.identity("a1"),
            world.assembly.settings,
            ledger=None,
            entropy=reproducible_entropy(1),
            operator_key=world.seats.operator_public_key,
        )


# Voiding: only while no noise was drawn.


def test_an_aborted_round_gives_a_reservation_back_whose_noise_was_never_drawn() -> None:
    world = opened("distributed")
    world.submit("a1", VECTOR)
    client = world.clients["a1"]
    assert client.state is ClientState.READY
    assert client.epsilon_spent > 0
    world.tell("basket/a", "a1", world.say(COORDINATOR, Aborted("enough"), 1, to="a1"))
    assert client.state is ClientState.IDLE
    assert client.epsilon_spent == 0
    assert ledger_states(world.net.journals["a1"]) == [RecordState.RESERVED, RecordState.VOID]


@pytest.mark.parametrize("mode", PROTECTED)
def test_an_aborted_round_keeps_what_was_drawn_spent(mode: str) -> None:
    world = opened(mode)
    world.net.lose = lambda _s, _t, packet: said(packet) is Advertise
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    spent = world.clients["a1"].epsilon_spent
    assert spent > 0
    world.tell("basket/a", "a1", world.say(COORDINATOR, Aborted("enough"), 1, to="a1"))
    assert world.clients["a1"].epsilon_spent == spent
    assert RecordState.VOID not in ledger_states(world.net.journals["a1"])


def test_a_forged_or_foreign_abort_gives_nothing_back() -> None:
    world = opened("distributed")
    world.submit("a1", VECTOR)
    spent = world.clients["a1"].epsilon_spent
    good = world.say(COORDINATOR, Aborted("enough"), 1, to="a1")
    forgeries = [
        attrs.evolve(good, signature=bytes(64)),
        attrs.evolve(good, body=Aborted("another")),
        attrs.evolve(good, header=attrs.evolve(good.header, sender="basket/a")),
        attrs.evolve(good, header=attrs.evolve(good.header, federation="other")),
        attrs.evolve(good, header=attrs.evolve(good.header, epoch=9)),
        attrs.evolve(good, header=attrs.evolve(good.header, scope="basket/b")),
        world.say(COORDINATOR, Aborted("enough"), 2, to="a1"),
    ]
    for packet in forgeries:
        world.tell("basket/a", "a1", packet)
        assert world.clients["a1"].state is ClientState.READY
        assert world.clients["a1"].epsilon_spent == spent


# A crash: what is on disk is a prefix of the effects, and what left is in the same prefix.


@pytest.mark.parametrize("mode", PROTECTED)
def test_a_crash_at_any_effect_leaves_no_release_uncharged(mode: str) -> None:
    history: list[Effect] = []
    world = World(layer1=mode)
    core = world.clients["a1"]
    carry = world.net.carry

    def listen(origin: str, effects: Any) -> None:
        kept = list(effects)
        if origin == "a1":
            history.extend(kept)
        carry(origin, kept)

    world.net.carry = listen  # type: ignore[method-assign]  # to see the order of persists and sends
    for _ in range(2):
        world.open()
        for name in world.domains:
            world.submit(name, VECTOR)
        assert world.coordinator.state.value == "idle"
    full = core.epsilon_spent
    num_released = 0
    for cut in range(len(history) + 1):
        kept = [effect.entry for effect in history[:cut] if isinstance(effect, Persist)]
        released = [e for e in history[:cut] if isinstance(e, Send) and said(e.packet) in (Release, Masked)]
        identity = world.seats.identity("a1")
        again = world.assembly.client(identity, world.seats.operator_public_key, journal=payloads(kept))
        rounds = len({e.packet.header.round_id for e in released})
        num_released = max(num_released, rounds)
        least = {0: 0.0, 1: full / 2, 2: full}[rounds]
        assert again.epsilon_spent >= least * (1 - 1e-9), f"cut at {cut}: {rounds} released"
    assert num_released == 2


@pytest.mark.parametrize("mode", PROTECTED)
def test_a_restarted_client_does_not_release_the_round_again(mode: str) -> None:
    world = opened(mode)
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    journal = payloads(world.net.journals["a1"])
    again = world.assembly.client(world.seats.identity("a1"), world.seats.operator_public_key, journal=journal)
    assert again.epsilon_spent == world.clients["a1"].epsilon_spent
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0]
    again.receive(config, "basket/a", 0.0)
    with pytest.raises(LocalError, match=r"is contributed|was restarted in mid-round"):
        again.submit(update_of("a1", VECTOR))
    assert again.epsilon_spent == world.clients["a1"].epsilon_spent


def test_a_spent_ledger_stays_spent_under_the_same_key() -> None:
    world = World(planned_rounds=1)
    world.open()
    world.submit("a1", VECTOR)
    journal = payloads(world.net.journals["a1"])
    again = world.assembly.client(world.seats.identity("a1"), world.seats.operator_public_key, journal=journal)
    config = world.say(COORDINATOR, world.net.sent_by(COORDINATOR, RoundConfig)[0].body, 2, to="a1")
    effects = again.receive(config, "basket/a", 0.0)
    assert sends(effects) == [Declined]
    with pytest.raises(PrivacyBudgetExceeded):
        again.submit(update_of("a1", VECTOR))


# Configs: what a client would not take part in.


def config_of(world: World) -> RoundConfig:
    body = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(body, RoundConfig)
    return body


def noise(**changes: Any) -> Any:
    return lambda config: attrs.evolve(config, noise=attrs.evolve(config.noise, **changes))


REFUSED_CONFIGS: dict[str, Any] = {
    "another clip": lambda c: attrs.evolve(c, settings=attrs.evolve(c.settings, clip_norm=2.0)),
    "another quorum": lambda c: attrs.evolve(c, settings=attrs.evolve(c.settings, quorum=0.1)),
    "another rule": lambda c: attrs.evolve(c, settings=attrs.evolve(c.settings, rule="median")),
    "another roster": lambda c: attrs.evolve(c, roster_root=bytes(32)),
    "a coarser lattice": noise(steps=1),
    "less sensitivity": noise(sensitivity=1.0),
    "another scale": noise(least_scale=0.5),
    "no noise": noise(sigma=0.0),
    "negative noise": noise(sigma=-1.0),
    "endless noise": noise(sigma=math.inf),
    "more noise than can be drawn": noise(sigma=2.0**40),
    "so little that the budget cannot pay": noise(sigma=2.0),
    "no terms": lambda c: attrs.evolve(c, noise=NoiseTerms()),
    "another dimension": lambda c: attrs.evolve(c, dimension=DIMENSION + 1),
}


@pytest.mark.parametrize("mode", PROTECTED)
@pytest.mark.parametrize("case", REFUSED_CONFIGS)
def test_a_config_that_weakens_the_promise_is_declined_with_a_reason(case: str, mode: str) -> None:
    world = opened(mode)
    packet = world.say(COORDINATOR, REFUSED_CONFIGS[case](config_of(world)), 2, to="a1")
    client = world.clients["a1"]
    effects = client.receive(packet, "basket/a", 0.0)
    assert client.epsilon_spent == 0
    assert client.state is ClientState.DECLINED
    assert sends(effects) == [Declined]
    (event,) = [e.event for e in effects if isinstance(e, Emit)]
    assert isinstance(event, RoundDeclined)
    assert event.reason
    with pytest.raises((LocalError, PrivacyBudgetExceeded)):
        client.submit(update_of("a1", VECTOR))
    assert client.epsilon_spent == 0


@pytest.mark.parametrize("dimension", [0, -1, 10**6, 2**62])
def test_a_config_of_an_impossible_dimension_is_refused_and_changes_nothing(dimension: int) -> None:
    world = opened()
    packet = world.say(COORDINATOR, attrs.evolve(config_of(world), dimension=dimension), 2, to="a1")
    for name in ("a1", "basket/a"):
        core = world.cores[name]
        link = "basket/a" if name == "a1" else COORDINATOR
        effects = core.receive(packet, link, 0.0)
        assert [type(e) for e in effects] == [Reject]
    assert world.submit("a1", VECTOR)


def test_a_client_that_lacks_the_model_of_the_config_asks_for_it_and_does_not_contribute() -> None:
    world = opened()
    packet = world.say(COORDINATOR, attrs.evolve(config_of(world), model_hash=b"h" * 32), 2, to="a1")
    client = world.clients["a1"]
    assert sends(client.receive(packet, "basket/a", 0.0)) == [ModelRequest]
    with pytest.raises(LocalError, match="does not hold the model"):
        client.submit(update_of("a1", VECTOR))
    assert client.epsilon_spent == 0


def test_an_old_config_is_refused_and_a_known_one_ignored() -> None:
    world = opened()
    known = world.net.sent_by(COORDINATOR, RoundConfig)[0]
    assert world.clients["a1"].receive(known, "basket/a", 0.0) == []
    world.tell("basket/a", "a1", world.say(COORDINATOR, config_of(world), 3, to="a1"))
    late = world.say(COORDINATOR, config_of(world), 2, to="a1")
    assert reasons(world.clients["a1"].receive(late, "basket/a", 0.0)) == ["round 2 is not after round 3"]


# Equivocation.


def test_two_configs_of_one_round_are_proof_and_the_first_stays_in_force() -> None:
    world = opened()
    other = world.say(COORDINATOR, attrs.evolve(config_of(world), dimension=DIMENSION + 1), 1, to="a1")
    effects = world.tell("basket/a", "a1", other)
    assert [type(e) for e in effects] == [Persist, Persist, Reject]
    assert [decode_packet(e.payload).body for e in world.net.journals["a1"][-2:]] == [config_of(world), other.body]
    third = world.say(COORDINATOR, attrs.evolve(config_of(world), dimension=DIMENSION + 2), 1, to="a1")
    assert [type(e) for e in world.tell("basket/a", "a1", third)] == [Reject]  # one proof is enough
    assert world.submit("a1", VECTOR)


class Learner:
    layout = None

    def __init__(self) -> None:
        self.models: list[Model] = []

    def update_for(self, round_id: int) -> None:
        return None

    def accepted(self, update: Any) -> None:
        pass

    def receive_model(self, model: Model) -> None:
        self.models.append(model)


def model_world() -> tuple[World, Learner]:
    learner = Learner()
    world = World(learners={"a1": learner})
    world.open()
    for name in world.domains:
        world.submit(name, VECTOR)
    assert len(learner.models) == 1
    return world, learner


@pytest.mark.parametrize("way", ["direct", "gossip"])
def test_a_second_model_of_a_round_is_kept_as_proof_and_not_merged(way: str) -> None:
    from scarcity.federation.codec import encode_packet

    world, learner = model_world()
    first = learner.models[0]
    other = world.say(COORDINATOR, attrs.evolve(first, count=first.count + 1), 1, to="a1")
    if way == "direct":
        effects = world.tell("basket/a", "a1", other)
    else:
        push = world.say("a2", GossipPush((encode_packet(other),)), 1, to="a1")
        effects = world.tell("a2", "a1", push)
    assert any(isinstance(e, Reject) for e in effects)
    proof = [decode_packet(e.payload).body for e in world.net.journals["a1"] if e.kind == "equivocation"]
    assert proof == [first, other.body]
    assert learner.models == [first]
    assert world.clients["a1"].model == first


def test_a_model_that_no_config_announces_is_refused() -> None:
    world, learner = model_world()
    first = learner.models[0]
    for change in ({"round_id": 2}, {"round_id": 2, "config_hash": bytes(32)}, {"round_id": 7}):
        model = attrs.evolve(first, **change)
        effects = world.tell("basket/a", "a1", world.say(COORDINATOR, model, model.round_id, to="a1"))
        assert len(reasons(effects)) == 1
    assert learner.models == [first]


def test_a_model_is_persisted_before_it_is_told_and_merged_once() -> None:
    world, learner = model_world()
    assert [entry.kind for entry in world.net.journals["a1"]][-1] == "model"
    again = world.net.sent_by(COORDINATOR, Model)[0]
    assert world.tell("basket/a", "a1", again) == []
    assert len(learner.models) == 1


# Small print.


def test_an_ack_that_fits_nothing_is_refused_and_a_replayed_one_is_harmless() -> None:
    world = opened()
    client = world.clients["a1"]
    stray = world.say("basket/a", Ack(bytes(32)), 1, to="a1")
    assert reasons(client.receive(stray, "basket/a", 0.0)) == ["acknowledges nothing that this client has sent"]
    world.submit("a1", VECTOR)
    ack = world.net.sent_by("basket/a", Ack)[0]
    assert reasons(client.receive(stray, "basket/a", 0.0))
    assert client.receive(ack, "basket/a", 0.0) == []


@pytest.mark.parametrize("name", ["", "close", "sum", "baskets", "gossip.shove"])
def test_an_unknown_timer_does_nothing(name: str) -> None:
    world = opened()
    for core in world.cores.values():
        before = (core.state, core.waiting())
        own = {"baskets"} if core is world.coordinator else {"close"} if core in world.baskets.values() else set()
        if name not in own:
            assert [e for e in core.fire(name, 5.0) if not isinstance(e, SetTimer)] == []
        assert (core.state, core.waiting()) == before


def test_a_roster_with_another_key_for_this_client_is_refused() -> None:
    world = opened()
    members = [attrs.evolve(m, public_key=bytes(range(32))) if m.id == "a1" else m for m in world.seats.roster.members]
    roster = Roster("fed", 2, tuple(members))
    notice = RosterNotice(roster.canonical, sign_roster(roster, world.seats.operator_key))
    effects = world.tell("basket/a", "a1", world.say(COORDINATOR, notice, 0, to="a1"))
    assert "its key" in reasons(effects)[0]
    assert world.clients["a1"].state is ClientState.OPEN


def test_a_roster_without_the_operators_signature_is_refused() -> None:
    world = opened()
    roster = attrs.evolve(world.seats.roster, epoch=2)
    effects = world.tell(
        "basket/a", "a1", world.say(COORDINATOR, RosterNotice(roster.canonical, bytes(64)), 0, to="a1")
    )
    assert "signature" in reasons(effects)[0]


def test_a_client_says_what_it_waits_for() -> None:
    world = opened("distributed")
    client = world.clients["a1"]
    assert client.waiting() == ()
    world.submit("a1", VECTOR)
    (waiting,) = client.waiting()
    assert (waiting.who, waiting.missing) == ("a1", ("basket/a",))


def test_secure_sum_messages_are_refused_before_one_is_ready() -> None:
    world = opened("distributed")
    packet = world.say("basket/a", SecureSum(b"x"), 1, to="a1")
    assert "state open" in reasons(world.clients["a1"].receive(packet, "basket/a", 0.0))[0]
    world.submit("a1", VECTOR)
    assert reasons(world.clients["a1"].receive(packet, "basket/a", 0.0))


def test_noise_is_drawn_once_though_the_host_opens_another_attempt() -> None:
    from scarcity.federation.sums import SumHost, _basket_terms

    world = opened("distributed")
    world.net.lose = lambda _s, _t, packet: said(packet) is Advertise
    for name in ("a1", "a2", "a3"):
        world.submit(name, VECTOR)
    client, identity = world.clients["a1"], world.seats.identity("basket/a")
    assert client.state is ClientState.SUMMING
    config = config_of(world)
    host = SumHost(identity, config, "basket/a", 1, 1, ("a1", "a2", "a3"), 3, _basket_terms(config))
    (opening,) = [e.packet for e in host.open(0.0) if isinstance(e, Send) and e.to == "a1"]
    effects = world.tell("basket/a", "a1", opening)
    assert not any(isinstance(e, Send) and said(e.packet) is Masked for e in effects)
    assert client.state is ClientState.IDLE  # it leaves: its input is gone, and no fresh noise is drawn for a second
    assert ledger_states(world.net.journals["a1"]) == [RecordState.RESERVED, RecordState.COMMITTED]
