"""The newest signed item of each origin is held, within bounds, whatever the order of arrival."""

from __future__ import annotations

from itertools import permutations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.errors import ConfigError
from scarcity.federation.codec import encode_packet, sign_packet
from scarcity.federation.gossip import Exchange, ExchangeLimits, MaterialityDetector, Outcome, ReleasedView
from scarcity.federation.packets import Header, Model, Packet, Release
from scarcity.federation.roster import COORDINATOR

KEYS = {name: SigningKey(name.encode().ljust(32)) for name in ("a", "b", "c", COORDINATOR)}


def release(origin: str, round_id: int, value: int = 1) -> Packet:
    body = Release(b"", np.array([value, 2]), 1)
    return sign_packet(Header("f", 1, "basket/d", round_id, origin), body, KEYS[origin])


def model(round_id: int, value: float = 1.0) -> Packet:
    body = Model(round_id, b"", np.array([value, 2]), 2.0, 2, 0.0, b"")
    return sign_packet(Header("f", 1, "layer2", round_id, COORDINATOR), body, KEYS[COORDINATOR])


SIZE = len(encode_packet(release("a", 1)))


def test_the_newest_round_wins() -> None:
    held = Exchange()
    assert held.add(release("a", 1)) is Outcome.NEW
    assert held.add(release("a", 1)) is Outcome.DUPLICATE
    assert held.add(release("a", 3)) is Outcome.NEW
    assert held.add(release("a", 2)) is Outcome.OLDER
    assert held.digest() == (("release", "a", 3),)
    assert held.releases(3) == (release("a", 3),)
    assert held.releases(1) == ()


def test_models_and_releases_of_all_origins_stand_side_by_side_in_order() -> None:
    held = Exchange()
    for packet in (release("b", 2), model(1), release("a", 2)):
        held.add(packet)
    assert held.digest() == (("model", COORDINATOR, 1), ("release", "a", 2), ("release", "b", 2))
    assert [packet.header.sender for packet in held.releases(2)] == ["a", "b"]
    assert held.get(("model", COORDINATOR)) == model(1)


def test_an_equivocation_keeps_both_as_proof_and_uses_neither() -> None:
    held = Exchange()
    one, two = release("a", 2), release("a", 2, value=9)
    held.add(one)
    assert held.add(two) is Outcome.EQUIVOCATION
    assert held.get(("release", "a")) is None
    assert held.releases(2) == ()
    assert (held.proofs["release", "a"].first, held.proofs["release", "a"].second) == (one, two)
    for packet in (one, two, release("a", 2, value=7)):
        assert held.add(packet) is Outcome.EQUIVOCATION
    assert held.add(release("a", 1)) is Outcome.OLDER
    assert len(held) == 0
    assert held.size_bytes == 0


def test_a_barred_item_stands_in_the_digest_so_that_nobody_sends_it_again() -> None:
    held = Exchange()
    held.add(release("a", 2))
    held.add(release("a", 2, value=9))
    assert held.digest() == (("release", "a", 2),)
    assert held.add(release("a", 3)) is Outcome.NEW
    assert held.digest() == (("release", "a", 3),)


def test_another_signature_over_the_same_body_is_the_same_item() -> None:
    held = Exchange()
    held.add(release("a", 1))
    assert held.add(attrs.evolve(release("a", 1), signature=b"x" * 64)) is Outcome.DUPLICATE


def test_a_peer_gets_what_it_lacks_models_first() -> None:
    held = Exchange()
    for packet in (release("a", 2), release("b", 3), model(1)):
        held.add(packet)
    assert [item.packet for item in held.missing_for(())] == [model(1), release("b", 3), release("a", 2)]
    known = (("release", "a", 1), ("release", "b", 3), ("model", COORDINATOR, 9), ("release", "stranger", 5))
    assert [item.packet for item in held.missing_for(known)] == [release("a", 2)]
    assert held.missing_for(held.digest()) == ()


def test_a_message_is_bounded_in_items_and_in_bytes() -> None:
    for limits in (ExchangeLimits(message_items=2), ExchangeLimits(message_bytes=2 * SIZE + 5)):
        held = Exchange(limits)
        for origin in "abc":
            held.add(release(origin, 1))
        assert [item.packet.header.sender for item in held.missing_for(())] == ["a", "b"]
        assert [item.packet.header.sender for item in held.missing_for(held.digest()[:2])] == ["c"]


def test_an_item_that_no_message_can_carry_is_held_and_counted() -> None:
    held = Exchange(ExchangeLimits(message_bytes=SIZE - 1))
    assert held.add(release("a", 1)) is Outcome.NEW
    assert held.num_oversized == 1
    assert held.missing_for(()) == ()


@pytest.mark.parametrize("limits", [ExchangeLimits(max_items=2), ExchangeLimits(max_bytes=2 * SIZE)])
def test_older_rounds_make_room_and_newer_ones_do_not(limits: ExchangeLimits) -> None:
    held = Exchange(limits)
    held.add(release("a", 1))
    held.add(release("b", 2))
    assert held.add(release("c", 1)) is Outcome.FULL
    assert held.add(release("c", 2)) is Outcome.NEW
    assert held.digest() == (("release", "b", 2), ("release", "c", 2))
    assert held.num_evicted == 1
    assert held.counts[Outcome.FULL] == 1
    assert held.add(release("b", 3)) is Outcome.NEW
    assert held.size_bytes == 2 * SIZE


def test_origins_that_left_are_dropped() -> None:
    held = Exchange()
    for packet in (release("a", 1), release("b", 1), release("b", 1, value=5)):
        held.add(packet)
    held.retain(["a", "b"], epoch=1)
    assert held.digest() == (("release", "a", 1), ("release", "b", 1))
    held.retain(["a"], epoch=1)
    assert held.digest() == (("release", "a", 1),)
    held.retain(["a"], epoch=2)
    assert held.digest() == ()
    assert held.size_bytes == 0


PACKETS = [release(origin, round_id) for origin in "ab" for round_id in (1, 2)] + [model(1), model(2)]


@given(st.permutations(PACKETS + PACKETS))
def test_the_order_of_arrival_does_not_matter(packets: list[Packet]) -> None:
    held = Exchange()
    for packet in packets:
        held.add(packet)
    assert held.packets() == (model(2), release("a", 2), release("b", 2))
    assert held.size_bytes == sum(len(encode_packet(packet)) for packet in held.packets())


def test_an_equivocation_is_found_in_every_order() -> None:
    for packets in permutations([release("a", 1), release("a", 2), release("a", 2, value=9)]):
        held = Exchange()
        for packet in packets:
            held.add(packet)
        assert held.digest() == (("release", "a", 2),)
        assert held.packets() == ()


def test_what_changes_nothing_is_known() -> None:
    held = Exchange()
    held.add(release("a", 2))
    for packet, known in ((release("a", 2), True), (release("a", 1), True), (release("a", 3), False)):
        assert held.knows(packet, encode_packet(packet)) is known
    other = release("a", 2, value=9)
    assert not held.knows(other, encode_packet(other))


@pytest.mark.parametrize("field", ["max_items", "max_bytes", "message_items", "message_bytes"])
def test_limits_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ExchangeLimits(**{field: 0})


# Materiality.


def view_of(*vectors: list[int]) -> ReleasedView:
    view = ReleasedView()
    for vector in vectors:
        view.add(np.array(vector))
    return view


def test_the_first_view_is_material_and_none_is_not() -> None:
    detector = MaterialityDetector(0.01)
    view = view_of([3, 4]).mean()
    assert view is not None
    assert view == pytest.approx([0.6, 0.8])
    assert detector.is_material(None, view)
    assert not detector.is_material(view, None)
    assert not detector.is_material(None, None)
    assert detector.is_material(view, view_of([1, 1, 1]).mean())


def test_a_change_is_material_when_it_exceeds_the_threshold_relative_to_what_was() -> None:
    before = np.array([100.0, 0.0])
    detector = MaterialityDetector(0.01)
    assert not detector.is_material(before, np.array([101.0, 0.0]))
    assert detector.is_material(before, np.array([101.1, 0.0]))
    assert not MaterialityDetector(0.0).is_material(before, before.copy())


def test_one_enormous_vector_cannot_hide_what_others_say() -> None:
    before = view_of([2**62, 0], [1, 0]).mean()
    after = view_of([2**62, 0], [1, 0], [0, 1]).mean()
    assert MaterialityDetector(0.1).is_material(before, after)


def test_what_was_added_can_be_taken_out_again() -> None:
    view = view_of([3, 4], [-(2**63), 1], [0, 0])
    view.remove(np.array([-(2**63), 1]))
    view.remove(np.array([0, 0]))
    mean = view.mean()
    assert mean is not None
    assert mean == pytest.approx([0.6, 0.8])
    view.remove(np.array([3, 4]))
    assert view.mean() is None
    view.remove(np.array([1, 0, 0]))
    assert view.mean() is None
    view.add(np.array([1, 0, 0]))
    assert view.mean() is not None


def test_a_vector_of_another_shape_is_left_out_of_the_view() -> None:
    view = view_of([3, 4], [1, 2, 3])
    mean = view.mean()
    assert mean is not None
    assert mean == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError):
        MaterialityDetector(threshold)
