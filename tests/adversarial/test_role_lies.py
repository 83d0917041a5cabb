"""What one liar, or a careless owner, could do to everybody else, and no longer can."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import AlreadySubmittedError, ConfigError, InvalidUpdate, LocalError
from scarcity.federation import HierarchicalFederation, HierarchicalFederationConfig, Release
from scarcity.federation.acceptance import rule_fault
from scarcity.federation.assembly import round_settings
from scarcity.federation.basket import BasketState
from scarcity.federation.client import ClientState
from scarcity.federation.effects import BasketClosed, ModelMade, RoundDeclined
from scarcity.federation.packets import (
    Ack,
    BasketReport,
    Declined,
    Model,
    NoiseTerms,
    Packet,
    RoundConfig,
    Update,
)
from scarcity.federation.roster import COORDINATOR
from tests.federation_world import World, agent_of, reasons, rows_of

EIGHT = {f"{domain}{i}": domain for domain in "ab" for i in range(4)}


class Feeding:
    """A learner that feeds its engine one more row, a bad one, when a round opens."""

    def __init__(self, agent: Any, row: dict[str, Any]) -> None:
        self._agent, self._row = agent, row

    @property
    def layout(self) -> Any:
        return self._agent.layout

    def update_for(self, round_id: int) -> Update | None:
        self._agent.engine.process_row(self._row)
        return self._agent.update_for(round_id)  # type: ignore[no-any-return]

    def accepted(self, update: Update) -> None:
        self._agent.accepted(update)

    def receive_model(self, model: Model) -> None:
        self._agent.receive_model(model)


def record_world(**settings: Any) -> tuple[World, dict[str, Any]]:
    agents = {name: agent_of(name, seed, with_schema=True) for seed, name in enumerate(EIGHT)}
    learners = dict(agents) | settings.pop("learners", {})
    return World(EIGHT, layout=agents["a0"].layout, learners=learners, unit="record", **settings), agents


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_what_a_client_says_when_it_declines_holds_nothing_of_its_rows(mode: str) -> None:
    in_a_row = "Jane Doe"
    learner = Feeding(agent_of("a0", 0, with_schema=True), {"x": in_a_row, "y": 1.0, "z": 2.0})
    world, _ = record_world(layer1=mode, learners={"a0": learner})
    world.open()
    (told,) = world.net.sent_by("a0", Declined)
    assert told.body.reason == "it has nothing to contribute"
    (own,) = world.net.events_of(RoundDeclined)
    assert in_a_row in own.reason


@pytest.mark.parametrize("rule", ["nnm+trmean", "median", "trmean"])
def test_a_liar_that_claims_most_of_the_rows_does_not_silence_its_basket(rule: str) -> None:
    world, _ = record_world(layer1="local", rule=rule, byzantine_share=0.25)
    liar = world.clients["a0"]
    honest = liar._learner.get_shareable_update()
    liar._learner.get_shareable_update = lambda: attrs.evolve(honest, weight=100_000)
    world.open()
    world.close()
    assert {event.basket_id for event in world.net.events_of(BasketClosed)} == {"basket/a", "basket/b"}
    assert world.net.events_of(ModelMade)


def test_a_release_of_records_beyond_what_its_rows_can_make_is_refused() -> None:
    world, _ = record_world(layer1="local", rule="average")
    world.net.lose = lambda sender, _to, _packet: sender == "a0"
    world.open()
    (sent, *_) = world.net.sent_by("a0", Release)
    huge = attrs.evolve(sent.body, vector=np.full(sent.body.vector.size, 2**62))
    world.net.lose = lambda _sender, _to, _packet: False
    effects = world.tell("a0", "basket/a", world.say("a0", huge, 1, to="basket/a"))
    assert "norm" in reasons(effects)[0]


@pytest.mark.parametrize(
    "terms", [NoiseTerms(4, 0.0, 1.0), NoiseTerms(4, 1.0, float("inf")), NoiseTerms(4, 1.0, 5.0)], ids=str
)
@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_noise_of_layer_two_that_the_settings_do_not_have_is_declined(mode: str, terms: NoiseTerms) -> None:
    world = World(layer1=mode)
    world.open()
    (first, *_) = world.net.sent_by(COORDINATOR, RoundConfig)
    lie = attrs.evolve(first.body, layer2_noise=terms)
    world.tell("basket/a", "a1", world.say(COORDINATOR, lie, 2, to="a1"))
    assert world.clients["a1"].state is ClientState.DECLINED
    assert world.clients["a1"].epsilon_spent == 0.0


@pytest.mark.parametrize(
    "report",
    [
        BasketReport(3.0, 2**63 - 1, 0.0),
        BasketReport(3.0, 4, 0.0),
        BasketReport(1.7e308, 3, 0.0),
        BasketReport(5e-324, 3, 0.0),
        BasketReport(3.0, 3, 1.7e308),
    ],
    ids=str,
)
def test_a_report_beyond_its_basket_is_refused_and_the_coordinator_goes_on(report: BasketReport) -> None:
    world = World()
    world.net.lose = lambda sender, to, _packet: sender == "basket/a" and to == COORDINATOR
    world.open()
    for name in world.domains:
        world.submit(name, np.ones(4))
    assert reasons(world.tell("basket/a", COORDINATOR, world.say("basket/a", report, 1, to=COORDINATOR)))
    world.close()
    (made,) = world.net.events_of(ModelMade)
    assert made.baskets == ("basket/b",)
    assert np.isfinite(made.model.vector).all()


def test_a_rule_that_a_basket_could_never_satisfy_is_declined_before_anything_is_charged() -> None:
    world = World(rule="bulyan", byzantine_share=0.4)
    world.open()
    assert {event.client_id for event in world.net.events_of(RoundDeclined)} == set(world.domains)
    assert all(client.epsilon_spent == 0.0 for client in world.clients.values())
    assert {basket.state for basket in world.baskets.values()} <= {BasketState.ABSENT, BasketState.IDLE}


def test_the_rule_is_held_against_the_basket_and_masked_sums_have_none() -> None:
    bulyan = round_settings({"rule": "bulyan", "byzantine_share": 0.2})
    assert "needs 11 contributions" in rule_fault(bulyan, 10)
    assert rule_fault(bulyan, 30) == ""
    assert rule_fault(round_settings({"mode": "distributed"}), 1) == ""


def test_a_round_that_ends_before_noise_was_drawn_locks_nobody_out() -> None:
    world, agents = record_world(layer1="distributed", central_share=0.2)
    world.net.lose = lambda sender, to, _packet: sender in ("a1", "a2", "a3") and to == "basket/a"
    world.open()
    world.close()
    world.net.lose = lambda _sender, _to, _packet: False
    for agent in agents.values():
        for row in rows_of(9):
            agent.engine.process_row(row.tolist())
    world.open()
    world.close()
    assert not [p for p in world.net.sent_by("a0", Declined) if p.header.round_id == 2]
    assert world.coordinator.model is not None
    assert world.coordinator.model.count == 8


def test_an_acknowledgement_that_comes_after_the_round_is_no_fault() -> None:
    world = World()
    held: list[Packet] = []

    def keep_acks(_sender: str, to: str, packet: Packet) -> bool:
        if to == "a1" and isinstance(packet.body, Ack):
            held.append(packet)
            return True
        return False

    world.net.lose = keep_acks
    world.open()
    for name in world.domains:
        world.submit(name, np.ones(4))
    world.close()
    assert world.clients["a1"].state is ClientState.IDLE
    assert reasons(world.tell("basket/a", "a1", held[0])) == []


# The facade.


def federation(**settings: Any) -> HierarchicalFederation:
    made = HierarchicalFederation(HierarchicalFederationConfig(**settings))
    for name in ("a1", "a2"):
        made.register_client(name, domain_id="a")
    return made


def test_a_release_made_elsewhere_counts_in_mode_local() -> None:
    made = federation(rule="average")
    body = Release(b"", np.array([2048, 0, 0, -2048]), 1)
    receipt = made.submit_update("a1", body)
    assert (receipt.round_id, receipt.release_id, receipt.epsilon_spent) == (1, "", 0.0)
    with pytest.raises(AlreadySubmittedError):
        made.submit_update("a1", body)
    made.submit_update("a2", body)
    model = made.maybe_aggregate()
    assert model is not None
    assert np.allclose(model.vector, [1.0, 0, 0, -1.0])


def test_a_release_of_the_wrong_form_or_in_another_mode_is_refused() -> None:
    made = federation()
    with pytest.raises((InvalidUpdate, LocalError)):
        made.submit_update("a1", Release(b"", np.array([1.0, 2.0]), 1))  # type: ignore[arg-type]  # floats on purpose
    with pytest.raises(LocalError, match="distributed"):
        federation(layer1="distributed").submit_update("a1", Release(b"", np.array([1, 2]), 1))


@pytest.mark.parametrize(("client", "domain"), [(5, "a"), (b"x", "a"), (None, "a"), ("x", None), ("x", 5), ("x", "")])
def test_names_of_another_type_are_refused_by_field(client: Any, domain: Any) -> None:
    made = HierarchicalFederation()
    with pytest.raises(ConfigError, match=r"client_id|domain_id"):
        made.register_client(client, domain_id=domain)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": "x"},
        {"clip_norm": None},
        {"quorum": "x"},
        {"total_epsilon": float("nan")},
        {"total_epsilon": "x"},
        {"delta": 2},
        {"federation": ""},
        {"federation": 7},
        {"federation": "f" * 300},
        {"auto_aggregate": "no"},
    ],
    ids=str,
)
def test_settings_of_another_type_are_config_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HierarchicalFederationConfig(**settings)


def test_a_local_view_outlives_its_round() -> None:
    made = federation(rule="average")
    for name in ("a1", "a2"):
        made.submit_update(name, np.ones(3))
    assert made.maybe_aggregate() is not None
    for _ in range(3):
        made.run_gossip_round()
    assert made.local_view("a1") is not None
