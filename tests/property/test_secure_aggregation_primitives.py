"""Algebra of the parts: sharing, masks, ring, keys, and the one binary form of every message."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import attrs
import nacl.bindings as sodium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.errors import CodecError, InvalidUpdate
from scarcity.federation.secure_aggregation import decode, dequantise, encode, quantise
from scarcity.federation.secure_aggregation.masks import (
    CHUNK_BYTES,
    Secret,
    add_mask,
    exchange,
    is_sound_point,
    pair_seed,
    self_seed,
)
from scarcity.federation.secure_aggregation.messages import KINDS
from scarcity.federation.secure_aggregation.ring import from_ring, to_ring
from scarcity.federation.secure_aggregation.shamir import (
    PRIME,
    deal,
    decode_shares,
    encode_shares,
    interpolate,
    secret_of,
)
from tests.secure_aggregation_world import World, entropy, play

SECRET = hashlib.blake2b(b"secret", digest_size=32).digest()


def chi_square(observed: np.ndarray) -> float:
    """Return the statistic of equal cells."""
    expected = observed.sum() / len(observed)
    return float(((observed - expected) ** 2 / expected).sum())


# Shamir.


def slow_shares(secret: bytes, points: tuple[int, ...], coefficients: np.ndarray) -> list[list[int]]:
    """The obvious version: Horner's rule in Python's ints, limb by limb."""
    shares = []
    for x in points:
        row = []
        for limb in range(16):
            value = 0
            for coefficient in [
                *coefficients[::-1, limb].tolist(),
                int.from_bytes(secret[2 * limb : 2 * limb + 2], "little"),
            ]:
                value = (value * x + coefficient) % PRIME
            row.append(value)
        shares.append(row)
    return shares


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.integers(0, 10**6))
def test_the_matrix_product_deals_what_horners_rule_deals(secret: bytes, t: int, seed: int) -> None:
    points = tuple(range(1, 10))
    rows = decode_shares(deal([secret], points, t, entropy(str(seed))))
    drawn = np.frombuffer(entropy(str(seed))(4 * 16 * (t - 1)), dtype="<u4").astype(np.int64).reshape(t - 1, 16)
    assert rows is not None
    assert rows[:, 0].tolist() == slow_shares(secret, points, drawn % PRIME)


@given(st.binary(min_size=32, max_size=32), st.integers(4, 7), st.data())
@settings(max_examples=40)
def test_every_t_subset_of_shares_gives_the_secret(secret: bytes, n: int, data: st.DataObject) -> None:
    t = data.draw(st.integers(1, n))
    points = tuple(sorted(data.draw(st.sets(st.integers(1, 200), min_size=n, max_size=n))))
    shares = decode_shares(deal([secret, SECRET], points, t, entropy("deal")))
    assert shares is not None
    for chosen in itertools.combinations(range(n), t):
        held = shares[list(chosen)].reshape(t, -1)
        limbs = interpolate(held, tuple(points[i] for i in chosen), (0,))[0].reshape(2, 16)
        assert [secret_of(row) for row in limbs] == [secret, SECRET]


def test_fewer_than_t_shares_are_uniform_whatever_the_secret() -> None:
    # 2,000 dealings of each secret, t - 1 = 2 shares; chi-square of 64 cells, false alarm below 1e-6 (fixed seed).
    for secret in (bytes(32), b"\xff" * 32):
        draw = entropy("uniform" + secret.hex())
        shares = decode_shares(np.stack([deal([secret], (1, 2), 3, draw) for _ in range(2000)]))
        assert shares is not None
        for holder in (0, 1):
            cells = np.bincount(shares[:, holder].ravel() * 64 // PRIME, minlength=64)
            assert chi_square(cells) < 130
        joint = (shares[:, 0] * 8 // PRIME) * 8 + shares[:, 1] * 8 // PRIME
        assert chi_square(np.bincount(joint.ravel(), minlength=64)) < 130


@given(st.lists(st.integers(0, PRIME - 1), min_size=16, max_size=16))
def test_a_share_has_one_form_of_34_bytes(limbs: list[int]) -> None:
    rows = encode_shares(np.array([limbs]))
    assert rows.shape == (1, 34)
    again = decode_shares(rows)
    assert again is not None
    assert again.tolist() == [limbs]


def test_a_limb_of_65536_that_is_stored_as_something_else_is_refused() -> None:
    rows = encode_shares(np.full((1, 16), PRIME - 1))
    rows[0, 0] = 1
    assert decode_shares(rows) is None


def test_a_reconstructed_limb_of_65536_is_no_secret() -> None:
    assert secret_of(np.array([PRIME - 1] + [0] * 15)) is None


# Masks.


@given(st.integers(1, 3 * CHUNK_BYTES // 4 + 9), st.sampled_from([4, 8]), st.binary(min_size=32, max_size=32))
@settings(max_examples=30)
def test_the_generator_gives_the_bytes_of_aead_over_zeros(d: int, width: int, seed: bytes) -> None:
    total = np.zeros(d, dtype=f"<u{width}")
    add_mask(total, seed, subtract=False)
    expected = bytearray()
    for index, start in enumerate(range(0, d * width, CHUNK_BYTES)):
        zeros = bytes(min(CHUNK_BYTES, d * width - start))
        nonce = index.to_bytes(12, "little")
        expected += sodium.crypto_aead_chacha20poly1305_ietf_encrypt(zeros, None, nonce, seed)[:-16]
    assert total.tobytes() == bytes(expected)


@given(st.integers(1, 400), st.sampled_from([4, 8]), st.binary(min_size=32, max_size=32))
def test_a_mask_added_and_subtracted_is_gone(d: int, width: int, seed: bytes) -> None:
    before = np.arange(d, dtype=f"<u{width}")
    total = before.copy()
    add_mask(total, seed, subtract=False)
    add_mask(total, seed, subtract=True)
    assert np.array_equal(total, before)


def test_keys_differ_when_any_of_their_inputs_differs() -> None:
    shared, ctx, u1 = (hashlib.blake2b(name, digest_size=32).digest() for name in (b"k", b"ctx", b"u1"))
    base = pair_seed(shared, ctx, u1, 1, 2)
    assert base == pair_seed(shared, ctx, u1, 2, 1)
    others = [
        pair_seed(ctx, ctx, u1, 1, 2),
        pair_seed(shared, u1, u1, 1, 2),
        pair_seed(shared, ctx, ctx, 1, 2),
        pair_seed(shared, ctx, u1, 1, 3),
        pair_seed(shared, ctx, u1, 0, 2),
        self_seed(ctx, shared),
        self_seed(u1, shared),
    ]
    assert len({base, *others}) == len(others) + 1


def test_keys_of_another_suite_differ() -> None:
    world = World(3)
    assert world.config().ctx != world.config(suite=2).ctx


def test_points_of_small_order_and_non_canonical_points_are_unsound() -> None:
    p = 2**255 - 19
    for value in (0, 1, p - 1, p, p + 1, p + 9, 2**255 - 1, 2**255 + 9):
        assert not is_sound_point(value.to_bytes(32, "little"))
    assert is_sound_point((9).to_bytes(32, "little"))


def test_every_point_of_small_order_gives_no_shared_secret() -> None:
    secret = Secret("MaskKey", SECRET)
    for text in (
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "00" * 32,
        "01" + "00" * 31,
    ):
        assert exchange(secret, bytes.fromhex(text)) is None
        assert not is_sound_point(bytes.fromhex(text))


# Ring.


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.sampled_from([1.0, 100.0, 1e4]))
def test_quantisation_truncates_toward_zero_and_no_norm_grows(values: list[float], clip: float) -> None:
    scale = 2.0**20
    q = quantise(values, dimension=len(values), clip=clip, scale=scale)
    clipped = [max(-clip, min(clip, value)) for value in values]
    assert q.tolist() == [int(value * scale) for value in clipped]
    assert np.all(np.abs(dequantise(q, scale=scale)) <= np.abs(clipped))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9), st.sampled_from([32, 64]))
def test_the_ring_keeps_signed_integers(values: list[int], bits: int) -> None:
    assert from_ring(to_ring(np.array(values), bits)).tolist() == values


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [[1.0]], ["1"], [1 + 0j], [True, False], [None]])
def test_what_is_not_a_finite_real_vector_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidUpdate):
        quantise(bad, dimension=1, clip=1.0, scale=1.0)


# The binary form.


def conversation() -> list[Any]:
    """Return one message of every kind."""
    world = World(4, d=2)
    clients = world.clients()
    clients["c03"] = world.client("c03", policy=world.policy(n_min=5))
    log = play(world.coordinator(), clients, world.inputs())
    firsts = {type(message): message for _, message in reversed(log.up + log.down)}
    return list(firsts.values())


MESSAGES = conversation()


def test_every_kind_of_message_takes_part_in_the_tests_of_the_form() -> None:
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_decodes_to_itself_and_encodes_to_the_same_bytes(message: Any) -> None:
    data = encode(message)
    assert decode(data) == message
    assert encode(decode(data)) == data


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_any_changed_cut_or_longer_bytes_are_refused_or_are_another_message(message: Any) -> None:
    data = encode(message)
    for at in range(0, len(data), max(1, len(data) // 200)):
        changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        try:
            other = decode(changed)
        except CodecError:
            continue
        assert encode(other) == changed != data
        assert other != message
    for wrong in (data[:-1], data + b"\0", b"", data[:3]):
        with pytest.raises(CodecError):
            decode(wrong)


def test_a_table_of_the_wrong_width_is_no_message() -> None:
    reveal = next(m for m in MESSAGES if type(m).__name__ == "Reveal")
    with pytest.raises(ValueError, match="slots"):
        attrs.evolve(reveal, slots=np.zeros((2, 68), dtype=np.uint8))
