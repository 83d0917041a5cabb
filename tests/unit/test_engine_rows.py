"""Rows: all ways in give one state, and a bad value leaves none."""

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from scarcity.engine import EngineConfig, OnlineDiscoveryEngine, Schema, Variable
from scarcity.errors import ConfigError, InsufficientInputs, InvalidRow

NAMES = ("a", "b", "c")
SCHEMA = Schema([Variable(name, scale=1.5) for name in NAMES], lags=2, horizon=3)


def data(rows=600, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, 3))


def state(engine):
    return engine.snapshot()


def engine_of(values, **settings):
    engine = OnlineDiscoveryEngine(SCHEMA, **settings)
    engine.process_rows(values)
    return engine


@pytest.mark.parametrize("with_missing", [False, True])
def test_every_way_in_gives_the_same_state(with_missing):
    values = data()
    if with_missing:
        values[[0, 40, 41, 300], [0, 1, 2, 0]] = np.nan
    expected = state(engine_of(values))
    dicts = [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]
    one_by_one = OnlineDiscoveryEngine(SCHEMA)
    for row in dicts:
        one_by_one.process_row(row)
    sequences = OnlineDiscoveryEngine(SCHEMA)
    for row in values:
        sequences.process_row(row)
    halves = engine_of(values[:333])
    halves.process_rows(values[333:])
    frame = pd.DataFrame(values, columns=list(NAMES))[["c", "a", "b"]]
    none = [{key: None if math.isnan(v) else v for key, v in row.items()} for row in dicts]
    for engine in (
        one_by_one,
        sequences,
        halves,
        engine_of(dicts),
        engine_of(iter(dicts)),
        engine_of(frame),
        engine_of(none),
    ):
        assert state(engine) == expected


@pytest.mark.parametrize(
    "bad",
    [math.inf, -math.inf, "1.5", "", True, np.bool_(1), 1e51, 10**400, 1j, Decimal(1), [1.0], b"1", {}],
    ids=repr,
)
def test_a_bad_value_is_named_and_leaves_no_trace(bad):
    engine = engine_of(data(20))
    before = state(engine)
    with pytest.raises(InvalidRow, match=r"row 20, variable 'b': value"):
        engine.process_row({"a": 1.0, "b": bad, "c": 2.0})
    with pytest.raises(InvalidRow, match=r"row 20, variable 'b': value"):
        engine.process_row([1.0, bad, 2.0])
    rows = [[1.0, 2.0, 3.0], [1.0, bad, 2.0], [3.0, 4.0, 5.0]]
    for given in (rows, [dict(zip(NAMES, row, strict=True)) for row in rows]):
        with pytest.raises(InvalidRow, match=r"row 1, variable 'b': value"):
            engine.process_rows(given)
    with pytest.raises(InvalidRow, match=r"row 1, variable 'b': value"):
        engine.process_rows(pd.DataFrame({"a": [1.0, 1.0], "b": pd.Series([2.0, bad], dtype=object), "c": [1.0, 1.0]}))
    assert state(engine) == before


def test_an_infinite_value_in_an_array_is_named_by_row_and_variable():
    values = data(50)
    values[31, 2] = np.inf
    engine = OnlineDiscoveryEngine(SCHEMA)
    with pytest.raises(InvalidRow, match=r"row 31, variable 'c': value inf"):
        engine.process_rows(values)
    assert engine.num_rows == 0


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"a": 1.0, "b": 2.0}, r"missing columns \['c'\]"),
        ({"a": 1.0, "b": 2.0, "d": 3.0}, r"unknown columns \['d'\]"),
        ({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, r"unknown columns \['d'\]"),
        ([1.0, 2.0], "expected 3 values, got 2"),
        ("abc", "got str"),
        (7, "got int"),
        (np.zeros((3, 3)), "got ndarray"),
    ],
)
def test_a_row_of_another_form_is_refused(row, named):
    with pytest.raises(InvalidRow, match=named):
        OnlineDiscoveryEngine(SCHEMA).process_row(row)


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((2, 4)), np.zeros((1, 2, 3)), "abc", {"a": 1.0}, 5, [5]])
def test_rows_of_another_form_are_refused(rows):
    with pytest.raises(InvalidRow):
        OnlineDiscoveryEngine(SCHEMA).process_rows(rows)


def test_a_frame_with_other_columns_is_refused():
    with pytest.raises(InvalidRow, match=r"missing columns \['c'\], unknown columns \['d'\]"):
        OnlineDiscoveryEngine(SCHEMA).process_rows(pd.DataFrame(data(5), columns=["a", "b", "d"]))
    with pytest.raises(InvalidRow, match="duplicate columns"):
        OnlineDiscoveryEngine(SCHEMA).process_rows(pd.DataFrame(data(5), columns=["a", "b", "b"]))
    with pytest.raises(InvalidRow, match="value True"):
        OnlineDiscoveryEngine(SCHEMA).process_rows(pd.DataFrame({"a": [True], "b": [1.0], "c": [2.0]}))


def test_a_frame_of_whole_numbers_and_nullable_ones_is_read():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": pd.array([1, None, 3], dtype="Int64"), "c": [1.0, 2.0, 3.0]})
    engine, same = OnlineDiscoveryEngine(SCHEMA), OnlineDiscoveryEngine(SCHEMA)
    engine.process_rows(frame)
    same.process_rows([[1, 1, 1], [2, None, 2], [3, 3, 3]])
    assert state(engine) == state(same)


def test_missing_values_are_counted_or_refused_by_policy():
    values = data(30)
    values[7, 1] = np.nan
    assert engine_of(values).num_missing_rows == 1
    strict = OnlineDiscoveryEngine(SCHEMA, EngineConfig(missing="error"))
    for rows in (values, [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]):
        with pytest.raises(InvalidRow, match=r"row 7, variable 'b': value nan is missing"):
            strict.process_rows(rows)
    with pytest.raises(InvalidRow, match="value None is missing"):
        strict.process_row([1.0, None, 1.0])
    assert strict.num_rows == 0
    with pytest.raises(ConfigError, match="missing"):
        EngineConfig(missing="drop")


def test_binary_values_are_zero_or_one():
    engine = OnlineDiscoveryEngine(Schema([Variable("on", "binary"), Variable("x")]))
    engine.process_rows(np.array([[0.0, 5.0], [1.0, 6.0]]))
    for rows in (np.array([[0.5, 1.0]]), [{"on": 2, "x": 1.0}]):
        with pytest.raises(InvalidRow, match=r"'on': value .* must be 0 or 1"):
            engine.process_rows(rows)
    assert engine.num_rows == 2


def test_values_are_clipped_to_public_bounds():
    bounded = Schema([Variable("a", bounds=(-1.0, 1.0)), Variable("b"), Variable("c")], lags=2)
    values = data(100)
    clipped = values.copy()
    clipped[:, 0] = np.clip(clipped[:, 0], -1, 1)
    one, two = OnlineDiscoveryEngine(bounded), OnlineDiscoveryEngine(bounded)
    one.process_rows(values)
    two.process_rows(clipped)
    np.testing.assert_allclose(one.statistics().vector, two.statistics().vector, atol=1e-9)


@pytest.mark.parametrize("at", [[5, 5], [6, 5], [5.0, 6.0], ["5", "6"], [5], [[5, 6]]])
def test_time_indices_that_do_not_grow_are_refused(at):
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.process_row(data(1)[0], at=4)
    before = state(engine)
    with pytest.raises(InvalidRow):
        engine.process_rows(data(2), at=at)
    assert state(engine) == before


@pytest.mark.parametrize("at", [4, 3, -1, True, 5.0, "5", 10**30])
def test_a_time_index_that_does_not_come_later_is_refused(at):
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.process_row(data(1)[0], at=4)
    with pytest.raises(InvalidRow):
        engine.process_row(data(1)[0], at=at)
    engine.process_row(data(1)[0], at=5)
    assert engine.num_rows == 2


def test_names_come_from_the_first_rows_without_a_schema():
    for rows, names in (
        ([{"u": 1.0, "v": 2.0}], ("u", "v")),
        (pd.DataFrame({"u": [1.0], "v": [2.0]}), ("u", "v")),
        (np.ones((2, 3)), ("x0", "x1", "x2")),
        ([[1.0, 2.0]], ("x0", "x1")),
    ):
        engine = OnlineDiscoveryEngine()
        engine.process_rows(rows)
        assert engine.schema.names == names
    engine = OnlineDiscoveryEngine()
    engine.process_row({"u": 1.0, "v": 2.0}, at=3)
    assert engine.schema.names == ("u", "v")
    assert not engine.schema.has_public_scales


def test_an_engine_without_rows_says_so_and_a_bad_first_row_leaves_it_empty():
    engine = OnlineDiscoveryEngine()
    engine.process_rows([])
    for call in (engine.statistics, engine.relations, engine.increment, engine.predict, engine.mean):
        with pytest.raises(InsufficientInputs):
            call()
    with pytest.raises(InvalidRow):
        engine.process_row({"u": "x"})
    assert engine.schema is None


def test_rows_given_as_an_array_are_neither_changed_nor_looked_at_again():
    values = data(700)
    values[5, 1] = np.nan
    given = values.copy()
    engine = engine_of(given)
    np.testing.assert_array_equal(given, values)
    given[:] = 7.0
    assert state(engine) == state(engine_of(values))


@pytest.mark.parametrize("policy", ["nan", "error"])
def test_an_array_of_nothing_but_missing_values_is_missing_by_the_policy(policy):
    engine = OnlineDiscoveryEngine(SCHEMA, EngineConfig(missing=policy))
    if policy == "error":
        with pytest.raises(InvalidRow, match="is missing"):
            engine.process_rows(np.full((4, 3), np.nan))
    else:
        engine.process_rows(np.full((4, 3), np.nan))
        engine.process_rows(np.zeros((0, 3)))
        assert engine.num_missing_rows == 4
