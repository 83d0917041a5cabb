"""A coordinator signs models that no round makes: each is refused before anything of it is kept, and nobody stops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.engine.vector import vector_dimension
from scarcity.errors import InvalidUpdate, LocalError
from scarcity.federation.codec import body_digest, encode_packet
from scarcity.federation.content import check_body
from scarcity.federation.effects import Effect, Emit, ModelAccepted, Reject, SetTimer
from scarcity.federation.layers import clip_about
from scarcity.federation.packets import Aggregate, GossipPush, Model, RoundConfig
from scarcity.federation.reconciler import merge_model, model_moments
from scarcity.federation.recovery import MODEL
from scarcity.federation.roster import COORDINATOR
from scarcity.node.results import Results
from scarcity.node.setup.config import read_federation_file
from tests.federation_world import World, agent_of, payloads, reasons, schema
from tests.keys_world import directory, federation_toml

ALL = ("a1", "a2", "a3", "b1", "b2", "b3")
SCHEMA = schema()
SIZE = vector_dimension(SCHEMA, "differenced")
HUGE: list[dict[str, Any]] = [
    {"noise_std": 1e308},
    {"noise_std": -1.0},
    {"noise_std": math.inf},
    {"vector": np.full(SIZE, 1e300), "weight": 1e300},
    {"vector": np.full(SIZE, 1e149)},
    {"vector": np.full(SIZE, math.nan)},
    {"weight": 0.0},
    {"weight": 1e-300},
    {"weight": -1.0},
    {"weight": 1e300},
    {"count": 2**60},
    {"count": 0},
]
FOREIGN: list[dict[str, Any]] = [
    {"vector": np.zeros(SIZE - 1)},
    {"vector": np.zeros(SIZE + 1)},
    {"vector": np.zeros((SIZE, 1))},
    {"schema_hash": bytes(32)},
]


def sound_model(config: RoundConfig, round_id: int = 1) -> Model:
    return Model(round_id, config.schema_hash, np.zeros(config.dimension), 10.0, 2, 1.0, body_digest(config))


class Receiver:
    """Takes models into an engine and gives nothing, so that the round stays open."""

    def __init__(self, name: str) -> None:
        self.agent = agent_of(name, 1, with_schema=True)

    @property
    def layout(self) -> Any:
        return self.agent.layout

    def update_for(self, round_id: int) -> None:
        return None

    def accepted(self, update: Any) -> None:
        pass

    def receive_model(self, model: Model) -> None:
        self.agent.receive_model(model)


class Unable(Receiver):
    """Its store is full, say."""

    def receive_model(self, model: Model) -> None:
        raise LocalError(f"no room for round {model.round_id}")


def opened(learner: type[Receiver] = Receiver) -> tuple[World, RoundConfig, Receiver]:
    """A round of unit record is open; client a1's engine waits for its model."""
    learners = {name: learner(name) for name in ALL}
    world = World(layout=learners["a1"].layout, learners=learners, layer1="local", unit="record", rule="average")
    world.open()
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(config, RoundConfig)
    return world, config, learners["a1"]


def kept(world: World, member: str) -> list[bytes]:
    return [entry.payload for entry in world.net.journals[member] if entry.kind == MODEL]


def only_refused(effects: list[Effect]) -> bool:
    """Say whether it was refused, and nothing is kept, sent or announced; a basket looks at its timer all the same."""
    return isinstance(effects[0], Reject) and all(isinstance(effect, Reject | SetTimer) for effect in effects)


@pytest.mark.parametrize("lie", [*HUGE, *FOREIGN], ids=lambda lie: "-".join(lie))
@pytest.mark.parametrize("way", ["direct", "gossip"])
@pytest.mark.parametrize("member", ["a1", "basket/a"])
def test_a_model_that_no_round_makes_is_refused_and_nothing_of_it_is_kept(
    lie: dict[str, Any], way: str, member: str
) -> None:
    world, config, learner = opened()
    packet = world.say(COORDINATOR, attrs.evolve(sound_model(config), **lie), 1, to=member)
    if way == "direct":
        effects = world.tell(COORDINATOR, member, packet)
    else:
        push = world.say("a2", GossipPush((encode_packet(packet),)), 1, to=member)
        effects = world.tell("a2", member, push)
    assert only_refused(effects)
    assert kept(world, member) == []
    assert len(learner.agent.engine.store) == 0
    sound = world.tell(COORDINATOR, member, world.say(COORDINATOR, sound_model(config), 1, to=member))
    assert any(isinstance(effect, Emit) for effect in sound)


@given(
    st.floats(0, 1e-3) | st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-1, 2**64),
)
def test_a_model_that_passes_can_be_added_up_a_thousand_times(
    value: float, weight: float, noise_std: float, count: int
) -> None:
    model = Model(1, SCHEMA.hash, np.full(SIZE, value), weight, count, noise_std, bytes(32))
    if check_body(model, None) is not None:
        return
    one = model_moments(SCHEMA, "differenced", [model])
    assert one is not None
    total = one
    for _ in range(10):  # 2 ** 10 of them
        total = total + total
    merge_model(agent_of("a1", 1, with_schema=True).engine.store, SCHEMA, "differenced", model)


def test_a_config_of_another_dimension_is_declined_and_its_model_refused() -> None:
    world, config, learner = opened()
    other = attrs.evolve(config, dimension=SIZE - 1)
    world.tell(COORDINATOR, "a1", world.say(COORDINATOR, other, 2, to="a1"))
    effects = world.tell(COORDINATOR, "a1", world.say(COORDINATOR, sound_model(other, 2), 2, to="a1"))
    assert only_refused(effects)
    assert kept(world, "a1") == []
    assert len(learner.agent.engine.store) == 0


def test_an_aggregate_is_not_clipped_about_a_model_of_another_dimension() -> None:
    with pytest.raises(InvalidUpdate, match="the last model has 5 numbers, the aggregate 4"):
        clip_about(Aggregate(np.ones(4), 1.0, 1, "average", 0.0), np.zeros(5), 1.0)


def test_a_learner_that_cannot_take_a_model_does_not_end_its_client_now_or_after_a_restart() -> None:
    world, config, _ = opened(Unable)
    effects = world.tell(COORDINATOR, "a1", world.say(COORDINATOR, sound_model(config), 1, to="a1"))
    assert "no room for round 1" in reasons(effects)[0]
    assert any(isinstance(effect, Emit) and isinstance(effect.event, ModelAccepted) for effect in effects)
    assert len(kept(world, "a1")) == 1
    identity, operator = world.seats.identity("a1"), world.seats.operator_public_key
    journal = payloads(world.net.journals["a1"])
    again = world.assembly.client(identity, operator, journal=journal, learner=Unable("a1"))
    assert "no room for round 1" in reasons(again.start(0.0))[0]


def test_the_model_file_leaves_out_what_cannot_be_added_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = read_federation_file(federation_toml(tmp_path))
    size = vector_dimension(federation.schema, "differenced")
    good = Model(1, federation.schema.hash, np.zeros(size), 10.0, 2, 1.0, bytes(32))
    lies = [
        attrs.evolve(good, round_id=2, noise_std=1e308),
        attrs.evolve(good, round_id=3, vector=np.zeros(size - 1)),
        attrs.evolve(good, round_id=4, schema_hash=bytes(32)),
    ]
    results = Results(tmp_path / "model", federation, "differenced", lambda: directory().roster, [good, *lies, *lies])
    assert set(results.rounds) == {1}
    assert [record.getMessage().partition(" is left out")[0] for record in caplog.records] == [
        f"the model of round {number}" for number in (2, 3, 4)
    ]
    assert not results.keep(lies[0])
    assert len(caplog.records) == 3
    assert results.keep(attrs.evolve(good, round_id=2))
    assert set(results.rounds) == {1, 2}
