"""What another node's messages may take of this one's memory while they wait, and that every byte is given back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from actors import Actor, Context, Mailbox, Restart, handles
from actors import remote_wire as wire
from actors.errors import BadSetting
from actors.message import WireLimits, encode
from actors.remote_peer import MESSAGE_BYTES, RemoteLimits, RemoteStatistics
from actors.trace import Omitted
from tests.links_world import until
from tests.remote_world import Desk, Hold, Letter, Note, Question, Stranger, memory_stranger

pytestmark = pytest.mark.anyio
SMALL = WireLimits(message_bytes=2000)
LIMITS = RemoteLimits(inbox_bytes=10_000, wire=SMALL)
LARGE = encode(Note(bytes(1000)))
TOOK = len(LARGE) + MESSAGE_BYTES
FIT = 10_000 // TOOK


def route(path: str) -> bytes:
    return wire.pack_route(path, "peer")


def seen(system: Any) -> RemoteStatistics:
    found: RemoteStatistics = system.remote_statistics()["b"]
    return found


def returned(stranger: Stranger) -> list[str]:
    return [wire.unpack_returned(blob)[1] for kind, _, blob in stranger.heard if kind == wire.RETURNED]


async def heard_all(system: Any, stranger: Stranger, number: int) -> None:
    """Wait until the system has read all that was said: an ask that nobody can take is answered at once."""
    stranger.say(wire.ASK, wire.pack_ask(number, 5.0, route("nobody")), encode(Question()))
    await until(lambda: any(kind == wire.FAILURE for kind, *_ in stranger.heard))
    stranger.heard[:] = [frame for frame in stranger.heard if frame[0] != wire.FAILURE]


async def test_messages_of_a_node_wait_within_its_bytes_over_all_mailboxes_and_the_rest_is_busy() -> None:
    desks = [Desk(), Desk()]
    async with memory_stranger(LIMITS) as (a, stranger):
        for number, desk in enumerate(desks):
            await a.spawn(desk, name=f"desk{number}")
            stranger.say(wire.TELL, route(f"desk{number}"), encode(Hold()))
            await desk.busy.wait()
        assert seen(a).inbox_bytes == 0
        for number in range(2 * FIT):
            stranger.say(wire.TELL, route(f"desk{number % 2}"), LARGE)
        stranger.say(wire.ASK, wire.pack_ask(1, 5.0, route("desk0")), LARGE)
        await until(lambda: seen(a).num_busy == FIT + 1)
        assert seen(a).inbox_bytes == FIT * TOOK
        await until(lambda: len(returned(stranger)) == FIT)
        assert set(returned(stranger)) == {f"busy: {FIT * TOOK} bytes of b wait already"}
        for desk in desks:
            desk.gate.set()
        await until(lambda: sum(len(desk.kept) for desk in desks) == FIT)
        assert seen(a).inbox_bytes == 0
        stranger.say(wire.TELL, route("desk0"), LARGE)
        await until(lambda: sum(len(desk.kept) for desk in desks) == FIT + 1)
        assert (seen(a).inbox_bytes, seen(a).num_undelivered) == (0, 0)


async def test_what_actors_of_this_node_say_has_its_place_beside_it() -> None:
    desk = Desk()
    async with memory_stranger(LIMITS) as (a, stranger):
        ref = await a.spawn(desk, name="desk")
        ref.tell(Hold())
        await desk.busy.wait()
        for _ in range(FIT + 1):
            stranger.say(wire.TELL, route("desk"), LARGE)
        await until(lambda: seen(a).num_busy == 1)
        ref.tell(Note(bytes(1000)))
        desk.gate.set()
        await until(lambda: len(desk.kept) == FIT + 1)


def waiting(mailbox: Mailbox) -> Desk:
    class WaitingDesk(Desk):
        pass

    WaitingDesk.mailbox = mailbox
    return WaitingDesk()


@pytest.mark.parametrize(
    ("mailbox", "stays"),
    [
        (Mailbox(2, "reject"), 2),
        (Mailbox(2, "block"), 2),
        (Mailbox(2, "drop_oldest"), 2),
        (Mailbox(2, "drop_newest"), 2),
        (Mailbox(2, "conflate", key=lambda message, _sender: type(message).__name__), 1),
        (Mailbox(2, "conflate", key=lambda message, _sender: message.content["key"]), 0),  # type: ignore[attr-defined]  # raises on purpose
    ],
    ids=["reject", "block", "drop_oldest", "drop_newest", "conflate", "key raises"],
)
async def test_every_way_out_of_a_mailbox_gives_the_bytes_back(mailbox: Mailbox, stays: int) -> None:
    desk = waiting(mailbox)
    async with memory_stranger(LIMITS) as (a, stranger):
        ref = await a.spawn(desk, name="desk")
        if stays:
            ref.tell(Hold())
            await desk.busy.wait()
        for _ in range(5):
            stranger.say(wire.TELL, route("desk"), LARGE)
        stranger.say(wire.TELL, route("nobody"), LARGE)
        await heard_all(a, stranger, 1)
        assert seen(a).inbox_bytes == stays * TOOK
        desk.gate.set()
        await until(lambda: len(desk.kept) == stays)
        assert seen(a).inbox_bytes == 0


async def test_an_actor_that_stops_gives_back_what_waited_for_it() -> None:
    desk = Desk()
    async with memory_stranger(LIMITS) as (a, stranger):
        ref = await a.spawn(desk, name="desk")
        ref.tell(Hold())
        await desk.busy.wait()
        stranger.say(wire.TELL, route("desk"), LARGE)
        stranger.say(wire.ASK, wire.pack_ask(1, 5.0, route("desk")), LARGE)
        await until(lambda: seen(a).inbox_bytes == 2 * TOOK)
        ref.tell(Question())
        a.stop(ref)
        desk.gate.set()
        await until(lambda: a.find("desk") is None)
        assert seen(a).inbox_bytes == 0


class Broken(Actor):
    mailbox = Mailbox(8192)
    restart = Restart("transient", backoff_s=1000.0, backoff_max_s=1000.0)

    @handles(Letter)
    def fail(self, msg: Letter, ctx: Context) -> None:
        raise ValueError(msg)

    @handles(Note)
    def note(self, msg: Note, ctx: Context) -> None:
        pass


async def test_an_actor_that_waits_for_its_restart_holds_megabytes_and_not_gigabytes() -> None:
    async with memory_stranger() as (a, stranger):
        ref = await a.spawn(Broken, name="broken")
        stranger.say(wire.TELL, route("broken"), encode(Letter(None)))
        await until(lambda: a.statistics().num_dead_letters == 1)
        huge = encode(Note(bytes((4 << 20) - 100)))
        tracemalloc.start()
        try:
            for number in range(30):
                stranger.say(wire.TELL, route("broken"), huge)
                await until(lambda: seen(a).num_busy >= number)  # noqa: B023 - awaited at once
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()
        assert seen(a).num_busy == 29
        a.stop(ref)
        await until(lambda: a.find("broken") is None)
        assert seen(a).inbox_bytes == 0


async def test_dead_letters_of_another_node_do_not_keep_what_is_large() -> None:
    async with memory_stranger() as (a, stranger):
        huge = encode(Note(bytes(1 << 20)))
        for blob in (huge, encode(Note(b"small"))):
            stranger.say(wire.TELL, route("nobody"), blob)
        await until(lambda: len(a.dead_letters) == 2)
        found = [letter.message for letter in a.dead_letters]
        assert found == [Omitted("remote.note", len(huge) + MESSAGE_BYTES), Note(b"small")]


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, SMALL.message_bytes + MESSAGE_BYTES - 1])
def test_a_bound_that_the_largest_message_does_not_fit_in_is_refused(bad: Any) -> None:
    with pytest.raises(BadSetting, match="inbox_bytes"):
        RemoteLimits(inbox_bytes=bad, wire=SMALL)
    least = SMALL.message_bytes + MESSAGE_BYTES
    assert RemoteLimits(inbox_bytes=least, wire=SMALL).inbox_bytes == least
