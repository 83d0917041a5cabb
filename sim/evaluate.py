"""How good what a swarm found is: fits of pooled rows, and the prediction of held-out days.

Only a local swarm can do this, since it holds everybody's rows. Skill is 1 - squared error / squared error of
persistence ("tomorrow is as today"), one step ahead, each party around its own mean of the learning rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
import numpy as np

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, VarFit, fit_var
from scarcity.engine.arrays import BoolArray
from scarcity.engine.vector import Form
from scarcity.errors import InsufficientInputs
from scarcity.federation.packets import Aggregate, Model
from sim.sources import FloatArray, Party, Source


def model_moments(schema: Schema, form: Form, models: Sequence[Model]) -> Moments | None:
    """Return the moments of all rounds' models together; None without a model."""
    parts = [_moments(schema, form, m.vector * m.weight, m.weight, m.count, m.noise_std) for m in models]
    return Moments.sum(parts) if parts else None


def aggregate_moments(schema: Schema, form: Form, aggregates: Sequence[Aggregate], unit: float) -> Moments | None:
    """Return the moments of a basket's aggregates together; None without one.

    Args:
        schema: the swarm's.
        form: layout of the vectors.
        aggregates: one a round.
        unit: what one unit of theirs is in the units of clients' vectors.
    """
    parts = [
        _moments(
            schema, form, np.asarray(a.total, dtype=np.float64) * unit, a.weight, a.count, a.noise_variance**0.5 * unit
        )
        for a in aggregates
    ]
    return Moments.sum(parts) if parts else None


def _moments(schema: Schema, form: Form, total: FloatArray, weight: float, count: int, noise_std: float) -> Moments:
    # A mean times its weight is off the integers by a rounding; a differenced statistic is a sum of integers.
    exact = np.rint(total) if form == "differenced" else total
    return Moments.from_vector(schema, form, exact, weight, count, noise_std)


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


@attrs.frozen
class Windows:
    """The held-out rows of one party that can be predicted.

    Attributes:
        history: shape (n, L, p), oldest first; may reach back into the learning rows, never skips a time.
        target: shape (n, p).
        mean: shape (p,), of the learning rows.
    """

    history: FloatArray
    target: FloatArray
    mean: FloatArray


def held_out_windows(party: Party, lags: int) -> Windows:
    """Return the windows whose target is held out and whose L + 1 rows are complete and without a gap."""
    times = np.concatenate((party.times, party.held_out_times))
    rows = np.concatenate((party.rows, party.held_out))
    complete: BoolArray = np.asarray(np.isfinite(rows).all(axis=1))
    ends = [
        end
        for end in range(max(lags, len(party.times)), len(times))
        if times[end] - times[end - lags] == lags and complete[end - lags : end + 1].all()
    ]
    history = np.array([rows[end - lags : end] for end in ends]).reshape(len(ends), lags, rows.shape[1])
    mean = party.rows[np.isfinite(party.rows).all(axis=1)].mean(axis=0)
    return Windows(history, rows[ends], mean)


@attrs.frozen
class Skills:
    """Skill of each predictor, per variable and in the median variable.

    Attributes:
        variables: names.
        per_variable: predictor -> shape (p,) skills; predictors that could predict nothing are left out.
    """

    variables: tuple[str, ...]
    per_variable: Mapping[str, tuple[float, ...]]

    def median(self, predictor: str) -> float | None:
        """Return the skill in the median variable; None when there is none."""
        skills = self.per_variable.get(predictor)
        return None if skills is None else float(np.median(skills))


Chooser = Callable[[Party], VarFit | None]


def skills(source: Source, parties: Iterable[Party], predictors: Mapping[str, Chooser]) -> Skills:
    """Return the skill of predictors over the held-out days of the parties.

    Args:
        source: gives the schema.
        parties: whose held-out rows are predicted.
        predictors: name -> what picks the fit for a party; parties without a fit do not count for that predictor.
    """
    p = source.schema.num_variables
    errors = {name: np.zeros((2, p)) for name in predictors}
    for party in parties:
        windows = held_out_windows(party, source.schema.lags)
        if not len(windows.target):
            continue
        persistence = np.square(windows.target - windows.history[:, -1]).sum(axis=0)
        for name, choose in predictors.items():
            fit = choose(party)
            if fit is not None:
                predicted = fit.predict(windows.history, windows.mean)
                errors[name] += (np.square(windows.target - predicted).sum(axis=0), persistence)
    measured = {name: _skill(*error) for name, error in errors.items() if error[1].any()}
    return Skills(source.schema.names, measured)


def _skill(squared: FloatArray, persistence: FloatArray) -> tuple[float, ...]:
    """A variable that never changed was predicted by persistence without error: skill 0."""
    safe = np.where(persistence > 0, persistence, 1.0)
    return tuple(np.where(persistence > 0, 1.0 - squared / safe, 0.0).tolist())
