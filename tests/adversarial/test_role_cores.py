"""Random packets from random members in random states: no core ever raises, and a refusal changes nothing."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scarcity.federation.codec import KINDS, encode_packet
from scarcity.federation.effects import Emit, Persist, Reject, Send, SetTimer
from scarcity.federation.packets import (
    Aborted,
    Absent,
    Ack,
    BasketReport,
    Body,
    Declined,
    GossipPull,
    GossipPush,
    Model,
    ModelRequest,
    NoiseTerms,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    SecureSum,
    Unprotected,
)
from scarcity.federation.roster import COORDINATOR
from tests.federation_world import DIMENSION, World, said

VECTOR = np.full(DIMENSION, 0.3)
EFFECTS = (Emit, Persist, Reject, Send, SetTimer)
MODES = ("local", "distributed", "none")
# How far a world has come before the packets: each stops some kind of message, so that it stands there.
STANDS = ("idle", "open", "one in", "ready", "summing", "reported", "layer 2", "done", "second round")


def world_at(mode: str, stand: str) -> World:
    world = World(layer1=mode)
    if stand == "idle":
        return world
    names = [type(None).__name__]
    if stand == "summing":
        names = ["Masked"]
    elif stand == "reported":
        names = ["BasketReport"]
    elif stand == "layer 2":
        names = ["Survivors"]
    world.net.lose = lambda sender, to, packet: (
        said(packet).__name__ in names and (stand != "layer 2" or COORDINATOR in (sender, to))
    )
    world.open()
    if stand == "open":
        return world
    names_in = {"one in": ["a1"], "ready": ["a1", "a2", "b1"]}.get(stand, list(world.domains))
    for name in names_in:
        world.submit(name, VECTOR)
    if stand == "second round":
        world.open()
        world.submit("b1", VECTOR)
    world.net.lose = lambda *_: False
    return world


@functools.cache
def genuine(mode: str) -> tuple[Packet, ...]:
    """Every packet of two honest rounds, to be replayed, bent and moved."""
    world = World(layer1=mode)
    for _ in range(2):
        world.open()
        for name in world.domains:
            world.submit(name, VECTOR)
            world.net.advance(1.0)
    seen = {encode_packet(packet): packet for _, _, packet in world.net.transcript}
    return tuple(seen.values())


MEMBERS = (COORDINATOR, "basket/a", "basket/b", "a1", "a2", "a3", "b1", "b2", "b3")
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
texts = st.text(max_size=12)
hashes = st.sampled_from([b"", bytes(32), b"x" * 32])
lengths = st.sampled_from([0, 1, DIMENSION, DIMENSION, DIMENSION + 1])
int_vectors = lengths.flatmap(lambda n: st.lists(numbers, min_size=n, max_size=n)).map(
    lambda v: np.array(v, dtype=np.int64)
)
float_vectors = lengths.flatmap(lambda n: st.lists(st.floats(), min_size=n, max_size=n)).map(
    lambda v: np.array(v, dtype=np.float64)
)
rounds = st.integers(-1, 4)
weights = st.sampled_from([-1, 0, 1, 1, 2, 10**6, 2**63 - 1])


def bodies(mode: str) -> st.SearchStrategy[Body]:
    old = genuine(mode)
    config = next(p.body for p in old if isinstance(p.body, RoundConfig))
    assert isinstance(config, RoundConfig)
    noises = st.builds(NoiseTerms, st.integers(-1, 2**40), floats, floats, floats)
    configs = st.builds(
        lambda noise, schema, dimension, root, model_hash: attrs.evolve(
            config, noise=noise, schema_hash=schema, dimension=dimension, roster_root=root, model_hash=model_hash
        ),
        st.just(config.noise) | noises,
        hashes,
        st.sampled_from([-1, 0, DIMENSION, DIMENSION, DIMENSION + 1, 10**6, 2**62]),
        st.sampled_from([config.roster_root, bytes(32)]),
        hashes,
    )
    return st.one_of(
        st.sampled_from([p.body for p in old]),
        configs,
        st.builds(RosterNotice, st.binary(max_size=40), st.binary(max_size=64)),
        st.just(ModelRequest()),
        st.builds(Ready, weights),
        st.builds(Declined, texts),
        st.builds(Release, hashes, int_vectors, weights),
        st.builds(Unprotected, hashes, float_vectors, weights),
        st.builds(Ack, hashes),
        st.builds(SecureSum, st.binary(max_size=200)),
        st.sampled_from([p.body for p in old if isinstance(p.body, SecureSum)] or [SecureSum(b"")]),
        st.builds(BasketReport, floats, st.integers(-1, 9), floats),
        st.builds(Absent, texts, st.integers(-1, 9), st.integers(-1, 9)),
        st.builds(Aborted, texts),
        st.builds(Model, rounds, hashes, float_vectors, floats, st.integers(-1, 9), floats, hashes),
        st.builds(GossipPush, st.lists(st.binary(max_size=50), max_size=3).map(tuple)),
        st.lists(st.sampled_from([encode_packet(p) for p in old]), max_size=4).map(lambda i: GossipPush(tuple(i))),
        st.lists(st.tuples(texts, rounds, st.lists(st.sampled_from(MEMBERS), max_size=3).map(tuple)), max_size=4).map(
            lambda known: GossipPull(tuple(known))
        ),
    )


@st.composite
def deliveries(draw: Any, mode: str) -> tuple[str, str, Any]:
    """Return (link, receiver, packet or timer or close): genuine ones replayed and bent, and new ones, signed."""
    to = draw(st.sampled_from(MEMBERS))
    link = draw(st.sampled_from(MEMBERS))
    what = draw(st.sampled_from(["say", "say", "say", "say", "replay", "bend", "timer", "close"]))
    if what == "timer":
        return link, to, draw(st.sampled_from(["gossip.push", "gossip.pull", "close", "sum", "baskets", "?"]))
    if what == "close":
        return link, to, None
    if what == "say":
        author = draw(st.sampled_from([link, link, link, COORDINATOR]))
        return link, to, (author, draw(bodies(mode)), draw(st.sampled_from([0, 1, 1, 1, 2, 2, 3, -1, 2**40])))
    packet = draw(st.sampled_from(genuine(mode)))
    if what == "bend":
        header = draw(
            st.sampled_from(
                [
                    {"federation": "other"},
                    {"epoch": 2},
                    {"scope": "layer2"},
                    {"scope": "basket/b"},
                    {"round_id": 2},
                    {"sender": "a2"},
                ]
            )
        )
        packet = attrs.evolve(packet, header=attrs.evolve(packet.header, **header))
    return draw(st.sampled_from([packet.header.sender, link, "basket/a"])), to, packet


def fingerprint(core: Any) -> Any:
    """What a refusal must leave alone: state, what is waited for, spending, model."""
    held = getattr(core, "_round", None)
    inner = None
    if held is not None:
        inner = {
            name: copy.copy(value)
            for name, value in attrs.asdict(held, recurse=False).items()
            if isinstance(value, int | str | bool | tuple | dict | frozenset)
        }
    return (core.state, core.waiting(), getattr(core, "epsilon_spent", 0.0), getattr(core, "model", None), inner)


def deliver(world: World, delivery: tuple[str, str, Any]) -> None:
    link, to, what = delivery
    core = world.cores[to]
    if what is None:
        effects = core.close_stage(world.net.now) if hasattr(core, "close_stage") else []
    elif isinstance(what, str):
        effects = core.fire(what, world.net.now)
    else:
        packet = what if isinstance(what, Packet) else world.say(what[0], what[1], what[2], to=to)
        before = fingerprint(core)
        effects = core.receive(packet, link, world.net.now)
        if (
            effects
            and all(isinstance(effect, Reject) for effect in effects)
            and not isinstance(packet.body, SecureSum | GossipPush)
        ):
            assert fingerprint(core) == before, f"{to} refused a {type(packet.body).__name__} and changed"
    assert all(isinstance(effect, EFFECTS) for effect in effects)
    for effect in effects:
        if isinstance(effect, Send):
            assert effect.to in world.seats.roster
            encode_packet(effect.packet)
        if isinstance(effect, SetTimer):
            assert not math.isnan(effect.at)
    world.net.carry(to, effects)
    world.net.run()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_cores_never_raise_and_a_refusal_changes_nothing(mode: str, data: st.DataObject) -> None:
    world = world_at(mode, data.draw(st.sampled_from(STANDS)))
    for delivery in data.draw(st.lists(deliveries(mode), min_size=1, max_size=12)):
        deliver(world, delivery)
    for client in world.clients.values():
        assert 0 <= client.epsilon_spent <= 10.0


# The table, cell by cell: (who hears) x (where it stands) x (kind).


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stand", STANDS)
@pytest.mark.parametrize("who", ["a1", "basket/a", COORDINATOR])
def test_every_kind_in_every_state_from_everybody_is_answered_by_effects(who: str, stand: str, mode: str) -> None:
    world = world_at(mode, stand)
    samples = {type(p.body): p.body for p in genuine(mode)}
    samples |= {Declined: Declined("no"), Absent: Absent("no", 0, 1), Aborted: Aborted("no"), Ready: Ready(1)}
    samples |= {
        Release: Release(b"", np.zeros(DIMENSION, dtype=np.int64), 1),
        Unprotected: Unprotected(b"", np.zeros(DIMENSION), 1),
        SecureSum: SecureSum(b"??"),
        RosterNotice: RosterNotice(b"", b""),
    }
    samples.pop(Aborted)  # it ends the round: last
    for body in [*samples.values(), Aborted("no")]:
        for link in (COORDINATOR, "basket/a", "basket/b", "a1", "a2", "b1"):
            for round_id in (1, 1, 2):  # a repetition, and another round
                deliver(world, (link, who, (link, body, round_id)))


def test_the_samples_name_every_kind() -> None:
    covered = {type(p.body) for mode in MODES for p in genuine(mode)}
    covered |= {Declined, Absent, Aborted, RosterNotice}
    assert {kind for kind in KINDS.values() if kind.__name__ != "TrustedUpdate"} <= covered | {Ready}


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_of_a_whole_round_changes_no_ledger_and_no_model(mode: str) -> None:
    world = world_at(mode, "done")
    before = {name: (client.epsilon_spent, client.model) for name, client in world.clients.items()}
    for sender, to, packet in list(world.net.transcript):
        deliver(world, (sender, to, packet))
    assert {name: (client.epsilon_spent, client.model) for name, client in world.clients.items()} == before
    assert len([e for e in world.net.events if type(e).__name__ == "ModelMade"]) == 1


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_config_that_says_there_is_no_trust_mode_makes_nobody_show_a_vector(mode: str) -> None:
    world = World(layer1=mode)
    clean = World(layer1="none")
    clean.open()
    config = clean.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(config, RoundConfig)
    config = attrs.evolve(config, roster_root=world.seats.roster.root)
    for name in ("a1", "a2"):
        world.tell("basket/a", name, world.say(COORDINATOR, config, 1, to=name))
        with pytest.raises(ValueError, match="declined"):
            world.contribute(name, VECTOR)
    assert not any(isinstance(p.body, Unprotected | Release) for _, _, p in world.net.transcript)
