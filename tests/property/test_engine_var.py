"""Whatever numbers come back as a model, a fit either works or says what is wrong; additivity is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, discover, fit_var
from scarcity.engine.vector import FORMS, vector_dimension
from scarcity.errors import FederationError


def schema_of(p, lags, horizon):
    return Schema([Variable(f"x{i}", scale=1.0) for i in range(p)], lags, horizon)


wild = st.floats(-1e150, 1e150) | st.sampled_from([0.0, 1.0, -1.0, 1e150, -1e150, 1e-300, 5e-324, 1e16])


@given(st.data(), st.sampled_from(FORMS), st.integers(1, 2), st.integers(1, 2), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_a_model_of_any_numbers_gives_relations_or_a_typed_error(data, form, p, lags, horizon):
    schema = schema_of(p, lags, horizon)
    size = vector_dimension(schema, form)
    vector = data.draw(st.lists(wild, min_size=size, max_size=size))
    if data.draw(st.booleans()):
        vector[: lags + 1] = [100.0] * (lags + 1)
    try:
        moments = Moments.from_vector(schema, form, vector, data.draw(st.floats(0, 1e6)), 3, abs(data.draw(wild)))
        found = discover(moments, min_effect=0.0)
    except FederationError:
        return
    for relation in found:
        assert np.isfinite([relation.effect, relation.se, relation.p]).all()


@given(st.integers(0, 2**32), st.floats(0, 1e12), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_noise_of_any_strength_gives_finite_fits(seed, strength, p):
    schema = schema_of(p, 2, 10)
    rng = np.random.default_rng(seed)
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(rng.normal(size=(120, p)))
    vector = engine.increment().vector + rng.normal(size=vector_dimension(schema, "differenced")) * strength
    vector[:3] = engine.increment().vector[:3]
    fit = fit_var(Moments.from_vector(schema, "differenced", vector, 110, 1, strength))
    assert np.isfinite(fit.coefficients).all()
    assert (fit.se > 0).all()


@given(st.integers(0, 2**32), st.integers(2, 4), st.sampled_from(["statistics", "differenced"]))
@settings(max_examples=25, deadline=None)
def test_the_fit_of_the_sum_does_not_depend_on_the_order_of_parties(seed, p, form):
    schema = schema_of(p, 2, 4)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(4):
        engine = OnlineDiscoveryEngine(schema)
        engine.process_rows(rng.normal(size=(60, p)) * 3 + 100 * rng.normal(size=p))
        parts.append(getattr(engine, form)())
    one, other = fit_var(Moments.sum(parts)), fit_var(Moments.sum(parts[::-1]))
    np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.se, other.se, rtol=1e-9)


def test_the_sum_of_parties_is_the_party_of_all_differences():
    schema = schema_of(3, 2, 4)
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(100, 3)) for _ in range(3)]
    together, apart = OnlineDiscoveryEngine(schema), []
    for index, part in enumerate(rows):
        together.process_rows(part, range(1000 * index, 1000 * index + 100))
        engine = OnlineDiscoveryEngine(schema)
        engine.process_rows(part)
        apart.append(engine.differenced())
    np.testing.assert_array_equal(together.differenced().vector, Moments.sum(apart).vector)
    assert Moments.sum(apart).rows == together.differenced().rows == 288
    assert fit_var(Moments.sum(apart)).coefficients == pytest.approx(fit_var(together.differenced()).coefficients)
