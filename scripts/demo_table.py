"""Print the swarms of the demo as one table: python scripts/demo_table.py RESULT.json ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def cross_links(relations: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Return the links between different variables, signs included."""
    return {
        (*relation["sources"], *relation["targets"], relation["lag"], relation["effect"] > 0)
        for relation in relations
        if relation["kind"] == "lagged"
    }


def row(result: dict[str, Any]) -> str:
    """Return one swarm's line."""
    pooled, found = cross_links(result["pooled_relations"]), cross_links(result["relations"])
    skill, privacy = result["prediction"]["median"], result["privacy"]
    return (
        f"{privacy['mode']:<12} {privacy['epsilon']:>7g} {len(found & pooled):>4} of {len(pooled)} {len(found - pooled):>7}"
        f" {skill['global']:>7.3f} {skill['alone']:>7.3f} {skill['pooled']:>7.3f} {result['seconds']:>8.1f}"
    )


def main() -> None:
    """Print the table of all results named on the command line."""
    print("\nswarm        epsilon    links  others   skill   alone  pooled  seconds")
    for path in sys.argv[1:]:
        print(row(json.loads(Path(path).read_text(encoding="utf-8"))))
    print(
        "links: of the pooled fit's; skill over persistence on held-out days, median variable; alone: each route's own"
    )


if __name__ == "__main__":
    main()
