"""Keep a reputation of each member: scores and proofs. Scores are local and are never gossiped.

A member has Beta evidence: good g and bad b. Each observation first lets the old evidence fade, the good faster than
the bad, so that trust is lost faster than gained and an on-off attacker cannot bank good behaviour. The score is the
lower credible bound of Beta(1 + g, 1 + b), so little evidence scores low: a newcomer stands at the floor, and a fresh
identity is never better than a spent one. A proof (an equivocation) is quarantine until a roster drops its author.

Weak evidence (likeness to the robust aggregate) counts little, because honest minority data looks unlike the rest. A
dropout is not malice: silence is no observation, and nothing fades in it.

Scores do not touch f or sampling; nothing here changes a weight yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from scarcity.errors import ConfigError, UnknownClientError
from scarcity.federation.effects import Reject
from scarcity.federation.refusals import HARMLESS, Equivocation, code_of


def _in_unit(_instance: object, field: attrs.Attribute[float], value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(f"{field.name} must be in (0, 1], got {value!r}")


@attrs.frozen(kw_only=True)
class TrustConfig:
    """How evidence is weighed.

    Attributes:
        floor: score of a newcomer and the least of anyone not in quarantine.
        good_memory: share of the good evidence kept at each observation; .95 remembers about 20 contributions.
        bad_memory: the same of the bad evidence; above good_memory, or loss would not be faster than gain.
        fault_weight: bad evidence of one protocol fault, in contributions.
        weak_weight: evidence of one comparison with the aggregate, in contributions.
        z: standard deviations below the mean; 1.645 is the 5 % quantile of a normal.
    """

    floor: float = attrs.field(default=0.1, validator=_in_unit)
    good_memory: float = attrs.field(default=0.95, validator=_in_unit)
    bad_memory: float = attrs.field(default=0.99, validator=_in_unit)
    fault_weight: float = 3.0
    weak_weight: float = attrs.field(default=0.1, validator=_in_unit)
    z: float = 1.645

    def __attrs_post_init__(self) -> None:
        if self.bad_memory < self.good_memory:
            raise ConfigError(f"bad_memory {self.bad_memory} must not be below good_memory {self.good_memory}")
        if not self.fault_weight >= 1:
            raise ConfigError(f"fault_weight must be at least 1 contribution, got {self.fault_weight!r}")


def lower_bound(good: float, bad: float, z: float) -> float:
    """Return mean - z sd of Beta(1 + good, 1 + bad), cut to [0, 1].

    It stands for the 5 % quantile at z = 1.645. For good + bad <= 40 it is at most .041 below and .063 above the exact
    one (measured); the exact quantile would cost a dependency, and only the order of scores matters here.
    """
    a, b = 1.0 + good, 1.0 + bad
    mean = a / (a + b)
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return min(1.0, max(0.0, mean - z * deviation))


@attrs.frozen
class _Evidence:
    good: float = 0.0
    bad: float = 0.0


class TrustScorer:
    """Reputation of the members of one basket.

    Args:
        members: ids; one that comes later starts at the floor, one that goes is forgotten (`update_members`).
        config: weights.
    """

    def __init__(self, members: Iterable[str], config: TrustConfig | None = None) -> None:
        self._config = config or TrustConfig()
        self._evidence: dict[str, _Evidence] = {}
        self._proofs: dict[str, Equivocation] = {}
        self.update_members(members)

    def update_members(self, members: Iterable[str]) -> None:
        """Follow a new roster; who stays keeps its evidence and proofs."""
        kept = set(members)
        self._evidence = {name: self._evidence.get(name, _Evidence()) for name in sorted(kept)}
        self._proofs = {name: proof for name, proof in self._proofs.items() if name in kept}

    def _observe(self, member_id: str, good: float, bad: float) -> None:
        if member_id not in self._evidence:
            raise UnknownClientError(f"no trust is kept for {member_id!r}")
        old, config = self._evidence[member_id], self._config
        # What fades is in proportion to what comes in, so weak evidence cannot wash strong evidence out.
        mass = good + bad
        self._evidence[member_id] = _Evidence(
            old.good * config.good_memory**mass + good,
            old.bad * config.bad_memory**mass + bad,
        )

    def contributed(self, member_id: str) -> None:
        """Count a contribution that passed every check."""
        self._observe(member_id, 1.0, 0.0)

    def resembled(self, member_id: str, likeness: float) -> None:
        """Count how much a contribution looked like the robust aggregate, in [0, 1]; weak evidence."""
        if not 0 <= likeness <= 1:
            raise ConfigError(f"likeness must be in [0, 1], got {likeness!r}")
        weight = self._config.weak_weight
        self._observe(member_id, weight * likeness, weight * (1 - likeness))

    def refused(self, refusal: Reject) -> None:
        """Count a refusal by the validator against its peer; harmless ones (late, resent) do not count.

        Peers without a record (another basket's, unknown ids) are not scored: nobody outside can fill this table.
        """
        if code_of(refusal) not in HARMLESS and refusal.peer in self._evidence:
            self._observe(refusal.peer, 0.0, self._config.fault_weight)

    def convict(self, proof: Equivocation, public_key: bytes) -> bool:
        """Put the author of an equivocation in quarantine if the proof holds; say whether it does."""
        if proof.author not in self._evidence or not proof.holds(public_key):
            return False
        self._proofs.setdefault(proof.author, proof)
        return True

    @property
    def proofs(self) -> dict[str, Equivocation]:
        """Member id -> the proof that put it in quarantine."""
        return dict(self._proofs)

    def is_quarantined(self, member_id: str) -> bool:
        """Say whether a proof stands against a member."""
        return member_id in self._proofs

    def score(self, member_id: str) -> float:
        """Return the trust in a member: 0 in quarantine, else in [floor, 1]."""
        if member_id not in self._evidence:
            raise UnknownClientError(f"no trust is kept for {member_id!r}")
        if member_id in self._proofs:
            return 0.0
        evidence = self._evidence[member_id]
        return max(self._config.floor, lower_bound(evidence.good, evidence.bad, self._config.z))

    def scores(self) -> dict[str, float]:
        """Return all scores, by sorted id."""
        return {name: self.score(name) for name in self._evidence}
