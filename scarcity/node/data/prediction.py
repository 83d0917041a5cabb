"""How well fits predict rows that they have not seen.

Skill is 1 - squared error / squared error of persistence ("tomorrow is as today"), one step ahead, each party around
its own mean of the learning rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs
import numpy as np

from scarcity.engine import Schema, VarFit
from scarcity.engine.arrays import BoolArray, FloatArray
from scarcity.node.data.source import Party


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


def skills(schema: Schema, parties: Iterable[Party], predictors: Mapping[str, Chooser]) -> Skills:
    """Return the skill of predictors over the held-out rows of the parties.

    Args:
        schema: of the rows.
        parties: whose held-out rows are predicted.
        predictors: name -> what picks the fit for a party; parties without a fit do not count for that predictor.
    """
    p = schema.num_variables
    errors = {name: np.zeros((2, p)) for name in predictors}
    for party in parties:
        windows = held_out_windows(party, schema.lags)
        if not len(windows.target):
            continue
        persistence = np.square(windows.target - windows.history[:, -1]).sum(axis=0)
        for name, choose in predictors.items():
            fit = choose(party)
            if fit is not None:
                predicted = fit.predict(windows.history, windows.mean)
                errors[name] += (np.square(windows.target - predicted).sum(axis=0), persistence)
    measured = {name: _skill(*error) for name, error in errors.items() if error[1].any()}
    return Skills(schema.names, measured)


def _skill(squared: FloatArray, persistence: FloatArray) -> tuple[float, ...]:
    """A variable that never changed was predicted by persistence without error: skill 0."""
    safe = np.where(persistence > 0, persistence, 1.0)
    return tuple(np.where(persistence > 0, 1.0 - squared / safe, 0.0).tolist())
