"""The terms of a secure sum: host and participant come to the same ones, and nothing weaker is joined."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.federation.assembly import round_settings
from scarcity.federation.effects import Persist, Reject, Send
from scarcity.federation.packets import LAYER2, RoundConfig, SecureSum
from scarcity.federation.roster import COORDINATOR
from scarcity.federation.secure_aggregation import Mark, threshold_for
from scarcity.federation.secure_aggregation.messages import Advertise, Masked, Withdrawn
from scarcity.federation.sums import (
    MARK,
    TIMER,
    SumHost,
    SumParticipant,
    basket_policy,
    layer2_policy,
    mark_entry,
    marks_of,
    min_members,
    min_survivors,
    noise_share_std,
    open_basket_sum,
    open_layer2_sum,
)
from sim.chance import reproducible_entropy
from tests.federation_world import DIMENSION, World, reasons, said

FIVE = {f"a{i}": "a" for i in range(5)}


def world_with_config(mode: str = "distributed", **settings: Any) -> tuple[World, RoundConfig]:
    world = World(FIVE, layer1=mode, **settings)
    world.open()
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(config, RoundConfig)
    return world, config


def participant_of(world: World, config: RoundConfig, name: str = "a0", **changes: Any) -> SumParticipant:
    participant = SumParticipant(world.seats.identity(name), reproducible_entropy(2))
    policy = basket_policy(config, world.seats.roster, "a")
    participant.pin("basket/a", attrs.evolve(policy, **changes))
    return participant


@pytest.mark.parametrize(("colluders", "members"), [(0, 3), (1, 4), (2, 7)])
def test_a_sum_needs_three_members_and_three_times_the_colluders(colluders: int, members: int) -> None:
    settings = round_settings({"layer1": "distributed", "max_colluders": colluders})
    assert min_members(settings) == members


@pytest.mark.parametrize("quorum", [0.1, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("n", [3, 4, 7, 100])
def test_the_survivors_that_are_demanded_are_a_quorum_and_a_threshold(n: int, quorum: float) -> None:
    settings = round_settings({"layer1": "distributed", "quorum": quorum})
    assert min_survivors(settings, n) == max(threshold_for(n), math.ceil(quorum * n - 1e-9))


@pytest.mark.parametrize("colluders", [0, 1])
def test_shares_of_noise_add_up_to_the_whole_without_the_colluders(colluders: int) -> None:
    _, config = world_with_config(max_colluders=colluders)
    share = noise_share_std(config, 4)
    assert (4 - colluders) * share**2 == pytest.approx(config.noise.sigma**2)


def test_marks_come_back_from_the_journal() -> None:
    marks = [Mark("basket/a", 1, 2, 3), Mark(LAYER2, 1, 2, 2**32 - 1)]
    entries = [mark_entry(mark) for mark in marks]
    assert {entry.kind for entry in entries} == {MARK}
    assert marks_of(entry.payload for entry in entries) == marks


def test_the_hosts_config_is_what_the_participants_have_pinned() -> None:
    world, config = world_with_config()
    host = open_basket_sum(world.seats.identity("basket/a"), config, 1, tuple(sorted(FIVE)))
    effects = host.open(0.0)
    assert sorted(e.to for e in effects if isinstance(e, Send)) == sorted(FIVE)
    for effect in effects:
        if isinstance(effect, Send):
            answers, wants_input = participant_of(world, config, effect.to).receive(effect.packet, "basket/a")
            assert wants_input
            assert [type(a) for a in answers] == [Persist, Send]  # the mark is durable before one says a word
            assert isinstance(answers[1], Send)
            assert said(answers[1].packet) is Advertise


@pytest.mark.parametrize(
    "change",
    [
        lambda terms: terms | {"model_hash": bytes(32)},
        lambda terms: terms | {"dimension": DIMENSION + 1},
        lambda terms: terms | {"clip": terms["clip"] * 2},
        lambda terms: terms | {"scale": terms["scale"] * 2},
        lambda terms: terms | {"dp": attrs.evolve(terms["dp"], mu=terms["dp"].mu * 2)},
        lambda terms: terms | {"dp": attrs.evolve(terms["dp"], sigma_low=terms["dp"].sigma_low / 2)},
        lambda terms: terms | {"dp": type(terms["dp"])()},
    ],
    ids=["history", "dimension", "clip", "lattice", "mu", "sigma", "no noise"],
)
def test_a_participant_joins_no_sum_under_weaker_terms_than_its_config_gives(change: Any) -> None:
    from scarcity.federation.sums import _basket_terms

    world, config = world_with_config()
    names = tuple(sorted(FIVE))
    host = SumHost(world.seats.identity("basket/a"), config, "basket/a", 1, 0, names, 4, change(_basket_terms(config)))
    opening = next(e.packet for e in host.open(0.0) if isinstance(e, Send) and e.to == "a0")
    effects, wants_input = participant_of(world, config).receive(opening, "basket/a")
    assert not wants_input
    assert [said(e.packet) for e in effects if isinstance(e, Send)] in ([], [Withdrawn])
    assert reasons(effects)


@pytest.mark.parametrize("names", [("a0",), ("a0", "a1"), ("a0", "a1", "basket/a")], ids=len)
def test_a_participant_joins_no_sum_of_too_few_or_of_strangers(names: tuple[str, ...]) -> None:
    from scarcity.federation.sums import _basket_terms

    world, config = world_with_config()
    terms = _basket_terms(config)
    host = SumHost(world.seats.identity("basket/a"), config, "basket/a", 1, 0, names, len(names), terms)
    opening = next(e.packet for e in host.open(0.0) if isinstance(e, Send) and e.to == "a0")
    effects, wants_input = participant_of(world, config).receive(opening, "basket/a")
    assert not wants_input
    assert reasons(effects)


def test_the_noise_is_sized_for_the_survivors_that_the_live_sum_demands() -> None:
    # A host that demands more survivors makes shares smaller, but then it can open nothing with fewer.
    from scarcity.federation.sums import _basket_terms

    world, config = world_with_config()
    names = tuple(sorted(FIVE))
    host = SumHost(world.seats.identity("basket/a"), config, "basket/a", 1, 0, names, 5, _basket_terms(config))
    opening = next(e.packet for e in host.open(0.0) if isinstance(e, Send) and e.to == "a0")
    participant = participant_of(world, config)
    participant.receive(opening, "basket/a")
    assert participant.min_survivors == 5


def test_layer_2_takes_one_basket_whose_aggregate_is_released() -> None:
    world, config = world_with_config("local")
    host = open_layer2_sum(world.seats.identity(COORDINATOR), config, 1, 0, ("basket/a",))
    participant = SumParticipant(world.seats.identity("basket/a"), reproducible_entropy(3))
    participant.pin(LAYER2, layer2_policy(config, world.seats.roster))
    queue = [e.packet for e in host.open(0.0) if isinstance(e, Send)]
    vector = np.arange(host._machine._config.dimension, dtype=np.int64)
    while queue:
        packet = queue.pop(0)
        effects, wants_input = participant.receive(packet, COORDINATOR)
        if wants_input:
            effects = [*effects, *participant.provide(vector, packet, COORDINATOR)]
        for effect in effects:
            if isinstance(effect, Send):
                queue += [e.packet for e in host.receive(effect.packet, "basket/a", 1.0) if isinstance(e, Send)]
    assert host.result is not None
    assert host.result.vector.tolist() == vector.tolist()
    assert host.waiting("me") == ()


def test_garbage_is_refused_on_both_sides() -> None:
    world, config = world_with_config()
    host = open_basket_sum(world.seats.identity("basket/a"), config, 1, tuple(sorted(FIVE)))
    host.open(0.0)
    up = world.say("a0", SecureSum(b"\xff" * 30), 1, to="basket/a")
    assert [type(e) for e in host.receive(up, "a0", 0.0)] == [Reject]
    down = world.say("basket/a", SecureSum(b"\xff" * 30), 1, to="a0")
    effects, wants_input = participant_of(world, config).receive(down, "basket/a")
    assert [type(e) for e in effects] == [Reject]
    assert not wants_input


def test_each_side_refuses_the_other_sides_messages() -> None:
    world, config = world_with_config()
    host = open_basket_sum(world.seats.identity("basket/a"), config, 1, tuple(sorted(FIVE)))
    opening = next(e.packet for e in host.open(0.0) if isinstance(e, Send) and e.to == "a0")
    assert [type(e) for e in host.receive(opening, "a0", 0.0)] == [Reject]
    participant = participant_of(world, config)
    answers, _ = participant.receive(opening, "basket/a")
    own = next(e.packet for e in answers if isinstance(e, Send))
    effects, wants_input = participant.receive(own, "basket/a")
    assert all(isinstance(e, Reject) for e in effects)
    assert not wants_input


def test_the_host_names_who_is_silent_and_at_which_stage() -> None:
    world, _ = world_with_config(stage_s=5.0, ready_s=5.0, close_s=5.0, deadline_s=5.0)
    world.net.lose = lambda sender, _to, packet: sender == "a0" and said(packet) is Masked
    for name in FIVE:
        world.submit(name, np.zeros(DIMENSION))
    (waiting,) = world.baskets["basket/a"].waiting()
    assert waiting.missing == ("a0",)
    assert "masked" in waiting.what
    assert waiting.until == waiting.since + 5.0
    host = world.baskets["basket/a"]._round.host  # type: ignore[union-attr]
    world.net.advance(6.0)
    assert host.silent == {"a0": "masked"}
    assert TIMER == "sum"
