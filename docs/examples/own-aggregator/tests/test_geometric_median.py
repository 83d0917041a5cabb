# ruff: noqa: ARG002, D102, D103, INP001  # a small project's tests, as people write them
"""The aggregator in whole swarms: clients drop out, packets are late, some lie, baskets crash."""

from __future__ import annotations

import numpy as np
import pytest
from own_aggregator import careless_mean, geometric_median

from scarcity.federation.packets import Update
from sim import Byzantine, Crash, Dropout, Latency, Loss

TRUTH = np.array([0.5, -0.25, 0.125, 0.0])


class Learner:
    """A client that always learns the truth, so that a test knows what the model should be."""

    layout = None

    def __init__(self, client_id):
        self.client_id = client_id

    def update_for(self, round_id):
        return Update(self.client_id, None, b"", TRUTH)

    def accepted(self, update):
        pass

    def receive_model(self, model):
        pass


def of(swarm, rule):
    # A large budget: this is about the rule, not about the noise.
    swarm.clients(8).settings(
        round_every_s=2.0, mode="local", unit="client", epsilon=1e6, byzantine_share=0.0, quorum=0.5, rule=rule
    )
    return swarm.learners(lambda client_id, _rows_given: Learner(client_id))


def error(result):
    return np.linalg.norm(result.model.vector - TRUTH)


@pytest.mark.faults(Dropout("release", probability=0.2), Latency.fixed(0.2))
def test_it_finds_the_truth_though_clients_drop_out(swarm):
    result = of(swarm, geometric_median).run(until_s=20, heal_s=0)
    assert result.num_models > 3
    assert error(result) < 0.05


@pytest.mark.faults(Byzantine("sign-flip", share=0.25, strength=1.0))
def test_it_holds_where_a_quarter_lies(swarm):
    assert error(of(swarm, geometric_median).run(until_s=20, heal_s=0)) < 0.05


@pytest.mark.faults(Loss(0.05), Crash(at_s=5, of=("basket/basket-0",), down_s=3))
def test_the_federation_goes_on_after_its_basket_crashed(swarm):
    assert of(swarm, geometric_median).run(until_s=40).num_models > 5


@pytest.mark.faults(Dropout("release", probability=0.3), Latency.fixed(0.2))
def test_a_mean_over_a_fixed_number_is_found_out(swarm):
    assert error(of(swarm, careless_mean).run(until_s=20, heal_s=0)) > 0.05
