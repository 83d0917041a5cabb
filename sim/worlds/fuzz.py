"""Random plans over random worlds: who breaks a promise, and how much of protocol and faults has been tried.

A case is a function of (seed, number): any one can be made again by itself. Sizes are small, for most bugs need few
members, and a case takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import attrs

from scarcity.federation.packets import Ready, Release, SecureSum, TrustedUpdate, TrustMode, Unprotected
from scarcity.federation.roster import COORDINATOR, basket_id
from sim.chance import Chance
from sim.faults.attacks import BEHAVIOURS
from sim.faults.plan import (
    BASKETS,
    CLIENTS,
    FAULT_KINDS,
    ISOLATE,
    NETWORK_KINDS,
    SPLIT,
    Bandwidth,
    Byzantine,
    Churn,
    ClockSkew,
    Clog,
    Crash,
    Dropout,
    Duplicate,
    Entry,
    Fault,
    FaultPlan,
    Latency,
    Loss,
    Network,
    Partition,
    Reorder,
    SlowHandler,
    kind_name,
)
from sim.faults.stages import STAGE_NAMES, STAGES, said_in, stage_name
from sim.worlds.built import WorldConfig
from sim.worlds.checkers import Checker, Seen
from sim.worlds.result import SimResult
from sim.worlds.world import World

MODES: Final = tuple(mode.value for mode in TrustMode)
UNITS: Final = ("record", "client")
_FAULTY_S: Final = 16.0  # of a case in which faults strike; the heal comes behind
_MOST_ENTRIES: Final = 5
_T = TypeVar("_T")
# Lies that a mode has no packets for would never strike.
_LOCAL_ONLY: Final = frozenset({"noiseless", "dissensus"})
_NONE_ONLY: Final = frozenset({"non-finite"})
_RECORD_ONLY: Final = frozenset({"label-flip"})


@attrs.frozen
class Case:
    """A world and what goes wrong in it."""

    number: int
    config: WorldConfig
    plan: FaultPlan

    @property
    def world(self) -> World:
        """The world, ready to run."""
        return World.of(self.config, self.plan)


class Picks:
    """Choices of one case, each under its own number."""

    def __init__(self, chance: Chance, number: int) -> None:
        self._draws = chance.draws("fuzz", number)
        self._count = 0

    def share(self) -> float:
        """Return a number in [0, 1)."""
        self._count += 1
        return self._draws.uniform(self._count)

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high), with two decimals, so that plans are read easily."""
        return round(low + (high - low) * self.share(), 2)

    def whole(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return low + int((high - low + 1) * self.share())

    def one(self, of: Sequence[_T]) -> _T:
        """Return one of them."""
        return of[int(len(of) * self.share())]


def random_case(
    seed: int, number: int, *, modes: Sequence[str] = MODES, units: Sequence[str] = UNITS, executor: str = "heap"
) -> Case:
    """Return the case of a number.

    Args:
        seed: of the whole search.
        number: which case.
        modes: trust modes to choose from.
        units: privacy units to choose from.
        executor: who runs it.
    """
    picks = Picks(Chance(seed), number)
    config = _random_config(picks, picks.one(modes), picks.one(units), executor)
    # Kinds are dealt in turn, each pair of them in another company: chance alone would leave some out of fifty plans.
    kinds = [*NETWORK_KINDS.values(), *FAULT_KINDS.values()]
    chosen = [kinds[number % len(kinds)], *(picks.one(kinds) for _ in range(picks.whole(1, _MOST_ENTRIES - 1)))]
    entries = [_MAKERS[kind](picks, config) for kind in chosen]
    network = tuple(entry for entry in entries if isinstance(entry, Network))
    return Case(number, config, FaultPlan(network, tuple(entry for entry in entries if isinstance(entry, Fault))))


def _random_config(picks: Picks, mode: str, unit: str, executor: str) -> WorldConfig:
    # Mode central adds up three baskets or more, and a secure sum has three members or more.
    baskets = 3 if mode == "central" else picks.whole(1, 2)
    clients = baskets * picks.whole(3, 4) + picks.whole(0, baskets - 1)
    config = WorldConfig(
        seed=picks.whole(0, 2**31),
        clients=clients,
        baskets=baskets,
        mode=mode,
        unit=unit,
        settings={"max_staleness": picks.whole(0, 2)},
        round_every_s=picks.one((2.0, 5.0)),
        executor=executor,
        until_s=_FAULTY_S,
    )
    heal_s = config.healing_s
    return attrs.evolve(config, until_s=_FAULTY_S + heal_s, heal_s=heal_s)


# One maker a kind. Windows lie in the part of a run in which faults strike; rates leave rounds that go well.


def _window(picks: Picks) -> tuple[float, float]:
    at_s = picks.between(0.0, 0.7 * _FAULTY_S)
    return at_s, round(at_s + picks.between(0.5, 10.0), 2)


def _groups(picks: Picks, config: WorldConfig) -> tuple[str, ...]:
    clients = sorted(config.seats)
    baskets = tuple(f"basket/{domain}" for domain in config.domains)
    kinds = ("client", "client", "basket", "domain", "coordinator", "clients", "*")
    match picks.one(kinds):
        case "client":
            return (picks.one(clients),)
        case "basket":
            return (picks.one(baskets),)
        case "domain":
            return (picks.one(config.domains),)
        case name:
            return (name,)


def _some_clients(picks: Picks, config: WorldConfig) -> tuple[str, ...]:
    return ("clients",) if picks.share() < 0.5 else (picks.one(sorted(config.seats)),)


def _latency(picks: Picks, _config: WorldConfig) -> Latency:
    match picks.whole(0, 3):
        case 0:
            return Latency.fixed(picks.between(0.01, 0.5))
        case 1:
            return Latency.uniform(0.01, picks.between(0.05, 1.0))
        case 2:
            return Latency.exponential(picks.between(0.02, 0.3), 0.01)
        case _:
            return Latency.lognormal(picks.between(0.02, 0.2), picks.between(0.2, 1.5))


def _partition(picks: Picks, config: WorldConfig) -> Partition:
    at_s, until_s = _window(picks)
    client, domain = picks.one(sorted(config.seats)), picks.one(config.domains)
    basket = basket_id(domain)
    symmetric, stability_s = picks.share() < 0.7, picks.one((math.inf, math.inf, 0.3, 2.0))
    if picks.share() < 0.7:
        isolated = picks.one(((client,), (domain,), (basket,), (COORDINATOR,), config.domains))
        return Partition(at_s, until_s, isolated, symmetric, ISOLATE, stability_s)
    # Only whoever talks to each other can be kept apart.
    pairs = ((client, basket_id(config.seats[client])), (basket, COORDINATOR), (CLIENTS, BASKETS))
    split = picks.one(pairs)
    return Partition(at_s, until_s, split if picks.share() < 0.5 else split[::-1], symmetric, SPLIT, stability_s)


def _dropout(picks: Picks, config: WorldConfig) -> Dropout:
    stages = [stage_name(said) for said in STAGES[TrustMode(config.mode)]]
    return Dropout(picks.one(stages), picks.between(0.2, 1.0), _some_clients(picks, config))


def _byzantine(picks: Picks, config: WorldConfig) -> Byzantine:
    barred: frozenset[str] = frozenset()
    barred |= frozenset() if config.mode == "local" else _LOCAL_ONLY
    barred |= frozenset() if config.mode == "none" else _NONE_ONLY
    barred |= frozenset() if config.unit == "record" else _RECORD_ONLY
    behaviour = picks.one(sorted(set(BEHAVIOURS) - barred))
    return Byzantine(behaviour, (picks.one(sorted(config.seats)),))


_MAKERS: Final[dict[Any, Callable[[Picks, WorldConfig], Entry]]] = {
    Latency: _latency,
    Loss: lambda p, _c: Loss(p.between(0.01, 0.3)),
    Duplicate: lambda p, _c: Duplicate(p.between(0.05, 0.5)),
    Reorder: lambda p, _c: Reorder(p.between(0.05, 0.5), p.between(0.05, 1.0)),
    Bandwidth: lambda p, _c: Bandwidth(p.between(2_000, 50_000)),
    Partition: _partition,
    Clog: lambda p, c: Clog(*_window(p), _groups(p, c)),
    Crash: lambda p, c: Crash(
        p.between(0.0, 0.9 * _FAULTY_S), _groups(p, c), p.one((0.5, 2.0, 6.0, math.inf)), torn=p.share() < 0.5
    ),
    Churn: lambda p, c: Churn(p.between(5.0, 40.0), p.between(0.2, 4.0), _groups(p, c)),
    Dropout: _dropout,
    SlowHandler: lambda p, c: SlowHandler(_groups(p, c), p.between(0.005, 0.2)),
    ClockSkew: lambda p, c: ClockSkew(_groups(p, c), p.between(-5.0, 5.0), p.one((0.0, 0.01, -0.01, 0.1))),
    Byzantine: _byzantine,
}


# What was tried.


class StagesSaid(Checker):
    """Notes which protocol stages clients have come to; promises nothing."""

    watches = (Ready, SecureSum, Release, TrustedUpdate, Unprotected)

    def __init__(self) -> None:
        self.names: set[str] = set()

    def note(self, seen: Seen) -> Iterable[str]:
        """Take what leaves a core."""
        self.names.add(stage_name(said_in(seen.what.packet)))
        return ()


def label(entry: Entry) -> str:
    """Return what an entry does, in a word: its kind, and which stage or lie."""
    detail = getattr(entry, "stage", "") or getattr(entry, "behaviour", "")
    return f"{kind_name(entry)}:{detail}" if detail else kind_name(entry)


@attrs.frozen
class Tried:
    """What came of one case.

    Attributes:
        case: the case.
        result: of its run.
        stages: protocol stages that clients came to, sorted.
    """

    case: Case
    result: SimResult
    stages: tuple[str, ...]

    @property
    def combination(self) -> tuple[str, ...]:
        """Labels of the entries that struck, sorted, each once."""
        struck = {fired.index for fired in self.result.fired if fired.count}
        return tuple(sorted({label(self.case.plan.entries[index]) for index in struck}))


def try_case(case: Case, watch: Iterable[Checker] = ()) -> Tried:
    """Run a case under all checkers."""
    said = StagesSaid()
    result = case.world.run(watch=(said, *watch))
    return Tried(case, result, tuple(sorted(said.names & set(STAGE_NAMES))))


@attrs.define(eq=False)
class Coverage:
    """What all cases together have tried.

    Attributes:
        plans: cases that were run.
        combinations: different sets of faults that struck together.
        stages: (mode, protocol stage) that clients came to.
        models: made in all.
    """

    plans: int = 0
    combinations: set[tuple[str, ...]] = attrs.field(factory=set)
    stages: set[tuple[str, str]] = attrs.field(factory=set)
    models: int = 0

    def add(self, tried: Tried) -> None:
        """Count a case."""
        self.plans += 1
        self.models += tried.result.num_models
        self.combinations.add(tried.combination)
        self.stages |= {(tried.case.config.mode, stage) for stage in tried.stages}

    @property
    def labels(self) -> set[str]:
        """Faults that struck at least once."""
        return {name for combination in self.combinations for name in combination}

    @property
    def kinds(self) -> set[str]:
        """Kinds of faults that struck at least once."""
        return {name.partition(":")[0] for name in self.labels}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; combinations and stages in full, sorted."""
        return {
            "plans": self.plans,
            "models": self.models,
            "combinations": [list(combination) for combination in sorted(self.combinations)],
            "kinds": sorted(self.kinds),
            "stages": [list(stage) for stage in sorted(self.stages)],
        }

    def describe(self) -> str:
        """Return it in three lines."""
        all_kinds = {*NETWORK_KINDS, *FAULT_KINDS}
        stages = {stage for _mode, stage in self.stages}
        dropped = {name.partition(":")[2] for name in self.labels if name.startswith("dropout:")}
        missing = sorted(all_kinds - self.kinds)
        return "\n".join(
            (
                f"plans: {self.plans}, models: {self.models}",
                f"distinct fault combinations: {len(self.combinations)}; kinds that struck: {len(self.kinds)} of "
                f"{len(all_kinds)}" + (f" (not: {', '.join(missing)})" if missing else ""),
                f"protocol stages hit: {len(stages)} of {len(STAGE_NAMES)} ({', '.join(sorted(stages))}); "
                f"dropouts struck at {len(dropped)}",
            )
        )
