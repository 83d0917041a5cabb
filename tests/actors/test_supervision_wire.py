"""Messages as bytes: what goes in comes out, what cannot travel is refused, and hostile bytes are one error."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from typing import Any

import anyio.lowlevel
import attrs
import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actors import Actor, ActorRef, ActorSystem, Context, handles, message
from actors.address import Address
from actors.errors import BadMessage
from actors.message import Down, WireLimits, decode, encode


@message("wire.box")
class Box:
    content: object


@message("wire.pair")
class Pair:
    left: int = attrs.field(validator=attrs.validators.instance_of(int))
    right: str
    both: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "both", f"{self.left}{self.right}")


@message("wire.empty")
class Empty:
    pass


class Nobody:
    """A router that delivers nothing."""

    def route_tell(self, to: ActorRef, message: object, sender: ActorRef | None) -> None: ...

    async def route_send(self, to: ActorRef, message: object, sender: ActorRef | None) -> None: ...

    async def route_ask(self, to: ActorRef, message: object, deadline: float, sender: ActorRef | None) -> object: ...


def resolve(address: str) -> ActorRef:
    return ActorRef(Address.parse(address), Nobody())


DTYPES = ["<f8", "<f4", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | arrays
    | st.just(resolve("scarcity://far/healthcare/basket"))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(Box, inner)
        | st.builds(Pair, st.integers(-5, 5), st.text(max_size=3))
        | st.just(Empty())
    ),
    max_leaves=15,
)


def same(one: object, two: object) -> bool:
    """Equal in value and exact type, NaN equal to itself."""
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, float) and isinstance(two, float):
        return one == two or (math.isnan(one) and math.isnan(two))
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(map(same, one.values(), two.values()))
    if isinstance(one, Box) and isinstance(two, Box):
        return same(one.content, two.content)
    return one == two


@given(values)
def test_decoding_gives_back_what_was_encoded(value: object) -> None:
    data = encode(Box(value))
    assert same(decode(data, resolve), Box(value))
    assert same(decode(encode(value), resolve), value)
    assert encode(decode(data, resolve)) == data


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(9, dtype=">i4")[::2], np.full((), 2.0)])
def test_an_array_travels_in_any_layout_and_comes_read_only_and_little_endian(array: np.ndarray[Any, Any]) -> None:
    found = decode(encode(array))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, array)
    assert found.dtype.str.startswith("<")
    assert not found.flags.writeable


class Strange:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Strange(),
        Strange,
        {1, 2},
        1 + 2j,
        2**64,
        -(2**63) - 1,
        "\ud800",
        bytearray(b"x"),
        np.float64(1.0),
        np.array(["text"]),
        np.array([None]),
        np.array([True]),
        np.array([1j]),
        np.zeros((1,) * 9),
        np.ma.masked_array([1.0]),
        {1: "x"},
        {b"x": 1},
        [[]] * 20_000,
        [0] * 1025,
        "x" * 70_000,
        b"x" * (4 << 20),
        [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]],
        type("Sub", (dict,), {})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_is_refused(value: object) -> None:
    with pytest.raises(BadMessage):
        encode(Box(value))


def pack(value: object) -> bytes:
    return bytes(msgpack.packb(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack([2, "wire.box", 1]) + b"\x00",
        pack([2, "wire.box", 1])[:-1],
        pack([]),
        pack([9]),
        pack([True, 1]),
        pack([1.0, 1]),
        pack([None]),
        pack([2]),
        pack([2, "unknown", 1]),
        pack([2, b"wire.box", 1]),
        pack([2, ["wire.box"], 1]),
        pack([2, "wire.box"]),
        pack([2, "wire.box", 1, 2]),
        pack([2, "wire.pair", "not an int", "x"]),
        pack([2, "actors.down", [4, "nowhere"], "stopped"]),
        pack([4]),
        pack([4, 7]),
        pack([4, "scarcity://a/b", 1]),
        pack([4, "scarcity://../../etc passwd"]),
        pack([3]),
        pack([3, "<f8"]),
        pack([3, "<f8", b"1234567"]),
        pack([3, "<f8", b"", 1]),
        pack([3, "<f8", b"", -1]),
        pack([3, "<f8", b"12345678", True]),
        pack([3, "<f8", b"", 0, 2**63]),
        pack([3, "<f8", b"", 0, 2**62, 2**62]),
        pack([3, "|O", b"12345678", 1]),
        pack([3, ["<f8"], b"12345678", 1]),
        pack([3, "<f8", "12345678", 1]),
        pack([3, "<f8", b"12345678", *([1] * 9)]),
        pack({1: 2}),
        pack({b"x": 2}),
        b"\x82\xa1a\x01\xa1a\x02",  # the same key twice
        b"\x81\x90\x01",  # a list as a key
        pack(msgpack.ExtType(5, b"x")),
        pack(msgpack.Timestamp(1)),
        b"\xa2\xff\xff",  # no UTF-8
        b"\x91" * 100_000,
        b"\x81\xa1a" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        pack("x" * 70_000),
        b"\x00" * ((4 << 20) + 1),
    ],
    ids=lambda data: data[:12].hex() or "nothing",
)
def test_hostile_bytes_are_one_error(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data, resolve)


@settings(max_examples=300)
@example(b"\x93\x03\xa3<f8\xc4\x00")
@given(st.binary(max_size=60) | values.map(encode).flatmap(lambda data: st.permutations(list(data[:40])).map(bytes)))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        value = decode(data, resolve)
    except BadMessage:
        return
    assert same(decode(encode(value), resolve), value)


@given(values, st.data())
def test_a_message_that_is_cut_or_changed_is_refused_or_another_message(value: object, draw: st.DataObject) -> None:
    data = bytearray(encode(Box(value)))
    at = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(BadMessage):
        decode(bytes(data[:at]), resolve)
    data[at] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(BadMessage):
        decode(bytes(data), resolve)


def test_bombs_cost_little_memory() -> None:
    for bomb in (
        b"\xdc\x03\xff" * 1020 + b"\x00" * 2_000_000,  # a thousand open lists of a thousand
        b"\xdc\x03\xff" + (b"\xdc\x03\xff" + b"\x80" * 1023) * 1023,  # a million empty dicts
        b"\xdd\x7f\xff\xff\xff" * 1000,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(BadMessage):
                decode(bomb)
            assert tracemalloc.get_traced_memory()[1] < 12 << 20
        finally:
            tracemalloc.stop()


def test_limits_are_settings_and_bind_both_sides() -> None:
    data = encode([1, 2, 3])
    for tight in (WireLimits(items=2), WireLimits(nodes=3), WireLimits(depth=0), WireLimits(message_bytes=3)):
        with pytest.raises(BadMessage):
            encode([1, 2, 3], tight)
    for tight in (WireLimits(nodes=3), WireLimits(depth=0), WireLimits(message_bytes=3)):
        with pytest.raises(BadMessage):
            decode(data, None, tight)
    with pytest.raises(BadMessage):
        decode(encode("four"), None, WireLimits(text_bytes=3))


def test_a_reference_needs_somebody_to_resolve_it() -> None:
    data = encode(Down(resolve("scarcity://far/actor"), "stopped"))
    assert decode(data, resolve) == Down(resolve("scarcity://far/actor"), "stopped")
    with pytest.raises(BadMessage, match="reference"):
        decode(data)


class Keeper(Actor):
    def __init__(self) -> None:
        self.kept: list[object] = []

    @handles(Box)
    def keep(self, msg: Box, ctx: Context) -> object:
        self.kept.append(msg.content)
        return msg.content

    @handles(Empty)
    def odd(self, msg: Empty, ctx: Context) -> object:
        return Strange()


@pytest.mark.anyio
async def test_in_a_system_that_copies_no_two_actors_share_an_object() -> None:
    keeper = Keeper()
    content = [1, np.arange(3.0), {"a": (None, True)}]
    async with ActorSystem("s", copy="wire") as system:
        ref = await system.spawn(keeper)
        reply = await ref.ask(Box(content), deadline=5)
        ref.tell(Box(content))
        await ref.send(Box(ref))
        while len(keeper.kept) < 3:
            await anyio.lowlevel.checkpoint()
    assert same(keeper.kept[:2], [content, content])
    assert same(reply, content)
    assert len({id(found) for found in (content, reply, *keeper.kept)}) == 5
    assert keeper.kept[2] == ref


@pytest.mark.anyio
async def test_in_a_system_that_copies_what_cannot_travel_is_its_senders_error() -> None:
    async with ActorSystem("s", copy="wire") as system:
        ref = await system.spawn(Keeper)
        for wrong in ("text", Box(Strange()), [1]):
            with pytest.raises(BadMessage):
                ref.tell(wrong)
            with pytest.raises(BadMessage):
                await ref.send(wrong)
            with pytest.raises(BadMessage):
                await ref.ask(wrong, deadline=1)
        with pytest.raises(BadMessage, match="Strange"):
            await ref.ask(Empty(), deadline=5)
        assert await ref.ask(Box(1), deadline=5) == 1
        assert system.failures == ()


def test_a_way_to_copy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="copy"):
        ActorSystem("s", copy="deep")  # type: ignore[arg-type]  # wrong on purpose
