"""What came of a simulated run: the values between an executor and whoever asked for the run."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from scarcity.federation.packets import Model
from sim.faults.stage import Fired


@attrs.frozen
class Violation:
    """A promise that did not hold.

    Attributes:
        checker: whose promise.
        at: virtual seconds.
        member: where it was seen.
        what: what was expected and what came.
    """

    checker: str
    at: float
    member: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:.3f} s, {self.checker}, {self.member}: {self.what}"


@attrs.frozen(kw_only=True)
class SimResult:
    """A run that is over.

    Attributes:
        trace_hash: hash over all events; the same seed, plan and versions give the same.
        violations: what did not hold, in the order in which it was found.
        models: the coordinator's models by round, the newest ones (`KEPT_MODELS`).
        num_models: how many rounds made one.
        num_aborted: how many rounds were given up.
        dead_letters: packets that found their member down, or its mailbox full.
        lost: packets that the network lost.
        deliveries: packets that a core took.
        crashes: members that died, as often as they did.
        refusals: (code or reason) -> how often a core refused a packet.
        fired: how often each fault struck, and on whom.
        now_s: virtual seconds that the run took.
    """

    trace_hash: str
    violations: tuple[Violation, ...]
    models: Mapping[int, Model]
    num_models: int
    num_aborted: int
    dead_letters: int
    lost: int
    deliveries: int
    crashes: int
    refusals: Mapping[str, int]
    fired: tuple[Fired, ...]
    now_s: float

    @property
    def model(self) -> Model | None:
        """The newest model, None when no round made one."""
        return self.models[max(self.models)] if self.models else None


KEPT_MODELS = 64
