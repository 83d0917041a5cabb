"""What the federation finds in the flights, mean over seeds: the figures of README, as one JSON line.

    OMP_NUM_THREADS=1 python scripts/bench/flights.py [NUM_SEEDS]

Each case is a whole swarm of real actors, everything charged. "found" counts cross links of the pooled fit (same
source, target, lag and sign) that the global model has, "others" those that it has beside them.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

# Python puts the folder of a script first, and this one holds an actors.py: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scarcity.engine import Relation  # noqa: E402 - needs the line above
from sim.swarm import SwarmConfig, SwarmResult, run_swarm  # noqa: E402 - as above

CASES: dict[str, dict[str, Any]] = {
    "distributed, epsilon 1": {"epsilon": 1.0},
    "distributed, epsilon 3": {"epsilon": 3.0},
    "local, epsilon 10, no liars, nnm+trmean": {"privacy": "local", "epsilon": 10.0},
    "local, epsilon 10, no liars, average": {"privacy": "local", "epsilon": 10.0, "aggregator": "average"},
    "local, epsilon 10, 20 % liars, nnm+trmean": {"privacy": "local", "epsilon": 10.0, "liars": 0.2},
    "local, epsilon 10, 20 % liars, average": {
        "privacy": "local",
        "epsilon": 10.0,
        "liars": 0.2,
        "aggregator": "average",
    },
}


def cross_links(relations: tuple[Relation, ...]) -> set[tuple[object, ...]]:
    """Return the links between different variables, signs included."""
    return {(r.sources, r.targets, r.lag, r.effect > 0) for r in relations if r.kind == "lagged"}


def measure(result: SwarmResult) -> dict[str, float]:
    """Return the figures of one swarm."""
    pooled, projected = cross_links(result.pooled_relations), cross_links(result.pooled_projected_relations or ())
    found = cross_links(result.relations)
    skill = {name: statistics.median(values) for name, values in result.prediction.per_variable.items()}
    return {
        "pooled": len(pooled),
        "found": len(found & pooled),
        "others": len(found - pooled),
        "others_beside_projected": len(found - projected),
        "skill": skill["global"],
        "skill_alone": skill["alone"],
        "skill_pooled": skill["pooled"],
        "seconds": result.seconds,
    }


def main() -> None:
    """Run every case with every seed and print the means."""
    num_seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    table = {}
    for case, settings in CASES.items():
        rows = [measure(run_swarm(SwarmConfig(seed=seed, **settings))) for seed in range(num_seeds)]
        table[case] = {key: round(statistics.fmean(row[key] for row in rows), 3) for key in rows[0]}
    print(json.dumps({"bench": "flights", "seeds": num_seeds, "cases": table}))


if __name__ == "__main__":
    main()
