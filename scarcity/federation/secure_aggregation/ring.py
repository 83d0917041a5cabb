"""The ring Z/2^b in which inputs are summed: two's complement words of 32 or 64 bits.

Quantisation truncates toward zero, so two drivers agree bit for bit and no norm grows; whoever releases a vector has
clipped and noised it in these integers already. The config proves that no sum overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scarcity.errors import InvalidUpdate

Ring = NDArray[Any]


def word(bits: int) -> np.dtype[Any]:
    """Return the little-endian dtype of the ring's words."""
    return np.dtype(f"<u{bits // 8}")


def quantise(vector: ArrayLike, *, dimension: int, clip: float, scale: float) -> NDArray[np.int64]:
    """Return trunc(clip(x) * scale) toward zero.

    Args:
        vector: shape (d,), real numbers.
        dimension: d.
        clip: bound of each coordinate; values outside are clipped.
        scale: lattice steps in 1.0.

    Raises:
        InvalidUpdate: another shape, a dtype that is not real, NaN or infinity.
    """
    x = np.asarray(vector)
    if x.dtype.kind not in "fiu":
        raise InvalidUpdate(f"input must be real numbers, got dtype {x.dtype}")
    if x.shape != (dimension,):
        raise InvalidUpdate(f"input must have shape ({dimension},), got {x.shape}")
    values = x.astype(np.float64)
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidUpdate(f"input[{at}] is {values[at]}")
    return np.trunc(np.clip(values, -clip, clip) * scale).astype(np.int64)


def dequantise(total: NDArray[np.int64], *, scale: float) -> NDArray[np.float64]:
    """Return lattice units as real numbers."""
    return total.astype(np.float64) / scale


def to_ring(vector: NDArray[np.int64], bits: int) -> Ring:
    """Return a fresh array of the ring's words; negative numbers in two's complement."""
    return vector.astype(word(bits))


def from_ring(words: Ring) -> NDArray[np.int64]:
    """Return the signed integers of ring words, shape (d,)."""
    return words.view(np.dtype(f"<i{words.itemsize}")).astype(np.int64)
