"""Parcels hold bytes and nothing else, whoever builds them; and a shell outlives one that holds something else."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from actors import ActorSystem
from actors.address import ActorRef, Address
from actors.errors import BadMessage
from actors.mailbox import Envelope
from actors.message import decode, encode
from scarcity.errors import CodecError
from scarcity.federation.codec import decode_packet
from scarcity.federation.effects import Effect, Reject, Waiting
from scarcity.federation.packets import Packet
from scarcity.node.journal import MemoryJournal
from scarcity.node.parcel import GossipParcel, Parcel
from scarcity.node.shell import CoreActor

# One of every type that the wire knows, but bytes.
OTHERS: list[object] = [
    None,
    True,
    5,
    2.5,
    "text",
    {"a": 1},
    [b"x"],
    (b"x",),
    np.zeros(3),
    np.zeros(64, dtype=np.uint8),
    Parcel(b"x"),
    ActorRef(Address("n", "a"), None),  # type: ignore[arg-type]  # it is never told anything
]
KINDS: list[type[Parcel | GossipParcel]] = [Parcel, GossipParcel]


def forged(kind: type[Parcel | GossipParcel], value: object) -> Parcel | GossipParcel:
    """A parcel as no constructor makes it."""
    parcel = kind(b"")
    object.__setattr__(parcel, "packet", value)
    return parcel


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [*OTHERS, bytearray(b"x"), memoryview(b"x")], ids=lambda v: type(v).__name__)
def test_a_parcel_of_anything_but_bytes_cannot_be_built(kind: type[Parcel | GossipParcel], value: object) -> None:
    with pytest.raises(CodecError, match="packet: expected bytes"):
        kind(value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", OTHERS, ids=lambda v: type(v).__name__)
def test_the_bytes_of_a_parcel_of_anything_else_are_refused(kind: type[Parcel | GossipParcel], value: object) -> None:
    data = encode(forged(kind, value))
    with pytest.raises(BadMessage, match="refuses its fields"):
        decode(data, lambda address: ActorRef(Address.parse(address), None))  # type: ignore[arg-type]  # never told


def test_the_bytes_of_a_parcel_are_what_they_were() -> None:
    assert encode(Parcel(b"x")) == msgpack.packb([2, "scarcity.protocol", b"x"])
    assert decode(encode(GossipParcel(b"x"))) == GossipParcel(b"x")


@pytest.mark.parametrize("value", OTHERS, ids=lambda v: type(v).__name__)
def test_what_is_no_bytes_is_no_packet(value: object) -> None:
    with pytest.raises(CodecError):
        decode_packet(value)  # type: ignore[arg-type]  # that is the point


class Deaf:
    """A core that hears nothing in this test."""

    def start(self, now: float) -> list[Effect]:
        return []

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        raise AssertionError(packet)

    def fire(self, timer: str, now: float) -> list[Effect]:
        return []

    def waiting(self) -> tuple[Waiting, ...]:
        return ()


@pytest.mark.anyio
async def test_a_shell_survives_a_parcel_of_whatever_type_and_counts_it() -> None:
    seen: list[Reject] = []
    async with ActorSystem("s") as system:
        actor = CoreActor(
            "me",
            Deaf(),
            post=lambda *_: None,
            journal=MemoryJournal(),
            observe=lambda _who, what: seen.append(what),  # type: ignore[arg-type]  # nothing but refusals come
            hosts=lambda node, member: (node, member) == ("far", "peer"),
        )
        await system.spawn(actor, name="me")
        cell = system.find("me")
        assert cell is not None
        sender = ActorRef(Address("far", "peer"), system)
        for kind in KINDS:
            for value in OTHERS:
                cell.inbox.offer(Envelope(forged(kind, value), sender, None, None))
        await system.activity.wait_idle()
    assert [reject.reason.split(":")[0] for reject in seen] == ["not a packet"] * len(KINDS) * len(OTHERS)
    assert not system.failures
