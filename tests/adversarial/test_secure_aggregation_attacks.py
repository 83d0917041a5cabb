"""Attacks on a secure sum, each with the refusal it must end in, by lying members and by a lying coordinator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import CodecError, InvalidUpdate
from scarcity.federation.secure_aggregation import (
    SPENT,
    ClientState,
    CoordinatorState,
    DpTerms,
    EpochKeys,
    Mark,
    Mechanism,
    Reason,
    Refused,
    SecureAggClient,
    SecureAggCoordinator,
    decode,
    encode,
)
from scarcity.federation.secure_aggregation.channel import EpochChannel, EpochPlace
from scarcity.federation.secure_aggregation.masks import Secret, public_of
from scarcity.federation.secure_aggregation.messages import (
    Advertise,
    Boxes,
    Confirm,
    Keys,
    Macs,
    Masked,
    Reveal,
    Shares,
    SumConfigMessage,
    Survivors,
)
from tests.secure_aggregation_world import (
    CENTRE,
    SCOPE,
    Log,
    World,
    dropping,
    entropy,
    hash_of,
    key_of,
    messages_of,
    plain_sum,
    play,
    signed,
    tell,
)

Change = Callable[[Any], Any]


def members(*positions: int) -> np.ndarray:
    return np.array(positions, dtype="<u4")


def to_one(who: str, kind: type, change: Change) -> Callable[[str, Any], list[Any]]:
    """Return a hook that changes the messages of one kind to or from one client."""
    return lambda name, m: [change(m)] if name == who and isinstance(m, kind) else [m]


def flip(rows: np.ndarray, row: int, at: int = 0) -> np.ndarray:
    changed = rows.copy()
    changed[row, at] ^= 1
    return changed


def run(world: World, **hooks: Any) -> tuple[SecureAggCoordinator, dict[str, SecureAggClient], Log]:
    coordinator, clients = world.coordinator(), hooks.pop("clients", None) or world.clients()
    return coordinator, clients, play(coordinator, clients, world.inputs(), **hooks)


def assert_exact(world: World, coordinator: SecureAggCoordinator, survivors: tuple[str, ...]) -> None:
    assert coordinator.result is not None
    assert coordinator.result.survivors == survivors
    assert np.array_equal(coordinator.result.vector, plain_sum(world.inputs(), survivors))


def without(world: World, *gone: str) -> tuple[str, ...]:
    return tuple(name for name in world.names if name not in gone)


# What a liar among the clients can do.


@pytest.mark.parametrize("kind", [Advertise, Shares, Masked, Confirm, Reveal])
def test_a_replayed_message_is_a_duplicate_and_counts_once(kind: type) -> None:
    world = World(4)
    coordinator, _, log = run(
        world, up=lambda name, m: [m, m] if name == "c01" and isinstance(m, kind) else [m], pick=lambda size: size - 1
    )
    assert_exact(world, coordinator, world.names)
    assert log.reasons("") in ([], ["DUPLICATE"], ["WRONG_STATE"], ["TERMINAL"])
    assert log.reasons("") != [] or kind is Reveal


def test_a_flipped_bit_in_a_box_names_the_peer_and_the_sum_goes_on() -> None:
    world = World(4)
    spoil = to_one("c01", Shares, lambda m: attrs.evolve(m, boxes=flip(m.boxes, 1)))
    coordinator, clients, log = run(world, up=spoil)
    assert log.refusals("c02")[0].reason is Reason.BAD_BOX
    assert log.refusals("c02")[0].peer == "c01"
    assert clients["c02"].state is ClientState.ABORTED
    assert_exact(world, coordinator, without(world, "c02"))


def test_a_tampered_reveal_is_named_and_the_sum_recovered_when_there_is_one_more_than_t() -> None:
    world = World(4)
    for at in (0, 1, 2):
        spoil = to_one("c01", Reveal, lambda m, at=at: attrs.evolve(m, slots=flip(m.slots, at)))
        coordinator, _, log = run(world, up=spoil)
        assert_exact(world, coordinator, world.names)
        assert coordinator.result is not None
        assert coordinator.result.culprits == ("c01",)
        assert "BAD_SHARE" in log.reasons("")


def test_a_tampered_reveal_behind_the_first_t_is_named_too() -> None:
    world = World(7)
    coordinator, _, _ = run(world, up=to_one("c06", Reveal, lambda m: attrs.evolve(m, slots=flip(m.slots, 0))))
    assert_exact(world, coordinator, world.names)
    assert coordinator.result is not None
    assert coordinator.result.culprits == ("c06",)


def test_a_tampered_share_of_a_dropouts_mask_key_is_named_and_recovered() -> None:
    world = World(7)
    drop = dropping({Masked: ["c00"]})
    spoil = to_one("c01", Reveal, lambda m: attrs.evolve(m, slots=flip(m.slots, 0)))
    coordinator, _, _ = run(world, up=lambda name, m: [s for d in drop(name, m) for s in spoil(name, d)])
    assert_exact(world, coordinator, without(world, "c00"))
    assert coordinator.result is not None
    assert coordinator.result.culprits == ("c01",)


def test_a_tampered_reveal_without_a_spare_one_ends_in_no_sum() -> None:
    coordinator, _, _ = run(World(3), up=to_one("c01", Reveal, lambda m: attrs.evolve(m, slots=flip(m.slots, 0))))
    assert coordinator.result is None
    assert coordinator.failed is not None
    assert coordinator.failed.reason is Reason.BAD_SHARE


def test_all_reveals_tampered_end_in_no_sum() -> None:
    def up(name: str, m: Any) -> list[Any]:
        return [attrs.evolve(m, slots=flip(m.slots, 0), own=m.own[::-1]) if isinstance(m, Reveal) else m]

    coordinator, _, _ = run(World(6), up=up)
    assert coordinator.result is None
    assert coordinator.failed is not None
    assert coordinator.failed.reason is Reason.BAD_SHARE


def test_a_share_that_is_no_share_names_its_holder() -> None:
    world = World(4)
    garbled = np.full((3, 34), 255, dtype=np.uint8)
    coordinator, _, _ = run(world, up=to_one("c01", Reveal, lambda m: attrs.evolve(m, slots=garbled)))
    assert_exact(world, coordinator, world.names)
    assert coordinator.result is not None
    assert coordinator.result.culprits == ("c01",)


def test_both_shares_of_one_peer_cannot_be_expressed() -> None:
    world = World(4)
    _, _, log = run(world)
    reveal = log.sent(Reveal, "c01")[0]
    twice = attrs.evolve(reveal, slots=np.vstack([reveal.slots, reveal.slots[:1]]))
    log = run(world, up=to_one("c01", Reveal, lambda _m: twice))[2]
    assert "MALFORMED" in log.reasons("")
    with pytest.raises(CodecError):
        decode(encode(reveal) + reveal.slots.tobytes())


def test_a_masked_vector_of_another_length_or_width_is_refused() -> None:
    world = World(4)
    longer = {"dimension": 4, "words": np.zeros(32, dtype=np.uint8)}
    for change in (longer, {"bits": 32, "dimension": 6}):
        coordinator, _, log = run(world, up=to_one("c01", Masked, lambda m, c=change: attrs.evolve(m, **c)))
        assert "MALFORMED" in log.reasons("")
        assert_exact(world, coordinator, without(world, "c01"))


def test_a_changed_masked_vector_does_not_carry_its_owners_signature() -> None:
    world = World(4)
    spoil = to_one("c01", Masked, lambda m: attrs.evolve(m, words=m.words ^ 1))
    coordinator, _, log = run(world, up=spoil)
    assert log.reasons("") == ["BAD_SIGNATURE"]
    assert_exact(world, coordinator, without(world, "c01"))


def test_a_masked_vector_after_the_survivors_are_fixed_is_dropped_unread() -> None:
    world = World(4)
    held: list[Any] = []

    def up(name: str, m: Any) -> list[Any]:
        late = name == "c01" and isinstance(m, Masked)
        held.extend([m] if late else [])
        return [] if late else [m]

    coordinator, clients = world.coordinator(), world.clients()
    play(coordinator, clients, world.inputs(), up=up, stop=CoordinatorState.CONFIRM)
    assert coordinator.receive("c01", held[0])[0].reason is Reason.WRONG_STATE
    assert not coordinator._answers


def test_an_advertisement_with_a_taken_unsound_or_unsigned_key_is_refused() -> None:
    world = World(4)
    _, _, log = run(world)
    taken = log.sent(Advertise, "c00")[0].mask_key
    for key in (taken, bytes(32), (2**255 - 19).to_bytes(32, "little")):
        body = log.sent(Advertise, "c01")[0]
        forged = attrs.evolve(
            body,
            mask_key=key,
            signature=key_of("c01")
            .sign(b"ssa1.adv" + body.ctx + members(1).tobytes() + key + body.commitment)
            .signature,
        )
        coordinator, _, log_2 = run(world, up=to_one("c01", Advertise, lambda _m, f=forged: f))
        assert log_2.reasons("")[0] == "BAD_KEY"
        assert_exact(world, coordinator, without(world, "c01"))
    unsigned = to_one("c01", Advertise, lambda m: attrs.evolve(m, mask_key=hash_of("other")))
    assert run(world, up=unsigned)[2].reasons("")[0] == "BAD_SIGNATURE"


def test_a_member_with_another_channel_key_in_the_same_round_is_refused_and_stops_nobody() -> None:
    world = World(4)
    keys, clients = EpochKeys(), world.clients()
    play(SecureAggCoordinator(world.config(), key_of(CENTRE), world.roster, epoch_keys=keys), clients, {})
    clients["c01"] = world.client("c01", entropy=entropy("after a restart that forgot its marks"))
    again = SecureAggCoordinator(world.config(attempt=1), key_of(CENTRE), world.roster, epoch_keys=keys)
    log = play(again, clients, world.inputs())
    assert "EPOCH_KEY_CHANGED" in log.reasons("")
    assert_exact(world, again, without(world, "c01"))


def test_a_restarted_member_brings_a_new_channel_key_to_a_later_round() -> None:
    world = World(4)
    keys, clients = EpochKeys(), world.clients()
    play(SecureAggCoordinator(world.config(), key_of(CENTRE), world.roster, epoch_keys=keys), clients, world.inputs())
    clients["c01"] = world.client("c01", entropy=entropy("after a restart"), marks=[Mark(SCOPE, 1, 1, SPENT)])
    again = SecureAggCoordinator(world.config(round_id=2), key_of(CENTRE), world.roster, epoch_keys=keys)
    play(again, clients, world.inputs())
    assert_exact(world, again, world.names)


def test_a_host_does_not_take_a_replaced_channel_key_back() -> None:
    world = World(4)
    keys, clients = EpochKeys(), world.clients()
    play(SecureAggCoordinator(world.config(), key_of(CENTRE), world.roster, epoch_keys=keys), clients, world.inputs())
    before = clients["c01"]
    clients["c01"] = world.client("c01", entropy=entropy("after a restart"))
    second = SecureAggCoordinator(world.config(round_id=2), key_of(CENTRE), world.roster, epoch_keys=keys)
    play(second, clients, world.inputs())
    clients["c01"] = before
    third = SecureAggCoordinator(world.config(round_id=3), key_of(CENTRE), world.roster, epoch_keys=keys)
    assert "EPOCH_KEY_CHANGED" in play(third, clients, world.inputs()).reasons("")
    assert_exact(world, third, without(world, "c01"))


# What a lying coordinator can do.


def test_a_second_and_different_set_is_equivocation_and_no_share_leaves() -> None:
    world = World(5)
    _, clients, log = run(world, stop=CoordinatorState.REVEAL)
    client, ctx = clients["c00"], world.config().ctx
    assert client.state is ClientState.CONFIRMED
    refused, _ = client.receive(Survivors(ctx, members(0, 1, 2, 3)))
    assert refused.reason is Reason.EQUIVOCATION
    assert client.state is ClientState.ABORTED
    assert client.receive(log.got(Macs, "c00"))[0].reason is Reason.TERMINAL


@pytest.mark.parametrize("kind", [Keys, Boxes])
def test_u1_and_u2_are_written_once_as_well(kind: type) -> None:
    world = World(5)
    _, clients, log = run(world, stop=CoordinatorState.CONFIRM)
    first = log.got(kind, "c00")
    changes = {"members": members(0, 1, 2, 3)}
    for field in attrs.fields(kind):
        value = getattr(first, field.name)
        if field.name not in ("ctx", "members"):
            changes[field.name] = value[:-1]
    assert clients["c00"].receive(attrs.evolve(first, **changes))[0].reason is Reason.EQUIVOCATION
    assert clients["c00"].state is ClientState.ABORTED


def test_an_identical_repetition_changes_nothing() -> None:
    world = World(4)
    coordinator, _, log = run(world, down=lambda _name, m: [m, m])
    assert_exact(world, coordinator, world.names)
    assert set(log.reasons("c00")) == {"REPLAYED", "DUPLICATE", "TERMINAL"}


def test_audit_u2_of_one_victim_is_refused() -> None:
    world = World(5)
    lonely = to_one("c00", Boxes, lambda m: Boxes(m.ctx, members(0), m.boxes[:0]))
    _, clients, log = run(world, down=lonely)
    assert log.refusals("c00")[0].reason is Reason.TOO_FEW
    assert log.sent(Masked, "c00") == []
    assert clients["c00"].state is ClientState.ABORTED


def test_u1_below_the_threshold_is_refused() -> None:
    world = World(5)
    few = to_one("c00", Keys, lambda m: Keys(m.ctx, *(getattr(m, f.name)[:3] for f in attrs.fields(Keys)[1:])))
    assert run(world, down=few)[2].refusals("c00")[0].reason is Reason.TOO_FEW


def test_u3_below_min_survivors_is_refused_and_nothing_is_confirmed() -> None:
    world = World(5)
    few = to_one("c00", Survivors, lambda m: Survivors(m.ctx, members(0, 1, 2)))
    log = run(world, down=few)[2]
    assert log.refusals("c00")[0].reason is Reason.TOO_FEW
    assert log.sent(Confirm, "c00") == []


@pytest.mark.parametrize(
    ("kind", "who"),
    [
        (Keys, (1, 2, 3, 4)),
        (Boxes, (1, 2, 3, 4)),
        (Survivors, (1, 2, 3, 4)),
        (Boxes, (0, 1, 2, 3, 9)),
        (Survivors, (0, 1, 2, 3, 9)),
    ],
)
def test_a_set_without_oneself_or_with_a_stranger_is_refused(kind: type, who: tuple[int, ...]) -> None:
    world = World(5)

    def change(m: Any) -> Any:
        cut = {f.name: getattr(m, f.name)[1:] for f in attrs.fields(kind)[2:]} if kind is Keys else {}
        return attrs.evolve(m, members=members(*who), **cut)

    log = run(world, down=to_one("c00", kind, change))[2]
    assert log.refusals("c00")[0].reason is Reason.BAD_MEMBERS


def test_a_position_outside_the_config_is_refused() -> None:
    world = World(5)
    stranger = to_one("c00", Keys, lambda m: attrs.evolve(m, members=members(0, 1, 2, 3, 5)))
    assert run(world, down=stranger)[2].refusals("c00")[0].reason is Reason.BAD_MEMBERS


def test_a_doubled_position_is_no_message() -> None:
    with pytest.raises(ValueError, match="increasing"):
        Survivors(bytes(32), members(0, 1, 1))


@pytest.mark.parametrize("what", ["doubled", "reflected", "low order", "own changed", "own commitment changed"])
def test_mask_keys_that_are_doubled_reflected_unsound_or_changed_are_refused(what: str) -> None:
    world = World(5)

    def change(m: Any) -> Any:
        keys, commitments = m.mask_keys.copy(), m.commitments.copy()
        if what == "doubled":
            keys[2] = keys[1]
        elif what == "reflected":
            keys[1] = keys[0]
        elif what == "low order":
            keys[1] = 0
        elif what == "own changed":
            keys[0] = np.frombuffer(public_of(Secret("MaskKey", hash_of("mine"))), dtype=np.uint8)
        else:
            commitments[0] ^= 1
        return attrs.evolve(m, mask_keys=keys, commitments=commitments)

    log = run(world, down=to_one("c00", Keys, change))[2]
    assert log.refusals("c00")[0].reason is Reason.BAD_KEY
    assert log.sent(Shares, "c00") == []


@pytest.mark.parametrize("what", ["reflected", "doubled", "low order", "unsigned", "own changed"])
def test_channel_keys_that_are_reflected_doubled_unsound_or_unsigned_are_refused(what: str) -> None:
    world = World(5)

    def change(m: Any) -> Any:
        keys = m.epoch_keys.copy()
        if what == "own changed":
            keys[0] ^= 1
        else:
            new = {"reflected": keys[0], "doubled": keys[2], "low order": 0, "unsigned": keys[1] ^ 1}[what]
            keys[1 if what != "doubled" else 3] = new
        return attrs.evolve(m, epoch_keys=keys)

    log = run(world, down=to_one("c00", Keys, change))[2]
    assert log.refusals("c00")[0].reason in (Reason.BAD_KEY, Reason.BAD_SIGNATURE)
    assert log.sent(Shares, "c00") == []


@pytest.mark.parametrize("back", [False, True], ids=["within a round", "back to one that was replaced"])
def test_a_channel_key_that_changes_within_a_round_or_back_is_refused_by_its_peers(back: bool) -> None:
    world = World(4)
    clients = world.clients()
    play(world.coordinator(), clients, world.inputs() if back else {})
    before = clients["c01"]
    clients["c01"] = world.client("c01", entropy=entropy("another device"))
    log = play(
        world.coordinator(world.config(round_id=2) if back else world.config(attempt=1)), clients, world.inputs()
    )
    if back:
        clients["c01"] = before
        log = play(world.coordinator(world.config(round_id=3)), clients, world.inputs())
    assert (log.refusals("c00")[0].reason, log.refusals("c00")[0].peer) == (Reason.EPOCH_KEY_CHANGED, "c01")


def test_a_mask_key_swapped_on_one_edge_is_caught_at_both_ends() -> None:
    world = World(4)
    mine = np.frombuffer(public_of(Secret("MaskKey", hash_of("the coordinator's"))), dtype=np.uint8)

    def swap(m: Any) -> Any:
        keys = m.mask_keys.copy()
        keys[1] = mine
        return attrs.evolve(m, mask_keys=keys)

    coordinator, _, log = run(world, down=to_one("c00", Keys, swap))
    assert {refused.reason for refused in log.refusals("c00")} == {Reason.BAD_BOX}
    for name in ("c01", "c02", "c03"):
        assert (log.refusals(name)[0].reason, log.refusals(name)[0].peer) == (Reason.BAD_BOX, "c00")
    assert log.sent(Masked) == []
    assert coordinator.result is None


def test_two_clients_with_different_u1_do_not_open_each_others_boxes() -> None:
    world = World(5)
    four = to_one("c00", Keys, lambda m: Keys(m.ctx, *(getattr(m, f.name)[:4] for f in attrs.fields(Keys)[1:])))
    coordinator, _, log = run(world, down=four)
    assert log.sent(Masked, "c00") == []
    assert coordinator.result is None or "c00" not in coordinator.result.survivors


def test_a_box_for_another_pair_or_direction_does_not_open() -> None:
    world = World(4)
    swapped = to_one("c00", Boxes, lambda m: attrs.evolve(m, boxes=m.boxes[[1, 0, 2]]))
    log = run(world, down=swapped)[2]
    assert (log.refusals("c00")[0].reason, log.refusals("c00")[0].peer) == (Reason.BAD_BOX, "c01")
    own = run(world)[2].sent(Shares, "c00")[0].boxes
    echoed = to_one("c00", Boxes, lambda m: attrs.evolve(m, boxes=own))
    assert run(world, down=echoed)[2].refusals("c00")[0].reason is Reason.BAD_BOX


def test_a_forged_mac_names_its_edge_and_no_share_leaves() -> None:
    world = World(5)
    forged = to_one("c00", Macs, lambda m: attrs.evolve(m, macs=flip(m.macs, 2)))
    log = run(world, down=forged)[2]
    assert (log.refusals("c00")[0].reason, log.refusals("c00")[0].peer) == (Reason.BAD_MAC, "c03")
    assert log.sent(Reveal, "c00") == []


def test_audit_a_mac_reflected_to_its_maker_does_not_count() -> None:
    world = World(5)
    own: list[Any] = []

    def up(name: str, m: Any) -> list[Any]:
        own.extend([m] if name == "c00" and isinstance(m, Confirm) else [])
        return [m]

    reflected = to_one("c00", Macs, lambda m: attrs.evolve(m, macs=own[0].macs))
    log = run(world, up=up, down=reflected)[2]
    assert log.refusals("c00")[0].reason is Reason.BAD_MAC
    assert log.sent(Reveal, "c00") == []


def test_too_few_confirmations_or_ones_from_outside_release_no_share() -> None:
    world = World(5)
    few = to_one("c00", Macs, lambda m: Macs(m.ctx, m.senders[:2], m.macs[:2]))
    assert run(world, down=few)[2].refusals("c00")[0].reason is Reason.TOO_FEW
    outside = to_one("c00", Macs, lambda m: Macs(m.ctx, members(0, 1, 2, 3), m.macs))
    assert run(world, down=outside)[2].refusals("c00")[0].reason is Reason.BAD_MEMBERS


def test_a_victim_shown_alive_to_some_and_dead_to_others_ends_in_no_share_of_it() -> None:
    world = World(7)  # t = 5

    def down(name: str, m: Any) -> list[Any]:
        shown_dead = name in ("c00", "c01", "c02") and isinstance(m, Survivors)
        return [Survivors(m.ctx, members(0, 1, 2, 3, 4, 5)) if shown_dead else m]

    coordinator, _, log = run(world, down=down)
    assert log.sent(Reveal) == []
    assert coordinator.result is None


def test_messages_of_another_sum_do_not_mix() -> None:
    world = World(4)
    clients = world.clients()
    first = play(world.coordinator(), clients, world.inputs())
    second_config = world.config(round_id=2)
    config = signed(second_config)
    clients["c00"].begin(config)
    assert clients["c00"].receive(first.got(Keys, "c00"))[0].reason is Reason.WRONG_CONTEXT
    renamed = attrs.evolve(first.got(Keys, "c00"), ctx=second_config.ctx)
    assert clients["c00"].receive(renamed)[0].reason is Reason.BAD_KEY


def test_two_interleaved_sums_with_swapped_boxes_open_nothing() -> None:
    a, b = World(4), World(4)
    log_b = play(b.coordinator(b.config(round_id=9)), b.clients(), b.inputs())
    foreign = log_b.got(Boxes, "c00").boxes
    swapped = to_one("c00", Boxes, lambda m: attrs.evolve(m, boxes=foreign))
    assert run(a, down=swapped)[2].refusals("c00")[0].reason is Reason.BAD_BOX


def test_a_distinct_model_for_each_client_is_refused_by_the_pinned_hash() -> None:
    world = World(4)
    for i, client in enumerate(world.clients().values()):
        refused = client.begin(signed(world.config(model_hash=hash_of(f"model {i}"))))[0]
        assert (refused.reason, refused.detail) == (Reason.WEAK_CONFIG, "model_hash is not the pinned one")


# One input, one context.


def test_a_second_config_for_the_same_place_is_refused_also_after_a_coordinators_restart() -> None:
    world = World(4)
    client = world.client("c00")
    client.begin(signed(world.config()))
    again = client.begin(signed(world.config(min_survivors=4)))
    assert again[0].reason is Reason.REPLAYED
    assert client.state is ClientState.ADVERTISED


def test_audit_a_context_replayed_after_a_restart_is_refused() -> None:
    world = World(4)
    mark = world.client("c00").begin(signed(world.config()))[0]
    restarted = world.client("c00", marks=[mark])
    assert restarted.begin(signed(world.config()))[0].reason is Reason.REPLAYED


def test_a_restarted_client_is_a_dropout_of_the_round_and_joins_the_next() -> None:
    world = World(4)
    restarted = world.client("c00", marks=[Mark(SCOPE, 1, 1, 0)])
    refused, withdrawn = restarted.begin(signed(world.config(attempt=1)))
    assert refused.reason is Reason.RESTARTED
    assert withdrawn.message.reason == "RESTARTED"
    assert messages_of(restarted.begin(signed(world.config(round_id=2))))


def test_a_new_epoch_does_not_let_a_restarted_client_into_the_round_it_had_begun() -> None:
    world = World(4)
    restarted = world.client("c00", marks=[Mark(SCOPE, 1, 1, 0)])
    restarted.enter_epoch(world.roster, hash_of("roster"), 2)
    assert restarted.begin(signed(world.config(epoch=2, attempt=1)))[0].reason is Reason.RESTARTED
    assert messages_of(restarted.begin(signed(world.config(round_id=2, epoch=2))))


def test_marks_hold_in_any_order() -> None:
    world = World(4)
    marks = [Mark(SCOPE, 0, 7, 1), Mark(SCOPE, 0, 7, 0), Mark(SCOPE, 0, 3, SPENT)]
    client = world.client("c00", marks=marks)
    assert client.begin(signed(world.config(round_id=7, attempt=1)))[0].reason is Reason.REPLAYED
    assert messages_of(client.begin(signed(world.config(round_id=8))))


def test_audit_two_live_contexts_cannot_be() -> None:
    world = World(5)
    clients = world.clients()
    log = play(world.coordinator(), clients, {}, stop=CoordinatorState.MASKED)
    client = clients["c00"]
    client.begin(signed(world.config(attempt=1)))
    assert client.state is ClientState.ADVERTISED
    assert client.receive(log.got(Boxes, "c00"))[0].reason is Reason.WRONG_CONTEXT


def test_audit_held_back_before_the_reveal_and_opened_again_without_the_victim_is_refused() -> None:
    """Attempt 0 is held back before R4; attempt 1, without the victim, would give its input as a difference."""
    world = World(5)
    _, clients, _ = run(world, stop=CoordinatorState.REVEAL)
    for name in without(world, "c04"):
        again = clients[name].begin(signed(world.config(attempt=1, participants=world.names[:4])))
        assert again[0].reason is Reason.REPLAYED
        assert messages_of(again) == []


def test_audit_a_crash_faked_after_masked_does_not_bring_a_second_attempt() -> None:
    world = World(5)
    _, clients, log = run(world, stop=CoordinatorState.CONFIRM)
    assert len(log.sent(Masked)) == 5
    second = world.coordinator(world.config(attempt=1, participants=world.names[:4]))
    log = play(second, clients, world.inputs())
    assert second.result is None
    assert log.sent(Masked) == []


def test_audit_a_retry_with_fewer_survivors_is_refused() -> None:
    world = World(5)
    client = world.client("c00")
    client.begin(signed(world.config(min_survivors=5)))
    assert client.begin(signed(world.config(attempt=1, min_survivors=4)))[0].reason is Reason.WEAKER_RETRY
    assert messages_of(client.begin(signed(world.config(attempt=2, min_survivors=5))))


@pytest.mark.parametrize("change", ["scope", "epoch"])
def test_audit_another_coordinator_or_a_new_epoch_for_one_input_is_refused(change: str) -> None:
    world = World(4)
    policies = {SCOPE: world.policy(), "basket/b": world.policy(coordinator="basket/b")}
    clients = {name: world.client(name, policies=policies) for name in world.names}
    play(world.coordinator(), clients, world.inputs())
    client = clients["c00"]
    if change == "scope":
        other = world.config(scope="basket/b", coordinator_key=key_of("basket/b").verify_key.encode())
        refused = client.begin(signed(other, "basket/b"))[0]
        assert refused.reason is Reason.ROUND_SPENT
    else:
        client.enter_epoch(world.roster, hash_of("roster"), 2)
        assert client.begin(signed(world.config(epoch=2)))[0].reason is Reason.REPLAYED


def test_a_released_input_may_be_sent_again_in_a_new_attempt() -> None:
    world = World(4, released=True)
    _, clients, _ = run(world, stop=CoordinatorState.CONFIRM)
    second = world.coordinator(world.config(attempt=1, participants=world.names[:3]))
    play(second, {name: clients[name] for name in world.names[:3]}, world.inputs())
    assert_exact(world, second, world.names[:3])


def test_audit_a_cohort_of_colluders_and_one_victim_is_below_the_pinned_size() -> None:
    world = World(5)
    victim = world.client("c00", policy=world.policy(n_min=13, max_colluders=4))
    refused = victim.begin(signed(world.config()))[0]
    assert (refused.reason, refused.detail) == (Reason.WEAK_CONFIG, "5 participants; pinned n_min is 13")


def test_audit_a_config_without_noise_is_refused_by_who_pinned_noise() -> None:
    world = World(5)
    noise = DpTerms(Mechanism.GAUSSIAN, 0.5, 100.0, 100.0)
    client = world.client("c00", policy=world.policy(dp=noise))
    assert client.begin(signed(world.config()))[0].detail == "dp none; pinned is gaussian"


def test_audit_noised_means_times_weights_have_no_way_in() -> None:
    """Nothing multiplies an input after its noise: what is given is what is summed, integers of the pinned bound."""
    world = World(4)
    client = world.client("c00")
    client.begin(signed(world.config()))
    with pytest.raises(InvalidUpdate):
        client.provide(np.array([0.5, 1.0, 2.0]) * 33)
    with pytest.raises(InvalidUpdate):
        client.provide(np.array([1, 2, 3]) * 500)


def test_two_coordinators_of_one_scope_are_one_too_many() -> None:
    world = World(4)
    client = world.client("c00")
    other = world.config(coordinator_key=key_of("basket/b").verify_key.encode())
    assert client.begin(signed(other, "basket/b"))[0].reason is Reason.BAD_SIGNATURE
    assert client.state is ClientState.IDLE


# Bytes.


def test_a_message_of_another_version_is_refused() -> None:
    data = bytearray(encode(signed(World(3).config())))
    at = data.index(b"\x93\x01") + 1
    data[at] = 2
    with pytest.raises(CodecError, match="version"):
        decode(bytes(data))


def test_oversized_and_nested_bytes_are_refused_before_they_cost_anything() -> None:
    with pytest.raises(CodecError):
        decode(bytes((16 << 20) + 1))
    header = b"\x93\x01\xa7reveal" + b"\x91" * 5000
    with pytest.raises(CodecError):
        decode(len(header).to_bytes(4, "little") + header)


def test_a_config_that_breaks_its_own_rules_is_no_message() -> None:
    world = World(3)
    good = encode(signed(world.config()))
    assert isinstance(decode(good), SumConfigMessage)
    with pytest.raises(CodecError):
        decode(good.replace(b"\xa3c00\xa3c01", b"\xa3c01\xa3c00"))


def test_two_u3_of_one_size_are_caught_by_the_confirmations() -> None:
    """c00 is shown c06 alive instead of c05 and only the confirmations of members that both sets hold."""
    world = World(7)  # t = 5
    other = to_one("c00", Survivors, lambda m: Survivors(m.ctx, members(0, 1, 2, 3, 4, 6)))
    common = to_one("c00", Macs, lambda m: Macs(m.ctx, m.senders[:4], m.macs[:4]))
    _, _, log = run(
        world,
        up=dropping({Masked: ["c06"]}),
        down=lambda name, m: [c for o in other(name, m) for c in common(name, o)],
    )
    assert log.got(Macs, "c00").senders.tolist() == [1, 2, 3, 4]
    assert log.refusals("c00")[0].reason is Reason.BAD_MAC
    assert log.sent(Reveal, "c00") == []


# One edge.


def edge(name: str, place: EpochPlace | None = None, label: str = "") -> EpochChannel:
    place = place or EpochPlace(1, "fed", hash_of("roster"), 1)
    return EpochChannel(name, key_of(name), World(3).roster, place, entropy(label or name))


def test_both_ends_of_an_edge_derive_the_same_keys_and_each_use_has_its_own() -> None:
    low, high, ctx, u1 = edge("c00"), edge("c01"), hash_of("ctx"), hash_of("u1")
    assert low.pin("c01", high.public_key, high.signature, 1) is None
    assert high.pin("c00", low.public_key, low.signature, 1) is None
    keys = []
    for name, end in (("c01", low), ("c00", high)):
        keys.append(
            [
                end.box_key(name, ctx, u1, upward=True),
                end.box_key(name, ctx, u1, upward=False),
                end.mac_key(name, ctx, u1),
                end.box_key(name, u1, u1, upward=True),
                end.box_key(name, ctx, ctx, upward=True),
                end.mac_key(name, ctx, ctx),
            ]
        )
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 6


def test_a_peer_that_signs_an_echoed_doubled_or_unsound_channel_key_is_refused() -> None:
    me, place = edge("c00"), EpochPlace(1, "fed", hash_of("roster"), 1)
    peer = edge("c01")
    assert me.pin("c01", peer.public_key, peer.signature, 1) is None
    for public_key in (me.public_key, peer.public_key, bytes(32), (2**255 - 18).to_bytes(32, "little")):
        signature = key_of("c02").sign(b"ssa1.epoch" + place.claim("c02", public_key)).signature
        assert me.pin("c02", public_key, signature, 1) is Reason.BAD_KEY


@pytest.mark.parametrize(
    "place",
    [
        EpochPlace(2, "fed", hash_of("roster"), 1),
        EpochPlace(1, "other", hash_of("roster"), 1),
        EpochPlace(1, "fed", hash_of("other"), 1),
        EpochPlace(1, "fed", hash_of("roster"), 2),
    ],
)
def test_a_channel_key_signed_for_another_place_is_refused(place: EpochPlace) -> None:
    elsewhere = edge("c01", place)
    assert edge("c00").pin("c01", elsewhere.public_key, elsewhere.signature, 1) is Reason.BAD_SIGNATURE
    assert edge("c00").pin("c02", edge("c01").public_key, edge("c01").signature, 1) is Reason.BAD_SIGNATURE


def test_no_message_of_any_kind_makes_either_machine_raise() -> None:
    world = World(4, d=2)
    clients = world.clients()
    clients["c03"] = world.client("c03", policy=world.policy(n_min=5))
    log = play(world.coordinator(), clients, world.inputs())
    every = {type(message): message for _, message in log.up + log.down}
    assert len(every) == 11
    for stop in (CoordinatorState.ADVERTISE, CoordinatorState.MASKED, CoordinatorState.REVEAL, None):
        for message in every.values():
            coordinator, clients, _ = run(world, stop=stop)
            for sender in ("c00", "c03", "stranger"):
                coordinator.receive(sender, message)
            tell(clients["c00"], message)
            clients["c00"].receive(message)


def test_extreme_figures_in_a_config_are_refused_without_raising() -> None:
    world = World(4)
    huge = DpTerms(Mechanism.GAUSSIAN, 1e-300, 2.0**62, 2.0**62)
    for changes in (
        {"w_max": 2**53, "clip": 2.0**62},
        {"dp": huge},
        {"dp": DpTerms(Mechanism.GAUSSIAN, 1.0, 5e-324, 5e-324)},
        {"clip": 5e-324, "scale": 5e-324},
        {"dimension": 10**6, "bits": 32},
    ):
        config = decode(encode(signed(world.config(**changes))))
        outputs = world.client("c00").begin(config)
        assert isinstance(outputs[0], Refused)
