"""The newest signed item of each origin is held, within bounds, whatever the order of arrival."""

from __future__ import annotations

from itertools import permutations
from random import Random

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
from scarcity.federation.reader import Item, item_of
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
    assert held.add(item_of(release("a", 1))) is Outcome.NEW
    assert held.add(item_of(release("a", 1))) is Outcome.DUPLICATE
    assert held.add(item_of(release("a", 3))) is Outcome.NEW
    assert held.add(item_of(release("a", 2))) is Outcome.OLDER
    assert held.digest() == (("release", 3, ("a",)),)
    assert held.releases(3) == (release("a", 3),)
    assert held.releases(1) == ()


def test_models_and_releases_of_all_origins_stand_side_by_side_in_order() -> None:
    held = Exchange()
    for packet in (release("b", 2), model(1), release("a", 2)):
        held.add(item_of(packet))
    assert held.digest() == (("model", 1, (COORDINATOR,)), ("release", 2, ("a", "b")))
    assert [packet.header.sender for packet in held.releases(2)] == ["a", "b"]
    assert held.get(("model", COORDINATOR)) == model(1)


def test_an_equivocation_keeps_both_as_proof_and_uses_neither() -> None:
    held = Exchange()
    one, two = release("a", 2), release("a", 2, value=9)
    held.add(item_of(one))
    assert held.add(item_of(two)) is Outcome.EQUIVOCATION
    assert held.get(("release", "a")) is None
    assert held.releases(2) == ()
    assert (held.proofs["release", "a"].first, held.proofs["release", "a"].second) == (one, two)
    for packet in (one, two, release("a", 2, value=7)):
        assert held.add(item_of(packet)) is Outcome.EQUIVOCATION
    assert held.add(item_of(release("a", 1))) is Outcome.OLDER
    assert len(held) == 0
    assert held.size_bytes == 0


def test_a_barred_item_stands_in_the_digest_so_that_nobody_sends_it_again() -> None:
    held = Exchange()
    held.add(item_of(release("a", 2)))
    held.add(item_of(release("a", 2, value=9)))
    assert held.digest() == (("release", 2, ("a",)),)
    assert held.add(item_of(release("a", 3))) is Outcome.NEW
    assert held.digest() == (("release", 3, ("a",)),)


def test_another_signature_over_the_same_body_is_the_same_item() -> None:
    held = Exchange()
    held.add(item_of(release("a", 1)))
    assert held.add(item_of(attrs.evolve(release("a", 1), signature=b"x" * 64))) is Outcome.DUPLICATE


def test_a_peer_gets_what_it_lacks_models_first() -> None:
    held = Exchange()
    for packet in (release("a", 2), release("b", 3), model(1)):
        held.add(item_of(packet))
    assert [item.packet for item in held.missing_for(())] == [model(1), release("b", 3), release("a", 2)]
    known = (
        ("release", 1, ("a",)),
        ("release", 3, ("b",)),
        ("model", 9, (COORDINATOR,)),
        ("release", 5, ("stranger",)),
    )
    assert [item.packet for item in held.missing_for(known)] == [release("a", 2)]
    assert held.missing_for(held.digest()) == ()


ROUNDS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 4))


@given(ROUNDS, ROUNDS, st.randoms())
def test_what_a_peer_lacks_is_what_it_holds_in_no_such_or_newer_round(
    mine: dict[str, int], others: dict[str, int], order: Random
) -> None:
    held = Exchange()
    for origin, round_id in mine.items():
        held.add(item_of(release(origin, round_id)))
    digest = [("release", round_id, (origin,)) for origin, round_id in others.items()]
    order.shuffle(digest)  # whoever sends it need not sort it
    found = {item.key[1] for item in held.missing_for(tuple(digest))}
    assert found == {origin for origin, round_id in mine.items() if others.get(origin, 0) < round_id}


def test_a_message_is_bounded_in_items_and_in_bytes() -> None:
    for limits in (ExchangeLimits(message_items=2), ExchangeLimits(message_bytes=2 * SIZE + 5)):
        held = Exchange(limits)
        for origin in "abc":
            held.add(item_of(release(origin, 1)))
        assert [item.packet.header.sender for item in held.missing_for(())] == ["a", "b"]
        assert [item.packet.header.sender for item in held.missing_for((("release", 1, ("a", "b")),))] == ["c"]


def test_an_item_that_no_message_can_carry_is_held_and_counted() -> None:
    held = Exchange(ExchangeLimits(message_bytes=SIZE - 1))
    assert held.add(item_of(release("a", 1))) is Outcome.NEW
    assert held.num_oversized == 1
    assert held.missing_for(()) == ()


@pytest.mark.parametrize("limits", [ExchangeLimits(max_items=2), ExchangeLimits(max_bytes=2 * SIZE)])
def test_older_rounds_make_room_and_newer_ones_do_not(limits: ExchangeLimits) -> None:
    held = Exchange(limits)
    held.add(item_of(release("a", 1)))
    held.add(item_of(release("b", 2)))
    assert held.add(item_of(release("c", 1))) is Outcome.FULL
    assert held.add(item_of(release("c", 2))) is Outcome.NEW
    assert held.digest() == (("release", 2, ("b", "c")),)
    assert held.num_evicted == 1
    assert held.counts[Outcome.FULL] == 1
    assert held.add(item_of(release("b", 3))) is Outcome.NEW
    assert held.size_bytes == 2 * SIZE


def test_origins_that_left_are_dropped() -> None:
    held = Exchange()
    for packet in (release("a", 1), release("b", 1), release("b", 1, value=5)):
        held.add(item_of(packet))
    held.retain(["a", "b"], epoch=1)
    assert held.digest() == (("release", 1, ("a", "b")),)
    held.retain(["a"], epoch=1)
    assert held.digest() == (("release", 1, ("a",)),)
    held.retain(["a"], epoch=2)
    assert held.digest() == ()
    assert held.size_bytes == 0


PACKETS = [release(origin, round_id) for origin in "ab" for round_id in (1, 2)] + [model(1), model(2)]


@given(st.permutations(PACKETS + PACKETS))
def test_the_order_of_arrival_does_not_matter(packets: list[Packet]) -> None:
    held = Exchange()
    for packet in packets:
        held.add(item_of(packet))
    assert held.packets() == (model(2), release("a", 2), release("b", 2))
    assert held.size_bytes == sum(len(encode_packet(packet)) for packet in held.packets())


def test_an_equivocation_is_found_in_every_order() -> None:
    for packets in permutations([release("a", 1), release("a", 2), release("a", 2, value=9)]):
        held = Exchange()
        for packet in packets:
            held.add(item_of(packet))
        assert held.digest() == (("release", 2, ("a",)),)
        assert held.packets() == ()


def test_what_changes_nothing_is_known() -> None:
    held = Exchange()
    held.add(item_of(release("a", 2)))
    for packet, known in ((release("a", 2), True), (release("a", 1), True), (release("a", 3), False)):
        assert (held.unknown([item_of(packet)]) == []) is known
    assert len(held.unknown([item_of(release("a", 2, value=9))])) == 1


@pytest.mark.parametrize("field", ["max_items", "max_bytes", "message_items", "message_bytes"])
def test_limits_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ExchangeLimits(**{field: 0})


# Materiality.


def vector_of(*vector: int) -> Item:
    return item_of(Packet(Header("f", 1, "basket/d", 1, "a"), Release(b"", np.array(vector), 1)))


def view_of(*vectors: list[int]) -> ReleasedView:
    view = ReleasedView()
    view.follow(vector_of(*vector) for vector in vectors)
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


def test_a_view_follows_what_comes_and_goes() -> None:
    view, first, huge, nothing = ReleasedView(), vector_of(3, 4), vector_of(-(2**63), 1), vector_of(0, 0)
    assert view.follow([first, huge, nothing]) == [first, huge, nothing]
    assert view.follow([first]) == []
    assert view.mean() == pytest.approx([0.6, 0.8])
    assert view.follow([]) == []
    assert view.mean() is None
    other = vector_of(1, 0, 0)
    assert view.follow([other]) == [other]
    assert view.mean() == pytest.approx([1, 0, 0])


def test_a_view_whose_first_shape_has_gone_goes_on_with_what_is_left() -> None:
    view, first, *others = ReleasedView(), vector_of(3, 4), vector_of(1, 0, 0), vector_of(1, 0, 0)
    view.follow([first, *others])
    view.follow(others)
    assert view.mean() == pytest.approx([1, 0, 0])


VECTORS = [vector_of(*vector) for vector in ((1, 2), (-3, 4), (0, 0), (2**62, 5), (1, 2, 3), (7, -7))]


@given(st.lists(st.sets(st.sampled_from(range(len(VECTORS)))), max_size=6))
def test_a_view_is_the_mean_direction_of_what_is_held_however_it_came_to_that(steps: list[set[int]]) -> None:
    view = ReleasedView()
    for step in steps:
        held = [VECTORS[at] for at in sorted(step)]
        view.follow(held)
        mean = view.mean()
        assert (mean is None) is (not held)
        if mean is not None and mean.shape == (2,):
            raw = [item.packet.body.vector for item in held]  # type: ignore[union-attr]  # all are releases
            rows = [np.asarray(v, dtype=np.float64) for v in raw if v.shape == (2,)]
            directions = [row / max(np.linalg.norm(row), 1e-300) for row in rows]
            assert mean == pytest.approx(np.mean(directions, axis=0), abs=1e-12)


def test_a_vector_of_another_shape_is_left_out_of_the_view() -> None:
    view = view_of([3, 4], [1, 2, 3])
    mean = view.mean()
    assert mean is not None
    assert mean == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError):
        MaterialityDetector(threshold)
