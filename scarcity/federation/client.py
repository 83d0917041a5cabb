"""The client's side of the protocol, pure: `ClientCore`.

Who sends what when (round.md, "Life of a round"):

    state        comes                     goes                                    next
    IDLE         RoundConfig               (an update is at hand: contribute)      OPEN
    OPEN         submit / an update        local: [Persist, Release]               CONTRIBUTED
                                           central: [Persist, TrustedUpdate]       CONTRIBUTED
                                           none: Unprotected                       CONTRIBUTED
                                           distributed: [Persist, Ready]           READY
                                           cannot pay: Declined                    DECLINED
    READY        SecureSum (its config)    Advertise, noise is drawn               SUMMING
    READY        Aborted, next RoundConfig [Persist(VOID)]: no noise was drawn     IDLE / OPEN
    SUMMING      SecureSum                 the secure sum's messages               SUMMING
    any          Model                     merged, spread by gossip                IDLE
    any          GossipPush, GossipPull    gossip
    READY, DECLINED  RoundConfig again     the same answer again                   -

After a crash (`recovery`, docs/crash-recovery.md): a contribution or Declined on disk is said again, the same bytes; a
round that was charged but has neither is declined, its charge stays; a sum in progress is lost.

The core trusts the roster's signatures and its own pinned settings. It does not trust its basket or the coordinator for
privacy: noise, clipping and budget are its own, whatever a config says. It does not defend against traffic analysis:
that it takes part, and when, is public.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Protocol, cast

import attrs

from scarcity.errors import (
    AlreadySubmittedError,
    ConfigError,
    InvalidUpdate,
    LocalError,
    PrivacyBudgetExceeded,
    ProtocolError,
)
from scarcity.federation.acceptance import layout_under, refusal
from scarcity.federation.codec import digest_in, kind_of
from scarcity.federation.content import Expected, check_body, expected_in
from scarcity.federation.effects import (
    ContributionMade,
    Effect,
    Emit,
    EntropySource,
    Entry,
    ModelAccepted,
    Persist,
    Reject,
    RoundDeclined,
    Send,
    SetTimer,
    Waiting,
)
from scarcity.federation.gossip import gossip_of
from scarcity.federation.identity import Identity
from scarcity.federation.layers import has_view, model_belongs, view_of
from scarcity.federation.packets import (
    MAX_REASON,
    Aborted,
    Ack,
    Body,
    Contribution,
    Declined,
    FloatArray,
    GossipPull,
    GossipPush,
    Model,
    ModelRequest,
    NoiseTerms,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustMode,
    Unit,
    Update,
    basket_scope,
)
from scarcity.federation.privacy_guard import (
    MAX_DIMENSION,
    Layout,
    PrivacyFilter,
    Reservation,
    check_update,
    ledger_entry,
    masked_input,
    noise_fault,
    release,
    require_budget,
    reserve_round,
    trusted_update,
    unprotected,
)
from scarcity.federation.recovery import CONTRIBUTION, DECLINED, MODEL, ClientPast, rows_given, statement
from scarcity.federation.refusals import Code, Equivocation, code_of
from scarcity.federation.roster import COORDINATOR, basket_id
from scarcity.federation.sums import SumMark, SumParticipant, basket_policy
from scarcity.federation.validator import Validator, ValidatorLimits

_PUSH, _PULL = "gossip.push", "gossip.pull"
_LAYER1, _LAYER2 = "layer 1", "layer 2"
# The only words about a client's own affairs that leave it.
_NO_BUDGET, _NOTHING_TO_GIVE = "its budget does not reach", "it has nothing to contribute"
_RESTARTED = "it was restarted in mid-round"


class ClientState(enum.Enum):
    """Where a client stands in the round it holds a config of."""

    IDLE = "idle"
    OPEN = "open"
    READY = "ready"
    SUMMING = "summing"
    CONTRIBUTED = "contributed"
    DECLINED = "declined"


_WAITS: Mapping[ClientState, str] = {
    ClientState.READY: "its basket's secure sum to begin",
    ClientState.SUMMING: "its basket's secure sum",
    ClientState.CONTRIBUTED: "the round's model",
}


class Learner(Protocol):
    """What a client core learns for: it gives updates and takes models. `FederationClientAgent` is one."""

    @property
    def layout(self) -> Layout | None:
        """How its updates are laid out; None: a plain array, clipped as a whole."""

    def update_for(self, round_id: int) -> Update | None:
        """Return the update for a round that opens; None: the owner submits it later.

        Raises:
            LocalError: there is nothing to contribute; the client declines, so that nobody waits for it.
        """

    def accepted(self, update: Update) -> None:
        """Learn that the update is released: its rows are spent."""

    def receive_model(self, model: Model) -> None:
        """Take a verified model.

        Raises:
            LocalError: it cannot; the client keeps the model and passes it on all the same, and says so.
        """


@attrs.frozen
class Receipt:
    """What a submitted update became.

    Attributes:
        round_id: the round it counts in.
        release_id: its name in the ledger, empty in mode none.
        epsilon_spent: the client's whole spending so far, at its budget's delta.
    """

    round_id: int
    release_id: str
    epsilon_spent: float


@attrs.define(eq=False)
class _Round:
    """The round in hand."""

    packet: Packet
    config: RoundConfig
    state: ClientState = ClientState.OPEN
    update: Update | None = None
    reservations: dict[str, Reservation] = attrs.field(factory=dict)  # by layer
    told: Packet | None = None  # Ready or Declined
    sent: Packet | None = None
    acknowledged: bool = False
    declined: str = ""
    opened_at: float = 0.0

    @property
    def round_id(self) -> int:
        return self.packet.header.round_id


class ClientCore:
    """The protocol of one client, pure: packets and instants in, effects out.

    Args:
        identity: the client's voice; its roster must hold the client.
        settings: the rules it accepts; a round under other rules is declined.
        ledger: its privacy filter, replayed from its journal; None in mode none.
        entropy: source of noise and of the secure sum's secrets.
        operator_key: public key that signs rosters.
        learner: gives updates and takes models; None when updates come by `submit` only.
        limits: bounds of what it takes from each peer.
        marks: high-water marks of secure sums, replayed from the journal.
        past: what it has said and learnt before a restart, read from the journal.

    Raises:
        ConfigError: no ledger in a mode that charges, or one in mode none.
    """

    def __init__(
        self,
        identity: Identity,
        settings: RoundSettings,
        *,
        ledger: PrivacyFilter | None,
        entropy: EntropySource,
        operator_key: bytes,
        learner: Learner | None = None,
        limits: ValidatorLimits | None = None,
        marks: Iterable[SumMark] = (),
        past: ClientPast | None = None,
    ) -> None:
        if (ledger is None) is not (settings.mode is TrustMode.NONE):
            raise ConfigError(f"mode {settings.mode.value} and ledger {ledger!r}: mode none alone has no ledger")
        self._identity = identity
        self._settings = settings
        self._ledger = ledger
        self._entropy = entropy
        self._operator_key = operator_key
        self._learner = learner
        self._round: _Round | None = None
        self._last_round = 0
        self._sent_digest = b""  # of the newest contribution; its acknowledgement may come after the round
        self._model_packet: Packet | None = None
        self._expected: Expected | None = None
        self._domain = identity.member.domain
        self._basket = basket_id(self._domain)
        self._validator = Validator(identity.member_id, identity.roster, limits, identity.reader)
        self._gossip = gossip_of(identity, settings, entropy)
        self._sum = SumParticipant(identity, entropy, marks)
        self._proven: set[str] = set()  # of whom gossip has brought two contributions of one round
        self._past = ClientPast() if past is None else past

    # What drivers call.

    def start(self, now: float) -> list[Effect]:
        """Arm gossip and ask for what was missed; after a restart, say the last contribution again."""
        ask = self._say(ModelRequest(), round_id=0)
        return [*self._arm_gossip(now), *self._recall(), Send(self._basket, ask)]

    def _recall(self) -> list[Effect]:
        """Take over what the journal holds: models for the learner, and a contribution whose Ack may be outstanding."""
        past, self._last_round = self._past, self._past.last_round
        self._past = attrs.evolve(past, models=())  # the learner has them from here on
        untaken: list[Effect] = []
        for packet in past.models:
            self._model_packet = packet
            untaken += self._learn(cast("Model", packet.body))
        if self._model_packet is not None:
            self._gossip.offer(self._identity.reader.item_of(self._model_packet))
        sent = past.contribution
        if sent is None or sent.header.epoch != self._identity.roster.epoch:
            return untaken  # nobody takes a contribution of another epoch
        self._sent_digest = digest_in(sent)
        self._gossip.offer(self._identity.reader.item_of(sent))
        return [*untaken, Send(self._basket, sent)]

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a packet; whatever a peer sends, the answer is effects."""
        if refused := self._validator.check(packet, sender, now, self._expected):
            if code_of(refused) is Code.EQUIVOCATION:
                # Once a place: who signs a thousand more must not fill the disk with them.
                proofs = (proof for proof in self._validator.proofs.values() if proof.second is packet)
                return [*(Persist(entry) for proof in proofs for entry in proof.entries()), refused]
            return self._repeat(packet) if code_of(refused) is Code.DUPLICATE else [refused]
        handle = self._HANDLERS.get(type(packet.body))
        if handle is None:
            return [Reject(sender, f"a client takes no {kind_of(packet.body)}")]
        return handle(self, packet, sender, now)

    def _repeat(self, packet: Packet) -> list[Effect]:
        """Who asks again with the round's config has lost the answer: it is the same one."""
        held = self._round
        if held is None or held.packet != packet or held.told is None:
            return []
        answers = held.state in (ClientState.READY, ClientState.DECLINED)
        return [Send(self._basket, held.told)] if answers else []

    def fire(self, timer: str, now: float) -> list[Effect]:
        """Push or pull; Ready or a contribution is sent again with each push until it is answered, the same bytes."""
        if timer == _PULL:
            sends = [self._send(peer, body) for peer, body in self._gossip.pull()]
        elif timer != _PUSH:
            return []
        else:
            sends = [*(self._send(peer, body) for peer, body in self._gossip.push()), *self._unacknowledged()]
        return [SetTimer(timer, now + self._settings.gossip_s), *sends]

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what this client waits for: its basket's acknowledgement or sum, or the round's model."""
        held = self._round
        if held is None or held.state not in _WAITS:
            return ()
        missing = (COORDINATOR,) if held.state is ClientState.CONTRIBUTED else (self._basket,)
        return (Waiting(self.client_id, _WAITS[held.state], 0, 1, missing, held.opened_at, math.inf),)

    # What the client's owner calls.

    @property
    def client_id(self) -> str:
        """The client's member id."""
        return self._identity.member_id

    @property
    def round_id(self) -> int:
        """The newest round that the client knows of, 0 before the first."""
        return self._last_round

    @property
    def state(self) -> ClientState:
        """Where the client stands."""
        return ClientState.IDLE if self._round is None else self._round.state

    @property
    def model(self) -> Model | None:
        """The newest model that this client has verified."""
        return None if self._model_packet is None else cast("Model", self._model_packet.body)

    @property
    def epsilon_spent(self) -> float:
        """What the ledger has spent, at its delta; 0 in mode none."""
        return 0.0 if self._ledger is None else self._ledger.spent.epsilon

    def local_view(self) -> FloatArray | None:
        """Return the basket's rule over the newest round's releases that gossip brought, or None: too few yet."""
        return view_of(self._seen, self._settings, len(self._identity.roster.clients_of(self._domain)))

    @property
    def has_local_view(self) -> bool:
        """Whether `local_view` would give one; the rule is not run."""
        return has_view(self._seen, self._settings, len(self._identity.roster.clients_of(self._domain)))

    @property
    def _seen(self) -> tuple[Packet, ...]:
        """The newest round's contributions that gossip has brought, also after the round has ended."""
        return self._gossip.local_view(self._last_round)

    def submit(self, update: Update) -> tuple[Receipt, list[Effect]]:
        """Contribute to the open round.

        Raises:
            LocalError: no round is open to this client, it has contributed already, or the update does not fit. State
                is unchanged and nothing is charged.
            PrivacyBudgetExceeded: the ledger cannot pay; nothing is charged.
        """
        held = self._require_open(update.rows)
        if update.round_id not in (None, held.round_id):
            raise LocalError(
                f"update of {self.client_id} is for round {update.round_id}, round {held.round_id} is open"
            )
        effects = self._contribute(held, update)
        release_id = self._release_id(held) if held.reservations else ""
        return Receipt(held.round_id, release_id, self.epsilon_spent), effects

    def submit_release(self, body: Release) -> tuple[Receipt, list[Effect]]:
        """Contribute what its owner has noised, and charged to a ledger of their own, before; mode local only.

        Raises:
            LocalError: no round is open to this client, it has contributed already, or the release does not fit.
        """
        held = self._require_open(None)
        if self._settings.mode is not TrustMode.LOCAL:
            raise LocalError(f"mode {self._settings.mode.value} takes no release: only mode local sees noised vectors")
        if fault := check_body(body, self._expected):
            raise InvalidUpdate(f"release of {self.client_id}: {fault[0].value}, {fault[1]}")
        return Receipt(held.round_id, "", self.epsilon_spent), self._hand_over(held, body)

    def _require_open(self, rows: tuple[int, int] | None) -> _Round:
        """Return the round that this client may contribute to now."""
        held = self._round
        if held is None:
            raise LocalError(f"client {self.client_id}: no round is open to it; the next one opens after a model")
        if held.state is ClientState.DECLINED:
            self.require_budget(held.config.noise, held.config.layer2_noise, rows)
            raise LocalError(f"client {self.client_id} has declined round {held.round_id}: {held.declined}")
        if held.state is not ClientState.OPEN:
            raise AlreadySubmittedError(f"client {self.client_id} is {held.state.value} in round {held.round_id}")
        if held.config.model_hash != self._model_hash:
            raise LocalError(f"client {self.client_id} does not hold the model that round {held.round_id} starts from")
        return held

    def require_budget(self, noise: NoiseTerms, layer2_noise: NoiseTerms, rows: tuple[int, int] | None) -> None:
        """Raise PrivacyBudgetExceeded if the ledger cannot pay for a round with this noise; charge nothing."""
        if self._ledger is not None and not noise_fault(self._settings, noise, layer2_noise):
            require_budget(self._ledger, {_LAYER1: noise, _LAYER2: layer2_noise}, rows)

    # Opening a round.

    def _on_roster(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        try:
            roster = self._identity.newer_roster(cast("RosterNotice", packet.body), self._operator_key)
        except ProtocolError as error:
            return [Reject(sender, str(error))]
        if roster is None:
            return []
        self._identity.roster = roster
        for part in (self._validator, self._gossip, self._sum):
            part.adopt(roster)
        return []

    def _on_config(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        config, round_id = cast("RoundConfig", packet.body), packet.header.round_id
        if round_id <= self._last_round:
            known = self._round is not None and self._round.packet == packet
            known = known or (self.model is not None and self.model.config_hash == digest_in(packet))
            return [] if known else [Reject(sender, f"round {round_id} is not after round {self._last_round}")]
        if not 1 <= config.dimension <= MAX_DIMENSION:
            return [Reject(sender, f"round {round_id} has vectors of {config.dimension} numbers")]
        effects = self._leave_round()
        self._last_round = round_id
        self._round = _Round(packet, config, opened_at=now)
        self._expected = expected_in(round_id, config, max_rows=self._settings.max_rows)
        self._gossip.expect(self._expected)
        if (again := self._resume(self._round)) is not None:
            return [*effects, *again]
        if reason := refusal(config, self._settings, self._identity.roster, self._domain, self._own_layout):
            return [*effects, *self._decline(self._round, reason, told=reason)]
        if reason := self._unpayable(config):
            return [*effects, *self._decline(self._round, reason, told=_NO_BUDGET)]
        if config.model_hash != self._model_hash:
            # It first asks for the model that the round starts from: what it was told of the past must be one thing.
            return [*effects, Send(self._basket, self._say(ModelRequest(), round_id=0))]
        return [*effects, *self._begin(self._round)]

    def _resume(self, held: _Round) -> list[Effect] | None:
        """Answer a config as before the restart; None when this client has not answered it yet."""
        past = self._past
        if past.contribution is not None and past.contribution.header.round_id == held.round_id:
            held.sent, held.state = past.contribution, ClientState.CONTRIBUTED
            return [Send(self._basket, held.sent)]
        if past.declined is not None and past.declined.header.round_id == held.round_id:
            held.told, held.state = past.declined, ClientState.DECLINED
            held.declined = cast("Declined", held.told.body).reason
            return [Send(self._basket, held.told)]
        names = (f"{self._release_id(held)}/{layer}" for layer in (_LAYER1, _LAYER2))
        if self._ledger is not None and any(map(self._ledger.knows, names)):
            # Nobody can tell whether its noise left: the charge stays, and nothing is drawn for this round again.
            return self._decline(held, f"{_RESTARTED}, after it was charged", told=_RESTARTED)
        return None

    def _begin(self, held: _Round) -> list[Effect]:
        try:
            update = self._learner.update_for(held.round_id) if self._learner else None
            return [] if update is None else self._contribute(held, update)
        except PrivacyBudgetExceeded as error:
            return self._decline(held, str(error), told=_NO_BUDGET)
        except LocalError as error:
            # What went wrong may quote a row: it stays here, and the basket hears a fixed word.
            return self._decline(held, str(error), told=_NOTHING_TO_GIVE)

    def _unpayable(self, config: RoundConfig) -> str:
        """Say that the budget is spent; what a record's release costs depends on its rows, which are not known yet."""
        if self._settings.unit is Unit.RECORD:
            return ""
        try:
            self.require_budget(config.noise, config.layer2_noise, None)
        except PrivacyBudgetExceeded as error:
            return str(error)
        return ""

    def _layout(self, config: RoundConfig) -> Layout:
        """Return the client's own layout: nobody else says what its sensitivity is."""
        return layout_under(config, self._settings, self._own_layout)

    @property
    def _own_layout(self) -> Layout | None:
        return None if self._learner is None else self._learner.layout

    # Contributing.

    def _decline(self, held: _Round, reason: str, *, told: str) -> list[Effect]:
        """Decline; `reason` is for this client's own eyes, `told` leaves and may say nothing about its data."""
        held.state, held.declined = ClientState.DECLINED, reason
        held.told = packet = self._say(Declined(told[:MAX_REASON]), held.round_id)
        event = RoundDeclined(self.client_id, held.round_id, reason)
        return [Persist(statement(DECLINED, packet)), Send(self._basket, packet), Emit(event)]

    def _contribute(self, held: _Round, update: Update) -> list[Effect]:
        # All that can be refused is refused here: a charge whose record is not carried out would break the ledger.
        check_update(update, self._settings, self._layout(held.config))
        policy = None
        if self._settings.mode is TrustMode.DISTRIBUTED:
            policy = basket_policy(held.config, self._identity.roster, self._domain)
        effects: list[Effect] = []
        if self._ledger is not None:
            noises = {_LAYER1: held.config.noise, _LAYER2: held.config.layer2_noise}
            held.reservations, entries = reserve_round(self._ledger, noises, self._release_id(held), update.rows)
            effects += [Persist(entry) for entry in entries]
        elif update.rows is not None:
            effects.append(Persist(rows_given(held.round_id, update.rows)))
        held.update = update
        if policy is not None:
            held.state = ClientState.READY
            self._sum.pin(basket_scope(self._domain), policy)
            held.told = self._say(Ready(update.weight), held.round_id)
            return [*effects, Send(self._basket, held.told)]
        return [*effects, *self._release(held, update)]

    def _release(self, held: _Round, update: Update) -> list[Effect]:
        """Noise (mode local), sign, keep, send. The charge is in the effects before this."""
        body: Contribution
        layout = self._layout(held.config)
        if self._settings.mode is TrustMode.LOCAL:
            source = self._noise_source(held.round_id)
            body = release(update, self._settings, layout, held.reservations[_LAYER1], source)
        elif self._settings.mode is TrustMode.CENTRAL:
            body = trusted_update(update, self._settings, layout)
        else:
            body = unprotected(update, layout)
        self._spend(update)
        kept, sent, made = self._hand_over(held, body)
        return [kept, sent, *self._commit(held), made]

    def _hand_over(self, held: _Round, body: Contribution) -> list[Effect]:
        """Sign a contribution, keep it, send it to the basket and to gossip."""
        held.sent = self._say(body, held.round_id)
        held.state = ClientState.CONTRIBUTED
        self._sent_digest = digest_in(held.sent)
        item = self._identity.reader.item_of(held.sent)
        self._gossip.offer(item)
        kept = Persist(Entry(CONTRIBUTION, str(held.round_id), item.encoded))
        made = Emit(ContributionMade(self.client_id, held.round_id, kind_of(body)))
        return [kept, Send(self._basket, held.sent), made]

    def _spend(self, update: Update) -> None:
        """Tell the learner that its rows are released: not before, for a round may end before noise was drawn."""
        if self._learner is not None:
            self._learner.accepted(update)

    def _noise_source(self, round_id: int) -> Callable[[int], bytes]:
        scope, epoch = basket_scope(self._domain), self._identity.roster.epoch
        return self._entropy((self.client_id, scope, epoch, round_id, 0, "noise"))

    def _commit(self, held: _Round) -> list[Effect]:
        if self._ledger is None:
            return []
        return [Persist(ledger_entry(self._ledger.commit(each))) for each in held.reservations.values()]

    def _release_id(self, held: _Round) -> str:
        return f"{self._identity.roster.federation}/{held.round_id}/{self.client_id}"

    def _leave_round(self) -> list[Effect]:
        """Give back a reservation whose noise this client never drew; what others may have noised stays spent."""
        held, self._round = self._round, None
        self._sum.abort()
        own = None if held is None else held.reservations.get(_LAYER1)
        if held is None or self._ledger is None or own is None or not own.live:
            return []
        if _LAYER2 in held.reservations and held.update is not None:
            # What stays spent on Layer 2 is spent for these very rows: offered again, they would be refused for ever.
            self._spend(held.update)
        return [Persist(ledger_entry(self._ledger.void(own)))]

    def _on_ack(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        if cast("Ack", packet.body).digest != self._sent_digest:
            return [Reject(sender, "acknowledges nothing that this client has sent")]
        if self._round is not None and self._round.sent is not None:
            self._round.acknowledged = True
        return []

    def _unacknowledged(self) -> list[Send]:
        held = self._round
        if held is None or held.acknowledged:
            return []
        said = held.told if held.state is ClientState.READY else held.sent
        return [] if said is None else [Send(self._basket, said)]

    # The basket's secure sum.

    def _on_sum(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        held = self._round
        if held is None or held.state not in (ClientState.READY, ClientState.SUMMING):
            return [Reject(sender, f"a secure sum's message in state {self.state.value}")]
        effects, wants_input = self._sum.receive(packet, sender)
        return [*effects, *self._mask(held, packet)] if wants_input else effects

    def _mask(self, held: _Round, packet: Packet) -> list[Effect]:
        """Draw the share of the noise, sized for the survivors that this very sum demands, and hand the input over."""
        assert held.update is not None, "a client is READY only with an update"
        source, layout = self._noise_source(held.round_id), self._layout(held.config)
        try:
            vector = masked_input(
                held.update,
                self._settings,
                layout,
                held.reservations[_LAYER1],
                source,
                min_survivors=self._sum.min_survivors,
            )
            provided = self._sum.provide(vector, packet, self._basket)
        except LocalError as error:
            return [*self._leave_round(), Reject(self._basket, str(error))]
        held.state = ClientState.SUMMING
        self._spend(held.update)
        made = Emit(ContributionMade(self.client_id, held.round_id, "masked"))
        return [*self._commit(held), *provided, made]

    # The model.

    def _on_model(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        model = cast("Model", packet.body)
        if self._model_packet is not None and model.round_id <= self._model_packet.header.round_id:
            return self._same_or_proof(packet, sender)
        held = self._round
        if held is None or not model_belongs(packet, held.packet):
            self._validator.forget(packet)  # the next config may name it: then it must be able to come again
            return [Reject(sender, f"a model of round {model.round_id} that no config held here announces")]
        own = self._own_layout
        if own is not None and (model.schema_hash, model.vector.size) != (own.schema_hash, own.dimension):
            return [Reject(sender, f"the model of round {model.round_id} is not of this client's schema and dimension")]
        self._model_packet = packet
        item = self._identity.reader.item_of(packet)
        self._gossip.offer(item)
        effects = [Persist(Entry(MODEL, str(model.round_id), item.encoded)), *self._learn(model)]
        effects.append(Emit(ModelAccepted(self.client_id, model)))
        if model.round_id == held.round_id:
            return [*effects, *self._leave_round()]
        return [*effects, *self._begin(held)] if held.state is ClientState.OPEN else effects

    def _learn(self, model: Model) -> list[Effect]:
        """Give a model to the learner; one that cannot take it must not end the client, now or after a restart."""
        try:
            if self._learner is not None:
                self._learner.receive_model(model)
        except LocalError as error:
            return [Reject(COORDINATOR, f"the learner cannot take the model of round {model.round_id}: {error}")]
        return []

    def _same_or_proof(self, packet: Packet, sender: str) -> list[Effect]:
        held = cast("Packet", self._model_packet)
        if packet.header.round_id != held.header.round_id or packet.body == held.body:
            return []
        proof = [Persist(entry) for entry in Equivocation(held, packet).entries()]
        return [*proof, Reject(sender, f"a second, different model of round {packet.header.round_id}")]

    @property
    def _model_hash(self) -> bytes:
        return b"" if self._model_packet is None else digest_in(self._model_packet)

    def _on_aborted(self, packet: Packet, _sender: str, _now: float) -> list[Effect]:
        if self._round is None or packet.header.round_id != self._round.round_id:
            return []
        return self._leave_round()

    # Gossip.

    def _on_push(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        received = self._gossip.receive_push(cast("GossipPush", packet.body), sender)
        effects: list[Effect] = list(received.rejects)
        for proof in received.proofs:
            if proof.author not in self._proven:  # one is enough: who signs a thousand more must not fill the disk
                self._proven.add(proof.author)
                effects += [Persist(entry) for entry in proof.entries()]
        for item in received.new:
            if not item.is_contribution:
                effects += self._on_model(item.packet, sender, now)
        return effects

    def _on_pull(self, packet: Packet, sender: str, _now: float) -> list[Effect]:
        answer = self._gossip.answer_pull(cast("GossipPull", packet.body), sender)
        return [] if answer is None else [self._send(sender, answer)]

    def _arm_gossip(self, now: float) -> list[Effect]:
        return [SetTimer(_PUSH, now + self._settings.gossip_s), SetTimer(_PULL, now + self._settings.gossip_s)]

    # Its place in the federation.

    def _say(self, body: Body, round_id: int) -> Packet:
        return self._identity.say(basket_scope(self._domain), round_id, body)

    def _send(self, to: str, body: Body) -> Send:
        return Send(to, self._say(body, self._last_round))

    _HANDLERS: ClassVar[Mapping[type, Callable[[ClientCore, Packet, str, float], list[Effect]]]] = {
        RosterNotice: _on_roster,
        RoundConfig: _on_config,
        SecureSum: _on_sum,
        Ack: _on_ack,
        Model: _on_model,
        Aborted: _on_aborted,
        GossipPush: _on_push,
        GossipPull: _on_pull,
    }
