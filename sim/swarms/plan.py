"""What a swarm is asked to do and what came of it: the values between `sim.swarms.swarm` and whoever executes a plan.

An executor (`sim.swarms.live`) is a function `execute(plan, observe) -> Outcome`. It calls `observe(said, now)` with
every event that a core emits, with what cores wait for and have waited for, and with what ledgers were charged. A
`Record` is such an observer: it keeps what the report needs, so that an interrupted swarm can still say what was done.
SIGINT is held back meanwhile: an executor that takes long listens itself, by `sim.interrupts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs

from scarcity.engine.vector import Form, vector_dimension
from scarcity.federation.effects import (
    BasketAbsent,
    BasketClosed,
    ContributionMade,
    EntropySource,
    Event,
    ModelMade,
    RoundAborted,
    RoundDeclined,
    Waiting,
)
from scarcity.federation.packets import Aggregate, Model, RoundSettings
from scarcity.federation.privacy_guard import array_layout
from scarcity.node.data.source import Source
from sim.chance import Chance
from sim.faults.attacks import Attack

Backend = Literal["asyncio", "trio"]
# Part of the text of `PrivacyBudgetExceeded`, which a client that cannot pay gives as its reason.
_BUDGET_WORDS: Final = "exceeds the budget"


@attrs.frozen
class SwarmPlan:
    """A swarm, ready to be executed; everything is decided but what happens.

    Attributes:
        source: the parties: a party is a client, a domain a basket.
        settings: the rules of every round.
        form: layout of the vectors that clients contribute.
        epsilon: budget of each client's ledger.
        delta: budget of each client's ledger.
        rounds: how many; the rows are split into as many increments.
        liars: ids of the clients that forge what they send.
        attack: what they send.
        drop: probability with which a client falls silent, at a stage that `chance` decides.
        latency_s: delay of every message.
        chance: decides faults.
        entropy: noise and secrets; None: the system's, the only private choice.
        backend: event loop.
    """

    source: Source
    settings: RoundSettings
    form: Form
    epsilon: float
    delta: float
    rounds: int
    liars: tuple[str, ...]
    attack: Attack
    drop: float
    latency_s: float
    chance: Chance
    entropy: EntropySource | None
    backend: Backend

    @property
    def aggregate_unit(self) -> float:
        """What one unit of a basket's aggregate is in the units of clients' vectors.

        Vectors of unit client travel in steps of a lattice that divides clip_norm; all others as they are.
        """
        if self.form != "mean":
            return 1.0
        return self.settings.clip_norm / array_layout(vector_dimension(self.source.schema, self.form)).steps


@attrs.frozen
class Spent:
    """What one client's ledger was charged on one layer."""

    client_id: str
    layer: str
    epsilon: float


@attrs.frozen
class Reason:
    """Somebody was dropped or refused, and why."""

    who: str
    reason: str


@attrs.frozen
class Waited:
    """A wait that is over: who waited for whom, from when until when.

    Attributes:
        round_id: the round in which it began.
        who: the member that waited.
        what: for what, as `Waiting` says it.
        since: instant at which it began.
        until: instant at which it was over.
        missing: whom it waited for last; in vain when `by_clock`.
        by_clock: it ended because its time was up.
    """

    round_id: int
    who: str
    what: str
    since: float
    until: float
    missing: tuple[str, ...] = ()
    by_clock: bool = False


@attrs.frozen
class Spending:
    """What one client's ledger held in all when a round had ended."""

    round_id: int
    client_id: str
    epsilon: float


@attrs.frozen
class Closing:
    """How a round ended for one basket.

    Attributes:
        domain: whose.
        round_id: which.
        members: the clients in its aggregate; none when it was absent.
        missing: (client, why) of those that are not in it.
        absent: why it made no aggregate; empty when it made one.
    """

    domain: str
    round_id: int
    members: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    absent: str = ""


@attrs.frozen
class RoundEnd:
    """How a round ended: `have` of `need` were there (baskets), or a model was made."""

    round_id: int
    released: bool
    reason: str = ""
    have: int = 0
    need: int = 0


@attrs.frozen
class GossipSeen:
    """What gossip alone had brought when the last round was over (mode local).

    Attributes:
        clients: those that have not fallen silent.
        with_view: of these, how many hold enough releases of their basket for its rule.
        agreement: median cosine between such a view and the basket's aggregate; None where there is nothing to compare.
        rule: the baskets' rule, and the views'.
    """

    clients: int
    with_view: int
    agreement: float | None
    rule: str


@attrs.frozen
class Outcome:
    """What came of a plan.

    Attributes:
        models: one a round that released something, by round.
        basket_aggregates: domain -> its aggregates, one a round in which it closed.
        spent: charges.
        dropped: who was silent or absent.
        refused: who was turned away, or declined.
        ends: how each round ended.
        absences: domain -> (members that were there, members needed) in the last round, of baskets that were Absent.
        budget_spent: somebody declined because its budget did not reach.
        closings: how each round ended for each basket.
        waits: who waited for whom, in the order in which it was over.
        spendings: what ledgers held after each round.
        interrupted: the run was ended by hand.
        gossip: what gossip had brought; None in modes in which it carries no releases, or when interrupted.
    """

    models: tuple[Model, ...] = ()
    basket_aggregates: Mapping[str, tuple[Aggregate, ...]] = attrs.field(factory=dict)
    spent: tuple[Spent, ...] = ()
    dropped: tuple[Reason, ...] = ()
    refused: tuple[Reason, ...] = ()
    ends: tuple[RoundEnd, ...] = ()
    absences: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)
    budget_spent: bool = False
    closings: tuple[Closing, ...] = ()
    waits: tuple[Waited, ...] = ()
    spendings: tuple[Spending, ...] = ()
    interrupted: bool = False
    gossip: GossipSeen | None = None


Said = Event | Waiting | Waited | Spending
Observer = Callable[[Said, float], None]
Execute = Callable[[SwarmPlan, Observer], Outcome]


@attrs.define(eq=False)
class Record:
    """An observer that keeps what happened; `outcome` says it at any time."""

    _models: dict[int, Model] = attrs.field(factory=dict, init=False)
    _aggregates: dict[str, dict[int, Aggregate]] = attrs.field(factory=dict, init=False)
    _contributed: set[tuple[str, int]] = attrs.field(factory=set, init=False)
    _dropped: dict[Reason, None] = attrs.field(factory=dict, init=False)
    _refused: dict[Reason, None] = attrs.field(factory=dict, init=False)
    _ends: dict[int, RoundEnd] = attrs.field(factory=dict, init=False)
    _absences: dict[str, tuple[int, int, int]] = attrs.field(factory=dict, init=False)
    _budget_spent: bool = attrs.field(default=False, init=False)
    _closings: list[Closing] = attrs.field(factory=list, init=False)
    _waits: list[Waited] = attrs.field(factory=list, init=False)
    _open: dict[tuple[str, str, float], Waited] = attrs.field(factory=dict, init=False)
    _spendings: list[Spending] = attrs.field(factory=list, init=False)

    @property
    def num_contributions(self) -> int:
        """Contributions that have left their clients."""
        return len(self._contributed)

    def __call__(self, said: Said, now: float) -> None:
        """Keep what was said."""
        match said:
            case Waiting():
                self._open[said.who, said.what, said.since] = Waited(
                    0, said.who, said.what, said.since, now, said.missing
                )
            case Waited():
                self._open.pop((said.who, said.what, said.since), None)
                self._waits.append(said)
            case Spending():
                self._spendings.append(said)
            case ContributionMade():
                self._contributed.add((said.client_id, said.round_id))
            case RoundDeclined():
                self._refused[Reason(said.client_id, f"declined round {said.round_id}: {said.reason}")] = None
                self._budget_spent |= _BUDGET_WORDS in said.reason
            case BasketClosed():
                self._closings.append(Closing(_domain(said.basket_id), said.round_id, said.members, said.missing))
                if said.aggregate is not None:
                    self._aggregates.setdefault(_domain(said.basket_id), {})[said.round_id] = said.aggregate
                for who, why in said.missing:
                    self._dropped[Reason(who, f"round {said.round_id}: {why or 'silent'}")] = None
            case BasketAbsent():
                domain = _domain(said.basket_id)
                self._closings.append(Closing(domain, said.round_id, (), said.missing, said.reason))
                self._absences[domain] = (said.round_id, said.have, said.need)
                words = f"round {said.round_id}: {said.reason} ({said.have} of {said.need} needed)"
                self._dropped[Reason(f"basket {domain}", words)] = None
            case ModelMade():
                self._models[said.model.round_id] = said.model
                self._ends[said.model.round_id] = RoundEnd(said.model.round_id, released=True)
            case RoundAborted():
                end = RoundEnd(said.round_id, released=False, reason=said.reason, have=said.have, need=said.need)
                self._ends[said.round_id] = end
            case _:
                pass

    def outcome(self, spent: tuple[Spent, ...] = (), refused: tuple[Reason, ...] = ()) -> Outcome:
        """Return what has come of the plan, with what no event tells: charges, and peers' refusals."""
        last = max(self._ends, default=0)
        return Outcome(
            models=tuple(self._models[r] for r in sorted(self._models)),
            basket_aggregates={
                domain: tuple(rounds[r] for r in sorted(rounds)) for domain, rounds in sorted(self._aggregates.items())
            },
            spent=spent,
            dropped=tuple(self._dropped),
            refused=(*self._refused, *refused),
            ends=tuple(self._ends[r] for r in sorted(self._ends)),
            absences={d: (have, need) for d, (r, have, need) in sorted(self._absences.items()) if r >= last},
            budget_spent=self._budget_spent,
            closings=tuple(sorted(self._closings, key=lambda closing: (closing.round_id, closing.domain))),
            # An interrupted swarm was still waiting, in the round after the last that ended.
            waits=(*self._waits, *(attrs.evolve(wait, round_id=last + 1) for wait in self._open.values())),
            spendings=tuple(self._spendings),
        )


def _domain(basket_id: str) -> str:
    return basket_id.removeprefix("basket/")
