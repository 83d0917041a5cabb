"""Wait until a daemon has reached something: for scripts, which must neither poll by hand nor sleep and hope."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from scarcity.errors import FederationError, NodeNotRunning
from scarcity.node.watch.status import NodeStatus

_POLL_S: Final = 0.2
_SAY_S: Final = 5.0
_SHOWN: Final = 3


@attrs.frozen
class Goal:
    """What a node is waited for to reach; None asks for nothing.

    Attributes:
        round_id: it holds the model of this round or of a later one: a round may be given up.
        epoch: the directory of this epoch, or of a later one, is in force.
    """

    round_id: int | None = None
    epoch: int | None = None

    def missing(self, status: NodeStatus) -> str:
        """Return what is still missing, in words; empty when it is reached."""
        if self.epoch is not None and status.epoch < self.epoch:
            return f"epoch {self.epoch} (epoch {status.epoch} is in force)"
        if self.round_id is not None and max(status.models, default=0) < self.round_id:
            return f"a model of round {self.round_id} or later"
        return ""


def wait_until(
    ask: Callable[[], Mapping[str, Any]],
    goal: Goal,
    *,
    timeout_s: float,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[str, Any]:
    """Ask until the goal is reached; return the last answer.

    A daemon that does not run yet is waited for too.

    Args:
        ask: gives the status as plain values; `NodeNotRunning` when there is no daemon.
        goal: what to wait for.
        timeout_s: the longest wait.
        say: told what is waited for, at once and every 5 s.
        now: a clock in seconds.
        pause: sleeps for seconds.

    Raises:
        FederationError: it was not reached in time, with what was missing; or the daemon's own error.
    """
    until, say_at = now() + timeout_s, now()
    while True:
        try:
            said = ask()
        except NodeNotRunning as error:
            lacking = str(error)
        else:
            status = NodeStatus.from_json(said)
            missing = goal.missing(status)
            if not missing:
                return said
            lacking = f"waiting for {missing}; {_waits(status)}"
        if now() >= until:
            raise FederationError(f"not reached within {timeout_s:g} s: {lacking}")
        if now() >= say_at:
            say(lacking)
            say_at = now() + _SAY_S
        pause(_POLL_S)


def _waits(status: NodeStatus) -> str:
    """Return what members wait for; those that wait for somebody come first."""
    waits = [(member.id, wait) for member in status.members for wait in member.waiting]
    waits.sort(key=lambda each: not each[1].missing)
    return "; ".join(f"{who} {wait.describe()}" for who, wait in waits[:_SHOWN]) or "no member here waits for anybody"
