"""The one place that decides faults: what is lost and how long the rest takes, who crashes, lies or falls silent.

Executors of a `World` ask a `FaultStage` about every packet and do as it says. A decision is a function of the seed,
the fault's own identity, sender, receiver and the number of packets between the two so far: taking one fault out of a
plan leaves all other decisions as they were, so a failing plan can shrink. Faults do not look at one another: a packet
that two faults strike counts for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from scarcity.federation.client import Learner
from scarcity.federation.packets import Body, Header, Packet
from sim.chance import Chance
from sim.faults import FaultPlan

# Signs a body in the name of the header's sender: lies that carry a signature need the liar's key.
Sign = Callable[[Header, Body], Packet]


@attrs.frozen
class CrashEvent:
    """A member stops at `at_s` and starts again from its disk at `up_at_s` (infinity: never)."""

    at_s: float
    member: str
    up_at_s: float
    torn: bool
    fault_index: int


@attrs.frozen
class Fired:
    """How often an entry of the plan has struck, and whom.

    Attributes:
        index: place of the entry in `FaultPlan.entries`.
        name: its kind.
        count: how often.
        on: the members that it struck, sorted.
    """

    index: int
    name: str
    count: int
    on: tuple[str, ...]


class FaultStage:
    """Decides the faults of one plan.

    Args:
        plan: what goes wrong.
        seats: member id -> its domain, empty for the coordinator.
        chance: decides, together with what a decision is about.
        until_s: end of the run; crashes are known up to it.
        sign: signs lies; a plan with a behaviour of `sim.lies.SIGNED_LIES` needs it.

    Raises:
        ConfigError: a group of the plan has no members.
    """

    def __init__(
        self,
        plan: FaultPlan,
        seats: Mapping[str, str],
        chance: Chance,
        until_s: float,
        *,
        sign: Sign | None = None,
    ) -> None:
        self._plan = plan
        self._seats = dict(seats)
        self._chance = chance
        self._until_s = until_s
        self._sign = sign

    def passages(self, src: str, dst: str, packet: Packet, size_bytes: int, now: float) -> tuple[float, ...]:
        """Return the delay of each copy of a packet that arrives; none: it is lost."""
        return (0.0,)

    def crashes(self) -> tuple[CrashEvent, ...]:
        """Return all crashes of the run, sorted; nobody crashes while it is down."""
        return ()

    def local_time(self, member: str, now: float) -> float:
        """Return what a member's clock shows at an instant of the world."""
        return now

    def world_time(self, member: str, local: float) -> float:
        """Return the instant of the world at which a member's clock shows `local`: when its timers are due."""
        return local

    def handling_s(self, member: str, now: float) -> float:
        """Return how long a member takes for a packet that it takes up now."""
        return 0.0

    def learner(self, member: str, learner: Learner) -> Learner:
        """Return the learner that a member's core is given: a liar's forges its updates."""
        return learner

    def say(self, src: str, dst: str, packet: Packet) -> tuple[Packet, ...]:
        """Return what a member sends instead of a packet; each then passes on its own. The honest send it as it is."""
        return (packet,)

    def fired(self, now: float | None = None) -> tuple[Fired, ...]:
        """Return how often each entry has struck; crashes after `now` (None: the end of the run) do not count."""
        return ()

    def unfired(self, now: float | None = None) -> tuple[Fired, ...]:
        """Return the entries that have struck nobody: a plan that holds one has not tested what it says."""
        return tuple(fired for fired in self.fired(now) if fired.count == 0)
