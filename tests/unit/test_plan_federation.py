"""A plan against what a federation then spends, and against the error that it then has: the real protocol.

Entropy is reproducible, so nothing here can flake. The tolerance is 20 %; an L2 norm over d noised numbers has a
relative standard deviation of 1 / sqrt(2 d), 1.6 % for 2000, so that the tolerance is 12 of them where nothing else is
said.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, fit_var
from scarcity.engine.power import Power, power_of, usable_rows
from scarcity.errors import PrivacyBudgetExceeded
from scarcity.federation import (
    FederationClientAgent,
    HierarchicalFederation,
    HierarchicalFederationConfig,
    Model,
    Update,
)
from scarcity.federation.packets import Unit
from scarcity.federation.planning import ModePlan, Question, plan_mode
from sim.chance import reproducible_entropy

TOLERANCE = 0.2
DIMENSION, CLIENTS, BASKETS, ROUNDS = 2000, 24, 2, 2


def federation_of(question: Question, mode: str) -> HierarchicalFederation:
    return HierarchicalFederation(
        HierarchicalFederationConfig(
            total_epsilon=question.epsilon,
            delta=question.delta,
            planned_rounds=question.rounds,
            entropy=reproducible_entropy(11),
            layer1=mode,
            rule="average",
            unit=question.unit,
            quorum=question.quorum,
            clip_norm=question.clip_norm,
        )
    )


def domain(index: int, baskets: int) -> str:
    return f"domain-{index % baskets}"


def vectors(clip_norm: float) -> dict[str, npt.NDArray[np.float64]]:
    """Vectors of half the clip norm: what is left of the model beside their mean is noise."""
    rng = np.random.default_rng(3)
    raw = rng.standard_normal((CLIENTS, DIMENSION))
    return {f"c{i}": clip_norm / 2 * row / np.linalg.norm(row) for i, row in enumerate(raw)}


def submit_all(federation: HierarchicalFederation, given: Mapping[str, npt.ArrayLike]) -> Model:
    for name, vector in given.items():
        federation.submit_update(name, vector)
    model = federation.maybe_aggregate()
    assert model is not None
    return model


@pytest.mark.parametrize(("mode", "baskets"), [("local", BASKETS), ("distributed", BASKETS), ("central", 3)])
def test_a_plan_of_unit_client_is_what_a_federation_spends_and_how_far_it_is_off(mode: str, baskets: int) -> None:
    question = Question(
        clients=CLIENTS, baskets=baskets, dimension=DIMENSION, epsilon=6.0, delta=1e-5, rounds=ROUNDS, clip_norm=3.0
    )
    plan = plan_mode(question, mode)
    federation, given = federation_of(question, mode), vectors(3.0)
    for i, name in enumerate(given):
        federation.register_client(name, domain_id=domain(i, baskets))
    truth = np.mean(list(given.values()), axis=0)
    for done in range(1, ROUNDS + 1):
        model = submit_all(federation, given)
        error = np.linalg.norm(model.vector - truth) / question.clip_norm
        assert error == pytest.approx(plan.error, rel=TOLERANCE), done
        assert model.noise_std == pytest.approx(plan.noise_std, rel=1e-9)
        spent = federation.privacy_spent("c0").epsilon
        assert (
            (spent < 0.8 * question.epsilon) if done < ROUNDS else (spent == pytest.approx(question.epsilon, rel=1e-6))
        )
    assert plan.releases == ROUNDS
    with pytest.raises(PrivacyBudgetExceeded):
        federation.submit_update("c0", given["c0"])


SCHEMA = Schema([Variable(f"v{i}", scale=2.0) for i in range(10)], lags=2)
ROWS, PARTIES = 150, 18


def record_plan(mode: str, baskets: int, epsilon: float) -> ModePlan:
    layout = FederationClientAgent(OnlineDiscoveryEngine(SCHEMA), "plan").layout
    assert layout is not None
    weight = usable_rows(SCHEMA, "differenced", ROWS)
    question = Question(
        clients=PARTIES, baskets=baskets, dimension=layout.dimension, weight=weight, epsilon=epsilon, unit=Unit.RECORD
    )

    def find(noise_std: float) -> Power:
        return power_of(SCHEMA, "differenced", weight=PARTIES * weight, parties=PARTIES, noise_std=noise_std)

    return plan_mode(question, mode, layout, find)


# Noise that drowns the moments is met with a ridge, which shrinks effects and errors alike: not a case for the last two
# lines of the test, so `local` has a budget with which something is left.
@pytest.mark.parametrize(
    ("mode", "baskets", "epsilon"), [("distributed", 2, 2.0), ("local", 2, 10.0), ("central", 3, 2.0)]
)
def test_a_plan_of_unit_record_is_what_a_federation_spends_and_how_far_it_is_off(
    mode: str, baskets: int, epsilon: float
) -> None:
    """255 noised numbers: a relative standard deviation of 4.5 %."""
    plan = record_plan(mode, baskets, epsilon)
    question = Question(clients=PARTIES, dimension=1, epsilon=epsilon, unit=Unit.RECORD)
    federation = federation_of(question, mode)
    rng = np.random.default_rng(7)
    updates: dict[str, Update] = {}
    for i in range(PARTIES):
        engine = OnlineDiscoveryEngine(SCHEMA)
        engine.process_rows(2.0 * rng.standard_normal((ROWS, len(SCHEMA.names))))
        agent = FederationClientAgent(engine, f"c{i}")
        federation.register_client(f"c{i}", domain_id=domain(i, baskets), agent=agent)
        updates[f"c{i}"] = agent.get_shareable_update()
    for name, update in updates.items():
        federation.submit_update(name, update)
    model = federation.maybe_aggregate()
    assert model is not None
    weight = sum(update.weight for update in updates.values())
    truth = np.sum([update.vector for update in updates.values()], axis=0) / weight
    error = np.linalg.norm(model.vector - truth) / SCHEMA.lattice**2
    assert error == pytest.approx(plan.error, rel=TOLERANCE)
    assert model.noise_std == pytest.approx(plan.noise_std, rel=1e-9)
    assert federation.privacy_spent("c0").epsilon == pytest.approx(epsilon, rel=1e-6)
    assert plan.releases == 1
    with pytest.raises(PrivacyBudgetExceeded):
        federation.submit_update("c0", updates["c0"])
    fit = fit_var(Moments.from_vector(SCHEMA, "differenced", model.vector * weight, weight, PARTIES, model.noise_std))
    effects, se = fit.standardised()
    assert plan.found is not None
    assert float(np.median(se)) == pytest.approx(plan.found.se, rel=TOLERANCE)
    # No variable drives another here, so that 200 effects spread as their standard error says (5 % of it is one sd).
    assert float(effects.std()) == pytest.approx(plan.found.se, rel=1.5 * TOLERANCE)


@pytest.mark.parametrize(("rounds", "local", "summed"), [(1, 10.0, 0.5), (10, 31.6, 1.58)])
def test_the_plan_is_the_price_that_the_docs_print(rounds: int, local: float, summed: float) -> None:
    question = Question(clients=100, dimension=10_000, epsilon=10.0, delta=1e-5, rounds=rounds, quorum=1.0)
    assert plan_mode(question, "local").error == pytest.approx(local, rel=5e-3)
    assert plan_mode(question, "distributed").error == pytest.approx(summed, rel=5e-3)


def test_three_untrusted_baskets_cost_three_times_the_variance_and_a_quorum_its_inverse() -> None:
    one = plan_mode(Question(clients=90, dimension=50, quorum=1.0), "distributed").noise_sd
    three = plan_mode(Question(clients=90, baskets=3, dimension=50, quorum=1.0), "distributed").noise_sd
    assert (three / one) ** 2 == pytest.approx(3.0, rel=1e-6)
    most = plan_mode(Question(clients=90, dimension=50, quorum=0.8), "distributed").noise_sd
    assert (most / one) ** 2 == pytest.approx(1 / 0.8, rel=1e-6)
    assert plan_mode(Question(clients=90, baskets=3, dimension=50), "central").noise_sd < one * 1.01
