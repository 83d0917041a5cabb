"""A run in one JSON file: what was run, on what, what came of it; enough to run it again.

    {"format": "scarcity-sim/1", "seed": 7, "config": {...}, "plan": {...}, "versions": {...},
     "trace_hash": "...", "violations": [...]}

The same trace hash is promised on the same machine and versions alone: another numpy may sum in another order. A
capsule of other versions is told apart before anything runs.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import numpy as np

from scarcity import __version__
from scarcity.errors import ConfigError
from scarcity.node.files import write_whole
from sim.faults.plan import FaultPlan
from sim.worlds.built import WorldConfig
from sim.worlds.checkers import Checker
from sim.worlds.result import SimResult, Violation
from sim.worlds.world import World

FORMAT: Final = "scarcity-sim/1"
KEYS: Final = ("format", "seed", "config", "plan", "versions", "trace_hash", "violations")
MAX_SIZE_BYTES: Final = 1 << 22  # a hundred violations and a plan of a thousand faults are a tenth of it
_HASH: Final = re.compile(r"[0-9a-f]{32}")
_SHOWN: Final = 60
_T = TypeVar("_T")


def versions_here() -> dict[str, str]:
    """Return what decides the bytes of a run, beside its data."""
    return {
        "scarcity": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }


@attrs.frozen
class Capsule:
    """A run as data.

    Attributes:
        config: the world, with the end of the run and of its faults.
        plan: what went wrong.
        trace_hash: what the run gave.
        violations: promises that did not hold.
        versions: what it ran on.
    """

    config: WorldConfig
    plan: FaultPlan
    trace_hash: str
    violations: tuple[Violation, ...] = ()
    versions: Mapping[str, str] = attrs.field(factory=versions_here)

    @property
    def other_versions(self) -> tuple[str, ...]:
        """What differs here, each as a sentence; empty: a replay must give the same trace hash."""
        here = versions_here()
        return tuple(
            f"{name} was {self.versions[name]}, here it is {here[name]}"
            for name in here
            if self.versions[name] != here[name]
        )

    def run(self, watch: Iterable[Checker] = (), sink: Callable[[str], object] | None = None) -> SimResult:
        """Run it again, as `World.run` does."""
        world = World.of(self.config, self.plan)
        return world.run(heal_s=self.config.heal_s, watch=watch, sink=sink)

    def to_dict(self) -> dict[str, Any]:
        """Return the capsule as JSON has it."""
        config = self.config.to_dict()
        return {
            "format": FORMAT,
            "seed": config.pop("seed"),
            "config": config,
            "plan": self.plan.to_dict(),
            "versions": dict(self.versions),
            "trace_hash": self.trace_hash,
            "violations": [attrs.asdict(violation) for violation in self.violations],
        }


def capsule_of(world: World, config: WorldConfig, result: SimResult) -> Capsule:
    """Return the capsule of a run.

    Args:
        world: what was run.
        config: `world.config_for(...)` of the run.
        result: what came of it.

    Raises:
        ConfigError: a part of the world is code, which a file of data cannot hold.
    """
    if world.own_code:
        raise ConfigError(f"a capsule holds data, and this world has code of its own: {', '.join(world.own_code)}")
    return Capsule(config, world.plan, result.trace_hash, result.violations)


def write_capsule(path: Path, capsule: Capsule, option: str = "--capsule") -> None:
    """Write a capsule, whole or not at all.

    Raises:
        ConfigError: the file cannot be written, or a setting is no plain value.
    """
    try:
        text = json.dumps(capsule.to_dict(), indent=1)
    except TypeError as error:
        raise ConfigError(f"{option} {path}: a setting is no plain value: {error}") from None
    write_whole(path, f"{text}\n".encode(), option)


def read_capsule(path: Path) -> Capsule:
    """Return the capsule of a file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or holds what it must not; file and key are
            named.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_SIZE_BYTES:
        raise ConfigError(f"{path}: it is larger than the {MAX_SIZE_BYTES} bytes that a capsule may have")
    try:
        return capsule_from_dict(json.loads(data))
    except (ConfigError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None


def capsule_from_dict(named: object) -> Capsule:
    """Return the capsule of plain values.

    Raises:
        ConfigError: see `read_capsule`.
    """
    made_as = _object("a capsule", named).get("format")
    if made_as != FORMAT:  # before its keys: another version has others
        raise ConfigError(f"format is {_show(made_as)}; allowed: {FORMAT!r}")
    values = _table("a capsule", named, KEYS)
    seed = values["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"seed is {_show(seed)}; allowed: a whole number")
    config_keys = [field.name for field in attrs.fields(WorldConfig) if field.name != "seed"]
    config = _table("config", values["config"], config_keys)
    versions = _table("versions", values["versions"], list(versions_here()))
    for name, version in versions.items():
        if not isinstance(version, str):
            raise ConfigError(f"versions.{name} is {_show(version)}; allowed: text")
    trace_hash = values["trace_hash"]
    if not isinstance(trace_hash, str) or _HASH.fullmatch(trace_hash) is None:
        raise ConfigError(f"trace_hash is {_show(trace_hash)}; allowed: 32 lower-case hexadecimal digits")
    return Capsule(
        _at("config", lambda: WorldConfig.from_dict({**config, "seed": seed})),
        _at("plan", lambda: FaultPlan.from_dict(_object("plan", values["plan"]))),
        trace_hash,
        _violations(values["violations"]),
        versions,
    )


def _violations(items: object) -> tuple[Violation, ...]:
    if not isinstance(items, list):
        raise ConfigError(f"violations is {_show(items)}; allowed: a list of objects")
    names = [field.name for field in attrs.fields(Violation)]
    read = []
    for index, item in enumerate(items):
        place = f"violations[{index}]"
        values = _table(place, item, names)
        for name, value in values.items():
            kinds: tuple[type, ...] = (int, float) if name == "at" else (str,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ConfigError(f"{place}.{name} is {_show(value)}; allowed: {'seconds' if name == 'at' else 'text'}")
        read.append(Violation(**values))
    return tuple(read)


def _at(place: str, read: Callable[[], _T]) -> _T:
    with _named(place):
        return read()


@contextmanager
def _named(place: str) -> Iterator[None]:
    try:
        yield
    except (ConfigError, TypeError, ValueError, AttributeError) as error:  # a value of a type that nobody expects
        raise ConfigError(f"{place}: {error}") from None


def _object(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{place} is {_show(value)}; allowed: an object")
    return value


def _table(place: str, value: object, names: Sequence[str]) -> dict[str, Any]:
    """Return an object that has these keys and no others."""
    table = _object(place, value)
    for what, wrong in (
        ("missing", [name for name in names if name not in table]),
        ("unknown", [name for name in table if name not in names]),
    ):
        if wrong:
            raise ConfigError(f"{place}: key {wrong[0][:_SHOWN]!r} is {what}; allowed: {', '.join(names)}")
    return table


def _show(value: object) -> str:
    return repr(value)[:_SHOWN]
