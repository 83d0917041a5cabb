"""Grams that carry privacy noise ("mean", and "centred" if anyone noises it): what a fit claims, on known answers."""

import numpy as np
import pytest

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, discover, fit_var
from scarcity.engine.vector import vector_dimension

P, LAGS, PARTIES = 5, 2, 40


def schema_of(p=P):
    return Schema([Variable(f"x{i}", scale=1.0) for i in range(p)], lags=LAGS)


def truth(kind):
    """No link; own lags of .7 alone; own lags of .4 with two rings; own lags of .85 with two links."""
    coefficients = np.zeros((LAGS, P, P))
    if kind == "own":
        coefficients[0] = 0.7 * np.eye(P)
    if kind == "ring":
        coefficients[0] = 0.4 * np.eye(P) + 0.25 * np.roll(np.eye(P), 1, axis=1)
        coefficients[1] = -0.2 * np.roll(np.eye(P), 2, axis=1)
    if kind == "slow":
        coefficients[0] = 0.85 * np.eye(P)
        coefficients[0, 1, 0] = coefficients[0, 2, 1] = 0.2
    return coefficients


def clean_sum(kind, form, offset=0.0):
    """The sum over parties of vectors of the form, and the rows of it."""
    rng, coefficients, total, weight = np.random.default_rng(21), truth(kind), 0.0, 0
    for _ in range(PARTIES):
        z = rng.standard_normal((260, P))
        for t in range(LAGS, len(z)):
            z[t] += sum(coefficients[lag] @ z[t - 1 - lag] for lag in range(LAGS))
        engine = OnlineDiscoveryEngine(schema_of())
        engine.process_rows(z[60:] + offset * rng.standard_normal(P))
        increment = engine.increment(form)
        total, weight = total + increment.vector, weight + increment.weight
    return total, weight


def noised(clean, weight, form, parties, noise, seed):
    """The moments with noise of `noise` a row (or party), as the standard deviation of a mean's entry."""
    std = noise * weight
    vector = clean + std * np.random.default_rng([seed, 22]).standard_normal(len(clean))
    return Moments.from_vector(schema_of(), form, vector, weight, parties, std)


# Many parties make the sampling error, which counts a party as one row, small beside the noise: the harder case.
@pytest.mark.parametrize("kind", ["null", "own", "ring", "slow"])
@pytest.mark.parametrize("form", ["mean", "centred"])
def test_false_discoveries_under_noise_stay_at_their_rate(kind, form):
    clean, weight = clean_sum(kind, form)
    repeats = 100 if form == "mean" else 1
    absent, shares = truth(kind) == 0, []
    for noise in (0.005, 0.02, 0.05, 0.2, 1.0, 5.0):
        for seed in range(12):
            moments = noised(clean * repeats, weight * repeats, form, PARTIES * repeats, noise, seed)
            found = discover(moments, alpha=0.05, min_effect=0.0)
            false = sum(bool(absent[r.lag - 1, int(r.targets[0][1:]), int(r.sources[0][1:])]) for r in found)
            shares.append(false / max(len(found), 1))
    # 72 shares in [0, 1] of mean at most .05 and, on nulls, variance at most .0475: 5 standard deviations.
    assert np.mean(shares) < 0.05 + 5 * (0.0475 / len(shares)) ** 0.5
    if kind != "null":
        assert np.mean(shares) < 0.05


@pytest.mark.parametrize("kind", ["null", "ring"])
def test_z_values_of_absent_links_are_no_wider_than_one(kind):
    clean, weight = clean_sum(kind, "mean", offset=0.5)
    absent = truth(kind) == 0
    for noise in (0.01, 0.05, 0.3, 3.0):
        fits = [fit_var(noised(clean, weight, "mean", PARTIES, noise, seed)) for seed in range(20)]
        z_values = np.concatenate([(fit.coefficients / fit.se)[absent] for fit in fits])
        assert z_values.std() < 1.1


def test_true_links_are_found_while_the_noise_is_small():
    clean, weight = clean_sum("ring", "mean")
    moments = noised(clean * 100, weight * 100, "mean", PARTIES * 100, 0.01, 1)
    found = {(r.lag - 1, int(r.targets[0][1:]), int(r.sources[0][1:])) for r in discover(moments, min_effect=0.0)}
    assert found >= set(map(tuple, np.argwhere(truth("ring")).tolist()))


@pytest.mark.parametrize("form", ["mean", "centred"])
def test_nothing_is_reported_when_the_noise_dwarfs_the_signal(form):
    clean, weight = clean_sum("ring", form)
    for seed in range(40):
        for noise in (1.0, 10.0, 1e6):
            moments = noised(clean, weight, form, PARTIES, noise, seed)
            assert discover(moments, alpha=0.05, min_effect=0.0) == [], seed


def test_noised_numbers_without_any_signal_still_have_a_finite_fit():
    size = vector_dimension(schema_of(), "mean")
    for seed in range(20):
        fit = fit_var(noised(np.zeros(size), 30, "mean", 30, 2.0, seed))
        assert np.isfinite(fit.coefficients).all()
        assert (fit.se > 0).all()
        assert np.abs(fit.coefficients).sum(axis=(0, 2)).max() < 20


def test_the_variance_of_a_coefficient_under_small_noise_is_the_one_claimed():
    clean, many = clean_sum("ring", "mean")[0] * 1e12, PARTIES * 10**12  # no sampling error to speak of
    fits = [fit_var(noised(clean, many, "mean", many, 1e-4, seed)) for seed in range(400)]
    observed = np.var([fit.coefficients for fit in fits], axis=0)
    claimed = np.mean([fit.se**2 for fit in fits], axis=0)
    # 50 variances of 400 draws, each within 7 % (one standard deviation) of its value.
    np.testing.assert_allclose(observed / claimed, 1.0, atol=0.4)
    assert (observed / claimed).mean() == pytest.approx(1.0, abs=0.08)


def test_a_mean_far_from_the_public_centre_moves_no_coefficient():
    rng = np.random.default_rng(23)
    rows = rng.standard_normal((400, P))
    near, far = OnlineDiscoveryEngine(schema_of()), OnlineDiscoveryEngine(schema_of())
    near.process_rows(rows)
    far.process_rows(rows + 1000.0)
    fits = [
        fit_var(Moments.from_vector(schema_of(), "mean", 50 * e.increment("mean").vector, 50, 50)) for e in (near, far)
    ]
    np.testing.assert_allclose(fits[1].coefficients, fits[0].coefficients, atol=1e-6)
    np.testing.assert_allclose(fits[1].spread, fits[0].spread, rtol=1e-6)
