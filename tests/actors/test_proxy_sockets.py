"""The proxy between an echo server and its clients, on real sockets: who dials whom is known, losses are cuts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from scarcity.errors import ConfigError
from sim.chance import Chance
from sim.faults.network import Network
from sim.faults.plan import Bandwidth, Churn, Clog, Crash, Entry, Fault, FaultPlan, Latency, Loss, Partition
from sim.faults.stage import FaultStage
from sim.testing import proxy as module
from sim.testing.faulty_transport import ANY_PACKET
from sim.testing.proxy import FaultProxy, ProxiedNode
from tests.nodes_world import free_ports

pytestmark = pytest.mark.anyio
NAMES = ("a", "b")
BROKEN = (anyio.BrokenResourceError, anyio.EndOfStream)


def plan_of(*entries: Entry) -> FaultPlan:
    network = tuple(entry for entry in entries if isinstance(entry, Network))
    return FaultPlan(network, tuple(entry for entry in entries if isinstance(entry, Fault)))


async def echo(stream: SocketStream) -> None:
    async with stream:
        try:
            while True:
                await stream.send(await stream.receive())
        except BROKEN:
            return


@asynccontextmanager
async def proxied(*entries: Entry, seed: int = 1, until_s: float = 60.0) -> AsyncIterator[FaultProxy]:
    """Two nodes that echo, and the proxy between them, not begun."""
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        nodes = {}
        for name in NAMES:
            listener = await stack.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
            nodes[name] = ProxiedNode(("127.0.0.1", listener.extra_attributes[SocketAttribute.local_port]()))
            group.start_soon(partial(listener.serve, echo))
        with anyio.fail_after(20):
            async with FaultProxy(plan_of(*entries), nodes, seed, until_s=until_s) as proxy:
                yield proxy
        group.cancel_scope.cancel()


async def dial(proxy: FaultProxy, src: str = "a", dst: str = "b") -> SocketStream:
    host, port = proxy.address(src, dst).split(":")
    return await anyio.connect_tcp(host, int(port))


async def said(stream: SocketStream, words: bytes = b"word") -> bool:
    """Say something and hear it again; False: the connection is broken."""
    try:
        await stream.send(words)
        heard = b""
        while len(heard) < len(words):
            heard += await stream.receive()
    except BROKEN:
        return False
    assert heard == words
    return True


async def tried(proxy: FaultProxy, src: str = "a", dst: str = "b") -> bool:
    async with await dial(proxy, src, dst) as stream:
        return await said(stream)


async def test_until_it_begins_all_passes_as_it_is() -> None:
    async with proxied(Loss(1.0), Latency.fixed(9.0)) as proxy:
        assert await tried(proxy)
        assert await tried(proxy, "b", "a")
        assert proxy.now_s == -math.inf
        assert proxy.never_struck() == "network[0] (loss), network[1] (latency)"
        proxy.begin()
        assert not await tried(proxy)
        assert (proxy.counts.opened, proxy.counts.refused) == (2, 1)
        assert proxy.never_struck() == ""  # each counts what it would have done without the other


async def test_latency_is_there_and_back_and_before_the_first_word() -> None:
    async with proxied(Latency.fixed(0.05)) as proxy:
        proxy.begin()
        began = anyio.current_time()
        assert await tried(proxy)
        assert anyio.current_time() - began >= 0.15
        assert proxy.fired()[0].on == ("a", "b")


async def test_a_connection_is_cut_at_the_chunk_that_the_stage_loses() -> None:
    law = Loss(0.2)
    stage = FaultStage(plan_of(law), {name: name for name in NAMES}, Chance(5), math.inf)

    def lost(src: str, dst: str) -> bool:
        return not stage.passages(src, dst, ANY_PACKET, 4, 1.0)

    async with proxied(law, seed=5) as proxy:
        proxy.begin()
        for _ in range(10):  # connections, each as far as it comes
            number, expected = 0, 0
            async with await dial(proxy) as stream:
                while await said(stream):
                    number += 1
            if not lost("a", "b"):
                while not lost("a", "b") and not lost("b", "a"):
                    expected += 1
            assert number == expected
        assert proxy.counts.cut + proxy.counts.refused == 10
        assert 0 < proxy.counts.refused < 10
        assert proxy.fired()[0].count == 10


async def test_a_partition_cuts_what_speaks_and_refuses_what_dials_until_it_ends() -> None:
    async with proxied(Partition(0.0, 0.3, ("a",))) as proxy:
        stream, silent = await dial(proxy), await dial(proxy, "b", "a")
        async with stream, silent:
            assert await said(stream)
            assert await said(silent)
            proxy.begin()
            assert not await said(stream)
            assert not await tried(proxy)
            assert not await tried(proxy, "b", "a")
            await anyio.sleep(max(0.0, 0.31 - proxy.now_s))
            assert await said(silent)  # who says nothing notices nothing
            assert await tried(proxy)
        assert proxy.fired()[0].on == ("a", "b")


async def test_a_one_way_partition_passes_the_other_way_until_an_answer_cuts_it() -> None:
    async with proxied(Partition(0.0, 30.0, ("a", "b"), symmetric=False, mode="split")) as proxy:
        proxy.begin()
        assert not await tried(proxy)
        assert proxy.counts.refused == 1
        assert not await tried(proxy, "b", "a")  # it is opened, the word arrives, the echo is lost
        assert (proxy.counts.opened, proxy.counts.cut) == (1, 1)
        assert proxy.fired()[0].on == ("a",)


async def test_a_clog_holds_bytes_back_and_breaks_nothing() -> None:
    async with proxied(Clog(0.0, 0.3, ("b",))) as proxy, await dial(proxy) as stream:
        assert await said(stream)
        proxy.begin()
        began = anyio.current_time()
        assert await said(stream)
        assert anyio.current_time() - began >= 0.29
        assert proxy.counts.cut == 0


async def test_a_line_has_its_bandwidth_over_all_connections_of_a_pair() -> None:
    async with proxied(Bandwidth(400_000.0)) as proxy:
        one, other = await dial(proxy), await dial(proxy)
        async with one, other, anyio.create_task_group() as group:
            proxy.begin()
            began = anyio.current_time()
            group.start_soon(said, one, bytes(40_000))
            group.start_soon(said, other, bytes(40_000))
        assert anyio.current_time() - began >= 0.2  # 80 kB there; the way back is another line


async def test_a_node_that_does_not_listen_is_a_broken_connection() -> None:
    (port,) = free_ports(1)
    nodes = {"a": ProxiedNode(("127.0.0.1", port)), "b": ProxiedNode(("127.0.0.1", port))}
    async with FaultProxy(FaultPlan(), nodes, 1) as proxy:
        assert not await tried(proxy)
        assert proxy.counts.unreachable == 1


async def test_a_megabyte_arrives_whole_through_small_delays() -> None:
    words = bytes(range(256)) * 4096
    async with proxied(Latency.uniform(0.0, 0.002)) as proxy, await dial(proxy) as stream:
        proxy.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(stream.send, words)
            heard = b""
            while len(heard) < len(words):
                heard += await stream.receive()
        assert heard == words


async def test_more_connections_than_there_may_be_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINKS", 1)
    async with proxied() as proxy, await dial(proxy) as stream:
        assert await said(stream)
        assert not await tried(proxy)
        assert proxy.counts.refused == 1


async def test_crashes_are_told_once_when_they_are_due_and_fire_when_told() -> None:
    async with proxied(Crash(0.1, ("a",), down_s=1.0), Crash(50.0, ("b",)), Churn(1e-6, 1.0, ("b",))) as proxy:
        assert proxy.due_crashes() == ()
        proxy.begin()
        assert proxy.due_crashes() == ()
        await anyio.sleep(0.11)
        assert proxy.never_struck().startswith("faults[0] (crash)")
        (event,) = proxy.due_crashes()
        assert (event.member, event.at_s, event.up_at_s) == ("a", 0.1, 1.1)
        assert proxy.due_crashes() == ()
        assert proxy.never_struck() == "faults[1] (crash), faults[2] (churn)"


async def test_a_pair_that_is_none_has_no_address() -> None:
    async with proxied() as proxy:
        for pair in (("a", "a"), ("a", "c"), ("", "b")):
            with pytest.raises(ConfigError, match="two of these have one: a, b"):
                proxy.address(*pair)
    with pytest.raises(ConfigError, match="does not run"):
        proxy.address("a", "b")


async def test_the_end_of_the_block_resets_what_is_open() -> None:
    async with proxied(Latency.fixed(30.0)) as proxy:
        stream = await dial(proxy)
        proxy.begin()
        waiting = await dial(proxy)
    for each in (stream, waiting):
        async with each:
            assert not await said(each)
