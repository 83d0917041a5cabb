"""Decide when a basket stops waiting: pure functions of counts and instants.

A round closes when all expected have come, or when the quorum has come and `close_s` has passed; at `deadline_s`
without quorum the basket is absent. Expected are the members minus those that declined. A caller that cannot wait
(the synchronous facade) forces the decision: close with a quorum, absent without.
"""

from __future__ import annotations

import enum
import math

import attrs

from scarcity.federation.packets import RoundSettings

# Products such as .55 * 100 = 55.00000000000001 must not ask for one more than was meant.
_ROUNDING = 1e-9


class Verdict(enum.Enum):
    """What a basket does now."""

    WAIT = "wait"
    CLOSE = "close"
    ABSENT = "absent"


@attrs.frozen
class Decision:
    """A verdict, until when it holds if nothing else arrives (WAIT), how many are needed, and why."""

    verdict: Verdict
    need: int
    reason: str
    until: float = math.inf


def quorum_need(quorum: float, expected: int, min_inputs: int = 1) -> int:
    """Return max(min_inputs, 1, ceil(quorum * expected))."""
    return max(min_inputs, 1, math.ceil(quorum * expected - _ROUNDING))


@attrs.frozen
class RoundScheduler:
    """The triggers of one round under its settings (quorum, `ready_s`, `close_s`, `deadline_s`)."""

    settings: RoundSettings

    def ready(
        self, *, members: int, ready: int, declined: int, opened_at: float, now: float, forced: bool = False
    ) -> Decision:
        """Decide whether to go on waiting to hear who takes part (CLOSE: the participants are known)."""
        if ready + declined >= members:
            return Decision(Verdict.CLOSE, members, "all have answered")
        until = opened_at + self.settings.ready_s
        if forced or now >= until:
            return Decision(Verdict.CLOSE, members, f"{ready + declined} of {members} have answered in time")
        return Decision(Verdict.WAIT, members, f"{ready + declined} of {members} have answered", until)

    def decide(
        self,
        *,
        members: int,
        arrived: int,
        declined: int,
        opened_at: float,
        now: float,
        min_inputs: int = 1,
        forced: bool = False,
    ) -> Decision:
        """Decide whether a basket closes its round.

        Args:
            members: members of the basket (in a secure sum: its participants).
            arrived: contributions that would count now.
            declined: members that said they will not contribute.
            opened_at: when the basket learnt of the round, seconds.
            now: seconds on the same clock.
            min_inputs: what the rule needs at least; below it a basket is absent, never a weaker rule.
            forced: decide now; WAIT is not an answer.
        """
        expected = members - declined
        need = quorum_need(self.settings.quorum, expected, min_inputs)
        have = f"{arrived} of {expected} expected have come, {need} are needed"
        if arrived >= need and (forced or arrived >= expected):
            return Decision(Verdict.CLOSE, need, have)
        if arrived < need and expected < need:
            return Decision(Verdict.ABSENT, need, f"{expected} of {members} are left to contribute, {need} are needed")
        close_at = opened_at + self.settings.close_s
        deadline = opened_at + self.settings.deadline_s
        if arrived >= need:
            # With a quorum nothing is won by waiting past the deadline, should it be the earlier one.
            until = min(close_at, deadline)
            return Decision(Verdict.CLOSE, need, have) if now >= until else Decision(Verdict.WAIT, need, have, until)
        if forced or now >= deadline:
            return Decision(Verdict.ABSENT, need, have)
        return Decision(Verdict.WAIT, need, have, deadline)
