"""The framer: the same frames however the bytes are chopped, and limits before anything is kept."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import BadFrame
from actors.links.frame import COPY_BELOW_BYTES, HEAD, HEAD_BYTES, Frame, Framer, encode_frame, split_frame

LIMIT = 200_000
frames = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.binary(max_size=40),
        st.one_of(st.binary(max_size=60), st.integers(0, 3 * COPY_BELOW_BYTES).map(lambda n: bytes([n % 256]) * n)),
    ),
    max_size=8,
)


def receive(framer: Framer, data: bytes) -> list[Frame]:
    found: list[Frame] = []
    framer.receive(data, found)
    return found


def plain(found: list[Frame]) -> list[tuple[int, bytes, bytes]]:
    return [(kind, header, bytes(blob)) for kind, header, blob in found]


@given(frames)
def test_frames_come_out_of_one_piece_as_they_went_in(sent: list[tuple[int, bytes, bytes]]) -> None:
    framer = Framer(LIMIT)
    assert plain(receive(framer, b"".join(encode_frame(*frame) for frame in sent))) == sent
    assert framer.partial_bytes == 0


@given(frames, st.data())
def test_frames_are_the_same_however_the_bytes_are_chopped(
    sent: list[tuple[int, bytes, bytes]], data: st.DataObject
) -> None:
    wire = b"".join(encode_frame(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    framer = Framer(LIMIT)
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found += receive(framer, wire[start:stop])
        assert framer.partial_bytes <= stop
    assert plain(found) == sent


def test_frames_are_the_same_byte_by_byte() -> None:
    sent = [(1, b"", b""), (2, b"head", b""), (255, b"h", bytes(30_000)), (3, b"", b"x"), (4, bytes(300), b"tail")]
    framer, found = Framer(LIMIT), []
    for byte in b"".join(encode_frame(*frame) for frame in sent):
        found += receive(framer, bytes([byte]))
    assert plain(found) == sent


def test_a_large_blob_is_a_read_only_view_and_a_small_one_does_not_pin_its_chunk() -> None:
    wire = encode_frame(1, b"h", bytes(COPY_BELOW_BYTES)) + encode_frame(1, b"h", bytes(COPY_BELOW_BYTES - 1))
    for pieces in ([wire], [wire[:100], wire[100:]]):
        framer = Framer(LIMIT)
        (_, _, large), (_, _, small) = [frame for piece in pieces for frame in receive(framer, piece)]
        assert isinstance(large, memoryview)
        assert large.readonly
        assert isinstance(small, bytes)


@pytest.mark.parametrize(
    "head",
    [
        HEAD.pack(0xFFFFFFFF, 1, 0),
        HEAD.pack(LIMIT + 1, 1, 0),
        HEAD.pack(4, 1, 0),  # shorter than its own head
        HEAD.pack(0, 0, 0),
        HEAD.pack(10, 1, 6),  # the header is longer than the frame
        HEAD.pack(100, 1, 0xFFFFFFFF),
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # the opening of TLS
    ],
)
def test_a_head_that_breaks_a_limit_is_refused_at_once_whole_and_byte_by_byte(head: bytes) -> None:
    with pytest.raises(BadFrame):
        receive(Framer(LIMIT), head)
    with pytest.raises(BadFrame):
        split_frame(head, LIMIT)
    framer = Framer(LIMIT)
    assert receive(framer, head[: HEAD_BYTES - 1]) == []
    with pytest.raises(BadFrame):
        receive(framer, head[HEAD_BYTES - 1 :])


@given(st.binary(max_size=500))
def test_garbage_gives_frames_or_bad_frame_and_never_anything_else(data: bytes) -> None:
    framer = Framer(100)
    try:
        receive(framer, data)
    except BadFrame:
        return
    assert framer.partial_bytes <= 104


def test_a_claimed_length_costs_nothing_until_the_bytes_come() -> None:
    framers = [Framer(4 * 1024 * 1024) for _ in range(100)]
    tracemalloc.start()
    for framer in framers:
        receive(framer, HEAD.pack(4 * 1024 * 1024, 1, 0) + b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_a_frame_in_small_pieces_costs_no_more_than_itself() -> None:
    size = 40_000
    wire, framer = encode_frame(1, b"", bytes(size)), Framer(size + 100)
    tracemalloc.start()
    for at in range(0, len(wire) - 2, 2):
        receive(framer, wire[at : at + 2])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert framer.partial_bytes > size - 100
    assert peak < 2.2 * size  # the buffer, and its copy while it grows


@given(st.integers(0, 255), st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30))
def test_the_first_frame_can_be_split_off(kind: int, header: bytes, blob: bytes, rest: bytes) -> None:
    wire = encode_frame(kind, header, blob)
    assert split_frame(wire + rest, 1000) == ((kind, header, blob), rest)
    for stop in range(len(wire)):
        assert split_frame(wire[:stop], 1000) is None


def test_the_layout_is_the_documented_one() -> None:
    assert encode_frame(7, b"hd", b"blob") == struct.pack("<I", 11) + b"\x07" + struct.pack("<I", 2) + b"hdblob"


def test_what_came_before_a_bad_head_is_not_lost() -> None:
    found: list[Frame] = []
    with pytest.raises(BadFrame):
        Framer(LIMIT).receive(encode_frame(1, b"good") + b"\xff" * 9, found)
    assert found == [(1, b"good", b"")]
