"""A federation whose members can die between any two effects and come up again from their disks.

Every effect is carried out by itself. Before each Persist and Send and at the end of a call lies a crash point; points
are numbered through a run, which is a function of its seed and of the crashes so far, so a crash is (point, seconds
until it is up again, whether what it had sent is lost with it). What was on its way to a dead member is lost, and so
are its timers and its memory; its disk is not. Each life has secrets and noise of its own.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgpack
import numpy as np

from scarcity.engine import OnlineDiscoveryEngine
from scarcity.federation.assembly import Assembly, round_settings, seat
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.codec import body_digest, decode_packet
from scarcity.federation.effects import BasketClosed, Core, Effect, Entry, Persist, Send, SetTimer
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    SIGNED,
    Ack,
    GossipPush,
    Model,
    Packet,
    SecureSum,
    Update,
)
from scarcity.federation.privacy_guard import LEDGER, Layout, PrivacyParams, default_layout
from scarcity.federation.pump import Pump
from scarcity.federation.recovery import OUTCOME, RECEIPT, _outcome, coordinator_past, rows_spent_until
from scarcity.federation.roster import COORDINATOR, Role
from scarcity.federation.secure_aggregation import SumConfigMessage, decode
from scarcity.federation.secure_aggregation.messages import FromClient, Masked
from scarcity.privacy.ledger import RecordState, decode_ledger
from sim.chance import reproducible_entropy
from tests.federation_world import FEDERATION, NAMES, payloads, rows_of, schema

_RESTART = "!restart"
_ROWS_A_ROUND = 12
DURATIONS = {"gossip_s": 1.0, "ready_s": 2.0, "close_s": 2.0, "deadline_s": 4.0, "stage_s": 2.0}
_LONGEST_S = 400.0

Crash = tuple[int, float, bool]


@attrs.frozen
class Case:
    """A small federation: members by domain, mode and unit."""

    mode: str
    unit: str
    domains: Mapping[str, str]
    settings: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.unit}"


_PAIR = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
_TRIO = {"a1": "a", "a2": "a", "a3": "a"}
_THREE = {"a1": "a", "b1": "b", "c1": "c"}
_AVERAGE = {"rule": "average", "quorum": 0.5}
CASES = tuple(
    Case(mode, unit, domains, settings)
    for mode, domains, settings in (
        ("local", _PAIR, _AVERAGE),
        ("distributed", _TRIO, {}),
        ("central", _THREE, {"min_clients": 1}),
        ("none", _PAIR, {"quorum": 0.5}),
    )
    for unit in ("client", "record")
)


class Giver:
    """A learner of unit client: its own axis, so that who is in a plain sum can be read from it."""

    layout = None

    def __init__(self, name: str, axis: int, dimension: int) -> None:
        self._update = Update(name, None, b"", np.eye(dimension)[axis])

    def update_for(self, round_id: int) -> Update:
        return self._update

    def accepted(self, update: Update) -> None:
        pass

    def receive_model(self, model: Model) -> None:
        pass


class Reader:
    """A learner of unit record whose rows come from a file that is read again after a crash; twelve more each round."""

    def __init__(self, name: str, seed: int, spent_until: int) -> None:
        self.agent = FederationClientAgent(OnlineDiscoveryEngine(schema()), client_id=name, form="differenced")
        self.agent.resume(spent_until)
        self._rows = rows_of(seed, 8 * _ROWS_A_ROUND)
        self._num_read = 0
        self.accepted = self.agent.accepted
        self.receive_model = self.agent.receive_model

    @property
    def layout(self) -> Layout | None:
        return self.agent.layout

    def update_for(self, round_id: int) -> Update | None:
        upto = (round_id + 1) * _ROWS_A_ROUND
        for at in range(self._num_read, upto):
            self.agent.engine.process_row(dict(zip(NAMES, self._rows[at].tolist(), strict=True)), at)
        self._num_read = max(upto, self._num_read)
        return self.agent.get_shareable_update()


@attrs.frozen
class Sent:
    """A packet that left, and how much was on its sender's disk then."""

    origin: str
    to: str
    packet: Packet
    on_disk: int


class CrashWorld(Pump):
    """The cores of a case; crashes happen at the given points."""

    def __init__(
        self,
        case: Case,
        crashes: Iterable[Crash] = (),
        *,
        rounds: int = 2,
        calm_after: int = 2,
        interval_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.case = case
        self.rounds = rounds
        self.point = 0
        self.points_at_round: dict[int, int] = {}  # round -> the point at which its config was on the disk
        self.points_at_end: dict[int, int] = {}  # round -> the point at which its model was
        self.sent: list[Sent] = []
        self.lives: defaultdict[str, int] = defaultdict(int)
        self.died: list[str] = []
        self._crashes = {point: (down_s, is_lost) for point, down_s, is_lost in crashes}
        self._calm_after = calm_after
        self._interval_s = interval_s
        settings = round_settings({"mode": case.mode, "unit": case.unit, **DURATIONS, **case.settings})
        self._assembly = Assembly(
            settings=settings,
            budget=PrivacyParams(epsilon=10.0, delta=1e-5),
            planned_rounds=10,
            entropy=reproducible_entropy(1),
            federation=FEDERATION,
        )
        self.seats = seat(self._assembly, case.domains.items())
        self.axes = {name: axis for axis, name in enumerate(sorted(case.domains))}
        layout = self._learner(min(case.domains), {}).layout or default_layout(settings, len(self.axes))
        if case.mode == "none" and case.unit == "record":
            layout = attrs.evolve(layout, sensitivity=0.0, noise_scales=np.zeros(layout.dimension))
        self._terms = self._assembly.terms(layout, self.seats.roster)
        for member in (COORDINATOR, *sorted(m.id for m in self.seats.roster.members if m.id != COORDINATOR)):
            self._come_up(member)

    def play(self) -> CrashWorld:
        """Run until all rounds have ended; nobody dies any more once round `calm_after` has."""
        while not self.is_over and self.now < _LONGEST_S:
            self.advance(1.0)
        self._crashes.clear()
        self.advance(2.0)
        return self

    @property
    def is_over(self) -> bool:
        past = coordinator_past(self.disk(COORDINATOR))
        return past.num_rounds == self.rounds and past.ended_by is not None and not self.is_down

    @property
    def is_down(self) -> bool:
        return any(name == _RESTART for _, name in self._timers)

    def disk(self, member_id: str) -> dict[str, list[bytes]]:
        return payloads(self.journals[member_id])

    def carry(self, origin: str, effects: Iterable[Effect]) -> None:
        kept = list(effects)
        for effect in kept:
            # Neither disk nor network can tell a death before a timer, an event or a refusal from one after it.
            if isinstance(effect, Persist | Send) and self._dies(origin):
                return
            if isinstance(effect, Send):
                self.sent.append(Sent(origin, effect.to, effect.packet, len(self.journals[origin])))
            super().carry(origin, [effect])
            if isinstance(effect, Persist) and origin == COORDINATOR:
                self._note(effect.entry)
        if kept:
            self._dies(origin)

    def _note(self, entry: Entry) -> None:
        if entry.kind == "config":
            self.points_at_round[int(entry.key)] = self.point
        if entry.kind == "model":
            self.points_at_end[int(entry.key)] = self.point
        if entry.kind in ("model", "aborted") and int(entry.key) >= self._calm_after:
            self._crashes.clear()

    def _dies(self, member_id: str) -> bool:
        crash = self._crashes.get(self.point)
        self.point += 1
        if crash is None:
            return False
        down_s, is_lost = crash
        self.died.append(member_id)
        del self._cores[member_id]
        on_the_way = [item for item in self._queue if item[1] != member_id]
        self._queue = type(self._queue)(item for item in on_the_way if not (is_lost and item[0] == member_id))
        for place in [place for place in self._timers if place[0] == member_id]:
            del self._timers[place]
        self._arm(member_id, SetTimer(_RESTART, self.now + down_s))
        return True

    def _fire_due(self) -> bool:
        if self._next_due() > self.now:
            return False
        _, member_id, name = self._heap[0]
        if name != _RESTART:
            return super()._fire_due()
        del self._timers[member_id, name]
        self._come_up(member_id)
        return True

    def _come_up(self, member_id: str) -> None:
        self.lives[member_id] += 1
        core = self._cores[member_id] = self._core(member_id)
        self.carry(member_id, core.start(self.now))

    def _core(self, member_id: str) -> Core:
        life, disk = self.lives[member_id], self.disk(member_id)
        entropy = reproducible_entropy(1 + 1000 * life)
        assembly = attrs.evolve(self._assembly, entropy=entropy)
        identity, operator = self.seats.identity(member_id), self.seats.operator_public_key
        role = identity.member.role
        if role is Role.COORDINATOR:
            times = {"interval_s": self._interval_s, "gather_s": self._interval_s}
            return assembly.coordinator(identity, terms=self._terms, rounds=self.rounds, journal=disk, **times)
        if role is Role.BASKET:
            return assembly.basket(identity, operator, journal=disk)
        return assembly.client(identity, operator, learner=self._learner(member_id, disk), journal=disk)

    def _learner(self, name: str, disk: Mapping[str, list[bytes]]) -> Any:
        if self.case.unit == "client":
            return Giver(name, self.axes[name], len(self.axes))
        return Reader(name, self.axes[name], rows_spent_until(disk))


# What must hold, whatever died and when.


def check(world: CrashWorld) -> None:
    """Check all laws of a run that is over."""
    check_each_stage_is_answered_once(world)
    check_charges(world)
    check_rows(world)
    check_receipts(world)
    check_nobody_counts_twice(world)
    assert world.is_over, f"at {world.now} s: {[waiting.describe(world.now) for waiting in world.waiting()]}"


def _said(sent: Sent) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Return (stage, content) of what a packet says on its author's word."""
    body, head = sent.packet.body, sent.packet.header
    if isinstance(body, SecureSum):
        message = decode(body.payload)
        if isinstance(message, SumConfigMessage):
            c = message.config
            yield (sent.origin, "sum config", c.scope, c.epoch, c.round_id, c.attempt), body.payload
        elif isinstance(message, FromClient):
            yield (sent.origin, type(message).__name__, message.ctx), body.payload
        else:
            yield (sent.origin, sent.to, type(message).__name__, message.ctx), body.payload
    elif isinstance(body, GossipPush):
        for item in body.items:
            inner = decode_packet(item)
            yield _stage(inner), body_digest(inner.body)
    elif type(body) in SIGNED:
        yield _stage(sent.packet), body_digest(body) + head.scope.encode()


def _stage(packet: Packet) -> tuple[Any, ...]:
    kind = "contribution" if isinstance(packet.body, CONTRIBUTIONS) else type(packet.body).__name__
    return (packet.header.sender, kind, packet.header.round_id)


def check_each_stage_is_answered_once(world: CrashWorld) -> None:
    contents: dict[tuple[Any, ...], bytes] = {}
    masked: dict[tuple[str, int], bytes] = {}
    for sent in world.sent:
        for stage, content in _said(sent):
            content = content[:32] if stage[1] in ("contribution", "Model") else content
            assert contents.setdefault(stage, content) == content, f"{stage} was answered twice, after {world.died}"
        body = sent.packet.body
        if isinstance(body, SecureSum) and isinstance(message := decode(body.payload), Masked):
            place = (sent.origin, sent.packet.header.round_id)
            is_client = sent.origin in world.case.domains
            if is_client or world.case.mode == "central":
                assert masked.setdefault(place, message.ctx) == message.ctx, f"{place} masked one input in two sums"
    # Who is absent has no report, who has declined no contribution, and a round ends once.
    for one, other in (("Absent", "BasketReport"), ("Aborted", "Model"), ("Declined", "contribution")):
        both = {(s[0], s[2]) for s in contents if s[1] == one} & {(s[0], s[2]) for s in contents if s[1] == other}
        assert not both, f"{one} and {other}: {both}"


def check_charges(world: CrashWorld) -> None:
    if world.case.mode == "none":
        return
    for sent in world.sent:
        body, round_id = sent.packet.body, sent.packet.header.round_id
        is_masked = isinstance(body, SecureSum) and isinstance(decode(body.payload), Masked)
        if sent.origin not in world.case.domains or not (is_masked or isinstance(body, CONTRIBUTIONS)):
            continue
        before = _ledger(world.journals[sent.origin][: sent.on_disk])
        name = f"{FEDERATION}/{round_id}/{sent.origin}/"
        assert any(record.release_id.startswith(name) for record in before), f"{name} left before it was charged"
        after = _ledger(world.journals[sent.origin])
        assert not any(r.release_id.startswith(name) and r.state is RecordState.VOID for r in after), f"{name} refunded"
    for member in world.case.domains:
        records = _ledger(world.journals[member])  # a chain that broke over a restart raises here
        reserved = [r.release_id for r in records if r.state is RecordState.RESERVED]
        assert len(reserved) == len(set(reserved))


def check_rows(world: CrashWorld) -> None:
    """No row is in two contributions of its client, whether there is a ledger or not."""
    for member in world.case.domains:
        records = {r.release_id: r for r in _ledger(world.journals[member])}
        layers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for record in records.values():
            if record.rows is not None and record.state is not RecordState.VOID:
                layers[record.release_id.rpartition("/")[2]].append(record.rows)
        layers["none"] = [tuple(msgpack.unpackb(p)) for p in world.disk(member).get("rows", [])]
        for rows in layers.values():
            rows.sort()
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(rows)), f"{member}: {rows}"


def _ledger(entries: Iterable[Entry]) -> list[Any]:
    return list(decode_ledger([entry.payload for entry in entries if entry.kind == LEDGER]))


def check_receipts(world: CrashWorld) -> None:
    """An acknowledged contribution is on the basket's disk first, and counts unless its sender has a newer one."""
    for sent in world.sent:
        if isinstance(sent.packet.body, Ack):
            kept = [e for e in world.journals[sent.origin][: sent.on_disk] if e.kind == RECEIPT]
            digests = [body_digest(decode_packet(e.payload).body) for e in kept if e.key.endswith(f"/{sent.to}")]
            assert sent.packet.body.digest in digests
    for basket in world.seats.roster.baskets:
        waiting: dict[str, int] = {}
        for entry in world.journals[basket.id]:
            if entry.kind == RECEIPT:
                head = decode_packet(entry.payload).header
                waiting[head.sender] = max(head.round_id, waiting.get(head.sender, 0))
            elif entry.kind == OUTCOME and (taken := _outcome(entry.payload).taken) is not None:
                round_id = _outcome(entry.payload).round_id
                due = {name: at for name, at in waiting.items() if at <= round_id}
                assert due.items() <= dict(taken).items(), f"{basket.id} round {round_id}: {due} acknowledged, {taken}"
                waiting = {name: at for name, at in waiting.items() if at > round_id}


def check_nobody_counts_twice(world: CrashWorld) -> None:
    for basket in world.seats.roster.baskets:
        outcomes = [_outcome(entry.payload) for entry in world.journals[basket.id] if entry.kind == OUTCOME]
        assert len({o.round_id for o in outcomes}) == len(outcomes), "two outcomes of one round"
        taken = [place for outcome in outcomes for place in outcome.taken or ()]
        assert len(taken) == len(set(taken)), f"{basket.id} has used a contribution twice: {taken}"
    closed = [event for event in world.events if isinstance(event, BasketClosed)]
    for event in closed:
        assert len(set(event.members)) == len(event.members)
    for model in models(world).values():
        assert model.count <= len(world.case.domains)
        if world.case.mode == "none" and world.case.unit == "client":
            shares = model.vector * model.weight
            assert (shares <= 1 + 1e-9).all(), f"somebody counts more than once: {shares}"


def models(world: CrashWorld) -> dict[int, Model]:
    """Return the coordinator's models by round."""
    found = [decode_packet(payload).body for payload in world.disk(COORDINATOR).get("model", [])]
    return {body.round_id: body for body in found if isinstance(body, Model)}
