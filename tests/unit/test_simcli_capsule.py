"""A capsule holds a run, is read back as it was, and says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import ConfigError
from sim.faults.plan import Crash, FaultPlan, Loss
from sim.worlds.built import WorldConfig
from sim.worlds.capsule import (
    FORMAT,
    Capsule,
    capsule_from_dict,
    capsule_of,
    read_capsule,
    versions_here,
    write_capsule,
)
from sim.worlds.replay import replay
from sim.worlds.result import Violation
from sim.worlds.world import World

CONFIG = WorldConfig(seed=5, clients=4, until_s=6.0, heal_s=2.0, settings={"max_staleness": 1})
PLAN = FaultPlan((Loss(0.1),), (Crash(2.0, ("c0001",), down_s=1.0),))
CAPSULE = Capsule(CONFIG, PLAN, "0" * 32, (Violation("OneModel", 3.5, "c0001", "two"),))


def changed(*path: str, to: Any = None, drop: bool = False) -> dict[str, Any]:
    named: dict[str, Any] = json.loads(json.dumps(CAPSULE.to_dict()))
    place: Any = named
    for key in path[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return named


def test_a_capsule_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_capsule(path, CAPSULE)
    assert read_capsule(path) == CAPSULE
    assert set(json.loads(path.read_text())) == {
        "format", "seed", "config", "plan", "versions", "trace_hash", "violations",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([], "a capsule is []; allowed: an object"),
        (changed("format", to="scarcity-sim/9"), f"format is 'scarcity-sim/9'; allowed: {FORMAT!r}"),
        (changed("seed", drop=True), "key 'seed' is missing; allowed: format, seed"),
        (changed("sede", to=1), "key 'sede' is unknown; allowed: format, seed"),
        (changed("seed", to="1"), "seed is '1'; allowed: a whole number"),
        (changed("seed", to=True), "seed is True"),
        (changed("config", "clients", to=0), "config: clients must be positive, got 0"),
        (changed("config", "clients", to="six"), "config: "),
        (changed("config", "mode", to="loud"), "config: mode must be one of"),
        (changed("config", "mdoe", to="none"), "config: key 'mdoe' is unknown; allowed: clients"),
        (changed("config", "unit", drop=True), "config: key 'unit' is missing"),
        (changed("config", "settings", to={"rule": "own:mine"}), "config: unknown rule: rule must be one of"),
        (changed("config", "settings", to=[]), "config: "),
        (changed("config", "executor", to="tape"), "config: executor must be one of heap, loop"),
        (changed("plan", to=3), "plan is 3; allowed: an object"),
        (changed("plan", "faults", to=[{"kind": "flood"}]), "plan: faults[0]: kind is 'flood'; allowed: partition"),
        (changed("plan", "network", "0", "probability", to=2), "plan: network[0]: probability is 2"),
        (changed("versions", "numpy", drop=True), "versions: key 'numpy' is missing"),
        (changed("versions", "numpy", to=2), "versions.numpy is 2; allowed: text"),
        (changed("trace_hash", to="xyz"), "trace_hash is 'xyz'; allowed: 32"),
        (changed("violations", to={}), "violations is {}; allowed: a list"),
        (changed("violations", to=[{}]), "violations[0]: key 'checker' is missing"),
        (changed("violations", "0", "at", to="late"), "violations[0].at is 'late'; allowed: seconds"),
    ],
)
def test_a_wrong_capsule_is_refused_by_the_key(named: object, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        capsule_from_dict(named)
    assert says in str(error.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (5 << 20)])
def test_a_file_that_is_no_capsule_is_refused_by_its_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"run\.json: "):
        read_capsule(path)


def test_a_capsule_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read"):
        read_capsule(tmp_path / "none.json")


def test_a_run_is_replayed_and_another_seed_is_told_where_it_differs(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    lines: list[str] = []
    world = World.of(CONFIG, PLAN)
    result = world.run(sink=lines.append)
    trace.write_text("".join(f"{line}\n" for line in lines))
    capsule = capsule_of(world, world.config_for(), result)
    same = replay(capsule, trace)
    assert same.same
    assert same.difference is None
    other = replay(attrs.evolve(capsule, config=attrs.evolve(CONFIG, seed=6)), trace)
    assert not other.same
    assert other.difference is not None
    assert other.difference.was == lines[other.difference.number - 1]
    assert other.difference.was != other.difference.now
    trace.write_text("".join(f"{line}\n" for line in lines[:10]))
    # The run is the capsule's, so it is the file that is another one: here, a part of it.
    with pytest.raises(ConfigError, match="no trace of this run") as cut:
        replay(capsule, trace)
    assert f"event 11 there is the end, here {lines[10]}" in str(cut.value)


def test_other_versions_are_told_by_name() -> None:
    assert CAPSULE.other_versions == ()
    other = attrs.evolve(CAPSULE, versions={**versions_here(), "numpy": "0.1"})
    assert other.other_versions == (f"numpy was 0.1, here it is {np.__version__}",)


def with_rule(world: World) -> None:
    world.settings(mode="local", rule=np.sum)


def with_learners(world: World) -> None:
    world.learners(lambda _client, _rows: None)  # type: ignore[arg-type,return-value]  # never run


@pytest.mark.parametrize(("alter", "says"), [(with_rule, "rule own:sum"), (with_learners, "learners")])
def test_a_world_with_code_of_its_own_has_no_capsule(alter: Callable[[World], None], says: str) -> None:
    world = World(seed=1).clients(4)
    result = world.run(until_s=1)
    alter(world)
    with pytest.raises(ConfigError, match=says):
        capsule_of(world, CONFIG, result)
