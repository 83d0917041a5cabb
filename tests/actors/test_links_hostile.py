"""Hostile peers over real sockets: each is refused with the reason, counted, and the other peers see nothing of it.

`Town` is a node `b` that listens and an honest node `a` that is linked to it; the attacks come from other loopback
addresses, some as node `c`, which is listed. All through each attack `a` and `b` exchange reliable messages, and after
it they have all of them, in order, and still the link that they had.
"""

from __future__ import annotations

import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from actors.errors import BadFrame, BadMessage, LinkFull
from actors.links import Limits, Security, TcpTransport
from actors.links.frame import HEAD, encode_frame
from actors.links.session import HELLO, WELCOME, Hello, LinkRefused, Refusal, decode_hello
from actors.message import decode
from actors.testing import Probe
from tests.links_world import (
    Authority,
    Secure,
    node,
    plain,
    public_key,
    read_all,
    stranger,
    until,
)

pytestmark = pytest.mark.anyio
# The same paths as with 10 s and 5 s, sooner. Only tests of a late Hello cut it short: a loaded machine is late too.
SOON = Limits(frame_s=0.4)
LATE = Limits(hello_s=0.4)
FIRST = 5_000


HONEST = 9  # the kind of message of the honest pair


class Watch(Probe):
    """A probe that keeps what the honest pair says apart, so that tests see the attack alone."""

    def __init__(self) -> None:
        super().__init__()
        self.honest: list[int] = []

    def deliver(self, from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        if kind == HONEST:
            self.honest.append(int.from_bytes(header))
            self._changed.set()
        else:
            super().deliver(from_node, kind, header, blob)


@attrs.define(eq=False)
class Town:
    b: TcpTransport
    a: TcpTransport
    at_b: Watch
    at_a: Watch
    secure: Secure
    sent: int = 0

    def exchange(self) -> None:
        """The honest pair exchanges one message more."""
        for one, other in ((self.a, "b"), (self.b, "a")):
            one.send(other, HONEST, self.sent.to_bytes(4), reliable=True)
        self.sent += 1

    async def keep_talking(self) -> None:
        while True:
            self.exchange()
            await anyio.sleep(0.005)

    async def unharmed(self) -> None:
        """The honest pair has talked over one and the same link all the time, and lost nothing."""
        self.exchange()
        expected = list(range(self.sent))
        for probe in (self.at_a, self.at_b):
            await probe.until(lambda probe=probe: len(probe.honest) >= len(expected))  # type: ignore[misc]  # binds now
            assert probe.honest[: len(expected)] == expected
        assert self.at_a.links == [("b", True, "")]
        assert [link for link in self.at_b.links if link[0] == "a"] == [("a", True, "")]

    async def counted(self, reason: Refusal) -> None:
        await until(lambda: self.b.statistics().reasons.get(reason.value, 0) >= 1)


@asynccontextmanager
async def town_of(secure: Secure, limits: Limits = SOON) -> AsyncIterator[Town]:
    at_a, at_b = Watch(), Watch()
    async with (
        node("b", at_b, secure("b"), limits) as b,
        node("a", at_a, secure("a")) as a,
        anyio.create_task_group() as group,
    ):
        a.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: at_b.up("a"))
        await at_a.until(lambda: at_a.up("b"))
        town = Town(b, a, at_b, at_a, secure)
        group.start_soon(town.keep_talking)
        yield town
        await town.unharmed()
        group.cancel_scope.cancel()


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Secure:
    return plain if request.param == "tcp" else Authority(tmp_path).tls


def hello_of(name: str, **changes: object) -> Hello:
    said = Hello("fed-1", name, "b", b"incarnation of c", public_key(name), FIRST)
    return attrs.evolve(said, **changes)


@asynccontextmanager
async def knock(town: Town, security: Security | None = None) -> AsyncIterator[ByteStream]:
    """A connection that passed TLS, as c, but has said nothing."""
    async with stranger(town.b.port) as raw:
        stream, _ = await (security or town.secure("c")).secure(raw, dialing=True)
        yield stream


@asynccontextmanager
async def linked(town: Town) -> AsyncIterator[tuple[ByteStream, int]]:
    """A link of c that is up, in the hands of the test, and the number that its first frame needs."""
    async with knock(town) as stream:
        await stream.send(hello_of("c").encode(HELLO))
        welcome = decode_hello(*await first_of(stream))
        await town.at_b.until(lambda: town.at_b.up("c"))
        yield stream, welcome.first


async def dribble(stream: ByteStream, data: bytes) -> None:
    for byte in data:
        await stream.send(bytes([byte]))
        with anyio.move_on_after(0.05):
            await stream.receive()


async def fill(town: Town, pause: Callable[[], Awaitable[None]] | None = None) -> None:
    """Send to c until its budget is used up."""
    for _ in range(1000):
        try:
            town.b.send("c", 1, b"", bytes(50_000))
        except LinkFull:
            return
        if pause is not None:
            await pause()
    raise AssertionError("the budget has no end")


async def hello_inside(raw: ByteStream, context: ssl.SSLContext) -> None:
    stream = await TLSStream.wrap(raw, server_side=False, ssl_context=context, standard_compatible=False)
    await stream.send(hello_of("c").encode(HELLO))
    await stream.receive()


async def first_of(stream: ByteStream) -> tuple[tuple[int, bytes, bytes], int]:
    data = await stream.receive()
    _, kind, num_header = HEAD.unpack_from(data)
    return (kind, data[9 : 9 + num_header], b""), WELCOME


async def refusal_in(stream: ByteStream) -> str:
    """Why the other side says it refuses."""
    with pytest.raises(LinkRefused) as refused:
        decode_hello(*await first_of(stream))
    return refused.value.reason.value


def numbered(kind: int, number: int, header: bytes = b"", blob: bytes = b"") -> bytes:
    return encode_frame(kind, number.to_bytes(8, "little") + header, blob)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (hello_of("c", federation="fed-2").encode(HELLO), Refusal.WRONG_FEDERATION),
        (hello_of("c", version=2).encode(HELLO), Refusal.WRONG_VERSION),
        (hello_of("z").encode(HELLO), Refusal.UNKNOWN_NODE),
        (hello_of("b").encode(HELLO), Refusal.UNKNOWN_NODE),
        (hello_of("c", key=public_key("z")).encode(HELLO), Refusal.WRONG_KEY),
        (hello_of("c").encode(WELCOME), Refusal.BAD_FRAME),
        (b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", Refusal.BAD_FRAME),
        (bytes(range(255, 0, -1)), Refusal.BAD_FRAME),
        (HEAD.pack(0xFFFFFFFF, HELLO, 10), Refusal.BAD_FRAME),  # 4 GB
        (encode_frame(HELLO, bytes(5000)), Refusal.BAD_FRAME),  # a stranger gets 4 KiB
        (encode_frame(HELLO, b"", bytes(4000)), Refusal.BAD_FRAME),
        (numbered(0x41, 1, b"a message before Hello"), Refusal.BAD_FRAME),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else "",
)
async def test_a_bad_opening_is_refused_with_the_reason(secure: Secure, said: bytes, reason: Refusal) -> None:
    async with town_of(secure) as town, knock(town) as stream:
        await stream.send(said)
        assert await refusal_in(stream) == reason.value
        await town.counted(reason)
        assert not town.at_b.up("c")


async def test_half_a_hello_and_silence_is_cut_off_in_time(secure: Secure) -> None:
    async with town_of(secure, LATE) as town, knock(town) as stream:
        await stream.send(hello_of("c").encode(HELLO)[:-1])
        assert await read_all(stream) == b""
        await town.counted(Refusal.HELLO_LATE)
        assert town.b.statistics().num_half_open == 0


async def test_a_hello_that_dribbles_is_cut_off_in_time(secure: Secure) -> None:
    async with town_of(secure, LATE) as town, knock(town) as stream:
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream, OSError)):
            await dribble(stream, hello_of("c").encode(HELLO)[:-1])
        await town.counted(Refusal.HELLO_LATE)


async def test_closing_before_hello_is_only_counted(secure: Secure) -> None:
    async with town_of(secure) as town:
        async with knock(town):
            pass
        await town.counted(Refusal.VANISHED)


@pytest.mark.parametrize(
    ("name", "key", "said", "reason"),
    [
        ("c", "z", hello_of("c", key=public_key("z")), Refusal.WRONG_KEY),  # signed, but not the key on the list
        ("c", "z", hello_of("c"), Refusal.WRONG_KEY),  # claims the right one
        ("z", "z", hello_of("z"), Refusal.UNKNOWN_NODE),
        ("c", "c", hello_of("a"), Refusal.WRONG_KEY),  # c as a
    ],
)
async def test_a_certificate_proves_a_key_and_the_list_says_whose(
    tmp_path: Path, name: str, key: str, said: Hello, reason: Refusal
) -> None:
    authority = Authority(tmp_path)
    async with town_of(authority.tls) as town, knock(town, authority.tls(name, key=key)) as stream:
        await stream.send(said.encode(HELLO))
        assert await refusal_in(stream) == reason.value
        await town.counted(reason)


@pytest.mark.parametrize("who", ["expired", "not yet valid", "another authority", "none", "tls 1.2"])
async def test_a_bad_certificate_never_gets_to_say_hello(tmp_path: Path, who: str) -> None:
    authority = Authority(tmp_path)
    reasons = {"expired": Refusal.EXPIRED, "tls 1.2": Refusal.NOT_TLS}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the attacker does not care who it talks to
    files = {
        "expired": authority.files("c", days=(-1, 0)),
        "not yet valid": authority.files("c", days=(1, 2)),
        "another authority": Authority(tmp_path, "fed-2").files("c"),
        "tls 1.2": authority.files("c"),
    }.get(who)
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    if who == "tls 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with town_of(authority.tls) as town, stranger(town.b.port) as raw:
        with pytest.raises((ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError)):
            await hello_inside(raw, context)
        await town.counted(reasons.get(who, Refusal.UNTRUSTED))


@pytest.mark.parametrize("said", [hello_of("c").encode(HELLO), b"GET / HTTP/1.1\r\n\r\n", bytes(100)])
async def test_plain_tcp_to_a_tls_port_is_refused(tmp_path: Path, said: bytes) -> None:
    async with town_of(Authority(tmp_path).tls) as town, stranger(town.b.port) as raw:
        await raw.send(said)
        assert HEAD.pack(0, 0, 0) not in await read_all(raw)
        await town.counted(Refusal.NOT_TLS)


async def test_hanging_up_within_the_handshake_is_only_counted(tmp_path: Path) -> None:
    async with town_of(Authority(tmp_path).tls) as town:
        async with stranger(town.b.port) as raw:
            await raw.send(b"\x16\x03\x01\x02\x00\x01\x00")  # the head of a TLS record, and no more
        await town.counted(Refusal.VANISHED)


async def test_silence_to_a_tls_port_is_cut_off_in_time(tmp_path: Path) -> None:
    async with town_of(Authority(tmp_path).tls, LATE) as town, stranger(town.b.port) as raw:
        await read_all(raw)
        await town.counted(Refusal.HELLO_LATE)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda n: HEAD.pack(0xFFFFFFFF, 0x41, 10), Refusal.BAD_FRAME),
        (lambda n: HEAD.pack(4 * 1024 * 1024 + 1, 0x41, 10), Refusal.BAD_FRAME),
        (lambda n: bytes(range(255, 200, -1)), Refusal.BAD_FRAME),
        (lambda n: numbered(0x81, n), Refusal.BAD_FRAME),
        (lambda n: hello_of("c").encode(HELLO), Refusal.REPLAYED),
        (lambda n: numbered(0x41, n, b"x") * 2, Refusal.REPLAYED),
        (lambda n: numbered(0x41, n + 1, b"x"), Refusal.REPLAYED),
        (lambda n: numbered(0xC1, n, (5000).to_bytes(8, "little")), Refusal.BAD_FRAME),  # beyond the window
        (lambda n: numbered(4, n, (7).to_bytes(8, "little") + bytes(4)), Refusal.BAD_FRAME),  # acks what was not sent
        (lambda n: numbered(0x41, n, b"x", bytes(100))[:-1], Refusal.FRAME_LATE),
        (lambda n: numbered(0x41, n)[:5], Refusal.FRAME_LATE),
        (lambda n: numbered(6, n), Refusal.CLOSED),
    ],
    ids=["4GB", "4MiB", "garbage", "kind", "hello", "twice", "gap", "window", "ack", "half", "head", "close"],
)
async def test_a_listed_peer_that_breaks_the_protocol_loses_its_link_and_nobody_else_does(
    secure: Secure, bad: Callable[[int], bytes], reason: Refusal
) -> None:
    async with town_of(secure) as town, linked(town) as (stream, number):
        await stream.send(numbered(0x42, number, b"fine") + bad(number + 1))
        await town.at_b.until(lambda: not town.at_b.up("c"))
        assert town.at_b.links[-1] == ("c", False, reason.value)
        assert ("c", 2, b"fine", b"") in town.at_b.messages
        await town.counted(reason)
        await read_all(stream)


async def test_a_reliable_message_that_comes_twice_is_delivered_once(secure: Secure) -> None:
    async with town_of(secure) as town, linked(town) as (stream, number):
        one = (1).to_bytes(8, "little") + b"once"
        await stream.send(b"".join(numbered(0xC2, number + n, one) for n in range(5)))
        await until(lambda: town.b.statistics().links["c"].num_duplicates == 4)
        assert [header for who, _, header, _ in town.at_b.messages if who == "c"] == [b"once"]


async def test_a_recorded_conversation_is_refused_when_it_is_played_again() -> None:
    async with town_of(plain) as town:
        hello = hello_of("c").encode(HELLO)
        async with linked(town) as (stream, number):
            said = numbered(0x42, number, b"pay 100")
            await stream.send(said)
            await town.at_b.until_messages(1)
        await town.at_b.until(lambda: not town.at_b.up("c"))
        async with stranger(town.b.port) as raw:
            await raw.send(hello + said)
            await town.counted(Refusal.REPLAYED)
            await read_all(raw)
        assert len([m for m in town.at_b.messages if m[0] == "c"]) == 1


async def test_a_message_that_cannot_be_decoded_further_up_ends_the_link_of_who_sent_it(secure: Secure) -> None:
    async with town_of(secure) as town:
        deliver = town.at_b.deliver

        def picky(from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
            if header == b"\xc1":
                raise BadFrame("no such thing")
            deliver(from_node, kind, header, blob)

        town.b.attach(picky, town.at_b.on_link)  # links that come up from here on
        async with linked(town) as (stream, number):
            await stream.send(numbered(0x42, number, b"\xc1"))
            await town.at_b.until(lambda: not town.at_b.up("c"))
            await town.counted(Refusal.BAD_FRAME)


async def test_a_msgpack_bomb_ends_the_link_of_who_sent_it_and_costs_next_to_nothing(secure: Secure) -> None:
    bomb = b"\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000  # a million empty dicts: 73 MB where nobody counts
    async with town_of(secure) as town:
        deliver = town.at_b.deliver
        peaks: list[int] = []

        def decoding(from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
            if kind == 3:
                data = bytes(blob)
                tracemalloc.start()
                try:
                    decode(data)
                except BadMessage as error:
                    raise BadFrame(str(error)) from error
                finally:
                    peaks.append(tracemalloc.get_traced_memory()[1])
                    tracemalloc.stop()
            deliver(from_node, kind, header, blob)

        town.b.attach(decoding, town.at_b.on_link)  # links that come up from here on
        async with linked(town) as (stream, number):
            await stream.send(numbered(0x43, number, b"", bomb))
            await town.at_b.until(lambda: not town.at_b.up("c"))
            await town.counted(Refusal.BAD_FRAME)
        assert max(peaks) < 200_000


async def test_many_connects_take_no_more_than_their_places_and_give_them_back(secure: Secure) -> None:
    limits = Limits(hello_s=1.0, half_open_max=20)
    async with town_of(secure, limits) as town:
        async with AsyncExitStack() as stack:
            for n in range(150):
                await stack.enter_async_context(stranger(town.b.port, f"127.0.1.{n // 30}"))
            await town.counted(Refusal.HALF_OPEN)
            await town.counted(Refusal.HALF_OPEN_ADDRESS)
            assert town.b.statistics().num_half_open <= 20
            await town.unharmed()
            await town.counted(Refusal.HELLO_LATE)
        await until(lambda: town.b.statistics().num_half_open == 0)
        async with linked(town):
            pass  # there is room again for c


async def test_a_burst_of_connects_that_hang_up_at_once_harms_nobody(secure: Secure) -> None:
    async with town_of(secure) as town:
        for n in range(500):
            with socket.socket() as raw:
                raw.setblocking(False)
                raw.bind((f"127.0.2.{n % 200}", 0))
                raw.connect_ex(("127.0.0.1", town.b.port))
        await town.unharmed()
        await until(lambda: town.b.statistics().num_half_open == 0)
        async with linked(town):
            pass


async def test_a_burst_of_connects_that_are_reset_at_once_harms_nobody(secure: Secure) -> None:
    """The connection is gone before it is accepted, so it has no address any more."""
    async with town_of(secure) as town:
        for n in range(500):
            with socket.socket() as raw:
                raw.setblocking(False)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.bind((f"127.0.2.{n % 200}", 0))
                raw.connect_ex(("127.0.0.1", town.b.port))
        await town.unharmed()
        await until(lambda: town.b.statistics().reasons.get(Refusal.VANISHED.value, 0) >= 400)
        assert town.b.statistics().num_half_open == 0


async def test_a_peer_that_never_reads_fills_its_own_budget_and_no_other(secure: Secure) -> None:
    async with town_of(secure) as town, linked(town):
        await fill(town)
        await town.unharmed()
        await fill(town, anyio.lowlevel.checkpoint)
        statistics = town.b.statistics().links["c"]
        assert statistics.num_full == 2
        assert statistics.held_bytes_max <= Limits().budget_out_bytes


async def test_a_peer_that_floods_is_slowed_down_and_no_other(secure: Secure) -> None:
    limits = attrs.evolve(SOON, tokens_per_s=2000.0, tokens_burst=1000.0)
    async with town_of(secure, limits) as town, linked(town) as (stream, number):
        flood = b"".join(numbered(0x42, number + n, b"x") for n in range(1500))
        await stream.send(flood)
        await until(lambda: town.b.statistics().links["c"].num_throttled > 0)
        await town.unharmed()
        assert town.b.statistics().links["a"].num_throttled == 0


async def test_memory_stays_within_the_budgets_under_all_of_it_at_once(secure: Secure) -> None:
    limits = Limits()
    async with town_of(secure, limits) as town, linked(town) as (stream, number), AsyncExitStack() as stack:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        large = numbered(0x42, number, b"", bytes(3_000_000))[:-1]  # stays half a frame
        for n in range(16):
            raw = await stack.enter_async_context(stranger(town.b.port, f"127.0.1.{n}"))
            await raw.send(HEAD.pack(0xFFFFFFFF, HELLO, 10) if n % 2 else b"\x16")
        await fill(town)
        await stream.send(large)
        await town.unharmed()
        await until(lambda: town.b.statistics().links["c"].received_bytes > 2_900_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # What the node may hold is 8 MiB out and 4 in; the test's own copies of the 3 MB are in the figure too, and
        # TLS and the event loop each hold a send.
        assert peak - before < 28 * 1024 * 1024


async def test_a_dialer_refuses_whoever_answers_in_the_place_of_its_peer(tmp_path: Path) -> None:
    for secure, reason in ((plain, Refusal.NOT_EXPECTED), (Authority(tmp_path).tls, Refusal.WRONG_KEY)):
        async with town_of(secure) as town:
            town.a.dial("c", "127.0.0.1", town.b.port)  # it is b that listens there
            await until(lambda town=town: town.a.statistics().links["c"].last_reason != "never up")  # type: ignore[misc]  # binds now
            assert town.a.statistics().links["c"].last_reason == reason.value
            assert not town.at_a.up("c")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"220 mail ready\r\n", Refusal.BAD_FRAME),
        (hello_of("c", federation="fed-2").encode(WELCOME), Refusal.WRONG_FEDERATION),
        (hello_of("c", version=9).encode(WELCOME), Refusal.WRONG_VERSION),
        (b"", Refusal.HELLO_LATE),
        (encode_frame(3, bytes([list(Refusal).index(Refusal.UNKNOWN_NODE)])), Refusal.UNKNOWN_NODE),
    ],
)
async def test_a_dialer_says_why_it_has_no_link_and_tries_again(answer: bytes, reason: Refusal) -> None:
    calls = 0

    async def serve(stream: ByteStream) -> None:
        nonlocal calls
        calls += 1
        async with stream:
            if answer:
                await stream.send(answer)
            await read_all(stream)

    probe = Probe()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        async with node("a", probe, plain("a"), LATE) as a:
            a.dial("c", "127.0.0.1", listener.extra_attributes[anyio.abc.SocketAttribute.local_port]())
            await until(lambda: a.statistics().reasons.get(reason.value, 0) >= 2)
            assert a.statistics().links["c"].last_reason == reason.value
            assert calls >= 2
        group.cancel_scope.cancel()
    assert probe.links == []
