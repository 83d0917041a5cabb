"""The basket's side: `BasketCore` gathers its members' contributions and carries their aggregate to Layer 2.

Who sends what when:

    state       comes                                   goes                                            next
    IDLE        RoundConfig (coordinator)               [Persist], RoundConfig to the members           COLLECTING
    COLLECTING  Release, TrustedUpdate, Unprotected     [Persist(receipt), Ack]; all, or quorum and
                                                        close_s: rule, [Persist, BasketReport]          REPORTED
    COLLECTING  Ready (mode distributed)                all, or ready_s: [Persist], the sum's config    SUMMING
    COLLECTING  deadline_s without quorum               [Persist], Absent                               ABSENT
    SUMMING     SecureSum of a member                   the sum's messages; opened:
                                                        [Persist, BasketReport]                         REPORTED
    SUMMING     the sum fails                           [Persist], Absent                               ABSENT
    REPORTED    SecureSum (coordinator)                 Layer 2's messages; the input is the aggregate  REPORTED
    any         Model, Aborted (coordinator)            the same to the members                         IDLE
    any         RoundConfig again                       the same BasketReport or Absent again           -
    any         RoundConfig after a model it missed     ModelRequest (coordinator)                      -

The config, each receipt, the beginning of the sum and the outcome are durable before what depends on them leaves. After
a crash (`recovery`, docs/crash-recovery.md) the basket goes on collecting, or says its outcome again, the same bytes; a
sum that had begun is not begun again: Absent.

In mode distributed the basket sees masked integers and their sum, no more. In mode local it sees releases. It is
trusted to run the rule and to keep receipts; it is not trusted with a clean vector, but for mode central, where it sees
its own members' and shows them to nobody. A lying basket can spoil its own
aggregate (Layer 2 assumes semi-honest baskets).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, cast

import attrs
import numpy as np

from scarcity.errors import LocalError, ProtocolError
from scarcity.federation.buffer import UpdateBuffer
from scarcity.federation.codec import digest_in, kind_of
from scarcity.federation.collection import Collection
from scarcity.federation.content import Expected, expected_in
from scarcity.federation.effects import (
    BasketAbsent,
    BasketClosed,
    Effect,
    Emit,
    EntropySource,
    Entry,
    ModelAccepted,
    Persist,
    Reject,
    Send,
    SetTimer,
    Waiting,
)
from scarcity.federation.gossip import gossip_of
from scarcity.federation.identity import Identity
from scarcity.federation.layers import (
    Contributed,
    aggregate_contributions,
    aggregate_of_sum,
    clip_about,
    contribution_unit,
    layer2_bits,
    layer2_input,
    layer2_scale,
    model_belongs,
)
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    LAYER2,
    MAX_REASON,
    Aborted,
    Absent,
    Ack,
    Aggregate,
    BasketReport,
    Body,
    Declined,
    GossipPull,
    GossipPush,
    Model,
    ModelRequest,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unprotected,
    basket_scope,
)
from scarcity.federation.privacy_guard import MAX_DIMENSION, noise_fault
from scarcity.federation.reader import Item
from scarcity.federation.recovery import ABORTED, CONFIG, MODEL, RECEIPT, BasketPast, Outcome, statement, sum_opened
from scarcity.federation.refusals import Code, Equivocation, code_of
from scarcity.federation.roster import COORDINATOR, Member, Roster, basket_id
from scarcity.federation.scheduler import Verdict
from scarcity.federation.secure_aggregation import EpochKeys
from scarcity.federation.sums import TIMER as SUM_TIMER
from scarcity.federation.sums import (
    SumHost,
    SumMark,
    SumParticipant,
    layer2_policy,
    noise_share_std,
    open_basket_sum,
)
from scarcity.federation.trust_scorer import TrustScorer
from scarcity.federation.validator import Validator, ValidatorLimits

_CLOSE, _PULL = "close", "gossip.pull"


class BasketState(enum.Enum):
    """Where a basket stands in the round it holds a config of."""

    IDLE = "idle"
    COLLECTING = "collecting"
    SUMMING = "summing"
    REPORTED = "reported"
    ABSENT = "absent"


@attrs.define(eq=False)
class _Round:
    """The round in hand."""

    packet: Packet
    config: RoundConfig
    collection: Collection
    state: BasketState = BasketState.COLLECTING
    host: SumHost | None = None
    aggregate: Aggregate | None = None
    said: Packet | None = None  # BasketReport or Absent

    @property
    def round_id(self) -> int:
        return self.packet.header.round_id


class BasketCore:
    """The protocol of one basket, pure: packets and instants in, effects out.

    Args:
        identity: the basket's voice.
        settings: the rules it accepts.
        entropy: source of the secure sum's secrets and of peers.
        operator_key: public key that signs rosters.
        limits: bounds of what it takes from each peer.
        marks: high-water marks of Layer 2's sums, replayed from the journal.
        past: what it has promised and said before a restart, read from the journal.

    Attributes:
        trust: the members' reputation; it changes no weight yet.
    """

    def __init__(
        self,
        identity: Identity,
        settings: RoundSettings,
        *,
        entropy: EntropySource,
        operator_key: bytes,
        limits: ValidatorLimits | None = None,
        marks: Iterable[SumMark] = (),
        past: BasketPast | None = None,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._operator_key = operator_key
        self._buffer: UpdateBuffer[Packet] = UpdateBuffer(settings.max_staleness, settings.half_life_rounds)
        self._round: _Round | None = None
        self._last_round = 0
        self._aborted_round = 0
        self._roster_packet: Packet | None = None
        self._model_packet: Packet | None = None
        self._expected: Expected | None = None
        self._domain = identity.member.domain
        self._validator = Validator(identity.member_id, identity.roster, limits, identity.reader)
        self._gossip = gossip_of(identity, settings, entropy)
        self._sum = SumParticipant(identity, entropy, marks)
        self._epoch_keys = EpochKeys()
        self._past = BasketPast() if past is None else past
        self.trust = TrustScorer(member.id for member in self._members)

    # What drivers call.

    def start(self, now: float) -> list[Effect]:
        """Arm gossip and ask for what was missed; after a restart, take the round up again."""
        ask = self._say_up(ModelRequest(), 0)
        return [SetTimer(_PULL, now + self._settings.gossip_s), *self._resume(now), Send(COORDINATOR, ask)]

    def _resume(self, now: float) -> list[Effect]:
        """Take over what the journal holds, and say again what may have been lost on the way."""
        past, effects = self._past, list[Effect]()
        self._past = BasketPast()  # taken over here, once
        if past.model is not None:
            self._model_packet = past.model
            self._gossip.offer(self._identity.reader.item_of(past.model))
            effects += self._to_members(past.model)
        if past.config is None:
            return effects
        held = self._hold(past.config, now)
        self._validator.check(past.config, COORDINATOR, now)  # the same config again is a repetition from here on
        for packet in past.replay(self._validator, self._buffer, self._expected, now):
            self._gossip.offer(self._identity.reader.item_of(packet))
        if past.is_over:
            self._leave_round()
            self._aborted_round = past.aborted_round
        elif past.outcome is not None:
            held.aggregate, held.said = past.outcome.aggregate, past.outcome.statement
            held.state = BasketState.ABSENT if held.aggregate is None else BasketState.REPORTED
            effects.append(Send(COORDINATOR, held.said))
        elif past.sum_opened:
            effects += self._absent(held, "the basket was restarted in mid-sum, which is not begun twice", 0, 0)
        else:
            effects += self._collect(held, now)
        return effects

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a packet; whatever a peer sends, the answer is effects."""
        if refusal := self._validator.check(packet, sender, now, self._expected):
            return self._again(packet, sender, refusal, now)
        handle = self._HANDLERS.get(type(packet.body))
        if handle is None:
            return [Reject(sender, f"a basket takes no {kind_of(packet.body)}")]
        return handle(self, packet, sender, now)

    def fire(self, timer: str, now: float) -> list[Effect]:
        """Pull, decide whether to close, or end a stage of the sum."""
        if timer == _PULL:
            pulls = [Send(peer, self._say(body, self._last_round)) for peer, body in self._gossip.pull()]
            return [SetTimer(_PULL, now + self._settings.gossip_s), *pulls]
        if timer == SUM_TIMER:
            return self._close_sum_stage(now)
        return self._evaluate(now) if timer == _CLOSE else []

    def close_stage(self, now: float) -> list[Effect]:
        """Stop waiting: with a quorum go on, without one be Absent. For drivers that cannot wait."""
        held = self._round
        if held is None:
            return []
        return self._close_sum_stage(now) if held.state is BasketState.SUMMING else self._evaluate(now, forced=True)

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what this basket waits for."""
        held = self._round
        if held is None:
            return ()
        if held.state is BasketState.SUMMING and held.host is not None:
            return held.host.waiting(self.basket_id)
        if held.state is not BasketState.COLLECTING:
            return ()
        gathered = held.collection
        arrived, need, opened_at = gathered.arrived, gathered.need, gathered.opened_at
        missing = tuple(name for name in gathered.expected if name not in arrived)
        until = opened_at + (self._settings.deadline_s if len(arrived) < need else self._settings.close_s)
        return (Waiting(self.basket_id, "contributions", len(arrived), need, missing, opened_at, until),)

    # What its owner reads.

    @property
    def basket_id(self) -> str:
        """The basket's member id."""
        return self._identity.member_id

    @property
    def round_id(self) -> int:
        """The newest round that the basket knows of, 0 before the first."""
        return self._last_round

    @property
    def state(self) -> BasketState:
        """Where the basket stands."""
        return BasketState.IDLE if self._round is None else self._round.state

    @property
    def is_present(self) -> bool:
        """Whether the basket has its aggregate of the open round, or is about to open its sum."""
        return self.state in (BasketState.SUMMING, BasketState.REPORTED)

    @property
    def has_quorum(self) -> bool:
        """Whether the open round could close now."""
        held = self._round
        return held is not None and held.state is BasketState.COLLECTING and held.collection.has_quorum

    # Opening a round.

    def _on_roster(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        try:
            roster = self._identity.newer_roster(cast("RosterNotice", packet.body), self._operator_key)
        except ProtocolError as error:
            return [Reject(sender, str(error))]
        if roster is None:
            return []
        for member in self._members:
            if member not in roster.clients_of(self._domain):
                self._buffer.drop_client(member.id)
        self._identity.roster = roster
        for part in (self._validator, self._gossip, self._sum):
            part.adopt(roster)
        self._epoch_keys = EpochKeys()
        self.trust.update_members(member.id for member in self._members)
        self._roster_packet = packet
        return self._to_members(packet)

    def _on_config(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        config, round_id = cast("RoundConfig", packet.body), packet.header.round_id
        if round_id <= self._last_round:
            return [Reject(sender, f"round {round_id} is not after round {self._last_round}")]
        if not 1 <= config.dimension <= MAX_DIMENSION:
            return [Reject(sender, f"round {round_id} has vectors of {config.dimension} numbers")]
        kept = Persist(statement(CONFIG, packet))
        return [kept, *self._missed(config), *self._collect(self._hold(packet, now), now)]

    def _missed(self, config: RoundConfig) -> list[Effect]:
        """Ask for the model that a round starts from, if it was lost: no member can contribute without it."""
        known = b"" if self._model_packet is None else digest_in(self._model_packet)
        return [] if config.model_hash == known else [Send(COORDINATOR, self._say_up(ModelRequest(), 0))]

    def _hold(self, packet: Packet, now: float) -> _Round:
        """Make a config's round the one in hand."""
        config, round_id = cast("RoundConfig", packet.body), packet.header.round_id
        self._last_round = round_id
        members = tuple(member.id for member in self._members)
        self._round = held = _Round(packet, config, Collection(self._settings, round_id, members, now, self._buffer))
        self._sum.abort()
        self._sum.pin(LAYER2, layer2_policy(config, self._identity.roster))
        self._expected = expected_in(round_id, config, max_rows=self._settings.max_rows)
        self._gossip.expect(self._expected)
        return held

    def _collect(self, held: _Round, now: float) -> list[Effect]:
        """Tell the members of the round in hand and gather what they send, unless this basket cannot take part."""
        config = held.config
        if config.settings != self._settings or config.roster_root != self._identity.roster.root:
            return self._absent(held, "the round runs under other settings or another roster than this basket", 0, 0)
        if fault := noise_fault(self._settings, config.noise, config.layer2_noise):
            return self._absent(held, fault, 0, 0)
        told = self._to_members(held.packet)
        if len(held.collection.members) < self._settings.min_clients:
            held.state = BasketState.ABSENT  # not expected by the coordinator either
            return told
        return [*told, *self._evaluate(now)]

    # Collecting.

    def _on_contribution(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        # The basket is a peer too: who pulls from it gets what it was sent directly.
        item = self._identity.reader.item_of(packet)
        self._gossip.offer(item)
        return [self._keep(item), Send(sender, self._ack(packet)), *self._evaluate(now)]

    def _keep(self, item: Item) -> Persist:
        """Make a contribution durable and buffer it; it counts in the open round or, late, in the next one."""
        sender = item.packet.header.sender
        self._buffer.add(sender, item.round_id, item.packet)
        self.trust.contributed(sender)
        return Persist(Entry(RECEIPT, f"{item.round_id}/{sender}", item.encoded))

    def _ack(self, packet: Packet) -> Packet:
        return self._say(Ack(digest_in(packet)), packet.header.round_id)

    def _again(self, packet: Packet, sender: str, refusal: Reject, now: float) -> list[Effect]:
        """A repeated contribution means that its acknowledgement was lost; two different ones spoil each other."""
        code = code_of(refusal)
        self.trust.refused(refusal)
        if isinstance(packet.body, CONTRIBUTIONS) and code is Code.DUPLICATE:
            return [Send(sender, self._ack(packet))] if self._validator.answers_repetition(sender, now) else []
        if code is Code.DUPLICATE:
            return self._repeat(packet)
        if isinstance(packet.body, CONTRIBUTIONS) and code is Code.EQUIVOCATION:
            # Once a place: who signs a thousand more must not fill the disk with them.
            proofs = (proof for proof in self._validator.proofs.values() if proof.second is packet)
            return [*(effect for proof in proofs for effect in self._convict(proof)), refusal]
        return [refusal]

    def _repeat(self, packet: Packet) -> list[Effect]:
        """A coordinator that asks again with the round's config has lost the answer: it is the same one."""
        held = self._round
        if held is None or held.said is None or held.packet != packet:
            return []
        return [Send(COORDINATOR, held.said)]

    def _convict(self, proof: Equivocation) -> list[Effect]:
        """Take both contributions of an equivocating member out, and keep both as proof.

        One proof a member is enough, but for what was acknowledged: who signs a thousand more must not fill the disk.
        """
        head = proof.first.header
        is_news = self._buffer.remove(head.sender, head.round_id) or not self.trust.is_quarantined(proof.author)
        self.trust.convict(proof, self._identity.roster.keys[proof.author])
        return [Persist(entry) for entry in proof.entries()] if is_news else []

    def _on_ready(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or held.state is not BasketState.COLLECTING or packet.header.round_id != held.round_id:
            return [Reject(sender, f"ready for round {packet.header.round_id} in state {self.state.value}")]
        held.collection.weights[sender] = cast("Ready", packet.body).weight
        return self._evaluate(now)

    def _on_declined(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or packet.header.round_id != held.round_id:
            return [Reject(sender, f"declines round {packet.header.round_id}, which is not open")]
        held.collection.decline(sender, cast("Declined", packet.body).reason)
        return self._evaluate(now)

    def _evaluate(self, now: float, *, forced: bool = False) -> list[Effect]:
        """Decide whether to close, and arm the timer for when that has to be decided again."""
        held = self._round
        if held is None or held.state is not BasketState.COLLECTING:
            return []
        decision = held.collection.decide(now, forced=forced)
        if decision.verdict is Verdict.WAIT:
            return [SetTimer(_CLOSE, decision.until)]
        if decision.verdict is Verdict.ABSENT:
            return self._absent(held, decision.reason, len(held.collection.arrived), decision.need)
        if self._settings.mode is TrustMode.DISTRIBUTED:
            return self._open_sum(held, now)
        return self._close_by_rule(held)

    def _close_by_rule(self, held: _Round) -> list[Effect]:
        entries = self._buffer.close(held.round_id)
        taken = tuple((e.client_id, e.round_id) for e in entries)
        contributions = {
            e.client_id: Contributed(e.item.body.vector, e.item.body.weight, e.age_weight)
            for e in entries
            if isinstance(e.item.body, CONTRIBUTIONS)
        }
        try:
            aggregate = aggregate_contributions(held.collection.rule, contributions, held.config.noise.sigma)
        except LocalError as error:
            return self._absent(held, str(error), len(contributions), held.collection.need, taken)
        return self._report(held, aggregate, tuple(contributions), {}, taken)

    # The secure sum inside the basket.

    def _open_sum(self, held: _Round, now: float) -> list[Effect]:
        """Begin the sum over the members that have not declined: who is silent is a dropout of it."""
        participants = held.collection.expected
        try:
            held.host = open_basket_sum(self._identity, held.config, held.round_id, participants, self._epoch_keys)
        except LocalError as error:
            return self._absent(held, str(error), len(held.collection.weights), len(participants))
        held.state = BasketState.SUMMING
        # Durable first: a restarted basket must not sum the same inputs in a second context.
        return [Persist(sum_opened(held.round_id, 0)), *held.host.open(now), *self._sum_outcome(held)]

    def _on_sum(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or packet.header.round_id != held.round_id:
            return [Reject(sender, "a secure sum's message of a round that is not open")]
        if sender == COORDINATOR:
            return self._join_layer2(held, packet)
        if held.host is None or sender not in held.collection.weights:
            return [Reject(sender, f"a secure sum's message in state {held.state.value}")]
        return [*held.host.receive(packet, sender, now), *self._sum_outcome(held)]

    def _close_sum_stage(self, now: float) -> list[Effect]:
        held = self._round
        if held is None or held.host is None or held.state is not BasketState.SUMMING:
            return []
        return [*held.host.close_stage(now), *self._sum_outcome(held)]

    def _sum_outcome(self, held: _Round) -> list[Effect]:
        """Report the sum once it is open, or that there will be none."""
        host = held.host
        if host is None or held.state is not BasketState.SUMMING:
            return []
        if host.failed is not None:
            return self._absent(held, f"the secure sum failed: {host.failed}", host.num_left, host.num_needed)
        if host.result is None:
            return []
        survivors = host.result.survivors
        weights = {name: held.collection.weights[name] for name in survivors}
        variance = len(survivors) * noise_share_std(held.config, host.num_needed) ** 2
        aggregate = aggregate_of_sum(host.result.vector, weights, variance)
        return self._report(held, aggregate, survivors, host.silent)

    # Layer 2.

    def _report(
        self,
        held: _Round,
        aggregate: Aggregate,
        members: tuple[str, ...],
        silent: Mapping[str, str],
        taken: tuple[tuple[str, int], ...] | None = None,
    ) -> list[Effect]:
        held.aggregate, held.state = aggregate, BasketState.REPORTED
        report = BasketReport(aggregate.weight, aggregate.count, aggregate.noise_variance)
        shown = None if self._settings.mode is TrustMode.CENTRAL else aggregate
        closed = BasketClosed(self.basket_id, held.round_id, shown, members, held.collection.left_out(members, silent))
        held.said = told = self._say_up(report, held.round_id)
        return [Persist(Outcome(told, aggregate, taken).entry()), Send(COORDINATOR, told), Emit(closed)]

    def _absent(
        self, held: _Round, reason: str, have: int, need: int, taken: tuple[tuple[str, int], ...] | None = None
    ) -> list[Effect]:
        held.state = BasketState.ABSENT
        held.said = told = self._say_up(Absent(reason[:MAX_REASON], have, need), held.round_id)
        silent = held.host.silent if held.host else {}
        event = BasketAbsent(self.basket_id, held.round_id, reason, have, need, held.collection.left_out((), silent))
        kept = Persist(Outcome(told, None, taken).entry())
        return [kept, SetTimer(_CLOSE, math.inf), Send(COORDINATOR, told), Emit(event)]

    def _join_layer2(self, held: _Round, packet: Packet) -> list[Effect]:
        if held.aggregate is None:
            return [Reject(COORDINATOR, f"Layer 2 in state {held.state.value}: this basket has nothing to give")]
        effects, wants_input = self._sum.receive(packet, COORDINATOR)
        if not wants_input:
            return effects
        # Released inputs may enter a second attempt as they are.
        try:
            bits = layer2_bits(len(self._identity.roster.baskets))
            vector = layer2_input(self._clipped(held, held.aggregate), layer2_scale(held.config), bits)
        except LocalError as error:
            self._sum.abort()
            return [Reject(COORDINATOR, str(error))]
        return [*effects, *self._sum.provide(vector, packet, COORDINATOR)]

    def _clipped(self, held: _Round, aggregate: Aggregate) -> Aggregate:
        """Bound how far one client can have moved the aggregate from the last public model."""
        if math.isinf(self._settings.layer2_clip):
            return aggregate
        unit = contribution_unit(held.config)
        model = None if self._model_packet is None else cast("Model", self._model_packet.body)
        centre = np.zeros(aggregate.total.size) if model is None else model.vector / unit
        return clip_about(aggregate, centre, self._settings.layer2_clip / unit)

    # The model.

    def _on_model(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        held, model = self._round, cast("Model", packet.body)
        known = self._model_packet
        if known is not None and model.round_id <= known.header.round_id:
            return [] if packet == known else [Reject(sender, f"another model of round {model.round_id}")]
        if held is None or not model_belongs(packet, held.packet):
            self._validator.forget(packet)  # the next config may name it: then it must be able to come again
            return [Reject(sender, f"a model of round {model.round_id} that no config held here announces")]
        self._model_packet = packet
        item = self._identity.reader.item_of(packet)
        self._gossip.offer(item)
        kept = Persist(Entry(MODEL, str(model.round_id), item.encoded))
        if model.round_id == held.round_id:
            self._leave_round()
        return [kept, *self._to_members(packet), Emit(ModelAccepted(self.basket_id, model))]

    def _on_aborted(self, packet: Packet, _sender: str, _now: float) -> list[Effect]:
        if self._round is None or packet.header.round_id != self._round.round_id:
            return []
        self._leave_round()
        self._aborted_round = packet.header.round_id
        return [Persist(statement(ABORTED, packet)), *self._to_members(packet)]

    def _leave_round(self) -> None:
        """Keep the config, so that late members can be told, but wait for nothing any more."""
        if self._round is not None:
            self._round.state = BasketState.IDLE

    def _on_model_request(self, _packet: Packet, sender: str, _now: float) -> list[Effect]:
        """Tell a member what it missed: roster, newest round, last model, in the order in which it can use them.

        A round that was given up is kept back: a member that lost its memory would pay for it in vain.
        """
        config = self._round.packet if self._round is not None else None
        if self._last_round == self._aborted_round > 0:
            config = None
        known = (self._roster_packet, config, self._model_packet)
        return [Send(sender, packet) for packet in known if packet is not None]

    # Gossip: the basket is a peer, and pulls what a lost submission would have brought.

    def _on_push(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        received = self._gossip.receive_push(cast("GossipPush", packet.body), sender)
        effects: list[Effect] = list(received.rejects)
        for proof in received.proofs:
            effects += self._convict(proof)
        for item in received.new:
            said, author = item.packet, item.packet.header.sender
            if isinstance(said.body, Model):
                effects += self._on_model(said, sender, now)
            elif refusal := self._validator.check(said, author, now, self._expected):
                effects += self._again(said, author, refusal, now)
            else:
                effects += [self._keep(item), Send(author, self._ack(said))]
        return [*effects, *self._evaluate(now)]

    def _on_pull(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        answer = self._gossip.answer_pull(cast("GossipPull", packet.body), sender)
        return [] if answer is None else [Send(sender, self._say(answer, self._last_round))]

    # Its place in the federation.

    @property
    def _members(self) -> tuple[Member, ...]:
        return self._identity.roster.clients_of(self._domain)

    def _to_members(self, packet: Packet) -> list[Effect]:
        return [Send(member.id, packet) for member in self._members]

    def _say(self, body: Body, round_id: int) -> Packet:
        return self._identity.say(basket_scope(self._domain), round_id, body)

    def _say_up(self, body: Body, round_id: int) -> Packet:
        return self._identity.say(LAYER2, round_id, body)

    _HANDLERS: ClassVar[Mapping[type, Callable[[BasketCore, Packet, str, float], list[Effect]]]] = {
        RosterNotice: _on_roster,
        RoundConfig: _on_config,
        Ready: _on_ready,
        Declined: _on_declined,
        Release: _on_contribution,
        TrustedUpdate: _on_contribution,
        Unprotected: _on_contribution,
        SecureSum: _on_sum,
        Model: _on_model,
        Aborted: _on_aborted,
        ModelRequest: _on_model_request,
        GossipPush: _on_push,
        GossipPull: _on_pull,
    }


@attrs.frozen
class BasketManager:
    """Which clients are grouped with whom: a roster read by domain.

    Attributes:
        roster: who is who.
        min_clients: a basket with fewer members is not expected to contribute.
    """

    roster: Roster
    min_clients: int = 2

    @property
    def baskets(self) -> dict[str, tuple[str, ...]]:
        """Domain -> ids of its clients, both sorted."""
        return {b.domain: tuple(m.id for m in self.roster.clients_of(b.domain)) for b in self.roster.baskets}

    @property
    def expected(self) -> tuple[str, ...]:
        """Ids of the baskets that are expected in a round, sorted."""
        return tuple(b.id for b in self.roster.baskets if len(self.roster.clients_of(b.domain)) >= self.min_clients)

    def basket_of(self, client_id: str) -> str:
        """Return the basket id of a client; UnknownClientError when there is none."""
        return basket_id(self.roster.member(client_id).domain)
