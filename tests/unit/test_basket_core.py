"""`BasketCore`: gathering, closing, equivocation, late contributions, and its secure sum with dropouts."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.federation.basket import BasketManager, BasketState
from scarcity.federation.client import ClientState
from scarcity.federation.codec import body_digest, decode_packet, encode_packet
from scarcity.federation.effects import BasketAbsent, BasketClosed, Emit, Persist, RoundDeclined, Send
from scarcity.federation.packets import (
    Aborted,
    Absent,
    Ack,
    BasketReport,
    Declined,
    GossipPush,
    Model,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    Unprotected,
)
from scarcity.federation.roster import COORDINATOR, Roster, sign_roster
from scarcity.federation.secure_aggregation import decode, threshold_for
from scarcity.federation.secure_aggregation.messages import Advertise, Confirm, Masked, Reveal, Shares
from scarcity.federation.sums import SumParticipant, noise_share_std
from scarcity.federation.validator import Validator
from tests.federation_world import DIMENSION, World, reasons, said

ONE = {"a1": "a", "a2": "a", "a3": "a"}
TEN = {f"a{i}": "a" for i in range(10)}
VECTOR = np.full(DIMENSION, 0.3)
STAGES = {"ready": Ready, "advertise": Advertise, "shares": Shares, "masked": Masked, "confirm": Confirm}
STAGES |= {"reveal": Reveal}


def opened(domains: dict[str, str], mode: str = "local", **settings: Any) -> World:
    world = World(domains, layer1=mode, **settings)
    world.open()
    return world


def basket(world: World) -> Any:
    return world.baskets["basket/a"]


def contribution(world: World, name: str, value: float = 0.0, round_id: int = 1) -> Packet:
    """Return a signed contribution that fits the round, made by hand."""
    if world.assembly.settings.mode.value == "none":
        body: Any = Unprotected(b"", np.full(DIMENSION, value), 1)
    else:
        body = Release(b"", np.full(DIMENSION, int(value * 100), dtype=np.int64), 1)
    return world.say(name, body, round_id, to="basket/a")


# Receipts.


def test_a_contribution_is_persisted_before_it_is_acknowledged() -> None:
    world = opened(ONE)
    packet = contribution(world, "a1")
    effects = basket(world).receive(packet, "a1", 0.0)
    assert [type(e) for e in effects[:2]] == [Persist, Send]
    assert effects[0].entry.kind == "receipt"
    assert decode_packet(effects[0].entry.payload) == packet
    assert effects[1].packet.body == Ack(body_digest(packet.body))


def test_a_repeated_contribution_is_acknowledged_again_and_counts_once() -> None:
    world = opened(TEN)
    packet = contribution(world, "a1")
    basket(world).receive(packet, "a1", 0.0)
    effects = basket(world).receive(packet, "a1", 0.0)
    assert [type(e) for e in effects] == [Send]
    assert effects[0].packet.body == Ack(body_digest(packet.body))
    assert basket(world).waiting()[0].have == 1


def test_who_says_its_contribution_again_and_again_is_answered_once_a_second() -> None:
    world = opened(TEN)
    core, packet = basket(world), contribution(world, "a1")
    core._validator = Validator("basket/a", core._identity.roster)  # under a real clock, where rates are bounded
    core.receive(packet, "a1", 0.0)
    answers = [core.receive(packet, "a1", 0.0) for _ in range(20)]
    assert [type(e) for effects in answers for e in effects] == [Send] * 8
    assert sum(len(core.receive(packet, "a1", tick / 32)) for tick in range(1, 321)) == 10
    assert core.waiting()[0].have == 1


@pytest.mark.parametrize("mode", ["local", "none"])
@pytest.mark.parametrize("to", ["basket/a", "a3"])
def test_of_a_member_that_contradicts_itself_in_every_round_one_proof_is_kept(mode: str, to: str) -> None:
    world = opened(ONE, mode)
    for round_id in range(3):  # the one that is open, and those next to it
        pair = tuple(encode_packet(contribution(world, "a1", value, round_id)) for value in (0.1, 0.2))
        world.tell("a2", to, world.say("a2", GossipPush(pair), 1, to=to))
    assert len([entry for entry in world.net.journals[to] if entry.kind == "equivocation"]) == 2


@pytest.mark.parametrize(
    "ways", [("direct", "direct"), ("direct", "gossip"), ("gossip", "direct"), ("gossip", "gossip")]
)
@pytest.mark.parametrize("mode", ["local", "none"])
def test_of_two_contributions_of_one_client_neither_enters_and_both_are_kept(ways: tuple[str, str], mode: str) -> None:
    world = opened(ONE, mode, quorum=0.5)
    both = [contribution(world, "a1", value) for value in (0.1, 0.2)]
    for way, packet in zip(ways, both, strict=True):
        if way == "direct":
            world.tell("a1", "basket/a", packet)
        else:
            world.tell("a2", "basket/a", world.say("a2", GossipPush((encode_packet(packet),)), 1, to="basket/a"))
    proofs = [decode_packet(e.payload) for e in world.net.journals["basket/a"] if e.kind == "equivocation"]
    kept = proofs + [decode_packet(e.payload) for e in world.net.journals["basket/a"] if e.kind == "receipt"]
    assert all(packet in kept for packet in both)
    assert basket(world).waiting()[0].have == 0
    assert basket(world).trust.is_quarantined("a1")
    # Neither the first bytes nor the second come back in by being sent again.
    for packet in both:
        world.tell("a1", "basket/a", packet)
    assert basket(world).waiting()[0].have == 0
    for name in ("a2", "a3"):
        world.submit(name, VECTOR)
    world.close()
    (closed,) = world.net.events_of(BasketClosed)
    assert closed.members == ("a2", "a3")


@pytest.mark.parametrize("way", ["before", "after"])
@pytest.mark.parametrize("mode", ["local", "none", "distributed"])
def test_a_word_does_not_take_a_contribution_back_and_shuts_nobody_out(way: str, mode: str) -> None:
    # Without this, a liar that contributes and declines makes the basket close before an honest member has come.
    world = opened(ONE, mode, quorum=0.5)
    declined = world.say("a1", Declined("changed my mind"), 1, to="basket/a")
    if way == "before":
        world.tell("a1", "basket/a", declined)
    world.submit("a1", VECTOR)
    if way == "after":
        world.tell("a1", "basket/a", declined)
    world.submit("a2", VECTOR)
    assert basket(world).state is BasketState.COLLECTING
    world.submit("a3", VECTOR)
    (closed,) = world.net.events_of(BasketClosed)
    assert closed.members == ("a1", "a2", "a3")


@pytest.mark.parametrize(
    "change",
    [
        {"signature": bytes(64)},
        {"header": {"round_id": 9}},
        {"header": {"round_id": -1}},
        {"header": {"epoch": 2}},
        {"header": {"federation": "other"}},
        {"header": {"scope": "layer2"}},
        {"header": {"scope": "basket/b"}},
        {"header": {"sender": "a2"}},
        {"header": {"sender": "nobody"}},
    ],
    ids=str,
)
def test_a_contribution_that_is_forged_or_misplaced_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    world = opened(TEN)
    good = contribution(world, "a1")
    if "header" in change:
        change = {"header": attrs.evolve(good.header, **change["header"])}
    effects = basket(world).receive(attrs.evolve(good, **change), "a1", 0.0)
    assert len(reasons(effects)) == len(effects) == 1
    assert basket(world).waiting()[0].have == 0


# Closing.


def test_a_proof_is_written_once_however_often_its_author_signs_something_else() -> None:
    world = opened(TEN)
    for value in range(5):
        world.tell("a1", "basket/a", contribution(world, "a1", value))
    assert len([e for e in world.net.journals["basket/a"] if e.kind == "equivocation"]) == 2


def test_members_that_declined_are_not_waited_for() -> None:
    world = opened(TEN)
    for name in ("a0", "a1"):
        world.tell(name, "basket/a", world.say(name, Declined("no budget"), 1, to="basket/a"))
    for i in range(2, 10):
        assert basket(world).state is BasketState.COLLECTING
        world.submit(f"a{i}", VECTOR)
    (closed,) = world.net.events_of(BasketClosed)
    assert dict(closed.missing) == {"a0": "declined: no budget", "a1": "declined: no budget"}


def test_the_basket_is_absent_when_too_many_decline() -> None:
    world = opened(TEN)
    for i in range(8):
        world.tell(f"a{i}", "basket/a", world.say(f"a{i}", Declined("no"), 1, to="basket/a"))
    (event,) = world.net.events_of(BasketAbsent)
    assert event.have == 0
    assert len(event.missing) == 10
    assert world.coordinator.state.value == "idle"


def test_at_the_deadline_without_quorum_the_basket_is_absent_never_by_a_weaker_rule() -> None:
    world = opened(TEN, close_s=5.0, deadline_s=10.0, rule="krum")
    for i in range(6):
        world.submit(f"a{i}", VECTOR)
    world.net.advance(9.0)
    assert basket(world).state is BasketState.COLLECTING
    world.net.advance(2.0)
    (event,) = world.net.events_of(BasketAbsent)
    assert (event.have, event.need) == (6, 7)
    assert world.net.sent_by(COORDINATOR, Model) == []


def test_with_a_quorum_the_basket_closes_at_close_s() -> None:
    world = opened(TEN, close_s=5.0, deadline_s=10.0)
    for i in range(7):
        world.submit(f"a{i}", VECTOR)
    world.net.advance(4.0)
    assert basket(world).state is BasketState.COLLECTING
    world.net.advance(2.0)
    (closed,) = world.net.events_of(BasketClosed)
    assert len(closed.members) == 7


def test_silence_does_not_lower_the_number_of_liars_that_the_rule_withstands() -> None:
    world = opened(TEN, rule="trmean")
    for i in range(7):
        world.submit(f"a{i}", VECTOR)
    world.close()
    (closed,) = world.net.events_of(BasketClosed)
    assert basket(world)._round.collection.rule.f == 2
    assert closed.aggregate.rule.startswith("trmean")


# Late contributions.


def test_a_late_contribution_counts_in_the_next_round_with_half_weight_and_never_again() -> None:
    world = World(ONE, layer1="none", quorum=0.6)
    world.net.lose = lambda sender, _to, packet: sender == "a3" and isinstance(packet.body, Unprotected)
    world.open()
    for name, value in (("a1", 0.0), ("a2", 0.0), ("a3", 9.0)):
        world.submit(name, np.full(DIMENSION, value))
    late = world.net.sent_by("a3", Unprotected)[0]
    world.close()
    counts = []
    for round_id in (2, 3):
        world.open()
        if round_id == 2:
            world.net.lose = lambda *_: False
            world.tell("a3", "basket/a", late)
            world.tell("a3", "basket/a", late)
            world.net.lose = lambda sender, _to, packet: sender == "a3" and isinstance(packet.body, Unprotected)
        for name in ("a1", "a2"):
            world.submit(name, np.zeros(DIMENSION))
        world.close()
        counts.append(world.net.events_of(BasketClosed)[-1].aggregate)
    assert (counts[0].weight, counts[0].count) == (2.5, 3)
    np.testing.assert_allclose(counts[0].total, 0.5 * 9.0)
    assert (counts[1].weight, counts[1].count) == (2.0, 2)
    np.testing.assert_allclose(counts[1].total, 0.0)


def test_a_newer_contribution_takes_the_place_of_a_late_one() -> None:
    world = World(ONE, layer1="none", quorum=0.6)
    world.net.lose = lambda sender, _to, packet: sender == "a3" and isinstance(packet.body, Unprotected)
    world.open()
    for name, value in (("a1", 0.0), ("a2", 0.0), ("a3", 9.0)):
        world.submit(name, np.full(DIMENSION, value))
    late = world.net.sent_by("a3", Unprotected)[0]
    world.close()
    world.net.lose = lambda *_: False
    world.open()
    world.tell("a3", "basket/a", late)
    for name in ("a1", "a2", "a3"):  # with a1 and a2 all have come in one way or another, but a3's newer one has not
        world.submit(name, np.full(DIMENSION, 1.0))
    closed = world.net.events_of(BasketClosed)[-1].aggregate
    assert closed.weight == 3.0
    np.testing.assert_allclose(closed.total, 3.0)


# The secure sum.


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("num_dropped", [1, 2])
def test_the_sum_is_the_survivors_plain_integer_sum_bit_for_bit(
    stage: str, num_dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: dict[str, Any] = {}
    provide = SumParticipant.provide

    def listen(self: SumParticipant, vector: Any, packet: Packet, host: str) -> Any:
        if host == "basket/a":
            inputs[self._identity.member_id] = vector.copy()
        return provide(self, vector, packet, host)

    monkeypatch.setattr(SumParticipant, "provide", listen)
    domains = {f"a{i}": "a" for i in range(7)}
    world = opened(domains, "distributed", quorum=0.7)
    dropped = {f"a{i}" for i in range(num_dropped)}
    kinds = list(STAGES.values())
    later = tuple(kinds[list(STAGES).index(stage) :])
    world.net.lose = lambda sender, _to, packet: sender in dropped and said(packet) in later
    for index, name in enumerate(domains):
        world.submit(name, np.full(DIMENSION, 0.1 * index))
    world.close()
    (closed,) = world.net.events_of(BasketClosed)
    late_drop = stage in ("confirm", "reveal")
    survivors = tuple(name for name in domains if late_drop or name not in dropped)
    assert closed.members == survivors
    expected = sum(inputs[name].astype(object) for name in survivors)
    assert closed.aggregate.total.dtype == np.int64
    assert closed.aggregate.total.tolist() == expected.tolist()
    assert closed.aggregate.weight == closed.aggregate.count == len(survivors)
    # Who never said that it takes part is a dropout of the sum, so the shares are sized for all seven.
    needed = max(threshold_for(7), 5)
    share = noise_share_std(world.net.sent_by(COORDINATOR, RoundConfig)[0].body, needed)  # type: ignore[arg-type]
    assert closed.aggregate.noise_variance == pytest.approx(len(survivors) * share**2)
    assert len(survivors) * share**2 >= world.terms.noise.sigma**2 * (1 - 1e-12)
    (made,) = world.net.sent_by(COORDINATOR, Model)[:1]
    unit = world.assembly.settings.clip_norm / world.layout.steps
    np.testing.assert_array_equal(made.body.vector, closed.aggregate.total / 1 / len(survivors) * unit)  # type: ignore[union-attr]


def test_the_noise_of_the_sum_is_what_the_aggregate_says() -> None:
    totals = []
    variance = 0.0
    for seed in range(40):
        world = World(ONE, layer1="distributed", dimension=60, seed=seed)
        world.open()
        for name in ONE:
            world.submit(name, np.zeros(60))
        (closed,) = world.net.events_of(BasketClosed)
        totals.append(closed.aggregate.total)
        variance = closed.aggregate.noise_variance
    ratio = float(np.concatenate(totals).var() / variance)
    # 2400 squares of normals: the ratio's deviation is .029, five of them fail less than once in 10^6.
    assert abs(ratio - 1) < 0.15


@pytest.mark.parametrize("stage", ["advertise", "shares", "masked", "confirm", "reveal"])
def test_a_sum_with_too_few_opens_nothing_and_names_the_silent(stage: str) -> None:
    world = opened({f"a{i}": "a" for i in range(5)}, "distributed")
    dropped = {"a0", "a1", "a2"}
    kinds = list(STAGES.values())
    later = tuple(kinds[list(STAGES).index(stage) :])
    world.net.lose = lambda sender, _to, packet: sender in dropped and said(packet) in later
    for name in world.domains:
        world.submit(name, VECTOR)
    world.close()
    assert world.net.events_of(BasketClosed) == []
    (absent,) = world.net.events_of(BasketAbsent)
    assert set(dropped) <= {name for name, why in absent.missing if stage in why}
    assert world.net.sent_by(COORDINATOR, Model) == []
    spent = [client.epsilon_spent for client in world.clients.values()]
    assert all(epsilon > 0 for epsilon in spent)  # noise was drawn: it stays spent


def test_clients_that_are_not_ready_get_no_place_in_the_sum_once_it_runs() -> None:
    world = opened({f"a{i}": "a" for i in range(7)}, "distributed", quorum=0.7)
    for i in range(6):
        world.submit(f"a{i}", VECTOR)
    effects = basket(world).close_stage(0.0)
    world.net.carry("basket/a", effects)
    assert basket(world).state is BasketState.SUMMING
    late = world.say("a6", Ready(1), 1, to="basket/a")
    assert "state summing" in reasons(basket(world).receive(late, "a6", 0.0))[0]


def test_two_members_make_no_sum() -> None:
    world = World({"a1": "a", "a2": "a", "b1": "b", "b2": "b", "b3": "b"}, layer1="distributed")
    world.open()
    for name in ("b1", "b2", "b3"):
        world.submit(name, VECTOR)
    assert {event.client_id for event in world.net.events_of(RoundDeclined)} == {"a1", "a2"}
    (model,) = [p.body for p in world.net.sent_by(COORDINATOR, Model)][:1]
    assert isinstance(model, Model)
    assert model.count == 3
    assert all(client.model == model for client in world.clients.values())


def test_masked_inputs_are_all_that_a_basket_ever_sees_of_a_vector() -> None:
    world = opened(ONE, "distributed")
    for name in ONE:
        world.submit(name, VECTOR)
    to_basket = [(s, p) for s, to, p in world.net.transcript if to == "basket/a" and s in ONE]
    allowed = {Ready, Advertise, Shares, Masked, Confirm, Reveal}
    assert {said(p) for _, p in to_basket} - allowed <= {type(p.body) for _, p in to_basket if p.header.round_id == 0}
    masked = [decode(p.body.payload) for _, p in to_basket if said(p) is Masked]  # type: ignore[union-attr]
    assert len({m.words.tobytes() for m in masked}) == 3  # type: ignore[union-attr]


# Its place between coordinator and members.


def test_config_and_model_are_handed_on_as_they_are() -> None:
    world = opened(ONE)
    for name in ONE:
        world.submit(name, VECTOR)
    for kind in (RoundConfig, Model):
        (original,) = {
            encode_packet(p) for s, _, p in world.net.transcript if s == COORDINATOR and type(p.body) is kind
        }
        handed = [encode_packet(p) for s, _, p in world.net.transcript if s == "basket/a" and type(p.body) is kind]
        assert set(handed) == {original}
        assert len(handed) >= 3


def test_an_aborted_round_reaches_the_members_and_ends_the_wait() -> None:
    world = opened(ONE)
    world.submit("a1", VECTOR)
    world.tell(COORDINATOR, "basket/a", world.say(COORDINATOR, Aborted("enough"), 1, to="basket/a"))
    assert basket(world).state is BasketState.IDLE
    assert world.clients["a1"].state is ClientState.IDLE
    assert basket(world).waiting() == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: attrs.evolve(c, settings=attrs.evolve(c.settings, quorum=0.1)),
        lambda c: attrs.evolve(c, roster_root=bytes(32)),
        lambda c: attrs.evolve(c, noise=attrs.evolve(c.noise, sigma=0.0)),
        lambda c: attrs.evolve(c, noise=attrs.evolve(c.noise, sensitivity=0.0)),
    ],
    ids=["settings", "roster", "noise", "sensitivity"],
)
@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_round_under_other_rules_is_not_handed_on(change: Any, mode: str) -> None:
    world = opened(ONE, mode)
    config = change(world.net.sent_by(COORDINATOR, RoundConfig)[0].body)
    effects = basket(world).receive(world.say(COORDINATOR, config, 2, to="basket/a"), COORDINATOR, 0.0)
    assert [type(e.packet.body) for e in effects if isinstance(e, Send)] == [Absent]
    assert basket(world).state is BasketState.ABSENT


def test_a_report_is_persisted_before_it_is_sent() -> None:
    world = opened(ONE)
    for name in ("a1", "a2"):
        world.submit(name, VECTOR)
    effects = basket(world).receive(contribution(world, "a3"), "a3", 0.0)
    kinds = [
        e.entry.kind if isinstance(e, Persist) else type(e.packet.body) if isinstance(e, Send) else type(e)
        for e in effects
    ]
    assert kinds == ["receipt", Ack, "aggregate", BasketReport, Emit]


def test_who_leaves_takes_its_buffered_contribution_along() -> None:
    world = opened(TEN)
    world.submit("a0", VECTOR)
    left = tuple(m for m in world.seats.roster.members if m.id != "a0")
    roster = Roster("fed", 2, left)
    notice = RosterNotice(roster.canonical, sign_roster(roster, world.seats.operator_key))
    world.tell(COORDINATOR, "basket/a", world.say(COORDINATOR, notice, 0, to="basket/a"))
    assert basket(world)._buffer.senders(1) == ()


def test_baskets_group_clients_by_domain_and_small_ones_are_not_expected() -> None:
    world = World({"a1": "a", "a2": "a", "b1": "b"})
    manager = BasketManager(world.seats.roster)
    assert manager.baskets == {"a": ("a1", "a2"), "b": ("b1",)}
    assert manager.expected == ("basket/a",)
    assert manager.basket_of("b1") == "basket/b"
