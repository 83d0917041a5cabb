"""What is done to the rows before a rule: n rows in, n rows out.

A pre-aggregator here is a mixing matrix on the rows, computed from their Gram matrix, so that it costs no second pass
over them: the rule behind it works on `mixing @ rows`, a block at a time or through the mixed Gram matrix.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import attrs
import numpy as np

from scarcity.robust.distance import measure, squared_distances
from scarcity.robust.rule import FloatArray, Stack, Vectors, check_f, read_stack


class PreAggregator(Protocol):
    """n rows in, n rows out, each a mixture of the rows."""

    @property
    def name(self) -> str:
        """Name in the results of a pipeline."""

    @property
    def f(self) -> int:
        """Number of rows that may lie."""

    @property
    def min_inputs(self) -> int:
        """Least n for which it holds f liars."""

    @property
    def mass_factor(self) -> int:
        """See `Rule.mass_factor`."""

    def mix(self, stack: Stack) -> Stack:
        """Return the stack of the mixed rows, with the weights that these have."""


@attrs.frozen
class NNM:
    """Nearest-neighbour mixing: every row becomes the mean of the n − f rows nearest to it, itself among them.

    Attributes:
        f: number of rows that may lie; needs n >= 2 f + 1.

    It takes the heterogeneity out of the rows before a rule sees them. Weights weigh the means and are used up by that:
    the mixed rows count alike. (Mixed rows are often equal; had they different weights, the last bit of the arithmetic
    would decide which of them a trimmed mean leaves out.) Ties go to the lowest row.
    Cost: the Gram matrix, O(n² log n), and n² d multiply-adds when a coordinate rule follows.
    Source: Allouah et al., "Fixing by Mixing", AISTATS 2023.
    """

    f: int = attrs.field(default=0, validator=check_f)
    name: ClassVar[str] = "nnm"
    mass_factor: ClassVar[int] = 2
    sees_inputs: ClassVar[bool] = True

    @property
    def min_inputs(self) -> int:
        """Least number of inputs."""
        return 2 * self.f + 1

    def weights_from_gram(self, gram: FloatArray, weights: FloatArray | None = None) -> FloatArray:
        """Return the mixing matrix (n, n): row i holds the shares of the n − f rows nearest to row i."""
        n = gram.shape[0]
        nearest = np.argsort(squared_distances(gram), axis=1, kind="stable")[:, : n - self.f]
        shares = np.zeros((n, n))
        picked = np.ones(nearest.shape) if weights is None else weights[nearest]
        np.put_along_axis(shares, nearest, picked, axis=1)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def mix(self, stack: Stack) -> Stack:
        """Return the stack of the mixed rows, which count alike."""
        stack = measure(stack)
        assert stack.gram is not None
        mixing = self.weights_from_gram(stack.gram, stack.weights if stack.is_weighted else None)
        total = mixing if stack.mixing is None else mixing @ stack.mixing
        alike = np.full(stack.n, 1.0 / stack.n)
        return attrs.evolve(stack, weights=alike, mixing=total, gram=mixing @ stack.gram @ mixing.T)

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the mixed vectors (n, d), float64."""
        stack = self.mix(read_stack(self, vectors))
        return np.asarray(stack.block(0, stack.rows.shape[1]), dtype=np.float64)
