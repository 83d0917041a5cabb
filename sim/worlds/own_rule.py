"""A user's own aggregator as a rule of a simulated federation.

Any callable from vectors (n, d) to one vector (d,) will do: a function, one of `scarcity.robust`, one of byzfl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.errors import ConfigError
from scarcity.robust.rule import (
    AggregationResult,
    FloatArray,
    Rule,
    Stack,
    Vectors,
    check_finite,
    make_result,
    read_stack,
)

Aggregator = Callable[[Any], Any]


@attrs.frozen
class _Called:
    """A rule around a callable; it judges nobody, so the evidence is the same for all.

    Attributes:
        call: the callable. It gets means, float64, one row a client that has contributed, in sorted order of the ids;
            weights (age, trust) it does not get. Their unit is the grid's of the noise: a rule must be equivariant
            under scale.
        name: in results.
        f: clients that may lie, which the callable is not told.
    """

    call: Aggregator
    name: str
    f: int
    min_inputs: ClassVar[int] = 1
    mass_factor: ClassVar[int] = 1
    sees_inputs: ClassVar[bool] = True

    def __call__(self, vectors: Vectors) -> FloatArray:
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        rows = np.array(check_finite(stack).block(0, stack.rows.shape[1]), dtype=np.float64)
        vector = np.asarray(self.call(rows), dtype=np.float64)
        # Not a LocalError: a basket answers those by being absent, and the mistake would hide behind a lost round.
        if vector.shape != rows.shape[1:]:
            raise TypeError(f"rule {self.name} must return shape {rows.shape[1:]}, got {vector.shape}")
        if not np.all(np.isfinite(vector)):
            raise TypeError(f"rule {self.name} must return finite numbers, got {vector}")
        return make_result(self, stack, vector, np.full(stack.n, 1.0 / stack.n), np.zeros(stack.n))


@attrs.frozen
class OwnRule:
    """A callable under a name.

    Attributes:
        name: what settings call it.
        call: the callable.
    """

    name: str
    call: Aggregator

    def make(self, f: int) -> Rule:
        """Return the rule; f is not told to the callable."""
        return _Called(self.call, self.name, f)


def own_rule(call: Aggregator) -> OwnRule:
    """Return a callable under a name that no rule of a federation has.

    Raises:
        ConfigError: it cannot be called.
    """
    if not callable(call):
        raise ConfigError(f"rule must be a name or a callable from (n, d) to (d,), got {call!r}")
    return OwnRule(f"own:{getattr(call, '__name__', type(call).__name__)}", call)
