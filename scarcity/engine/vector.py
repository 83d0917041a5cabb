"""What a party sends: the layout of each form's vector, and its sensitivity under the unit `record`.

`differenced` (unit record), integers, SUMS over rows of products of lattice rows v_t:
    n_0 .. n_L (public counts) | diagonal of Gamma_D(0) | off-diagonals of Gamma_D(0), upper triangle row-major |
    Gamma_D(1) row-major | .. | Gamma_D(L) row-major,      Gamma_D(h) = sum_t v_t v_{t-h}^T.
`centred` (no privacy noise), float64: upper triangle of the Gram of [1, w_t - mean(w)], w_t = [z_t .. z_{t-L}].
`mean` (unit client), float64: upper triangle of the Gram of [1, w_t] per row, z about the public centre.

Unit of privacy of `differenced`: one time step of one party is erased, that is every row of D that contains it becomes
zero while counts, time index and the pattern of missing values stay. docs/privacy-record-unit.md derives the bound.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.engine.arrays import BoolArray, FloatArray, IntArray, upper_indices
from scarcity.engine.schema import Schema
from scarcity.errors import ConfigError, SchemaMismatchError

Form = Literal["centred", "differenced", "mean"]
FORMS: tuple[Form, ...] = ("centred", "differenced", "mean")


@attrs.frozen
class VectorLayout:
    """What the noise of a record-unit release needs to know.

    Attributes:
        dimension: d, the length of the vector.
        noise_scales: shape (d,): the noise's std at a coordinate is sigma times this; 0 for public counts, 1/sqrt(2)
            for off-diagonals of Gamma_D(0) (they stand for two equal entries), 1 elsewhere.
        sensitivity: L2 bound, in lattice units, of what one record changes in vector / noise_scales (counts left out).
        max_abs_per_row: what one row adds to a coordinate, at most.
    """

    dimension: int
    noise_scales: FloatArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal), hash=False)
    sensitivity: float
    max_abs_per_row: int


@attrs.frozen
class Increment:
    """The statistics of the rows since the last release.

    Attributes:
        vector: in the layout of its form; int64 for "differenced", else float64.
        weight: rows that count (n_0; windows for "centred"); 1 for "mean".
        rows: [a, b), time indices of the rows of x that it depends on, and on no other.
        form: which layout.
    """

    vector: npt.NDArray[np.float64] | npt.NDArray[np.int64] = attrs.field(
        eq=attrs.cmp_using(eq=np.array_equal), hash=False
    )
    weight: int
    rows: tuple[int, int]
    form: Form


def vector_dimension(schema: Schema, form: Form) -> int:
    """Return the length of the vector of a form.

    Raises:
        ConfigError: no such form.
    """
    p, lags = schema.num_variables, schema.lags
    if form == "differenced":
        return (lags + 1) + p * (p + 1) // 2 + lags * p * p
    if form not in FORMS:
        raise ConfigError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    size = 1 + p * (lags + 1)
    return size * (size + 1) // 2


def record_layout(schema: Schema) -> VectorLayout:
    """Return the layout of the differenced vector under the unit record.

    Sensitivity: 2 K^2 sqrt(1 + 4 L). A record lies in two rows of D of norm <= K; erasing both changes Gamma_D(0) by at
    most 2 K^2 and every other Gamma_D(h) by at most 4 K^2 in Frobenius norm (docs/privacy-record-unit.md).

    Raises:
        ConfigError: the schema has no public scales.
    """
    require_scales(schema)
    p, lags, steps = schema.num_variables, schema.lags, schema.lattice
    off_diagonals = p * (p - 1) // 2
    scales = np.concatenate(
        (np.zeros(lags + 1), np.ones(p), np.full(off_diagonals, math.sqrt(0.5)), np.ones(lags * p * p))
    )
    scales.setflags(write=False)
    sensitivity = math.nextafter(2 * steps**2 * math.sqrt(1 + 4 * lags), math.inf)
    return VectorLayout(len(scales), scales, sensitivity, steps**2)


def require_scales(schema: Schema) -> None:
    """Raise ConfigError unless every variable has a public scale."""
    without = [variable.name for variable in schema.variables if variable.scale is None]
    if without:
        raise ConfigError(f"the differenced form needs a public scale for every variable; none for {without}")


def lattice_rows(differences: FloatArray, schema: Schema) -> FloatArray:
    """Project rows to the norm C and truncate them toward zero to the lattice.

    Args:
        differences: shape (n, p), at most 1e150, in units of the scales, so that no sum of squares overflows.
        schema: gives C and K.

    Returns:
        shape (n, p), float64 that holds integers with sum of squares <= K^2 in every row.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", differences, differences))
    steps = np.trunc(differences * schema.lattice / np.maximum(lengths, schema.row_norm)[:, None])
    # Truncation only shortens, and a rounding of 2^-50 cannot lift a sum of squares over the integer K^2 <= 2^32; sums
    # of squares of these integers are exact in float64.
    longest = float(np.einsum("ij,ij->i", steps, steps).max(initial=0.0))
    assert longest <= schema.lattice**2, "a lattice row is longer than K"
    return np.asarray(steps, dtype=np.float64)


def difference_products(x: FloatArray, valid: BoolArray, schema: Schema) -> IntArray:
    """Return the differenced vector of the last len(x) - H - L rows, given the H + L rows before them.

    A product is formed only when all rows of x under it are valid, so the rows of an increment's start leave out what
    came before by marking it invalid.

    Args:
        x: shape (H + L + m, p) in the variables' units; invalid rows may hold anything.
        valid: shape (H + L + m,).
        schema: gives scales, H, L, C and K.

    Returns:
        shape (d,) int64; exact, since products stay below 2^32 and a block has 256 rows.
    """
    lags, horizon = schema.lags, schema.horizon
    scales = np.array([variable.scale for variable in schema.variables], dtype=np.float64)
    both = valid[horizon:] & valid[:-horizon]
    differences = np.where(both[:, None], x[horizon:] - x[:-horizon], 0.0) / scales
    steps = lattice_rows(differences, schema)
    now, now_valid, size = steps[lags:], both[lags:], len(steps)
    counts, products = [], []
    for lag in range(lags + 1):
        then = slice(lags - lag, size - lag)
        counts.append(int(np.count_nonzero(now_valid & both[then])))
        products.append(now.T @ steps[then])
    return np.concatenate((np.array(counts, dtype=np.int64), pack_gammas(np.array(products)).astype(np.int64)))


def pack_gammas(gammas: FloatArray) -> FloatArray:
    """Return Gamma(0..L), shape (L + 1, p, p), in the order of the vector (counts left out)."""
    zero = gammas[0]
    return np.concatenate((np.diag(zero), zero[upper_indices(len(zero), 1)], gammas[1:].ravel()))


def unpack_gammas(packed: FloatArray, schema: Schema) -> FloatArray:
    """Return Gamma(0..L), shape (L + 1, p, p), of a vector without its counts: the inverse of `pack_gammas`."""
    p = schema.num_variables
    gammas = np.empty((schema.lags + 1, p, p))
    rows, columns = upper_indices(p, 1)
    split = p + len(rows)
    gammas[0] = np.diag(packed[:p])
    gammas[0][rows, columns] = packed[p:split]
    gammas[0][columns, rows] = packed[p:split]
    gammas[1:] = packed[split:].reshape(schema.lags, p, p)
    return gammas


def window_gram(z: FloatArray, valid: BoolArray, lags: int) -> FloatArray:
    """Return the Gram of [1, z_t .. z_{t-L}] over the windows that end in the last len(z) - L rows.

    Args:
        z: shape (L + m, p); invalid rows may hold anything.
        valid: shape (L + m,); a window with an invalid row is left out.
        lags: L.

    Returns:
        shape (1 + p (L + 1),) * 2, float64.
    """
    size, p = z.shape
    usable = np.logical_and.reduce([valid[lags - lag : size - lag] for lag in range(lags + 1)])
    windows = np.ones((size - lags, 1 + p * (lags + 1)))
    for lag in range(lags + 1):
        windows[:, 1 + lag * p : 1 + (lag + 1) * p] = z[lags - lag : size - lag]
    if not usable.all():
        windows[~usable] = 0.0
    return windows.T @ windows


def check_length(vector: npt.NDArray[np.float64], schema: Schema, form: Form) -> None:
    """Raise SchemaMismatchError unless the vector has the length of its form."""
    expected = vector_dimension(schema, form)
    if vector.ndim != 1 or len(vector) != expected:
        raise SchemaMismatchError(f"a {form} vector of this schema has {expected} numbers, got shape {vector.shape}")
