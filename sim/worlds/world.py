"""Describe a swarm, say what goes wrong, run it in virtual time.

    world = World(seed=7).clients(300, baskets=3).network(Latency.exponential(mean_s=0.02, floor_s=0.005), Loss(0.05))
    world.faults(Churn(per_minute=6, down_s=10), Partition(at_s=30, until_s=45, groups=("basket-0", "basket-1")))
    result = world.run(until_s=120)

Defaults: synthetic rows, mode `none`, one round a second, executor `heap`. A world is data (`config`, `plan`): the same
data gives the same `trace_hash`, in every process of the same machine and versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from scarcity.robust.pipeline import own_rules
from sim.faults.network import Network
from sim.faults.plan import Fault, FaultPlan
from sim.worlds.book import default_checkers
from sim.worlds.built import MakeLearner, WorldConfig, build
from sim.worlds.checkers import Checker
from sim.worlds.heap import Heap
from sim.worlds.loop import Loop
from sim.worlds.own_rule import OwnRule, own_rule
from sim.worlds.result import SimResult

_OWN: Final = frozenset(field.name for field in attrs.fields(WorldConfig)) - {"settings"}
_HEAL_SHARE: Final = 0.6  # of a run with faults at most, unless somebody says otherwise


class World:
    """A swarm in the making. Each call changes it and returns it.

    Args:
        seed: decides everything that chance does.

    Attributes:
        config: the swarm as data.
        plan: what goes wrong, as data.
    """

    def __init__(self, seed: int = 0) -> None:
        self.config = WorldConfig(seed=seed)
        self.plan = FaultPlan()
        self._learners: MakeLearner | None = None
        self._rule: OwnRule | None = None

    @classmethod
    def of(cls, config: WorldConfig, plan: FaultPlan) -> World:
        """Return the world of these data."""
        world = cls(config.seed)
        world.config, world.plan = config, plan
        return world

    @property
    def baskets(self) -> tuple[str, ...]:
        """Names of the baskets (domains): basket-0, basket-1, ..."""
        return self.config.domains

    def clients(self, num_clients: int, baskets: int = 1) -> World:
        """Have so many clients; client i is in basket i modulo `baskets`."""
        self.config = attrs.evolve(self.config, clients=num_clients, baskets=baskets)
        return self

    def network(self, *laws: Network) -> World:
        """Add laws of the network."""
        self.plan = FaultPlan((*self.plan.network, *laws), self.plan.faults)
        return self

    def faults(self, *faults: Fault) -> World:
        """Add faults."""
        self.plan = FaultPlan(self.plan.network, (*self.plan.faults, *faults))
        return self

    def settings(self, **values: Any) -> World:
        """Set fields of `WorldConfig` (mode, unit, rounds, ...) and of `RoundSettings` (quorum, rule, ...).

        `rule` may be an aggregator of one's own: a callable from vectors (n, d) to one (d,), see `own_rule`.

        Raises:
            ConfigError: an unknown name, a value out of range, or settings that cannot hold together.
        """
        own = {name: value for name, value in values.items() if name in _OWN}
        rest = {name: value for name, value in values.items() if name not in _OWN}
        if "rule" in rest:
            self._rule = None if isinstance(rest["rule"], str) else own_rule(rest.pop("rule"))
        self.config = attrs.evolve(self.config, settings={**self.config.settings, **rest}, **own)
        return self

    def learners(self, make: MakeLearner) -> World:
        """Let clients learn with learners of one's own: `make(client_id, end of the rows that it has given)`."""
        self._learners = make
        return self

    def executor(self, name: str) -> World:
        """Choose who runs it: `heap` (cores alone) or `loop` (the real actors)."""
        self.config = attrs.evolve(self.config, executor=name)
        return self

    def run(
        self,
        until_s: float | None = None,
        *,
        heal_s: float | None = None,
        checkers: Iterable[Checker] | None = None,
        watch: Iterable[Checker] = (),
        sink: Callable[[str], object] | None = None,
    ) -> SimResult:
        """Run until an instant and return what came of it; the world itself stays as it is.

        Args:
            until_s: virtual seconds; None: the config's.
            heal_s: the last seconds without faults, after which a new model is demanded; None: the config's, or where
                that is 0 and something goes wrong, `WorldConfig.healing_s`, at most six tenths of the run; where
                nothing does, the whole run.
            checkers: None: all of them.
            watch: beside these.
            sink: takes each line of the trace file.

        Raises:
            ConfigError: a group of the plan without members, or settings that cannot hold.
        """
        config = self.config_for(until_s, heal_s)
        config.require_seats()
        with own_rules({} if self._rule is None else {self._rule.name: self._rule.make}):
            if self._rule is not None:
                config = attrs.evolve(config, settings={**config.settings, "rule": self._rule.name})
            built = build(config, self.plan, learners=self._learners)
            told = default_checkers(built) if checkers is None else checkers
            all_told = (*told, *watch)
            executor = Heap(all_told, sink=sink) if config.executor == "heap" else Loop(all_told, sink=sink)
            return executor.execute(built, config.until_s)

    def config_for(self, until_s: float | None = None, heal_s: float | None = None) -> WorldConfig:
        """Return the config that `run` with these arguments runs: with the plan, all that a replay needs."""
        until = self.config.until_s if until_s is None else until_s
        heal = self.config.heal_s if heal_s is None else heal_s
        if heal_s is None and heal == 0:
            heal = min(self.config.healing_s, _HEAL_SHARE * until) if self.plan.entries else until
        return attrs.evolve(self.config, until_s=until, heal_s=heal)

    @property
    def own_code(self) -> tuple[str, ...]:
        """What of this world is code and not data: no capsule can hold it."""
        return (
            *((f"rule {self._rule.name}",) if self._rule is not None else ()),
            *(("learners",) if self._learners is not None else ()),
        )
