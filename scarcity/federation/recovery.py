"""What a role finds in its journal after a crash: the past of a client, a basket and the coordinator, as values.

Each role writes a record before what depends on it leaves (`effects.Persist`), so a restarted role knows at least what
its peers can have heard of it. Here the records of the kinds below are read back; the cores act on them. The rule that
all of them keep: a statement that may have left is said again in the same bytes, or not at all.

    kind         who writes it             before what                       content
    config       coordinator, basket       it is sent, or passed on          the signed RoundConfig
    contribution client                    it is sent                        the signed contribution
    declined     client                    it is sent                        the signed Declined
    receipt      basket                    the Ack                           the member's signed contribution
    sum-opened   basket, coordinator       the config of the sum it hosts    round and attempt
    sum-mark     client, basket            its Advertise, its Masked         scope, epoch, round, attempt (`sums`)
    aggregate    basket                    BasketReport or Absent            the statement, the vector (see `Outcome`)
    aborted      coordinator, basket       it is sent, or passed on          the signed Aborted
    model        all                       it is sent, passed on or merged   the signed Model
    ledger       client, coordinator       noise is drawn                    the ledger's record (`privacy_guard`)
    rows         client of mode none       its contribution is sent          the interval of rows; there is no ledger
    equivocation client, basket            -                                 both halves of a proof

Trusts: that the disk keeps what it has synced, in order. A journal that was cut back to an earlier state is out of
scope here as it is for the ledger. A torn last record cannot occur in the journal of `scarcity.node`; a payload that
does not decode is damage, and raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgpack
import numpy as np

from scarcity.errors import CodecError, LedgerCorrupt
from scarcity.federation.buffer import UpdateBuffer
from scarcity.federation.codec import decode_packet, encode_packet
from scarcity.federation.content import Expected
from scarcity.federation.effects import Entry
from scarcity.federation.packets import CONTRIBUTIONS, Absent, Aggregate, BasketReport, FloatArray, IntArray, Packet
from scarcity.federation.privacy_guard import LEDGER, ledger_rows_end
from scarcity.federation.refusals import Code, code_of
from scarcity.federation.validator import Validator

CONFIG = "config"
CONTRIBUTION = "contribution"
DECLINED = "declined"
RECEIPT = "receipt"
SUM_OPENED = "sum-opened"
OUTCOME = "aggregate"
ABORTED = "aborted"
MODEL = "model"
EQUIVOCATION = "equivocation"
ROWS = "rows"

Journal = Mapping[str, Sequence[bytes]]


def statement(kind: str, packet: Packet) -> Entry:
    """Return a signed packet as an entry of its author's (or receiver's) journal."""
    return Entry(kind, str(packet.header.round_id), encode_packet(packet))


def sum_opened(round_id: int, attempt: int) -> Entry:
    """Return the entry that a host makes durable before the config of a sum leaves."""
    return Entry(SUM_OPENED, f"{round_id}/{attempt}", bytes(msgpack.packb([round_id, attempt])))


def _packets(journal: Journal, kind: str) -> tuple[Packet, ...]:
    return tuple(_read(kind, decode_packet, payload) for payload in journal.get(kind, ()))


def _read(kind: str, decode: Any, payload: bytes) -> Any:
    try:
        return decode(payload)
    except (CodecError, ValueError, TypeError, KeyError, IndexError) as error:
        raise LedgerCorrupt(f"the journal's record of kind {kind!r} cannot be read: {error}") from error


def _last(journal: Journal, kind: str) -> Packet | None:
    """Return the newest statement of a kind: roles say them in the order of rounds, so the others need no reading."""
    kept = journal.get(kind, ())
    packet: Packet | None = _read(kind, decode_packet, kept[-1]) if kept else None
    return packet


def _round_of(packet: Packet | None) -> int:
    return 0 if packet is None else packet.header.round_id


def rows_given(round_id: int, rows: tuple[int, int]) -> Entry:
    """Return the entry that keeps a client without ledger from giving its rows twice."""
    return Entry(ROWS, str(round_id), bytes(msgpack.packb(list(rows))))


def rows_spent_until(journal: Journal) -> int:
    """Return the end of the rows that a client has given: charged and not given back, or sent in mode none; 0: none.

    A learner that reads its rows again after a crash starts its next increment here, or the ledger refuses it for ever.

    Raises:
        LedgerCorrupt: the ledger is damaged.
    """
    given: list[int] = [_read(ROWS, _two_numbers, payload)[1] for payload in journal.get(ROWS, ())]
    return max([ledger_rows_end(list(journal.get(LEDGER, ()))), *given])


@attrs.frozen
class ClientPast:
    """What a client has said and learnt.

    Attributes:
        contribution: the newest one; whether it was acknowledged is not kept, asking again is harmless.
        declined: the newest Declined.
        models: all models, oldest first: a learner in memory wants each of them again.
    """

    contribution: Packet | None = None
    declined: Packet | None = None
    models: tuple[Packet, ...] = ()

    @property
    def last_round(self) -> int:
        """The newest round that is over for this client: an older one is not entered again."""
        return max(
            _round_of(self.models[-1] if self.models else None),
            _round_of(self.contribution) - 1,
            _round_of(self.declined) - 1,
        )


def client_past(journal: Journal) -> ClientPast:
    """Read a client's journal (the ledger and the marks have readers of their own).

    Raises:
        LedgerCorrupt: a record cannot be read.
    """
    return ClientPast(_last(journal, CONTRIBUTION), _last(journal, DECLINED), _packets(journal, MODEL))


@attrs.frozen
class Outcome:
    """How a round ended for a basket, durable before the statement leaves.

    What is on the basket's disk: mode local, the rule's result over releases; distributed, the opened sum with the
    members' noise in it; none, the plain sum. In mode central the aggregate is clean, as are the receipts beside it:
    the basket's disk holds its members' clean vectors, which is what mode central trusts it with.

    Attributes:
        statement: the signed BasketReport or Absent.
        aggregate: with its vector; None when absent.
        taken: (client, round) of the buffered contributions that were used up; None when the buffer was not closed.
    """

    statement: Packet
    aggregate: Aggregate | None = None
    taken: tuple[tuple[str, int], ...] | None = None

    @property
    def round_id(self) -> int:
        """The round."""
        return self.statement.header.round_id

    def entry(self) -> Entry:
        """Return the entry of the basket's journal."""
        made = None
        if (a := self.aggregate) is not None:
            dtype = "<i8" if a.total.dtype == np.int64 else "<f8"
            made = [dtype, a.total.astype(dtype).tobytes(), a.weight, a.count, a.rule, a.noise_variance]
        payload = msgpack.packb([encode_packet(self.statement), made, self.taken])
        return Entry(OUTCOME, str(self.round_id), bytes(payload))


def _outcome(payload: bytes) -> Outcome:
    statement, made, taken = msgpack.unpackb(payload)
    aggregate = None
    if made is not None:
        dtype, total, weight, count, rule, variance = made
        vector: IntArray | FloatArray = np.frombuffer(total, dtype="<f8").astype(np.float64)
        if dtype == "<i8":
            vector = np.frombuffer(total, dtype="<i8").astype(np.int64)
        aggregate = Aggregate(vector, weight, count, rule, variance)
    packet = decode_packet(statement)
    if not isinstance(packet.body, BasketReport | Absent):
        raise CodecError(f"the outcome of a round is no {type(packet.body).__name__}")
    return Outcome(packet, aggregate, None if taken is None else tuple((name, at) for name, at in taken))


@attrs.frozen
class BasketPast:
    """What a basket has promised and said.

    Attributes:
        config: of the newest round.
        outcome: of that round, None while it is open.
        sum_opened: whether that round's sum inside the basket was begun.
        model: the newest model.
        receipts: the acknowledged contributions that may still count, oldest first.
        proofs: packets of equivocations, pairwise.
        aborted_round: the newest round that was given up, 0 before the first.
        closed: the newest round in which the buffer was closed, 0 before the first.
        used: client -> newest round of its contributions that are used up.
    """

    config: Packet | None = None
    outcome: Outcome | None = None
    sum_opened: bool = False
    model: Packet | None = None
    receipts: tuple[Packet, ...] = ()
    proofs: tuple[Packet, ...] = ()
    aborted_round: int = 0
    closed: int = 0
    used: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the newest round has its model, or was given up."""
        return self.config is not None and _round_of(self.config) <= max(_round_of(self.model), self.aborted_round)

    def replay(
        self, validator: Validator, buffer: UpdateBuffer[Packet], expected: Expected | None, now: float
    ) -> list[Packet]:
        """Feed the receipts to a new validator and buffer, as if they came now, and take out who has equivocated.

        Returns:
            The contributions that are known again.
        """
        if self.closed:
            buffer.resume(self.closed, self.used)
        again: list[Packet] = []
        for packet in self.receipts:
            refusal = validator.check(packet, packet.header.sender, now, expected)
            # A roster that came while the basket was down changes nothing about what it had acknowledged before.
            if refusal is None or code_of(refusal) is Code.STALE_ROSTER:
                buffer.add(packet.header.sender, packet.header.round_id, packet)
            if refusal is None:
                again.append(packet)
        for packet in self.proofs:
            refusal = validator.check(packet, packet.header.sender, now, expected)
            if refusal and code_of(refusal) is Code.EQUIVOCATION and isinstance(packet.body, CONTRIBUTIONS):
                buffer.remove(packet.header.sender, packet.header.round_id)
        return again


def basket_past(journal: Journal, max_staleness: int) -> BasketPast:
    """Read a basket's journal (the marks of Layer 2 have a reader of their own).

    Args:
        journal: the basket's.
        max_staleness: rounds after which a contribution is worthless; older receipts are left out.

    Raises:
        LedgerCorrupt: a record cannot be read.
    """
    config = _last(journal, CONFIG)
    outcomes = [_read(OUTCOME, _outcome, payload) for payload in journal.get(OUTCOME, ())]
    used: dict[str, int] = {}
    for outcome in outcomes:
        for name, round_id in outcome.taken or ():
            used[name] = max(round_id, used.get(name, 0))
    return BasketPast(
        config,
        next((outcome for outcome in reversed(outcomes) if outcome.round_id == _round_of(config)), None),
        any(round_id == _round_of(config) for round_id, _ in _sums_opened(journal)),
        _last(journal, MODEL),
        _receipts(journal, _round_of(config) - 2 * max_staleness - 1),
        _packets(journal, EQUIVOCATION),
        _round_of(_last(journal, ABORTED)),
        max((outcome.round_id for outcome in outcomes if outcome.taken is not None), default=0),
        used,
    )


def _receipts(journal: Journal, oldest: int) -> tuple[Packet, ...]:
    """Return the receipts from the end back to the first that is older than `oldest`.

    A receipt was written while its round was at most max_staleness old, or one ahead: what lies before a receipt of two
    times that age is stale.
    """
    found: list[Packet] = []
    for payload in reversed(journal.get(RECEIPT, ())):
        packet: Packet = _read(RECEIPT, decode_packet, payload)
        if packet.header.round_id < oldest:
            break
        found.append(packet)
    return tuple(reversed(found))


def _sums_opened(journal: Journal) -> list[tuple[int, int]]:
    return [_read(SUM_OPENED, _two_numbers, payload) for payload in journal.get(SUM_OPENED, ())]


def _two_numbers(payload: bytes) -> tuple[int, int]:
    first, second = msgpack.unpackb(payload)
    if type(first) is not int or type(second) is not int:
        raise TypeError(f"expected two whole numbers, got {first!r} and {second!r}")
    return first, second


@attrs.frozen
class CoordinatorPast:
    """What the coordinator has signed.

    Attributes:
        config: of the newest round.
        num_rounds: rounds that were opened.
        num_attempts: sums of Layer 2 that were begun in the newest round.
        model: the newest model.
        aborted: of the newest round that was given up.
    """

    config: Packet | None = None
    num_rounds: int = 0
    num_attempts: int = 0
    model: Packet | None = None
    aborted: Packet | None = None

    @property
    def ended_by(self) -> Packet | None:
        """The Model or Aborted of the newest round, None while it is open."""
        ends = (packet for packet in (self.model, self.aborted) if packet is not None)
        return next((packet for packet in ends if _round_of(packet) == _round_of(self.config)), None)


def coordinator_past(journal: Journal) -> CoordinatorPast:
    """Read the coordinator's journal (its ledger has a reader of its own).

    Raises:
        LedgerCorrupt: a record cannot be read.
    """
    newest = _last(journal, CONFIG)
    return CoordinatorPast(
        newest,
        len(journal.get(CONFIG, ())),
        1 + max((attempt for round_id, attempt in _sums_opened(journal) if round_id == _round_of(newest)), default=-1),
        _last(journal, MODEL),
        _last(journal, ABORTED),
    )
