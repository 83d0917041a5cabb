"""The list of keys changes while nodes run: revoked, added, given another key; the others see nothing of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations
from pathlib import Path

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import BadSetting, UnknownPeer
from actors.links import Limits, ReliableConfig, TcpTransport
from actors.links.link import PeerLink
from actors.links.session import Hello, Refusal
from actors.testing import Probe
from tests.links_world import PEERS, Authority, Secure, config, node, plain, public_key, until

pytestmark = pytest.mark.anyio
WITHOUT_C = {name: key for name, key in PEERS.items() if name != "c"}


@attrs.define(eq=False)
class Three:
    """Node `b` listens; `a`, the bystander, and `c` are linked to it."""

    a: TcpTransport
    b: TcpTransport
    c: TcpTransport
    at_a: Probe
    at_b: Probe
    at_c: Probe

    async def linked_again(self) -> None:
        await self.at_b.until(lambda: self.at_b.up("c"))
        await self.at_c.until(lambda: self.at_c.up("b"))


@asynccontextmanager
async def three(secure: Secure) -> AsyncIterator[Three]:
    at_a, at_b, at_c = Probe(), Probe(), Probe()
    async with node("b", at_b, secure("b")) as b, node("a", at_a, secure("a")) as a, node("c", at_c, secure("c")) as c:
        a.dial("b", "127.0.0.1", b.port)
        c.dial("b", "127.0.0.1", b.port)
        world = Three(a, b, c, at_a, at_b, at_c)
        await world.linked_again()
        await at_b.until(lambda: at_b.up("a"))
        for number in range(100):
            a.send("b", 1, number.to_bytes(2), reliable=True)
        yield world
        await at_b.until(lambda: len([m for m in at_b.messages if m[0] == "a"]) == 100)
        assert [link for link in at_b.links if link[0] == "a"] == [("a", True, "")]
        assert at_a.links == [("b", True, "")]


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Secure:
    return plain if request.param == "tcp" else Authority(tmp_path).tls


async def test_a_node_that_is_taken_off_the_list_loses_its_link_at_once_and_what_waits_is_counted(
    secure: Secure,
) -> None:
    async with three(secure) as world:
        for _ in range(3):
            world.b.send("c", 1, b"best effort")
            world.b.send("c", 1, b"reliable", reliable=True)
        world.b.set_peers(WITHOUT_C)
        assert world.at_b.links[-1] == ("c", False, Refusal.UNKNOWN_NODE.value)
        lost = world.b.statistics().links["c"]
        assert (lost.up, lost.held_bytes, lost.num_dropped, lost.num_given_up) == (False, 0, 3, 3)
        with pytest.raises(UnknownPeer):
            world.b.send("c", 1, b"")
        await until(lambda: world.c.statistics().links["b"].last_reason == Refusal.UNKNOWN_NODE.value)  # it is told
        assert not world.at_b.up("c")


async def test_a_node_whose_key_changes_loses_its_link_at_once_and_only_the_new_key_links_again(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    changed = PEERS | {"c": public_key("c new")}
    async with three(authority.tls) as world:
        world.b.send("c", 1, b"for the old key only", reliable=True)
        world.b.set_peers(changed)
        assert world.at_b.links[-1] == ("c", False, Refusal.WRONG_KEY.value)
        assert world.b.statistics().links["c"].num_given_up == 1
        await until(lambda: world.c.statistics().links["b"].last_reason == Refusal.WRONG_KEY.value)
        world.b.send("c", 1, b"for the new key", reliable=True)
        renewed = TcpTransport(config("c", key="c new", peers=changed), authority.tls("c", key="c new"))
        at_renewed = Probe()
        renewed.attach(at_renewed.deliver, at_renewed.on_link)
        async with renewed:
            renewed.dial("b", "127.0.0.1", world.b.port)
            await at_renewed.until_messages(1)
        assert [header for _, _, header, _ in at_renewed.messages] == [b"for the new key"]


async def test_a_node_that_is_listed_again_talks_reliably_from_the_start_though_it_never_stopped(
    secure: Secure,
) -> None:
    async with three(secure) as world:
        for number in range(5):
            world.c.send("b", 1, bytes([number]), reliable=True)
            world.b.send("c", 1, bytes([number]), reliable=True)
        await world.at_c.until_messages(5)
        await world.at_b.until(lambda: len([m for m in world.at_b.messages if m[0] == "c"]) == 5)
        for again in range(5, 8):
            world.b.set_peers(WITHOUT_C)
            world.b.set_peers(PEERS)
            world.b.send("c", 1, bytes([again]), reliable=True)
            await world.linked_again()
            world.c.send("b", 1, bytes([again]), reliable=True)
            await world.at_c.until_messages(again + 1)
            await world.at_b.until(lambda: len([m for m in world.at_b.messages if m[0] == "c"]) == again + 1)  # noqa: B023 - awaited at once
        for probe, who in ((world.at_b, "c"), (world.at_c, "b")):
            assert [header[0] for name, _, header, _ in probe.messages if name == who] == list(range(8))


async def test_a_node_that_is_added_becomes_known_and_links(secure: Secure) -> None:
    at_b, at_d = Probe(), Probe()
    more = PEERS | {"d": public_key("d")}
    newcomer = TcpTransport(config("d", peers=more), secure("d"))
    newcomer.attach(at_d.deliver, at_d.on_link)
    async with node("b", at_b, secure("b")) as b, newcomer as d:
        d.dial("b", "127.0.0.1", b.port)
        await until(lambda: d.statistics().links["b"].last_reason == Refusal.UNKNOWN_NODE.value)
        with pytest.raises(UnknownPeer):
            b.send("d", 1, b"")
        b.set_peers(more)
        b.send("d", 1, b"welcome", reliable=True)
        await at_d.until_messages(1)


async def test_a_node_that_is_taken_off_is_not_dialed_any_more_and_is_when_it_is_back(secure: Secure) -> None:
    at_a, at_b = Probe(), Probe()
    off = {name: key for name, key in PEERS.items() if name != "b"}
    async with node("b", at_b, secure("b")) as b, node("a", at_a, secure("a")) as a:
        a.dial("b", "127.0.0.1", b.port)
        a.set_peers(off)  # before the dialer took its first step
        a.set_peers(PEERS)
        a.dial("b", "127.0.0.1", b.port)
        await at_a.until(lambda: at_a.up("b"))
        a.set_peers(off)
        with pytest.raises(UnknownPeer):
            a.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: not at_b.up("a"))
        b.disconnect("a")
        seen = a.statistics()
        await until(lambda: b.statistics().num_half_open == 0)
        assert a.statistics().links["b"] == seen.links["b"]
        a.set_peers(PEERS)
        a.dial("b", "127.0.0.1", b.port)
        await at_a.until(lambda: at_a.up("b"))


async def test_the_list_may_change_before_the_start_and_when_a_link_changes() -> None:
    at_a, at_b = Probe(), Probe()
    a, b = TcpTransport(config("a", peers={}), plain("a")), TcpTransport(config("b"), plain("b"))
    a.set_peers(PEERS)

    def at_once(node: str, up: bool, reason: str) -> None:
        at_b.on_link(node, up, reason)
        if up:
            b.set_peers({})

    a.attach(at_a.deliver, at_a.on_link)
    b.attach(at_b.deliver, at_once)
    async with b, a:
        a.dial("b", "127.0.0.1", b.port)
        await at_b.until(lambda: len(at_b.links) == 2)
        assert at_b.links == [("a", True, ""), ("a", False, Refusal.UNKNOWN_NODE.value)]


async def test_a_list_with_a_mistake_changes_nothing(secure: Secure) -> None:
    async with three(secure) as world:
        for bad in ({"c": b"short"}, {"c/d": bytes(32)}, WITHOUT_C | {"b": public_key("z")}):
            with pytest.raises(BadSetting):
                world.b.set_peers(bad)
        assert world.b.statistics().links["c"].up
        world.b.set_peers(PEERS)
        assert world.b.statistics().links["c"].up


@attrs.define(eq=False)
class Turmoil:
    """Three nodes that all dial each other while their lists change at random."""

    rng: random.Random
    nodes: dict[str, TcpTransport]
    probes: dict[str, Probe]
    num_sent: int = 0

    def dial_all(self) -> None:
        for name, other in permutations(self.nodes, 2):
            with contextlib.suppress(UnknownPeer):
                self.nodes[name].dial(other, "127.0.0.1", self.nodes[other].port)

    def step(self) -> None:
        name, other = self.rng.sample(sorted(self.nodes), 2)
        one = self.nodes[name]
        what = self.rng.choice(["off", "another key", "back", "send", "send"])
        if what == "send":
            with contextlib.suppress(UnknownPeer):
                one.send(other, 1, self.num_sent.to_bytes(4), reliable=True)
                self.num_sent += 1
            return
        changes = {"off": {}, "another key": {other: public_key("z")}, "back": PEERS}[what]
        one.set_peers({node: key for node, key in PEERS.items() if node != other} | changes)
        self.dial_all()

    def heard(self, name: str, other: str, kind: int) -> list[int]:
        messages = self.probes[name].messages
        return [int.from_bytes(header) for who, found, header, _ in messages if (who, found) == (other, kind)]

    async def recover(self) -> None:
        """All are listed again. What is sent before each knows that the other one forgot it may be given up."""
        for one in self.nodes.values():
            one.set_peers(PEERS)
        self.dial_all()
        with anyio.fail_after(10.0):
            while not all(self.heard(name, other, 2) for name, other in permutations(self.nodes, 2)):
                for name, other in permutations(self.nodes, 2):
                    self.nodes[name].send(other, 2, bytes(4), reliable=True)
                await anyio.sleep(0.05)


@pytest.mark.parametrize("seed", range(3))
async def test_lists_that_change_at_random_while_all_dial_all_leave_nothing_broken(secure: Secure, seed: int) -> None:
    probes = {name: Probe() for name in "abc"}
    nodes = {name: node(name, probe, secure(name)) for name, probe in probes.items()}
    rng = random.Random(seed)  # noqa: S311 - a plan of faults
    async with nodes["a"], nodes["b"], nodes["c"]:
        world = Turmoil(rng, nodes, probes)
        world.dial_all()
        for _ in range(60):
            world.step()
            await anyio.sleep(rng.choice([0.0, 0.0, 0.001, 0.005, 0.02]))
        await world.recover()
    for name, other in permutations(nodes, 2):
        got = world.heard(name, other, 1)
        assert got == sorted(set(got)), f"seed {seed}"
        changes = [up for who, up, _ in probes[name].links if who == other]
        assert changes == [True, False] * (len(changes) // 2), f"seed {seed}"


class Ends:
    """Two `PeerLink`s that talk without a network; either may forget the other, and nobody tells the other one."""

    def __init__(self) -> None:
        self.names = ("a", "b")
        self.links = {name: PeerLink(name, Limits(), ReliableConfig(window=4)) for name in self.names}
        self.lives = dict.fromkeys(self.names, 0)
        self.got: dict[str, list[bytes]] = {name: [] for name in self.names}
        self.next = 0

    def connect(self) -> None:
        hello = {
            name: Hello("f", name, name, self.lives[name].to_bytes(16), public_key(name), 7) for name in self.names
        }
        for name, other in (("a", "b"), ("b", "a")):
            self.links[name].open(hello[other], hello[name], 0.0)

    def cut(self) -> None:
        for link in self.links.values():
            link.close("cut")

    def forget(self, name: str) -> None:
        self.cut()
        self.links[name].forget("revoked")
        self.lives[name] += 1
        self.connect()

    def send(self, name: str) -> None:
        self.links[name].send(1, self.next.to_bytes(4), b"", reliable=True)
        self.next += 1

    def exchange(self, name: str) -> bool:
        """Carry what this end has; return whether there was something."""
        other = "b" if name == "a" else "a"
        data = b"".join(self.links[name].take(0.0))
        self.links[name].sent()
        messages, _ = self.links[other].receive(data, 0.0) if data else ([], 0.0)
        assert self.links[other].fault is None
        self.got[other] += [header for _, header, _ in messages]
        return bool(data)


@given(st.lists(st.tuples(st.sampled_from(["send", "exchange", "forget", "cut"]), st.sampled_from(["a", "b"]))))
def test_whoever_forgets_whom_and_when_no_message_comes_twice_and_the_channel_goes_on(
    steps: list[tuple[str, str]],
) -> None:
    ends = Ends()
    ends.connect()
    for what, name in steps:
        if what == "cut":
            ends.cut()
            ends.connect()
        else:
            getattr(ends, what)(name)
    last = ends.next
    ends.send("a")
    ends.send("b")
    while ends.exchange("a") | ends.exchange("b"):
        pass
    for got in ends.got.values():
        assert got == sorted(set(got))
    assert (ends.got["b"][-1], ends.got["a"][-1]) == (last.to_bytes(4), (last + 1).to_bytes(4))
    assert all(not link.statistics().held_bytes for link in ends.links.values())
