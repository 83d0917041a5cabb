"""The wire format as the page on links tells it: every kind of packet with its fields, and the bytes of a parcel."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import msgpack
import numpy as np

from actors.message import encode
from scarcity.federation.packets import KINDS, SIGNED, Body, Header, Model, Packet
from scarcity.federation.transport import Guarantee, guarantee_of
from scarcity.federation.validator import MAY_SAY
from scarcity.node.parcel import parcel_of

PAGE = (Path(__file__).parents[2] / "docs" / "links.md").read_text(encoding="utf-8")


def row(name: str, kind: type) -> str:
    fields = ", ".join(field.name for field in attrs.fields(kind)) or "none"
    ways = ", ".join(sorted(f"{author.value} to {receiver.value}" for author, receiver in MAY_SAY[kind]))
    guarantee = guarantee_of(cast("Body", object.__new__(kind)))
    channel = "best effort" if guarantee is Guarantee.BEST_EFFORT else "reliable"
    return f"| {name} | {fields} | {ways} | {'yes' if kind in SIGNED else 'no'} | {channel} |"


def test_the_page_has_every_kind_of_packet_as_it_is() -> None:
    for name, kind in KINDS.items():
        assert row(name, kind) in PAGE, row(name, kind)


def framed(data: bytes) -> tuple[list[object], bytes]:
    """Return header and rest of what stands behind a length."""
    size = 4 + int.from_bytes(data[:4], "little")
    return msgpack.unpackb(data[4:size]), data[size:]


def test_a_parcel_has_the_bytes_that_the_page_says() -> None:
    vector = np.array([0.5, -2.0])
    model = Model(3, b"s", vector, 9.0, 4, 0.1, b"c")
    packet = Packet(Header("f", 1, "layer2", 3, "coordinator"), model, bytes(64))
    tag, name, data = msgpack.unpackb(encode(parcel_of(packet)))
    assert (tag, name) == (2, "scarcity.protocol")
    assert f"name `{name}`" in PAGE
    size = 4 + int.from_bytes(data[:4], "little")
    envelope, rest = framed(data[4:size])
    assert envelope == [1, "packet", [["f", 1, "layer2", 3, "coordinator"], bytes(64)]]
    assert rest == b""
    body, arrays = framed(data[size:])
    assert body == [1, "model", [3, b"s", [2], 9.0, 4, 0.1, b"c"]]
    assert arrays == vector.astype("<f8").tobytes()
