"""The facade's packets can take the way through the codec, which the benchmarks rely on."""

from __future__ import annotations

import numpy as np
import pytest

from scarcity.federation.hierarchical import HierarchicalFederation, HierarchicalFederationConfig
from scarcity.federation.packets import Model
from sim.chance import reproducible_entropy


class Receiver:
    def __init__(self) -> None:
        self.models: list[Model] = []

    def receive_model(self, model: Model) -> None:
        self.models.append(model)


def round_of(mode: str, *, wire: bool) -> tuple[Model, Model]:
    """Return the model of a round, as the facade returns it and as a client received it."""
    config = HierarchicalFederationConfig(layer1=mode, rule="average", entropy=reproducible_entropy(1))
    federation, receiver = HierarchicalFederation(config, wire=wire), Receiver()
    names = [f"client_{n}" for n in range(6)]
    for n, name in enumerate(names):
        federation.register_client(name, f"basket_{n % 2}", receiver if n == 0 else None)
    for n, name in enumerate(names):
        federation.submit_update(name, np.arange(4.0) - n)
    model = federation.maybe_aggregate()
    assert model is not None
    return model, receiver.models[0]


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_the_model_is_the_same_whether_packets_are_encoded_or_handed_over(mode: str) -> None:
    encoded, handed_over = round_of(mode, wire=True), round_of(mode, wire=False)
    assert {model.identity for model in encoded} == {model.identity for model in handed_over}
    assert len({model.identity for model in encoded}) == 1


def test_packets_are_encoded_only_where_that_is_asked_for() -> None:
    # Handed over, a packet is one object at both ends; decoded, it is another one.
    sent, received = round_of("local", wire=False)
    assert sent is received
    sent, received = round_of("local", wire=True)
    assert sent is not received
