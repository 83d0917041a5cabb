"""Laws of the calibration and of the filter."""

import math
from fractions import Fraction
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.errors import BudgetError, PrivacyBudgetExceeded
from scarcity.privacy import (
    GaussianEvent,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyFilter,
    PrivacyParams,
    PrivacyUnit,
    calibrate_gaussian,
    epsilon_of,
    mu_max,
)
from scarcity.privacy.calibration import CHARGE_BITS, allowance, charge

_BUDGET = PrivacyParams(10.0, 1e-5)
_MU_SQUARED = mu_max(10.0, 1e-5) ** 2
epsilons = st.floats(0.01, 300.0)
deltas = st.floats(-30.0, -1.0).map(lambda exponent: 10.0**exponent)
events = st.builds(GaussianEvent, sigma=st.floats(0.1, 50.0), sensitivity=st.floats(0.1, 5.0))
intervals = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(epsilon=st.floats(0.05, 8.0), mu=st.floats(0.05, 3.0))
def test_epsilon_of_inverts_the_plain_formula(epsilon: float, mu: float) -> None:
    phi = NormalDist().cdf
    delta = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
    if delta > 1e-6:  # below, the plain formula loses its digits, which is why it is only the twin
        assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-7)


@given(epsilon=epsilons, delta=deltas)
@settings(max_examples=40)
def test_mu_max_never_promises_more_than_epsilon(epsilon: float, delta: float) -> None:
    mu = mu_max(epsilon, delta)
    assert epsilon_of(mu * (1 - 1e-7), delta) <= epsilon <= epsilon_of(mu * (1 + 1e-7), delta)


@given(epsilon=epsilons, delta=deltas, releases=st.integers(1, 10_000), sensitivity=st.floats(1e-3, 1e6))
@settings(max_examples=40)
def test_a_calibrated_sigma_pays_for_exactly_its_releases(
    epsilon: float, delta: float, releases: int, sensitivity: float
) -> None:
    budget = PrivacyParams(epsilon, delta)
    event = GaussianEvent(calibrate_gaussian(budget, releases, sensitivity), sensitivity)
    assert PrivacyFilter(budget).max_releases(event) == releases
    less = GaussianEvent(math.nextafter(event.sigma, 0.0), sensitivity)
    assert PrivacyFilter(budget).max_releases(less) < releases


@given(event=events, factor=st.sampled_from([1, 2]))
def test_a_charge_is_the_exact_rational_rounded_up_and_an_allowance_rounded_down(
    event: GaussianEvent, factor: int
) -> None:
    exact = (factor * Fraction(event.sensitivity) / Fraction(event.sigma)) ** 2 * 2**CHARGE_BITS
    assert charge(event, factor=factor) - 1 < exact <= charge(event, factor=factor)
    allowed = Fraction(mu_max(10.0, 1e-5)) ** 2 * 2**CHARGE_BITS
    assert allowance(_BUDGET) <= allowed < allowance(_BUDGET) + 1


def test_the_filter_fills_the_allowance_to_its_last_unit_and_not_beyond() -> None:
    mu = mu_max(10.0, 1e-5)
    accountant = PrivacyAccountant(_BUDGET)
    accountant.reserve(GaussianEvent(1.0, mu), "all of it", "p")
    assert accountant.max_releases(GaussianEvent(1e30, 1e-30)) == 0
    assert accountant.remaining().epsilon == 0.0
    with pytest.raises(PrivacyBudgetExceeded):
        accountant.reserve(GaussianEvent(1e150, 1e-150), "the smallest there is", "p")


@given(chosen=st.lists(events, max_size=12), seed=st.randoms(use_true_random=False))
def test_the_order_of_releases_changes_nothing(chosen: list[GaussianEvent], seed: object) -> None:
    shuffled = list(chosen)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' random.Random
    wide = PrivacyParams(1e5, 1e-5)
    spent = []
    for order in (chosen, shuffled):
        accountant = PrivacyAccountant(wide)
        for index, event in enumerate(order):
            accountant.reserve(event, str(index), "p")
        spent.append((accountant.spent, accountant.remaining(), accountant.max_releases(GaussianEvent(1.0, 1.0))))
    assert spent[0] == spent[1]


@given(chosen=st.lists(events, max_size=20), probe=events)
@settings(max_examples=50)
def test_max_releases_is_exact_and_one_more_is_refused(chosen: list[GaussianEvent], probe: GaussianEvent) -> None:
    accountant = PrivacyAccountant(_BUDGET)
    for index, event in enumerate(chosen):
        try:
            accountant.reserve(event, str(index), "p")
        except PrivacyBudgetExceeded:
            continue
    probe = GaussianEvent(max(probe.sigma, probe.sensitivity), probe.sensitivity)
    count = accountant.max_releases(probe)
    for index in range(min(count, 300)):
        assert accountant.max_releases(probe) == count - index
        accountant.reserve(probe, f"probe{index}", "p")
    if count <= 300:
        with pytest.raises(PrivacyBudgetExceeded):
            accountant.reserve(probe, "one more", "p")
    assert accountant.spent.epsilon <= _BUDGET.epsilon


@given(chosen=st.lists(st.tuples(events, st.none() | intervals, st.booleans()), max_size=15))
def test_a_record_pays_only_for_the_releases_that_touch_it(
    chosen: list[tuple[GaussianEvent, tuple[int, int] | None, bool]],
) -> None:
    """Twin: a table with one exact sum per row."""
    accountant = PrivacyAccountant(_BUDGET, unit=PrivacyUnit.RECORD)
    table = [Fraction(0)] * 50
    for index, (event, rows, voided) in enumerate(chosen):
        touched = range(*rows) if rows else range(50)
        cost = (Fraction(event.sensitivity) / Fraction(event.sigma)) ** 2
        fits = max(table[row] for row in touched) + cost <= _MU_SQUARED
        try:
            reservation = accountant.reserve(event, str(index), "p", rows)
        except PrivacyBudgetExceeded:
            assert not fits
            continue
        assert fits
        if voided:
            accountant.void(reservation)
            continue
        for row in touched:
            table[row] += cost
    assert accountant.spent.epsilon == pytest.approx(epsilon_of(math.sqrt(max(table)), 1e-5), rel=1e-9)
    probe = GaussianEvent(9.0, 1.0)
    for row in (0, 7, 30, 45):
        assert accountant.max_releases(probe, (row, row + 1)) == math.floor((_MU_SQUARED - table[row]) * 81 + 1e-12)


@given(chosen=st.lists(st.tuples(events, intervals, st.sampled_from("crv")), max_size=10))
def test_replaying_a_ledger_restores_the_filter(
    chosen: list[tuple[GaussianEvent, tuple[int, int], str]],
) -> None:
    first = PrivacyFilter(_BUDGET, unit=PrivacyUnit.RECORD)
    records = []
    for index, (event, rows, fate) in enumerate(chosen):
        try:
            reservation, record = first.reserve(event, str(index), "p", rows)
        except BudgetError:
            continue
        records.append(record)
        if fate != "r":
            records.append((first.commit if fate == "c" else first.void)(reservation))
    second = PrivacyFilter(_BUDGET, unit=PrivacyUnit.RECORD)
    second.replay(records)
    assert (second.spent, second.next_seq, second.last_hash) == (first.spent, first.next_seq, first.last_hash)
    probe = GaussianEvent(3.0, 1.0)
    assert [second.max_releases(probe, (row, row + 2)) for row in range(45)] == [
        first.max_releases(probe, (row, row + 2)) for row in range(45)
    ]


def test_replace_one_charges_twice_the_sensitivity() -> None:
    event = GaussianEvent(4.0, 1.0)
    one, two = (PrivacyAccountant(_BUDGET, relation=relation) for relation in NeighboringRelation)
    assert one.max_releases(event) // 4 == two.max_releases(event)
    two.reserve(event, "a", "p")
    assert two.spent.epsilon == pytest.approx(epsilon_of(0.5, 1e-5), rel=1e-12)
