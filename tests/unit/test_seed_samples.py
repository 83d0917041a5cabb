"""Both samples of the overview, to the letter; everything beside their lines is what they leave open."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest

from scarcity.federation import HierarchicalFederation, HierarchicalFederationConfig, Model
from scarcity.federation.reconciler import evidence_of_model
from sim.chance import reproducible_entropy
from tests.federation_world import NAMES, agent_of, rows_of

FACADE = """
from scarcity.federation import HierarchicalFederation, HierarchicalFederationConfig

fed = HierarchicalFederation(HierarchicalFederationConfig(
    total_epsilon=10.0,    # Total privacy budget
    auto_aggregate=True    # Aggregate when triggers fire
))

# Register clients
fed.register_client("hospital_1", domain_id="healthcare")
fed.register_client("hospital_2", domain_id="healthcare")
fed.register_client("bank_1", domain_id="finance")

# Submit updates
fed.submit_update("hospital_1", update_vector)
fed.run_gossip_round()
global_model = fed.maybe_aggregate()
"""

ENGINE = """
# Client side
from scarcity.engine import OnlineDiscoveryEngine
from scarcity.federation import FederationClientAgent

engine = OnlineDiscoveryEngine()
agent = FederationClientAgent(engine, client_id="client_1")

# Process local data
for row in local_data:
    engine.process_row(row)

# Periodically share with federation
update = agent.get_shareable_update()
federation.submit_update("client_1", update)
"""


def run(sample: str, **names: Any) -> dict[str, Any]:
    exec(compile(textwrap.dedent(sample), "sample", "exec"), names)  # noqa: S102  the sample is above, word by word
    return names


def test_the_facade_sample_runs_and_gives_none_while_one_hospital_of_two_has_submitted() -> None:
    names = run(FACADE, update_vector=np.array([0.1, -0.2, 0.3]))
    assert names["global_model"] is None
    waits = {waiting.who: waiting for waiting in names["fed"].waiting()}
    assert waits["basket/healthcare"].missing == ("hospital_2",)
    assert (waits["basket/healthcare"].have, waits["basket/healthcare"].need) == (1, 2)


def test_the_facade_sample_goes_on_to_a_model_once_the_other_hospital_submits() -> None:
    fed = run(FACADE, update_vector=np.array([0.1, -0.2, 0.3]))["fed"]
    fed.submit_update("hospital_2", np.array([0.3, 0.0, -0.1]))
    model = fed.maybe_aggregate()
    assert isinstance(model, Model)
    assert model.vector.shape == (3,)
    assert model.count == 2
    assert fed.maybe_aggregate() is None


def test_the_engine_sample_runs_against_a_federation_that_knows_the_client() -> None:
    federation = HierarchicalFederation()
    for name in ("client_1", "client_2"):
        federation.register_client(name, domain_id="d")
    rows = [dict(zip(NAMES, row.tolist(), strict=True)) for row in rows_of(3)]
    names = run(ENGINE, local_data=rows, federation=federation)
    assert names["update"].client_id == "client_1"
    assert federation.privacy_spent("client_1").epsilon > 0
    assert federation.privacy_spent("client_2").epsilon == 0


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
@pytest.mark.parametrize("unit", ["client", "record"])
def test_an_agents_update_becomes_a_model_that_every_clients_store_holds(mode: str, unit: str) -> None:
    config = HierarchicalFederationConfig(layer1=mode, unit=unit, entropy=reproducible_entropy(7))
    fed = HierarchicalFederation(config)
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=unit == "record") for i in range(6)}
    for index, (name, agent) in enumerate(agents.items()):
        fed.register_client(name, domain_id="ab"[index % 2], agent=agent)
    for name, agent in agents.items():
        fed.submit_update(name, agent.get_shareable_update())
    fed.run_gossip_round()
    model = fed.maybe_aggregate()
    assert model is not None
    assert model.count == 6
    for agent in agents.values():
        assert agent.engine.schema is not None
        (record,) = agent.engine.store.records
        assert (record.scope, record.origin) == ("global", "round 1")
        assert record == evidence_of_model(agent.engine.schema, agent.form, model)


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_an_update_is_the_same_until_it_is_released_and_rows_are_offered_once(mode: str) -> None:
    fed = HierarchicalFederation(
        HierarchicalFederationConfig(layer1=mode, unit="record", entropy=reproducible_entropy(7), min_clients=3)
    )
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, domain_id="d", agent=agent)
    first = {name: agent.get_shareable_update() for name, agent in agents.items()}
    assert all(agent.get_shareable_update() is first[name] for name, agent in agents.items())
    for name in agents:
        fed.submit_update(name, first[name])
    for name, agent in agents.items():
        for row in rows_of(9):
            agent.engine.process_row(row)
        second = agent.get_shareable_update()
        before = first[name].rows
        assert before is not None
        assert second.rows is not None
        assert second.rows[0] >= before[1]
