"""A world that is ready to run: from plain values to cores, as often as their members start.

`WorldConfig` is data. `Built` holds what outlives a crash: keys, roster, disks, the stage that decides faults; a core
comes from a member's disk and nothing else. Each life of a member has secrets and noise of its own, as a process that
was started again has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np

from scarcity.errors import ConfigError, LocalError
from scarcity.federation.assembly import Assembly, Seats, round_settings, seat
from scarcity.federation.client import Learner
from scarcity.federation.codec import sign_packet
from scarcity.federation.coordinator import RoundTerms
from scarcity.federation.effects import Core
from scarcity.federation.packets import Body, Header, Model, Packet, RoundSettings, TrustMode, Unit, Update, digest_of
from scarcity.federation.privacy_guard import Layout, PrivacyParams, default_layout, unprotected_layout
from scarcity.federation.recovery import rows_spent_until
from scarcity.federation.roster import COORDINATOR, Role
from sim.chance import Chance, ReproducibleEntropy, reproducible_entropy
from sim.faults.plan import FaultPlan
from sim.faults.stage import FaultStage
from sim.worlds.disk import Disk
from sim.worlds.reading import SharedReader

FEDERATION = "sim"
EXECUTORS = ("heap", "loop")
# What a swarm in virtual time waits for, unless its settings say otherwise: everything within a few seconds.
DURATIONS: Mapping[str, float] = {"gossip_s": 1.0, "ready_s": 1.0, "close_s": 1.0, "deadline_s": 3.0, "stage_s": 1.0}
_ROWS = 4  # that a client reads between two rounds
_STEPS = 64  # K of the synthetic rows: a value of one row is at most K^2 = 4096
MAX_CLIENTS = 10_000  # a few kB each, and a roster that every one of them checks
_FOR_EVER = 1 << 40  # rounds: the run ends before
# Rounds whose records a disk keeps: the newest that a restart can ask for are
# those of max_staleness rounds.
_KEEP_ROUNDS = 16


def _positive(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be positive, got {value!r}")


def _at_most(most: int) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value > most:
            raise ConfigError(f"{field.name} must be at most {most}, got {value!r}")

    return check


def _at_least_two(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not value >= 2:
        raise ConfigError(f"{field.name} must be at least 2, got {value!r}")


def _not_negative(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{field.name} must be a finite number of at least 0, got {value!r}")


@attrs.frozen(kw_only=True)
class WorldConfig:
    """A world as data; `to_dict` is JSON.

    Attributes:
        seed: decides keys, rows, noise and faults.
        clients: how many.
        baskets: how many; client i is in basket i modulo baskets.
        mode: trust mode.
        unit: privacy unit.
        dimension: numbers in a vector; the first of unit record's is the public count of rows.
        settings: any other of `RoundSettings`, by name.
        epsilon: budget of each client.
        delta: budget of each client.
        round_every_s: pause between the end of a round and the next.
        rounds: how many; 0: as many as there is time for.
        until_s: virtual seconds.
        heal_s: the last seconds without faults: everybody comes up again, nobody lies, and after `healing_s` a new
            model is demanded.
        executor: who runs it.
    """

    seed: int = 0
    clients: int = attrs.field(default=6, validator=[_positive, _at_most(MAX_CLIENTS)])
    baskets: int = attrs.field(default=1, validator=_positive)
    mode: str = "none"
    unit: str = "record"
    dimension: int = attrs.field(default=4, validator=_at_least_two)
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    epsilon: float = attrs.field(default=10.0, validator=_positive)
    delta: float = attrs.field(default=1e-5, validator=_positive)
    round_every_s: float = attrs.field(default=1.0, validator=_positive)
    rounds: int = attrs.field(default=0, validator=_not_negative)
    until_s: float = attrs.field(default=60.0, validator=_not_negative)
    heal_s: float = attrs.field(default=0.0, validator=_not_negative)
    executor: str = attrs.field(default="heap")

    @baskets.validator
    def _check_baskets(self, _field: attrs.Attribute[int], value: int) -> None:
        if value > self.clients:
            raise ConfigError(f"baskets must be at most clients ({self.clients}), got {value}")

    @heal_s.validator
    def _check_heal(self, _field: attrs.Attribute[float], value: float) -> None:
        if value > self.until_s:
            raise ConfigError(f"heal_s must be at most until_s ({self.until_s}), got {value!r}")

    @executor.validator
    def _check_executor(self, _field: attrs.Attribute[str], value: str) -> None:
        if value not in EXECUTORS:
            raise ConfigError(f"executor must be one of {', '.join(EXECUTORS)}, got {value!r}")

    def __attrs_post_init__(self) -> None:
        self.round_settings()  # refuses what cannot hold when it is said, not when it is run

    def round_settings(self) -> RoundSettings:
        """Return the rules of every round."""
        return round_settings({**DURATIONS, **self.settings, "mode": self.mode, "unit": self.unit})

    @property
    def heal_at(self) -> float:
        """When faults end."""
        return self.until_s - self.heal_s

    @property
    def healing_s(self) -> float:
        """How long the last fault can be felt: a round that it spoilt ends, the next is open and has its model.

        The coordinator's patience for the spoilt round, two attempts at Layer 2 of five stages each, the pause, and
        the patience that the next round may take.
        """
        rules = self.round_settings()
        return 2 * rules.patience_s + 10 * rules.stage_s + self.round_every_s

    @property
    def heals(self) -> bool:
        """Whether something can go wrong first, and nothing any more later."""
        return 0 < self.heal_at < self.until_s

    def require_seats(self) -> None:
        """Raise ConfigError if there are too few clients or baskets for any model."""
        rules, sizes = self.round_settings(), Counter(self.seats.values())
        able = sum(size >= rules.min_clients for size in sizes.values())
        if able < rules.min_baskets:
            raise ConfigError(
                f"baskets is {self.baskets} for {self.clients} clients; allowed in mode {self.mode}: at least "
                f"{rules.min_baskets} baskets of at least {rules.min_clients} clients, of fewer no model is made"
            )

    @property
    def demands_model(self) -> bool:
        """Whether the last seconds without faults are enough for a new model."""
        return self.heal_s >= self.calm_s

    @property
    def calm_s(self) -> float:
        """How many seconds without faults may be needed for a new model: fewer where there never was one."""
        rules = self.round_settings()
        return self.healing_s if self.heal_at > 0 else self.round_every_s + rules.patience_s + 5 * rules.stage_s

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the baskets: basket-0, basket-1, ..."""
        return tuple(f"basket-{number}" for number in range(self.baskets))

    @property
    def seats(self) -> dict[str, str]:
        """Client -> its domain."""
        return {f"c{number:04d}": f"basket-{number % self.baskets}" for number in range(self.clients)}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {**attrs.asdict(self, recurse=False), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WorldConfig:
        """Return what `to_dict` wrote.

        Raises:
            ConfigError: an unknown field (the known ones are listed) or a value out of range.
        """
        known = [field.name for field in attrs.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(f"unknown field {unknown[0]!r} of a world; known are {', '.join(known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"world {dict(values)}: {error}") from None


MakeLearner = Callable[[str, int], Learner]


class _Noted:
    """A learner that keeps what it gave, so that a checker can tell a right sum from a wrong one."""

    def __init__(self, client_id: str, learner: Learner, given: dict[tuple[str, int], Update]) -> None:
        self._client_id = client_id
        self._learner = learner
        self._given = given
        self.accepted = learner.accepted
        self.receive_model = learner.receive_model

    @property
    def layout(self) -> Layout | None:
        return self._learner.layout

    def update_for(self, round_id: int) -> Update | None:
        update = self._learner.update_for(round_id)
        if update is not None:
            self._given[self._client_id, round_id] = update
            self._given.pop((self._client_id, round_id - _KEEP_ROUNDS), None)
        return update


class RowReader:
    """A client's learner whose data are `_ROWS` rows for each round, integers that a name decides.

    It is a function of (seed, client): after a crash it reads the same rows again and goes on behind those it gave.
    """

    def __init__(self, client_id: str, chance: Chance, layout: Layout, spent_until: int) -> None:
        self._client_id = client_id
        self._chance = chance
        self._spent = spent_until // _ROWS
        self.layout: Layout | None = layout

    def update_for(self, round_id: int) -> Update | None:
        """Return the sum over the rows that came since the last update that was accepted.

        Raises:
            LocalError: there are none.
        """
        if round_id <= self._spent:
            raise LocalError("no new rows")
        assert self.layout is not None, "rows have a layout"
        d, num_blocks = self.layout.dimension, round_id - self._spent
        total = np.zeros(d, dtype=np.int64)
        for block in range(self._spent, round_id):
            total += np.frombuffer(self._chance.bytes(2 * d, "rows", self._client_id, block), dtype="<i2") // 2
        total[0] = _ROWS * num_blocks
        rows = (self._spent * _ROWS, round_id * _ROWS)
        return Update(self._client_id, None, self.layout.schema_hash, total, _ROWS * num_blocks, rows)

    def accepted(self, update: Update) -> None:
        """Go on behind these rows."""
        if update.rows is not None:
            self._spent = update.rows[1] // _ROWS

    def receive_model(self, model: Model) -> None:
        """Learn nothing: models are for the checkers."""


class VectorGiver:
    """A client's learner of unit client: in each round a vector that (seed, client, round) decides."""

    layout: Layout | None = None

    def __init__(self, client_id: str, chance: Chance, dimension: int) -> None:
        self._client_id = client_id
        self._chance = chance
        self._dimension = dimension

    def update_for(self, round_id: int) -> Update | None:
        """Return the round's vector, coordinates in [-1, 1)."""
        raw = self._chance.bytes(4 * self._dimension, "vector", self._client_id, round_id)
        return Update(self._client_id, None, b"", np.frombuffer(raw, dtype="<i4") / 2.0**31)

    def accepted(self, update: Update) -> None:
        """Keep nothing."""

    def receive_model(self, model: Model) -> None:
        """Learn nothing: models are for the checkers."""


def _record_layout(dimension: int) -> Layout:
    """Return the layout of the synthetic rows: a public count, and values that are at most K^2 in a row."""
    scales = np.ones(dimension)
    scales[0] = 0.0
    return Layout(digest_of(b"sim.rows"), dimension, _STEPS, float(_STEPS**2) * math.sqrt(dimension), scales)


@attrs.define(eq=False)
class Built:
    """What a world's executor runs.

    Attributes:
        config: the world.
        stage: decides faults.
        calm: decides after the heal: nothing is left of the plan but skewed clocks.
        settings: the rules of every round.
        assembly: config + roster -> cores.
        layout: of the vectors.
        members: ids in the order in which they start: who listens comes before who speaks, the coordinator last.
        clients: client -> domain.
        disks: of each member.
        lives: how often each member has started.
        given: (client, round) -> the update that its learner gave, of the newest rounds.
        reader: of all members.
    """

    config: WorldConfig
    stage: FaultStage
    calm: FaultStage
    settings: RoundSettings
    assembly: Assembly
    seats: Seats
    disks: dict[str, Disk]
    make_learner: MakeLearner
    members: tuple[str, ...]
    clients: Mapping[str, str]
    layout: Layout
    _terms: RoundTerms
    lives: dict[str, int] = attrs.field(factory=dict)
    given: dict[tuple[str, int], Update] = attrs.field(factory=dict)
    reader: SharedReader = attrs.field(
        default=attrs.Factory(lambda self: SharedReader(len(self.members), self.config.baskets), takes_self=True)
    )

    def core(self, member_id: str) -> Core:
        """Start a member's next life: a core from its disk."""
        life = self.lives[member_id] = self.lives.get(member_id, 0) + 1
        disk = self.disks[member_id].journal()
        assembly = attrs.evolve(self.assembly, entropy=_entropy(self.config.seed, life))
        identity, operator = self.seats.identity(member_id), self.seats.operator_public_key
        identity.reader = self.reader
        role = identity.member.role
        if role is Role.COORDINATOR:
            pause, rounds = self.config.round_every_s, self.config.rounds or _FOR_EVER
            return assembly.coordinator(
                identity, terms=self._terms, rounds=rounds, interval_s=pause, gather_s=pause, journal=disk
            )
        if role is Role.BASKET:
            return assembly.basket(identity, operator, journal=disk)
        learner = self.stage.learner(member_id, self.make_learner(member_id, rows_spent_until(disk)))
        noted = _Noted(member_id, learner, self.given)
        return assembly.client(identity, operator, learner=noted, journal=disk)


def _entropy(seed: int, life: int) -> ReproducibleEntropy:
    """Return the entropy of a member's life: nobody draws the noise of the life before once more."""
    drawn = Chance(seed).bytes(8, "life", life)
    return reproducible_entropy(int.from_bytes(drawn, "little"))


def build(
    config: WorldConfig,
    plan: FaultPlan | None = None,
    *,
    learners: MakeLearner | None = None,
    disks: dict[str, Disk] | None = None,
) -> Built:
    """Return a world that is ready to run.

    Args:
        config: the world.
        plan: what goes wrong; None: nothing.
        learners: (client, end of the rows that it has given) -> its learner; None: synthetic rows or vectors.
        disks: what members have written before; None: nothing.

    Raises:
        ConfigError: a group of the plan has no members.
    """
    settings, clients = config.round_settings(), config.seats
    # A budget that lasts: rounds of unit client are planned for the whole run.
    planned = config.rounds or math.ceil(config.until_s / config.round_every_s) + 1
    # A restarted member comes with a burst, and a slow one sends late: the rate's bound is the validator's business.
    assembly = Assembly(
        settings=settings,
        budget=PrivacyParams(epsilon=config.epsilon, delta=config.delta),
        planned_rounds=planned,
        entropy=_entropy(config.seed, 0),
        federation=FEDERATION,
    )
    seats = seat(assembly, clients.items())
    layout = _layout(config, settings, learners)
    baskets = tuple(basket.id for basket in seats.roster.baskets)
    members = (*baskets, *sorted(clients), COORDINATOR)
    return Built(
        config=config,
        stage=_stage(config, FaultPlan() if plan is None else plan, seats),
        calm=_stage(config, FaultPlan(), seats),
        settings=settings,
        assembly=assembly,
        seats=seats,
        disks={member: Disk(_KEEP_ROUNDS, _writers(seats, member)) for member in members} if disks is None else disks,
        make_learner=learners or _synthetic(config, settings, layout),
        members=members,
        clients=clients,
        layout=layout,
        terms=assembly.terms(layout, seats.roster),
    )


def _stage(config: WorldConfig, plan: FaultPlan, seats: Seats) -> FaultStage:
    def sign(header: Header, body: Body) -> Packet:
        return sign_packet(header, body, seats.keys[header.sender])

    domains = {member.id: member.domain for member in seats.roster.members}
    return FaultStage(plan, domains, Chance(config.seed), config.heal_at, sign=sign)


def _writers(seats: Seats, member_id: str) -> int:
    member = seats.roster.member(member_id)
    return len(seats.roster.clients_of(member.domain)) if member.role is Role.BASKET else 1


def _layout(config: WorldConfig, settings: RoundSettings, learners: MakeLearner | None) -> Layout:
    """Return how vectors are laid out: as the first client's own learner says."""
    layout = learners(min(config.seats), 0).layout if learners is not None else None
    if layout is None and settings.unit is Unit.RECORD:
        layout = _record_layout(config.dimension)
    if layout is None:
        return default_layout(settings, config.dimension)
    return unprotected_layout(layout) if settings.mode is TrustMode.NONE else layout


def _synthetic(config: WorldConfig, settings: RoundSettings, layout: Layout) -> MakeLearner:
    chance = Chance(config.seed)
    if settings.unit is Unit.RECORD:
        return lambda client_id, spent_until: RowReader(client_id, chance, layout, spent_until)
    return lambda client_id, _spent_until: VectorGiver(client_id, chance, config.dimension)
