"""Whether gossip has done its work: the views that clients have of their baskets, beside what the baskets made."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from scarcity.engine.arrays import FloatArray
from sim.swarms.plan import GossipSeen

SETTLE_S: Final = 5.0  # the longest that is waited for; gossip among 186 clients on one core takes about two seconds
POLL_S: Final = 0.1
# The same rule over the same releases, but for the rounding of a total that is divided by its weight again.
_SAME: Final = 1 - 1e-9


class Viewer(Protocol):
    """A client that gossips, such as a `ClientCore`."""

    @property
    def has_local_view(self) -> bool:
        """Whether the newest round's releases that gossip has brought are enough for the basket's rule."""

    def local_view(self) -> FloatArray | None:
        """Return the rule over them, shape (d,), per unit of weight; None: too few yet."""


class Views:
    """The clients' views of one round.

    Args:
        viewers: all clients that have not fallen silent, with their basket's mean, shape (d,), per unit of weight; None
            where it made no aggregate.
        rule: the baskets' rule.
    """

    def __init__(self, viewers: Sequence[tuple[Viewer, FloatArray | None]], rule: str) -> None:
        self._viewers = viewers
        self._rule = rule
        self._pending = [(viewer, mean) for viewer, mean in viewers if mean is not None]

    def settled(self) -> bool:
        """Say whether every client of a basket with an aggregate holds the releases that it was made of.

        A view is of them all when it equals the aggregate. Who has been found to hold them is not asked again, and one
        who does not answers for all: a view costs milliseconds.
        """
        while self._pending and _agreement(*self._pending[-1]) >= _SAME:
            self._pending.pop()
        return not self._pending

    def seen(self) -> GossipSeen:
        """Return what there is to see now."""
        views = [(viewer, mean) for viewer, mean in self._viewers if viewer.has_local_view]
        agreements = [_agreement(viewer, mean) for viewer, mean in views if mean is not None]
        return GossipSeen(
            clients=len(self._viewers),
            with_view=len(views),
            agreement=statistics.median(agreements) if agreements else None,
            rule=self._rule,
        )


def viewers_of(
    clients: Mapping[str, Viewer],
    domains: Mapping[str, str],
    means: Mapping[str, FloatArray],
    silent: Mapping[str, str],
) -> list[tuple[Viewer, FloatArray | None]]:
    """Return the clients that have not fallen silent, each with its basket's mean."""
    return [(viewer, means.get(domains[name])) for name, viewer in clients.items() if name not in silent]


def _agreement(viewer: Viewer, mean: FloatArray) -> float:
    """Return the cosine between a client's view and its basket's mean; 0 without a view."""
    view = viewer.local_view()
    if view is None:
        return 0.0
    norms = float(np.linalg.norm(view)) * float(np.linalg.norm(mean))
    return float(view @ mean) / norms if norms > 0 else 0.0
