"""The real actors in virtual time, and the two executors of one world held together."""

from __future__ import annotations

import anyio
import attrs
import pytest
import sniffio

from scarcity.errors import FederationError
from scarcity.federation.effects import Effect
from sim.faults.network import Duplicate, Latency, Loss, Reorder
from sim.faults.plan import Byzantine, ClockSkew, Crash, Dropout, FaultPlan, Partition, SlowHandler
from sim.worlds.built import EXECUTORS, Built, WorldConfig, build
from sim.worlds.clock import VirtualLoop, run_virtual
from sim.worlds.loop import Loop
from sim.worlds.result import SimResult
from sim.worlds.world import World
from tests.sim_world import Buggy

CALM = WorldConfig(seed=5, clients=9, baskets=3, until_s=6.0)
STORM = WorldConfig(seed=1, baskets=2, until_s=45.0, heal_s=31.0)
MODES = ("none", "local", "distributed", "central")
# The stage in which a client gives what it has.
CONTRIBUTED = {"none": "unprotected", "local": "release", "distributed": "masked", "central": "trustedupdate"}


def storm(mode: str, unit: str = "record") -> World:
    """Return a world of a mode in which all kinds of things go wrong for 14 s, and then nothing for 31."""
    # A sum has three members or more, and mode central sums three baskets.
    config = attrs.evolve(STORM, mode=mode, unit=unit, clients=9 if mode == "central" else 8)
    config = attrs.evolve(config, baskets=3) if mode == "central" else config
    slow, skewed = ("c0004", "basket/basket-1"), ("c0003", "basket/basket-0")
    network = (Latency.exponential(0.05, 0.01), Loss(0.03), Duplicate(0.1), Reorder(0.1, 0.3))
    faults = (
        Crash(3.0, ("c0001",), 3.0),
        Crash(4.5, ("basket/basket-0",), 3.0, torn=True),
        Crash(7.0, ("coordinator",), 3.0, torn=True),
        Crash(8.0, ("c0002",)),
        Partition(10.0, 12.0, ("basket-1",)),
        Dropout(CONTRIBUTED[mode], 0.5),
        SlowHandler(slow, 0.02),
        ClockSkew(skewed, -3.0, 0.01),
        ClockSkew(("coordinator",), 500.0, 0.05),
        Byzantine("replay", ("c0005",)),
    )
    return World.of(config, FaultPlan(network, faults))


def kept(result: SimResult) -> None:
    """Fail unless the storm struck, every promise held, and the healed world went on."""
    assert result.violations == ()
    assert result.crashes == 4
    assert result.lost > 0
    assert result.dead_letters > 0
    assert result.num_models > 5
    assert all(fired.count for fired in result.fired)


def same(one: SimResult, other: SimResult, round_id: int) -> bool:
    """Say whether two runs made the same model in a round."""
    return one.models[round_id].identity == other.models[round_id].identity


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mode", MODES)
def test_without_faults_both_executors_make_the_same_models_to_the_byte(mode: str, unit: str) -> None:
    world = World.of(attrs.evolve(CALM, mode=mode, unit=unit), World().plan)
    heap, loop = world.run(), world.executor("loop").run()
    assert heap.violations == loop.violations == ()
    shared = heap.models.keys() & loop.models.keys()
    assert len(shared) >= 5
    for round_id in shared:
        assert same(heap, loop, round_id)


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mode", MODES)
def test_under_faults_both_executors_keep_every_promise(mode: str, unit: str) -> None:
    world = storm(mode, unit)
    kept(world.run())
    kept(world.executor("loop").run())


@pytest.mark.parametrize("executor", EXECUTORS)
def test_after_the_heal_nobody_lies_not_even_who_comes_up_only_then(executor: str) -> None:
    plan = FaultPlan((), (Byzantine("sign-flip", ("c0000", "c0003")), Crash(4.0, ("c0003",))))
    config = attrs.evolve(CALM, unit="client", until_s=16.0, heal_s=8.0, executor=executor)
    honest, lying = World.of(config, FaultPlan()).run(), World.of(config, plan).run()
    assert lying.violations == ()
    rounds = sorted(lying.models)
    assert not any(same(honest, lying, round_id) for round_id in rounds[:4])
    assert all(same(honest, lying, round_id) for round_id in rounds[-5:])


@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
@pytest.mark.parametrize("mode", MODES)
async def test_on_trio_whose_scheduler_shuffles_the_actors_keep_every_promise(mode: str) -> None:
    assert sniffio.current_async_library() == "trio"
    world = storm(mode)
    kept(await Loop().play(build(world.config, world.plan), world.config.until_s))
    assert anyio.current_time() == pytest.approx(world.config.until_s)


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
