"""Actors of one's own under a plan's faults: lost, late, doubled, cut off; reliable messages late but whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from actors.transport import MemoryHub, MemoryTransport
from scarcity.errors import ConfigError
from sim.faults.network import Network
from sim.faults.plan import Churn, Duplicate, Entry, FaultPlan, Latency, Loss, Partition
from sim.testing.faulty_transport import FaultyTransport

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
NODES = ("a", "b")


def faulty(node: str, hub: MemoryHub, *entries: Entry) -> FaultyTransport:
    network = tuple(entry for entry in entries if isinstance(entry, Network))
    faults: Any = tuple(entry for entry in entries if not isinstance(entry, Network))
    return FaultyTransport(MemoryTransport(node, hub), FaultPlan(network, faults), NODES, seed=3)


@asynccontextmanager
async def pair(*entries: Entry) -> AsyncIterator[tuple[FaultyTransport, list[tuple[float, bytes]]]]:
    """Yield the transport of a, and what b gets and when."""
    hub, got = MemoryHub(NODES), list[tuple[float, bytes]]()
    one, other = faulty("a", hub, *entries), faulty("b", hub)
    one.attach(lambda *_message: None, lambda *_link: None)
    other.attach(
        lambda _node, _kind, header, _blob: got.append((anyio.current_time() - start, header)), lambda *_link: None
    )
    async with other, one:
        start = anyio.current_time()
        yield one, got


async def test_a_message_takes_its_time() -> None:
    async with pair(Latency.fixed(0.2)) as (a, got):
        a.send("b", 0, b"hello")
        await anyio.sleep(0.1)
        assert got == []
        await anyio.sleep(0.2)
        assert [header for _at, header in got] == [b"hello"]
        assert a.fired()[0].count == 1


async def test_a_fifth_is_lost_and_some_come_twice() -> None:
    async with pair(Loss(0.2), Duplicate(0.1)) as (a, got):
        for number in range(500):
            a.send("b", 0, str(number).encode())
        await anyio.sleep(1.0)
    kinds = {header for _at, header in got}
    assert 350 < len(kinds) < 450
    assert len(got) > len(kinds)


async def test_reliable_messages_come_once_and_in_order_though_the_network_loses_half() -> None:
    async with pair(Loss(0.5), Latency.uniform(0.0, 0.3)) as (a, got):
        for number in range(50):
            a.send("b", 0, str(number).encode(), reliable=True)
        await anyio.sleep(10.0)
    assert [header for _at, header in got] == [str(number).encode() for number in range(50)]


async def test_a_partition_holds_for_its_time() -> None:
    async with pair(Partition(1.0, 2.0, ("a", "b"))) as (a, got):
        for _second in range(3):
            a.send("b", 0, str(_second).encode())
            await anyio.sleep(1.0)
    assert [header for _at, header in got] == [b"0", b"2"]


async def test_a_fault_of_members_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"faults\[0\]: churn strikes members of a swarm"):
        faulty("a", MemoryHub(NODES), Churn(per_minute=1, down_s=1, of=("*",)))
