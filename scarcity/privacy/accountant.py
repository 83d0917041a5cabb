"""The filter that admits or refuses a release, and the accountant that is the filter with a durable ledger.

`PrivacyFilter` is pure: it decides and returns the record to be written; a protocol core holds it and returns the
record as an effect. `PrivacyAccountant` writes the record itself, before it hands the reservation out. There is no
await anywhere between check and append.

Law: a Gaussian release with sensitivity / sigma = mu is mu-GDP, and adaptively chosen ones compose to the root of the
sum of squares (Dong, Roth & Su 2022). Stopping before that sum exceeds mu_max(epsilon, delta)^2 gives (epsilon,
delta)-DP even when every sigma and the next query depend on what was released before (fully adaptive filter: Smith &
Thakurta 2022; Koskela et al. 2023). Unit RECORD: only releases whose interval of rows contains a record compose for
it, so the sum is a maximum over rows. All sums are sums of integers rounded up (calibration.CHARGE_BITS): exact,
whatever the order.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NoReturn

import attrs

from scarcity.errors import BudgetError, LedgerCorrupt, LocalError, PrivacyBudgetExceeded, UnsupportedEvent
from scarcity.privacy.calibration import allowance, charge, epsilon_of, epsilon_within, root_down, root_up
from scarcity.privacy.events import GaussianEvent, NeighboringRelation, PrivacyParams, PrivacyUnit
from scarcity.privacy.ledger import (
    GENESIS_HASH,
    LedgerRecord,
    LedgerStore,
    LedgerTerms,
    MemoryLedgerStore,
    RecordState,
    Rows,
    seal,
    verify_chain,
)

# Ids and purposes are stored with every record: long enough for a hash and a sentence, short enough to bound the
# ledger.
_TEXT_MAX = 256


class _Stage(enum.Enum):
    RESERVED = "reserved"
    DRAWN = "drawn"
    COMMITTED = "committed"
    VOID = "void"


# Handed to `Reservation` by filters alone, so that nobody makes an uncharged one by accident.
_ISSUER = object()


@attrs.define(eq=False, init=False)
class Reservation:
    """The right to draw the noise of one release, once. Only a filter makes one, and it cannot be copied.

    Attributes:
        ledger_id: the ledger that was charged.
        release_id: the release it was charged for.
        event: what was charged.
        rows: the interval that was charged, None for every row.
    """

    ledger_id: str = attrs.field(on_setattr=attrs.setters.frozen)
    release_id: str = attrs.field(on_setattr=attrs.setters.frozen)
    event: GaussianEvent = attrs.field(on_setattr=attrs.setters.frozen)
    rows: Rows | None = attrs.field(on_setattr=attrs.setters.frozen)
    _stage: _Stage = attrs.field(default=_Stage.RESERVED, init=False)

    def __init__(
        self, ledger_id: str, release_id: str, event: GaussianEvent, rows: Rows | None, *, issuer: object
    ) -> None:
        if issuer is not _ISSUER:
            raise LocalError("only the reserve() of a filter or accountant makes a reservation")
        self.__attrs_init__(ledger_id, release_id, event, rows)

    def __reduce__(self) -> NoReturn:
        # A copy would have a life of its own: draw with one, void the other. Copying and pickling come through here.
        raise LocalError("a reservation cannot be copied")

    @property
    def live(self) -> bool:
        """Whether noise may still be drawn under it."""
        return self._stage is _Stage.RESERVED

    def mark_drawn(self) -> None:
        """Note that its noise is about to be drawn; from here on it cannot be voided.

        Raises:
            LocalError: noise was drawn before, or the reservation is committed or void.
        """
        self._advance(_Stage.DRAWN, {_Stage.RESERVED})

    def _advance(self, to: _Stage, allowed: set[_Stage]) -> None:
        if self._stage not in allowed:
            raise LocalError(f"release {self.release_id!r} is {self._stage.value} and cannot become {to.value}")
        self._stage = to


def _check_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX:
        raise LocalError(f"{name} must be text of 1 to {_TEXT_MAX} characters, got {value!r}")
    return value


def _check_rows(rows: object) -> Rows | None:
    if rows is None:
        return None
    if not isinstance(rows, tuple) or len(rows) != 2 or any(type(end) is not int for end in rows):
        raise LocalError(f"rows must be a pair of integers [first, end), got {rows!r}")
    first, end = rows
    if not 0 <= first < end:
        raise LocalError(f"rows must be an interval 0 <= first < end, got {rows!r}")
    return first, end


class _Steps:
    """Sum of charges as a step function of the row index.

    `_starts[i]` is where level `_levels[i]` begins. Rows that arrive in order touch only the end of the two lists, so
    a stream of releases costs O(1) each beside one bisection.
    """

    def __init__(self) -> None:
        self._starts = [0]
        self._levels = [0]
        self._everywhere = 0

    def _cut(self, row: int) -> int:
        """Return the index of the step that begins at `row`, made if need be."""
        at = bisect_left(self._starts, row)
        if at == len(self._starts) or self._starts[at] != row:
            self._starts.insert(at, row)
            self._levels.insert(at, self._levels[at - 1])
        return at

    def add(self, rows: Rows | None, amount: int) -> None:
        if rows is None:
            self._everywhere += amount
            return
        first = self._cut(rows[0])
        for at in range(first, self._cut(rows[1])):
            self._levels[at] += amount

    def peak(self, rows: Rows | None) -> int:
        """Return the largest sum of any row in the interval, None for all rows."""
        if rows is None:
            return self._everywhere + max(self._levels)
        low = bisect_right(self._starts, rows[0]) - 1
        return self._everywhere + max(self._levels[low : bisect_left(self._starts, rows[1])])


class PrivacyFilter:
    """Admit a Gaussian release iff the sum of (sensitivity / sigma)^2 stays within mu_max(budget)^2.

    Args:
        budget: (epsilon, delta) for the life of the ledger. When noise is drawn from a real sampler, pass
            `mechanisms.ledger_budget(promised)`, which keeps a part of delta for the sampler.
        unit: CLIENT charges every release; RECORD charges the rows of its interval.
        relation: ZERO_OUT charges the event's sensitivity, REPLACE_ONE twice of it.
        ledger_id: name of the ledger, in every record.

    Not thread-safe. Pure: no clock, no randomness, no I/O.
    """

    def __init__(
        self,
        budget: PrivacyParams,
        *,
        unit: PrivacyUnit = PrivacyUnit.CLIENT,
        relation: NeighboringRelation = NeighboringRelation.ZERO_OUT,
        ledger_id: str = "ledger",
    ) -> None:
        self.terms = LedgerTerms(unit=unit, relation=relation, budget=budget)
        self.ledger_id = _check_text("ledger_id", ledger_id)
        self._allowance = allowance(budget)
        self._factor = 2 if relation is NeighboringRelation.REPLACE_ONE else 1
        self._spent = _Steps()
        self._states: dict[str, RecordState] = {}
        self._open: dict[str, Reservation] = {}
        self._next_seq = 0
        self._last_hash = GENESIS_HASH

    @property
    def next_seq(self) -> int:
        """The number of records so far."""
        return self._next_seq

    @property
    def last_hash(self) -> bytes:
        """The hash of the last record, zeros before the first."""
        return self._last_hash

    @property
    def spent(self) -> PrivacyParams:
        """What the dearest record (or the client) has cost so far, at the budget's delta, rounded up."""
        budget = self.terms.budget
        # While the sum is within the allowance, (epsilon, delta) itself is proven; both are upper bounds.
        found = epsilon_of(root_up(self._spent.peak(None)), budget.delta)
        within = self._spent.peak(None) <= self._allowance
        return PrivacyParams(epsilon=min(found, budget.epsilon) if within else found, delta=budget.delta)

    def remaining(self, rows: Rows | None = None) -> PrivacyParams:
        """Return the dearest single release that still fits, at the budget's delta, rounded down.

        Args:
            rows: the interval it would touch (unit RECORD); None: every row.

        Gaussian releases add up in mu squared, not in epsilon: spent plus remaining exceeds the budget's epsilon.
        """
        budget = self.terms.budget
        left = self._allowance - self._spent.peak(self._charged_rows(rows))
        epsilon = min(epsilon_within(root_down(left), budget.delta), budget.epsilon)
        return PrivacyParams(epsilon=epsilon, delta=budget.delta)

    def max_releases(self, event: GaussianEvent, rows: Rows | None = None) -> int:
        """Return how many more releases like this one are admitted, exactly: one more is refused."""
        left = self._allowance - self._spent.peak(self._charged_rows(rows))
        return max(0, left // self._charge(event))

    def admits(self, events: Iterable[GaussianEvent], rows: Rows | None = None) -> bool:
        """Say whether all of these releases together still fit, exactly; nothing is charged."""
        total = self._spent.peak(self._charged_rows(rows)) + sum(self._charge(event) for event in events)
        return total <= self._allowance

    def knows(self, release_id: str) -> bool:
        """Say whether a release of this name was charged before, whatever became of it."""
        return release_id in self._states

    def reserve(
        self, event: GaussianEvent, release_id: str, purpose: str, rows: Rows | None = None
    ) -> tuple[Reservation, LedgerRecord]:
        """Charge a release before its noise is drawn.

        Args:
            event: what will be released.
            release_id: a name never used in this ledger.
            purpose: what it is for, in words.
            rows: interval [a, b) of durable row indices that it depends on; None charges every row. Unit CLIENT
                records it and charges the client all the same.

        Returns:
            The reservation and the RESERVED record, to be durable before anything that depends on the noise leaves.

        Raises:
            UnsupportedEvent: not a GaussianEvent.
            LocalError: a bad name or interval, or a release id that was used before.
            PrivacyBudgetExceeded: it does not fit. In every case nothing is charged.
        """
        cost = self._charge(event)
        _check_text("release_id", release_id)
        _check_text("purpose", purpose)
        rows = _check_rows(rows)
        if release_id in self._states:
            raise LocalError(f"release id {release_id!r} was used before in ledger {self.ledger_id}")
        total = self._spent.peak(self._charged_rows(rows)) + cost
        if not total <= self._allowance:
            asked = f"sigma={event.sigma!r}, sensitivity={event.sensitivity!r}, rows={rows}"
            raise PrivacyBudgetExceeded(asked, str(self.remaining(rows)), self.ledger_id)
        reservation = Reservation(self.ledger_id, release_id, event, rows, issuer=_ISSUER)
        self._open[release_id] = reservation
        return reservation, self._append(reservation, purpose, RecordState.RESERVED)

    def commit(self, reservation: Reservation) -> LedgerRecord:
        """Note that the release was made, by our noise or by that of others.

        Raises:
            LocalError: not a live reservation of this filter.
        """
        self._check_own(reservation)
        reservation._advance(_Stage.COMMITTED, {_Stage.RESERVED, _Stage.DRAWN})  # noqa: SLF001  same module, one owner
        del self._open[reservation.release_id]
        return self._append(reservation, "commit", RecordState.COMMITTED)

    def void(self, reservation: Reservation) -> LedgerRecord:
        """Give back a charge under which no noise was ever drawn. Its release id stays used.

        Raises:
            LocalError: noise was drawn, or not a live reservation of this filter.
        """
        self._check_own(reservation)
        reservation._advance(_Stage.VOID, {_Stage.RESERVED})  # noqa: SLF001  same module, one owner
        del self._open[reservation.release_id]
        return self._append(reservation, "void", RecordState.VOID)

    def replay(self, records: Iterable[LedgerRecord]) -> None:
        """Take over the state that these records left; the filter must be new.

        A release that is RESERVED and no more counts as spent for ever: nobody can tell whether its noise left.

        Raises:
            LocalError: the filter is in use, or the ledger has another id, unit, relation, delta, or a smaller epsilon
                (a budget is for life; opening it with less is allowed).
            LedgerCorrupt: the chain does not hold.
        """
        if self._next_seq:
            raise LocalError(f"ledger {self.ledger_id} is in use; replay into a new filter")
        chain = list(records)
        verify_chain(chain)
        for record in chain:
            self._check_terms(record, chain[0].terms.budget.epsilon)
        for record in chain:
            self._apply(record)

    def _check_terms(self, record: LedgerRecord, epsilon_limit: float) -> None:
        held, ours = record.terms, self.terms
        same = (held.unit, held.relation, held.budget.delta) == (ours.unit, ours.relation, ours.budget.delta)
        if record.ledger_id != self.ledger_id or not same or not ours.budget.epsilon <= epsilon_limit:
            raise LocalError(
                f"ledger {record.ledger_id} was opened with {held}; it cannot be opened as {self.ledger_id} with {ours}"
            )

    def _charge(self, event: GaussianEvent) -> int:
        if type(event) is not GaussianEvent:
            raise UnsupportedEvent(f"ledger {self.ledger_id} accounts for GaussianEvent only, got {event!r}")
        cost = charge(event, factor=self._factor)
        if not cost > 0:
            raise UnsupportedEvent(f"ledger {self.ledger_id} cannot charge {event!r}")
        return cost

    def _charged_rows(self, rows: Rows | None) -> Rows | None:
        return _check_rows(rows) if self.terms.unit is PrivacyUnit.RECORD else None

    def _check_own(self, reservation: Reservation) -> None:
        if self._open.get(reservation.release_id) is not reservation:
            raise LocalError(f"release {reservation.release_id!r} is no open reservation of ledger {self.ledger_id}")

    def _append(self, reservation: Reservation, purpose: str, state: RecordState) -> LedgerRecord:
        record = seal(
            LedgerRecord(
                seq=self._next_seq,
                ledger_id=self.ledger_id,
                terms=self.terms,
                release_id=reservation.release_id,
                purpose=purpose,
                event=reservation.event,
                rows=reservation.rows,
                state=state,
                prev_hash=self._last_hash,
                hash=GENESIS_HASH,
            )
        )
        self._apply(record)
        return record

    def _apply(self, record: LedgerRecord) -> None:
        """Fold one record into the sums."""
        cost = self._charge(record.event)
        if record.state is RecordState.RESERVED:
            self._spent.add(self._charged_rows(record.rows), cost)
        elif record.state is RecordState.VOID:
            self._spent.add(self._charged_rows(record.rows), -cost)
        self._states[record.release_id] = record.state
        self._next_seq = record.seq + 1
        self._last_hash = record.hash


class PrivacyAccountant:
    """A filter whose records are durable before the caller sees its answer.

    Args:
        budget: see `PrivacyFilter`; what the store already holds counts.
        store: where the ledger lives; None keeps it in memory.
        unit: fixed when the ledger is created.
        relation: fixed when the ledger is created.
        ledger_id: fixed when the ledger is created; for a client, its public key.

    Raises:
        LocalError: the store holds a ledger with other terms.
        LedgerCorrupt: the store holds a damaged ledger.
    """

    def __init__(
        self,
        budget: PrivacyParams,
        store: LedgerStore | None = None,
        *,
        unit: PrivacyUnit = PrivacyUnit.CLIENT,
        relation: NeighboringRelation = NeighboringRelation.ZERO_OUT,
        ledger_id: str = "ledger",
    ) -> None:
        self._filter = PrivacyFilter(budget, unit=unit, relation=relation, ledger_id=ledger_id)
        self._store: LedgerStore = MemoryLedgerStore() if store is None else store
        self._filter.replay(self._store.load())
        self._failed = False

    @property
    def spent(self) -> PrivacyParams:
        """What was spent, at the budget's delta, rounded up."""
        return self._filter.spent

    def remaining(self, rows: Rows | None = None) -> PrivacyParams:
        """Return the dearest single release that still fits, rounded down."""
        return self._filter.remaining(rows)

    def max_releases(self, event: GaussianEvent, rows: Rows | None = None) -> int:
        """Return how many more releases like this one are admitted, exactly."""
        return self._filter.max_releases(event, rows)

    def reserve(self, event: GaussianEvent, release_id: str, purpose: str, rows: Rows | None = None) -> Reservation:
        """Charge a release; when this returns, the charge is durable.

        Raises:
            UnsupportedEvent, LocalError, PrivacyBudgetExceeded: see `PrivacyFilter.reserve`; nothing is charged.
            BudgetError: an earlier append failed; open the ledger anew.
        """
        self._check_usable()
        reservation, record = self._filter.reserve(event, release_id, purpose, rows)
        self._write(record)
        return reservation

    def commit(self, reservation: Reservation) -> None:
        """Note that the release was made. See `PrivacyFilter.commit`."""
        self._check_usable()
        self._write(self._filter.commit(reservation))

    def void(self, reservation: Reservation) -> None:
        """Give back a charge under which no noise was drawn. See `PrivacyFilter.void`."""
        self._check_usable()
        self._write(self._filter.void(reservation))

    def ledger(self) -> tuple[LedgerRecord, ...]:
        """Return the records as the store holds them.

        Raises:
            LedgerCorrupt: the store is damaged.
        """
        return tuple(self._store.load())

    def verify(self) -> None:
        """Read the ledger again and check it against the chain and against what this accountant wrote.

        Raises:
            LedgerCorrupt: a record is damaged, missing or foreign.
        """
        records = self.ledger()
        if verify_chain(records) != self._filter.last_hash or len(records) != self._filter.next_seq:
            raise LedgerCorrupt(f"ledger {self._filter.ledger_id} does not end where this accountant left it")

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _check_usable(self) -> None:
        if self._failed:
            raise BudgetError(f"ledger {self._filter.ledger_id}: an append failed; open the ledger anew")

    def _write(self, record: LedgerRecord) -> None:
        # Set first and cleared last: whatever interrupts the append leaves the accountant closed for business, since
        # nobody knows whether the record is on disk.
        self._failed = True
        self._store.append(record)
        self._failed = False
