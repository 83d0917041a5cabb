"""A listed peer gone bad: hand-made frames are refused and counted, nothing crashes, honest words still arrive."""

from __future__ import annotations

import struct
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, ActorSystem, Context, Down, Mailbox, handles
from actors import remote_wire as wire
from actors.address import Address
from actors.errors import ActorError, ActorStopped, AskTimeout, BadFrame, BadMessage, MailboxFull
from actors.message import WireLimits, encode
from actors.remote_peer import RemoteLimits
from actors.trace import Returned
from tests.links_world import Authority, plain, until
from tests.remote_world import (
    Desk,
    Fail,
    Guard,
    Hold,
    Note,
    Question,
    Stranger,
    Watch,
    memory_stranger,
    tcp_stranger,
)

pytestmark = pytest.mark.anyio
ROUTE = wire.pack_route("desk", "peer")
NOTE = encode(Note("honest"))


@pytest.fixture(params=["memory", "tcp", "tls"])
def open_stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return memory_stranger
    return partial(tcp_stranger, plain if request.param == "tcp" else Authority(tmp_path).tls)


async def is_well(a: ActorSystem, desk: Desk, stranger: Stranger) -> None:
    """What an honest node says gets through, on the same link or the next."""
    before = len(desk.kept)
    stranger.say(wire.TELL, ROUTE, NOTE)
    await until(lambda: len(desk.kept) > before)
    assert desk.kept[-1] == "honest"
    assert not a.failures
    assert a.remote_statistics()["b"].up


def ask(number: int, seconds: float = 5.0, route: bytes = ROUTE) -> bytes:
    return wire.pack_ask(number, seconds, route)


NO_FRAMES: list[tuple[int, bytes, bytes]] = [
    (0, b"", b""),
    (9, ROUTE, NOTE),
    (63, ROUTE, NOTE),
    (wire.TELL, b"", NOTE),
    (wire.TELL, b"\x00peer", NOTE),
    (wire.TELL, b"\xffdesk", NOTE),
    (wire.TELL, b"\x04des/", NOTE),
    (wire.TELL, b"\x04desk\xff\xfe", NOTE),
    (wire.TELL, b"\x04deskscarcity://c/peer", NOTE),  # the name of another node has no place in a route
    (wire.TELL, b"\x04desk//c/peer", NOTE),
    (wire.TELL, b"\x0fscarcity://a/xypeer", NOTE),
    (wire.TELL, b"\x04desk" + b"x" * 256, NOTE),
    (wire.TELL, b"\x04desk../../../etc/passwd ", NOTE),
    (wire.TELL, ROUTE, encode("no message")),
    (wire.TELL, ROUTE, encode([1, 2])),
    (wire.TELL, ROUTE, msgpack.packb([2, "actors.down", [4, "scarcity://a/desk"], "forged"])),
    (wire.ASK, ask(1), msgpack.packb([2, "actors.down", [4, "scarcity://a/desk"], "forged"])),
    (wire.ASK, ROUTE, NOTE),
    (wire.ASK, b"", NOTE),
    (wire.ASK, ask(1, float("nan")), NOTE),
    (wire.ASK, ask(1, float("inf")), NOTE),
    (wire.ASK, ask(1, route=b""), NOTE),
    (wire.REPLY, b"1234567", NOTE),
    (wire.REPLY, b"123456789", NOTE),
    (wire.FAILURE, b"12345678", b""),
    (wire.FAILURE, b"12345678\x07", b""),
    (wire.FAILURE, b"12345678\x02", b"x" * 1025),
    (wire.RETURNED, ROUTE, b""),
    (wire.RETURNED, ROUTE, b"\x09remote.n"),
    (wire.RETURNED, b"\x00", b"\x00gone"),
    (wire.RETURNED, ROUTE, b"\x00" + b"x" * 2000),
    (wire.WATCH, b"1234567", b""),
    (wire.WATCH, b"12345678", b""),
    (wire.WATCH, b"12345678\xff", b""),
    (wire.UNWATCH, b"", b""),
    (wire.DOWN, b"12345678a b", b""),
    (wire.DOWN, b"12345678desk", b"x" * 1025),
]


@pytest.mark.parametrize("open_one", [memory_stranger, partial(tcp_stranger, plain)], ids=["memory", "tcp"])
async def test_what_no_system_sends_ends_the_link_and_is_counted(open_one: Any) -> None:
    desk = Desk()
    async with open_one() as (a, stranger):
        await a.spawn(desk, name="desk")
        for number, frame in enumerate(NO_FRAMES):
            stranger.say(*frame)
            await until(lambda: a.remote_statistics()["b"].num_bad_frames == number + 1)  # noqa: B023 - awaited at once
            await until(lambda: a.remote_statistics()["b"].up)
        await is_well(a, desk, stranger)
        downs = [reason for up, reason in stranger.links if not up]
        assert len(downs) == len(NO_FRAMES)
        assert desk.kept == ["honest"]
        assert a.statistics().num_dead_letters == 0


async def test_the_sender_is_the_node_of_the_link(open_stranger: Any) -> None:
    desk = Desk()
    async with open_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        await is_well(a, desk, stranger)
        assert [str(sender.address) for sender in desk.senders if sender] == ["scarcity://b/peer"]


BAD_BODIES: list[bytes] = [
    b"",
    b"\xc1",
    NOTE[:-1],
    NOTE + b"\x00",
    msgpack.packb([2, "no.such.message", 1]),
    msgpack.packb([2, "remote.note"]),
    msgpack.packb([2, "remote.note", [4, "scarcity:///x"]]),
    msgpack.packb([2, "remote.note", [4, "nowhere"]]),
    msgpack.packb(msgpack.ExtType(5, b"x")),
    b"\xdc\x03\xff" * 1020 + b"\x00" * 2_000_000,
    b"\xdc\x03\xff" + (b"\xdc\x03\xff" + b"\x80" * 1023) * 1023,
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
]


async def test_a_message_that_cannot_be_decoded_is_refused_and_the_link_stays(open_stranger: Any) -> None:
    desk = Desk()
    async with open_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        for number, body in enumerate(BAD_BODIES):
            stranger.say(wire.TELL, ROUTE, body)
            stranger.say(wire.ASK, ask(number), body)
        await is_well(a, desk, stranger)
        await until(lambda: len(stranger.heard) == 2 * len(BAD_BODIES))
        statistics = a.remote_statistics()["b"]
        assert (statistics.num_refused, statistics.num_bad_frames) == (2 * len(BAD_BODIES), 0)
        errors = [wire.unpack_failure(header, blob) for kind, header, blob in stranger.heard if kind == wire.FAILURE]
        assert [number for number, _ in errors] == list(range(len(BAD_BODIES)))
        assert {type(error) for _, error in errors} == {BadMessage}
        returned = [wire.unpack_returned(blob) for kind, _, blob in stranger.heard if kind == wire.RETURNED]
        assert all(name == "" and reason.startswith("refused: ") for name, reason in returned)
        assert statistics.asks_in == 0


async def test_bombs_cost_little_memory() -> None:
    async with memory_stranger() as (a, stranger):
        await a.spawn(Desk, name="desk")
        tracemalloc.start()
        try:
            for number in range(6):
                stranger.say(wire.TELL, ROUTE, BAD_BODIES[9 + number % 2])
                await until(lambda: a.remote_statistics()["b"].num_refused > number)  # noqa: B023 - awaited at once
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


async def test_limits_of_messages_bind_what_comes_in() -> None:
    desk = Desk()
    async with memory_stranger(RemoteLimits(wire=WireLimits(items=2, message_bytes=1000))) as (a, stranger):
        await a.spawn(desk, name="desk")
        stranger.say(wire.TELL, ROUTE, encode(Note([0] * 20)))
        stranger.say(wire.TELL, ROUTE, encode(Note(bytes(2000))))
        await is_well(a, desk, stranger)
        assert a.remote_statistics()["b"].num_refused == 2


async def test_a_down_of_a_peer_reaches_only_who_monitors_it(open_stranger: Any) -> None:
    guard, desk = Guard(), Desk()
    async with open_stranger() as (a, stranger):
        watcher = await a.spawn(guard)
        await a.spawn(desk, name="desk")
        for path in ("peer", "other"):
            watcher.tell(Watch(a.ref(f"scarcity://b/{path}")))
        await until(lambda: len(stranger.heard) == 2)
        number, address = wire.unpack_watch(stranger.heard[0][1], "b")
        for forged in (number + 1000, 0, 2**64 - 1):
            stranger.say(wire.DOWN, wire.pack_number(forged, "peer"), b"forged")
        stranger.say(wire.DOWN, wire.pack_number(number, "desk"), b"forged")
        stranger.say(wire.DOWN, wire.pack_number(number, "other"), b"forged")
        for _ in range(3):
            stranger.say(wire.DOWN, wire.pack_number(number, "peer"), b"gone\n\x1b[2J")
        await is_well(a, desk, stranger)
        assert guard.downs == [(a.ref("scarcity://b/peer"), "gone  [2J")]
        assert address.path == "peer"


async def test_a_reply_answers_only_the_question_it_was_given(open_stranger: Any) -> None:
    desk = Desk()
    errors: list[ActorError] = []
    async with open_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        far = a.ref("scarcity://b/peer")

        async def answered(*replies: tuple[int, bytes, bytes]) -> object:
            found: list[object] = []

            async def wait() -> None:
                try:
                    found.append(await far.ask(Question(), deadline=5))
                except ActorError as error:
                    errors.append(error)
                    found.append(None)

            heard = len(stranger.heard)
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await until(lambda: len(stranger.heard) > heard)
                number = struct.unpack_from("<Q", stranger.heard[-1][1])[0]
                for kind, tail, blob in replies:
                    stranger.say(kind, struct.pack("<Q", number) + tail, blob)
            return found[0]

        for forged in (0, 1, 2**64 - 1):
            stranger.say(wire.REPLY, wire.pack_number(forged), NOTE)
            stranger.say(wire.FAILURE, wire.pack_number(forged) + b"\x01", b"")
        assert await answered((wire.REPLY, b"", encode(1)), (wire.REPLY, b"", encode(2))) == 1
        down = encode(Down(a.ref("desk"), "data"))
        assert await answered((wire.REPLY, b"", down)) == Down(a.ref("desk"), "data")
        for code in range(len(wire.FAILURES)):
            assert await answered((wire.FAILURE, bytes([code]), b"why")) is None
        assert [type(error) for error in errors] == list(wire.FAILURES)
        assert await answered((wire.REPLY, b"", b"\xc1")) is None
        assert isinstance(errors[-1], BadMessage)
        await is_well(a, desk, stranger)
        assert a.remote_statistics()["b"].num_late >= 6


async def test_asks_of_a_peer_are_bounded_and_free_their_places(open_stranger: Any) -> None:
    desk = Desk()
    async with open_stranger(RemoteLimits(asks_in=4)) as (a, stranger):
        await a.spawn(desk, name="desk")
        stranger.say(wire.ASK, ask(0, 1e308), encode(Hold()))
        await desk.busy.wait()
        for number in range(1, 10):
            stranger.say(wire.ASK, ask(number, 0.02), encode(Question()))
        stranger.say(wire.ASK, ask(10, -1.0), encode(Question()))
        await until(lambda: a.remote_statistics()["b"].num_busy >= 6)
        await until(lambda: a.remote_statistics()["b"].asks_in == 1)  # the others are past their deadlines
        stranger.say(wire.ASK, ask(11, 0.0), encode(Question()))
        await until(lambda: len(stranger.heard) == 8)
        errors = [type(wire.unpack_failure(header, blob)[1]) for _, header, blob in stranger.heard]
        assert errors == [MailboxFull] * 7 + [AskTimeout]
        desk.gate.set()
        await until(lambda: len(stranger.heard) == 9)
        assert stranger.heard[-1] == (wire.REPLY, wire.pack_number(0), encode("held"))
        assert desk.senders == []
        stranger.say(wire.ASK, ask(12), encode(Fail("secret")))
        await until(lambda: len(stranger.heard) == 10)
        assert b"secret" not in stranger.heard[-1][2]
        assert type(wire.unpack_failure(*stranger.heard[-1][1:])[1]) is ActorStopped
        stranger.say(wire.ASK, ask(13), encode(Question()))
        await until(lambda: len(stranger.heard) == 11)
        assert a.remote_statistics()["b"].num_undelivered == 1


async def test_an_ask_that_comes_twice_ends_the_link() -> None:
    desk = Desk()
    async with memory_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        stranger.say(wire.ASK, ask(1), encode(Hold()))
        stranger.say(wire.ASK, ask(1), encode(Hold()))
        await until(lambda: a.remote_statistics()["b"].num_bad_frames == 1)
        desk.gate.set()
        await is_well(a, desk, stranger)
        assert stranger.heard == []  # the first asker went with the link


async def test_messages_for_nobody_are_returned_and_never_a_return() -> None:
    desk = Desk()
    async with memory_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        nobody = wire.pack_route("nobody", "peer")
        stranger.say(wire.TELL, nobody, NOTE)
        stranger.say(wire.RETURNED, nobody, wire.pack_returned("remote.note", "mine came back"))
        stranger.say(wire.RETURNED, wire.pack_route("x", ""), wire.pack_returned("x" * 300, "\u202e" * 2000)[:1000])
        await is_well(a, desk, stranger)
        assert [kind for kind, *_ in stranger.heard] == [wire.RETURNED]
        assert [letter.message for letter in a.dead_letters] == [Note("honest"), Returned("remote.note"), Returned("")]
        assert a.dead_letters[1].sender == a.ref("peer")
        assert all(letter.reason.isprintable() for letter in a.dead_letters)


class Picky(Actor):
    mailbox = Mailbox(4, overflow="conflate", key=lambda message, _sender: message.content["key"])  # type: ignore[attr-defined]  # raises on purpose

    @handles(Note)
    def note(self, msg: Note, ctx: Context) -> None:
        pass


async def test_a_mailbox_whose_key_raises_does_not_end_the_links() -> None:
    desk = Desk()
    async with memory_stranger() as (a, stranger):
        await a.spawn(desk, name="desk")
        await a.spawn(Picky, name="picky")
        stranger.say(wire.TELL, wire.pack_route("picky", ""), NOTE)
        stranger.say(wire.ASK, ask(1, route=wire.pack_route("picky", "")), NOTE)
        await is_well(a, desk, stranger)
        await until(lambda: len(stranger.heard) == 2)
        assert a.statistics().num_dead_letters == 2
        assert a.remote_statistics()["b"].asks_in == 0


async def test_who_makes_us_owe_more_than_it_reads_loses_its_link() -> None:
    guard = Guard()
    async with memory_stranger(RemoteLimits(owed=8)) as (a, stranger):
        watcher = await a.spawn(guard)
        full = a._transport
        assert full is not None
        full._budget_bytes = 0  # type: ignore[attr-defined]  # a peer that never reads
        watcher.tell(Watch(a.ref("scarcity://b/peer")))  # waits for room
        await until(lambda: a.remote_statistics()["b"].watches_out == 1)
        for number in range(20):
            stranger.say(wire.WATCH, wire.pack_number(number, "nobody"))
        await until(lambda: a.remote_statistics()["b"].num_bad_frames >= 1)
        await until(lambda: bool(guard.downs))
        assert guard.downs == [(a.ref("scarcity://b/peer"), "link lost: bad frame")]
        full._budget_bytes = 1 << 20  # type: ignore[attr-defined]  # it reads again
        watcher.tell(Watch(a.ref("scarcity://b/peer")))
        await until(lambda: any(kind == wire.WATCH for kind, *_ in stranger.heard))


async def test_a_watch_of_a_peer_is_replaced_and_ended_by_its_own_number() -> None:
    async with memory_stranger() as (a, stranger):
        desk = await a.spawn(Desk(), name="desk")
        for number in (1, 2, 2, 3):
            stranger.say(wire.WATCH, wire.pack_number(number, "desk"))
        stranger.say(wire.UNWATCH, wire.pack_number(1, "desk"))
        stranger.say(wire.UNWATCH, wire.pack_number(1, "nobody"))
        await until(lambda: a.remote_statistics()["b"].watches_in == 1)
        a.stop(desk)
        await until(lambda: bool(stranger.heard))
        assert stranger.heard == [(wire.DOWN, wire.pack_number(3, "desk"), b"stopped")]


headers = st.binary(max_size=40) | st.builds(lambda tail: ask(1, route=tail), st.binary(max_size=20))


@settings(max_examples=300)
@given(headers, st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_bad_frame(header: bytes, blob: bytes) -> None:
    for unpack in (
        lambda: wire.unpack_route(header, "a", "b"),
        lambda: wire.unpack_ask(header),
        lambda: wire.unpack_number(header),
        lambda: wire.unpack_watch(header, "b"),
        lambda: wire.unpack_failure(header, blob),
        lambda: wire.unpack_returned(blob),
        lambda: wire.unpack_text(blob),
    ):
        try:
            unpack()
        except BadFrame:
            continue


names = st.from_regex(r"[A-Za-z0-9_.\-]{1,20}(/[A-Za-z0-9_.\-]{1,20}){0,3}", fullmatch=True)


@given(names, names | st.just(""), st.integers(0, 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
def test_headers_come_back_as_they_were_packed(to: str, sender: str, number: int, seconds: float) -> None:
    route = wire.pack_route(to, sender)
    assert wire.unpack_route(route, "a", "b") == (Address("a", to), Address("b", sender) if sender else None)
    assert wire.unpack_ask(wire.pack_ask(number, seconds, route)) == (number, seconds, route)
    assert wire.unpack_number(wire.pack_number(number)) == number
    assert wire.unpack_watch(wire.pack_number(number, to), "b") == (number, Address("b", to))


@given(st.text(max_size=30).map(lambda text: text.replace(" ", "")), st.sampled_from(wire.FAILURES))
def test_errors_and_returns_come_back_as_they_were_packed(text: str, kind: type[ActorError]) -> None:
    number, error = wire.unpack_failure(*wire.pack_failure(7, kind(text)))
    assert (number, type(error)) == (7, kind)
    name, reason = wire.unpack_returned(wire.pack_returned("a.name", text))
    assert (name, reason) == ("a.name", str(error))
    assert reason.isprintable()
    if text.isprintable():
        assert reason == text


def test_an_error_of_another_class_travels_as_the_nearest_that_the_wire_knows() -> None:
    class Special(MailboxFull):
        pass

    assert type(wire.unpack_failure(*wire.pack_failure(1, Special("x")))[1]) is MailboxFull
