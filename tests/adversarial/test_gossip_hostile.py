"""Liars in a basket: garbage, forgeries, moved items, equivocation. They harm nobody but themselves."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.federation.codec import encode_packet, sign_packet
from scarcity.federation.content import Expected
from scarcity.federation.gossip import GossipProtocol, PeerSampler, Received
from scarcity.federation.packets import (
    LAYER2,
    Ack,
    Body,
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
KEYS = {name: SigningKey(name.encode().ljust(32)) for name in (COORDINATOR, BASKET, "a", "b", "c", "liar", "far")}
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


def gossip(own_id: str = "a", mode: TrustMode = TrustMode.LOCAL, reader: Reader | None = None) -> GossipProtocol:
    sampler = PeerSampler(own_id, [], b"k" * 16, 3)
    return GossipProtocol(own_id, ROSTER, "d", mode, sampler=sampler, reader=reader)


def brought(received: Received) -> tuple[Packet, ...]:
    return tuple(item.packet for item in received.new)


def said(origin: str, body: Body, *, key: str | None = None, **place: Any) -> Packet:
    scope = LAYER2 if isinstance(body, Model) else basket_scope("d")
    header = attrs.evolve(Header("fed", 1, scope, 1, origin), **place)
    return sign_packet(header, body, KEYS[key or origin])


def release(*vector: int) -> Release:
    return Release(b"", np.array(vector), 1)


MODEL = Model(1, b"", np.ones(2), 2.0, 2, 0.0, b"")
GOOD = said("b", release(1, 2))


def push_of(*packets: Packet) -> GossipPush:
    return GossipPush(tuple(encode_packet(packet) for packet in packets))


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (said("c", release(1), key="liar"), Code.SIGNATURE),
        (attrs.evolve(said("c", release(1)), body=release(2)), Code.SIGNATURE),
        (attrs.evolve(said("c", release(1)), signature=b""), Code.SIGNATURE),
        (said(COORDINATOR, MODEL, key="liar"), Code.SIGNATURE),
        (said("liar", MODEL), Code.NOT_ALLOWED),
        (said(BASKET, MODEL), Code.NOT_ALLOWED),
        (said(COORDINATOR, release(1)), Code.NOT_ALLOWED),
        (said(BASKET, release(1)), Code.NOT_ALLOWED),
        (said("far", release(1)), Code.NOT_ALLOWED),
        (said("far", release(1), scope=basket_scope("elsewhere")), Code.NOT_ALLOWED),
        (said("liar", release(1), sender="nobody"), Code.NOT_ALLOWED),
        (said("liar", MODEL, sender="nobody"), Code.NOT_ALLOWED),
        (said("liar", Ack(b"")), Code.NOT_ALLOWED),
        (said("liar", GossipPush(())), Code.NOT_ALLOWED),
        (said("c", release(1), federation="other"), Code.FEDERATION),
        (said("c", release(1), epoch=2), Code.STALE_ROSTER),
        (said("c", release(1), scope=LAYER2), Code.SCOPE),
        (said(COORDINATOR, MODEL, scope=basket_scope("d")), Code.SCOPE),
        (said("c", release(1), round_id=-1), Code.RANGE),
        (said(COORDINATOR, MODEL, round_id=2), Code.RANGE),
    ],
)
def test_a_bad_item_is_the_relays_fault_and_does_not_harm_the_others(packet: Packet, code: Code) -> None:
    node = gossip()
    received = node.receive_push(push_of(packet, GOOD), "liar")
    assert brought(received) == (GOOD,)
    (refusal,) = received.rejects
    assert (refusal.peer, code_of(refusal)) == ("liar", code)
    assert node.exchange.packets() == (GOOD,)


@pytest.mark.parametrize(
    ("origin", "body", "mode", "code"),
    [
        ("c", Release(b"", np.array(1), 1), TrustMode.LOCAL, Code.SHAPE),
        ("c", Release(b"", np.array([[1, 2]]), 1), TrustMode.LOCAL, Code.SHAPE),
        ("c", Release(b"", np.zeros(0, dtype=np.int64), 1), TrustMode.LOCAL, Code.SHAPE),
        ("c", Release(b"", np.array([1]), 0), TrustMode.LOCAL, Code.RANGE),
        ("c", Unprotected(b"", np.array([np.nan]), 1), TrustMode.NONE, Code.NOT_FINITE),
        (COORDINATOR, attrs.evolve(MODEL, vector=np.array([np.inf])), TrustMode.LOCAL, Code.NOT_FINITE),
    ],
)
def test_signed_nonsense_is_its_origins_fault(origin: str, body: Body, mode: TrustMode, code: Code) -> None:
    node = gossip(mode=mode)
    (refusal,) = node.receive_push(push_of(said(origin, body)), "b").rejects
    assert (refusal.peer, code_of(refusal)) == (origin, code)
    assert len(node.exchange) == 0


def test_outsiders_get_no_answer_and_are_not_heard() -> None:
    node = gossip()
    node.offer(item_of(GOOD))
    for outsider in ("far", COORDINATOR, "nobody"):
        received = node.receive_push(push_of(said("c", release(1))), outsider)
        assert received.new == ()
        assert [code_of(refusal) for refusal in received.rejects] == [Code.NOT_ALLOWED]
        assert node.answer_pull(GossipPull(()), outsider) is None


def test_a_forged_item_costs_one_signature_however_often_it_comes() -> None:
    reader = PlainReader()
    node = gossip(reader=reader)
    forged = push_of(said("c", release(1), key="liar"))
    for _ in range(5):
        (refusal,) = node.receive_push(forged, "liar").rejects
        assert code_of(refusal) is Code.SIGNATURE
    assert reader.num_verified == 1


def test_an_equivocation_proves_itself_and_neither_half_is_used() -> None:
    node = gossip()
    one, two = said("liar", release(1, 0)), said("liar", release(0, 1))
    received = node.receive_push(push_of(one, two, GOOD), "b")
    assert brought(received) == (GOOD,)
    (proof,) = received.proofs
    assert (proof.first, proof.second) == (one, two)
    assert proof.holds(ROSTER.keys["liar"])
    # Its author is to blame, not the relay that showed it.
    assert [(refusal.peer, code_of(refusal)) for refusal in received.rejects] == [("liar", Code.EQUIVOCATION)]
    assert node.local_view(1) == (GOOD,)
    again = node.receive_push(push_of(two, one), "c")
    assert (again.new, again.rejects, again.proofs) == ((), (), ())


def test_an_item_of_a_round_that_nobody_can_have_contributed_to_is_refused() -> None:
    node = gossip()
    node.expect(Expected(round_id=5, mode=TrustMode.LOCAL, dimension=2, schema_hash=b""))
    items = [said("liar", release(1, 2), round_id=round_id) for round_id in (6, 7, 10**6)]
    received = node.receive_push(push_of(*items), "b")
    assert [item.round_id for item in received.new] == [6]
    assert [(refusal.peer, code_of(refusal)) for refusal in received.rejects] == [("b", Code.AHEAD)] * 2


def test_one_pair_is_one_proof_whatever_is_signed_beside_it() -> None:
    node = gossip()
    node.receive_push(push_of(said("liar", release(1, 0)), said("liar", release(0, 1), round_id=2)), "b")
    thirds = [said("liar", release(7, number)) for number in range(20)]
    proofs = node.receive_push(push_of(said("liar", release(0, 1), round_id=3), *thirds), "b").proofs
    assert proofs == ()
    pairs = [said("liar", release(number, 1), round_id=3) for number in range(1, 21)]
    assert len(node.receive_push(push_of(*pairs), "c").proofs) == 1


def test_a_proof_spreads_so_that_a_peer_that_was_shown_one_half_learns_of_the_other() -> None:
    one, two = said("liar", release(1, 0)), said("liar", release(0, 1))
    victim, other = gossip("b"), gossip("c")
    victim.receive_push(push_of(one), "liar")
    other.receive_push(push_of(two), "liar")
    witness = gossip("a")
    witness.receive_push(push_of(one), "b")
    witness.receive_push(push_of(two), "c")
    (_, body), *_ = witness.push()
    for node in (victim, other):
        assert len(node.receive_push(body, "a").proofs) == 1
        assert node.local_view(1) == ()


def test_two_models_of_one_round_are_used_by_nobody() -> None:
    node = gossip()
    node.receive_push(push_of(said(COORDINATOR, MODEL)), "b")
    received = node.receive_push(push_of(said(COORDINATOR, attrs.evolve(MODEL, count=9))), "c")
    assert [proof.author for proof in received.proofs] == [COORDINATOR]
    assert node.exchange.get(("model", COORDINATOR)) is None


def test_an_enormous_release_does_not_silence_the_others() -> None:
    node = gossip()
    node.receive_push(push_of(said("liar", release(2**62, 2**62))), "liar")
    node.push()
    node.receive_push(push_of(said("c", release(5, -3))), "c")
    assert encode_packet(said("c", release(5, -3))) in node.push()[0][1].items


def test_a_claim_to_know_everything_only_starves_the_one_who_makes_it() -> None:
    node = gossip()
    node.offer(item_of(GOOD))
    assert node.answer_pull(GossipPull((("release", 2**62, ("b",)),)), "liar") is None
    assert node.answer_pull(GossipPull((("release", -(2**63), ("b",)),)), "c") == push_of(GOOD)


ITEMS = st.lists(
    st.binary(max_size=60)
    | st.builds(
        lambda at, new: encode_packet(GOOD)[:at] + new + encode_packet(GOOD)[at + len(new) :],
        st.integers(0, len(encode_packet(GOOD))),
        st.binary(max_size=3),
    ),
    max_size=6,
).map(tuple)


@settings(max_examples=300)
@given(
    ITEMS,
    st.sampled_from([*KEYS, "nobody", ""]),
    st.lists(
        st.tuples(
            st.sampled_from(["release", "model", "", "x"]),
            st.integers(-(2**63), 2**63 - 1),
            st.lists(st.text(max_size=3)).map(tuple),
        )
    ).map(tuple),
)
def test_no_push_or_pull_raises_or_brings_in_what_was_not_signed(
    items: tuple[bytes, ...], sender: str, known: tuple[tuple[str, int, tuple[str, ...]], ...]
) -> None:
    node = gossip()
    received = node.receive_push(GossipPush(items), sender)
    assert node.exchange.packets() == brought(received)
    assert all(packet == GOOD for packet in brought(received))
    assert all(refusal.peer == sender for refusal in received.rejects)
    node.answer_pull(GossipPull(known), sender)
    node.push()
    node.pull()
