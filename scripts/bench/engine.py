"""What the engine finds under record privacy, and its speed beside a plain least-squares fit. Prints one JSON line.

Parties of one sparse VAR(3), each with a mean and units of its own. Every party's increment is summed, numpy's noise of
the size that epsilon asks for is added (a benchmark protects nobody), and `discover` is scored by F1 against the true
links, own lags included, at two smallest effects. Speeds: rows into a fresh engine, with a missing value in one row of
a hundred and bounds to clip to; `discover` beside numpy's lstsq on all parties' stacked rows.
Run with one thread on an idle core: OMP_NUM_THREADS=1 python scripts/bench/engine.py
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable

import numpy as np

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, discover, record_layout
from scarcity.privacy import PrivacyParams, calibrate_gaussian

LAGS, DELTA, SEEDS = 3, 1e-6, (1, 2, 3)
SETTINGS = (  # variables, clients, rows of each, epsilon (None: no noise)
    (5, 100, 500, 1.0),
    (10, 100, 500, 1.0),
    (20, 100, 500, 1.0),
    (10, 200, 200, 1.0),
    (10, 300, 60, 1.0),
    (10, 30, 500, 1.0),
    (10, 100, 500, 0.5),
    (10, 100, 500, 0.3),
    (10, 100, 500, None),
)
MIN_EFFECTS = (0.0, 0.02)
ROW_COUNT, REPEATS = 40_000, 5


def sparse_var(rng: np.random.Generator, p: int) -> np.ndarray:
    """Return stable coefficients (lag, target, source): own lags of .2 to .5 and two links a variable of .1 to .3."""
    while True:
        coefficients = np.zeros((LAGS, p, p))
        coefficients[0] = np.diag(rng.uniform(0.2, 0.5, p))
        for target in range(p):
            for source in rng.choice(np.delete(np.arange(p), target), 2, replace=False):
                coefficients[rng.integers(LAGS), target, source] = rng.uniform(0.1, 0.3) * rng.choice([-1, 1])
        companion = np.eye(LAGS * p, k=-p)
        companion[:p] = np.hstack(list(coefficients))
        if np.abs(np.linalg.eigvals(companion)).max() < 0.95:
            return coefficients


def simulate(rng: np.random.Generator, coefficients: np.ndarray, clients: int, rows: int) -> np.ndarray:
    """Return (clients, rows, p) in units that differ by a fifth between parties, around means 3 apart."""
    p, burn = coefficients.shape[1], 100
    z = rng.standard_normal((rows + burn, clients, p))
    for t in range(LAGS, len(z)):
        z[t] += sum(z[t - 1 - lag] @ coefficients[lag].T for lag in range(LAGS))
    units, means = np.exp(0.2 * rng.standard_normal((clients, 1, p))), 3 * rng.standard_normal((clients, 1, p))
    return z[burn:].transpose(1, 0, 2) * units + means


def schema_of(p: int, bounds: tuple[float, float] | None = None) -> Schema:
    return Schema([Variable(f"x{i}", scale=1.0, bounds=bounds) for i in range(p)], lags=LAGS)


def summed(parties: np.ndarray) -> Moments:
    parts = []
    for rows in parties:
        engine = OnlineDiscoveryEngine(schema_of(rows.shape[1]))
        engine.process_rows(rows)
        parts.append(engine.differenced())
    return Moments.sum(parts)


def f1_scores(p: int, clients: int, rows: int, epsilon: float | None, seed: int) -> list[float]:
    rng = np.random.default_rng([seed, p, clients, rows])
    coefficients = sparse_var(rng, p)
    clean = summed(simulate(rng, coefficients, clients, rows))
    layout = record_layout(clean.schema)
    std = 0.0 if epsilon is None else calibrate_gaussian(PrivacyParams(epsilon, DELTA)) * layout.sensitivity
    noise = np.round(rng.standard_normal(layout.dimension) * std * layout.noise_scales)
    moments = Moments(clean.schema, clean.form, clean.vector + noise, clean.rows, clean.parties, std)
    true = {(lag + 1, f"x{target}", f"x{source}") for lag, target, source in np.argwhere(coefficients)}
    scores = []
    for min_effect in MIN_EFFECTS:
        found = {(r.lag, r.targets[0], r.sources[0]) for r in discover(moments, min_effect=min_effect)}
        scores.append(2 * len(found & true) / (len(found) + len(true)))
    return scores


def seconds_of(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def process_one_by_one(rows: list[dict[str, float]]) -> None:
    engine = OnlineDiscoveryEngine(schema_of(len(rows[0]), (-50.0, 50.0)))
    for row in rows:
        engine.process_row(row)


def process_at_once(rows: np.ndarray) -> None:
    OnlineDiscoveryEngine(schema_of(rows.shape[1], (-50.0, 50.0))).process_rows(rows)


def speeds(p: int) -> dict[str, int]:
    values = np.random.default_rng(p).standard_normal((ROW_COUNT, p))
    values[::100, 0] = np.nan
    names = [f"x{i}" for i in range(p)]
    rows = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    by_row = seconds_of(functools.partial(process_one_by_one, rows))
    at_once = seconds_of(functools.partial(process_at_once, values))
    return {"process_row_per_s": round(ROW_COUNT / by_row), "process_rows_per_s": round(ROW_COUNT / at_once)}


def least_squares(parties: np.ndarray) -> np.ndarray:
    """Return the plain pooled fit: all parties' windows about their own means, stacked."""
    z = parties - parties.mean(axis=1, keepdims=True)
    rows, p = z.shape[1:]
    past = np.concatenate([z[:, LAGS - lag : rows - lag] for lag in range(1, LAGS + 1)], axis=2)
    return np.linalg.lstsq(past.reshape(-1, LAGS * p), z[:, LAGS:].reshape(-1, p), rcond=None)[0]


def discovery(p: int = 20) -> dict[str, float]:
    rng = np.random.default_rng(7)
    parties = simulate(rng, sparse_var(rng, p), 100, 500)
    moments = summed(parties)
    figures = {
        "discover_differenced_ms": seconds_of(lambda: discover(moments)) * 1e3,
        "lstsq_pooled_ms": seconds_of(lambda: least_squares(parties)) * 1e3,
    }
    figures["lstsq_over_discover"] = figures["lstsq_pooled_ms"] / figures["discover_differenced_ms"]
    return {name: round(value, 2) for name, value in figures.items()} | {"p": p}


def state_kb(p: int = 20) -> float:
    engine = OnlineDiscoveryEngine(schema_of(p))
    engine.process_rows(np.random.default_rng(1).standard_normal((1000, p)))
    return round(len(engine.snapshot()) / 1024, 1)


def main() -> None:
    table = []
    for p, clients, rows, epsilon in SETTINGS:
        scores = np.mean([f1_scores(p, clients, rows, epsilon, seed) for seed in SEEDS], axis=0)
        f1 = {str(effect): round(float(score), 3) for effect, score in zip(MIN_EFFECTS, scores, strict=True)}
        table.append({"p": p, "clients": clients, "rows": rows, "epsilon": epsilon, "f1_at_min_effect": f1})
    about = {"bench": "engine", "lags": LAGS, "delta": DELTA, "seeds": len(SEEDS), "numpy_version": np.__version__}
    figures = {"speed": {f"p={p}": speeds(p) for p in (5, 10, 20)}, "discovery": discovery(), "state_kb": state_kb()}
    print(json.dumps(about | {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "f1": table} | figures))


if __name__ == "__main__":
    main()
