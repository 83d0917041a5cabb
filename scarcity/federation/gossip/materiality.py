"""Decide whether what was learnt is worth pushing, from released values alone.

Privacy: whether a client pushes can be seen on the wire, so the decision is a release. It is a function of signed,
released vectors only (post-processing, free) and never sees a client's own un-released state.

The view that is compared before and after is the mean DIRECTION of the vectors held. Each vector counts with norm one,
so one liar with an enormous vector cannot make everybody else's change look small and silence gossip.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.errors import ConfigError
from scarcity.federation.packets import FloatArray
from scarcity.federation.validator import norm_of


class ReleasedView:
    """The mean of v / |v| over the released vectors held; each step costs O(d)."""

    def __init__(self) -> None:
        self._sum: FloatArray | None = None
        self._count = 0

    def add(self, vector: NDArray[Any]) -> None:
        """Take a released vector in; shape (d,), finite. One of another shape than those held is left out."""
        if self._count == 0:
            self._sum = np.zeros(vector.shape)
        self._shift(vector, 1)

    def remove(self, vector: NDArray[Any]) -> None:
        """Take a vector out that was added before."""
        if self._count > 0:
            self._shift(vector, -1)

    def _shift(self, vector: NDArray[Any], sign: int) -> None:
        if self._sum is None or self._sum.shape != vector.shape:
            return
        norm = norm_of(vector)
        if 0 < norm < math.inf:
            self._sum = self._sum + (sign / norm) * np.asarray(vector, dtype=np.float64)
        self._count += sign

    def mean(self) -> FloatArray | None:
        """Return the view, shape (d,), a new array; None before the first vector."""
        if self._sum is None or self._count < 1:
            return None
        return np.asarray(self._sum / self._count, dtype=np.float64)


@attrs.frozen
class MaterialityDetector:
    """Push when the local view moved by more than `threshold`, relative in L2.

    Attributes:
        threshold: |after - before| / |before|. 0 pushes whatever changes the view; more saves traffic and leaves small
            changes to pull.
    """

    threshold: float = attrs.field(default=0.01)

    @threshold.validator
    def _check(self, _field: attrs.Attribute[float], value: float) -> None:
        if not 0 <= value < math.inf:
            raise ConfigError(f"threshold must be a finite number of at least 0, got {value!r}")

    def is_material(self, before: FloatArray | None, after: FloatArray | None) -> bool:
        """Say whether the change of the view is worth a push; both shape (d,), released values only.

        The first view and a view of another shape are material; none is not.
        """
        if after is None:
            return False
        if before is None or before.shape != after.shape:
            return True
        return bool(np.linalg.norm(after - before) > self.threshold * np.linalg.norm(before))
