"""Array types of the engine and the flattening of symmetric matrices, in one place so that every layout agrees."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@functools.lru_cache(maxsize=64)
def upper_indices(size: int, offset: int = 0) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return row and column indices of the upper triangle of a (size, size) matrix, row-major, from `offset` on."""
    rows, columns = np.triu_indices(size, offset)
    rows.setflags(write=False)
    columns.setflags(write=False)
    return rows, columns


def pack_symmetric(matrix: FloatArray) -> FloatArray:
    """Return the upper triangle with diagonal, row-major, shape (n (n + 1) / 2,)."""
    return matrix[upper_indices(matrix.shape[0])]


def unpack_symmetric(packed: FloatArray, size: int) -> FloatArray:
    """Return the symmetric (size, size) matrix of a packed upper triangle."""
    matrix = np.empty((size, size))
    rows, columns = upper_indices(size)
    matrix[rows, columns] = packed
    matrix[columns, rows] = packed
    return matrix


def frozen_copy(array: npt.ArrayLike) -> FloatArray:
    """Return a read-only float64 copy, so that a frozen value cannot change through its array."""
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy
