"""Decide whether what was learnt is worth pushing, from released values alone.

Privacy: whether a client pushes can be seen on the wire, so the decision is a release. It is a function of signed,
released vectors only (post-processing, free) and never sees a client's own un-released state.

The view that is compared before and after is the mean DIRECTION of the vectors held. Each vector counts with norm one,
so one liar with an enormous vector cannot make everybody else's change look small and silence gossip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.errors import ConfigError
from scarcity.federation.packets import FloatArray
from scarcity.federation.reader import Item

# Numbers of vectors that are added at once: 1 MiB.
_AT_ONCE: Final = 1 << 17


class ReleasedView:
    """The mean of v / |v| over the released vectors held; following a change costs O(d), many little more than one."""

    def __init__(self) -> None:
        self._held: dict[Item, None] = {}
        self._sum: FloatArray | None = None
        self._count = 0  # vectors in the sum

    def follow(self, contributions: Iterable[Item]) -> list[Item]:
        """Take over what is held now; return what is new in it.

        Vectors have shape (d,), finite; one of another shape than the first of those held is left out.
        """
        held = dict.fromkeys(contributions)
        added = [item for item in held if item not in self._held]
        removed = [item for item in self._held if item not in held]
        arrived, left = added, removed
        if len(added) + len(removed) >= len(held):  # a new sum is less work, and free of rounding
            self._sum, self._count = (np.zeros(_vector(next(iter(held))).shape) if held else None), 0
            arrived, left = list(held), []
        self._held = held
        self._shift(arrived, left)
        if self._count == 0 and held:  # all that are left have another shape than those that went
            self._sum = np.zeros(_vector(next(iter(held))).shape)
            self._shift(list(held), [])
        return added

    def _shift(self, added: list[Item], removed: list[Item]) -> None:
        if self._sum is None:
            return
        shape = self._sum.shape
        arrived, left = ([v for v in map(_vector, items) if v.shape == shape] for items in (added, removed))
        self._count += len(arrived) - len(left)
        vectors, signs = arrived + left, np.repeat([1.0, -1.0], [len(arrived), len(left)])
        step = max(1, _AT_ONCE // max(1, self._sum.size))
        for at in range(0, len(vectors), step):
            self._sum = self._sum + signs[at : at + step] @ _directions(vectors[at : at + step])

    def mean(self) -> FloatArray | None:
        """Return the view, shape (d,), a new array; None before the first vector."""
        if self._sum is None:
            return None
        return np.asarray(self._sum / self._count, dtype=np.float64)


_vector: Final = attrgetter("packet.body.vector")  # of a contribution


def _directions(vectors: list[NDArray[Any]]) -> FloatArray:
    """Return v / |v| of each, zero for zero; shape (n, d). Nothing overflows inside."""
    rows = np.concatenate(vectors).reshape(len(vectors), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    rows /= np.where(largest > 0, largest, 1.0)[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(norms > 0, norms, 1.0)[:, None]
    return rows


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
