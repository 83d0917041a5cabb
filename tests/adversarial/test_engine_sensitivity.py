"""A search for the series whose statistic one record moves most: the bound is never passed, and nearly met."""

import math

import numpy as np
import pytest

from scarcity.engine import OnlineDiscoveryEngine, Schema, Variable, record_layout
from scarcity.engine.schema import MIN_LATTICE
from scarcity.engine.vector import difference_products, lattice_rows, pack_gammas, unpack_gammas
from scarcity.errors import ConfigError

LATTICE = 64


def schema_of(p, lags, horizon, lattice=LATTICE):
    # A schema has at least one lag; the search at L = 0 uses its Gamma_D(0) alone.
    return Schema([Variable(f"x{i}", scale=1.0) for i in range(p)], max(lags, 1), horizon, lattice=lattice)


def products(rows, lags):
    """Gamma_D(0..L) of integer rows of D, whole matrices: an off-diagonal of Gamma_D(0) counts twice."""
    return np.concatenate([(rows[lag:].T @ rows[: len(rows) - lag]).ravel() for lag in range(lags + 1)])


def erased(rows, record, horizon):
    """Zero the rows of D that contain the record: D_t = x_t - x_{t-H} for t = record and t = record + H."""
    without = rows.copy()
    without[record] = 0
    if record + horizon < len(rows):
        without[record + horizon] = 0
    return without


def change(rows, lags, horizon, record):
    return float(np.linalg.norm(products(rows, lags) - products(erased(rows, record, horizon), lags)))


def random_rows(rng, size, p):
    rows = rng.normal(size=(size, p))
    rows *= LATTICE / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.trunc(rows).astype(np.int64)


def climb(rng, p, lags, horizon, steps):
    """Hill climbing on integer rows of D, from rows that are all alike (a good start) or random."""
    record = lags
    size = record + horizon + lags + 1
    rows = random_rows(rng, size, p)
    if rng.random() < 0.5:
        rows[:] = rows[0]
    best = change(rows, lags, horizon, record)
    for _ in range(steps):
        trial = rows.copy()
        at = rng.integers(size)
        move = rng.integers(3)
        if move == 0:
            trial[at] = random_rows(rng, 1, p)[0]
        elif move == 1:
            trial[at] = -trial[at]
        else:
            trial[at] += rng.integers(-3, 4, p)
        if (trial[at] ** 2).sum() <= LATTICE**2:
            value = change(trial, lags, horizon, record)
            if value >= best:
                rows, best = trial, value
    return best


@pytest.mark.parametrize("horizon", [1, 2, 10])
@pytest.mark.parametrize("lags", [0, 1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_no_series_found_by_search_passes_the_sensitivity(p, lags, horizon):
    rng = np.random.default_rng([p, lags, horizon])
    bound = 2 * LATTICE**2 * math.sqrt(1 + 4 * lags)
    if lags:
        assert record_layout(schema_of(p, lags, horizon)).sensitivity == pytest.approx(bound, rel=1e-15)
    best = max(climb(rng, p, lags, horizon, 300) for _ in range(3))
    assert best <= bound
    # With H beyond 2 L no product contains both rows and all of them can be aligned; a shorter H has fewer products.
    assert best >= (0.9 if horizon > 2 * lags else 0.5) * bound


@pytest.mark.parametrize("lags", [1, 2, 3])
def test_the_bound_is_met_by_equal_rows(lags):
    rows = np.full((2 * lags + 11, 1), LATTICE)
    assert change(rows, lags, 10, lags) == pytest.approx(2 * LATTICE**2 * math.sqrt(1 + 4 * lags), rel=1e-12)


def test_the_vector_with_its_noise_scales_measures_what_the_search_measures():
    rng = np.random.default_rng(1)
    schema = schema_of(3, 2, 4)
    layout = record_layout(schema)
    x = rng.normal(size=(200, 3))
    with_record = difference_products(x, np.ones(200, dtype=bool), schema).astype(float)
    rows = lattice_rows(x[4:] - x[:-4], schema).astype(np.int64)
    counts = schema.lags + 1
    record = 100
    without_rows = erased(rows, record - 4, 4)
    charged = layout.noise_scales > 0
    assert charged.sum() == layout.dimension - counts
    assert not charged[:counts].any()
    before, after = (np.concatenate(_gammas(part, schema)) for part in (rows, without_rows))
    np.testing.assert_array_equal(
        np.concatenate([g.ravel() for g in unpack_gammas(with_record[counts:], schema)]), before
    )
    moved = _packed(rows, schema) - _packed(without_rows, schema)
    scaled = np.linalg.norm(moved / layout.noise_scales[charged])
    assert scaled == pytest.approx(np.linalg.norm(before - after), rel=1e-12)
    assert scaled <= layout.sensitivity


def _gammas(rows, schema):
    lags = schema.lags
    return [(rows[lags:].T @ rows[lags - lag : len(rows) - lag]).ravel() for lag in range(lags + 1)]


def _packed(rows, schema):
    p = schema.num_variables
    return pack_gammas(np.array([g.reshape(p, p) for g in _gammas(rows, schema)]).astype(float))


@pytest.mark.parametrize("lattice", [MIN_LATTICE, 4096, 1 << 16])
@pytest.mark.parametrize("p", [1, 2, 3, 20])
def test_no_lattice_row_is_longer_than_the_norm(p, lattice):
    rng = np.random.default_rng([p, lattice])
    schema = schema_of(p, 1, 1, lattice)
    rows = np.vstack(
        (
            rng.normal(size=(3000, p)) * np.exp(rng.normal(size=(3000, 1)) * 20),
            np.eye(p) * schema.row_norm,
            np.eye(p) * np.nextafter(schema.row_norm, 9e9),
            np.full((1, p), schema.row_norm / math.sqrt(p)),
            np.full((1, p), 1e150),
            np.zeros((1, p)),
        )
    )
    steps = [[int(value) for value in row] for row in lattice_rows(rows, schema)]
    lengths = [sum(value * value for value in row) for row in steps]
    assert max(lengths) <= lattice**2
    assert max(lengths) >= 0.8 * lattice**2
    assert steps[-1] == [0] * p


def test_truncation_is_toward_zero():
    schema = schema_of(2, 1, 1)
    rows = np.random.default_rng(2).normal(size=(500, 2)) * 0.2
    np.testing.assert_array_equal(lattice_rows(-rows, schema), -lattice_rows(rows, schema))
    exact = rows * (LATTICE / schema.row_norm)
    assert (np.abs(lattice_rows(rows, schema)) <= np.abs(exact) + 1e-9).all()


def test_an_erased_record_leaves_counts_alone_and_no_row_beyond_its_two_changes():
    values = np.random.default_rng(3).normal(size=(80, 2))
    schema = schema_of(2, 2, 5)
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(values)
    other = OnlineDiscoveryEngine(schema)
    changed = values.copy()
    changed[40] = (
        1e9  # replacing a record changes the same two rows of D, so it moves the vector by two erasures at most
    )
    other.process_rows(changed)
    layout = record_layout(schema)
    one, two = engine.increment(), other.increment()
    counts = schema.lags + 1
    np.testing.assert_array_equal(one.vector[:counts], two.vector[:counts])
    moved = (one.vector - two.vector)[counts:] / layout.noise_scales[counts:]
    assert 0 < np.linalg.norm(moved) <= 2 * layout.sensitivity


@pytest.mark.parametrize("p", [1, 3, 10])
def test_no_row_adds_more_to_a_coordinate_than_declared(p):
    schema = schema_of(p, 3, 2, 4096)
    values = np.random.default_rng(p).standard_cauchy(size=(2000, p))
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(values)
    increment = engine.increment()
    assert np.abs(increment.vector).max() <= increment.weight * record_layout(schema).max_abs_per_row


def test_a_layout_needs_public_scales():
    with pytest.raises(ConfigError, match=r"\['b'\]"):
        record_layout(Schema([Variable("a", scale=1.0), Variable("b")]))


@pytest.mark.parametrize(("p", "dimension"), [(5, 4 + 15 + 75), (10, 4 + 55 + 300), (20, 4 + 210 + 1200)])
def test_the_dimension_is_counts_triangle_and_lags(p, dimension):
    assert record_layout(schema_of(p, 3, 10)).dimension == dimension
