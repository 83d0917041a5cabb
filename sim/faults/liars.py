"""Who lies: the byzantine faults of a plan, bound to members.

An update is forged in the learner that a liar's core is given, so the forged one is clipped, charged and noised as any
other; all else is a lie about packets (`sim.faults.lies`). Colluders are the liars of one fault: to know each other's
honest updates they ask each other's learners, which must answer the same however often they are asked about a round,
until what they answered is accepted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.errors import ConfigError, LocalError
from scarcity.federation.client import Learner
from scarcity.federation.packets import Body, FloatArray, Header, Model, Packet, Update
from scarcity.federation.privacy_guard import Layout
from sim.chance import Chance
from sim.faults.attacks import BEHAVIOURS, FORGES, Forge, Scene
from sim.faults.lies import LIES, SIGNED_LIES, Lie, Part, Sign
from sim.faults.plan import Byzantine, FaultPlan, at_place, clients_of, is_client

_ROUNDING = 1e-9  # .29 of 100 clients are 29, though the product of floats is a little less
_INT_BOUND = 1 << 62  # of a forged sum where no layout says a smaller one
Note = Callable[[int, str], None]


@attrs.define(eq=False)
class _Gang:
    """The liars of one fault that forges updates.

    Attributes:
        index: of the fault.
        identity: of the fault.
        forge: what they do.
        strength: how much of it.
        learners: liar -> the learner that it has beneath.
        is_over: nobody lies any more.
    """

    index: int
    identity: str
    forge: Forge
    strength: float
    learners: dict[str, Learner] = attrs.field(factory=dict)
    is_over: bool = False
    _round_id: int = 0
    _updates: dict[str, Update] = attrs.field(factory=dict)

    def honest(self, round_id: int, member: str, own: Update) -> FloatArray:
        """Return the honest vectors of all that have one as long as this one's, per unit of weight, shape (n, d).

        The first to ask in a round asks for all: a learner whose update is accepted has nothing more to give.
        """
        if round_id != self._round_id:
            self._round_id, self._updates = round_id, {}
        self._updates[member] = own
        for other in sorted(self.learners.keys() - self._updates.keys()):
            with contextlib.suppress(LocalError):  # it has nothing to give, and nobody copies it
                if (update := self.learners[other].update_for(round_id)) is not None:
                    self._updates[other] = update
        known = (self._updates[name] for name in sorted(self._updates))
        alike = (update for update in known if update.vector.shape == own.vector.shape)
        return np.stack([np.asarray(update.vector, dtype=np.float64) / update.weight for update in alike])


@attrs.define(eq=False)
class LyingLearner:
    """A learner whose updates are forged; all else is the one's beneath."""

    _member: str
    _gang: _Gang
    _chance: Chance
    _note: Note
    _honest: Update | None = None

    @property
    def _beneath(self) -> Learner:
        return self._gang.learners[self._member]

    @property
    def layout(self) -> Layout | None:
        """The layout of the learner beneath."""
        return self._beneath.layout

    def update_for(self, round_id: int) -> Update | None:
        """Return the forged update; the honest one when lies are over.

        Raises:
            LocalError: there is nothing to forge.
        """
        honest = self._honest = self._beneath.update_for(round_id)
        gang = self._gang
        if honest is None or gang.is_over:
            return honest
        scene = Scene(
            own=np.asarray(honest.vector, dtype=np.float64) / honest.weight,
            honest=gang.honest(round_id, self._member, honest),
            strength=gang.strength,
            round_id=round_id,
            rng=self._chance.generator("forge", gang.identity, self._member, round_id),
        )
        vector = _as_sent(gang.forge(scene) * honest.weight, honest, self.layout)
        if np.array_equal(vector, honest.vector):
            return honest
        self._note(gang.index, self._member)
        return attrs.evolve(honest, vector=vector)

    def accepted(self, update: Update) -> None:
        """Spend the honest update's rows, so that a liar goes on as the others do."""
        self._beneath.accepted(update if self._honest is None else self._honest)

    def receive_model(self, model: Model) -> None:
        """Hand the model on."""
        self._beneath.receive_model(model)


def public_mask(layout: Layout | None) -> NDArray[np.bool_] | None:
    """Return which coordinates are public counts, which everybody can check; None: no layout says so."""
    if layout is None or not layout.noise_scales.any():
        return None
    return np.asarray(layout.noise_scales == 0)


def _as_sent(vector: FloatArray, honest: Update, layout: Layout | None) -> NDArray[np.float64] | NDArray[np.int64]:
    """Return a forged vector that passes every check of form: type, bound, public counts."""
    mask = public_mask(layout)
    if mask is not None and mask.shape == vector.shape:
        vector = np.where(mask, np.asarray(honest.vector, dtype=np.float64), vector)
    if honest.vector.dtype != np.int64:
        return vector
    bound = honest.weight * layout.steps**2 if layout is not None and layout.steps else _INT_BOUND
    return np.rint(np.clip(vector, -bound, bound)).astype(np.int64)


class Liars:
    """All liars of a plan.

    Args:
        plan: the plan.
        seats: member id -> domain.
        chance: decides.
        sign: signs lies.
        note: told (index, member) whenever a lie is told.

    Raises:
        ConfigError: a fault has no liars, or its lies need a signature and nobody signs.
    """

    def __init__(
        self, plan: FaultPlan, seats: Mapping[str, str], chance: Chance, sign: Sign | None, note: Note
    ) -> None:
        self._chance = chance
        self._note = note
        self._gangs: dict[str, list[_Gang]] = {}
        self._lies: dict[str, list[tuple[int, Lie]]] = {}
        self._public: dict[str, NDArray[np.bool_] | None] = {}
        for index, (entry, identity) in enumerate(zip(plan.entries, plan.ids, strict=True)):
            if isinstance(entry, Byzantine):
                with at_place(plan.place(index)):
                    self._seat(index, identity, entry, _chosen(entry, identity, seats, chance), sign)

    def _seat(self, index: int, identity: str, entry: Byzantine, members: tuple[str, ...], sign: Sign | None) -> None:
        strength = BEHAVIOURS[entry.behaviour].strength if entry.strength is None else entry.strength
        if entry.behaviour in SIGNED_LIES and sign is None:
            raise ConfigError(f"behaviour is {entry.behaviour!r}; allowed only where lies can be signed")
        if entry.behaviour in FORGES:
            gang = _Gang(index, identity, FORGES[entry.behaviour], strength)
            for member in members:
                self._gangs.setdefault(member, []).append(gang)
        else:
            for member in members:
                part = Part(member, identity, strength, self._chance, sign or _unsigned, self._publics(member))
                self._lies.setdefault(member, []).append((index, LIES[entry.behaviour](part)))

    def _publics(self, member: str) -> Callable[[], NDArray[np.bool_] | None]:
        return lambda: self._public.get(member)

    def learner(self, member: str, learner: Learner) -> Learner:
        """Return the learner that a member's core is given."""
        self._public[member] = public_mask(learner.layout)
        for gang in self._gangs.get(member, ()):
            gang.learners[member] = learner
            learner = LyingLearner(member, gang, self._chance, self._note)
        return learner

    def heal(self) -> None:
        """Let nobody lie from now on."""
        for gang in (gang for gangs in self._gangs.values() for gang in gangs):
            gang.is_over = True
        self._lies.clear()

    def say(self, src: str, dst: str, packet: Packet) -> tuple[Packet, ...]:
        """Return what a member sends instead of a packet."""
        packets: tuple[Packet, ...] = (packet,)
        for index, lie in self._lies.get(src, ()):
            said = tuple(one for each in packets for one in lie.say(dst, each))
            if len(said) != len(packets) or any(a is not b for a, b in zip(said, packets, strict=True)):
                self._note(index, src)
            packets = said
        return packets


def _unsigned(header: Header, _body: Body) -> Packet:
    raise AssertionError(f"a lie of {header.sender} that needs no signature asked for one")


def _chosen(entry: Byzantine, identity: str, seats: Mapping[str, str], chance: Chance) -> tuple[str, ...]:
    """Return the liars: the clients of the groups, or of each domain as many as the share says."""
    if entry.of:
        return clients_of(entry.of, seats)
    members: list[str] = []
    for domain in sorted({domain for domain in seats.values() if domain}):
        clients = [name for name in sorted(seats) if seats[name] == domain and is_client(name, domain)]
        clients.sort(key=lambda name: chance.uniform("liar", identity, name))
        members += clients[: int(entry.share * len(clients) + _ROUNDING)]
    if not members:
        raise ConfigError(f"share is {entry.share}; allowed: enough for one client of some domain")
    return tuple(sorted(members))
