"""The coordinator's side: `CoordinatorCore` opens rounds and hosts Layer 2's secure sum.

Who sends what when:

    state       comes                               goes                                              next
    IDLE        open_round (the driver)             [Persist], RoundConfig to the baskets             COLLECTING
    COLLECTING  BasketReport, Absent: all are in,   [Persist], the config of Layer 2's sum            SUMMING
                or patience_s is over
    COLLECTING  fewer than min_baskets              [Persist], Aborted                                IDLE
    SUMMING     SecureSum of a basket               the sum's messages; opened: [Persist], Model      IDLE
    SUMMING     the sum fails                       once more with those that remain, then Aborted    SUMMING, IDLE

It sees baskets' masked aggregates and their sum. It is trusted to be available and to report the right sum; it is not
trusted with anything else: it signs one config and one model a round, and two of either are a proof against it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import ClassVar, cast

import attrs

from scarcity.errors import LocalError, PrivacyBudgetExceeded
from scarcity.federation.basket import BasketManager
from scarcity.federation.codec import digest_in, kind_of
from scarcity.federation.content import Expected, expected_in
from scarcity.federation.effects import (
    Effect,
    Emit,
    EntropySource,
    ModelMade,
    Persist,
    Reject,
    RoundAborted,
    Send,
    SetTimer,
    Waiting,
)
from scarcity.federation.identity import Identity
from scarcity.federation.layers import model_of_sum
from scarcity.federation.packets import (
    LAYER2,
    MAX_REASON,
    Aborted,
    Absent,
    BasketReport,
    Body,
    IntArray,
    Model,
    ModelRequest,
    NoiseTerms,
    Packet,
    RosterNotice,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustMode,
)
from scarcity.federation.privacy_guard import Layout, PrivacyFilter, event_of, ledger_entry, noised_sum
from scarcity.federation.recovery import ABORTED, CONFIG, MODEL, CoordinatorPast, statement, sum_opened
from scarcity.federation.refusals import Code, code_of
from scarcity.federation.roster import Roster
from scarcity.federation.secure_aggregation import EpochKeys
from scarcity.federation.sums import TIMER as SUM_TIMER
from scarcity.federation.sums import SumHost, open_layer2_sum
from scarcity.federation.validator import Validator, ValidatorLimits

_PATIENCE, _NEXT = "baskets", "next-round"
_ATTEMPTS = 2  # an abort is retried once with the baskets that remain


class CoordinatorState(enum.Enum):
    """Where the coordinator stands."""

    IDLE = "idle"
    COLLECTING = "collecting"
    SUMMING = "summing"


@attrs.frozen
class RoundTerms:
    """What every round of a federation is about.

    Attributes:
        noise: of one contribution.
        layer2_noise: of the sum over baskets.
        layout: of the vectors.
    """

    noise: NoiseTerms
    layer2_noise: NoiseTerms
    layout: Layout


@attrs.define(eq=False)
class _Round:
    """The round in hand."""

    round_id: int
    config: RoundConfig
    opened_at: float
    expected: tuple[str, ...]
    reports: dict[str, BasketReport] = attrs.field(factory=dict)
    absent: dict[str, str] = attrs.field(factory=dict)
    attempt: int = 0
    host: SumHost | None = None


def _release_id(round_id: int) -> str:
    """Return the name of a round's noise in Layer 2's ledger: one a round, whatever the attempt."""
    return f"round {round_id}"


class CoordinatorCore:
    """The protocol of the coordinator, pure: packets and instants in, effects out.

    Args:
        identity: the coordinator's voice.
        settings: the rules of every round.
        ledger: its copy of Layer 2's ledger; None in mode none.
        entropy: source of Layer 2's noise.
        terms: what rounds are about; None until the first update fixes it (`open_round` needs it).
        rounds: how many rounds open by themselves, each after the one before, those before a restart included; 0: only
            `open_round` opens one.
        limits: bounds of what it takes from each peer.
        interval_s: pause between the end of a round and the opening of the next; 0: none.
        gather_s: how long the first round waits for every expected basket to ask for the model; 0: not at all.
        past: what it has signed before a restart, read from the journal.
    """

    def __init__(
        self,
        identity: Identity,
        settings: RoundSettings,
        *,
        ledger: PrivacyFilter | None,
        entropy: EntropySource,
        terms: RoundTerms | None = None,
        rounds: int = 0,
        limits: ValidatorLimits | None = None,
        interval_s: float = 0.0,
        gather_s: float = 0.0,
        past: CoordinatorPast | None = None,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._ledger = ledger
        self._entropy = entropy
        self._terms = terms
        self._past = past = CoordinatorPast() if past is None else past
        self._rounds_left = rounds - past.num_rounds
        self._interval_s = interval_s
        self._gather_s = gather_s
        self._resting: Waiting | None = None  # between rounds, and while baskets gather
        self._round: _Round | None = None
        self._last_round = 0 if past.config is None else past.config.header.round_id
        self._expected: Expected | None = None
        self._validator = Validator(identity.member_id, identity.roster, limits, identity.reader)
        self._epoch_keys = EpochKeys()
        self._roster_packet: Packet | None = None
        self._next_roster: tuple[Roster, bytes] | None = None
        self._config_packet = past.config
        self._model_packet = past.model
        self._aborted_packet = past.aborted

    # What drivers call.

    def start(self, now: float) -> list[Effect]:
        """Open the first round, where rounds open by themselves; after a restart, take the newest one up again."""
        ended_by, last = self._past.ended_by, self._past.config
        if last is not None and ended_by is None:
            return self._resume(last, now)
        again = [] if ended_by is None else self._to_baskets(ended_by)
        return [*again, *self._gather(now)]

    def _resume(self, packet: Packet, now: float) -> list[Effect]:
        """Ask for the outcomes of an open round again with the same config, or give the round up and say why."""
        config, round_id, attempt = cast("RoundConfig", packet.body), packet.header.round_id, self._past.num_attempts
        expected = BasketManager(self._identity.roster, self._settings.min_clients).expected
        self._round = held = _Round(round_id, config, now, expected, attempt=attempt)
        self._expected = expected_in(round_id, config, max_rows=self._settings.max_rows)
        if reason := self._lost(config, round_id, attempt):
            return self._abort(held, f"the coordinator was restarted: {reason}", now)
        return [*self._to_baskets(packet), SetTimer(_PATIENCE, now + self._settings.patience_s)]

    def _lost(self, config: RoundConfig, round_id: int, attempt: int) -> str:
        """Say why a round cannot go on after a restart, empty if it can."""
        if config.settings != self._settings or config.roster_root != self._identity.roster.root:
            return "the settings or the roster are others than the round's"
        if self._ledger is not None and self._ledger.knows(_release_id(round_id)):
            return "Layer 2's noise was charged, and the model it was drawn for is lost"
        if attempt and config.settings.mode is TrustMode.CENTRAL:
            return "the sum over clean aggregates had begun, and they are not summed twice"
        return f"it was restarted in attempt {attempt} of Layer 2" if attempt >= _ATTEMPTS else ""

    def _gather(self, now: float) -> list[Effect]:
        """Give every expected basket the time to come up before a round opens."""
        expected = BasketManager(self._identity.roster, self._settings.min_clients).expected
        # Only before the first round: baskets that stayed up while the coordinator was restarted do not ask again.
        if self._last_round or self._rounds_left < 1 or not self._gather_s > 0 or not expected:
            return self._next_round(now)
        return self._rest("baskets to come up", expected, now, now + self._gather_s)

    def _rest(self, what: str, missing: tuple[str, ...], now: float, until: float) -> list[Effect]:
        need = len(missing)
        self._resting = Waiting(self._identity.member_id, what, 0, need, missing, now, until)
        return [SetTimer(_NEXT, until)]

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a packet; whatever a peer sends, the answer is effects."""
        if refusal := self._validator.check(packet, sender, now, self._expected):
            return [] if code_of(refusal) is Code.DUPLICATE else [refusal]
        handle = self._HANDLERS.get(type(packet.body))
        if handle is None:
            return [Reject(sender, f"the coordinator takes no {kind_of(packet.body)}")]
        return handle(self, packet, sender, now)

    def fire(self, timer: str, now: float) -> list[Effect]:
        """End a stage of the sum, stop waiting for baskets, or open the next round."""
        if timer == _NEXT:
            return self._open_next(now)
        held = self._round
        if held is None or timer != (_PATIENCE if held.host is None else SUM_TIMER):
            return []
        return self.close_stage(now)

    def close_stage(self, now: float) -> list[Effect]:
        """Stop waiting: go on with those that are there."""
        held = self._round
        if held is None:
            return []
        if held.host is not None:
            return [*held.host.close_stage(now), *self._outcome(held, now)]
        for basket in held.expected:
            if basket not in held.reports:
                held.absent.setdefault(basket, "silent")
        return self._open_sum(held, now)

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what the coordinator waits for."""
        held = self._round
        if held is None:
            return () if self._resting is None else (self._resting,)
        if held.host is not None:
            return held.host.waiting(self._identity.member_id)
        missing = tuple(b for b in held.expected if b not in held.reports and b not in held.absent)
        until = held.opened_at + self._settings.patience_s
        heard, expected = len(held.expected) - len(missing), len(held.expected)
        return (
            Waiting(self._identity.member_id, "baskets' aggregates", heard, expected, missing, held.opened_at, until),
        )

    # What its owner calls.

    @property
    def state(self) -> CoordinatorState:
        """Where the coordinator stands."""
        if self._round is None:
            return CoordinatorState.IDLE
        return CoordinatorState.COLLECTING if self._round.host is None else CoordinatorState.SUMMING

    @property
    def round_id(self) -> int:
        """The newest round, 0 before the first."""
        return self._last_round

    @property
    def model(self) -> Model | None:
        """The newest model."""
        return None if self._model_packet is None else cast("Model", self._model_packet.body)

    def set_terms(self, terms: RoundTerms) -> None:
        """Say what the next rounds are about."""
        self._terms = terms

    def adopt(self, roster: Roster, signature: bytes) -> None:
        """Take a newer roster, with the operator's signature; it is in force from the next round on.

        Raises:
            LocalError: a round is open.
        """
        if self._round is not None:
            raise LocalError("a roster takes effect between rounds; a round is open")
        self._identity.roster = roster
        self._validator.adopt(roster)
        self._epoch_keys = EpochKeys()
        self._roster_packet = self._say(RosterNotice(roster.canonical, signature), 0)

    def renew(self, roster: Roster, signature: bytes) -> None:
        """Take a newer roster now, or, while a round is open, before the next one."""
        if self._round is None:
            self.adopt(roster, signature)
        else:
            self._next_roster = (roster, signature)

    def open_round(self, now: float) -> list[Effect]:
        """Open the next round.

        Raises:
            LocalError: a round is open, or nobody has said what rounds are about.
        """
        if self._round is not None:
            raise LocalError(f"round {self._round.round_id} is open")
        if self._terms is None:
            raise LocalError("the first update fixes the schema; none has come")
        if self._next_roster is not None:
            self.adopt(*self._next_roster)
            self._next_roster = None
        self._resting = None
        self._last_round += 1
        terms, roster = self._terms, self._identity.roster
        model_hash = digest_in(self._model_packet) if self._model_packet else b""
        config = RoundConfig(
            self._settings,
            terms.noise,
            terms.layout.schema_hash,
            terms.layout.dimension,
            roster.root,
            model_hash,
            terms.layer2_noise,
        )
        expected = BasketManager(roster, self._settings.min_clients).expected
        self._round = _Round(self._last_round, config, now, expected)
        self._expected = expected_in(self._last_round, config, max_rows=self._settings.max_rows)
        self._config_packet = self._say(config, self._last_round)
        pushed = [self._roster_packet] if self._roster_packet is not None else []
        sends = [Send(b.id, p) for p in (*pushed, self._config_packet) for b in roster.baskets]
        kept = Persist(statement(CONFIG, self._config_packet))
        return [kept, *sends, SetTimer(_PATIENCE, now + self._settings.patience_s)]

    # A round.

    def _on_report(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or packet.header.round_id != held.round_id or held.host is not None:
            return [Reject(sender, f"a report for round {packet.header.round_id} in state {self.state.value}")]
        report, roster = cast("BasketReport", packet.body), self._identity.roster
        members = len(roster.clients_of(roster.member(sender).domain))
        if report.count > members:
            return [Reject(sender, f"a report of {report.count} contributions from a basket of {members}")]
        held.reports[sender] = report
        return self._evaluate(held, now)

    def _on_absent(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or packet.header.round_id != held.round_id or held.host is not None:
            return [Reject(sender, f"absent from round {packet.header.round_id} in state {self.state.value}")]
        held.absent[sender] = cast("Absent", packet.body).reason
        return self._evaluate(held, now)

    def _evaluate(self, held: _Round, now: float) -> list[Effect]:
        heard = set(held.reports) | set(held.absent)
        return self._open_sum(held, now) if heard.issuperset(held.expected) else []

    def _open_sum(self, held: _Round, now: float) -> list[Effect]:
        """Begin Layer 2 over the baskets that are present."""
        present = tuple(sorted(held.reports))
        if len(present) < self._settings.min_baskets:
            return self._abort(held, self._why_absent(held), now)
        held.host = open_layer2_sum(self._identity, held.config, held.round_id, held.attempt, present, self._epoch_keys)
        # Durable first: a restarted coordinator must not begin two sums in one context.
        begun: list[Effect] = [Persist(sum_opened(held.round_id, held.attempt)), SetTimer(_PATIENCE, float("inf"))]
        return [*begun, *held.host.open(now), *self._outcome(held, now)]

    def _why_absent(self, held: _Round) -> str:
        reasons = "; ".join(f"{basket}: {reason}" for basket, reason in sorted(held.absent.items()))
        return f"{len(held.reports)} of {len(held.expected)} baskets are present ({reasons or 'none is expected'})"

    def _on_sum(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        held = self._round
        if held is None or held.host is None or packet.header.round_id != held.round_id:
            return [Reject(sender, f"a secure sum's message in state {self.state.value}")]
        return [*held.host.receive(packet, sender, now), *self._outcome(held, now)]

    def _outcome(self, held: _Round, now: float) -> list[Effect]:
        """Make the model once the sum is open; retry a sum that failed, once, with the baskets that remain."""
        host = held.host
        if host is None or (host.failed is None and host.result is None):
            return []
        if host.result is not None:
            return self._finish(held, now)
        held.attempt += 1
        for basket in host.silent:
            held.absent[basket] = f"silent at stage {host.silent[basket]} of Layer 2"
            held.reports.pop(basket, None)
        if held.attempt >= _ATTEMPTS:
            return self._abort(held, f"Layer 2 failed twice: {host.failed}", now)
        return self._open_sum(held, now)

    def _finish(self, held: _Round, now: float) -> list[Effect]:
        result = cast("SumHost", held.host).result
        assert result is not None, "a round is finished by an opened sum"
        try:
            charged, total = self._noised(held, result.vector)
        except (PrivacyBudgetExceeded, LocalError) as error:
            return self._abort(held, f"Layer 2's noise cannot be charged: {error}", now)
        reports = [held.reports[basket] for basket in result.survivors]
        model = model_of_sum(total, reports, config=held.config, round_id=held.round_id)
        packet = self._model_packet = self._say(model, held.round_id)
        kept = Persist(statement(MODEL, packet))
        self._round = None
        made = Emit(ModelMade(model, result.survivors))
        return [*charged, kept, *self._to_baskets(packet), made, *self._next_round(now)]

    def _noised(self, held: _Round, total: IntArray) -> tuple[list[Effect], IntArray]:
        """Add Layer 2's noise where the round has any; its record is durable before the model leaves."""
        noise, terms = held.config.layer2_noise, self._terms
        if not noise.sigma > 0:
            return [], total
        assert terms is not None, "an open round has terms"
        assert self._ledger is not None, "a round with noise has a ledger"
        scope, epoch, rows = LAYER2, self._identity.roster.epoch, (held.round_id, held.round_id + 1)
        reservation, record = self._ledger.reserve(event_of(noise), _release_id(held.round_id), scope, rows)
        source = self._entropy((self._identity.member_id, scope, epoch, held.round_id, held.attempt, "noise"))
        noised = noised_sum(total, noise, terms.layout, reservation, source)
        records = (record, self._ledger.commit(reservation))
        return [Persist(ledger_entry(each)) for each in records], noised

    def _abort(self, held: _Round, reason: str, now: float) -> list[Effect]:
        told = self._aborted_packet = self._say(Aborted(reason[:MAX_REASON]), held.round_id)
        self._round = None
        event = RoundAborted(held.round_id, reason, len(held.reports), max(self._settings.min_baskets, 1))
        off: list[Effect] = [Persist(statement(ABORTED, told)), SetTimer(SUM_TIMER, float("inf"))]
        return [*off, *self._to_baskets(told), Emit(event), *self._next_round(now)]

    def _next_round(self, now: float) -> list[Effect]:
        if self._rounds_left > 0 and self._interval_s > 0 and self._last_round:
            return self._rest("the next round's time", (), now, now + self._interval_s)
        return self._open_next(now)

    def _open_next(self, now: float) -> list[Effect]:
        if self._rounds_left < 1 or self._round is not None:
            return []
        self._rounds_left -= 1
        return self.open_round(now)

    def _on_model_request(self, _packet: Packet, sender: str, now: float) -> list[Effect]:
        """Tell a basket what it missed: roster, newest round, last model, in the order in which it can use them."""
        aborted = self._aborted_packet
        if aborted is not None and aborted.header.round_id != self._last_round:
            aborted = None
        known = (self._roster_packet, self._config_packet, aborted, self._model_packet)
        return [*(Send(sender, packet) for packet in known if packet is not None), *self._came_up(sender, now)]

    def _came_up(self, basket: str, now: float) -> list[Effect]:
        """Cross a basket off the list of those that are waited for, and open the round once it is empty."""
        resting = self._resting
        if resting is None or basket not in resting.missing:
            return []
        missing = tuple(name for name in resting.missing if name != basket)
        self._resting = attrs.evolve(resting, have=resting.have + 1, missing=missing)
        return [] if missing else [SetTimer(_NEXT, float("inf")), *self._open_next(now)]

    # Its voice.

    def _to_baskets(self, packet: Packet) -> list[Effect]:
        return [Send(basket.id, packet) for basket in self._identity.roster.baskets]

    def _say(self, body: Body, round_id: int) -> Packet:
        return self._identity.say(LAYER2, round_id, body)

    _HANDLERS: ClassVar[Mapping[type, Callable[[CoordinatorCore, Packet, str, float], list[Effect]]]] = {
        BasketReport: _on_report,
        Absent: _on_absent,
        SecureSum: _on_sum,
        ModelRequest: _on_model_request,
    }
