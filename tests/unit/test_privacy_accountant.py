"""Life of a reservation, and what the accountant refuses."""

import copy
import math
import pickle
from collections.abc import Callable

import attrs
import pytest

from scarcity.errors import BudgetError, LedgerCorrupt, LocalError, PrivacyBudgetExceeded, UnsupportedEvent
from scarcity.privacy import (
    GaussianEvent,
    LedgerRecord,
    MemoryLedgerStore,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyFilter,
    PrivacyParams,
    PrivacyUnit,
    RecordState,
    Reservation,
)

_BUDGET = PrivacyParams(10.0, 1e-5)
_EVENT = GaussianEvent(1.0, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0, True, "1"])
@pytest.mark.parametrize("name", ["sigma", "sensitivity"])
def test_an_event_names_its_bad_field(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        attrs.evolve(_EVENT, **{name: bad})


@pytest.mark.parametrize(
    ("name", "bad"),
    [("epsilon", math.nan), ("epsilon", -0.1), ("epsilon", math.inf), ("delta", math.nan), ("delta", 0.0),
     ("delta", 1.0), ("delta", "x")],
)  # fmt: skip
def test_a_budget_names_its_bad_field(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        attrs.evolve(_BUDGET, **{name: bad})


def test_a_reservation_without_commit_counts_as_spent() -> None:
    store = MemoryLedgerStore()
    first = PrivacyAccountant(_BUDGET, store)
    first.reserve(_EVENT, "r1", "p")
    second = PrivacyAccountant(_BUDGET, store)
    assert second.spent == first.spent
    assert second.spent.epsilon == pytest.approx(4.377178095681, rel=1e-12)


def test_void_gives_back_the_charge_but_not_the_name() -> None:
    accountant = PrivacyAccountant(_BUDGET)
    accountant.void(accountant.reserve(_EVENT, "r1", "p"))
    assert accountant.spent.epsilon == 0.0
    assert accountant.remaining().epsilon > 9.999999
    with pytest.raises(LocalError, match="used before"):
        accountant.reserve(_EVENT, "r1", "p")


def test_void_after_the_noise_was_drawn_is_refused() -> None:
    accountant = PrivacyAccountant(_BUDGET)
    reservation = accountant.reserve(_EVENT, "r1", "p")
    reservation.mark_drawn()
    with pytest.raises(LocalError, match="drawn"):
        accountant.void(reservation)
    accountant.commit(reservation)
    assert [record.state for record in accountant.ledger()] == [RecordState.RESERVED, RecordState.COMMITTED]


@pytest.mark.parametrize("end", ["commit", "void"])
@pytest.mark.parametrize("again", ["commit", "void"])
def test_a_reservation_ends_once(end: str, again: str) -> None:
    accountant = PrivacyAccountant(_BUDGET)
    reservation = accountant.reserve(_EVENT, "r1", "p")
    getattr(accountant, end)(reservation)
    assert not reservation.live
    with pytest.raises(LocalError):
        getattr(accountant, again)(reservation)
    with pytest.raises(LocalError):
        reservation.mark_drawn()
    assert len(accountant.ledger()) == 2


@pytest.mark.parametrize("trick", [copy.copy, copy.deepcopy, attrs.evolve, pickle.dumps], ids=lambda f: f.__name__)
def test_a_reservation_cannot_be_copied(trick: Callable[[object], object]) -> None:
    reservation = PrivacyAccountant(_BUDGET).reserve(_EVENT, "r1", "p")
    with pytest.raises((LocalError, TypeError)):
        trick(reservation)


def test_a_reservation_made_by_hand_is_refused() -> None:
    with pytest.raises(LocalError, match="only the reserve"):
        Reservation("ledger", "r1", _EVENT, None, issuer=object())


def test_what_was_reserved_cannot_be_changed() -> None:
    reservation = PrivacyAccountant(_BUDGET).reserve(_EVENT, "r1", "p")
    with pytest.raises(attrs.exceptions.FrozenAttributeError):
        reservation.event = GaussianEvent(9.0, 1.0)


def test_a_reservation_of_another_filter_is_refused() -> None:
    ours, theirs = PrivacyAccountant(_BUDGET), PrivacyAccountant(_BUDGET)
    ours.reserve(_EVENT, "r1", "p")
    stranger = theirs.reserve(_EVENT, "r1", "p")
    with pytest.raises(LocalError, match="no open reservation"):
        ours.void(stranger)


def test_a_refused_release_says_what_is_left_and_charges_nothing() -> None:
    accountant = PrivacyAccountant(_BUDGET, ledger_id="client-7")
    accountant.reserve(GaussianEvent(0.6, 1.0), "r1", "p")
    before = accountant.spent
    with pytest.raises(PrivacyBudgetExceeded, match=r"sigma=0\.6") as refusal:
        accountant.reserve(GaussianEvent(0.6, 1.0), "r2", "p")
    assert refusal.value.ledger_id == "client-7"
    assert "epsilon=" in refusal.value.remaining
    assert (accountant.spent, len(accountant.ledger())) == (before, 1)
    accountant.reserve(GaussianEvent(2.0, 1.0), "r2", "p")


def test_an_event_of_another_kind_is_refused() -> None:
    accountant = PrivacyAccountant(_BUDGET)

    @attrs.frozen
    class LaplaceEvent:
        scale: float = 1.0

    with pytest.raises(UnsupportedEvent):
        accountant.reserve(LaplaceEvent(), "r1", "p")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(UnsupportedEvent):
        accountant.max_releases(LaplaceEvent())  # type: ignore[arg-type]  # the point of the test


def test_an_event_that_lost_its_checks_is_refused() -> None:
    forged = GaussianEvent(1.0, 1.0)
    object.__setattr__(forged, "sigma", math.nan)
    accountant = PrivacyAccountant(_BUDGET)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        accountant.reserve(forged, "r1", "p")
    assert accountant.spent.epsilon == 0.0


@pytest.mark.parametrize("rows", [(3, 3), (-1, 2), (2, 1), (0.0, 1.0), [0, 1], (0, 1, 2), (True, 2), "ab"])
def test_bad_rows_are_refused(rows: object) -> None:
    accountant = PrivacyAccountant(_BUDGET, unit=PrivacyUnit.RECORD)
    with pytest.raises(LocalError, match="rows"):
        accountant.reserve(_EVENT, "r1", "p", rows)  # type: ignore[arg-type]  # the point of the test
    assert accountant.ledger() == ()


def test_a_client_pays_for_disjoint_rows_all_the_same() -> None:
    accountant = PrivacyAccountant(_BUDGET, unit=PrivacyUnit.CLIENT)
    for index in range(4):
        accountant.reserve(_EVENT, str(index), "p", (index, index + 1))
    with pytest.raises(PrivacyBudgetExceeded):
        accountant.reserve(_EVENT, "5", "p", (5, 6))


def test_records_released_once_never_run_out() -> None:
    accountant = PrivacyAccountant(_BUDGET, unit=PrivacyUnit.RECORD)
    tight = GaussianEvent(0.5, 1.0)
    for index in range(500):
        accountant.reserve(tight, str(index), "p", (10 * index, 10 * index + 10))
    assert accountant.max_releases(tight, (4990, 5000)) == 0
    assert accountant.max_releases(tight, (5000, 5001)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"unit": PrivacyUnit.RECORD},
        {"relation": NeighboringRelation.REPLACE_ONE},
        {"budget": PrivacyParams(10.0, 1e-6)},
        {"budget": PrivacyParams(11.0, 1e-5)},
        {"ledger_id": "somebody else"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_ledger_opens_only_under_its_own_terms(other: dict[str, object]) -> None:
    store = MemoryLedgerStore()
    PrivacyAccountant(_BUDGET, store).reserve(_EVENT, "r1", "p")
    with pytest.raises(LocalError, match="opened with"):
        PrivacyAccountant(**{"budget": _BUDGET, "store": store, **other})  # type: ignore[arg-type]  # table of settings
    assert PrivacyAccountant(PrivacyParams(9.0, 1e-5), store).spent.epsilon > 4.0


def test_after_a_failed_append_the_accountant_refuses_everything() -> None:
    class FullDisk(MemoryLedgerStore):
        def append(self, record: LedgerRecord) -> None:
            raise OSError("no space left on device")

    accountant = PrivacyAccountant(_BUDGET, FullDisk())
    with pytest.raises(OSError, match="no space"):
        accountant.reserve(_EVENT, "r1", "p")
    with pytest.raises(BudgetError, match="open the ledger anew"):
        accountant.reserve(_EVENT, "r2", "p")


def test_the_record_is_stored_before_the_reservation_is_seen() -> None:
    seen: list[LedgerRecord] = []

    class Watching(MemoryLedgerStore):
        def append(self, record: LedgerRecord) -> None:
            seen.append(record)
            super().append(record)

    accountant = PrivacyAccountant(_BUDGET, Watching())
    reservation = accountant.reserve(_EVENT, "r1", "p")
    assert [record.release_id for record in seen] == [reservation.release_id]


def test_verify_notices_a_ledger_that_was_cut_behind_our_back() -> None:
    store = MemoryLedgerStore()
    accountant = PrivacyAccountant(_BUDGET, store)
    accountant.reserve(_EVENT, "r1", "p")
    accountant.verify()
    store._records.pop()
    with pytest.raises(LedgerCorrupt, match="left it"):
        accountant.verify()


def test_a_filter_in_use_takes_no_second_history() -> None:
    used = PrivacyFilter(_BUDGET)
    _, record = used.reserve(_EVENT, "r1", "p")
    with pytest.raises(LocalError, match="in use"):
        used.replay([record])
