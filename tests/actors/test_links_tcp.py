"""The shell over real sockets: dialing, one link per pair, restarts, silence, stopping."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import BadSetting, UnknownPeer
from actors.links import Backoff, Limits, MutualTls, Plaintext, TcpConfig, TcpTransport
from actors.links.session import HELLO, Hello, Refusal
from actors.links.tls import Files
from actors.testing import Probe
from tests.links_world import PEERS, Authority, node, plain, public_key, read_all, stranger, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def listening(probe: Probe, limits: Limits | None = None) -> AsyncIterator[TcpTransport]:
    async with node("b", probe, plain("b"), limits) as b:
        yield b


async def test_nodes_that_dial_each_other_at_once_settle_on_one_link() -> None:
    for _ in range(20):
        at_a, at_b = Probe(), Probe()
        async with node("a", at_a, plain("a")) as a, node("b", at_b, plain("b")) as b:
            b.dial("a", "127.0.0.1", a.port)
            a.dial("b", "127.0.0.1", b.port)
            for number in range(20):
                a.send("b", 1, bytes([number]), reliable=True)
                b.send("a", 1, bytes([number]), reliable=True)
                await anyio.lowlevel.checkpoint()
            await at_a.until_messages(20)
            await at_b.until_messages(20)
            await at_a.until(lambda at_a=at_a: at_a.up("b"))  # type: ignore[misc]  # binds now
            await at_b.until(lambda at_b=at_b: at_b.up("a"))  # type: ignore[misc]  # binds now
            await until(lambda a=a, b=b: a.statistics().num_half_open == b.statistics().num_half_open == 0)  # type: ignore[misc]  # binds now
        for probe in (at_a, at_b):
            assert [header[0] for _, _, header, _ in probe.messages] == list(range(20))


class Together:
    """Holds both dialers back until both are connected, so that their Hellos cross."""

    loopback_only = True
    key = None

    def __init__(self) -> None:
        self._dialers = 0
        self._both = anyio.Event()

    async def secure(self, stream: ByteStream, *, dialing: bool) -> tuple[ByteStream, bytes | None]:
        if dialing:
            self._dialers += 1
            if self._dialers == 2:
                self._both.set()
            await self._both.wait()
        return stream, None


async def test_of_two_hellos_that_cross_the_one_of_the_lower_name_wins_at_both_ends() -> None:
    at_a, at_b, together = Probe(), Probe(), Together()
    async with node("a", at_a, together) as a, node("b", at_b, together) as b:
        a.dial("b", "127.0.0.1", b.port)
        b.dial("a", "127.0.0.1", a.port)
        await at_a.until(lambda: at_a.up("b"))
        await at_b.until(lambda: at_b.up("a"))
        await until(lambda: b.statistics().reasons.get(Refusal.DUPLICATE.value, 0) == 1)  # a told it
        assert a.statistics().reasons == {Refusal.DUPLICATE.value: 1}
        a.send("b", 1, b"over the one", reliable=True)
        await at_b.until_messages(1)
        assert (at_a.links, at_b.links) == ([("b", True, "")], [("a", True, "")])


async def test_a_peer_that_comes_later_is_reached_and_gets_what_waited() -> None:
    at_a, at_b = Probe(), Probe()
    async with node("a", at_a, plain("a")) as a:
        a.dial("b", "127.0.0.1", 1)  # nobody listens there
        a.send("b", 1, b"kept", reliable=True)
        await until(lambda: a.statistics().reasons.get(Refusal.VANISHED.value, 0) >= 2)
        assert a.statistics().links["b"].last_reason == Refusal.VANISHED.value
        async with listening(at_b) as b:
            a.dial("b", "127.0.0.1", b.port)  # it has moved
            await at_b.until_messages(1)
    assert [header for _, _, header, _ in at_b.messages] == [b"kept"]


async def test_a_peer_that_restarts_is_a_new_process_and_what_it_may_have_handled_is_given_up() -> None:
    at_a, first, second = Probe(), Probe(), Probe()
    async with node("a", at_a, plain("a")) as a:
        async with listening(first) as b:
            a.dial("b", "127.0.0.1", b.port)
            a.send("b", 1, b"to the first", reliable=True)
            await first.until_messages(1)
        await at_a.until(lambda: not at_a.up("b"))
        a.send("b", 1, b"to the second", reliable=True)
        async with listening(second) as b:
            a.dial("b", "127.0.0.1", b.port)
            await second.until_messages(1)
            await until(lambda: a.statistics().links["b"].held_bytes == 0)
    assert [header for _, _, header, _ in second.messages] == [b"to the second"]
    assert a.statistics().links["b"].num_links == 2


async def test_what_was_sent_just_before_the_end_still_arrives() -> None:
    at_a, at_b = Probe(), Probe()
    async with listening(at_b) as b:
        async with node("a", at_a, plain("a")) as a:
            a.dial("b", "127.0.0.1", b.port)
            await at_a.until(lambda: at_a.up("b"))
            for number in range(200):
                a.send("b", 1, number.to_bytes(2), bytes(10_000), reliable=number % 2 == 0)
        await at_b.until(lambda: not at_b.up("a"))
        assert len(at_b.messages) == 200
        assert at_b.links[-1] == ("a", False, Refusal.CLOSED.value)
        assert at_a.links[-1] == ("b", False, Refusal.STOPPED.value)


async def test_a_peer_that_does_not_answer_cannot_hold_up_the_end() -> None:
    at_b = Probe()
    async with AsyncExitStack() as outlives, listening(at_b, Limits(drain_s=0.2)) as b:
        raw = await outlives.enter_async_context(stranger(b.port))
        await raw.send(Hello("fed-1", "c", "b", bytes(16), public_key("c"), 1).encode(HELLO))
        await at_b.until(lambda: at_b.up("c"))
        b.send("c", 1, b"", bytes(1_000_000), reliable=True)
    assert at_b.links[-1] == ("c", False, Refusal.STOPPED.value)


async def test_a_peer_that_falls_silent_is_taken_for_gone_and_one_that_pings_is_not() -> None:
    at_a, at_b = Probe(), Probe()
    limits = Limits(silence_s=1.0)
    async with listening(at_b, limits) as b, node("a", at_a, plain("a"), limits) as a, stranger(b.port) as raw:
        a.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: at_b.up("a"))
        await raw.send(Hello("fed-1", "c", "b", bytes(16), public_key("c"), 1).encode(HELLO))
        await at_b.until(lambda: at_b.up("c"))
        await at_b.until(lambda: not at_b.up("c"))
        assert at_b.links[-1] == ("c", False, Refusal.SILENT.value)
        assert at_b.up("a")
        await read_all(raw)


async def test_a_link_can_be_ended_and_comes_back() -> None:
    at_a, at_b = Probe(), Probe()
    async with listening(at_b) as b, node("a", at_a, plain("a")) as a:
        a.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: at_b.up("a"))
        b.disconnect("a")
        assert not at_b.up("a")
        await at_b.until(lambda: at_b.up("a"))
        with pytest.raises(UnknownPeer):
            b.disconnect("z")
        with pytest.raises(UnknownPeer):
            b.dial("z", "127.0.0.1", 1)


@given(st.integers(1, 10_000), st.integers(0, 2**32))
def test_the_backoff_stays_within_its_bounds(attempt: int, seed: int) -> None:
    backoff = Backoff(first_s=0.1, most_s=5.0)
    wait_s = backoff.wait_s(attempt, random.Random(seed))  # noqa: S311 - jitter
    assert 0.0 <= wait_s <= min(5.0, 0.1 * 2 ** min(attempt, 20))


def test_two_nodes_do_not_dial_in_step() -> None:
    backoff = Backoff()
    one, other = random.Random(1), random.Random(2)  # noqa: S311 - jitter
    assert [backoff.wait_s(n, one) for n in range(5)] != [backoff.wait_s(n, other) for n in range(5)]


@pytest.mark.parametrize(
    "bad",
    [{"node": "a b"}, {"key": b"short"}, {"peers": {"b": b"short"}}, {"peers": {"b/c": bytes(32)}}, {"port": 70_000}],
)
def test_a_bad_config_is_refused(bad: dict[str, object]) -> None:
    values = {"node": "a", "federation": "f", "key": public_key("a"), "peers": PEERS} | bad
    with pytest.raises(BadSetting):
        TcpConfig(**values)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("federation", ["", "f" * 256])
def test_a_federation_id_that_does_not_fit_is_refused_at_birth(federation: str) -> None:
    with pytest.raises(BadSetting, match="federation"):
        TcpConfig("a", federation, public_key("a"), PEERS)


@pytest.mark.parametrize("bad", [{"first_s": 0.0}, {"most_s": 0.01}, {"stable_s": -1.0}])
def test_a_bad_backoff_is_named(bad: dict[str, float]) -> None:
    with pytest.raises(BadSetting, match=next(iter(bad))):
        Backoff(**bad)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    a, c = authority.files("a"), authority.files("c")
    with pytest.raises(BadSetting):
        MutualTls(Files(a.certificate, c.key, a.authority))
    with pytest.raises(BadSetting):
        MutualTls(Files(a.certificate, tmp_path / "missing", a.authority))


async def test_the_error_of_a_handler_is_not_a_peers_fault_and_comes_out() -> None:
    at_a, at_b = Probe(), Probe()

    def broken(from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with node("b", at_b, Plaintext()) as b, node("a", at_a, plain("a")) as a:
            b.attach(broken, at_b.on_link)
            a.dial("b", "127.0.0.1", b.port)
            a.send("b", 1, b"", reliable=True)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)


@asynccontextmanager
async def cutting_proxy(port: int, rng: random.Random, cuts: int) -> AsyncIterator[int]:
    """A port that leads to another, and breaks its first connections after some thousand bytes, anywhere in a frame."""
    left = cuts

    async def forward(source: ByteStream, sink: ByteStream, budget: list[int], group: TaskGroup) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while budget[0] > 0:
                data = (await source.receive(rng.randint(1, 4096)))[: budget[0]]
                budget[0] -= len(data)
                await sink.send(data)
        group.cancel_scope.cancel()

    async def serve(near: ByteStream) -> None:
        nonlocal left
        budget = [rng.randint(200, 20_000) if left > 0 else 10**9]
        left -= 1
        async with near, await anyio.connect_tcp("127.0.0.1", port) as far, anyio.create_task_group() as group:
            group.start_soon(forward, near, far, budget, group)
            group.start_soon(forward, far, near, budget, group)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield listener.extra_attributes[SocketAttribute.local_port]()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("how", ["tcp", "tls"])
async def test_reliable_messages_are_once_only_and_in_order_over_a_network_that_cuts_anywhere(
    seed: int, how: str, tmp_path: Path
) -> None:
    secure = plain if how == "tcp" else Authority(tmp_path).tls
    at_a, at_b, rng = Probe(), Probe(), random.Random(seed)  # noqa: S311 - a plan of faults
    async with (
        node("b", at_b, secure("b")) as b,
        cutting_proxy(b.port, rng, 15) as port,
        node("a", at_a, secure("a")) as a,
    ):
        a.dial("b", "127.0.0.1", port)
        for number in range(150):
            a.send("b", 1, number.to_bytes(2), bytes(rng.randint(0, 3000)), reliable=True)
            b.send("a", 1, number.to_bytes(2), bytes(rng.randint(0, 3000)), reliable=True)
        await at_a.until_messages(150)
        await at_b.until_messages(150)
        links = a.statistics().links["b"].num_links
    for probe in (at_a, at_b):
        assert [int.from_bytes(header) for _, _, header, _ in probe.messages] == list(range(150)), f"seed {seed}"
    assert links > 3
