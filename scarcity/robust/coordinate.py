"""Rules that judge each coordinate by itself, and the plain mean.

They work on blocks of columns that fit the second-level cache. Up to 32 rows a block is sorted by a network of row-wise
minima and maxima, which runs at the speed of the vector unit; above that `np.sort` works on the transposed block, where
a coordinate's values lie side by side. Sorting or partitioning along the long axis of the whole array, as `np.median`
does, misses the cache at every step.

Every coordinate is computed from its own column, so the result does not depend on the blocks; behind a pre-aggregator
the mixed block is a matrix product, whose last bit may.

Weights (`aggregate(weights=…)`): who is trimmed is decided by rank and by count, never by weight; what is left is
averaged with the weights of its rows, and the mass of the f heaviest rows is held against the breakdown point.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.robust.rule import (
    AggregationResult,
    FloatArray,
    Rows,
    Stack,
    Vectors,
    check_f,
    check_finite,
    make_result,
    read_stack,
)

#: Bytes of a block. Measured, n = 20, d = 1e5: 10.5 ms at 2^20, 18 ms at 2^18, where the calls cost more than the work.
BLOCK_BYTES = 2**20
#: Most rows for which the network's n log² n / 4 comparators beat a sort of each column.
NETWORK_ROWS_MAX = 32


@cache
def sorting_network(n: int) -> tuple[tuple[int, int], ...]:
    """Return the comparators that sort n rows, in order; the lesser value goes to the first row of a pair.

    Source: Batcher's merge exchange, Knuth vol. 3, 5.2.2, Algorithm M.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs.extend((i, i + d) for i in range(n - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(pairs)


def sort_columns(block: Rows) -> Rows:
    """Return the block (n, b) with each column in ascending order; the argument is not modified."""
    n = block.shape[0]
    if n > NETWORK_ROWS_MAX:
        return np.sort(np.ascontiguousarray(block.T), axis=1).T
    buffers = np.empty((n + 1, block.shape[1]), dtype=block.dtype)
    buffers[:n] = block
    place, spare = list(range(n)), n  # The network swaps names of rows, not their contents.
    for low, high in sorting_network(n):
        a, b = buffers[place[low]], buffers[place[high]]
        np.minimum(a, b, out=buffers[spare])
        np.maximum(a, b, out=b)
        place[low], spare = spare, place[low]
    return buffers[place]


def column_blocks(stack: Stack) -> Iterator[tuple[int, int, Rows]]:
    """Yield (start, stop, block) over the columns of the mixed rows."""
    d = stack.rows.shape[1]
    width = max(64, BLOCK_BYTES // (8 * stack.n))
    for start in range(0, d, width):
        stop = min(start + width, d)
        yield start, stop, stack.block(start, stop)


def sum_rows(block: Rows) -> FloatArray:
    """Return the sum over the rows of a block (n, b) in float64, row by row: shape (b,)."""
    total = np.zeros(block.shape[1])
    for row in block:  # np.sum may choose another order for a narrow block; this one never changes.
        total += row
    return total


def sort_columns_with_weights(block: Rows, weights: FloatArray) -> tuple[Rows, FloatArray]:
    """Return the sorted block (n, b) and beside each value the weight of its row; equal values keep the row order."""
    columns = np.ascontiguousarray(block.T)
    order = np.argsort(columns, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1).T, weights[order].T


def trimmed_mean(stack: Stack, trim: int) -> tuple[FloatArray, FloatArray]:
    """Leave out the `trim` lowest and highest values of each coordinate and average the rest.

    Args:
        stack: n > 2 trim rows, checked.
        trim: values left out on each side.

    Returns:
        the means (d,), and for each row the share (n,) of coordinates in which it lies outside the kept range.

    Cost: one sort of each column; with unequal weights an argsort, some ten times slower.
    """
    n, d = stack.rows.shape
    vector, outside = np.empty(d), np.zeros(n)
    for start, stop, block in column_blocks(stack):
        if stack.is_weighted:
            ordered, weights = sort_columns_with_weights(block, stack.weights)
            kept = weights[trim : n - trim]
            vector[start:stop] = sum_rows(ordered[trim : n - trim] * kept) / sum_rows(kept)
        else:
            ordered = sort_columns(block)
            vector[start:stop] = sum_rows(ordered[trim : n - trim]) / (n - 2 * trim)
        if trim > 0:
            low, high = ordered[trim], ordered[n - 1 - trim]
            outside += np.count_nonzero(block < low, axis=1) + np.count_nonzero(block > high, axis=1)
    return vector, outside / d


def kept_weights(stack: Stack, outside: FloatArray) -> FloatArray:
    """Return the evidence (n,) of a coordinate rule: each row's weight times its share of kept coordinates, sum one."""
    shares = stack.weights * (1.0 - outside)
    return np.asarray(shares / shares.sum())


@attrs.frozen
class Average:
    """The weighted mean: the best rule when nobody lies, and no rule at all when one row does.

    It alone needs no single input, so it is what a secure sum computes.
    """

    name: ClassVar[str] = "average"
    f: ClassVar[int] = 0
    min_inputs: ClassVar[int] = 1
    mass_factor: ClassVar[int] = 1
    sees_inputs: ClassVar[bool] = False

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the mean (d,) of vectors (n, d)."""
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return the weighted mean; see `Rule.aggregate`. The reference changes nothing."""
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return the weighted mean of a stack."""
        stack = check_finite(stack)
        return make_result(self, stack, stack.combine(stack.weights), stack.weights, np.zeros(stack.n))


@attrs.frozen
class TrMean:
    """Of each coordinate, the mean of what is left without the f lowest and the f highest values.

    Attributes:
        f: number of rows that may lie; needs n >= 2 f + 1.

    Source: Yin et al., ICML 2018.
    """

    f: int = attrs.field(default=0, validator=check_f)
    name: ClassVar[str] = "trmean"
    mass_factor: ClassVar[int] = 2
    sees_inputs: ClassVar[bool] = True

    @property
    def min_inputs(self) -> int:
        """Least number of inputs."""
        return 2 * self.f + 1

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the aggregate (d,) of vectors (n, d)."""
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return the trimmed mean; see `Rule.aggregate`. The reference changes nothing."""
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return the trimmed mean of a stack."""
        stack = check_finite(stack)
        vector, outside = trimmed_mean(stack, self.f)
        return make_result(self, stack, vector, kept_weights(stack, outside), outside)


@attrs.frozen
class Median:
    """Of each coordinate, the middle value, or the mean of the two in the middle (weighted, if weights are given).

    Attributes:
        f: number of rows that may lie, for the check of the input alone; needs n >= 2 f + 1.
    """

    f: int = attrs.field(default=0, validator=check_f)
    name: ClassVar[str] = "median"
    mass_factor: ClassVar[int] = 2
    sees_inputs: ClassVar[bool] = True

    @property
    def min_inputs(self) -> int:
        """Least number of inputs."""
        return 2 * self.f + 1

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the aggregate (d,) of vectors (n, d)."""
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return the coordinate-wise median; see `Rule.aggregate`. The reference changes nothing."""
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return the coordinate-wise median of a stack."""
        stack = check_finite(stack)
        vector, outside = trimmed_mean(stack, (stack.n - 1) // 2)
        return make_result(self, stack, vector, kept_weights(stack, outside), outside)
