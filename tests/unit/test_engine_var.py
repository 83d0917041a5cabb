"""Fits from moments against least squares on rows, and what discovery finds in data with a known answer."""

import math

import numpy as np
import pytest

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, VarFit, Variable, discover, fit_var, record_layout
from scarcity.engine.moments import translate_gram
from scarcity.engine.var import _stabilise
from scarcity.errors import ConfigError, InsufficientInputs, InvalidRow

SIGMA_AT_EPSILON_1 = 4.2247  # analytic Gaussian at sensitivity 1, delta 1e-6


def series(rng, coefficients, rows, burn=60):
    """Simulate z_t = sum_l A_l z_{t-l} + e_t with standard normal e."""
    lags, p, _ = coefficients.shape
    z = np.zeros((rows + burn, p))
    errors = rng.standard_normal((rows + burn, p))
    for t in range(lags, rows + burn):
        z[t] = errors[t] + sum(coefficients[lag] @ z[t - 1 - lag] for lag in range(lags))
    return z[burn:]


def truth(p):
    """Own lags of .4 and a ring of links at lags 1 and 2."""
    coefficients = np.zeros((3, p, p))
    coefficients[0] = 0.4 * np.eye(p) + 0.25 * np.roll(np.eye(p), 1, axis=1)
    coefficients[1] = -0.2 * np.roll(np.eye(p), 2, axis=1)
    return coefficients


def schema_of(p, **settings):
    return Schema([Variable(f"x{i}", scale=1.0) for i in range(p)], **settings)


def engine_of(schema, rows):
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(rows)
    return engine


def least_squares(parties, lags):
    """The obvious twin: stack the windows, a dummy for every party, numpy's lstsq."""
    targets, regressors = [], []
    for index, rows in enumerate(parties):
        for t in range(lags, len(rows)):
            window = rows[t - lags : t + 1]
            if np.isfinite(window).all():
                dummies = np.eye(len(parties))[index]
                targets.append(rows[t])
                regressors.append(np.concatenate((*(rows[t - lag] for lag in range(1, lags + 1)), dummies)))
    y, x = np.array(targets), np.array(regressors)
    fitted, *_ = np.linalg.lstsq(x, y, rcond=None)
    df = len(y) - x.shape[1]
    residual = ((y - x @ fitted) ** 2).sum(axis=0) / df
    se = np.sqrt(np.outer(np.diag(np.linalg.inv(x.T @ x)), residual))
    p = y.shape[1]
    shape = (lags, p, p)
    by_lag = [part[: lags * p].reshape(shape).transpose(0, 2, 1) for part in (fitted, se)]
    return by_lag[0], by_lag[1], df


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_summed_moments_equal_least_squares_with_party_dummies(offset):
    rng = np.random.default_rng(3)
    parties = [series(rng, truth(4), 300) + rng.normal(size=4) * 20 + offset for _ in range(3)]
    parties[1][100, 2] = np.nan
    schema = schema_of(4)
    fit = fit_var(Moments.sum(engine_of(schema, rows).statistics() for rows in parties))
    coefficients, se, df = least_squares(parties, 3)
    assert fit.df == df
    np.testing.assert_allclose(fit.coefficients, coefficients, atol=1e-10 * max(1, offset))
    np.testing.assert_allclose(fit.coefficients / fit.se, coefficients / se, rtol=1e-8, atol=1e-8 * max(1, offset))


def test_an_offset_of_ten_million_does_no_harm():
    rng = np.random.default_rng(4)
    rows = np.round(series(rng, truth(3), 2000) * 1024) / 1024  # exact in float64 beside 1e7
    near = fit_var(engine_of(schema_of(3), rows).statistics())
    far = fit_var(engine_of(schema_of(3), rows + 1e7).statistics())
    np.testing.assert_allclose(far.coefficients, near.coefficients, atol=1e-9)
    np.testing.assert_allclose(far.se, near.se, rtol=1e-8)


def test_scales_change_coefficients_but_no_t_value_and_no_relation():
    rng = np.random.default_rng(5)
    rows = series(rng, truth(3), 800) * [1.0, 100.0, 0.01]
    plain = engine_of(Schema([Variable(f"x{i}") for i in range(3)]), rows).statistics()
    scaled = engine_of(Schema([Variable(f"x{i}", scale=s) for i, s in enumerate((1.0, 50.0, 0.02))]), rows).statistics()
    one, two = fit_var(plain), fit_var(scaled)
    np.testing.assert_allclose(one.coefficients / one.se, two.coefficients / two.se, rtol=1e-7)
    for a, b in zip(discover(plain), discover(scaled), strict=True):
        assert a.key == b.key
        assert a.effect == pytest.approx(b.effect, rel=1e-9)


@pytest.mark.parametrize("form", ["centred", "differenced"])
def test_the_true_links_are_found(form):
    rng = np.random.default_rng(6)
    schema, coefficients = schema_of(5), truth(5)
    engines = [engine_of(schema, series(rng, coefficients, 300) + 30 * rng.normal(size=5)) for _ in range(20)]
    parts = [engine.statistics() if form == "centred" else engine.differenced() for engine in engines]
    found = {(r.lag, r.targets[0], r.sources[0]) for r in discover(Moments.sum(parts), min_effect=0.05)}
    expected = {(lag + 1, f"x{i}", f"x{j}") for lag, i, j in np.argwhere(coefficients)}
    assert found == expected


def test_the_true_links_are_found_under_the_noise_of_epsilon_one():
    rng = np.random.default_rng(7)
    schema, coefficients = schema_of(5), truth(5)
    increments = [
        engine_of(schema, series(rng, coefficients, 400) + 30 * rng.normal(size=5)).increment() for _ in range(60)
    ]
    layout = record_layout(schema)
    noise_std = SIGMA_AT_EPSILON_1 * layout.sensitivity
    noise = np.round(rng.standard_normal(layout.dimension) * noise_std * layout.noise_scales)
    noised = sum(i.vector for i in increments) + noise.astype(np.int64)
    moments = Moments.from_vector(schema, "differenced", noised, sum(i.weight for i in increments), 60, noise_std)
    found = {(r.lag, r.targets[0], r.sources[0]) for r in discover(moments)}
    expected = {(lag + 1, f"x{i}", f"x{j}") for lag, i, j in np.argwhere(coefficients)}
    assert expected <= found
    assert len(found - expected) <= 1


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.2])
@pytest.mark.parametrize("own", [0.0, 0.7])
def test_differenced_z_values_are_standard_on_nulls_with_and_without_noise(noise, own):
    p, schema = 6, schema_of(6)
    layout = record_layout(schema)
    z_values = []
    for seed in range(6):
        rng = np.random.default_rng([seed, 11])
        coefficients = np.zeros((1, p, p))
        coefficients[0] = own * np.eye(p)
        increments = [engine_of(schema, series(rng, coefficients, 300)).increment() for _ in range(12)]
        std = noise * layout.sensitivity
        vector = sum(i.vector for i in increments) + np.round(
            rng.standard_normal(layout.dimension) * std * layout.noise_scales
        )
        fit = fit_var(Moments.from_vector(schema, "differenced", vector, sum(i.weight for i in increments), 12, std))
        z_values.append((fit.coefficients / fit.se)[:, ~np.eye(p, dtype=bool)].ravel())
    spread = np.concatenate(z_values).std()
    assert spread < 1.14  # 540 values: five standard errors of the spread are .15, and correlated a little
    # Only where slow variables meet strong noise a ridge is needed; its pull is in the errors by a bound.
    assert spread > (0.84 if noise * own < 2 else 0.4)


def test_false_discoveries_on_nulls_stay_at_their_rate():
    false_families = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 12])
        rows = rng.standard_normal((250, 4))
        false_families += bool(discover(engine_of(schema_of(4), rows).statistics(), alpha=0.05, min_effect=0.0))
    assert false_families <= 12  # binomial(60, .05): P(> 12) < 1e-5


def test_a_constant_and_a_copied_variable_get_no_relation_and_do_no_harm():
    rng = np.random.default_rng(8)
    rows = series(rng, truth(3), 500)
    with_extras = np.column_stack((rows, np.full(500, 7.0), rows[:, 0]))
    fit = fit_var(engine_of(schema_of(5), with_extras).statistics())
    assert np.isinf(fit.se[:, :, 3]).all()
    assert np.isinf(fit.se[:, :, 0]).all()
    alone = fit_var(engine_of(schema_of(3), rows).statistics())
    np.testing.assert_allclose(fit.coefficients[:, 1, [1, 2]], alone.coefficients[:, 1, [1, 2]], atol=1e-8)
    found = discover(engine_of(schema_of(5), with_extras).statistics())
    assert all("x3" not in r.sources + r.targets for r in found)
    assert all(math.isfinite(r.effect) and math.isfinite(r.se) for r in found)


def test_all_rows_equal_is_no_error_and_no_relation():
    assert discover(engine_of(schema_of(2), np.ones((60, 2))).statistics()) == []
    assert discover(engine_of(schema_of(2), np.ones((60, 2))).differenced()) == []


def test_too_few_rows_are_refused():
    for form in ("statistics", "differenced"):
        with pytest.raises(InsufficientInputs, match="degrees of freedom"):
            fit_var(getattr(engine_of(schema_of(4), np.random.default_rng(1).normal(size=(14, 4))), form)())


def test_relations_have_kinds_names_and_a_fixed_order():
    rng = np.random.default_rng(9)
    found = discover(engine_of(schema_of(4), series(rng, truth(4), 1500)).statistics())
    assert found == sorted(found, key=lambda r: (r.targets, r.sources, r.lag))
    for relation in found:
        assert (relation.kind == "persistent") == (relation.sources == relation.targets)
        assert relation.lag >= 1
        assert 0 <= relation.p <= 0.05
        assert relation.se > 0
    with pytest.raises(ConfigError, match="method"):
        discover(engine_of(schema_of(4), rng.normal(size=(99, 4))).statistics(), method="pcmci")


def test_a_larger_smallest_effect_never_adds_a_relation():
    rng = np.random.default_rng(10)
    moments = engine_of(schema_of(4), series(rng, truth(4), 1500)).statistics()
    families = [{r.key for r in discover(moments, min_effect=delta)} for delta in (0.0, 0.02, 0.1, 0.3)]
    assert families[0] >= families[1] >= families[2] >= families[3]


def test_a_prediction_is_the_mean_and_the_weighted_deviations():
    fit = VarFit(
        names=("a", "b"),
        scales=np.array([1.0, 10.0]),
        coefficients=np.array([[[0.5, 0.0], [0.0, 0.2]], [[0.0, 0.1], [0.0, 0.0]]]),
        se=np.ones((2, 2, 2)),
        residual_covariance=np.eye(2),
        spread=np.ones(2),
        rows=10,
        df=6.0,
    )
    history = np.array([[9.0, 9.0], [1.0, 30.0], [3.0, 20.0]])  # the first row is older than two lags
    mean = np.array([1.0, 10.0])
    expected = [1 + 0.5 * (3 - 1) + 0.1 * (30 - 10) / 10, 10 + 0.2 * (20 - 10)]
    np.testing.assert_allclose(fit.predict(history, mean), expected)
    batch = fit.predict(np.stack([history, history + mean]), np.stack([mean, 2 * mean]))
    np.testing.assert_allclose(batch, [expected, expected + mean])
    for wrong in (history[:1], history[:, :1], history * np.nan):
        with pytest.raises(InvalidRow):
            fit.predict(wrong, mean)


def test_the_mean_form_fits_parties_that_share_a_mean():
    rng = np.random.default_rng(11)
    schema = Schema([Variable(f"x{i}") for i in range(2)], lags=1)
    coefficients = np.array([[[0.5, 0.3], [0.0, 0.4]]])
    increments = [engine_of(schema, series(rng, coefficients, 200)).increment("mean") for _ in range(100)]
    assert {i.weight for i in increments} == {1}
    moments = Moments.from_vector(schema, "mean", sum(i.vector for i in increments), 100, 100)
    np.testing.assert_allclose(fit_var(moments).coefficients, coefficients, atol=0.05)


def test_translating_a_gram_is_forming_it_elsewhere():
    rng = np.random.default_rng(12)
    w, offset = rng.normal(size=(40, 3)), np.array([1.0, -2.0, 3.0])
    ones = np.ones((40, 1))
    moved = np.hstack((ones, w + offset))
    np.testing.assert_allclose(translate_gram(np.hstack((ones, w)).T @ np.hstack((ones, w)), offset), moved.T @ moved)


@pytest.mark.parametrize("size", [0.1, 0.3, 0.6, 3.0, 1e80])
def test_only_an_unstable_fit_is_shrunk_and_then_to_the_largest_radius(size):
    rng = np.random.default_rng(13)
    for _ in range(30):
        coefficients = size * rng.standard_normal((2, 3, 3))
        with np.errstate(all="ignore"):
            stable = _stabilise(coefficients)
        radius, before = (
            np.abs(np.linalg.eigvals(np.vstack((np.hstack(list(c)), np.eye(3, 6))))).max()
            for c in (stable, coefficients)
        )
        if before <= 0.98:
            np.testing.assert_array_equal(stable, coefficients)
        else:
            assert radius == pytest.approx(0.98, rel=1e-6)
