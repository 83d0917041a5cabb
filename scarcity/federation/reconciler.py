"""Merge what the federation finds into HypergraphStores, and stores into each other.

A model becomes one immutable evidence record. Evidence of different rounds adds up in the store, not in the protocol,
and merging two stores is the union of their evidence, so the order in which models and stores arrive cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from scarcity.engine import EvidenceRecord, HypergraphStore, Moments, Schema
from scarcity.engine.vector import Form
from scarcity.federation.packets import Aggregate, FloatArray, Model

GLOBAL = "global"


def evidence_of_model(schema: Schema, form: Form, model: Model) -> EvidenceRecord:
    """Return a model as evidence of scope "global".

    Raises:
        SchemaMismatchError: the model's vector is not of this schema and form.
    """
    total = model.vector * model.weight
    moments = Moments.from_vector(schema, form, total, model.weight, model.count, model.noise_std)
    return EvidenceRecord(GLOBAL, moments, f"round {model.round_id}")


def evidence_of_aggregate(
    schema: Schema, form: Form, aggregate: Aggregate, *, basket_id: str, round_id: int, unit: float
) -> EvidenceRecord:
    """Return a basket's aggregate as evidence of the basket's scope.

    Args:
        schema: the round's.
        form: layout of the contributions.
        aggregate: what the basket made.
        basket_id: the scope.
        round_id: the round.
        unit: what one unit of a contribution is in the units of the model.
    """
    total = np.asarray(aggregate.total, dtype=np.float64) * unit
    noise = float(np.sqrt(aggregate.noise_variance)) * unit
    moments = Moments.from_vector(schema, form, total, aggregate.weight, aggregate.count, noise)
    return EvidenceRecord(basket_id, moments, f"round {round_id}")


def sum_moments(schema: Schema, form: Form, total: FloatArray, weight: float, count: int, noise_std: float) -> Moments:
    """Return the moments of one sum of contributions, shape (d,), in the units of contributions."""
    # A mean times its weight is off the integers by a rounding; a differenced statistic is a sum of integers.
    exact = np.rint(total) if form == "differenced" else total
    return Moments.from_vector(schema, form, exact, weight, count, noise_std)


def model_moments(schema: Schema, form: Form, models: Sequence[Model]) -> Moments | None:
    """Return the moments of all rounds' models together; None without a model."""
    parts = [sum_moments(schema, form, m.vector * m.weight, m.weight, m.count, m.noise_std) for m in models]
    return Moments.sum(parts) if parts else None


def merge_model(store: HypergraphStore, schema: Schema, form: Form, model: Model) -> None:
    """Add a model's evidence to a store; the same model again changes nothing."""
    store.add(evidence_of_model(schema, form, model))


def merge_stores(stores: Iterable[HypergraphStore]) -> HypergraphStore:
    """Return the union of the stores' evidence. None of them changes."""
    merged = HypergraphStore()
    for store in stores:
        merged = merged.merge(store)
    return merged
