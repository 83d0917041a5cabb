"""Push what is new, pull what is missing."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from nacl.signing import SigningKey

from scarcity.errors import ConfigError
from scarcity.federation.codec import encode_packet, sign_packet
from scarcity.federation.content import Expected
from scarcity.federation.gossip import (
    Exchange,
    ExchangeLimits,
    GossipLimits,
    GossipProtocol,
    MaterialityDetector,
    Outcome,
    PeerSampler,
    Received,
)
from scarcity.federation.packets import (
    LAYER2,
    GossipPull,
    GossipPush,
    Header,
    Model,
    Packet,
    Release,
    TrustMode,
    Unprotected,
    basket_scope,
)
from scarcity.federation.reader import PlainReader, Reader, item_of
from scarcity.federation.refusals import Code, code_of
from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id

BASKET = basket_id("d")
IDS = ["a", "b", "c", "e"]
KEYS = {name: SigningKey(name.encode().ljust(32)) for name in [COORDINATOR, BASKET, *IDS, "far"]}
ROLES = {COORDINATOR: Role.COORDINATOR, BASKET: Role.BASKET}
DOMAINS = {COORDINATOR: "", "far": "elsewhere"}
ROSTER = Roster(
    "fed",
    1,
    tuple(
        Member(name, ROLES.get(name, Role.CLIENT), DOMAINS.get(name, "d"), bytes(key.verify_key))
        for name, key in KEYS.items()
    ),
)


def gossip(
    own_id: str = "a",
    mode: TrustMode = TrustMode.LOCAL,
    *,
    threshold: float = 0.01,
    limits: GossipLimits | None = None,
    exchange: Exchange | None = None,
    reader: Reader | None = None,
) -> GossipProtocol:
    return GossipProtocol(
        own_id,
        ROSTER,
        "d",
        mode,
        sampler=PeerSampler(own_id, [], b"k" * 16, 3),
        exchange=exchange,
        detector=MaterialityDetector(threshold),
        limits=limits,
        reader=reader,
    )


def brought(received: Received) -> tuple[Packet, ...]:
    return tuple(item.packet for item in received.new)


def release(origin: str, vector: tuple[int, ...] = (1, 2), round_id: int = 1) -> Packet:
    header = Header("fed", 1, basket_scope("d"), round_id, origin)
    return sign_packet(header, Release(b"", np.array(vector), 1), KEYS[origin])


def model(round_id: int = 1, value: float = 1.0) -> Packet:
    body = Model(round_id, b"", np.array([value, 2.0]), 2.0, 2, 0.0, b"")
    return sign_packet(Header("fed", 1, LAYER2, round_id, COORDINATOR), body, KEYS[COORDINATOR])


def push_of(*packets: Packet) -> GossipPush:
    return GossipPush(tuple(encode_packet(packet) for packet in packets))


def test_ones_own_item_is_pushed_to_other_members_and_then_cools_down() -> None:
    node = gossip(limits=GossipLimits(hot_pushes=2))
    assert node.push() == []
    assert node.offer(item_of(release("a"))) is Outcome.NEW
    for _ in range(2):
        pushes = node.push()
        assert len({peer for peer, _ in pushes}) == 3
        assert {peer for peer, _ in pushes} <= {"b", "c", "e", BASKET}
        assert {body for _, body in pushes} == {push_of(release("a"))}
    assert node.push() == []


def test_what_is_learnt_is_pushed_on_as_the_same_bytes() -> None:
    node = gossip()
    received = node.receive_push(push_of(release("b"), model()), "c")
    assert brought(received) == (release("b"), model())
    assert received.rejects == ()
    assert node.push()[0][1] == push_of(model(), release("b"))


def test_what_is_known_is_neither_verified_nor_reported_again() -> None:
    reader = PlainReader()
    node = gossip(reader=reader)
    node.receive_push(push_of(release("b", round_id=2)), "c")
    received = node.receive_push(push_of(release("b", round_id=2), release("b", round_id=1)), "e")
    assert (received.new, received.rejects) == ((), ())
    assert reader.num_verified == 1
    assert node.counts["known"] == 2


def test_a_release_that_does_not_move_the_view_is_left_to_pull() -> None:
    node = gossip(threshold=0.5)
    node.receive_push(push_of(release("b", (1, 0))), "b")
    assert len(node.push()) == 3
    node.push()
    node.receive_push(push_of(release("c", (2, 0))), "c")
    assert node.push() == []
    assert node.counts["held back"] == 1
    assert node.answer_pull(GossipPull(()), "e") == push_of(release("b", (1, 0)), release("c", (2, 0)))
    # What was held back goes out with the next change that matters.
    node.receive_push(push_of(release("e", (-5, 3))), "e")
    assert node.push()[0][1] == push_of(release("c", (2, 0)), release("e", (-5, 3)))


def test_a_model_and_ones_own_release_are_pushed_whatever_the_view() -> None:
    node = gossip(threshold=1e9)
    node.receive_push(push_of(release("b", (1, 0))), "b")
    node.push()
    node.push()
    node.offer(item_of(release("a", (1, 0))))
    node.offer(item_of(model()))
    assert node.push()[0][1] == push_of(model(), release("a", (1, 0)))


def test_a_newer_item_takes_the_place_of_one_that_is_still_hot() -> None:
    node = gossip()
    node.offer(item_of(release("a", round_id=1)))
    node.offer(item_of(release("a", round_id=2)))
    assert node.push()[0][1] == push_of(release("a", round_id=2))


def test_pull_brings_exactly_what_is_missing() -> None:
    one, two = gossip("a"), gossip("b")
    one.offer(item_of(release("a")))
    one.offer(item_of(model(round_id=2)))
    two.offer(item_of(model(round_id=1)))
    two.offer(item_of(release("b")))
    (_, digest), *_ = two.pull()
    assert digest == GossipPull((("model", 1, (COORDINATOR,)), ("release", 1, ("b",))))
    answer = one.answer_pull(digest, "b")
    assert answer is not None
    assert brought(two.receive_push(answer, "a")) == (model(round_id=2), release("a"))
    assert one.answer_pull(two.pull()[0][1], "b") is None


def test_the_local_view_is_the_contributions_of_one_round_by_origin() -> None:
    node = gossip()
    node.offer(item_of(model()))
    node.receive_push(push_of(release("c"), release("b"), release("e", round_id=2)), "c")
    assert [packet.header.sender for packet in node.local_view(1)] == ["b", "c"]


@pytest.mark.parametrize("mode", TrustMode)
def test_each_trust_mode_carries_its_contributions_and_models(mode: TrustMode) -> None:
    header = Header("fed", 1, basket_scope("d"), 1, "b")
    clean = sign_packet(header, Unprotected(b"", np.ones(2), 1), KEYS["b"])
    received = gossip(mode=mode).receive_push(push_of(release("b"), clean, model()), "b")
    carried = {TrustMode.LOCAL: release("b"), TrustMode.NONE: clean}
    assert brought(received) == ((carried[mode], model()) if mode in carried else (model(),))
    assert {code_of(refusal) for refusal in received.rejects} == {Code.NOT_ALLOWED}


def test_what_does_not_fit_the_round_is_refused_and_what_was_taken_before_is_dropped() -> None:
    node = gossip()
    node.receive_push(push_of(release("b", (1, 2, 3)), release("c", (1, 2))), "b")
    expected = Expected(round_id=1, mode=TrustMode.LOCAL, dimension=2, schema_hash=b"", norm_bound=10.0)
    node.expect(expected)
    assert [packet.header.sender for packet in node.local_view(1)] == ["c"]
    (refusal,) = node.receive_push(push_of(release("e", (100, 0))), "b").rejects
    # The origin signed it, so the origin is to blame and not the relay.
    assert (refusal.peer, code_of(refusal)) == ("e", Code.NORM)
    # Another round may have another bound.
    assert node.receive_push(push_of(release("e", (100, 0), round_id=2)), "b").new != ()


def test_members_that_left_take_their_items_along() -> None:
    node = gossip()
    node.receive_push(push_of(release("b"), release("c"), model()), "b")
    members = tuple(member for member in ROSTER.members if member.id != "b")
    node.adopt(Roster("fed", 1, members))
    assert [packet.header.sender for packet in node.local_view(1)] == ["c"]
    assert all("b" not in {peer for peer, _ in node.pull()} for _ in range(5))
    assert code_of(node.receive_push(push_of(release("b")), "b").rejects[0]) is Code.NOT_ALLOWED
    # A peer of the new epoch would refuse the contributions of the old one, and may need its Model.
    node.adopt(Roster("fed", 2, members))
    assert node.exchange.packets() == (model(),)
    assert node.push()[0][1] == push_of(model())
    assert brought(gossip("c").receive_push(push_of(model()), "a")) == (model(),)


def test_every_bound_holds_and_is_counted() -> None:
    reader = PlainReader(verdicts=1)
    node = gossip(limits=GossipLimits(push_items=2, known_entries=1), reader=reader)
    received = node.receive_push(push_of(release("b"), release("c"), release("e")), "b")
    assert brought(received) == (release("b"), release("c"))
    assert (node.counts["push_items"], reader.num_forgotten) == (1, 1)
    node.answer_pull(GossipPull((("release", 1, ("b", "c")),)), "b")
    assert node.counts["known_entries"] == 1


def test_a_peer_that_asks_again_and_again_is_answered_a_few_times_a_period() -> None:
    node = gossip(limits=GossipLimits(answers=2))
    node.offer(item_of(release("a")))
    for _ in range(2):
        answers = [node.answer_pull(GossipPull(()), "b") is not None for _ in range(4)]
        assert answers == [True, True, False, False]
        assert node.answer_pull(GossipPull(()), "c") is not None
        node.pull()
    assert node.counts["answers"] == 4


def test_more_hot_items_than_a_message_takes_go_out_in_turn() -> None:
    node = gossip(
        exchange=Exchange(ExchangeLimits(message_items=2)),
        limits=GossipLimits(hot_pushes=1),
    )
    packets = [release(name, (1, index)) for index, name in enumerate(["b", "c", "e"])]
    for packet in packets:
        node.receive_push(push_of(packet), "b")
    pushed = [item for _ in range(2) for item in node.push()[0][1].items]
    assert pushed == [encode_packet(packet) for packet in packets]
    assert node.push() == []


def test_a_member_without_peers_is_quiet() -> None:
    alone = Roster("fed", 1, tuple(m for m in ROSTER.members if m.id in {COORDINATOR, "a"}))
    node = GossipProtocol("a", alone, "d", TrustMode.LOCAL, sampler=PeerSampler("a", [], b"k" * 16, 3))
    node.offer(item_of(release("a")))
    assert node.push() == []
    assert node.pull() == []


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(GossipLimits)])
def test_limits_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        GossipLimits(**{field: 0})
