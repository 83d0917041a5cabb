"""What a sum of statistics could find, before there are any rows: standard errors, and the smallest likely find.

The fit is made by the engine itself, of the moments that one assumed case has: variables that remember nothing, do not
depend on each other and have the deviations that the schema's scales promise. Privacy noise is charged to it as to any
other fit. Real variables remember; slow ones need larger effects than what is said here.
"""

from __future__ import annotations

import math
from typing import Final

import attrs
import numpy as np

from scarcity.engine.arrays import FloatArray, pack_symmetric
from scarcity.engine.moments import Moments
from scarcity.engine.online import OnlineDiscoveryEngine
from scarcity.engine.schema import Schema
from scarcity.engine.significance import effect_p_values
from scarcity.engine.var import fit_var
from scarcity.engine.vector import Form, lattice_rows, pack_gammas
from scarcity.errors import InsufficientInputs

# A true effect this many standard errors above the smallest estimate that is accepted is accepted four times in five.
_POWER_80: Final = 0.8416
_REFERENCE_ROWS: Final = 4096  # the mean square that projected rows keep is then within 2 % at p = 1, .3 % at p = 8
_HALVINGS: Final = 60


@attrs.frozen
class Power:
    """What a fit could find; effects in deviations of the target per deviation of the source.

    Attributes:
        se: the largest standard error of a link's effect; infinite where nothing can be fitted.
        noise_share: part of that variance that is privacy noise, in [0, 1].
        smallest_effect: a true effect that is more likely found than not when it stands alone among all tests. Four in
            five is what is asked for; 57 to 77 % came in 60 runs each of six cases, since the projection shrinks
            effects by a few per cent. Where others are found with it, smaller ones pass.
    """

    se: float
    noise_share: float
    smallest_effect: float


def usable_rows(schema: Schema, form: Form, rows: int) -> int:
    """Return the weight of one party's contribution of `rows` successive complete rows; 0 when they are too few."""
    probe = schema.horizon + schema.lags + 2
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(np.zeros((probe, schema.num_variables)))
    weight = engine.increment(form).weight
    if form == "mean":
        return weight if rows > schema.lags else 0
    return max(0, weight + rows - probe)


def mean_norm(schema: Schema) -> float:
    """Return the norm of the "mean" vector of variables with the promised deviations: clipped there, it stays whole."""
    return math.sqrt(1 + schema.num_variables * (schema.lags + 1))


def power_of(
    schema: Schema,
    form: Form,
    *,
    weight: int,
    parties: int,
    noise_std: float,
    clip_norm: float = math.inf,
    alpha: float = 0.05,
    min_effect: float = 0.02,
) -> Power:
    """Return what a fit of summed statistics could find.

    Args:
        schema: variables, lags and constants.
        form: "differenced" or "mean".
        weight: what all parties' contributions weigh together (`usable_rows` of each).
        parties: contributors.
        noise_std: std of the privacy noise on a unit-scale coordinate of the SUM, in the vector's units.
        clip_norm: bound of one party's vector ("mean").
        alpha: false discovery rate of the report.
        min_effect: smallest effect of interest of the report.
    """
    schema = _without_limits(schema)
    vector = _differenced(schema, weight, parties) if form == "differenced" else _mean(schema, parties, clip_norm)

    def largest_se(noise: float) -> tuple[float, float]:
        fit = fit_var(Moments.from_vector(schema, form, vector, weight, parties, noise))
        return float(fit.standardised()[1].max()), fit.df

    try:
        se, df = largest_se(noise_std)
        clean, _ = largest_se(0.0)
    except InsufficientInputs:
        return Power(math.inf, 0.0, math.inf)
    if not math.isfinite(se):
        return Power(math.inf, 1.0, math.inf)
    tests = schema.lags * schema.num_variables**2
    found = _smallest_accepted(se, df, alpha / tests, min_effect)
    return Power(se, max(0.0, 1 - (clean / se) ** 2), found + _POWER_80 * se)


def _smallest_accepted(se: float, df: float, level: float, min_effect: float) -> float:
    """Return the smallest estimate whose p-value is at most `level`, by halving."""
    low, high = min_effect, min_effect + 100 * se
    while effect_p_values(np.array([high]), np.array([se]), df, min_effect)[0] > level and high < math.inf:
        high *= 2  # few degrees of freedom have heavy tails
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if effect_p_values(np.array([middle]), np.array([se]), df, min_effect)[0] > level:
            low = middle
        else:
            high = middle
    return high


def _without_limits(schema: Schema) -> Schema:
    """Return the schema without bounds, which are about values and say nothing about the moments of scaled ones."""
    return attrs.evolve(schema, variables=[attrs.evolve(v, bounds=None) for v in schema.variables])


def _differenced(schema: Schema, weight: int, parties: int) -> FloatArray:
    """Return the summed vector: gamma_D(0) is what the projection leaves of 2 I, gamma_D(H) is -1/2 of it."""
    p, lags = schema.num_variables, schema.lags
    rng = np.random.default_rng(0)  # of statistics, not of noise: any sample of rows would do
    projected = lattice_rows(math.sqrt(2) * rng.standard_normal((_REFERENCE_ROWS, p)), schema)
    kept = float(np.square(projected).mean())
    gammas = np.zeros((lags + 1, p, p))
    gammas[0] = kept * np.eye(p)
    if schema.horizon <= lags:
        gammas[schema.horizon] = -gammas[0] / 2
    counts = np.maximum(weight - parties * np.arange(lags + 1), 0).astype(np.float64)
    return np.concatenate((counts, pack_gammas(gammas * counts[:, None, None])))


def _mean(schema: Schema, parties: int, clip_norm: float) -> FloatArray:
    one = pack_symmetric(np.eye(1 + schema.num_variables * (schema.lags + 1)))
    clipped: FloatArray = one * (parties * min(1.0, clip_norm / mean_norm(schema)))
    return clipped
