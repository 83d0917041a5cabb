"""A clock that jumps by an hour, either way: links may end with a reason and come back, and nothing hangs.

A node's clock is monotonic, so this takes a broken machine, or a process that was stopped for an hour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest

from actors.links import Limits, ReliableConfig, TcpTransport
from actors.links.link import PeerLink
from actors.links.session import Hello, Refusal, TokenBucket
from actors.testing import Probe
from tests.links_world import Authority, Secure, config, node, plain, public_key, until

pytestmark = pytest.mark.anyio
HOUR = 3600.0


class Clock:
    """The time, and an error that a test sets."""

    error_s = 0.0

    def __call__(self) -> float:
        return anyio.current_time() + self.error_s


@attrs.define(eq=False)
class Pair:
    """Node `b` has the clock that jumps; `a` and `c` are linked to it."""

    clock: Clock
    a: TcpTransport
    b: TcpTransport
    at_a: Probe
    at_b: Probe
    num_sent: int = 0

    async def talk(self) -> None:
        """Ten messages either way."""
        for number in range(self.num_sent, self.num_sent + 10):
            self.a.send("b", 1, number.to_bytes(4), bytes(3000), reliable=True)
            self.b.send("a", 1, number.to_bytes(4), bytes(3000), reliable=True)
        self.num_sent += 10
        await self.at_a.until_messages(self.num_sent)
        await self.at_b.until_messages(self.num_sent)

    async def several_looks_at_the_clock(self) -> None:
        """Both sides ping when they are silent, so what one hears has gone through its ticks."""
        before = self.a.statistics().links["b"].received_bytes
        await until(lambda: self.a.statistics().links["b"].received_bytes > before)


@asynccontextmanager
async def pair(secure: Secure) -> AsyncIterator[Pair]:
    clock, at_a, at_b, limits = Clock(), Probe(), Probe(), Limits(silence_s=1.5)
    b = TcpTransport(config("b", limits=limits), secure("b"), now=clock)
    b.attach(at_b.deliver, at_b.on_link)
    async with b, node("a", at_a, secure("a"), limits) as a:
        a.dial("b", "127.0.0.1", b.port)
        await at_a.until(lambda: at_a.up("b"))
        await at_b.until(lambda: at_b.up("a"))
        world = Pair(clock, a, b, at_a, at_b)
        await world.talk()
        yield world
        await world.talk()
        for probe in (at_a, at_b):
            assert [int.from_bytes(header) for _, _, header, _ in probe.messages] == list(range(world.num_sent))


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Secure:
    return plain if request.param == "tcp" else Authority(tmp_path).tls


async def test_a_clock_that_is_set_back_ends_no_link(secure: Secure) -> None:
    async with pair(secure) as world:
        world.clock.error_s = -HOUR
        await world.talk()
        await world.several_looks_at_the_clock()
        assert world.at_b.links == [("a", True, "")]
        assert world.at_a.links == [("b", True, "")]


async def test_a_clock_that_jumps_ahead_may_end_a_link_for_silence_and_it_comes_back(secure: Secure) -> None:
    async with pair(secure) as world:

        def jumped() -> bool:  # again and again: a byte that comes between a jump and the next look saves the link
            world.clock.error_s += HOUR
            return len(world.at_b.links) > 1

        await until(jumped)
        assert world.at_b.links[1] == ("a", False, Refusal.SILENT.value)
        await world.at_b.until(lambda: world.at_b.up("a"))
        await world.talk()


async def test_a_clock_that_goes_to_and_fro_loses_no_reliable_message(secure: Secure) -> None:
    async with pair(secure) as world:
        for error_s in (HOUR, 0.0, -HOUR, HOUR, -HOUR):
            world.clock.error_s = error_s
            await world.talk()


def test_a_clock_that_is_set_back_gives_no_debt_and_no_tokens() -> None:
    bucket = TokenBucket(rate=10.0, burst=10.0, now=HOUR)
    assert bucket.spend(5.0, HOUR) == 0.0
    assert bucket.spend(5.0, 0.0) == 0.0
    assert bucket.spend(1.0, 0.0) == 0.1


def test_a_peer_that_falls_silent_after_the_clock_was_set_back_is_noticed_in_the_usual_time() -> None:
    link = PeerLink("c", Limits(silence_s=15.0, frame_s=10.0), ReliableConfig())
    hello = Hello("f", "c", "b", bytes(16), public_key("c"), 1)
    link.open(hello, attrs.evolve(hello, node="b", to="c"), HOUR)
    link.receive(b"\x10", HOUR)  # the first byte of a frame
    link.tick(5.0)
    assert link.fault is None
    link.tick(14.0)
    assert link.fault is None
    link.tick(15.1)
    assert link.fault is Refusal.FRAME_LATE
