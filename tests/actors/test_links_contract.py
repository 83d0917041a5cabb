"""Every transport keeps the same contract: memory, TCP, TLS, on asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from actors.errors import BadSetting, TransportClosed
from actors.links import Plaintext, TcpConfig, TcpTransport
from actors.testing import CHECKS, LinkPair, OpenPair, Probe, check_link, run_check
from actors.transport import MemoryHub, MemoryTransport
from tests.links_world import PEERS, Authority, memory_pair, open_tcp, plain, public_key, tcp_pair

pytestmark = pytest.mark.anyio
Check = Callable[[LinkPair, Probe, Probe], Awaitable[None]]


@pytest.fixture(params=["memory", "tcp", "tls"])
def open_pair(request: pytest.FixtureRequest, tmp_path: Path) -> OpenPair:
    if request.param == "memory":
        return memory_pair
    return open_tcp if request.param == "tcp" else partial(tcp_pair, Authority(tmp_path).tls)


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__.strip("_") for check in CHECKS])
async def test_a_transport_keeps_the_contract(check: Check, open_pair: OpenPair) -> None:
    await run_check(check, open_pair)


async def test_the_whole_suite_runs_with_one_call() -> None:
    await check_link(memory_pair)


@pytest.mark.parametrize("kind", ["memory", "tcp"])
async def test_a_transport_must_be_attached_and_entered_before_it_sends(kind: str) -> None:
    transport: MemoryTransport | TcpTransport
    if kind == "memory":
        transport = MemoryTransport("a", MemoryHub(("a", "b")))
    else:
        transport = TcpTransport(TcpConfig("a", "f", public_key("a"), PEERS), plain("a"))
    with pytest.raises(TransportClosed):
        transport.send("b", 1, b"")
    with pytest.raises(BadSetting, match="attach"):
        async with transport:
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org"])  # noqa: S104 - must be refused
async def test_plain_tcp_refuses_to_leave_the_machine(host: str) -> None:
    with pytest.raises(BadSetting, match="loopback"):
        TcpTransport(TcpConfig("a", "f", public_key("a"), PEERS, host=host), Plaintext())
    transport = TcpTransport(TcpConfig("a", "f", public_key("a"), PEERS), Plaintext())
    with pytest.raises(BadSetting, match="loopback"):
        transport.dial("b", host, 1)


@pytest.mark.parametrize("open_one", [memory_pair, open_tcp], ids=["memory", "tcp"])
async def test_an_error_in_the_block_comes_out_as_it_is(open_one: OpenPair) -> None:
    with pytest.raises(KeyError):
        async with open_one(Probe(), Probe()):
            raise KeyError("mine")
