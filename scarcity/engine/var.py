"""Vector autoregression from moments alone: coefficients, honest standard errors, prediction.

`centred` moments give the least-squares fit with a mean of its own for every party, to rounding. `differenced` moments
D_t = x_t - x_{t-H} are turned back into autocovariances: gamma_D(h) = 2 gamma(h) - gamma(h + H) - gamma(h - H), so
gamma = gamma_D / 2 is a start, and the fit's own gamma(H - h), gamma(H + h) correct it.
"""

from __future__ import annotations

import functools
import math

import attrs
import numpy as np

from scarcity.engine.arrays import BoolArray, FloatArray, upper_indices
from scarcity.engine.moments import Moments
from scarcity.engine.schema import Schema
from scarcity.errors import InsufficientInputs, InvalidRow, InvalidUpdate

# At H = 10 and 30,000 rows a fifth repeat moves coefficients by .006 standard errors at autocorrelation .6, .1 at .85.
# A horizon shorter than the memory does not settle in any number of repeats: too little of gamma is in the differences.
_CORRECTIONS = 4
_MAX_RADIUS = 0.98  # of the companion matrix: beyond it the implied autocovariances would not die out
# Score of the differenced fit: sum e_t x_{t-k} - (e_t x_{t-k-H} + e_{t-H} x_{t-k}) / 2. With H beyond the memory
# the three terms are uncorrelated and have variances 1, 1/4 and 1/4 of the plain score's: 3/2 together.
_OVERLAP = math.sqrt(1.5)
# Draws of noise that say what the corrections make of it; fewer numbers are followed one by one, exactly.
# Only a ratio of two sums over the same draws is taken, and it is 1 to rounding where the corrections do nothing.
_NOISE_DRAWS = 64
_RANK_TOLERANCE = 1e-12  # of the correlation matrix's eigenvalues: a smaller one is an exact collinearity


@attrs.frozen(eq=False)
class VarFit:
    """A fitted VAR(L) without intercept: deviations from a party's own mean.

    Attributes:
        names: shape (p,).
        scales: shape (p,): schema scales (1 where there is none); z = (x - mean) / scale.
        coefficients: shape (L, p, p), [lag - 1, target, source], of z on z.
        se: shape (L, p, p), standard errors; inf where the data cannot identify the coefficient.
        residual_covariance: shape (p, p), of z.
        spread: shape (p,), standard deviations of z as the moments have them.
        rows: rows that the fit counts on.
        df: degrees of freedom of its t values.
    """

    names: tuple[str, ...]
    scales: FloatArray
    coefficients: FloatArray
    se: FloatArray
    residual_covariance: FloatArray
    spread: FloatArray
    rows: int
    df: float

    @property
    def lags(self) -> int:
        """The number L of lags."""
        return len(self.coefficients)

    def standardised(self) -> tuple[FloatArray, FloatArray]:
        """Return effects and their standard errors, in deviations of the target per deviation of the source.

        Both have shape (L, p, p). Fits with different public scales can be compared, and so can a smallest effect.
        """
        with np.errstate(all="ignore"):
            ratio = self.spread[None, :] / self.spread[:, None]
            effects, se = self.coefficients * ratio, self.se * ratio
        measured = np.isfinite(effects) & np.isfinite(se) & (ratio > 0)
        return np.where(measured, effects, 0.0), np.where(measured, se, np.inf)

    def predict(self, history: FloatArray, mean: FloatArray) -> FloatArray:
        """Return the next row: mean + sum_l A_l (history[-l] - mean), all in the variables' own units.

        Args:
            history: shape (..., T, p), T >= L, oldest row first; leading axes are separate cases.
            mean: shape (p,) or (..., p): the level that deviations are taken from, a party's own mean.

        Returns:
            shape (..., p).

        Raises:
            InvalidRow: wrong shape, fewer than L rows, or values that are not finite.
        """
        p = len(self.names)
        past = np.asarray(history, dtype=np.float64)
        level = np.asarray(mean, dtype=np.float64)
        if past.ndim < 2 or past.shape[-1] != p or past.shape[-2] < self.lags or level.shape[-1:] != (p,):
            raise InvalidRow(
                f"history must have shape (..., >= {self.lags}, {p}) and mean (..., {p}), "
                f"got {past.shape} and {level.shape}"
            )
        recent = past[..., -1 : -self.lags - 1 : -1, :]
        if not (np.isfinite(recent).all() and np.isfinite(level).all()):
            raise InvalidRow(f"the last {self.lags} rows of history and the mean must be finite")
        deviations = (recent - level[..., None, :]) / self.scales
        forecast = np.einsum("lij,...lj->...i", self.coefficients, deviations)
        return np.asarray(level + self.scales * forecast, dtype=np.float64)


@attrs.frozen(eq=False)
class _NormalEquations:
    """Per-row moments of one regression of all targets on k regressors, the L p lagged ones last.

    `own` (p, p), `cross` (p, k), `regressors` (k, k) with `ridge` on its diagonal; `noise_std` is that of one entry.
    """

    own: FloatArray
    cross: FloatArray
    regressors: FloatArray
    rows: float
    df: float
    noise_std: float
    inflation: float
    ridge: float = 0.0


def fit_var(moments: Moments) -> VarFit:
    """Return the VAR(L) of the moments.

    Returns:
        the fit. Standard errors carry the sampling error, times sqrt(1.5) for "differenced" (differences overlap),
        the first-order effect of the privacy noise, and a bound of the ridge's pull. The noise of "differenced" is that
        of one Gamma(h), which stands in several blocks of the regressors' moments and is enlarged by the corrections;
        else it is that of one packed number. Where it drowns every regressor, coefficients go to zero and their errors,
        which are in proportion, say less than is unknown; no link is found there. Degrees of freedom count rows; for
        "mean" a party is one row in each round, though its rounds share its mean. That form cannot tell parties' levels
        from a variable's own past: own lags are too strong where levels differ.

    Raises:
        InsufficientInputs: not more rows than parameters.
        InvalidUpdate: numbers that no rows have, out of float64's range.
    """
    # A model may hold any numbers: what overflows on the way is caught at the end, once, by what it leaves behind.
    with np.errstate(all="ignore"):
        try:
            fit = _fit(moments)
        except np.linalg.LinAlgError as error:
            raise InvalidUpdate(f"the moments have no fit: {error}") from error
    if not (np.isfinite(fit.coefficients).all() and np.isfinite(fit.spread).all()):
        raise InvalidUpdate("the moments have no finite fit")
    return fit


def _fit(moments: Moments) -> VarFit:
    equations = _differenced_equations(moments) if moments.form == "differenced" else _gram_equations(moments)
    coefficients, inverse, identified = _solve(equations)
    residual = equations.own - coefficients @ equations.cross.T
    residual = (residual + residual.T) / 2 * (equations.rows / equations.df)
    floor = np.maximum(equations.noise_std, 1e-14 * np.abs(np.diag(equations.own)))
    variances = np.maximum(np.diag(residual), floor)
    sampling = equations.inflation**2 * np.outer(variances, np.diag(inverse)) / equations.rows
    p, lags = moments.schema.num_variables, moments.schema.lags
    if moments.form == "differenced":
        noise = _differenced_noise(equations, coefficients, inverse, moments.schema.horizon)
    else:
        noise = _gram_noise(equations, coefficients, inverse)
    se = np.sqrt(np.maximum(sampling + noise, 0.0))
    se[:, ~identified] = np.inf
    se[~np.isfinite(se)] = np.inf
    return VarFit(
        names=moments.schema.names,
        scales=public_scales(moments.schema),
        coefficients=_by_lag(coefficients[:, -p * lags :], p, lags),
        se=_by_lag(se[:, -p * lags :], p, lags),
        residual_covariance=residual,
        spread=np.sqrt(np.maximum(_variances(equations, p * lags), equations.noise_std)),
        rows=round(equations.rows),
        df=equations.df,
    )


def public_scales(schema: Schema) -> FloatArray:
    """Return shape (p,): the schema's scales, 1 where a variable has none."""
    return np.array([1.0 if variable.scale is None else variable.scale for variable in schema.variables])


def _variances(equations: _NormalEquations, num_lagged: int) -> FloatArray:
    """Return shape (p,): the targets' variances, their means taken out where an intercept is the first regressor."""
    second = np.diag(equations.own)
    if equations.cross.shape[1] == num_lagged:
        return second
    ones = max(float(equations.regressors[0, 0]), np.finfo(np.float64).tiny)
    return np.asarray(second - np.square(equations.cross[:, 0]) / ones, dtype=np.float64)


def _by_lag(flat: FloatArray, p: int, lags: int) -> FloatArray:
    return np.ascontiguousarray(flat.reshape(p, lags, p).transpose(1, 0, 2))


def _require_rows(rows: float, df: float) -> None:
    if not (rows > 0 and df > 0):
        raise InsufficientInputs(
            f"{rows:.0f} rows leave {df:.0f} degrees of freedom; a fit needs more rows or fewer lags"
        )


def _gram_equations(moments: Moments) -> _NormalEquations:
    """Return the equations of a Gram, each of whose packed numbers has noise of its own.

    "mean": an intercept stands for the parties' common mean. Subtracting the product of NOISED means would add e e^T,
    of size p (L + 1) times the noise's variance and not in any standard error.
    """
    p, lags = moments.schema.num_variables, moments.schema.lags
    means, first = (1, 0) if moments.form == "mean" else (moments.parties, 1)
    rows, df = float(moments.rows), float(moments.rows - means - p * lags)
    _require_rows(rows, df)
    gram = moments.gram / rows
    targets, chosen = slice(1, 1 + p), np.r_[first:1, 1 + p : len(gram)]
    regressors, noise, ridge = gram[np.ix_(chosen, chosen)], moments.noise_std / rows, 0.0
    if noise > 0:
        # Half of the differenced ridge: what the ridge hides is in the standard errors here (_gram_noise), and more of
        # it hides more (own lags of .85, noise .01 a number: 4.3 of 7 links are found, 2.9 with twice as much).
        ridge = _ridge(regressors, noise * math.sqrt(len(regressors)))
        regressors = regressors + ridge * np.eye(len(regressors))
    return _NormalEquations(gram[targets, targets], gram[targets][:, chosen], regressors, rows, df, noise, 1.0, ridge)


def _gram_noise(equations: _NormalEquations, coefficients: FloatArray, inverse: FloatArray) -> FloatArray:
    """Return shape (p, k): squared error of each coefficient through noise and ridge.

    With true coefficients b, noise n on a target's row of `cross`, N on the regressors' moments and ridge r, what is
    fitted is b + (n - b N - r b) W, W the inverse. Independent noise of variance s^2 on every packed number gives
    Var(n W)_j = s^2 |W_j|^2 and Var(b N W)_j = s^2 (|b|^2 |W_j|^2 + (b W_j)^2 - sum_a b_a^2 W_aj^2).
    """
    squares, inverse_squares = np.square(coefficients), np.square(inverse)
    both = np.outer(1.0 + squares.sum(axis=1), inverse_squares.sum(axis=0))
    crossed = np.square(coefficients @ inverse) - squares @ inverse_squares
    pull = _pull_bound(equations, coefficients, inverse)
    return np.asarray(equations.noise_std**2 * (both + crossed) + np.square(pull), dtype=np.float64)


def _pull_bound(equations: _NormalEquations, coefficients: FloatArray, inverse: FloatArray) -> FloatArray:
    """Return r |b| |W|, shape (p, k): the pull r b W has an unknown sign, and a b that is itself pulled to zero."""
    return np.asarray(equations.ridge * (np.abs(coefficients) @ np.abs(inverse)), dtype=np.float64)


def _differenced_equations(moments: Moments) -> _NormalEquations:
    p, lags, horizon = moments.schema.num_variables, moments.schema.lags, moments.schema.horizon
    counts = moments.counts
    rows = float(counts[0])
    df = rows - p * lags
    _require_rows(float(counts.min()), df)
    observed = moments.gammas / counts[:, None, None]
    step = moments.schema.row_norm / moments.schema.lattice
    noise = moments.noise_std * step**2 / (2 * rows)
    equations = _yule_walker(observed / 2, rows, df, noise)
    for _ in range(_CORRECTIONS):
        coefficients, _, _ = _solve(equations)
        stable = _stabilise(_by_lag(coefficients, p, lags))
        implied = _extend(_autocovariances(equations, p, lags), stable, horizon + lags)
        gammas = np.array([_corrected(observed[lag], implied, lag, horizon) for lag in range(lags + 1)])
        equations = _yule_walker(gammas, rows, df, noise)
    return equations


def _differenced_noise(
    equations: _NormalEquations, coefficients: FloatArray, inverse: FloatArray, horizon: int
) -> FloatArray:
    """Return shape (p, L p): squared error of each coefficient through noise, corrections and ridge.

    The ridge moves own lags to other lags and to correlated variables. Without its pull in the errors, .05 to .39 of
    what is found is false where variables are slow (autocorrelation .6 to .9) and .05 is asked for.
    """
    if not equations.noise_std > 0:
        return np.zeros_like(coefficients)
    p = len(coefficients)
    lags = coefficients.shape[1] // p
    first_order = _toeplitz_noise(_by_lag(coefficients, p, lags), inverse)
    enlarged = first_order * _correction_factors(equations, coefficients, inverse, horizon)
    pull = _pull_bound(equations, coefficients, inverse)
    return np.asarray(equations.noise_std**2 * enlarged + np.square(pull), dtype=np.float64)


def _correction_factors(
    equations: _NormalEquations, coefficients: FloatArray, inverse: FloatArray, horizon: int
) -> FloatArray:
    """Return shape (p, L p), each >= 1: by what the corrections multiply the variance that noise gives a coefficient.

    One factor for own lags and one for all others: the derivative of the repeated correction, summed over noises. 1.0
    to 1.1 at H = 10, 2.2 and 3.5 at H = 2 and own lags of .4, where most of gamma is not in the differences.
    """
    p = len(coefficients)
    lags = coefficients.shape[1] // p
    noises = _unit_noises(p, lags)
    stable = _stabilise(_by_lag(coefficients, p, lags))
    implied = _extend(_autocovariances(equations, p, lags), stable, horizon + lags)
    first = moved = _coefficient_change(noises, coefficients, inverse)
    gammas = noises
    for _ in range(_CORRECTIONS):
        change = moved.reshape(-1, p, lags, p)
        ahead = [gammas[:, lag] for lag in range(lags + 1)]
        for k in range(lags + 1, horizon + lags + 1):
            terms = [stable[i] @ ahead[k - 1 - i] + change[:, :, i] @ implied[k - 1 - i] for i in range(lags)]
            ahead.append(np.sum(terms, axis=0))
        before = [ahead[abs(horizon - lag)] for lag in range(lags + 1)]
        before = [m.swapaxes(1, 2) if lag <= horizon else m for lag, m in enumerate(before)]
        gammas = noises + (np.stack(ahead[horizon:], axis=1) + np.stack(before, axis=1)) / 2
        moved = _coefficient_change(gammas, coefficients, inverse)
    own, factors = np.tile(np.eye(p, dtype=bool), lags), np.ones((p, lags * p))
    before_sum, after_sum = np.square(first).sum(axis=0), np.square(moved).sum(axis=0)
    for group in (own, ~own):
        ratio = after_sum[group].sum() / np.maximum(before_sum[group].sum(), np.finfo(np.float64).tiny)
        factors[group] = max(1.0, float(ratio)) if math.isfinite(ratio) else math.inf
    return factors


def _unit_noises(p: int, lags: int) -> FloatArray:
    """Return shape (draws, L + 1, p, p): squares that sum to unit noise on gamma(0..L), 1/2 off gamma(0)'s diagonal."""
    size = p * (p + 1) // 2 + lags * p * p
    packed = np.eye(size)
    if size > _NOISE_DRAWS:
        rng = np.random.default_rng(0)  # of statistics, and always the same: it hides nothing
        packed = rng.standard_normal((_NOISE_DRAWS, size)) / math.sqrt(_NOISE_DRAWS)
    noises = np.zeros((len(packed), lags + 1, p, p))
    rows, columns = upper_indices(p, 1)
    split = p + len(rows)
    noises[:, 0, np.arange(p), np.arange(p)] = packed[:, :p]
    noises[:, 0, rows, columns] = noises[:, 0, columns, rows] = math.sqrt(0.5) * packed[:, p:split]
    noises[:, 1:] = packed[:, split:].reshape(-1, lags, p, p)
    return noises


def _coefficient_change(moved: FloatArray, coefficients: FloatArray, inverse: FloatArray) -> FloatArray:
    """Return shape (draws, p, L p): first-order change when gamma(0..L) moves by `moved`, (draws, L + 1, p, p)."""
    cross = np.concatenate(list(moved[:, 1:].swapaxes(0, 1)), axis=2)
    return np.asarray((cross - coefficients @ _block_toeplitz(moved)) @ inverse, dtype=np.float64)


def _block_toeplitz(gammas: FloatArray) -> FloatArray:
    """Return E z_{t-i} z_{t-j}^T = gamma(j - i), shape (..., L p, L p), of gamma(0..L), shape (..., L + 1, p, p)."""
    ahead = np.moveaxis(gammas, -3, 0)
    behind = ahead.swapaxes(-1, -2)
    lags = range(len(ahead) - 1)
    return np.block([[ahead[j - i] if j >= i else behind[i - j] for j in lags] for i in lags])


def _toeplitz_noise(coefficients: FloatArray, inverse: FloatArray) -> FloatArray:
    """Return shape (p, L p): variance of each coefficient under unit noise on gamma(0..L), to first order.

    With A_0 = -1, noise N_h on gamma(h) (N_{-h} = N_h^T) and W = R^-1 in block rows W_k, the coefficients move by
    -sum_{k, l} A_l N_{k-l} W_k. Noise N_0 is symmetric, of variance 1 on its diagonal and 1/2 off it. Taking the blocks
    of R as independent makes null z values 1.18 wide where they should be 1 (8 variables, autocorrelation .8).
    """
    lags, p, _ = coefficients.shape
    left = np.concatenate((-np.eye(p)[None], coefficients)).transpose(1, 0, 2)  # (target, l, variable)
    right = inverse.reshape(lags, p, lags * p).transpose(2, 0, 1)  # (column, k - 1, variable)
    left_left = np.einsum("ila,ima->lmi", left, left)[..., None]
    right_right = np.einsum("cka,cna->knc", right, right)[:, :, None, :]
    left_right = np.einsum("ila,cka->lkic", left, right)
    total = np.zeros((p, lags * p))
    for lag in range(lags + 1):
        ahead = [(i, i + lag - 1) for i in range(lags + 1) if 1 <= i + lag <= lags]
        behind = [(i, i - lag - 1) for i in range(lags + 1) if 1 <= i - lag <= lags]
        share = 0.5 if lag == 0 else 1.0  # at lag 0 both lists are the same terms: the symmetric part of their sum
        for terms in (ahead,) if lag == 0 else (ahead, behind):
            for i, k in terms:
                for m, n in terms:
                    total += share * left_left[i, m] * right_right[k, n]
        for i, k in ahead:
            for m, n in behind:
                total += (0.5 if lag == 0 else 2.0) * left_right[i, n] * left_right[m, k]
    return total


def _corrected(observed: FloatArray, implied: list[FloatArray], lag: int, horizon: int) -> FloatArray:
    """Return gamma(h) = (gamma_D(h) + gamma(h + H) + gamma(h - H)) / 2, where gamma(-k) = gamma(k)^T."""
    before = implied[horizon - lag].T if horizon >= lag else implied[lag - horizon]
    return np.asarray((observed + implied[lag + horizon] + before) / 2, dtype=np.float64)


def _yule_walker(gammas: FloatArray, rows: float, df: float, noise: float) -> _NormalEquations:
    """Return the equations whose regressors are block Toeplitz: E z_{t-i} z_{t-j}^T = gamma(j - i)."""
    own = (gammas[0] + gammas[0].T) / 2
    cross = np.hstack(list(gammas[1:]))
    blocks = _block_toeplitz(gammas)
    regressors = (blocks + blocks.T) / 2
    # Noise of std s moves eigenvalues by up to about 2 s sqrt(size): this makes the matrix positive definite.
    ridge = _ridge(regressors, 2 * noise * math.sqrt(len(regressors)))
    regressors = regressors + ridge * np.eye(len(regressors))
    return _NormalEquations(own, cross, regressors, rows, df, noise, _OVERLAP, ridge)


def _autocovariances(equations: _NormalEquations, p: int, lags: int) -> list[FloatArray]:
    return [equations.own, *(equations.cross[:, lag * p : (lag + 1) * p] for lag in range(lags))]


def _ridge(symmetric: FloatArray, lowest_wanted: float) -> float:
    """Return what lifts the smallest eigenvalue to what is wanted, or to a billionth of the mean one."""
    wanted = max(lowest_wanted, 1e-9 * float(np.trace(symmetric)) / len(symmetric))
    return max(wanted - float(np.linalg.eigvalsh(symmetric)[0]), 0.0)


def _stabilise(coefficients: FloatArray) -> FloatArray:
    """Return coefficients whose companion matrix has radius <= 0.98: A_l times r^l scales every eigenvalue by r."""
    lags, p, _ = coefficients.shape
    companion = np.zeros((lags * p, lags * p))
    companion[:p] = np.hstack(list(coefficients))
    companion[p:, :-p] = np.eye((lags - 1) * p)
    # The radius is at most |C^64|^(1/64): six products settle most fits, at a quarter of the eigenvalues' price.
    power = functools.reduce(lambda square, _: square @ square, range(6), companion)
    if float(np.linalg.norm(power)) <= _MAX_RADIUS**64:
        return coefficients
    radius = float(np.abs(np.linalg.eigvals(companion)).max())
    shrink = min(1.0, _MAX_RADIUS / max(radius, 1e-12))
    return coefficients * np.power(shrink, np.arange(1, lags + 1))[:, None, None]


def _extend(gammas: list[FloatArray], coefficients: FloatArray, last: int) -> list[FloatArray]:
    """Return gamma(0..last): beyond the given lags by gamma(k) = sum_l A_l gamma(k - l)."""
    extended = list(gammas)
    lags = len(coefficients)
    for k in range(len(extended), last + 1):
        extended.append(sum((coefficients[lag - 1] @ extended[k - lag] for lag in range(1, lags + 1)), np.zeros(())))
    return extended


def _solve(equations: _NormalEquations) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return coefficients (p, L p), the regressors' inverse and which regressors are identified.

    Works on the correlation matrix, so that units do not decide what is collinear; directions without variance are left
    out (pseudo-inverse), and the regressors in them have no standard error.
    """
    spread = np.sqrt(np.maximum(np.diag(equations.regressors), 0.0))
    scale = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(equations.regressors / np.outer(scale, scale))
    kept = values > _RANK_TOLERANCE * max(float(values[-1]), 0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T / np.outer(scale, scale)
    lost = np.square(vectors[:, ~kept]).sum(axis=1)
    return equations.cross @ inverse, inverse, (lost < 1e-8) & (spread > 0)
