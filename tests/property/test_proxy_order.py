"""Whatever chunks take: bytes arrive whole and in order, each when the slowest up to it is due; a loss ends all."""

from __future__ import annotations

import contextlib
import itertools

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.testing.proxy_link import Ending, Link, ProxyCounts
from tests.conftest import VirtualLoop
from tests.proxy_world import memory_bytes

DELAYS = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20)


async def carried(delays: list[float | None]) -> tuple[list[tuple[bytes, float]], Ending]:
    """Say a chunk a second for each delay (None: it is lost), and an end; return what was heard when, and the end."""
    left = list(delays)
    found: list[tuple[bytes, float]] = []
    ending: Ending | None = None

    async def run() -> None:
        nonlocal ending
        ending = await link.run()

    async with memory_bytes() as (dialler, near), memory_bytes() as (far, listener), anyio.create_task_group() as group:
        link = Link(near, far, lambda _size: left.pop(0) if left else 0.0, lambda _size: 0.0, ProxyCounts())
        group.start_soon(run)
        await listener.send_eof()

        async def say() -> None:
            for number in range(len(delays)):
                await dialler.send(b"%d," % number)
                await anyio.sleep(1.0)
            with contextlib.suppress(anyio.BrokenResourceError):  # it was cut
                await dialler.send_eof()

        group.start_soon(say)
        began = anyio.current_time()
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                found.append((await listener.receive(), anyio.current_time() - began))
    assert ending is not None
    return found, ending


def play(delays: list[float | None]) -> tuple[list[tuple[bytes, float]], Ending]:
    return anyio.run(carried, delays, backend_options={"loop_factory": VirtualLoop})


@given(DELAYS)
def test_all_arrives_in_order_each_when_the_slowest_up_to_it_is_due(delays: list[float]) -> None:
    found, ending = play(list(delays))
    due = itertools.accumulate((number + delay for number, delay in enumerate(delays)), max)
    assert [data for data, _ in found] == [b"%d," % number for number in range(len(delays))]
    assert [at for _, at in found] == pytest.approx(list(due), abs=1e-6)
    assert ending is Ending.ENDED


@given(DELAYS)
def test_a_loss_ends_it_and_only_what_was_due_before_arrives(delays: list[float]) -> None:
    found, ending = play([*delays, None])
    cut_at = float(len(delays))
    due = list(itertools.accumulate((number + delay for number, delay in enumerate(delays)), max))
    assert len(found) in (sum(at < cut_at for at in due), sum(at <= cut_at for at in due))
    assert ending is Ending.CUT
