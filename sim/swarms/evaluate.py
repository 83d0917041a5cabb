"""What only a local swarm can compute, since it holds everybody's rows: the fits that its models stand beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, VarFit, fit_var
from scarcity.engine.vector import Form
from scarcity.errors import InsufficientInputs
from scarcity.federation.packets import Aggregate
from scarcity.federation.reconciler import sum_moments
from scarcity.node.data.source import Party, Source


def aggregate_moments(schema: Schema, form: Form, aggregates: Sequence[Aggregate], unit: float) -> Moments | None:
    """Return the moments of a basket's aggregates together; None without one.

    Args:
        schema: the swarm's.
        form: layout of the vectors.
        aggregates: one a round.
        unit: what one unit of theirs is in the units of clients' vectors.
    """
    parts = [
        sum_moments(
            schema, form, np.asarray(a.total, dtype=np.float64) * unit, a.weight, a.count, a.noise_variance**0.5 * unit
        )
        for a in aggregates
    ]
    return Moments.sum(parts) if parts else None


def fit_or_none(moments: Moments | None) -> VarFit | None:
    """Return the fit; None when there are no moments, or too few rows for a fit."""
    try:
        return None if moments is None else fit_var(moments)
    except InsufficientInputs:
        return None


@attrs.frozen
class LocalFits:
    """What only somebody with all rows can compute.

    Attributes:
        pooled: fixed effects over all parties' learning rows.
        projected: the same in the record-private form, without its noise; None without public scales.
        alone: party id -> the fit of its own rows, None where they are too few.
    """

    pooled: VarFit | None
    projected: VarFit | None
    alone: Mapping[str, VarFit | None]


def local_fits(source: Source) -> LocalFits:
    """Return the pooled fits and every party's own."""
    engines = {party.id: _engine(source.schema, party) for party in source.parties}
    centred = {name: engine.statistics() for name, engine in engines.items()}
    projected = None
    if source.schema.has_public_scales:
        projected = Moments.sum(engine.differenced() for engine in engines.values())
    return LocalFits(
        pooled=fit_or_none(Moments.sum(centred.values())),
        projected=fit_or_none(projected),
        alone={name: fit_or_none(moments) for name, moments in centred.items()},
    )


def _engine(schema: Schema, party: Party) -> OnlineDiscoveryEngine:
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(party.rows, at=party.times.tolist())
    return engine
