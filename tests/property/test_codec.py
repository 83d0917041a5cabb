"""Every packet has one canonical form, and a signature has one meaning."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nacl.signing import SigningKey

from scarcity.federation.codec import (
    body_digest,
    decode_packet,
    digest_in,
    encode_body,
    encode_packet,
    kind_of,
    sign_packet,
    signature_holds,
)
from scarcity.federation.packets import (
    KINDS,
    Aborted,
    Absent,
    Ack,
    BasketReport,
    Body,
    Declined,
    GossipPull,
    GossipPush,
    Header,
    Model,
    ModelRequest,
    NoiseTerms,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unit,
    Unprotected,
)

KEY = SigningKey(b"k" * 32)
INTS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)
TEXT = st.text(max_size=20)
BLOB = st.binary(max_size=40)
FLOATS = st.floats(allow_nan=False)
INT_VECTORS = arrays(np.int64, st.integers(0, 12))
FLOAT_VECTORS = arrays(np.float64, st.integers(0, 12), elements=FLOATS)
SETTINGS = st.builds(
    RoundSettings,
    mode=st.sampled_from(TrustMode),
    unit=st.sampled_from(Unit),
    rule=TEXT,
    byzantine_share=st.floats(0, 1),
    clip_norm=st.floats(1e-9, 1e9),
    close_s=st.floats(1e-9, None, allow_nan=False),
)
BODIES: dict[type, st.SearchStrategy[Body]] = {
    RoundConfig: st.builds(
        RoundConfig, SETTINGS, st.builds(NoiseTerms, INTS, FLOATS, FLOATS), BLOB, COUNTS, BLOB, BLOB
    ),
    RosterNotice: st.builds(RosterNotice, BLOB, BLOB),
    ModelRequest: st.builds(ModelRequest),
    Ready: st.builds(Ready, INTS),
    Declined: st.builds(Declined, TEXT),
    Release: st.builds(Release, BLOB, INT_VECTORS, INTS),
    TrustedUpdate: st.builds(TrustedUpdate, BLOB, INT_VECTORS, INTS),
    Unprotected: st.builds(Unprotected, BLOB, FLOAT_VECTORS, INTS),
    Ack: st.builds(Ack, BLOB),
    SecureSum: st.builds(SecureSum, BLOB),
    BasketReport: st.builds(BasketReport, FLOATS, INTS, FLOATS),
    Absent: st.builds(Absent, TEXT, INTS, INTS),
    Aborted: st.builds(Aborted, TEXT),
    Model: st.builds(Model, INTS, BLOB, FLOAT_VECTORS, FLOATS, INTS, FLOATS, BLOB),
    GossipPush: st.builds(GossipPush, st.lists(BLOB, max_size=4).map(tuple)),
    GossipPull: st.builds(
        GossipPull, st.lists(st.tuples(TEXT, INTS, st.lists(TEXT).map(tuple)), max_size=4).map(tuple)
    ),
}
HEADERS = st.builds(Header, TEXT, INTS, TEXT, INTS, TEXT)


def test_every_kind_of_packet_has_a_strategy_here() -> None:
    assert set(BODIES) == set(KINDS.values())


@given(HEADERS, st.one_of(*BODIES.values()), BLOB)
def test_decoding_what_was_encoded_gives_the_same_packet_and_the_same_bytes(
    header: Header, body: Body, signature: bytes
) -> None:
    packet = Packet(header, body, signature)
    encoded = encode_packet(packet)
    assert decode_packet(encoded) == packet
    assert encode_packet(decode_packet(encoded)) == encoded
    assert decode_packet(memoryview(encoded)) == packet


@given(st.one_of(*BODIES.values()), st.one_of(*BODIES.values()))
def test_different_bodies_have_different_digests(one: Body, other: Body) -> None:
    same = encode_body(one) == encode_body(other)
    assert (body_digest(one) == body_digest(other)) is same
    assert (kind_of(one) == kind_of(other)) or not same


@given(HEADERS, HEADERS)
def test_a_signature_holds_for_its_place_only(header: Header, other: Header) -> None:
    packet = sign_packet(header, Declined("budget"), KEY)
    public_key = bytes(KEY.verify_key)
    assert signature_holds(packet, public_key)
    assert signature_holds(attrs.evolve(packet, header=other), public_key) is (other == header)


def test_what_a_packet_knows_of_its_digest_goes_with_no_other_body() -> None:
    packet = sign_packet(Header("f", 1, "basket/a", 2, "c"), Ready(1), KEY)
    other = attrs.evolve(packet, body=Ready(2))
    assert digest_in(packet) == body_digest(Ready(1))
    assert digest_in(other) == body_digest(Ready(2))
    assert digest_in(Packet(packet.header, Ready(2), packet.signature)) == body_digest(Ready(2))
    assert not signature_holds(other, bytes(KEY.verify_key))


@pytest.mark.parametrize("field", ["federation", "epoch", "scope", "round_id", "sender"])
def test_a_body_cannot_be_moved_to_another_place(field: str) -> None:
    header = Header("f", 1, "basket/a", 2, "c")
    packet = sign_packet(header, Ready(1), KEY)
    changed = 7 if field in {"epoch", "round_id"} else "x"
    moved = attrs.evolve(packet, header=attrs.evolve(header, **{field: changed}))
    assert not signature_holds(moved, bytes(KEY.verify_key))


def test_a_signature_does_not_carry_over_to_another_body_or_kind() -> None:
    packet = sign_packet(Header("f", 1, "s", 2, "c"), Declined("x"), KEY)
    for body in (Declined("y"), Aborted("x")):
        assert not signature_holds(attrs.evolve(packet, body=body), bytes(KEY.verify_key))


@pytest.mark.parametrize("key", [b"", b"short", b"\x00" * 32, b"\xff" * 32])
def test_a_broken_key_or_signature_holds_for_nothing_and_raises_nothing(key: bytes) -> None:
    packet = sign_packet(Header("f", 1, "s", 2, "c"), Declined("x"), KEY)
    assert not signature_holds(packet, key)
    assert not signature_holds(attrs.evolve(packet, signature=b"short"), bytes(KEY.verify_key))
