"""`HierarchicalFederation`: the whole federation in one thread, and the main entry point.

It drives the same cores as actors do, by `pump`, under a logical clock that only `run_gossip_round` moves. Deadlines
are infinite: nothing expires by itself, `maybe_aggregate` closes what has its quorum. Members, keys and the operator
live in memory, so it is for one process: tests, notebooks, simulations, a first look.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.errors import (
    AlreadySubmittedError,
    ConfigError,
    DuplicateClientError,
    InvalidUpdate,
    LocalError,
    SchemaMismatchError,
    UnknownClientError,
)
from scarcity.federation.assembly import Assembly, Seats, refuse_layout, round_settings, seat
from scarcity.federation.basket import BasketCore, BasketState
from scarcity.federation.client import ClientCore, Receipt
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.coordinator import CoordinatorCore, CoordinatorState
from scarcity.federation.effects import EntropyLabel, EntropySource, Event, Reject, Waiting
from scarcity.federation.packets import Model, Release, RoundSettings, TrustMode, Update
from scarcity.federation.privacy_guard import (
    Layout,
    PrivacyParams,
    check_update,
    default_layout,
    unprotected_layout,
)
from scarcity.federation.pump import Pump
from scarcity.federation.roster import COORDINATOR, Role, require_name


def system_entropy(label: EntropyLabel) -> Callable[[int], bytes]:  # noqa: ARG001  the system needs no labels
    """Return the operating system's source of secret bytes, whatever the label."""
    return os.urandom


class ModelReceiver(Protocol):
    """What `register_client` takes as an agent."""

    def receive_model(self, model: Model) -> None:
        """Take a verified model."""


@attrs.frozen(init=False)
class HierarchicalFederationConfig:
    """Settings of a federation in one process.

    Args:
        total_epsilon: budget of each client for life, over all layers.
        delta: the budget's delta.
        planned_rounds: rounds that the budget has to last for (unit client): sigma follows from it when the config is
            made. More rounds, more noise in each: sigma grows with the root of it.
        auto_aggregate: go on by itself once all expected contributions have come; else the round's model is fetched
            by `maybe_aggregate` before the next round opens.
        federation: the federation's id.
        entropy: source of keys, noise and schedules; the system's unless given.
        round_settings: any field of `RoundSettings` (`layer1` for its mode; text for mode and unit).

    Raises:
        ConfigError: an unknown key, a value out of range, or settings that cannot hold together.
    """

    total_epsilon: float
    delta: float
    planned_rounds: int
    auto_aggregate: bool
    federation: str
    entropy: EntropySource = attrs.field(repr=False, eq=False)
    rounds: RoundSettings

    def __init__(
        self,
        *,
        total_epsilon: float = 10.0,
        delta: float = 1e-5,
        planned_rounds: int = 10,
        auto_aggregate: bool = False,
        federation: str = "federation",
        entropy: EntropySource = system_entropy,
        **round_settings_given: Any,
    ) -> None:
        try:
            PrivacyParams(epsilon=total_epsilon, delta=delta)  # refuses what is out of range, by name
        except (TypeError, ValueError) as error:
            raise ConfigError(f"total_epsilon {total_epsilon!r}, delta {delta!r}: {error}") from None
        if not total_epsilon > 0:
            raise ConfigError(f"total_epsilon must be positive: a budget of {total_epsilon!r} releases nothing")
        if type(planned_rounds) is not int or planned_rounds < 1:
            raise ConfigError(f"planned_rounds must be an int of at least 1, got {planned_rounds!r}")
        if type(auto_aggregate) is not bool:
            raise ConfigError(f"auto_aggregate must be True or False, got {auto_aggregate!r}")
        require_name("federation", federation)
        rounds = round_settings(round_settings_given)
        self.__attrs_init__(total_epsilon, delta, planned_rounds, auto_aggregate, federation, entropy, rounds)


@attrs.frozen
class GossipReport:
    """What one gossip period did.

    Attributes:
        at: logical instant at its end, seconds.
        pushes: messages pushed.
        pulls: digests sent.
        views: clients that hold enough releases of the open round for a local view.
    """

    at: float
    pushes: int
    pulls: int
    views: int


class HierarchicalFederation:
    """A federation in one thread.

    Args:
        config: settings; the defaults are those of `HierarchicalFederationConfig()`.
        observe: called with (member id, event or refusal) as they happen.
        wire: encode and decode every packet on its way, as between machines; the models are the same.
    """

    def __init__(
        self,
        config: HierarchicalFederationConfig | None = None,
        *,
        observe: Callable[[str, Event | Reject], None] | None = None,
        wire: bool = False,
    ) -> None:
        self.config = config or HierarchicalFederationConfig()
        self._assembly = Assembly(
            settings=self.config.rounds,
            budget=PrivacyParams(epsilon=self.config.total_epsilon, delta=self.config.delta),
            planned_rounds=self.config.planned_rounds,
            entropy=self.config.entropy,
            federation=self.config.federation,
            packets_per_s=math.inf,
        )
        self._pump = Pump(observe, wire=wire)
        self._domains: dict[str, str] = {}
        self._agents: dict[str, ModelReceiver] = {}
        self._seats: Seats | None = None
        self._clients: dict[str, ClientCore] = {}
        self._baskets: dict[str, BasketCore] = {}
        self._coordinator: CoordinatorCore | None = None
        self._layout: Layout | None = None
        self._num_returned = 0

    def register_client(self, client_id: str, domain_id: str, agent: ModelReceiver | None = None) -> None:
        """Add a client to its domain's basket; while a round is open, it joins the next one.

        Args:
            client_id: a name of 1 to 128 printable bytes without a slash.
            domain_id: the domain; its basket is made with its first client.
            agent: models are delivered to its `receive_model`; a `FederationClientAgent` also gives updates.

        Raises:
            DuplicateClientError: the id is registered.
            ConfigError: an id that cannot be one.
        """
        require_name("client_id", client_id)
        require_name("domain_id", domain_id)
        if client_id in self._domains:
            raise DuplicateClientError(f"client {client_id!r} is registered already, in {self._domains[client_id]!r}")
        seat(self._assembly, [(client_id, domain_id)])  # refuses what cannot be an id, before anything is kept
        self._domains[client_id] = domain_id
        if agent is not None:
            self._agents[client_id] = agent

    def submit_update(self, client_id: str, update: npt.ArrayLike | Update | Release) -> Receipt:
        """Contribute to the open round; opens one where none is.

        Args:
            client_id: a registered client.
            update: an array of shape (d,), what `FederationClientAgent.get_shareable_update` gave, or (mode local) a
                Release that its owner has noised and charged to a ledger of their own.

        Returns:
            What it became.

        Raises:
            LocalError: an unknown client, a vector that is not finite or of another shape or schema than the first
                one, a second update for the round, or a basket too small to release anything. State is unchanged and
                nothing is charged.
            PrivacyBudgetExceeded: the client's budget cannot pay for the round; nothing is charged.
        """
        if client_id not in self._domains:
            raise UnknownClientError(f"client {client_id!r} is not registered")
        if isinstance(update, Release):
            return self._submit_release(client_id, update)
        made = _as_update(client_id, update)
        self._refuse(client_id, made)
        coordinator = self._open_round(made)
        core = self._clients.get(client_id)
        if core is None:
            raise LocalError(
                f"client {client_id!r} joined in round {coordinator.round_id}; it takes part from the next"
            )
        receipt, effects = core.submit(made)
        self._pump.carry(client_id, effects)
        self._pump.run()
        return receipt

    def _submit_release(self, client_id: str, body: Release) -> Receipt:
        if self.config.rounds.mode is not TrustMode.LOCAL:
            raise LocalError(f"mode {self.config.rounds.mode.value} takes no release; only mode local does")
        # The round that it opens, where none is open, is one of vectors like this one.
        stand_in = Update(client_id, None, body.schema_hash, np.zeros(np.shape(body.vector)), 1)
        self._refuse(client_id, stand_in)
        self._open_round(stand_in)
        core = self._clients.get(client_id)
        if core is None:
            raise LocalError(f"client {client_id!r} joined in mid-round; it takes part from the next")
        receipt, effects = core.submit_release(body)
        self._pump.carry(client_id, effects)
        self._pump.run()
        return receipt

    def run_gossip_round(self) -> GossipReport:
        """Let one gossip period pass: every client pushes and pulls once."""
        before = dict(self._pump.counts)
        self._pump.advance(self.config.rounds.gossip_s)
        pushes, pulls = (self._pump.counts[k] - before.get(k, 0) for k in ("gossip-push", "gossip-pull"))
        views = sum(core.has_local_view for core in self._clients.values())
        return GossipReport(self._pump.now, pushes, pulls, views)

    def maybe_aggregate(self) -> Model | None:
        """Close what has its quorum, and return the newest model that was not yet returned.

        Baskets without quorum are absent from the round; None when no basket has its quorum, and then nothing is closed
        (`waiting` says why).
        """
        coordinator = self._coordinator
        if coordinator is None:
            return None
        self._pump.run()
        ready = sum(basket.is_present or basket.has_quorum for basket in self._baskets.values())
        if coordinator.state is not CoordinatorState.IDLE and ready >= self.config.rounds.min_baskets:
            self._close(coordinator)
        if coordinator.model is None or coordinator.model.round_id <= self._num_returned:
            return None
        self._num_returned = coordinator.model.round_id
        return coordinator.model

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what is waited for, from whom, and how much is there."""
        return self._pump.waiting()

    def local_view(self, client_id: str) -> npt.NDArray[np.float64] | None:
        """Return a client's view of its basket's open round, by gossip alone; None while it knows too little."""
        core = self._clients.get(client_id)
        return None if core is None else core.local_view()

    def privacy_spent(self, client_id: str) -> PrivacyParams:
        """Return what a client has spent of its budget so far."""
        if client_id not in self._domains:
            raise UnknownClientError(f"client {client_id!r} is not registered")
        core = self._clients.get(client_id)
        return PrivacyParams(epsilon=0.0 if core is None else core.epsilon_spent, delta=self.config.delta)

    # Rounds.

    def _refuse(self, client_id: str, update: Update) -> None:
        """Refuse what cannot count before a round is opened for it."""
        layout = self._layout or self._layout_for(update)
        refuse_layout(self.config.rounds, layout)
        own = self._own_layout(client_id)
        if own is not None and own != layout:
            raise SchemaMismatchError(f"client {client_id!r}: its agent shares vectors of another schema or form")
        check_update(update, self.config.rounds, layout)
        domain, need = self._domains[client_id], self.config.rounds.min_clients
        members = sum(other == domain for other in self._domains.values())
        if members < need:
            raise LocalError(
                f"client {client_id!r}: basket {domain!r} has {members} of min_clients={need} members; "
                "nothing is released below it"
            )
        coordinator = self._coordinator
        last = 0 if coordinator is None else coordinator.round_id
        is_open = coordinator is not None and coordinator.state is not CoordinatorState.IDLE
        if update.round_id not in (None, last if is_open else last + 1):
            raise LocalError(f"update of {client_id!r} is for round {update.round_id}, which is not the open one")
        model = coordinator.model if coordinator else None
        if not self.config.auto_aggregate and model is not None and model.round_id > self._num_returned:
            raise AlreadySubmittedError(
                f"round {model.round_id} has come to its end; maybe_aggregate() returns its model"
            )

    def _layout_for(self, update: Update) -> Layout:
        """Return the layout that a first update fixes: its agent's, or that of a plain array."""
        own = self._own_layout(update.client_id)
        if update.schema_hash and own is not None:
            return own
        return default_layout(self.config.rounds, update.vector.size, update.schema_hash)

    def _own_layout(self, client_id: str) -> Layout | None:
        """Return the layout of a client's agent, None where it has none."""
        learner = _learner_of(self._agents.get(client_id))
        layout = None if learner is None else learner.layout
        return unprotected_layout(layout) if layout and self.config.rounds.mode is TrustMode.NONE else layout

    def _open_round(self, update: Update) -> CoordinatorCore:
        """Open a round where none is open; the first update ever fixes what rounds are about."""
        coordinator = self._coordinator
        if coordinator is not None and coordinator.state is not CoordinatorState.IDLE:
            return coordinator
        layout = self._layout or self._layout_for(update)
        seats = self._next_seats()
        terms = self._assembly.terms(layout, seats.roster)
        if (core := self._clients.get(update.client_id)) is not None:
            core.require_budget(terms.noise, terms.layer2_noise, update.rows)
        # Nothing is kept before this line, and nothing is refused after it.
        self._layout = layout
        coordinator = self._seat_all(seats)
        coordinator.set_terms(terms)
        self._pump.carry(COORDINATOR, coordinator.open_round(self._pump.now))
        self._pump.run()
        return coordinator

    def _next_seats(self) -> Seats:
        """Return the seats of the next round; a changed roster is a new epoch."""
        if self._seats is not None and set(self._clients) == set(self._domains):
            return self._seats
        return seat(self._assembly, self._domains.items(), before=self._seats)

    def _seat_all(self, seats: Seats) -> CoordinatorCore:
        """Make cores for members that have none yet."""
        if self._coordinator is not None and seats is self._seats:
            return self._coordinator
        self._seats = seats
        if self._coordinator is None:
            self._coordinator = self._assembly.coordinator(seats.identity(COORDINATOR))
            self._pump.add(COORDINATOR, self._coordinator)
        else:
            self._coordinator.adopt(seats.roster, seats.signature)
        for member in seats.roster.members:
            if member.role is Role.BASKET and member.id not in self._baskets:
                basket = self._assembly.basket(seats.identity(member.id), seats.operator_public_key)
                self._baskets[member.id] = basket
                self._pump.add(member.id, basket)
        for client_id in sorted(set(self._domains) - set(self._clients)):
            learner = _learner_of(self._agents.get(client_id))
            core = self._assembly.client(seats.identity(client_id), seats.operator_public_key, learner=learner)
            self._clients[client_id] = core
            self._pump.add(client_id, core)
        return self._coordinator

    def _close(self, coordinator: CoordinatorCore) -> None:
        """Close stage after stage: all that can still come is there once the pump has come to rest."""
        while coordinator.state is not CoordinatorState.IDLE:
            busy = [name for name, basket in self._baskets.items() if basket.state in _BUSY]
            for name in busy:
                self._pump.carry(name, self._baskets[name].close_stage(self._pump.now))
            if not busy:
                self._pump.carry(COORDINATOR, coordinator.close_stage(self._pump.now))
            self._pump.run()


_BUSY = (BasketState.COLLECTING, BasketState.SUMMING)


def _as_update(client_id: str, update: npt.ArrayLike | Update) -> Update:
    if isinstance(update, Update):
        if update.client_id != client_id:
            raise InvalidUpdate(f"an update of {update.client_id!r} was submitted for {client_id!r}")
        return update
    try:
        given = np.asarray(update)
    except (TypeError, ValueError) as error:
        raise InvalidUpdate(f"update of {client_id}: expected an array of numbers, {error}") from None
    if given.dtype.kind not in "fiub":  # text that looks like a number is text, and a complex one has no order
        raise InvalidUpdate(f"update of {client_id}: expected an array of numbers, got {given.dtype}")
    vector = np.array(given, dtype=np.float64)  # a copy: the caller may go on using theirs
    return Update(client_id, None, b"", vector)


class _Receiver:
    """An agent that takes models but gives no updates by itself: they come by `submit_update`."""

    def __init__(self, agent: ModelReceiver) -> None:
        self._agent = agent

    @property
    def layout(self) -> Layout | None:
        """The agent's layout, where it has one."""
        return getattr(self._agent, "layout", None)

    def update_for(self, round_id: int) -> Update | None:  # noqa: ARG002  see the class
        """Give nothing: the owner submits."""
        return None

    def accepted(self, update: Update) -> None:
        """Pass on to an engine's agent that its rows are spent."""
        if isinstance(self._agent, FederationClientAgent):
            self._agent.accepted(update)

    def receive_model(self, model: Model) -> None:
        """Pass the model on."""
        self._agent.receive_model(model)


def _learner_of(agent: ModelReceiver | None) -> _Receiver | None:
    return None if agent is None else _Receiver(agent)
