"""A plan against a swarm: actors on a real clock, its own settings."""

from __future__ import annotations

import pytest

from scarcity.engine import OnlineDiscoveryEngine
from scarcity.engine.power import usable_rows
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.packets import Unit
from scarcity.federation.planning import Question, plan_mode
from sim.swarms.live import execute
from sim.swarms.plan import Observer, Outcome, SwarmPlan
from sim.swarms.swarm import SwarmConfig, run_swarm


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_a_swarm_has_the_noise_and_spends_the_budget_of_its_plan(mode: str) -> None:
    seen: list[tuple[SwarmPlan, Outcome]] = []

    def remember(plan: SwarmPlan, observe: Observer) -> Outcome:
        outcome = execute(plan, observe)
        seen.append((plan, outcome))
        return outcome

    config = SwarmConfig(synthetic=12, privacy=mode, aggregator="average", epsilon=3.0, seed=1)
    assert run_swarm(config, execute=remember).status == 0
    ((swarm, outcome),) = seen
    (model,) = outcome.models
    schema = swarm.source.schema
    layout = FederationClientAgent(OnlineDiscoveryEngine(schema), "plan").layout
    assert layout is not None
    question = Question(
        clients=12,
        baskets=len(swarm.source.domains),
        dimension=layout.dimension,
        weight=usable_rows(schema, "differenced", len(swarm.source.parties[0].rows)),
        unit=Unit.RECORD,
        epsilon=config.epsilon,
        delta=config.delta,
        quorum=config.quorum,
        max_colluders=swarm.settings.max_colluders,
    )
    plan = plan_mode(question, mode, layout)
    assert model.weight == 12 * question.weight
    assert model.noise_std == pytest.approx(plan.noise_std, rel=1e-9)
    assert [spent.epsilon for spent in outcome.spent] == pytest.approx([3.0] * 12, rel=1e-6)
