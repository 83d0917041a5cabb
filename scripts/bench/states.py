"""The tutorial's federation over seeds, as one JSON line: how often the link is found, with which sign, and the skill.

OMP_NUM_THREADS=1 python scripts/bench/states.py [SEEDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

# Python puts the folder of a script first, and this one holds an actors.py: look in the project instead.
PROJECT = Path(__file__).resolve().parents[2]
sys.path[0] = str(PROJECT)
from scarcity.node.data.schema_inference import infer_schema, schema_text  # noqa: E402 - needs the line above
from scarcity.node.data.source import TableColumns  # noqa: E402 - as above
from sim.swarms.swarm import SwarmConfig, run_swarm  # noqa: E402 - as above

DATA = PROJECT / "docs" / "data" / "states.csv"
VARIABLES = ("output", "unemployment")
EPSILONS = (1.0, 3.0, 10.0)


def measure(epsilon: float, seeds: range, schema: Path) -> dict[str, float]:
    """Return how many seeds find output -> unemployment, with either sign, and the mean skill."""
    columns = TableColumns("state", "region", "year", VARIABLES)
    found, wrong, skills = 0, 0, []
    for seed in seeds:
        result = run_swarm(SwarmConfig(data=DATA, columns=columns, schema=schema, epsilon=epsilon, seed=seed))
        effects = [r.effect for r in result.relations if (r.sources, r.targets) == (("output",), ("unemployment",))]
        found += any(effect < 0 for effect in effects)
        wrong += any(effect > 0 for effect in effects)
        skills.append(result.prediction.median("global") or 0.0)
    return {"epsilon": epsilon, "found": found, "wrong_sign": wrong, "skill": round(statistics.fmean(skills), 2)}


def main() -> None:
    """Run every budget over the seeds 1 to SEEDS."""
    seeds = range(1, 1 + (int(sys.argv[1]) if len(sys.argv) > 1 else 10))
    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "schema.toml"
        columns = TableColumns("state", "", "year", VARIABLES)
        schema.write_text(schema_text(infer_schema(DATA, columns), DATA.name), encoding="utf-8")
        table = [measure(epsilon, seeds, schema) for epsilon in EPSILONS]
    print(json.dumps({"bench": "states", "seeds": len(seeds), "table": table}))


if __name__ == "__main__":
    main()
