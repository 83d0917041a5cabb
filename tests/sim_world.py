"""What tests of the simulator share: a stage whose faults a test decides, and worlds whose cores have bugs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from scarcity.federation.effects import Core, Effect, Waiting
from scarcity.federation.packets import Packet
from sim.chance import Chance
from sim.faults.plan import FaultPlan
from sim.faults.stage import CrashEvent, FaultStage
from sim.worlds.built import Built, WorldConfig, build
from sim.worlds.heap import Heap
from sim.worlds.result import SimResult

Alter = Callable[[str, list[Effect]], list[Effect]]


class Rough(FaultStage):
    """A stage of its own: losses and delays by chance, and crashes that a test names."""

    def __init__(
        self,
        config: WorldConfig,
        *,
        loss: float = 0.0,
        latency_s: float = 0.0,
        crashes: Iterable[CrashEvent] = (),
        slow: Mapping[str, float] | None = None,
        skew: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__(FaultPlan(), {}, Chance(config.seed), config.heal_at)
        self.draws = Chance(config.seed)
        self.loss = loss
        self.latency_s = latency_s
        self.crashing = tuple(sorted(crashes, key=lambda event: (event.at_s, event.member)))
        self.slow = dict(slow or {})
        self.skew = dict(skew or {})
        self.count = 0

    def passages(self, src: str, dst: str, packet: Packet, size_bytes: int, now: float) -> tuple[float, ...]:
        self.count += 1
        if self.draws.uniform("loss", self.count) < self.loss:
            return ()
        return (self.latency_s * self.draws.uniform("delay", self.count),)

    def crashes(self) -> tuple[CrashEvent, ...]:
        return self.crashing

    def handling_s(self, member: str, now: float) -> float:
        return self.slow.get(member, 0.0)

    def shown_time(self, member: str, now: float) -> float:
        offset, drift = self.skew.get(member, (0.0, 0.0))
        return offset + (1 + drift) * now

    def world_time(self, member: str, local: float) -> float:
        offset, drift = self.skew.get(member, (0.0, 0.0))
        return (local - offset) / (1 + drift)


def run(config: WorldConfig, *, until_s: float | None = None, sink: Any = None, **rough: Any) -> SimResult:
    """Run a world under rough weather."""
    world = build(config)
    world.stage = Rough(config, **rough)
    return Heap(sink=sink).execute(world, config.until_s if until_s is None else until_s)


def crash(at_s: float, member: str, *, down_s: float = 3.0, torn: bool = False) -> CrashEvent:
    return CrashEvent(at_s, member, at_s + down_s, torn, 0)


class Altered:
    """A core whose effects are altered on their way out: a bug of ours."""

    def __init__(self, member: str, core: Core, alter: Alter) -> None:
        self._member = member
        self._core = core
        self._alter = alter

    def start(self, now: float) -> list[Effect]:
        return self._alter(self._member, self._core.start(now))

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        return self._alter(self._member, self._core.receive(packet, sender, now))

    def fire(self, timer: str, now: float) -> list[Effect]:
        return self._alter(self._member, self._core.fire(timer, now))

    def waiting(self) -> tuple[Waiting, ...]:
        return self._core.waiting()


class Buggy(Built):
    """A world whose cores have that bug."""

    alter: Alter

    def core(self, member_id: str) -> Core:
        return Altered(member_id, super().core(member_id), self.alter)


def run_buggy(config: WorldConfig, alter: Alter, **rough: Any) -> SimResult:
    """Run a world whose cores' effects are altered."""
    sound = build(config)
    fields = {field.alias: getattr(sound, field.name) for field in attrs.fields(Built)}
    world = Buggy(**fields)
    world.alter = alter
    if rough:
        world.stage = Rough(config, **rough)
    return Heap().execute(world, config.until_s)


def in_fresh_process(code: str, hash_seed: int) -> str:
    """Return what a program prints in a process of its own, with this hash seed."""
    env = {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()
