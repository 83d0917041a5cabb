"""Invariants of whole sums: exact or absent, whatever is lost, doubled, reordered or changed on the way."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.errors import CodecError
from scarcity.federation.secure_aggregation import (
    CoordinatorState,
    Mark,
    Reason,
    decode,
    encode,
    threshold_for,
)
from scarcity.federation.secure_aggregation.messages import (
    Advertise,
    Confirm,
    Masked,
    Reveal,
    Shares,
    Withdrawn,
)
from tests.secure_aggregation_world import World, dropping, entropy, hash_of, plain_sum, play, signed

KINDS = (Advertise, Shares, Masked, Confirm, Reveal)


@st.composite
def sums(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 7))
    bits = draw(st.sampled_from([32, 64]))
    d = draw(st.integers(1, 4))
    t = draw(st.integers(threshold_for(n), n))
    m = draw(st.integers(t, n))
    world = World(n, d=d, bits=bits, released=True)
    top = 100
    inputs = {name: np.array(draw(st.lists(st.integers(-top, top), min_size=d, max_size=d))) for name in world.names}
    drop = {kind: draw(st.sets(st.sampled_from(world.names), max_size=2)) for kind in KINDS}
    drop = drop if draw(st.booleans()) else {}
    config = world.config(threshold=t, min_survivors=m)
    return {"world": world, "config": config, "inputs": inputs, "drop": drop}


@given(sums(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_sum_is_the_survivors_plain_sum_or_there_is_none(case: dict[str, Any], seed: int) -> None:
    """Invariants 1, 4 and 8: any drops, any order of arrival, every message doubled."""
    world, inputs, drop = case["world"], case["inputs"], case["drop"]
    results = []
    for order in (None, np.random.default_rng(seed)):
        coordinator = world.coordinator(case["config"])
        lose = dropping(drop)
        log = play(
            coordinator,
            world.clients(),
            inputs,
            up=lambda name, message, lose=lose: lose(name, message) * 2,
            down=lambda name, message: [message, message],
            pick=(lambda size: 0) if order is None else (lambda size, order=order: int(order.integers(size))),
        )
        result = coordinator.result
        assert (result is None) == (coordinator.failed is not None)
        if result is not None:
            assert np.array_equal(result.vector, plain_sum(inputs, result.survivors))
            assert len(result.survivors) >= case["config"].min_survivors
            assert result.culprits == ()
        results.append(result)
        for kind in (Masked, Reveal):
            sent = [output.message for _, output in log.outputs if hasattr(output, "message")]
            said = [message.position for message in sent if isinstance(message, kind)]
            assert len(said) == len(set(said))
    assert results[0] == results[1]


@given(sums())
@settings(max_examples=15, deadline=None)
def test_every_accepted_message_encodes_to_the_bytes_that_came(case: dict[str, Any]) -> None:
    world = case["world"]
    log = play(world.coordinator(case["config"]), world.clients(), case["inputs"])
    for _, message in log.up + log.down:
        assert encode(decode(encode(message))) == encode(message)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_flipped_bit_anywhere_is_refused_or_makes_a_dropout_never_a_wrong_sum(data: st.DataObject) -> None:
    world = World(4)
    kind = data.draw(st.sampled_from([*KINDS, Withdrawn]))
    victim = data.draw(st.sampled_from(world.names))
    where = data.draw(st.floats(0, 1, exclude_max=True))
    bit = data.draw(st.integers(0, 7))

    def up(name: str, message: Any) -> list[Any]:
        if name != victim or not isinstance(message, kind):
            return [message]
        raw = bytearray(encode(message))
        raw[int(where * len(raw))] ^= 1 << bit
        try:
            return [decode(bytes(raw))]
        except CodecError:
            return []

    coordinator, inputs = world.coordinator(), world.inputs()
    play(coordinator, world.clients(), inputs, up=up)
    if coordinator.result is not None:
        assert np.array_equal(coordinator.result.vector, plain_sum(inputs, coordinator.result.survivors))
    else:
        assert coordinator.failed is not None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_on_the_way_down_is_refused_or_makes_a_dropout(data: st.DataObject) -> None:
    world = World(4)
    at = data.draw(st.integers(0, 4))
    where = data.draw(st.floats(0, 1, exclude_max=True))
    seen = 0

    def down(name: str, message: Any) -> list[Any]:
        nonlocal seen
        if name != "c01":
            return [message]
        seen += 1
        if seen - 1 != at:
            return [message]
        raw = bytearray(encode(message))
        raw[int(where * len(raw))] ^= 1
        try:
            return [decode(bytes(raw))]
        except CodecError:
            return []

    coordinator, inputs = world.coordinator(), world.inputs()
    play(coordinator, world.clients(), inputs, down=down)
    if coordinator.result is not None:
        assert np.array_equal(coordinator.result.vector, plain_sum(inputs, coordinator.result.survivors))


def test_a_masked_input_of_fixed_value_is_uniform() -> None:
    """Invariant 5. Chi-square of 256 byte values over 40,960 bytes; 255 +- 6 sigma of 22.6, fixed seed."""
    seen = np.zeros(256, dtype=int)
    for run in range(4):
        world = World(2, d=640, released=True)
        clients = {name: world.client(name, entropy=entropy(f"{name}/{run}")) for name in world.names}
        inputs = {name: np.full(640, 42) for name in world.names}
        log = play(world.coordinator(), clients, inputs)
        for message in log.sent(Masked):
            seen += np.bincount(message.words, minlength=256)
    expected = seen.sum() / 256
    assert ((seen - expected) ** 2 / expected).sum() < 255 + 6 * 22.6


@pytest.mark.parametrize("change", ["model_hash", "threshold", "roster_root"])
def test_members_that_were_shown_different_configs_never_complete_a_sum(change: str) -> None:
    """Invariant 9: the coordinator shows c00 another config than the rest, which c00 accepts."""
    world = World(4)
    other = {"model_hash": hash_of("other"), "threshold": 4, "roster_root": hash_of("other")}[change]
    config = world.config(**{change: other}, min_survivors=4)
    clients = world.clients()
    if change == "model_hash":
        clients["c00"] = world.client("c00", policy=world.policy(model_hash=other))
    elif change == "roster_root":
        clients["c00"] = world.client("c00", roster_root=other)
    swapped = signed(config)
    coordinator = world.coordinator(world.config(min_survivors=4))
    retagged = coordinator._config.ctx

    def down(name: str, message: Any) -> list[Any]:
        if name != "c00":
            return [message]
        if type(message).__name__ == "SumConfigMessage":
            return [swapped]
        return [_with_ctx(message, config.ctx)]

    log = play(
        coordinator,
        clients,
        world.inputs(),
        down=down,
        up=lambda name, message: [_with_ctx(message, retagged)],
    )
    assert coordinator.result is None
    assert log.sent(Masked, "c00") == []


def _with_ctx(message: Any, ctx: bytes) -> Any:
    return attrs.evolve(message, ctx=ctx)


@given(st.integers(0, 2), st.lists(st.sampled_from(["finish", "abort"]), min_size=1, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_an_input_is_masked_once_a_round_also_after_a_restart(first: int, ends: list[str], restart: bool) -> None:
    """Invariant 3: attempts of one round, some cut off before Masked, with a restart from the durable marks."""
    world = World(4)
    clients = world.clients()
    marks: dict[str, list[Mark]] = {name: [] for name in world.names}
    masked = dict.fromkeys(world.names, 0)
    for attempt, end in enumerate(ends, start=first):
        if restart and attempt == first + 1:
            clients = {name: world.client(name, marks=marks[name]) for name in world.names}
        coordinator = world.coordinator(world.config(attempt=attempt))
        stop = CoordinatorState.MASKED if end == "abort" else None
        log = play(coordinator, clients, {} if end == "abort" else world.inputs(), stop=stop)
        for name, output in log.outputs:
            if isinstance(output, Mark):
                marks[name].append(output)
        for message in log.sent(Masked):
            masked[world.names[message.position]] += 1
    assert max(masked.values()) <= 1


def test_fewer_than_t_reveals_give_an_error_and_no_partial_sum() -> None:
    world = World(5)
    coordinator = world.coordinator()
    play(coordinator, world.clients(), world.inputs(), up=dropping({Reveal: ["c00", "c01"]}))
    assert coordinator.result is None
    assert coordinator.failed is not None
    assert coordinator.failed.reason is Reason.TOO_FEW
    assert coordinator._total.size == 0
