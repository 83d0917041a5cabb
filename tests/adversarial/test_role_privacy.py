"""The trust table, cell by cell: who is ever sent what depends on one client's vector."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import LocalError
from scarcity.federation.codec import decode_packet
from scarcity.federation.effects import Persist, RoundDeclined, Send
from scarcity.federation.packets import (
    Declined,
    GossipPush,
    Model,
    Packet,
    Ready,
    Release,
    RoundConfig,
    TrustedUpdate,
    Unprotected,
    Update,
)
from scarcity.federation.privacy_guard import Layout
from scarcity.federation.roster import COORDINATOR
from scarcity.federation.secure_aggregation import decode
from scarcity.federation.secure_aggregation.messages import Masked
from tests.federation_world import DIMENSION, World, agent_of, said

THREE = {f"{domain}{i}": domain for domain in "abc" for i in range(3)}
CARRIERS: dict[str, type] = {
    "local": Release,
    "distributed": Ready,
    "none": Unprotected,
    "central": TrustedUpdate,
}


def settings_of(mode: str) -> dict[str, Any]:
    return {"layer1": mode} | ({"rule": "average"} if mode == "central" else {})


def played(mode: str, vectors: dict[str, Any] | None = None, **settings: Any) -> World:
    world = World(THREE, **settings_of(mode), **settings)
    world.open()
    for name in THREE:
        world.submit(name, (vectors or {}).get(name, np.full(DIMENSION, 0.3)))
        world.net.advance(1.0)
    for _ in range(4):
        world.net.advance(1.0)
    return world


def items(packet: Packet) -> list[Packet]:
    """A packet and what it carries."""
    inside = [decode_packet(item) for item in packet.body.items] if isinstance(packet.body, GossipPush) else []
    return [packet, *inside]


@pytest.mark.parametrize("mode", CARRIERS)
def test_contributions_go_where_the_trust_table_says_and_nowhere_else(mode: str) -> None:
    world = played(mode)
    kinds = (Release, Unprotected, TrustedUpdate)
    seen: dict[type, set[tuple[str, str]]] = {}
    for _, to, packet in world.net.transcript:
        for item in items(packet):
            if isinstance(item.body, kinds):
                author = item.header.sender
                seen.setdefault(type(item.body), set()).add((author, to))
    assert set(seen) <= {CARRIERS[mode]}
    for pairs in seen.values():
        for author, to in pairs:
            inside = {f"basket/{THREE[author]}"}
            if mode in ("local", "none"):
                inside |= {name for name, domain in THREE.items() if domain == THREE[author]}
            assert to in inside, f"{author}'s contribution reached {to} in mode {mode}"
    assert world.coordinator.model is not None


@pytest.mark.parametrize("mode", ["distributed", "central"])
def test_gossip_carries_models_and_digests_alone_where_contributions_are_nobodys_business(mode: str) -> None:
    world = played(mode)
    carried = {type(i.body) for _, _, p in world.net.transcript if isinstance(p.body, GossipPush) for i in items(p)[1:]}
    assert carried <= {Model}


@pytest.mark.parametrize("mode", ["local", "distributed", "central"])
def test_two_vectors_are_told_apart_by_noised_numbers_and_masks_alone(mode: str) -> None:
    """Everything else that a client sends, to whomever and when, is the same whatever its vector is."""

    def conduct(value: float) -> list[Any]:
        world = played(mode, {"a0": np.full(DIMENSION, value)})
        own = [(to, said(p), p.header) for s, to, p in world.net.transcript if s == "a0"]
        return sorted(own, key=str)

    assert conduct(0.0) == conduct(0.5)


def test_what_is_masked_looks_uniform_to_the_basket() -> None:
    words = []
    for seed in range(30):
        world = World({"a1": "a", "a2": "a", "a3": "a"}, layer1="distributed", dimension=64, seed=seed)
        world.open()
        for name in world.domains:
            world.submit(name, np.zeros(64))
        packet = next(p for s, _, p in world.net.transcript if s == "a1" and said(p) is Masked)
        words.append(decode(packet.body.payload).words)  # type: ignore[union-attr]  # a Masked, as found
    counts = np.bincount(np.concatenate(words), minlength=256)
    expected = counts.sum() / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: above 390 less than once in 10^6.
    assert chi_square < 390


def test_a_round_that_is_aborted_and_opened_again_is_charged_again_with_fresh_noise() -> None:
    world = World({"a1": "a", "a2": "a"}, planned_rounds=4)
    sent = []
    for _ in range(2):
        world.open()
        effects = world.contribute("a1", np.zeros(DIMENSION))
        sent.append(next(e.packet.body for e in effects if isinstance(e, Send)))
        world.net.run()
        world.net.carry(COORDINATOR, world.coordinator._abort(world.coordinator._round, "test", 0.0))  # type: ignore[arg-type]
        world.net.run()
    assert (sent[0].vector != sent[1].vector).any()  # type: ignore[union-attr]
    records = [e for e in world.net.journals["a1"] if e.kind == "ledger"]
    assert len(records) == 4  # two releases, each reserved and committed
    one = World({"a1": "a", "a2": "a"}, planned_rounds=4)
    one.open()
    one.contribute("a1", np.zeros(DIMENSION))
    assert world.clients["a1"].epsilon_spent > one.clients["a1"].epsilon_spent


class Offers:
    """A learner that offers one update."""

    def __init__(self, update: Update, layout: Layout | None) -> None:
        self.update, self.layout = update, layout
        self.spent = 0

    def update_for(self, round_id: int) -> Update:
        return self.update

    def accepted(self, update: Update) -> None:
        self.spent += 1

    def receive_model(self, model: Model) -> None:
        pass


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_learner_with_a_bad_update_makes_its_client_decline_uncharged(mode: str) -> None:
    agent = agent_of("a1", 1, with_schema=True)
    update = agent.get_shareable_update()
    bad = attrs.evolve(update, vector=np.full(update.vector.size, 2**62))
    learners = {"a1": Offers(bad, agent.layout)}
    learners |= {name: Offers(attrs.evolve(update, client_id=name), agent.layout) for name in ("a2", "a3")}
    world = World(
        {"a1": "a", "a2": "a", "a3": "a"},
        layer1=mode,
        unit="record",
        layout=agent.layout,
        learners=learners,
        quorum=0.5,
    )
    world.open()
    (event,) = [e for e in world.net.events_of(RoundDeclined) if e.client_id == "a1"]
    assert event.reason
    assert world.clients["a1"].epsilon_spent == 0
    assert learners["a1"].spent == 0
    assert not any(entry.kind == "ledger" for entry in world.net.journals["a1"])
    (packet,) = world.net.sent_by("a1", Declined)
    assert str(2**62) not in packet.body.reason  # type: ignore[union-attr]


def test_rows_are_spent_when_noise_is_drawn_and_not_when_a_round_ends_before() -> None:
    agent = agent_of("a1", 1, with_schema=True)
    learner = Offers(agent.get_shareable_update(), agent.layout)
    world = World(
        {"a1": "a", "a2": "a", "a3": "a"},
        layer1="distributed",
        unit="record",
        layout=agent.layout,
        learners={"a1": learner},
    )
    world.open()  # the others have no layout of records: they decline, and the basket is absent
    assert [entry.kind for entry in world.net.journals["a1"]] == ["ledger", "ledger"]  # reserved, and given back
    assert world.clients["a1"].epsilon_spent == 0
    assert learner.spent == 0


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_client_charges_by_its_own_ledger_whatever_sigma_it_is_told(mode: str) -> None:
    world = World(THREE, **settings_of(mode))
    world.open()
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(config, RoundConfig)
    half = attrs.evolve(config, noise=attrs.evolve(config.noise, sigma=config.noise.sigma / 2))
    world.tell("basket/a", "a1", world.say(COORDINATOR, half, 2, to="a1"))
    effects = world.contribute("a1", np.zeros(DIMENSION))
    assert isinstance(effects[0], Persist)
    told = World(THREE, **settings_of(mode))
    told.open()
    told.contribute("a1", np.zeros(DIMENSION))
    assert world.clients["a1"].epsilon_spent > 1.9 * told.clients["a1"].epsilon_spent


def test_a_smaller_roster_in_mid_round_ends_the_sum_that_counted_on_the_larger_one() -> None:
    from scarcity.federation.packets import RosterNotice
    from scarcity.federation.roster import Roster, sign_roster

    world = World({f"a{i}": "a" for i in range(5)}, layer1="distributed")
    world.net.lose = lambda _s, _t, packet: said(packet) is Masked
    world.open()
    for name in world.domains:
        world.submit(name, np.zeros(DIMENSION))
    roster = Roster("fed", 2, tuple(m for m in world.seats.roster.members if m.id not in ("a3", "a4")))
    notice = RosterNotice(roster.canonical, sign_roster(roster, world.seats.operator_key))
    world.tell("basket/a", "a0", world.say(COORDINATOR, notice, 0, to="a0"))
    spent = world.clients["a0"].epsilon_spent
    assert spent > 0
    before = len(world.net.sent_by("a0", type(None)))
    for sender, to, packet in list(world.net.transcript):
        if to == "a0":
            world.tell(sender, to, packet)
    masked = [p for s, _, p in world.net.transcript if s == "a0" and said(p) is Masked]
    assert len(masked) <= 1
    assert before == 0
    assert world.clients["a0"].epsilon_spent == spent
    with pytest.raises(LocalError):
        world.contribute("a0", np.zeros(DIMENSION))
