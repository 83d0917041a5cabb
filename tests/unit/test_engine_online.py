"""Gaps, missing values, increments that never share a row, snapshots."""

import numpy as np
import pytest

from scarcity.engine import EngineConfig, EvidenceRecord, Increment, OnlineDiscoveryEngine, Schema, Variable, fit_var
from scarcity.errors import CodecError, ConfigError, InsufficientInputs, LocalError

SCHEMA = Schema([Variable("a", scale=1.5), Variable("b", scale=0.5)], lags=2, horizon=4)


def data(rows, seed=1):
    return np.cumsum(np.random.default_rng(seed).normal(size=(rows, 2)), axis=0) * 0.3


def engine_of(rows, at=None, **settings):
    engine = OnlineDiscoveryEngine(SCHEMA, EngineConfig(**settings))
    engine.process_rows(rows, at)
    return engine


def products_by_loops(values, schema, start=0):
    """The obvious twin: a dictionary of rows by time index, every product written out in integers."""
    p, L, H, K, C = schema.num_variables, schema.lags, schema.horizon, schema.lattice, schema.row_norm
    scales = [variable.scale for variable in schema.variables]
    lattice = {}
    for t in values:
        if t >= start and t - H >= start and t - H in values:
            d = (values[t] - values[t - H]) / scales
            if np.isfinite(d).all():
                d = d * min(1.0, C / max(np.linalg.norm(d), 1e-300))
                lattice[t] = [int(v * (K / C)) for v in d]
    counts = [0] * (L + 1)
    gammas = np.zeros((L + 1, p, p), dtype=object)
    for t in lattice:
        for h in range(L + 1):
            if t - h in lattice:
                counts[h] += 1
                for i in range(p):
                    for j in range(p):
                        gammas[h, i, j] += lattice[t][i] * lattice[t - h][j]
    zero = [gammas[0, i, i] for i in range(p)] + [gammas[0, i, j] for i in range(p) for j in range(i + 1, p)]
    return np.array(counts + zero + [int(v) for v in gammas[1:].ravel()], dtype=np.int64)


def as_map(rows, at=None):
    return dict(zip(range(len(rows)) if at is None else at, rows, strict=True))


@pytest.mark.parametrize("rows", [5, 7, 30, 255, 256, 257, 700])
def test_the_differenced_vector_is_the_sum_of_integer_products(rows):
    values = data(rows)
    increment = engine_of(values).increment()
    assert increment.vector.dtype == np.int64
    np.testing.assert_array_equal(increment.vector, products_by_loops(as_map(values), SCHEMA))
    assert increment.weight == rows - SCHEMA.horizon
    assert increment.rows == (0, rows)


def test_gaps_and_missing_rows_break_differences_and_lags():
    rng = np.random.default_rng(2)
    values = data(600)
    values[rng.integers(0, 600, 40), rng.integers(0, 2, 40)] = np.nan
    at = np.cumsum(rng.choice([1, 1, 1, 1, 1, 1, 2, 5, 1000], size=600))
    expected = products_by_loops(as_map(values, at.tolist()), SCHEMA)
    np.testing.assert_array_equal(engine_of(values, at).increment().vector, expected)
    one_by_one = OnlineDiscoveryEngine(SCHEMA)
    for row, time in zip(values.tolist(), at.tolist(), strict=True):
        one_by_one.process_row(row, at=time)
    assert one_by_one.snapshot() == engine_of(values, at).snapshot()


def test_a_gap_is_a_run_of_missing_rows():
    values = data(60)
    holed = values.copy()
    holed[20:23] = np.nan
    kept = [t for t in range(60) if not 20 <= t < 23]
    np.testing.assert_array_equal(
        engine_of(holed).differenced().vector, engine_of(values[kept], kept).differenced().vector
    )
    np.testing.assert_allclose(
        engine_of(holed).statistics().vector, engine_of(values[kept], kept).statistics().vector, atol=1e-9
    )


def test_a_missing_row_leaves_the_windows_it_is_in():
    values = data(50)
    values[30, 0] = np.nan
    moments = engine_of(values).statistics()
    assert moments.rows == 50 - 2 - 3
    assert moments.counts.tolist() == [45.0]


def test_increments_depend_on_their_own_rows_only():
    values = data(400)
    engine, alone = OnlineDiscoveryEngine(SCHEMA), []
    for start, end in ((0, 100), (100, 130), (130, 400)):
        engine.process_rows(values[start:end])
        increment = engine.increment()
        assert increment.rows == (start, end)
        np.testing.assert_array_equal(increment.vector, engine_of(values[start:end]).increment().vector)
        engine.mark_released(increment)
        alone.append(increment)
    changed = values.copy()
    changed[:100] += 50.0
    other = OnlineDiscoveryEngine(SCHEMA)
    other.process_rows(changed[:100])
    other.mark_released(other.increment())
    other.process_rows(changed[100:130])
    assert other.increment() == alone[1]


def test_increments_add_up_to_the_whole_but_for_the_products_across_their_starts():
    values = data(300)
    engine = OnlineDiscoveryEngine(SCHEMA)
    total = 0
    for start in (0, 100, 200):
        engine.process_rows(values[start : start + 100])
        increment = engine.increment()
        total = total + increment.vector
        engine.mark_released(increment)
    whole = engine.differenced().vector
    assert whole[0] - total[0] == 2 * SCHEMA.horizon
    np.testing.assert_array_equal(whole, products_by_loops(as_map(values), SCHEMA))
    chunks = [{t: values[t] for t in range(start, start + 100)} for start in (0, 100, 200)]
    np.testing.assert_array_equal(total, sum(products_by_loops(chunk, SCHEMA) for chunk in chunks))


@pytest.mark.parametrize("form", ["centred", "mean"])
def test_the_gram_forms_are_windows_stacked(form):
    schema = Schema([Variable("a", scale=2.0, centre=5.0), Variable("b", centre=-1.0)], lags=2)
    values = data(300)
    values[100, 0] = np.nan
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(values)
    z = (values - [5.0, -1.0]) / [2.0, 1.0]
    windows = np.array([np.concatenate((z[t], z[t - 1], z[t - 2])) for t in range(2, 300)])
    windows = windows[np.isfinite(windows).all(axis=1)]
    stacked = windows - windows.mean(axis=0) if form == "centred" else windows
    stacked = np.column_stack((np.ones(len(windows)), stacked))
    gram = stacked.T @ stacked / (1 if form == "centred" else len(windows))
    increment = engine.increment(form)
    np.testing.assert_allclose(increment.vector, gram[np.triu_indices(7)], atol=1e-9)
    assert increment.weight == (len(windows) if form == "centred" else 1)


@pytest.mark.parametrize("form", ["differenced", "centred", "mean"])
def test_looking_at_an_increment_changes_nothing(form):
    values = data(280)
    engine, quiet = engine_of(values[:270]), engine_of(values[:270])
    first = engine.increment(form)
    assert engine.increment(form) == first
    engine.process_rows(values[270:])
    quiet.process_rows(values[270:])
    assert engine.increment(form) == quiet.increment(form)
    assert engine.statistics() == quiet.statistics()


def test_an_increment_marked_late_keeps_the_rows_that_came_since():
    values = data(300)
    engine = engine_of(values[:90])
    increment = engine.increment()
    engine.process_rows(values[90:])
    engine.increment()
    engine.mark_released(increment)
    following = engine.increment()
    assert following.rows == (90, 300)
    np.testing.assert_array_equal(following.vector, engine_of(values[90:]).increment().vector)
    assert engine.num_rows_given_up == 0


def test_an_increment_marked_too_late_gives_up_rows_rather_than_offer_one_twice():
    values = data(300)
    engine = engine_of(values[:90], max_open_increments=2)
    old = engine.increment()
    for end in (120, 150, 200):
        engine.process_rows(values[end - 30 if end != 200 else 150 : end])
        engine.increment()
    engine.mark_released(old)
    assert engine.num_rows_given_up == 110
    with pytest.raises(InsufficientInputs):
        engine.increment()
    engine.process_rows(values[200:])
    assert engine.increment().rows == (200, 300)


def test_an_increment_is_released_once():
    engine = engine_of(data(100))
    increment = engine.increment()
    engine.mark_released(increment)
    with pytest.raises(LocalError, match="not the next ones"):
        engine.mark_released(increment)
    ahead = Increment(increment.vector, increment.weight, (100, 500), "differenced")
    with pytest.raises(LocalError, match="not the next ones"):
        engine.mark_released(ahead)


def test_what_cannot_be_formed_is_refused():
    engine = engine_of(data(4))
    with pytest.raises(InsufficientInputs, match="no differenced product"):
        engine.increment()
    with pytest.raises(ConfigError, match="form"):
        engine.increment("other")
    unscaled = OnlineDiscoveryEngine(Schema([Variable("a"), Variable("b", scale=1.0)]))
    unscaled.process_rows(data(60))
    for call in (unscaled.increment, unscaled.differenced):
        with pytest.raises(ConfigError, match=r"public scale.*\['a'\]"):
            call()
    assert unscaled.increment("mean").weight == 1
    with pytest.raises(ConfigError, match="max_open_increments"):
        EngineConfig(max_open_increments=0)


def test_enormous_values_within_bounds_poison_nothing():
    values = data(300)
    values[17] = [1e50, -1e50]
    values[19] = [-1e50, 1e-50]
    for moments in (engine_of(values).statistics(), engine_of(values).differenced()):
        assert np.isfinite(moments.vector).all()
    np.testing.assert_array_equal(engine_of(values).increment().vector, products_by_loops(as_map(values), SCHEMA))


def test_a_snapshot_goes_on_where_it_was_taken():
    values = data(900)
    engine = engine_of(values[:300])
    engine.mark_released(engine.increment())
    engine.process_rows(values[300:410])
    open_increment = engine.increment()
    engine.process_rows(values[410:500], at=range(420, 510))
    engine.store.add(EvidenceRecord("global", engine.differenced()))
    copy = OnlineDiscoveryEngine.restore(engine.snapshot())
    assert copy.snapshot() == engine.snapshot()
    for one in (engine, copy):
        one.mark_released(open_increment)
        one.process_rows(values[500:])
    assert copy.increment() == engine.increment()
    assert copy.statistics() == engine.statistics()
    assert copy.store == engine.store
    empty = OnlineDiscoveryEngine()
    assert OnlineDiscoveryEngine.restore(empty.snapshot()).snapshot() == empty.snapshot()


def test_bytes_that_are_no_snapshot_are_refused():
    good = engine_of(data(50)).snapshot()
    for bad in (b"", b"\x80", b"\xc1", good[:-1], good + b"\x00", good.replace(b"context", b"contexx"), b"\x01"):
        with pytest.raises(CodecError):
            OnlineDiscoveryEngine.restore(bad)


def test_an_engine_predicts_around_its_own_mean():
    rng = np.random.default_rng(5)
    rows = np.zeros((3000, 2))
    for t in range(1, 3000):
        rows[t] = [[0.8, 0.0], [0.5, 0.2]] @ rows[t - 1] + rng.normal(size=2)
    rows += [100.0, -7.0]
    engine = engine_of(rows)
    np.testing.assert_allclose(engine.mean(), rows.mean(axis=0), atol=0.02)
    expected = rows.mean(axis=0) + np.array([[0.8, 0.0], [0.5, 0.2]]) @ (rows[-1] - rows.mean(axis=0))
    np.testing.assert_allclose(engine.predict(), expected, atol=0.4)
    fit = fit_var(engine.differenced())
    np.testing.assert_allclose(engine.predict(fit, rows[-5:]), fit.predict(rows[-5:], engine.mean()))
    engine.process_row([None, 1.0])
    with pytest.raises(InsufficientInputs, match="not complete"):
        engine.predict()


def test_an_engine_finds_its_own_relations():
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(1000, 2))
    rows[2:, 1] += 0.5 * rows[:-2, 0]
    found = engine_of(rows).relations()
    assert [(r.kind, r.sources, r.targets, r.lag) for r in found] == [("lagged", ("a",), ("b",), 2)]
