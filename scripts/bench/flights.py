"""What the federation finds in the flights, mean over seeds: the figures of README, as one JSON line.

    OMP_NUM_THREADS=1 python scripts/bench/flights.py [SEEDS] [--markdown]

Each case is a whole swarm of real actors, everything charged. "found" counts cross links of the pooled fit (same
source, target, lag and sign) that the global model has, "others" those that it has beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

# Python puts the folder of a script first, and this one holds an actors.py: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scarcity.engine import Relation  # noqa: E402 - needs the line above
from sim.swarms.swarm import SwarmConfig, SwarmResult, run_swarm  # noqa: E402 - as above

EPSILONS = (1.0, 3.0, 10.0)
LIARS: dict[str, Any] = {"privacy": "local", "epsilon": 10.0, "liars": 0.2}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{mode}, epsilon {e:g}": {"privacy": mode, "epsilon": e}
        for mode in ("local", "distributed", "central")
        for e in EPSILONS
    },
    "local, epsilon 10, plain average": {"privacy": "local", "epsilon": 10.0, "aggregator": "average"},
    "local, epsilon 10, 20 % liars": LIARS,
    "local, epsilon 10, 20 % liars, plain average": LIARS | {"aggregator": "average"},
}
COLUMNS = ("found", "others", "others_beside_projected", "skill", "skill_alone", "seconds")


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


def markdown(table: dict[str, dict[str, float]]) -> str:
    """Return the table as the docs have it."""
    lines = [
        "| swarm | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    lines += [f"| {case} | " + " | ".join(f"{row[name]:g}" for name in COLUMNS) + " |" for case, row in table.items()]
    return "\n".join(lines)


def main() -> None:
    """Run every case with every seed and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", type=int, default=10, help="how many seeds, from 0")
    parser.add_argument("--markdown", action="store_true", help="print the table of the docs instead of JSON")
    options = parser.parse_args()
    table = {}
    for case, settings in CASES.items():
        rows = [measure(run_swarm(SwarmConfig(seed=seed, **settings))) for seed in range(options.seeds)]
        table[case] = {key: round(statistics.fmean(row[key] for row in rows), 3) for key in rows[0]}
    if options.markdown:
        print(markdown(table))
    else:
        print(json.dumps({"bench": "flights", "seeds": options.seeds, "cases": table}))


if __name__ == "__main__":
    main()
