"""What tests of a transport need: a probe, and the contract that every link keeps, the fake ones too.

`check_link` runs each check of `CHECKS` on a fresh pair of transports. A new transport passes it before it is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel
import attrs

from actors.errors import BadFrame, BadSetting, LinkFull, TransportClosed, UnknownPeer
from actors.transport import Transport

WAIT_S = 10.0  # longer than a loaded machine needs; only a failing check waits it out


class Probe:
    """Records what a transport says, and waits for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, int, bytes, bytes]] = []
        self.links: list[tuple[str, bool, str]] = []
        self.blobs: list[bytes | memoryview] = []
        self._changed = anyio.Event()

    def deliver(self, from_node: str, kind: int, header: bytes, blob: bytes | memoryview) -> None:
        """Record a message; the `Deliver` of a transport. A header `no frame` is refused.

        Raises:
            BadFrame: as whoever decodes further up may.
        """
        if header == b"no frame":
            raise BadFrame("no frame")
        self.messages.append((from_node, kind, header, bytes(blob)))
        self.blobs.append(blob)
        self._changed.set()

    def on_link(self, node: str, up: bool, reason: str) -> None:
        """Record a link; the `OnLink` of a transport."""
        self.links.append((node, up, reason))
        self._changed.set()

    def up(self, node: str) -> bool:
        """Return whether the last word on the node is that there is a link."""
        return [up for who, up, _ in self.links if who == node][-1:] == [True]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after everything that is recorded.

        Raises:
            TimeoutError: it did not within ten seconds.
        """
        with anyio.fail_after(WAIT_S):
            while not condition():
                self._changed = anyio.Event()
                await self._changed.wait()

    async def until_messages(self, count: int) -> None:
        """Wait for so many messages in all."""
        await self.until(lambda: len(self.messages) >= count)


@attrs.frozen
class LinkPair:
    """Two transports that run and know each other.

    Attributes:
        a: node `a`; it also knows a node `absent` that never runs.
        b: node `b`.
        cut: breaks the link between them, which comes back by itself.
    """

    a: Transport
    b: Transport
    cut: Callable[[], Awaitable[None]]


OpenPair = Callable[[Probe, Probe], AbstractAsyncContextManager[LinkPair]]
"""Makes nodes `a` and `b`, attached to the probes and running."""


async def check_link(open_pair: OpenPair) -> None:
    """Run every check of the contract on a pair of its own.

    Raises:
        AssertionError: the contract is broken; the traceback names the check.
    """
    for check in CHECKS:
        await run_check(check, open_pair)


async def run_check(check: Callable[[LinkPair, Probe, Probe], Awaitable[None]], open_pair: OpenPair) -> None:
    """Run one check of `CHECKS`, and see that links went up and down in turns."""
    at_a, at_b = Probe(), Probe()
    async with open_pair(at_a, at_b) as pair:
        await at_a.until(lambda: at_a.up("b"))
        await at_b.until(lambda: at_b.up("a"))
        await check(pair, at_a, at_b)
    for probe in (at_a, at_b):
        assert [up for _, up, _ in probe.links] == [True, False] * (len(probe.links) // 2), probe.links
        assert all(bool(reason) is not up for _, up, reason in probe.links), probe.links
    for transport in (pair.a, pair.b):
        _expect(TransportClosed, lambda transport=transport: transport.send("a", 0, b""))  # type: ignore[misc]  # binds now


def _expect(kind: type[Exception], action: Callable[[], object]) -> None:
    try:
        action()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}")


async def _arrives_as_it_was_sent(pair: LinkPair, at_a: Probe, at_b: Probe) -> None:
    pair.a.send("b", 0, b"")
    pair.a.send("b", 63, b"head", b"blob", reliable=True)
    eight = memoryview(b"12345678").cast("d")  # a length of one, eight bytes
    pair.b.send("a", 7, bytes(range(256)), eight)  # type: ignore[arg-type]  # an array's view is one too
    await at_b.until_messages(2)
    await at_a.until_messages(1)
    assert sorted(at_b.messages) == [("a", 0, b"", b""), ("a", 63, b"head", b"blob")]
    assert at_a.messages == [("b", 7, bytes(range(256)), b"12345678")]


async def _keeps_the_order(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    for number in range(500):
        pair.a.send("b", 1, number.to_bytes(4), bytes(number))
        pair.a.send("b", 2, number.to_bytes(4), bytes(number), reliable=True)
    await at_b.until_messages(1000)
    for kind in (1, 2):
        numbers = [int.from_bytes(header) for _, found, header, _ in at_b.messages if found == kind]
        assert numbers == list(range(500))


async def _lets_no_reliable_message_overtake(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    for number in range(300):
        pair.a.send("b", 1, number.to_bytes(4), bytes(1000), reliable=number % 3 == 0)
    await at_b.until_messages(300)
    numbers = [int.from_bytes(header) for _, _, header, _ in at_b.messages]
    for place, number in enumerate(numbers):
        if number % 3 == 0:
            assert set(range(number)) <= set(numbers[:place]), number


async def _carries_large_blobs(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    blobs = [bytes([n]) * size for n, size in enumerate((65_536, 100_000, 300_000, 1_000_000, 3, 2_000_000))]
    for blob in blobs:
        pair.a.send("b", 1, b"h", memoryview(blob))
    await at_b.until_messages(len(blobs))
    assert [blob for *_, blob in at_b.messages] == blobs
    assert all(memoryview(blob).readonly for blob in at_b.blobs)


async def _names_what_it_refuses(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    _expect(UnknownPeer, lambda: pair.a.send("nobody", 0, b""))
    _expect(UnknownPeer, lambda: pair.a.send("a", 0, b""))
    for kind in (-1, 64):
        _expect(BadSetting, lambda kind=kind: pair.a.send("b", kind, b""))  # type: ignore[misc]  # binds now
    _expect(BadSetting, lambda: pair.a.send("b", 0, b"", bytes(5 * 1024 * 1024)))
    pair.a.send("b", 0, b"last")
    await at_b.until_messages(1)
    assert len(at_b.messages) == 1


async def _bounds_what_waits(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    for reliable in (False, True):
        taken = 0
        for _ in range(100):  # without a checkpoint in between nothing can leave
            try:
                pair.a.send("b", 1, b"", bytes(1_000_000), reliable=reliable)
            except LinkFull:
                break
            taken += 1
        assert 4 <= taken <= 9, taken
        await at_b.until_messages(len(at_b.messages) + taken)
        with anyio.fail_after(WAIT_S):
            while pair.a.statistics().links["b"].held_bytes:  # noqa: ASYNC110 - a transport says nothing when it is empty
                await anyio.sleep(0.001)
    statistics = pair.a.statistics().links["b"]
    assert statistics.num_full == 2
    assert statistics.held_bytes_max <= 8 * 1024 * 1024


async def _is_once_only_across_cuts(pair: LinkPair, at_a: Probe, at_b: Probe) -> None:
    for burst in range(4):
        for number in range(50):
            pair.a.send("b", 1, (50 * burst + number).to_bytes(4), bytes(5000), reliable=True)
            pair.b.send("a", 1, (50 * burst + number).to_bytes(4), reliable=True)
        await at_b.until_messages(50 * burst + 1)
        await pair.cut()
    await at_a.until_messages(200)
    await at_b.until_messages(200)
    await at_a.until(lambda: at_a.up("b"))
    await at_b.until(lambda: at_b.up("a"))
    pair.a.send("b", 2, b"after", reliable=True)
    await at_b.until_messages(201)
    for probe in (at_a, at_b):
        assert [int.from_bytes(header) for _, kind, header, _ in probe.messages if kind == 1] == list(range(200))


async def _ends_the_link_when_a_message_is_refused(pair: LinkPair, at_a: Probe, at_b: Probe) -> None:
    pair.a.send("b", 1, b"before", reliable=True)
    await at_b.until_messages(1)
    pair.a.send("b", 1, b"no frame")
    await at_b.until(lambda: ("a", False, "bad frame") in at_b.links)
    await at_a.until(lambda: ("b", False) in [link[:2] for link in at_a.links])
    await at_a.until(lambda: at_a.up("b"))
    await at_b.until(lambda: at_b.up("a"))
    pair.a.send("b", 1, b"after", reliable=True)
    await at_b.until_messages(2)
    assert [header for _, _, header, _ in at_b.messages] == [b"before", b"after"]


async def _drops_best_effort_without_a_link(pair: LinkPair, _at_a: Probe, at_b: Probe) -> None:
    for _ in range(3):
        pair.a.send("absent", 1, b"gone")
    pair.a.send("absent", 1, b"kept", reliable=True)
    statistics = pair.a.statistics().links["absent"]
    assert (statistics.up, statistics.num_dropped, statistics.num_links) == (False, 3, 0)
    assert statistics.held_bytes > 0
    assert statistics.last_reason
    assert at_b.messages == []


async def _counts_what_it_does(pair: LinkPair, at_a: Probe, at_b: Probe) -> None:
    for _ in range(10):
        pair.a.send("b", 1, b"0123", b"456789")
        pair.a.send("b", 1, b"0123", b"456789", reliable=True)
        pair.b.send("a", 1, b"")
    await at_a.until_messages(10)
    await at_b.until_messages(20)
    out, back = pair.a.statistics().links["b"], pair.b.statistics().links["a"]
    assert (out.node, out.up, out.num_links, back.num_links) == ("b", True, 1, 1)
    assert (out.received_frames, back.received_frames) == (10, 20)
    assert out.sent_frames >= 20
    assert out.sent_bytes >= 200
    assert back.received_bytes >= 200


CHECKS: tuple[Callable[[LinkPair, Probe, Probe], Awaitable[None]], ...] = (
    _arrives_as_it_was_sent,
    _keeps_the_order,
    _lets_no_reliable_message_overtake,
    _carries_large_blobs,
    _names_what_it_refuses,
    _bounds_what_waits,
    _is_once_only_across_cuts,
    _ends_the_link_when_a_message_is_refused,
    _drops_best_effort_without_a_link,
    _counts_what_it_does,
)
