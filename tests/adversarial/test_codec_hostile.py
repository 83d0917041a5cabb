"""Whatever the bytes: they decode to a packet whose canonical bytes they are, or CodecError."""

from __future__ import annotations

import struct
import time
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.errors import CodecError
from scarcity.federation.codec import decode_packet, encode_packet, sign_packet
from scarcity.federation.packets import (
    GossipPull,
    Header,
    Model,
    NoiseTerms,
    Packet,
    Release,
    RoundConfig,
    RoundSettings,
    Unprotected,
)

HEADER = Header("fed", 1, "basket/a", 3, "hospital_1")
KEY = SigningKey(b"k" * 32)
PACKETS = [
    sign_packet(HEADER, body, KEY)
    for body in (
        Release(b"schema", np.arange(5), 3),
        Unprotected(b"", np.linspace(0, 1, 4), 1),
        Model(3, b"s", np.ones(3), 4.0, 2, 0.5, b"c" * 32),
        RoundConfig(RoundSettings(), NoiseTerms(), b"", 4, b"r" * 32, b""),
        GossipPull((("model", 3, ("coordinator",)), ("release", 2, ("hospital_1", "hospital_2")))),
    )
]
ENCODED = [encode_packet(packet) for packet in PACKETS]
LENGTH = struct.Struct("<I")


def message(header: bytes, tail: bytes = b"") -> bytes:
    return LENGTH.pack(len(header)) + header + tail


ENVELOPE = message(msgpack.packb([1, "packet", [["fed", 1, "s", 0, "x"], b""]]))


def packet_of(body: bytes) -> bytes:
    return LENGTH.pack(len(ENVELOPE)) + ENVELOPE + body


def decodes_canonically_or_refuses(data: bytes) -> bool:
    """Return whether it decoded; anything but CodecError or the canonical form fails the test."""
    try:
        packet = decode_packet(data)
    except CodecError:
        return False
    assert isinstance(packet, Packet)
    assert encode_packet(packet) == data
    return True


def refused(data: bytes) -> bool:
    return not decodes_canonically_or_refuses(data)


@pytest.mark.parametrize("encoded", ENCODED)
def test_every_truncation_is_refused(encoded: bytes) -> None:
    assert all(refused(encoded[:size]) for size in range(len(encoded)))


@pytest.mark.parametrize("encoded", ENCODED)
def test_every_bit_flip_is_refused_or_another_canonical_packet(encoded: bytes) -> None:
    for at in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[at // 8] ^= 1 << at % 8
        decodes_canonically_or_refuses(bytes(flipped))


@pytest.mark.parametrize("encoded", ENCODED)
def test_bytes_after_the_end_are_refused(encoded: bytes) -> None:
    assert refused(encoded + b"\x00")
    assert refused(encoded + encoded)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_codec_error(data: bytes) -> None:
    decodes_canonically_or_refuses(data)
    decodes_canonically_or_refuses(packet_of(data))
    decodes_canonically_or_refuses(packet_of(message(data)))


WIRE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(["release", "model", "config", "local", "client", 1]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=25,
)


@settings(max_examples=300)
@given(
    st.sampled_from(["release", "unprotected", "model", "config", "gossip-push", "gossip-pull", "ready", "?"]),
    WIRE,
    st.binary(max_size=40),
)
def test_well_formed_msgpack_of_wrong_content_raises_nothing_but_codec_error(
    kind: str, fields: Any, tail: bytes
) -> None:
    decodes_canonically_or_refuses(packet_of(message(msgpack.packb([1, kind, fields]), tail)))


@settings(max_examples=300)
@given(st.sampled_from(ENCODED), st.data())
def test_mutated_packets_raise_nothing_but_codec_error(encoded: bytes, data: st.DataObject) -> None:
    mutated = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        size = data.draw(st.integers(0, 4))
        mutated[at : at + size] = data.draw(st.binary(max_size=6))
    decodes_canonically_or_refuses(bytes(mutated))


@pytest.mark.parametrize("version", [True, 1.0, 2, 0, "1", None, [1], 2**64 - 1])
def test_another_version_is_refused_even_if_it_equals_one(version: Any) -> None:
    assert not refused(packet_of(message(msgpack.packb([1, "model-request", []]))))
    assert refused(packet_of(message(msgpack.packb([version, "model-request", []]))))


@pytest.mark.parametrize("kind", ["", "packet", "Release", b"release", 1, None, [], {}])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    assert refused(packet_of(message(msgpack.packb([1, kind, []]))))


@pytest.mark.parametrize(
    "body",
    [
        b"\x93\x01\xa5ready\x91\xcc\x01",  # 1 as uint8
        b"\x93\x01\xa5ready\x91\xcf\x00\x00\x00\x00\x00\x00\x00\x01",  # 1 as uint64
        b"\x93\x01\xd9\x05ready\x91\x01",  # a long form of the kind's name
        b"\xdc\x00\x03\x01\xa5ready\x91\x01",  # a long form of the list
        b"\x93\x01\xa5ready\xdc\x00\x01\x01",
        b"\x93\x01\xa5ready\x91\xc3",  # True for 1
        b"\x93\x01\xa5ready\x91\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",  # 1.0 for 1
        b"\x93\x01\xa5ready\x81\x00\x01",  # a map
        b"\x93\x01\xa5ready\x91\x01\xc0",  # a second msgpack value
        b"\x93\x01\xadbasket-report\x93\xca\x3f\x80\x00\x00\x01\xcb\x00\x00\x00\x00\x00\x00\x00\x00",  # float32
        b"\x93\x01\xadbasket-report\x93\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x01\xcb" + b"\x00" * 8,  # NaN
        b"\x93\x01\xa7release\x93\xd6\xff\x00\x00\x00\x00\x91\x00\x01",  # a timestamp for the schema hash
        b"\x93\x01\xa8declined\x91\xa2\xc3\x28",  # text that is not UTF-8
        b"\x93\x01\xa8declined\x91\xa3\xed\xa0\x80",  # a lone surrogate
    ],
)
def test_second_forms_of_one_message_are_refused(body: bytes) -> None:
    assert refused(packet_of(message(body)))


def test_a_second_form_of_the_envelope_is_refused() -> None:
    body = message(msgpack.packb([1, "model-request", []]))
    for fields in ([["fed", True, "s", 0, "x"], b""], [["fed", 1, "s", 0.0, "x"], b""], [["fed", 1, "s", 0], b""]):
        envelope = message(msgpack.packb([1, "packet", fields]))
        assert refused(LENGTH.pack(len(envelope)) + envelope + body)
    padded = ENVELOPE + b"\x00"
    assert refused(LENGTH.pack(len(padded)) + padded + body)


@pytest.mark.parametrize(
    ("shape", "tail"),
    [
        ([2**63 - 1], b""),
        ([2**32, 2**32], b""),
        ([0, 2**63], b""),
        ([0, 2**63 - 1], b""),
        ([-1], b""),
        ([True], b"\x00" * 8),
        ([1.0], b"\x00" * 8),
        ([1, 1, 1], b"\x00" * 8),
        ([2], b"\x00" * 8),
        ([1], b"\x00" * 16),
        (1, b"\x00" * 8),
        (None, b""),
    ],
)
def test_a_shape_that_does_not_fit_its_bytes_raises_nothing_but_codec_error(shape: Any, tail: bytes) -> None:
    decoded = decodes_canonically_or_refuses(packet_of(message(msgpack.packb([1, "release", [b"", shape, 1]]), tail)))
    assert not decoded or 0 in shape


@pytest.mark.parametrize("depth", [10, 500, 990, 1000, 1020, 1030, 100_000])
@pytest.mark.parametrize("kind", ["release", "config", "gossip-push", "model-request"])
def test_deep_nesting_is_refused_and_exhausts_nothing(depth: int, kind: str) -> None:
    deep = b"\x91" * depth + b"\x90"
    name = msgpack.packb(kind)
    assert refused(packet_of(message(b"\x93\x01" + name + deep)))
    assert refused(packet_of(message(b"\x93\x01" + name + b"\x93\xc4\x00" + deep + b"\x01")))
    assert refused(packet_of(message(b"\x93\x01" + deep + b"\x90")))
    settings_of_a_config = b"\xdc\x00\x11" + deep + b"\x00" * 16
    assert refused(packet_of(message(b"\x93\x01" + name + b"\x96" + settings_of_a_config + b"\x00" * 5)))


@pytest.mark.parametrize(
    "header",
    [
        b"\x93\x01\xa7release\xdd\xff\xff\xff\xff",  # 2^32 elements announced
        b"\x93\x01\xa7release\xc6\xff\xff\xff\xff",  # 4 GiB of bytes announced
        b"\x93\x01\xa7release\xdf\xff\xff\xff\xff",
        b"\xdd\x00\x0f\xff\xff" + b"\x90" * 0xFFFFF,  # a megabyte of empty lists
        b"\x93\x01\xabgossip-push\x91\xdd\x00\x02\x00\x00" + b"\xc4\x00" * 0x20000,  # more items than allowed
    ],
    ids=["list", "bytes", "map", "lists", "items"],
)
def test_bombs_are_refused_cheaply(header: bytes) -> None:
    started = time.perf_counter()
    assert refused(packet_of(message(header)))
    assert time.perf_counter() - started < 1.0


def test_a_length_that_points_outside_is_refused() -> None:
    for length in (0, 1, len(ENVELOPE) - 1, len(ENVELOPE) + 1, 2**31, 2**32 - 1):
        assert refused(LENGTH.pack(length) + ENVELOPE + message(msgpack.packb([1, "model-request", []])))


def test_an_oversized_message_is_refused() -> None:
    assert refused(packet_of(b"\x00" * ((16 << 20) + 1)))


def test_settings_out_of_range_are_refused_as_a_codec_error() -> None:
    for old, new in ((0.7, 1.5), (0.2, float("inf")), (0.7, float("nan"))):
        data = ENCODED[3].replace(struct.pack(">d", old), struct.pack(">d", new), 1)
        assert data != ENCODED[3]
        assert refused(data)


def test_decoded_arrays_cannot_be_written_to() -> None:
    body = decode_packet(ENCODED[0]).body
    assert isinstance(body, Release)
    with pytest.raises(ValueError, match="read-only"):
        body.vector[0] = 1
