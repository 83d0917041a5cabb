"""Trust mode central, and noise on Layer 2's sum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scarcity.errors import ConfigError, PrivacyBudgetExceeded
from scarcity.federation import HierarchicalFederation, HierarchicalFederationConfig, Model
from scarcity.federation.assembly import round_settings
from scarcity.federation.effects import BasketClosed, Event, Reject
from scarcity.federation.layers import clip_about
from scarcity.federation.packets import Aggregate, TrustedUpdate
from scarcity.federation.privacy_guard import array_layout, layer2_sensitivity
from sim.chance import reproducible_entropy

DIMENSION = 400


def _run(vectors: dict[str, np.ndarray[Any, Any]], *, seed: int = 0, **settings: Any) -> tuple[Model, list[Event]]:
    seen: list[Event] = []

    def observe(_who: str, what: Event | Reject) -> None:
        if not isinstance(what, Reject):
            seen.append(what)

    config = HierarchicalFederationConfig(
        entropy=reproducible_entropy(seed), **({"layer1": "central", "planned_rounds": 1} | settings)
    )
    federation = HierarchicalFederation(config, observe=observe)
    for name in vectors:
        federation.register_client(name, domain_id=name[0])
    for name, vector in vectors.items():
        federation.submit_update(name, vector)
    model = federation.maybe_aggregate()
    assert model is not None
    return model, seen


def _vectors(clients: int = 30) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    raw = rng.normal(size=(clients, DIMENSION))
    raw /= 2 * np.linalg.norm(raw, axis=1, keepdims=True)
    return {f"{'abc'[i % 3]}{i}": row for i, row in enumerate(raw)}


def test_noise_is_added_once_and_is_as_large_as_the_model_says() -> None:
    vectors = _vectors()
    truth = np.mean(list(vectors.values()), axis=0)
    model, _ = _run(vectors)
    noise = (model.vector - truth) * model.weight
    # 400 coordinates: the standard deviation of the estimate is 3.5 %, so 18 % is five of them.
    assert abs(noise.std() / model.noise_std - 1) < 0.18
    local, _ = _run(vectors, layer1="local", rule="average")
    assert local.noise_std == pytest.approx(model.noise_std * 2 * math.sqrt(len(vectors)), rel=0.01)


def test_a_basket_shows_its_clean_aggregate_to_nobody() -> None:
    _, seen = _run(_vectors())
    closed = [event for event in seen if isinstance(event, BasketClosed)]
    assert [event.aggregate for event in closed] == [None, None, None]


def test_gossip_never_carries_a_clean_update() -> None:
    federation = HierarchicalFederation(HierarchicalFederationConfig(layer1="central"))
    for name in ("a1", "a2", "b1", "b2", "c1", "c2"):
        federation.register_client(name, domain_id=name[0])
    federation.submit_update("a1", np.ones(3))
    for _ in range(3):
        federation.run_gossip_round()
    assert federation.local_view("a2") is None
    for core in (*federation._clients.values(), *federation._baskets.values()):
        held = core._gossip.exchange.packets()
        assert not [packet for packet in held if isinstance(packet.body, TrustedUpdate)]


def test_a_client_is_charged_for_what_the_coordinator_noises_and_the_budget_ends() -> None:
    federation = HierarchicalFederation(HierarchicalFederationConfig(layer1="central", planned_rounds=2))
    names = ("a1", "a2", "b1", "b2", "c1", "c2")
    for name in names:
        federation.register_client(name, domain_id=name[0])
    for _ in range(2):
        for name in names:
            federation.submit_update(name, np.ones(3))
        assert federation.maybe_aggregate() is not None
    assert federation.privacy_spent("a1").epsilon == pytest.approx(10.0, rel=1e-6)
    with pytest.raises(PrivacyBudgetExceeded):
        federation.submit_update("a1", np.ones(3))


def test_two_baskets_make_no_model_of_clean_aggregates() -> None:
    federation = HierarchicalFederation(HierarchicalFederationConfig(layer1="central"))
    names = ("a1", "a2", "b1", "b2")
    for name in names:
        federation.register_client(name, domain_id=name[0])
    for name in names:
        federation.submit_update(name, np.ones(3))
    assert federation.maybe_aggregate() is None


def test_part_of_the_budget_can_go_to_layer_two_and_both_parts_fit() -> None:
    vectors = _vectors(12)
    model, _ = _run(vectors, layer1="local", rule="average", central_share=0.25)
    plain, _ = _run(vectors, layer1="local", rule="average")
    assert model.noise_std > plain.noise_std


def test_a_robust_rule_with_layer_two_noise_is_clipped_about_the_last_model() -> None:
    vectors = _vectors(30) | {f"{d}{90 + i}": np.full(DIMENSION, 1e6) for i, d in enumerate("abc")}
    model, _ = _run(vectors, rule="trmean", layer2_clip=0.25, total_epsilon=1e4, delta=0.1)
    assert np.linalg.norm(model.vector) < 0.3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "central", "min_baskets": 2}, "min_baskets"),
        ({"mode": "central", "rule": "krum"}, "layer2_clip"),
        ({"mode": "local", "central_share": 0.2}, "layer2_clip"),
        ({"mode": "local", "unit": "record", "layer2_clip": 1.0}, "layer2_clip"),
        ({"mode": "distributed", "layer2_clip": 1.0}, "layer2_clip"),
        ({"mode": "distributed", "central_share": 1.0}, "central"),
        ({"mode": "none", "central_share": 0.1}, "mode none"),
    ],
)
def test_what_cannot_hold_is_refused_with_the_reason(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        round_settings(settings)


def test_the_sensitivity_of_layer_two_is_that_of_one_client() -> None:
    layout = array_layout(9)
    plain = round_settings({"mode": "central"})
    assert layer2_sensitivity(plain, layout, 10) == pytest.approx(layout.steps, rel=0.01)
    robust = round_settings({"mode": "central", "rule": "trmean", "layer2_clip": 0.5})
    assert layer2_sensitivity(robust, layout, 10) == pytest.approx(2 * 0.5 * layout.steps * 10, rel=0.01)


def test_clipping_moves_the_mean_onto_the_ball_and_no_further() -> None:
    aggregate = Aggregate(np.array([30.0, 40.0]), 10.0, 10, "trmean", 0.0)
    clipped = clip_about(aggregate, np.zeros(2), 1.0)
    assert np.allclose(clipped.mean, [0.6, 0.8])
    assert clip_about(aggregate, np.array([3.0, 4.0]), 1.0) is aggregate
