"""The timer heap: order, periods, cancellation, an injected clock."""

from __future__ import annotations

import anyio
import pytest

from actors.clock import Timers

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def run_until(timers: Timers, seconds: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()


async def test_timers_fire_in_order_of_time_and_equal_instants_in_order_of_setting() -> None:
    timers, fired = Timers(anyio.current_time), list[str]()
    start = anyio.current_time()
    for name, at in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        timers.at(start + at, lambda name=name: fired.append(name))  # type: ignore[misc]  # binds the name now
    await run_until(timers, 10)
    assert fired == ["a", "b1", "b2", "c"]
    assert len(timers) == 0


async def test_a_cancelled_timer_never_fires_and_is_swept_from_the_heap() -> None:
    timers, fired = Timers(anyio.current_time), list[int]()
    far = anyio.current_time() + 1e6
    handles = [timers.at(far, lambda: fired.append(1)) for _ in range(1000)]
    for handle in handles:
        handle.cancel()
        handle.cancel()
    assert len(timers) == 0
    assert len(timers._heap) < 200
    await run_until(timers, 2e6)
    assert fired == []


async def test_an_earlier_timer_wakes_the_task_that_sleeps_for_a_later_one() -> None:
    timers, fired = Timers(anyio.current_time), list[float]()
    start = anyio.current_time()
    timers.at(start + 100, lambda: fired.append(100))
    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        await anyio.sleep(1)
        timers.at(start + 5, lambda: fired.append(anyio.current_time() - start))
        await anyio.sleep(10)
        group.cancel_scope.cancel()
    assert fired == [pytest.approx(5)]


async def test_a_period_keeps_its_phase() -> None:
    timers, fired = Timers(anyio.current_time), list[float]()
    start = anyio.current_time()
    timers.at(start + 1, lambda: fired.append(round(anyio.current_time() - start, 6)), period_s=2)
    await run_until(timers, 8)
    assert fired == [1, 3, 5, 7]


async def test_a_period_skips_what_was_missed_when_the_clock_leaps() -> None:
    now = 0.0
    timers, fired = Timers(lambda: now), list[float]()
    timers.at(1.0, lambda: fired.append(now), period_s=1.0)
    now = 100.5
    await run_until(timers, 5)
    assert fired == [100.5]
    assert len(timers) == 1
