"""A discovered relation: what depends on what, how strongly, how surely."""

from __future__ import annotations

from typing import Literal

import attrs

RelationKind = Literal["lagged", "persistent"]


@attrs.frozen
class Relation:
    """A link between variables.

    A lagged link is predictive (Granger) given the measured variables; it is causal only if nothing that drives both
    was left out.

    Attributes:
        kind: "lagged" (another variable's past) or "persistent" (the variable's own past).
        sources: names, sorted as in the schema.
        targets: names.
        lag: rows between source and target, >= 1.
        effect: deviations of the target per deviation of the source, the other links held fixed.
        se: its standard error; sampling error and privacy noise.
        p: p-value of |effect| <= min_effect, before multiplicity.
    """

    kind: RelationKind
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    lag: int
    effect: float
    se: float
    p: float

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[str, ...], int]:
        """What identifies the link whatever its strength: (kind, sources, targets, lag)."""
        return self.kind, self.sources, self.targets, self.lag
