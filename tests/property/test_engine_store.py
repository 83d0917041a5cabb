"""A store is a set: merging is union, and no evidence counts twice."""

import functools

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.engine import EvidenceRecord, HypergraphStore, Moments, OnlineDiscoveryEngine, Schema, Variable
from scarcity.engine.vector import vector_dimension
from scarcity.errors import CodecError, ConfigError, InsufficientInputs, InvalidUpdate, SchemaMismatchError

SCHEMA = Schema([Variable("a", scale=1.0), Variable("b", scale=1.0)], lags=1)
DIMENSION = vector_dimension(SCHEMA, "differenced")


def moments_of(seed, rows=10, noise_std=0.0):
    vector = np.random.default_rng(seed).integers(-1000, 1000, DIMENSION)
    return Moments.from_vector(SCHEMA, "differenced", vector, rows, 1, noise_std)


ROUNDS = [EvidenceRecord("global", moments_of(i, rows=10 + i), f"round {i}") for i in range(5)]
CUMULATIVE = [
    EvidenceRecord("global", Moments.sum(r.moments for r in part), name, [r.id for r in part])
    for name, part in (("0-2", ROUNDS[:3]), ("2-4", ROUNDS[2:]), ("0-1", ROUNDS[:2]))
]
TOP = EvidenceRecord(
    "global", Moments.sum(r.moments for r in ROUNDS[:4]), "0-3", [CUMULATIVE[0].id, *(r.id for r in ROUNDS[:4])]
)
OTHERS = [EvidenceRecord("north", moments_of(9), "round 0")]
RECORDS = [*ROUNDS, *CUMULATIVE, TOP, *OTHERS]
stores = st.lists(st.sampled_from(RECORDS)).map(HypergraphStore)


@given(stores, stores, stores)
def test_merging_is_commutative_associative_and_idempotent(a, b, c):
    assert a.merge(b).snapshot() == b.merge(a).snapshot()
    assert a.merge(b).merge(c).snapshot() == a.merge(b.merge(c)).snapshot()
    assert a.merge(a).snapshot() == a.snapshot()
    assert a.merge(HypergraphStore()) == a
    assert set(a.merge(b)) == set(a) | set(b)


@given(st.permutations(RECORDS))
@settings(max_examples=30)
def test_the_order_of_arrival_changes_nothing(records):
    one, other = HypergraphStore(records), HypergraphStore(RECORDS)
    assert one.snapshot() == other.snapshot()
    assert one.active() == other.active()
    assert one.edges() == other.edges()


@given(stores)
def test_no_round_ever_counts_twice(store):
    rounds = {record.id for record in ROUNDS}
    counted = [key for record in store.active() for key in {record.id, *record.supersedes} & rounds]
    assert len(counted) == len(set(counted))
    total = sum((record.moments.vector for record in ROUNDS if record.id in counted), np.zeros(DIMENSION))
    if counted:
        np.testing.assert_array_equal(store.moments().vector, total)


@given(st.sets(st.sampled_from(ROUNDS)))
def test_rounds_without_cumulative_records_all_count(rounds):
    assert set(HypergraphStore(rounds).active()) == rounds


def test_a_cumulative_record_takes_the_place_of_its_rounds():
    store = HypergraphStore([*ROUNDS[:3], CUMULATIVE[0]])
    assert store.active() == (CUMULATIVE[0],)
    store.add(ROUNDS[4])
    assert set(store.active()) == {CUMULATIVE[0], ROUNDS[4]}
    store.add(TOP)
    assert set(store.active()) == {TOP, ROUNDS[4]}
    assert store.moments().rows == sum(10 + i for i in range(5))


def test_records_of_a_scope_add_up_and_scopes_stay_apart():
    store = HypergraphStore([*ROUNDS, *OTHERS])
    np.testing.assert_array_equal(store.moments().vector, sum(r.moments.vector for r in ROUNDS))
    assert store.moments().parties == 5
    assert store.moments("north") == OTHERS[0].moments
    assert store.scopes == ("global", "north")
    with pytest.raises(InsufficientInputs, match="no evidence of scope 'south'"):
        store.moments("south")
    assert store.edges(scope="south") == []


def test_an_id_is_the_hash_of_all_that_a_record_says():
    base = EvidenceRecord("global", moments_of(1), "round 1")
    others = [
        EvidenceRecord("north", moments_of(1), "round 1"),
        EvidenceRecord("global", moments_of(2), "round 1"),
        EvidenceRecord("global", moments_of(1), "round 2"),
        EvidenceRecord("global", moments_of(1, rows=11), "round 1"),
        EvidenceRecord("global", moments_of(1, noise_std=1.0), "round 1"),
        EvidenceRecord("global", moments_of(1), "round 1", [base.id]),
    ]
    assert EvidenceRecord("global", moments_of(1), "round 1").id == base.id
    assert len({base.id, *(r.id for r in others)}) == 7
    with pytest.raises(ConfigError, match="supersedes"):
        EvidenceRecord("global", moments_of(1), supersedes=[b"short"])
    with pytest.raises(ConfigError, match="scope"):
        EvidenceRecord("x" * 1000, moments_of(1))


def test_an_explanation_names_the_evidence():
    rng = np.random.default_rng(1)
    store = HypergraphStore()
    for index in range(3):
        rows = rng.normal(size=(500, 2))
        rows[1:, 1] += 0.6 * rows[:-1, 0]
        engine = OnlineDiscoveryEngine(SCHEMA)
        engine.process_rows(rows)
        store.add(EvidenceRecord("global", engine.differenced(), f"round {index}"))
    (edge,) = store.edges()
    assert edge.key == ("lagged", ("a",), ("b",), 1)
    explanation = store.explain(edge)
    assert explanation.relation == edge
    assert explanation.evidence == store.active()
    assert explanation.parties == 3
    assert explanation.rows == 3 * 490


@given(stores)
def test_a_snapshot_is_canonical_and_comes_back(store):
    data = store.snapshot()
    restored = HypergraphStore.restore(data)
    assert restored == store
    assert restored.snapshot() == data


def test_a_snapshot_that_was_tampered_with_is_refused():
    data = HypergraphStore(RECORDS).snapshot()
    plain = msgpack.unpackb(data)
    plain["records"].reverse()
    bad = [b"", b"\xc0", b"\x80", data[:-1], data + b"\x00", msgpack.packb(plain), msgpack.packb({"version": 2})]
    plain["records"][0][5] = "rows"
    bad.append(msgpack.packb(plain))
    plain["records"][0] = [1, 2]
    bad.append(msgpack.packb(plain))
    for entry in bad:
        with pytest.raises(CodecError):
            HypergraphStore.restore(entry)


vectors = st.lists(st.integers(-(2**40), 2**40), min_size=DIMENSION, max_size=DIMENSION)


@given(st.lists(vectors, min_size=1, max_size=5), st.randoms())
def test_integer_moments_add_exactly_in_any_order(parts, chance):
    moments = [Moments.from_vector(SCHEMA, "differenced", np.array(v, dtype=np.int64), 5, 1, 3.0) for v in parts]
    shuffled = list(moments)
    chance.shuffle(shuffled)
    total = Moments.sum(moments)
    np.testing.assert_array_equal(total.vector, Moments.sum(shuffled).vector)
    np.testing.assert_array_equal(total.vector, functools.reduce(np.add, map(np.array, parts)))
    assert total.noise_std == pytest.approx(3.0 * len(parts) ** 0.5)
    assert (total.rows, total.parties) == (5 * len(parts), len(parts))
    rest = total - moments[0]
    np.testing.assert_array_equal(rest.vector, total.vector - moments[0].vector)
    assert rest.noise_std == pytest.approx(3.0 * (len(parts) - 1) ** 0.5, abs=1e-6)


def test_moments_refuse_what_is_none():
    with pytest.raises(SchemaMismatchError, match="has 9 numbers"):
        Moments.from_vector(SCHEMA, "differenced", np.zeros(DIMENSION + 1), 1, 1)
    with pytest.raises(SchemaMismatchError):
        Moments.from_vector(SCHEMA, "differenced", np.zeros((DIMENSION, 1)), 1, 1)
    with pytest.raises(SchemaMismatchError):
        _ = moments_of(1) + Moments.from_vector(SCHEMA, "centred", np.zeros(15), 1, 1)
    with pytest.raises(InvalidUpdate, match="coordinate 2"):
        Moments.from_vector(SCHEMA, "differenced", np.where(np.arange(DIMENSION) == 2, np.nan, 0.0), 1, 1)
    for bad in ({"weight": -1}, {"weight": float("nan")}, {"parties": -1}, {"noise_std": float("inf")}):
        fields = {"weight": 1, "parties": 1, "noise_std": 0.0} | bad
        with pytest.raises(InvalidUpdate):
            Moments.from_vector(SCHEMA, "differenced", np.zeros(DIMENSION), **fields)
    with pytest.raises(ConfigError, match="form"):
        Moments(SCHEMA, "other", np.zeros(3), 1)
    with pytest.raises(InvalidUpdate, match="no schema"):
        Moments.sum([])
    with pytest.raises(InvalidUpdate, match="take out"):
        _ = moments_of(1, rows=5) - moments_of(1, rows=6)


def test_moments_do_not_change_through_their_array():
    vector = np.zeros(DIMENSION)
    moments = Moments.from_vector(SCHEMA, "differenced", vector, 1, 1)
    vector[0] = 5.0
    assert moments.vector[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        moments.vector[0] = 1.0
