"""Two hosts in two network namespaces: the network is cut and mended, and reliable messages come once and in order."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from actors.links import Refusal
from tests.links_node import NodeProcess, node_process
from tests.netns_world import Network, network, why_not

BURST = 100


@pytest.fixture
def net() -> Iterator[Network]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with network("north", "south") as made:
        yield made


async def burst(a: NodeProcess, b: NodeProcess, number: int) -> None:
    for node, other in ((a, "b"), (b, "a")):
        await node.ask(send=[other, number * BURST, (number + 1) * BURST])


async def partition_and_heal(net: Network, folder: Path) -> None:
    tls = ("--tls", str(folder), "--silence", "1.5")
    async with (
        node_process("a", *tls, "--host", net.address("north"), prefix=net.command("north")) as a,
        node_process("b", *tls, "--host", net.address("south"), "--loop", "trio", prefix=net.command("south")) as b,
    ):
        await a.ask(dial=["b", net.address("south"), await b.until("port", 1)])
        await a.until_link("b", up=True)
        await b.until_link("a", up=True)
        await burst(a, b, 0)
        await a.until("got", BURST)
        await b.until("got", BURST)
        await burst(a, b, 1)  # some of it may be on its way
        net.partition("south")
        await burst(a, b, 2)
        await a.until_link("b", up=False)
        await b.until_link("a", up=False)
        await burst(a, b, 3)
        net.heal("south")
        await a.until("got", 4 * BURST)
        await b.until("got", 4 * BURST)
        assert a.of("got") == [["b", number] for number in range(4 * BURST)]
        assert b.of("got") == [["a", number] for number in range(4 * BURST)]
        for node, peer in ((a, "b"), (b, "a")):
            down = [link for link in node.of("link") if not link[1]]
            assert down[0] == [peer, False, Refusal.SILENT.value]
            await node.until_idle(peer)


@pytest.mark.slow
def test_what_two_hosts_say_reliably_survives_a_partition_once_only_and_in_order(net: Network, tmp_path: Path) -> None:
    anyio.run(partition_and_heal, net, tmp_path)


@pytest.mark.slow
def test_hosts_are_apart_and_reach_each_other_only_over_the_switch(net: Network) -> None:
    reach = [*net.command("north"), "ip", "route", "get", net.address("south")]
    assert b"dev eth0" in subprocess.run(reach, capture_output=True, check=True).stdout
    outside = [*net.command("north"), "ip", "route", "get", "192.0.2.1"]
    assert subprocess.run(outside, capture_output=True, check=False).returncode


def test_a_machine_without_the_tools_is_told_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_not() == "network namespaces need unshare, nsenter, ip (util-linux, iproute2)"


def test_a_machine_that_forbids_namespaces_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("unshare", "nsenter", "ip"):
        refuses = tmp_path / tool
        refuses.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
        refuses.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = why_not()
    assert reason == "network namespaces are not allowed here: unshare: unshare failed: Operation not permitted"
