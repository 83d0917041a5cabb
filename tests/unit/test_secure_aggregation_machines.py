"""The two machines side by side: who says what when, dropouts at every stage, and what each state refuses."""

from __future__ import annotations

import os

import attrs
import numpy as np
import pytest

from scarcity.errors import ConfigError, InsufficientInputs, InvalidUpdate, LocalError, ThresholdError
from scarcity.federation.secure_aggregation import (
    SPENT,
    ClientState,
    CoordinatorState,
    EpochKeys,
    Mark,
    Outgoing,
    Reason,
    Refused,
    SecureAggConfig,
    SecureAggCoordinator,
    run_secure_aggregation,
)
from scarcity.federation.secure_aggregation.messages import (
    Advertise,
    Boxes,
    Confirm,
    Keys,
    Macs,
    Masked,
    Reveal,
    Shares,
    Survivors,
    Withdrawn,
)
from tests.secure_aggregation_world import (
    SCOPE,
    World,
    dropping,
    hash_of,
    key_of,
    messages_of,
    plain_sum,
    play,
    signed,
)

STAGES = {"advertise": Advertise, "shares": Shares, "masked": Masked, "confirm": Confirm, "reveal": Reveal}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_sum_of_n_inputs_is_their_plain_sum(n: int, bits: int) -> None:
    world = World(n, bits=bits, released=True)
    coordinator, clients, inputs = world.coordinator(), world.clients(), world.inputs()
    play(coordinator, clients, inputs)
    assert coordinator.state is CoordinatorState.DONE
    assert coordinator.result is not None
    assert coordinator.result.survivors == world.names
    assert coordinator.result.culprits == ()
    assert np.array_equal(coordinator.result.vector, plain_sum(inputs, world.names))
    assert all(client.state is ClientState.REVEALED for client in clients.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropout_at_any_stage_leaves_the_plain_sum_of_the_survivors(stage: str) -> None:
    world = World(7)
    coordinator, inputs = world.coordinator(), world.inputs()
    gone = ("c00", "c04")
    play(coordinator, world.clients(), inputs, up=dropping({STAGES[stage]: gone}))
    assert coordinator.result is not None
    counted = stage in ("confirm", "reveal")
    assert set(coordinator.result.survivors) == set(world.names) - (set() if counted else set(gone))
    assert np.array_equal(coordinator.result.vector, plain_sum(inputs, coordinator.result.survivors))


def test_dropouts_at_every_stage_together_leave_the_plain_sum_of_the_survivors() -> None:
    world = World(16)  # t = 11
    coordinator, inputs = world.coordinator(), world.inputs()
    drop = {kind: [f"c{i:02}"] for i, kind in enumerate(STAGES.values())}
    play(coordinator, world.clients(), inputs, up=dropping(drop))
    assert coordinator.result is not None
    assert len(coordinator.result.survivors) == 13
    assert np.array_equal(coordinator.result.vector, plain_sum(inputs, coordinator.result.survivors))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_up_to_three_participants_tolerate_no_loss(n: int, stage: str) -> None:
    world = World(n, released=True)
    coordinator = world.coordinator()
    play(coordinator, world.clients(), world.inputs(), up=dropping({STAGES[stage]: ["c00"]}))
    assert coordinator.result is None
    assert coordinator.failed is not None
    assert coordinator.failed.reason is Reason.TOO_FEW


@pytest.mark.parametrize(("stage", "kind"), STAGES.items())
def test_below_the_needed_number_a_stage_fails_and_names_figures(stage: str, kind: type) -> None:
    world = World(5)  # t = 4
    coordinator = world.coordinator()
    play(coordinator, world.clients(), world.inputs(), up=dropping({kind: ["c01", "c02"]}))
    assert coordinator.failed == Refused(Reason.TOO_FEW, detail=f"{stage}: 3 answered, 4 needed")
    assert coordinator.result is None


def test_a_stage_waits_for_those_who_have_not_answered_and_names_them() -> None:
    world = World(4)
    coordinator = world.coordinator()
    play(coordinator, world.clients(), world.inputs(), stop=CoordinatorState.MASKED)
    assert coordinator.waiting_for == world.names
    assert (coordinator.answered, coordinator.needed) == (0, 3)


def test_a_member_that_withdraws_is_not_waited_for() -> None:
    world = World(4)
    coordinator, clients = world.coordinator(), world.clients()
    clients["c02"] = world.client("c02", policy=world.policy(min_survivors=4))
    outputs = []
    for to in coordinator.open():
        for message in messages_of(clients[to.recipient].begin(to.message)):
            outputs += coordinator.receive(to.recipient, message)
    assert coordinator.state is CoordinatorState.SHARES
    assert coordinator.waiting_for == ("c00", "c01", "c03")
    assert Refused(Reason.WITHDRAWN, "c02", "WEAK_CONFIG") in outputs


def test_the_mark_comes_before_what_depends_on_it() -> None:
    world = World(3)
    log = play(world.coordinator(), world.clients(), world.inputs())
    mine = [output for who, output in log.outputs if who == "c00"]
    kinds = [type(output.message) if isinstance(output, Outgoing) else output for output in mine]
    opened, spent = Mark(SCOPE, 1, 1, 0), Mark(SCOPE, 1, 1, SPENT)
    assert kinds == [opened, Advertise, Shares, spent, Masked, Confirm, Reveal]


def test_released_inputs_are_never_spent() -> None:
    world = World(3, released=True)
    log = play(world.coordinator(), world.clients(), world.inputs())
    assert [output for _, output in log.outputs if isinstance(output, Mark)] == [Mark(SCOPE, 1, 1, 0)] * 3


@pytest.mark.parametrize("late", [Keys, Boxes])
def test_the_input_may_come_while_the_sum_goes_on(late: type) -> None:
    world = World(3)
    coordinator, clients, inputs = world.coordinator(), world.clients(), world.inputs()

    def down(name: str, message: object) -> list[object]:
        if name == "c01" and type(message) is late:
            assert clients[name].provide(inputs[name]) == []
        return [message]

    play(coordinator, clients, {name: inputs[name] for name in ("c00", "c02")}, down=down)
    assert coordinator.result is not None
    assert np.array_equal(coordinator.result.vector, plain_sum(inputs, world.names))


def test_an_input_that_comes_after_the_boxes_is_masked_at_once() -> None:
    world = World(3)
    coordinator, clients = world.coordinator(), world.clients()
    log = play(coordinator, clients, {}, stop=CoordinatorState.MASKED)
    assert clients["c01"].receive(log.got(Boxes, "c01")) == []
    assert clients["c01"].state is ClientState.READY
    assert [type(message) for message in messages_of(clients["c01"].provide(world.inputs()["c01"]))] == [Masked]
    assert clients["c01"].state is ClientState.MASKED


def test_the_live_config_is_there_for_the_caller_to_size_its_noise() -> None:
    world = World(5)
    client = world.client("c00")
    assert (client.participants, client.min_survivors, client.ctx) == ((), 0, b"")
    client.begin(signed(world.config()))
    assert (client.participants, client.min_survivors) == (world.names, 4)
    assert client.ctx == world.config().ctx


def test_an_input_is_not_kept_and_not_changed() -> None:
    world = World(3)
    inputs = world.inputs()
    before = {name: vector.copy() for name, vector in inputs.items()}
    play(world.coordinator(), world.clients(), inputs)
    assert all(np.array_equal(inputs[name], before[name]) for name in inputs)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(3, dtype=np.int32),
        np.zeros(3),
        np.array([0.0, np.nan, 1.0]),
        np.array([0.0, np.inf, 1.0]),
        np.zeros(4, dtype=np.int64),
        np.zeros((1, 3), dtype=np.int64),
        np.array([0, 101, 0]),
        np.array([0, -101, 0]),
        [0, 0, 0],
    ],
    ids=["int32", "float", "nan", "inf", "long", "two-dimensional", "too large", "too small", "list"],
)
def test_a_wrong_input_is_refused_and_the_sum_goes_on(vector: np.ndarray) -> None:
    world = World(3)
    client = world.client("c00")
    client.begin(signed(world.config()))
    with pytest.raises(InvalidUpdate):
        client.provide(vector)
    assert client.state is ClientState.ADVERTISED
    assert client.provide(world.inputs()["c00"]) == []


def test_a_second_input_is_the_callers_mistake() -> None:
    world = World(3)
    client = world.client("c00")
    assert client.provide(world.inputs()["c00"])[0].reason is Reason.WRONG_STATE
    client.begin(signed(world.config()))
    client.provide(world.inputs()["c00"])
    with pytest.raises(LocalError, match="already"):
        client.provide(world.inputs()["c00"])


@pytest.mark.parametrize("kind", [Keys, Boxes, Survivors, Macs])
def test_a_message_of_another_state_is_refused_by_name_and_changes_nothing(kind: type) -> None:
    world = World(3)
    log = play(world.coordinator(), world.clients(), world.inputs())
    client = world.client("c00")
    client.begin(signed(world.config()))
    if kind is Keys:
        client.receive(log.got(Keys, "c00"))
        assert client.receive(log.got(Keys, "c00"))[0].reason is Reason.DUPLICATE
        assert client.state is ClientState.SHARED
        return
    refused = client.receive(log.got(kind, "c00"))
    assert refused == [Refused(Reason.WRONG_STATE, detail=f"{kind.__name__} in state ADVERTISED")]
    assert client.state is ClientState.ADVERTISED


@pytest.mark.parametrize("end", ["revealed", "aborted", "idle"])
def test_terminal_states_refuse_everything(end: str) -> None:
    world = World(3)
    clients = world.clients()
    log = play(world.coordinator(), clients, world.inputs())
    client = clients["c00"]
    if end == "aborted":
        client = world.client("c00")
        client.begin(signed(world.config()))
        client.abort()
    elif end == "idle":
        client = world.client("c00")
    for kind in (Keys, Boxes, Survivors, Macs):
        assert client.receive(log.got(kind, "c00"))[0].reason is Reason.TERMINAL
    assert client.provide(world.inputs()["c00"])[0].reason is Reason.WRONG_STATE


def test_the_coordinator_refuses_what_is_late_doubled_or_from_another() -> None:
    world = World(4)
    coordinator, clients = world.coordinator(), world.clients()
    configs = {to.recipient: to.message for to in coordinator.open()}
    first, second = (messages_of(clients[name].begin(configs[name]))[0] for name in ("c00", "c01"))
    assert coordinator.receive("c00", second)[0].reason is Reason.WRONG_SENDER
    assert coordinator.receive("stranger", first)[0].reason is Reason.WRONG_SENDER
    assert coordinator.receive("c00", first) == []
    assert coordinator.receive("c00", first)[0].reason is Reason.DUPLICATE
    other = attrs.evolve(second, ctx=hash_of("another sum"))
    assert coordinator.receive("c01", other)[0].reason is Reason.WRONG_CONTEXT
    masked = Masked(first.ctx, 0, 64, 3, np.zeros(24, dtype=np.uint8), bytes(64))
    assert coordinator.receive("c00", masked)[0].reason is Reason.WRONG_STATE


def test_a_coordinator_before_and_after_its_sum_refuses_everything() -> None:
    world = World(3)
    coordinator = world.coordinator()
    message = Withdrawn(world.config().ctx, 0, "")
    assert coordinator.receive("c00", message)[0].reason is Reason.TERMINAL
    assert coordinator.close_stage() == []
    play(coordinator, world.clients(), world.inputs())
    assert coordinator.receive("c00", message)[0].reason is Reason.TERMINAL
    assert coordinator.close_stage() == []
    assert coordinator.open() == []


def test_a_coordinator_refuses_a_config_that_it_could_not_run() -> None:
    world = World(4)
    with pytest.raises(ConfigError, match="public key"):
        SecureAggCoordinator(world.config(), key_of("basket/b"), world.roster)
    with pytest.raises(ConfigError, match="roster"):
        world.coordinator(world.config(participants=("c00", "c01", "nobody")))
    with pytest.raises(ConfigError, match="threshold 2"):
        world.coordinator(world.config(threshold=2))


def test_a_new_epoch_ends_the_live_sum_and_its_keys() -> None:
    world = World(3)
    client = world.client("c00", policies={SCOPE: world.policy()})
    (first,) = messages_of(client.begin(signed(world.config())))
    client.enter_epoch(world.roster, hash_of("roster 2"), 2)
    assert client.state is ClientState.ABORTED
    assert client.begin(signed(world.config(round_id=2)))[0].reason is Reason.WRONG_FEDERATION
    (second,) = messages_of(client.begin(signed(world.config(epoch=2, round_id=2, roster_root=hash_of("roster 2")))))
    assert first.epoch_key != second.epoch_key
    with pytest.raises(ConfigError, match="not newer"):
        client.enter_epoch(world.roster, hash_of("roster 2"), 2)


def test_a_key_that_is_not_on_the_roster_is_refused_at_once() -> None:
    world = World(3)
    with pytest.raises(ConfigError, match="signing key"):
        world.client("c00", signing_key=key_of("c01"))


def test_two_sums_of_an_epoch_use_one_channel_key_and_fresh_mask_keys() -> None:
    world = World(3)
    clients, keys = world.clients(), EpochKeys()
    logs = []
    for round_id in (1, 2):
        config = world.config(round_id=round_id)
        coordinator = SecureAggCoordinator(config, key_of("basket/a"), world.roster, epoch_keys=keys)
        logs.append(play(coordinator, clients, world.inputs()))
        assert coordinator.result is not None
    first, second = (log.sent(Advertise, "c00")[0] for log in logs)
    assert first.epoch_key == second.epoch_key
    assert first.mask_key != second.mask_key
    assert first.commitment != second.commitment


def test_secrets_print_as_lengths() -> None:
    world = World(3)
    client = world.client("c00")
    client.begin(signed(world.config()))
    session = client._session
    assert session is not None
    assert repr(session._mask_secret) == "<MaskKey: 32 secret bytes>"


def test_wiping_overwrites_the_secrets_of_a_sum() -> None:
    world = World(3)
    clients = world.clients()
    play(world.coordinator(), clients, {}, stop=CoordinatorState.MASKED)
    session = clients["c00"]._session
    assert session is not None
    clients["c00"].provide(world.inputs()["c00"])
    words = session._input
    clients["c00"].abort()
    assert words is not None
    assert not words.any()
    assert session._mask_secret.value == session._self_seed.value == bytes(32)


# The runner.


def test_the_runner_gives_the_sum_over_those_whose_inputs_arrived() -> None:
    rng = np.random.default_rng(5)
    inputs = {f"c{i}": rng.normal(size=40) for i in range(12)}
    drop = {"masked": {"c2"}, "confirm": {"c5"}, "reveal": ["c7"]}
    result = run_secure_aggregation(inputs, SecureAggConfig(40, 8.0), drop=drop, entropy=os.urandom)
    assert result.survivors == tuple(sorted(set(inputs) - {"c2"}))
    assert np.allclose(result.sum, sum(inputs[name] for name in result.survivors), rtol=0, atol=12 * 2.0**-36)
    assert result.culprits == ()
    assert min(result.bytes_up, result.bytes_down) > 0


def test_the_runner_clips_each_coordinate() -> None:
    inputs = {name: np.array([5.0, -5.0, 0.5]) for name in "abcd"}
    result = run_secure_aggregation(inputs, SecureAggConfig(3, 1.0), entropy=os.urandom)
    assert result.sum.tolist() == [4.0, -4.0, 2.0]


def test_the_runner_below_the_threshold_raises_and_says_how_many() -> None:
    inputs = {name: np.ones(2) for name in "abcde"}
    with pytest.raises(ThresholdError, match="masked: 3 answered, 4 needed"):
        run_secure_aggregation(inputs, SecureAggConfig(2, 1.0), drop={"masked": "ab"}, entropy=os.urandom)


@pytest.mark.parametrize("bad", [[np.nan, 0], [np.inf, 0], [0, 0, 0], ["a", "b"], [1j, 0]])
def test_the_runner_refuses_bad_inputs_before_anything_is_sent(bad: list[object]) -> None:
    def no_entropy(_size: int) -> bytes:
        raise AssertionError("entropy was drawn")

    with pytest.raises(InvalidUpdate):
        run_secure_aggregation({"a": np.zeros(2), "b": bad}, SecureAggConfig(2, 1.0), entropy=no_entropy)


def test_the_runner_refuses_unknown_stages_ids_and_no_input() -> None:
    config = SecureAggConfig(1, 1.0)
    with pytest.raises(ConfigError, match="unknown stage 'mask'"):
        run_secure_aggregation({"a": [0.0]}, config, drop={"mask": ["a"]}, entropy=os.urandom)
    with pytest.raises(ConfigError, match="'b' has no input"):
        run_secure_aggregation({"a": [0.0]}, config, drop={"masked": ["b"]}, entropy=os.urandom)
    with pytest.raises(InsufficientInputs):
        run_secure_aggregation({}, config, entropy=os.urandom)


@pytest.mark.parametrize("end", ["revealed", "another config", "a new epoch", "a bad message"])
def test_however_a_sum_ends_its_secrets_are_overwritten(end: str) -> None:
    world = World(4)
    clients = world.clients()
    log = play(world.coordinator(), clients, world.inputs(), stop=CoordinatorState.REVEAL)
    client, session = clients["c00"], clients["c00"]._session
    assert session is not None
    shares = session._peer_shares
    assert shares is not None
    assert shares.any()
    macs = log.got(Macs, "c00")
    if end == "revealed":
        (reveal,) = messages_of(client.receive(macs))
        assert reveal.slots.any()
    elif end == "another config":
        client.begin(signed(world.config(round_id=2)))
    elif end == "a new epoch":
        client.enter_epoch(world.roster, hash_of("roster"), 2)
    else:
        client.receive(attrs.evolve(macs, macs=macs.macs ^ 1))
    assert not shares.any()
    assert session._mask_secret.value == session._self_seed.value == bytes(32)
    assert not any(session._own_share.value)
