"""The real actors, from settings to the report. Statistical statements hold for fixed seeds."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from sim.swarms.live import execute
from sim.swarms.plan import Observer, Outcome, SwarmPlan
from sim.swarms.report import SwarmResult, render
from sim.swarms.swarm import SwarmConfig, run_swarm
from sim.swarms.truth import synthetic

ROOT = Path(__file__).parents[2]
NONE = SwarmConfig(synthetic=12, seed=1, privacy="none")
DISTRIBUTED = attrs.evolve(NONE, privacy="distributed", epsilon=4.0)


def impatient(plan: SwarmPlan, observe: Observer) -> Outcome:
    """Give each stage a second: a dozen clients need a hundredth of it."""
    waits = {"ready_s": 1.0, "close_s": 1.0, "deadline_s": 2.0, "stage_s": 1.0}
    return execute(attrs.evolve(plan, settings=attrs.evolve(plan.settings, **waits)), observe)


def cross(relations: tuple[object, ...]) -> set[object]:
    return {r.key for r in relations if r.kind == "lagged"}  # type: ignore[attr-defined]  # relations


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_privacy_the_swarm_finds_what_the_pooled_rows_show(backend: str) -> None:
    result = run_swarm(attrs.evolve(NONE, backend=backend))
    assert result.status == 0
    assert [r.key for r in result.relations] == [r.key for r in result.pooled_relations]
    for found, pooled in zip(result.relations, result.pooled_relations, strict=True):
        assert found.effect == pytest.approx(pooled.effect, abs=1e-9)


@pytest.mark.parametrize("config", [NONE, DISTRIBUTED, attrs.evolve(DISTRIBUTED, privacy="local")])
def test_a_seed_decides_the_relations_whatever_the_loop(config: SwarmConfig) -> None:
    runs = [run_swarm(attrs.evolve(config, backend=backend)) for backend in ("asyncio", "asyncio", "trio")]
    assert runs[0].relations
    assert runs[0].relations == runs[1].relations == runs[2].relations
    assert runs[0].basket_relations == runs[2].basket_relations


def test_of_unit_client_a_basket_and_the_model_speak_in_the_same_units() -> None:
    # So little noise that each basket's own fit is a fit of its rows.
    result = run_swarm(attrs.evolve(DISTRIBUTED, synthetic=60, unit="client", epsilon=1e3))
    overall, basket = (result.prediction.median(who) for who in ("global", "basket"))
    assert overall is not None
    assert basket is not None
    assert abs(overall - basket) < 0.3


def test_everything_is_charged() -> None:
    result = run_swarm(DISTRIBUTED)
    assert result.privacy.layers == {"layer 1": (12, pytest.approx(4.0, abs=1e-3))}
    assert max(charge.epsilon for charge in result.privacy.spent) <= 4.0


def test_rounds_over_increments_cost_a_record_one_release() -> None:
    result = run_swarm(attrs.evolve(DISTRIBUTED, rounds=2))
    assert (result.status, result.rounds) == (0, 2)
    assert max(charge.epsilon for charge in result.privacy.spent) <= 4.0
    assert cross(result.relations) <= cross(result.pooled_relations)
    assert cross(result.relations)


def test_silent_clients_are_named_and_the_rest_goes_on() -> None:
    result = run_swarm(attrs.evolve(DISTRIBUTED, drop=0.15, quorum=0.5, synthetic=18), execute=impatient)
    assert result.status == 0, result.last_line
    assert result.dropped
    assert result.relations


def test_when_nearly_all_are_silent_nothing_is_released() -> None:
    result = run_swarm(attrs.evolve(DISTRIBUTED, drop=0.9), execute=impatient)
    assert (result.status, result.rounds, result.relations) == (3, 0, ())
    last = render(result).splitlines()[-1]
    assert last.startswith("nothing was released: ")
    assert " of 12 clients were there" in last


@pytest.fixture(scope="module")
def flights_distributed() -> SwarmResult:
    pytest.importorskip("pandas")
    return run_swarm(SwarmConfig(seed=1))


def test_the_flights_at_epsilon_1_find_much_of_the_pooled_fit(flights_distributed: SwarmResult) -> None:
    found, pooled = cross(flights_distributed.relations), cross(flights_distributed.pooled_relations)
    assert (flights_distributed.clients, flights_distributed.baskets) == (186, 3)
    assert len(found & pooled) >= 12
    assert len(found - pooled) <= 8


def test_the_flights_predict_better_together_than_each_route_alone(flights_distributed: SwarmResult) -> None:
    together, alone = (flights_distributed.prediction.median(who) for who in ("global", "alone"))
    assert together is not None
    assert alone is not None
    assert together > alone > 0


# A process


def command(*arguments: str) -> list[str]:
    code = "import sys; from scarcity.cli.main import run; from sim.commands import swarm; sys.exit(run(swarm))"
    return [sys.executable, "-c", code, *arguments]


def test_ones_own_table_goes_in_and_json_comes_out(tmp_path: Path) -> None:
    source = synthetic(9, 2)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["hospital", "region", "day", *source.schema.names])
        for party in source.parties:
            for time, row in zip(party.times, party.rows, strict=True):
                writer.writerow([party.id, party.domain, time, *row])
    (tmp_path / "schema.json").write_text(json.dumps(source.schema.to_dict()))
    roles = ["--party", "hospital", "--domain", "region", "--time", "day"]
    files = ["--data", "rows.csv", "--schema", "schema.json", "--json", "out.json", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(*files, *roles, "--epsilon", "4"), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads((tmp_path / "out.json").read_text())
    assert values["clients"] == 9
    assert values["relations"]
    assert not values["privacy"]["reproducible"]
