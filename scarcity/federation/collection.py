"""What a basket has gathered for one round: who has come, who has declined, and whether that is enough.

In mode distributed what comes is the word of being ready; contributions then travel masked inside the secure sum. In
the other modes it is the contribution itself, in the buffer, where late ones of earlier rounds wait as well.
"""

from __future__ import annotations

from collections.abc import Collection as AbstractCollection
from collections.abc import Mapping

import attrs

from scarcity.federation.aggregator import Rule, byzantine_count, make_rule
from scarcity.federation.buffer import UpdateBuffer
from scarcity.federation.packets import Packet, RoundSettings, TrustMode
from scarcity.federation.scheduler import Decision, RoundScheduler, Verdict, quorum_need
from scarcity.federation.sums import min_members


@attrs.define(eq=False)
class Collection:
    """A round's gathering.

    Attributes:
        settings: the round's.
        round_id: the round.
        members: the basket's clients when the round opened, sorted.
        opened_at: when the basket learnt of the round, seconds.
        buffer: the basket's, over all rounds.
        weights: member -> weight, of those that are Ready (mode distributed).
    """

    settings: RoundSettings
    round_id: int
    members: tuple[str, ...]
    opened_at: float
    buffer: UpdateBuffer[Packet]
    weights: dict[str, int] = attrs.field(factory=dict)
    _declined: dict[str, str] = attrs.field(factory=dict)

    @property
    def arrived(self) -> tuple[str, ...]:
        """Members that count now, sorted."""
        if self.settings.mode is TrustMode.DISTRIBUTED:
            return tuple(sorted(self.weights))
        return self.buffer.senders(self.round_id)

    @property
    def num_arrived(self) -> int:
        """How many members count now."""
        distributed = self.settings.mode is TrustMode.DISTRIBUTED
        return len(self.weights) if distributed else self.buffer.num_senders(self.round_id)

    @property
    def declined(self) -> dict[str, str]:
        """Who will not contribute, and why: nobody leaves a round by a word after having contributed to it."""
        if not self._declined:
            return {}
        arrived = self.arrived
        return {name: why for name, why in self._declined.items() if name not in arrived}

    @property
    def expected(self) -> tuple[str, ...]:
        """The members that have not declined, sorted."""
        declined = self.declined
        return tuple(name for name in self.members if name not in declined) if declined else self.members

    @property
    def rule(self) -> Rule:
        """The round's rule; f follows from the members, not from the arrivals: silence must not lower it."""
        return make_rule(self.settings.rule, byzantine_count(self.settings.byzantine_share, len(self.members)))

    @property
    def min_inputs(self) -> int:
        """Contributions below which nothing is made, whatever the quorum."""
        return min_members(self.settings) if self.settings.mode is TrustMode.DISTRIBUTED else self.rule.min_inputs

    @property
    def need(self) -> int:
        """Contributions that close the round."""
        return quorum_need(self.settings.quorum, len(self.expected), self.min_inputs)

    @property
    def has_quorum(self) -> bool:
        """Whether the round could close now."""
        return self.num_arrived >= self.need

    def decline(self, member_id: str, reason: str) -> None:
        """Note that a member will not contribute."""
        self._declined[member_id] = f"declined: {reason}"

    def decide(self, now: float, *, forced: bool) -> Decision:
        """Decide whether to go on waiting; `forced`: waiting is not an answer."""
        scheduler, arrived, declined = RoundScheduler(self.settings), self.num_arrived, len(self.declined)
        if self.settings.mode is TrustMode.DISTRIBUTED:
            # Who takes part in the sum has to be known before it begins; after that, its own stages are waited for.
            heard = scheduler.ready(
                members=len(self.members),
                ready=arrived,
                declined=declined,
                opened_at=self.opened_at,
                now=now,
                forced=forced,
            )
            if heard.verdict is Verdict.WAIT:
                return heard
            forced = True
        decision = scheduler.decide(
            members=len(self.members),
            arrived=arrived,
            declined=declined,
            opened_at=self.opened_at,
            now=now,
            min_inputs=self.min_inputs,
            forced=forced,
        )
        until = self.opened_at + min(self.settings.close_s, self.settings.deadline_s)
        if decision.verdict is Verdict.CLOSE and not forced and now < until and self._late_alone:
            return attrs.evolve(decision, verdict=Verdict.WAIT, until=until)
        return decision

    @property
    def _late_alone(self) -> bool:
        """Whether a member counts by a late contribution alone: its newer one is on its way, and is waited for.

        Closing at once would make it late for ever, at half its weight.
        """
        waited = (name for name in self.arrived if name not in self._declined)
        return any(not self.buffer.holds(name, self.round_id) for name in waited)

    def left_out(self, included: AbstractCollection[str], silent: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return (member, why) for the members that are not in the aggregate.

        Args:
            included: those that are.
            silent: member -> stage of the secure sum in which it was last waited for in vain.
        """
        reasons = {name: f"silent at stage {stage}" for name, stage in silent.items()} | self._declined
        return tuple((name, reasons.get(name, "silent")) for name in self.members if name not in included)
