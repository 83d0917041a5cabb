"""A small federation for tests of the role cores: seats, cores, and a pump whose wire can be listened to and cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np

from scarcity.engine import OnlineDiscoveryEngine, Schema, Variable
from scarcity.federation.assembly import Assembly, Seats, round_settings, seat
from scarcity.federation.basket import BasketCore, BasketState
from scarcity.federation.client import ClientCore
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.coordinator import CoordinatorCore, CoordinatorState
from scarcity.federation.effects import Effect, Entry, Event, Reject
from scarcity.federation.packets import Body, Packet, SecureSum, Update
from scarcity.federation.privacy_guard import Layout, PrivacyParams, default_layout
from scarcity.federation.pump import Pump
from scarcity.federation.roster import COORDINATOR, Role
from scarcity.federation.secure_aggregation import decode
from scarcity.federation.validator import scope_between
from sim.chance import reproducible_entropy

FEDERATION = "fed"
DIMENSION = 4
DOMAINS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "b3": "b"}
_BUSY = (BasketState.COLLECTING, BasketState.SUMMING)
Lose = Callable[[str, str, Packet], bool]


def said(packet: Packet) -> type:
    """Return what a packet says: its body's class, or that of the secure sum's message inside."""
    body = packet.body
    return type(decode(body.payload)) if isinstance(body, SecureSum) else type(body)


class Net(Pump):
    """A pump that keeps the transcript; `lose` says which packets never arrive."""

    def __init__(self, *, wire: bool = False) -> None:
        super().__init__(wire=wire)
        self.transcript: list[tuple[str, str, Packet]] = []
        self.lose: Lose = lambda _sender, _to, _packet: False

    def _deliver(self, sender: str, to: str, packet: Packet) -> None:
        self.transcript.append((sender, to, packet))
        if not self.lose(sender, to, packet):
            super()._deliver(sender, to, packet)

    def sent_by(self, member: str, kind: type) -> list[Packet]:
        """Return what a member has sent of one kind of body."""
        return [packet for sender, _, packet in self.transcript if sender == member and isinstance(packet.body, kind)]

    def events_of(self, kind: type) -> list[Any]:
        """Return the events of one class."""
        return [event for event in self.events if isinstance(event, kind)]


class World:
    """Cores of a federation with everybody seated; rounds open with `open`."""

    def __init__(
        self,
        domains: Mapping[str, str] | None = None,
        *,
        dimension: int = DIMENSION,
        epsilon: float = 10.0,
        delta: float = 1e-5,
        planned_rounds: int = 10,
        seed: int = 1,
        entropy: Any = None,
        wire: bool = False,
        layout: Layout | None = None,
        learners: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.domains = dict(DOMAINS if domains is None else domains)
        self.assembly = Assembly(
            settings=round_settings(settings),
            budget=PrivacyParams(epsilon=epsilon, delta=delta),
            planned_rounds=planned_rounds,
            entropy=entropy or reproducible_entropy(seed),
            federation=FEDERATION,
        )
        self.layout = layout or default_layout(self.assembly.settings, dimension)
        self.seats: Seats = seat(self.assembly, self.domains.items())
        self.terms = self.assembly.terms(self.layout, self.seats.roster)
        self.net = Net(wire=wire)
        self.clients: dict[str, ClientCore] = {}
        self.baskets: dict[str, BasketCore] = {}
        operator = self.seats.operator_public_key
        self.coordinator: CoordinatorCore = self.assembly.coordinator(
            self.seats.identity(COORDINATOR), terms=self.terms
        )
        self.net.add(COORDINATOR, self.coordinator)
        for member in self.seats.roster.members:
            identity = self.seats.identity(member.id)
            if member.role is Role.BASKET:
                self.baskets[member.id] = self.assembly.basket(identity, operator)
                self.net.add(member.id, self.baskets[member.id])
        for name in self.domains:
            learner = (learners or {}).get(name)
            self.clients[name] = self.assembly.client(self.seats.identity(name), operator, learner=learner)
            self.net.add(name, self.clients[name])
        self.net.run()

    @property
    def cores(self) -> dict[str, Any]:
        """All cores by member id."""
        return {COORDINATOR: self.coordinator, **self.baskets, **self.clients}

    def open(self) -> None:
        """Open the next round and deliver its config."""
        self.net.carry(COORDINATOR, self.coordinator.open_round(self.net.now))
        self.net.run()

    def submit(self, name: str, vector: Any) -> list[Effect]:
        """Let a client contribute, and deliver what follows."""
        effects = self.contribute(name, vector)
        self.net.run()
        return effects

    def contribute(self, name: str, vector: Any) -> list[Effect]:
        """Let a client contribute; nothing is delivered yet."""
        update = vector if isinstance(vector, Update) else update_of(name, vector)
        _, effects = self.clients[name].submit(update)
        self.net.carry(name, effects)
        return effects

    def close(self) -> None:
        """Close baskets that still wait, then the coordinator, stage after stage."""
        while self.coordinator.state is not CoordinatorState.IDLE:
            busy = [name for name, basket in self.baskets.items() if basket.state in _BUSY]
            for name in busy:
                self.net.carry(name, self.baskets[name].close_stage(self.net.now))
            if not busy:
                self.net.carry(COORDINATOR, self.coordinator.close_stage(self.net.now))
            self.net.run()

    def say(self, author: str, body: Body, round_id: int, *, to: str, **header: Any) -> Packet:
        """Return a packet of `author` for `to`, in the scope that fits the two, signed."""
        identity = self.seats.identity(author)
        scope = header.get("scope") or scope_between(identity.member, self.seats.roster.member(to))
        return identity.say(scope, round_id, body)

    def tell(self, sender: str, to: str, packet: Packet) -> list[Effect]:
        """Deliver a packet by hand and carry out what it causes."""
        effects = cast("list[Effect]", self.cores[to].receive(packet, sender, self.net.now))
        self.net.carry(to, effects)
        self.net.run()
        return effects


def update_of(name: str, vector: Any) -> Update:
    """Return an update of unit client."""
    return Update(name, None, b"", np.asarray(vector, dtype=np.float64))


def payloads(entries: Iterable[Entry]) -> dict[str, list[bytes]]:
    """Return a journal's payloads by kind, as `Assembly.client` takes them."""
    found: dict[str, list[bytes]] = {}
    for entry in entries:
        found.setdefault(entry.kind, []).append(entry.payload)
    return found


def reasons(effects: Iterable[Effect | Event]) -> list[str]:
    """Return the reasons of the refusals among effects."""
    return [effect.reason for effect in effects if isinstance(effect, Reject)]


NAMES = ("x", "y", "z")


def schema(*, scales: bool = True) -> Schema:
    """Return a schema of three variables, two lags, a horizon of three rows."""
    return Schema([Variable(name, scale=1.0 if scales else None) for name in NAMES], lags=2, horizon=3)


def rows_of(seed: int, num_rows: int = 60) -> np.ndarray[Any, Any]:
    """Return random rows, shape (num_rows, 3)."""
    return np.random.default_rng(seed).standard_normal((num_rows, len(NAMES)))


def agent_of(name: str, seed: int, *, with_schema: bool, form: Any = None) -> FederationClientAgent:
    """Return an agent whose engine has seen rows; without a schema its names come from the rows."""
    engine = OnlineDiscoveryEngine(schema()) if with_schema else OnlineDiscoveryEngine()
    for row in rows_of(seed):
        engine.process_row(dict(zip(NAMES, row.tolist(), strict=True)))
    return FederationClientAgent(engine, client_id=name, form=form)
