# ruff: noqa: INP001  # a project of its own, with one module
"""A geometric median by Weiszfeld's iteration, smoothed: the point whose summed distance to all vectors is least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def geometric_median(vectors: Floats, steps: int = 50, smoothing: float = 1e-9) -> Floats:
    """Return the geometric median, shape (d,), of vectors, shape (n, d).

    Source: Weiszfeld 1937; smoothed as in Pillutla, Kakade, Harchaoui, IEEE TSP 2022.
    """
    point = np.median(vectors, axis=0)
    for _ in range(steps):
        weights = 1.0 / np.maximum(np.linalg.norm(vectors - point, axis=1), smoothing)
        point = weights @ vectors / weights.sum()
    return np.asarray(point, dtype=np.float64)


def careless_mean(vectors: Floats) -> Floats:
    """Return the sum over a fixed number of clients: wrong as soon as one is missing. The tests find it."""
    return np.asarray(vectors.sum(axis=0) / 8, dtype=np.float64)
