"""What must hold of every plan, and what the smallest link promises."""

from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, discover, record_layout
from scarcity.engine.power import power_of, usable_rows
from scarcity.federation.planning import MODES, ModePlan, Question, plan_mode
from scarcity.federation.privacy_guard import PrivacyParams, calibrate_gaussian

questions = st.builds(
    Question,
    clients=st.integers(12, 200),
    baskets=st.integers(3, 4),
    dimension=st.integers(1, 300),
    epsilon=st.floats(0.1, 20),
    delta=st.floats(1e-9, 1e-3),
    rounds=st.integers(1, 20),
    quorum=st.floats(0.5, 1.0),
    clip_norm=st.floats(1e-3, 1e3),
)


@settings(max_examples=25, deadline=None)
@given(question=questions, mode=st.sampled_from(MODES))
def test_a_larger_budget_more_clients_and_fewer_releases_never_cost_accuracy(question: Question, mode: str) -> None:
    plan = plan_mode(question, mode)
    richer = plan_mode(attrs.evolve(question, epsilon=question.epsilon * 1.5), mode)
    longer = plan_mode(attrs.evolve(question, rounds=question.rounds + 1), mode)
    assert richer.error < plan.error < longer.error
    assert plan.releases == question.rounds
    assert longer.releases == question.rounds + 1
    doubled = plan_mode(attrs.evolve(question, clients=2 * question.clients), mode)
    assert doubled.error < plan.error


@settings(max_examples=25, deadline=None)
@given(question=questions, factor=st.floats(0.01, 100))
def test_a_plan_does_not_depend_on_the_unit_of_the_vectors(question: Question, factor: float) -> None:
    scaled = attrs.evolve(question, clip_norm=question.clip_norm * factor)
    for mode in MODES:
        assert plan_mode(scaled, mode).error == pytest.approx(plan_mode(question, mode).error, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(question=questions)
def test_trust_buys_accuracy(question: Question) -> None:
    """Central is never worse than distributed, but for a truncation to the lattice, nor distributed than local."""
    local, distributed, central = (plan_mode(question, mode).error for mode in ("local", "distributed", "central"))
    assert central <= distributed * 1.01
    assert distributed < local


def test_a_plan_is_nothing_exactly_from_one_clip_norm_on() -> None:
    seen: set[bool] = set()
    for clients in range(20, 200, 20):
        plan = plan_mode(Question(clients=clients, dimension=10, epsilon=3.0), "local")
        assert isinstance(plan, ModePlan)
        assert bool(plan.nothing) is (plan.error >= 1)
        seen.add(bool(plan.nothing))
    assert seen == {True, False}


@pytest.mark.parametrize(("parties", "epsilon"), [(40, 1.0), (30, 100.0)])
def test_the_smallest_link_is_found_more_often_than_not_and_half_of_it_seldom(parties: int, epsilon: float) -> None:
    """Fixed seeds; the engine's own report over 24 noised sums each."""
    schema, rows = Schema([Variable(f"v{i}", scale=1.0) for i in range(6)], lags=2), 200
    layout, weight = record_layout(schema), usable_rows(schema, "differenced", rows) * parties
    sigma = calibrate_gaussian(PrivacyParams(epsilon=epsilon, delta=1e-6), 1, layout.sensitivity)
    power = power_of(schema, "differenced", weight=weight, parties=parties, noise_std=sigma)
    rng = np.random.default_rng(2)

    def found(effect: float) -> int:
        count = 0
        for _ in range(24):
            x = rng.standard_normal((weight, 6))
            x[1:, 1] = math.sqrt(1 - effect**2) * x[1:, 1] + effect * x[:-1, 0]
            engine = OnlineDiscoveryEngine(schema)
            engine.process_rows(x)
            vector = engine.increment("differenced").vector + sigma * layout.noise_scales * rng.standard_normal(
                layout.dimension
            )
            links = discover(Moments.from_vector(schema, "differenced", vector, weight, parties, sigma))
            count += any((r.sources, r.targets, r.lag) == (("v0",), ("v1",), 1) for r in links)
        return count

    assert found(power.smallest_effect) > 12
    assert found(power.smallest_effect / 2) < 8
