"""Price of a robust rule beside its floor, the one matrix product it cannot do without. Prints one JSON line.

Run it with one thread, since the floor is what one core does: OMP_NUM_THREADS=1 python scripts/bench/robust.py
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from scarcity.robust import NNM, Krum, Pipeline, TrMean

N, D, F, REPEATS = 100, 100_000, 20, 7


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each call; the calls take turns, so that a slow spell of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(REPEATS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 0:  # The first turn warms caches and pages.
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    rng = np.random.default_rng(1)
    rows, reference = rng.standard_normal((N, D)), rng.standard_normal(D)
    krum, pipeline = Krum(F), Pipeline([NNM(F)], TrMean(F))
    seconds = medians(
        {
            "syrk_floor": lambda: rows @ rows.T,
            "krum": lambda: krum(rows),
            "krum_with_reference": lambda: krum.aggregate(rows, reference=reference),
            "trmean": lambda: TrMean(F)(rows),
            "nnm_trmean": lambda: pipeline(rows),
        }
    )
    floor = seconds["syrk_floor"]
    report = {
        "n": N,
        "d": D,
        "f": F,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "numpy": np.__version__,
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "ratio_to_floor": {name: round(value / floor, 3) for name, value in seconds.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
