"""Models and aggregates become evidence; the order in which it arrives cannot matter."""

from __future__ import annotations

import itertools

import attrs
import numpy as np
import pytest

from scarcity.engine import HypergraphStore
from scarcity.engine.vector import vector_dimension
from scarcity.errors import SchemaMismatchError
from scarcity.federation.packets import Aggregate, Model
from scarcity.federation.reconciler import evidence_of_aggregate, evidence_of_model, merge_model, merge_stores
from tests.federation_world import schema

SCHEMA = schema()


def model_of(round_id: int, seed: int = 0) -> Model:
    dimension = vector_dimension(SCHEMA, "differenced")
    vector = np.random.default_rng(seed + round_id).standard_normal(dimension) * 1e6
    vector[: SCHEMA.lags + 1] = 1.0
    return Model(round_id, SCHEMA.hash, vector, 120.0, 4, 1000.0, bytes(32))


def test_a_model_becomes_evidence_of_scope_global_and_names_its_round() -> None:
    record = evidence_of_model(SCHEMA, "differenced", model_of(3))
    assert (record.scope, record.origin) == ("global", "round 3")
    assert record.parties == 4


def test_the_same_model_again_changes_nothing() -> None:
    store = HypergraphStore()
    for _ in range(3):
        merge_model(store, SCHEMA, "differenced", model_of(1))
    assert len(store) == 1


def test_rounds_add_up_in_whatever_order_they_come() -> None:
    stores = []
    for order in itertools.permutations((1, 2, 3)):
        store = HypergraphStore()
        for round_id in order:
            merge_model(store, SCHEMA, "differenced", model_of(round_id))
        stores.append(store)
    assert all(store == stores[0] for store in stores)
    assert len({store.snapshot() for store in stores}) == 1
    assert len(stores[0]) == 3


def test_merging_stores_is_a_union_that_changes_none_of_them() -> None:
    one, two = HypergraphStore(), HypergraphStore()
    merge_model(one, SCHEMA, "differenced", model_of(1))
    merge_model(one, SCHEMA, "differenced", model_of(2))
    merge_model(two, SCHEMA, "differenced", model_of(2))
    merge_model(two, SCHEMA, "differenced", model_of(3))
    merged = merge_stores([one, two])
    assert merged == merge_stores([two, one]) == merge_stores([one, merged])
    assert (len(merged), len(one), len(two)) == (3, 2, 2)
    assert len(merge_stores([])) == 0


def test_two_models_of_one_round_are_two_pieces_of_evidence_and_neither_is_lost() -> None:
    store = HypergraphStore()
    merge_model(store, SCHEMA, "differenced", model_of(1))
    merge_model(store, SCHEMA, "differenced", model_of(1, seed=9))
    assert len(store) == 2


def test_a_model_of_another_length_is_refused() -> None:
    with pytest.raises(SchemaMismatchError):
        evidence_of_model(SCHEMA, "differenced", attrs.evolve(model_of(1), vector=np.zeros(3)))


def test_an_aggregate_is_evidence_of_its_basket_in_the_units_of_the_model() -> None:
    model = model_of(1)
    total = model.vector * model.weight
    aggregate = Aggregate(total / 2.0, model.weight, model.count, "average", (model.noise_std / 2.0) ** 2)
    record = evidence_of_aggregate(SCHEMA, "differenced", aggregate, basket_id="basket/a", round_id=1, unit=2.0)
    same = evidence_of_model(SCHEMA, "differenced", model)
    assert record.scope == "basket/a"
    np.testing.assert_allclose(record.moments.gammas, same.moments.gammas)
    assert record.noise_std == pytest.approx(same.noise_std)
