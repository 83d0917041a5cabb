"""One seed, no faults: facade, actors on asyncio and on trio, and a pump that encodes every packet, give one model."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from scarcity.engine import OnlineDiscoveryEngine
from scarcity.federation import FederationClientAgent, HierarchicalFederation, HierarchicalFederationConfig
from scarcity.federation.packets import Model, RoundSettings
from sim.swarms.live import RowFeeder, execute
from sim.swarms.plan import SwarmPlan
from sim.swarms.swarm import SwarmConfig, load_source, plan_swarm
from tests.federation_world import World

SEED = 11
PARTIES = 12
CASES = [
    ("none", "record"),
    ("none", "client"),
    ("local", "record"),
    ("local", "client"),
    ("distributed", "record"),
    ("distributed", "client"),
]


def plan_of(mode: str, unit: str, rounds: int = 1) -> SwarmPlan:
    config = SwarmConfig(synthetic=PARTIES, privacy=mode, unit=unit, epsilon=10.0, seed=SEED, rounds=rounds)
    return plan_swarm(config, load_source(config), SEED)


def settings_of(plan: SwarmPlan) -> dict[str, Any]:
    return {field.name: getattr(plan.settings, field.name) for field in attrs.fields(RoundSettings)}


def agents_of(plan: SwarmPlan) -> dict[str, FederationClientAgent]:
    agents = {}
    for party in plan.source.parties:
        engine = OnlineDiscoveryEngine(plan.source.schema)
        engine.process_rows(party.rows, [int(time) for time in party.times])
        agents[party.id] = FederationClientAgent(engine, party.id, plan.form)
    return agents


def by_facade(plan: SwarmPlan) -> Model:
    assert plan.entropy is not None
    config = HierarchicalFederationConfig(
        total_epsilon=plan.epsilon,
        delta=plan.delta,
        planned_rounds=plan.rounds,
        entropy=plan.entropy,
        **settings_of(plan),
    )
    fed = HierarchicalFederation(config)
    agents = agents_of(plan)
    for party in plan.source.parties:
        fed.register_client(party.id, party.domain, agent=agents[party.id])
    for party in reversed(plan.source.parties):  # the order of submits does not matter
        fed.submit_update(party.id, agents[party.id].get_shareable_update())
    model = fed.maybe_aggregate()
    assert model is not None
    assert all(len(agent.engine.store) == 1 for agent in agents.values())
    return model


def by_wire(plan: SwarmPlan) -> Model:
    agents = agents_of(plan)
    world = World(
        {party.id: party.domain for party in plan.source.parties},
        epsilon=plan.epsilon,
        delta=plan.delta,
        planned_rounds=plan.rounds,
        entropy=plan.entropy,
        wire=True,
        layout=agents[plan.source.parties[0].id].layout,
        learners=agents,
        **settings_of(plan),
    )
    world.open()
    model = world.coordinator.model
    assert model is not None
    assert all(client.model is not None and client.model == model for client in world.clients.values())
    return model


def by_actors(plan: SwarmPlan, backend: str) -> tuple[Model, ...]:
    return execute(attrs.evolve(plan, backend=backend), lambda _said, _now: None).models


@pytest.mark.parametrize(("mode", "unit"), CASES)
def test_every_driver_gives_the_same_model_for_one_seed(mode: str, unit: str) -> None:
    plan = plan_of(mode, unit)
    models = {"facade": by_facade(plan), "wire": by_wire(plan)}
    for backend in ("asyncio", "trio"):
        (models[backend],) = by_actors(plan, backend)
    identities = {name: model.identity for name, model in models.items()}
    assert len(set(identities.values())) == 1, {name: identity[3:] for name, identity in identities.items()}
    assert models["facade"].count == PARTIES


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_another_seed_gives_another_model(mode: str) -> None:
    plan = plan_of(mode, "record")
    from sim.chance import reproducible_entropy

    other = attrs.evolve(plan, entropy=reproducible_entropy(SEED + 1))
    assert by_facade(plan).identity != by_facade(other).identity


@pytest.mark.parametrize("mode", ["none", "local", "distributed"])
def test_both_event_loops_agree_over_several_rounds(mode: str) -> None:
    plan = plan_of(mode, "record", rounds=3)
    asyncio_models, trio_models = (by_actors(plan, backend) for backend in ("asyncio", "trio"))
    assert len(asyncio_models) == 3
    assert [m.identity for m in asyncio_models] == [m.identity for m in trio_models]


def test_a_party_feeds_the_rows_up_to_the_round_however_often_and_late_it_is_asked() -> None:
    plan = plan_of("local", "record", rounds=4)
    party = plan.source.parties[0]
    engine = OnlineDiscoveryEngine(plan.source.schema)
    feeder = RowFeeder(party, FederationClientAgent(engine, party.id, plan.form), 4, None)
    rows = []
    for round_id in (1, 1, 3, 3, 9):
        feeder.update_for(round_id)
        rows.append(engine.num_rows)
    assert rows == [100, 100, 300, 300, 400]
