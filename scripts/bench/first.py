"""Price of a FedAvg round with real messages beside a numpy loop that does the same arithmetic. Prints one JSON line.

Three baskets, N clients, vectors of d = 10,000, rule average, every packet encoded and decoded on its way. The loop
clips, noises with numpy's generator and takes the mean: no messages, no signatures, no secret sharing, no private
noise. A federation's seconds cover all from registering the clients to the model; its memory is that of all members
in one process, each with its journal. Each case runs in a process of its own, so that peak memory is that case's.
Run with one thread on an idle core: OMP_NUM_THREADS=1 python scripts/bench/first.py
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CLIENTS, D, BASKETS, CLIP = (100, 300), 10_000, 3, 1.0
SIGMA = 0.1  # of the loop's noise; the size makes no difference to its time
REPEATS, ENOUGH_S = 3, 3.0  # the best of three, but what has taken this long is not run again
LOOP, MODES = "numpy", ("local", "distributed")


def updates(num_clients: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((num_clients, D))


def basket_of(client: int) -> int:
    return client % BASKETS


def numpy_round(vectors: np.ndarray, sigma: float) -> np.ndarray:
    """Return the mean over baskets of the means of clipped and noised vectors, weighted by their members."""
    rng = np.random.default_rng(2)
    totals, counts = np.zeros((BASKETS, D)), np.zeros(BASKETS)
    for client, vector in enumerate(vectors):
        clipped = vector * min(1.0, CLIP / np.linalg.norm(vector))
        totals[basket_of(client)] += clipped + rng.normal(0.0, sigma, D)
        counts[basket_of(client)] += 1
    return totals.sum(axis=0) / counts.sum()


def federated_round(vectors: np.ndarray, mode: str) -> np.ndarray:
    from scarcity.federation.hierarchical import HierarchicalFederation, HierarchicalFederationConfig

    config = HierarchicalFederationConfig(
        layer1=mode, rule="average", clip_norm=CLIP, byzantine_share=0.0, planned_rounds=1
    )
    federation = HierarchicalFederation(config, wire=True)
    for client in range(len(vectors)):
        federation.register_client(f"client_{client}", f"basket_{basket_of(client)}")
    for client, vector in enumerate(vectors):
        federation.submit_update(f"client_{client}", vector)
    model = federation.maybe_aggregate()
    assert model is not None
    assert model.count == len(vectors)
    return model.vector


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux gives KiB


def measure(case: str, num_clients: int) -> dict[str, float]:
    """Run one case in this process; its memory is that of the first run, before any garbage of another."""
    vectors = updates(num_clients)
    if case == LOOP:
        run = functools.partial(numpy_round, vectors, SIGMA)
    else:
        import scarcity.federation.hierarchical  # noqa: F401 - so that importing it is not part of the round

        run = functools.partial(federated_round, vectors, case)
    before_mb, after_mb, seconds = peak_mb(), 0.0, []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
        after_mb = after_mb or peak_mb()
    return {"seconds": round(min(seconds), 4), "peak_mb": round(after_mb, 1), "before_mb": round(before_mb, 1)}


def in_fresh_process(case: str, num_clients: int) -> dict[str, float]:
    command = [sys.executable, __file__, case, str(num_clients)]
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def main() -> None:
    rounds = {}
    for num_clients in CLIENTS:
        figures = {case: in_fresh_process(case, num_clients) for case in (LOOP, *MODES)}
        for mode in MODES:
            figures[mode]["ratio"] = round(figures[mode]["seconds"] / figures[LOOP]["seconds"], 1)
        rounds[str(num_clients)] = figures
    about = {"bench": "first", "d": D, "baskets": BASKETS, "rule": "average", "numpy_version": np.__version__}
    print(json.dumps(about | {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "rounds": rounds}))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
