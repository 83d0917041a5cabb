"""What a daemon has seen and counted: refusals, who was heard when, since when links are as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

from actors import ActorRef, ActorSystem
from actors.errors import UnknownActor
from scarcity.federation.basket import BasketCore
from scarcity.federation.client import ClientCore
from scarcity.federation.coordinator import CoordinatorCore
from scarcity.federation.effects import Core, Reject
from scarcity.federation.roster import Role
from scarcity.node.data.tail import RowsLearner
from scarcity.node.watch.status import MemberFacts

_REASONS_MAX = 256
_OTHER = "other reasons"

log = logging.getLogger("scarcity.node")


@attrs.define(eq=False)
class Seen:
    """What came and what was refused since the daemon started; all instants are on the event loop's clock.

    Attributes:
        link_changed_at: node -> when its link last went up or down.
        member_at: member id -> when its last packet came from another node.
        refusals: reason -> how often.
    """

    now: Callable[[], float]
    link_changed_at: dict[str, float] = attrs.field(factory=dict)
    member_at: dict[str, float] = attrs.field(factory=dict)
    refusals: Counter[str] = attrs.field(factory=Counter)

    def link(self, node: str, up: bool, reason: str) -> None:
        """Note and log that a link went up or down."""
        self.link_changed_at[node] = self.now()
        fields = {"fields": {"node": node, "up": up, "reason": reason}}
        log.info("link to %s: %s", node, "up" if up else f"down, {reason}", extra=fields)

    def refused(self, member_id: str, what: Reject) -> None:
        """Note and log a core's refusal."""
        # A reason may quote its peer: whoever thinks of new ones must not fill the memory with them.
        known = what.reason in self.refusals or len(self.refusals) < _REASONS_MAX
        self.refusals[what.reason if known else _OTHER] += 1
        fields = {"fields": {"member": member_id, "peer": what.peer, "reason": what.reason}}
        log.warning("%s refuses %s: %s", member_id, what.peer or "a link", what.reason, extra=fields)


@attrs.define(eq=False)
class Member:
    """One member of this node: its core and actor once they are there."""

    id: str
    role: Role
    core: Core | None = None
    learner: RowsLearner | None = None
    ref: ActorRef | None = None

    def facts(self, system: ActorSystem, epsilon_budget: float) -> MemberFacts:
        """Return what there is to say about it now."""
        core, known = self.core, None
        if self.ref is not None:
            try:
                known = system.actor_statistics(self.ref)
            except UnknownActor:  # it starts again, or is gone
                known = None
        has_ledger = isinstance(core, ClientCore)
        return MemberFacts(
            id=self.id,
            role=self.role.value,
            state=core.state.value if isinstance(core, ClientCore | BasketCore | CoordinatorCore) else "down",
            round_id=core.round_id if isinstance(core, ClientCore | BasketCore | CoordinatorCore) else 0,
            waiting=() if core is None else core.waiting(),
            epsilon_spent=core.epsilon_spent if isinstance(core, ClientCore) else None,
            epsilon_budget=epsilon_budget if has_ledger else None,
            mailbox=None if known is None else known.mailbox,
            num_restarts=0 if known is None else known.num_restarts,
            num_rows=None if self.learner is None else self.learner.num_rows,
        )


def size_of(*paths: Path) -> int:
    """Return the bytes of files, those that are there."""
    return sum(path.stat().st_size for path in paths if path.exists())
