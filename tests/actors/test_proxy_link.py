"""One connection through the proxy, in virtual time: late, in order, held back, cut, and ended as its ends do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from sim.testing.proxy_link import CHUNK_BYTES, MAX_WAITING, Decide, Ending, Link, ProxyCounts
from tests.proxy_world import MemoryBytes, memory_bytes

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def at_once(_size: int) -> float:
    return 0.0


def each(*delays: float | None) -> Decide:
    """What becomes of the first chunk, the second ...; of all others nothing."""
    left = list(delays)
    return lambda _size: left.pop(0) if left else 0.0


@asynccontextmanager
async def both_sides() -> AsyncIterator[tuple[MemoryBytes, ...]]:
    async with memory_bytes() as (dialler, near), memory_bytes() as (far, listener):
        yield dialler, near, far, listener


@asynccontextmanager
async def linked(
    there: Decide = at_once, back: Decide = at_once
) -> AsyncIterator[tuple[MemoryBytes, MemoryBytes, Link]]:
    """Both ends of a connection, and what is between them, which must be over when the block ends."""
    async with both_sides() as (dialler, near, far, listener), anyio.create_task_group() as group:
        link = Link(near, far, there, back, ProxyCounts())
        group.start_soon(link.run)
        yield dialler, listener, link
        with anyio.fail_after(100):
            await dialler.aclose()
            await listener.aclose()


async def heard(stream: MemoryBytes, number: int) -> list[tuple[bytes, float]]:
    """Receive so many times: what, and when."""
    return [(await stream.receive(), anyio.current_time()) for _ in range(number)]


def seconds(began: float, found: list[tuple[bytes, float]]) -> list[tuple[bytes, float]]:
    return [(data, round(at - began, 6)) for data, at in found]


async def test_a_chunk_takes_its_time_and_those_behind_it_wait_for_it() -> None:
    async with linked(each(0.5, 0.1, 2.0)) as (dialler, listener, _):
        began = anyio.current_time()
        for word in (b"one", b"two", b"three"):
            await dialler.send(word)
        found = await heard(listener, 3)
    assert seconds(began, found) == [(b"one", 0.5), (b"two", 0.5), (b"three", 2.0)]


async def test_both_ways_are_late_on_their_own() -> None:
    async with linked(each(1.0), each(0.25)) as (dialler, listener, _):
        began = anyio.current_time()
        await dialler.send(b"ping")
        await listener.send(b"pong")
        assert seconds(began, await heard(dialler, 1)) == [(b"pong", 0.25)]
        assert seconds(began, await heard(listener, 1)) == [(b"ping", 1.0)]


@pytest.mark.parametrize("turn", [lambda ends: ends, lambda ends: ends[::-1]], ids=["there", "back"])
async def test_a_lost_chunk_resets_both_ends_and_what_was_on_its_way_is_gone(
    turn: Callable[[tuple[MemoryBytes, ...]], tuple[MemoryBytes, MemoryBytes]],
) -> None:
    ways: tuple[Decide, ...] = (each(5.0, None), at_once)
    async with linked(*turn(ways)) as (dialler, listener, link):  # type: ignore[arg-type]  # it turns pairs of anything
        speaker, hearer = turn((dialler, listener))
        await speaker.send(b"late")
        await anyio.sleep(1.0)
        await speaker.send(b"lost")
        began = anyio.current_time()
        for end in (hearer, speaker):
            with pytest.raises(anyio.BrokenResourceError):
                await end.receive()
        assert anyio.current_time() == began
        assert link._ending is Ending.CUT


async def test_an_end_is_late_too_and_the_other_way_stays_open() -> None:
    async with linked(each(0.0, 3.0)) as (dialler, listener, _):
        began = anyio.current_time()
        await dialler.send(b"all")
        await dialler.send_eof()
        assert (await heard(listener, 1))[0][0] == b"all"
        with pytest.raises(anyio.EndOfStream):
            await listener.receive()
        assert round(anyio.current_time() - began, 6) == 3.0
        await listener.send(b"answer")
        assert (await heard(dialler, 1))[0][0] == b"answer"


async def test_a_connection_whose_ends_have_both_ended_is_over() -> None:
    async with both_sides() as (dialler, near, far, listener):
        for end in (dialler, listener):
            await end.send(b"bye")
            await end.send_eof()
        assert await Link(near, far, at_once, at_once, ProxyCounts()).run() is Ending.ENDED
        assert [(await end.receive()) for end in (dialler, listener)] == [b"bye", b"bye"]


async def test_a_reset_travels_as_late_as_bytes_do_behind_them() -> None:
    async with linked(each(0.0, 4.0)) as (dialler, listener, _):
        began = anyio.current_time()
        await dialler.send(b"last words")
        await dialler.aclose()
        assert (await heard(listener, 1))[0][0] == b"last words"
        with pytest.raises(anyio.BrokenResourceError):
            await listener.receive()
        assert round(anyio.current_time() - began, 6) == 4.0


async def test_a_sender_is_not_read_from_while_too_much_is_on_its_way() -> None:
    taken: list[int] = []

    def slow(size: int) -> float:
        taken.append(size)
        return 10.0

    async with linked(slow) as (dialler, listener, link):
        await dialler.send(bytes(2 * MAX_WAITING * CHUNK_BYTES))
        await anyio.sleep(5.0)
        assert set(taken) == {CHUNK_BYTES}
        assert len(taken) == MAX_WAITING + 2  # one is with the writer, one with the reader
        assert link._counts.full == 1
        found = await heard(listener, 2 * MAX_WAITING)
    assert sum(len(data) for data, _ in found) == 2 * MAX_WAITING * CHUNK_BYTES


async def test_a_connection_that_is_cancelled_closes_both_ends() -> None:
    async with both_sides() as (dialler, near, far, listener):
        with anyio.move_on_after(1.0):
            await Link(near, far, at_once, at_once, ProxyCounts()).run()
        for end in (dialler, listener):
            with pytest.raises(anyio.BrokenResourceError):
                await end.receive()
