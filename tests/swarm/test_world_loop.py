"""The real actors in virtual time, and the two executors of one world held together."""

from __future__ import annotations

import attrs
import pytest

from scarcity.errors import FederationError
from scarcity.federation.effects import Effect
from sim.worlds.built import Built, WorldConfig, build
from sim.worlds.clock import VirtualLoop, run_virtual
from sim.worlds.heap import Heap
from sim.worlds.loop import Loop
from sim.worlds.result import SimResult
from sim.worlds.world import World
from tests.sim_world import Buggy, Rough, crash

CALM = WorldConfig(seed=5, clients=9, baskets=3, until_s=6.0)
STORM = WorldConfig(seed=1, clients=8, baskets=2, until_s=45.0, heal_s=31.0)


def stormy(config: WorldConfig) -> Built:
    world = build(config)
    world.stage = Rough(
        config,
        loss=0.1,
        latency_s=0.3,
        slow={"c0004": 0.05, "basket/basket-1": 0.002},
        skew={"c0003": (500.0, 0.01), "basket/basket-0": (-3.0, -0.02), "coordinator": (7.0, 0.05)},
        crashes=(
            crash(3.0, "c0001"),
            crash(4.5, "basket/basket-0", torn=True),
            crash(7.0, "coordinator", torn=True),
            crash(8.0, "c0002", down_s=1e9),
        ),
    )
    return world


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mode", ["none", "local", "distributed", "central"])
def test_without_faults_both_executors_make_the_same_models_to_the_byte(mode: str, unit: str) -> None:
    world = World.of(attrs.evolve(CALM, mode=mode, unit=unit), World().plan)
    heap, loop = world.run(), world.executor("loop").run()
    assert heap.violations == loop.violations == ()
    shared = heap.models.keys() & loop.models.keys()
    assert len(shared) >= 5
    for round_id in shared:
        assert heap.models[round_id].identity == loop.models[round_id].identity


@pytest.mark.parametrize("mode", ["none", pytest.param("distributed", marks=pytest.mark.slow)])
def test_under_faults_both_executors_keep_every_promise(mode: str) -> None:
    config = attrs.evolve(STORM, mode=mode)
    results: list[SimResult] = [executor.execute(stormy(config), config.until_s) for executor in (Heap(), Loop())]
    for result in results:
        assert result.violations == ()
        assert result.crashes == 4
        assert result.lost > 0
        assert result.dead_letters > 0
        assert result.num_models > 5


@pytest.mark.parametrize("num_calls", [0, 5])
def test_an_actor_that_fails_ends_the_run_with_its_error(num_calls: int) -> None:
    calls: list[str] = []

    def fail(member: str, effects: list[Effect]) -> list[Effect]:
        calls.append(member)
        if member == "c0003" and calls.count(member) > num_calls:
            raise RuntimeError("a bug")
        return effects

    sound = build(CALM)
    world = Buggy(**{field.alias: getattr(sound, field.name) for field in attrs.fields(Built)})
    world.alter = fail
    with pytest.raises(FederationError, match="a bug"):
        Loop().execute(world, CALM.until_s)


def test_virtual_time_passes_without_waiting_and_instants_come_in_order() -> None:
    async def main() -> list[tuple[float, str]]:
        import anyio

        seen: list[tuple[float, str]] = []

        async def wait(seconds: float, name: str) -> None:
            await anyio.sleep(seconds)
            seen.append((anyio.current_time(), name))

        async with anyio.create_task_group() as group:
            group.start_soon(wait, 3600.0, "late")
            group.start_soon(wait, 0.5, "first")
            group.start_soon(wait, 0.5, "second")
        return seen

    seen = run_virtual(main)
    assert [name for _, name in seen] == ["first", "second", "late"]
    assert [at for at, _ in seen] == pytest.approx([0.5, 0.5, 3600.0])


def test_the_loop_starts_at_zero() -> None:
    loop = VirtualLoop()
    assert loop.time() == 0.0
    loop.close()
