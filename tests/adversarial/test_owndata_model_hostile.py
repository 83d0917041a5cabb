from __future__ import annotations

import hashlib
import json
import struct

import attrs
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.engine import OnlineDiscoveryEngine, Schema, Variable
from scarcity.errors import CodecError
from scarcity.node.data.model_file import MAX_FILE_BYTES, ModelFile, Provenance, decode_model, encode_model

SCHEMA = Schema([Variable("x", scale=1.0)], lags=1, horizon=3)
MADE = Provenance("scarcity 0", "a test", "distributed", "record", "average", 1.0, 1e-6, 8, 2, 1, reproducible=True)
MAGIC = b"scarcity model 1\n"


def good() -> bytes:
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.process_rows(np.random.default_rng(0).normal(size=(50, 1)))
    return encode_model(ModelFile(engine.differenced(), MADE))


GOOD = good()


def sealed(body: bytes, magic: bytes = MAGIC) -> bytes:
    """What an attacker can do: the hash is no secret."""
    data = magic + body
    return data + hashlib.blake2b(data, digest_size=32, person=b"scarcity-model").digest()


def parts() -> tuple[list[object], bytes]:
    body = GOOD[len(MAGIC) : -32]
    (length,) = struct.unpack_from("<I", body)
    return msgpack.unpackb(body[4 : 4 + length]), body[4 + length :]


def packed(header: object, arrays: bytes) -> bytes:
    head = msgpack.packb(header)
    return sealed(struct.pack("<I", len(head)) + head + arrays)


def forged(index: int, value: object) -> bytes:
    header, arrays = parts()
    fields = header[2]
    assert isinstance(fields, list)
    fields[index] = value
    return packed(header, arrays)


def test_the_forger_of_these_tests_can_make_a_good_one() -> None:
    header, arrays = parts()
    assert packed(header, arrays) == GOOD


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_codec_error(data: bytes) -> None:
    for whole in (data, MAGIC + data, sealed(data), sealed(data, b"scarcity model 01\n")):
        with pytest.raises(CodecError):
            decode_model(whole)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_one_changed_byte_is_found(where: int, change: int) -> None:
    with pytest.raises(CodecError):
        decode_model(GOOD[:where] + bytes([GOOD[where] ^ change]) + GOOD[where + 1 :])


@given(st.integers(0, len(GOOD) - 33), st.integers(1, 255))
def test_a_changed_byte_under_a_new_hash_is_refused_or_another_sound_model(where: int, change: int) -> None:
    """A changed number of the vector is another model; everything else is refused. Nothing else ever happens."""
    body = GOOD[:-32]
    body = body[:where] + bytes([body[where] ^ change]) + body[where + 1 :]
    try:
        made = decode_model(sealed(body[len(MAGIC) :], body[: len(MAGIC)]))
    except CodecError:
        return
    assert encode_model(made)[:-32] == body


@given(st.integers(0, len(GOOD) - 1))
def test_a_file_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(CodecError):
        decode_model(GOOD[:length])


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, "{"),
        (0, "[" * 100_000),
        (0, json.dumps(SCHEMA.to_dict())),
        (0, json.dumps({**SCHEMA.to_dict(), "lags": 2}, sort_keys=True, separators=(",", ":"))),
        (0, json.dumps({**SCHEMA.to_dict(), "colour": 2}, sort_keys=True, separators=(",", ":"))),
        (1, "sorted"),
        (1, "centred"),
        (2, [2**40]),
        (2, [0]),
        (2, [2, 2]),
        (3, -1),
        (3, 1.5),
        (3, True),
        (4, -1),
        (5, -0.5),
        (5, float("inf")),
        (6, []),
        (6, [*attrs.astuple(MADE)[:-1], 1]),
        (6, ["x" * 201, *attrs.astuple(MADE)[1:]]),
        (6, [*attrs.astuple(MADE)[:5], float("inf"), *attrs.astuple(MADE)[6:]]),
    ],
)
def test_a_field_that_cannot_be_is_refused(index: int, value: object) -> None:
    with pytest.raises(CodecError) as caught:
        decode_model(forged(index, value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e200])
def test_numbers_that_no_rows_have_are_refused(number: float) -> None:
    header, arrays = parts()
    with pytest.raises(CodecError):
        decode_model(packed(header, struct.pack("<d", number) + arrays[8:]))


def test_trailing_bytes_and_a_second_form_of_the_header_are_refused() -> None:
    header, arrays = parts()
    with pytest.raises(CodecError):
        decode_model(packed(header, arrays + b"\0"))
    loose = msgpack.packb(header, use_single_float=False).replace(b"\xa5model", b"\xd9\x05model")
    with pytest.raises(CodecError):
        decode_model(sealed(struct.pack("<I", len(loose)) + loose + arrays))


def test_a_file_beyond_the_limit_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(CodecError, match="at most"):
        decode_model(MAGIC + bytes(MAX_FILE_BYTES))
