"""Published and 60-digit values of the analytic Gaussian."""

import csv
import math
from pathlib import Path

import pytest

from scarcity.privacy import GaussianEvent, PrivacyAccountant, PrivacyParams, calibrate_gaussian, epsilon_of, mu_max

_ROWS = list(csv.DictReader((Path(__file__).parent / "dp_golden.csv").read_text(encoding="utf-8").splitlines()))
_SIGMA = [row for row in _ROWS if row["quantity"] == "sigma"]
_EPSILON = [row for row in _ROWS if row["quantity"] == "epsilon"]


def _events(spec: str) -> list[GaussianEvent]:
    groups = [group.split(":") for group in spec.split(";")]
    return [GaussianEvent(float(sigma), 1.0) for _, sigma, count in groups for _ in range(int(count))]


@pytest.mark.parametrize("row", _SIGMA, ids=lambda row: row["id"])
def test_sigma_is_the_reference_rounded_up(row: dict[str, str]) -> None:
    budget = PrivacyParams(float(row["spec"].removeprefix("eps=")), float(row["delta"]))
    reference = float(row["reference"])
    assert reference <= calibrate_gaussian(budget) <= reference * (1 + 1e-9)
    assert 1 / reference * (1 - 1e-9) <= mu_max(budget.epsilon, budget.delta) <= math.nextafter(1 / reference, 9e9)


@pytest.mark.parametrize("row", _EPSILON, ids=lambda row: row["id"])
def test_epsilon_is_the_reference_rounded_up(row: dict[str, str]) -> None:
    accountant = PrivacyAccountant(PrivacyParams(100.0, float(row["delta"])))
    for index, event in enumerate(_events(row["spec"])):
        accountant.reserve(event, f"r{index}", "golden")
    reference = float(row["reference"])
    assert reference <= accountant.spent.epsilon <= reference * (1 + 1e-9)


def test_the_classic_formula_would_be_too_small_at_epsilon_ten() -> None:
    classic = math.sqrt(2 * math.log(1.25 / 1e-5)) / 10
    assert classic == pytest.approx(0.4845, abs=1e-4)
    assert epsilon_of(1 / classic, 1e-5) > 10.3


def test_mu_max_of_the_default_budget() -> None:
    assert mu_max(10, 1e-5) == pytest.approx(2.0004, abs=1e-4)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 1e-5), (1e-6, 1e-12), (0.3, 1e-300), (1.0, 0.5), (500.0, 1e-5), (900.0, 1e-200), (1e6, 1e-12)],
)
def test_extreme_budgets_keep_their_digits(epsilon: float, delta: float) -> None:
    mu = mu_max(epsilon, delta)
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-8, abs=0.0)
    assert epsilon_of(mu * (1 + 1e-8), delta) > epsilon


@pytest.mark.parametrize(("releases", "local", "summed"), [(1, 10.0, 0.5), (10, 31.6, 1.58)])
def test_the_price_that_the_docs_print(releases: int, local: float, summed: float) -> None:
    """Error of a 100-client mean of 10,000 coordinates in units of C, at epsilon 10 and delta 1e-5."""
    budget, clients, root_d = PrivacyParams(10.0, 1e-5), 100, 100.0
    each = calibrate_gaussian(budget, releases, sensitivity=2.0) * root_d / math.sqrt(clients)
    once = calibrate_gaussian(budget, releases, sensitivity=1.0) * root_d / clients
    assert (each, once) == (pytest.approx(local, rel=5e-3), pytest.approx(summed, rel=5e-3))
