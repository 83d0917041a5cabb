"""What holds for every packet in the outbox: no value leaves through it, and its list is one chain."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.federation.codec import encode_packet
from scarcity.federation.packets import Body, GossipPush, Header, Model, Packet, Release, TrustedUpdate, Unprotected
from scarcity.node.watch.outbox import Outbox, read_outbox

KEY = SigningKey(bytes(32))
# No figure of a record is as large: sizes, rounds and shapes are small.
_ints = st.lists(st.integers(10**12, 2**62), min_size=1, max_size=6)
_floats = st.lists(st.floats(1e12, 1e300), min_size=1, max_size=6)
_bodies = st.one_of(
    _ints.map(lambda values: Release(b"", np.array(values, dtype=np.int64), 1)),
    _ints.map(lambda values: TrustedUpdate(b"", np.array(values, dtype=np.int64), 1)),
    _floats.map(lambda values: Unprotected(b"", np.array(values), 1)),
    _floats.map(lambda values: Model(1, b"", np.array(values), 1.0, 1, 0.0, b"")),
)


def _packet(body: Body) -> Packet:
    return Packet(Header("fed", 1, "basket/a", 1, "h1"), body)


def _figures(value: object) -> list[float]:
    if isinstance(value, dict):
        return [figure for inner in value.values() for figure in _figures(inner)]
    if isinstance(value, list):
        return [figure for inner in value for figure in _figures(inner)]
    return [float(value)] if isinstance(value, int | float) else []


@given(st.lists(st.tuples(_bodies, st.booleans()), min_size=1, max_size=4))
@settings(max_examples=60)
def test_no_value_of_a_packets_arrays_is_in_a_record(bodies: list[tuple[Body, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox"
        outbox = Outbox(path, KEY, lambda: 0.0)
        for body, gossip in bodies:
            packet = _packet(GossipPush((encode_packet(_packet(body)),)) if gossip else body)
            outbox.record("h1", "basket/a", "beta", packet, encode_packet(packet))
        outbox.close()
        text = path.read_text()
        records = read_outbox(path, KEY.verify_key.encode())
    assert [record.seq for record in records] == list(range(len(bodies)))
    known = {float(value) for body, _ in bodies for value in getattr(body, "vector")}  # noqa: B009 - a union
    for line in text.splitlines():
        assert not known.intersection(_figures(json.loads(line)))
    for body, _ in bodies:
        for value in getattr(body, "vector").tolist():  # noqa: B009 - a union
            assert repr(value) not in text


@given(st.integers(1, 5), st.data())
@settings(max_examples=60)
def test_any_cut_of_the_list_is_a_whole_shorter_list(count: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox"
        outbox = Outbox(path, KEY, lambda: 0.0)
        packet = _packet(Release(b"", np.array([1]), 1))
        for _ in range(count):
            outbox.record("h1", "basket/a", "beta", packet, encode_packet(packet))
        outbox.close()
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:at])
        again = Outbox(path, KEY, lambda: 0.0)
        assert len(again) == whole[:at].count(b"\n")
        again.record("h1", "basket/a", "beta", packet, encode_packet(packet))
        again.close()
        assert len(read_outbox(path, KEY.verify_key.encode())) == len(again)
