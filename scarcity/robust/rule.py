"""What a rule promises, and what it refuses to look at.

A rule turns n vectors, of which at most f lie, into one. All rules read their input here, so that bad input is refused
by the same words, and all of them return an `AggregationResult`, whose weights are the evidence for trust and audit.

Numbers. Rows stay float32 or float64 as given; every sum, norm and inner product is float64, and so is the output. The
finite check costs no pass of its own where a Gram matrix is made: a row has a value that is not finite only if its
squared norm is not finite. A row whose squared norm overflows although each value is finite (norm beyond about 1e154)
is scaled down to norm 2^480, so that no sum or distance below can overflow; other rows are never touched. Nothing is
centred on a statistic of the rows: one huge row would take all digits from the distances between honest ones. Only the
public `reference` is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.errors import ConfigError, InsufficientInputs, InvalidUpdate

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating[Any]]
Vectors = npt.NDArray[Any] | Sequence[npt.ArrayLike]

#: Largest norm of a row in the arithmetic: with n, d < 2^30 the sum of n squared distances stays below 2^1024.
NORM_MAX = 2.0**480


@attrs.frozen(eq=False)
class AggregationResult:
    """What a rule made of n vectors.

    Attributes:
        vector: shape (d,), float64, the aggregate.
        weights: shape (n,), sums to one: the share of each row in `vector`; for a coordinate rule the mean over the
            coordinates. Evidence, not a verdict: an honest row of rare data weighs little too.
        selected: rows with a weight above zero, ascending.
        scores: shape (n,), what the rule judged by, less is nearer: summed squared distances (Gram rules), the share
            of coordinates outside the kept range (coordinate rules), zeros (Average judges nobody).
        rule: name of the rule.
        n: number of rows.
        f: number of rows that may lie.
    """

    vector: FloatArray
    weights: FloatArray
    selected: tuple[int, ...]
    scores: FloatArray
    rule: str
    n: int
    f: int


@attrs.frozen(eq=False)
class Stack:
    """The rows a rule works on: `mixing @ rows`, without computing that product before it is needed.

    Attributes:
        rows: shape (n, d), float32 or float64, as the caller gave them; never written to.
        weights: shape (n,), float64, positive, sums to one: those of the mixed rows.
        reference: shape (d,), a public point that distances are measured from; None is the origin.
        mixing: shape (n, n), what a pre-aggregator made of the rows; None is the identity.
        gram: shape (n, n), inner products of the mixed rows less the reference, once somebody needs them.
        checked: the rows are known to be finite and bounded.
    """

    rows: Rows
    weights: FloatArray
    reference: FloatArray | None = None
    mixing: FloatArray | None = None
    gram: FloatArray | None = None
    checked: bool = False

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.rows.shape[0])

    @property
    def is_weighted(self) -> bool:
        """Whether the weights differ from each other."""
        return bool(np.any(self.weights != self.weights[0]))

    def block(self, start: int, stop: int) -> Rows:
        """Return columns [start, stop) of the mixed rows."""
        part = self.rows[:, start:stop]
        return part if self.mixing is None else self.mixing @ part.astype(np.float64, copy=False)

    def combine(self, weights: FloatArray) -> FloatArray:
        """Return the sum of the mixed rows under `weights` (n,): shape (d,), float64. Cost: one GEMV."""
        shares = self.input_weights(weights)
        chosen = np.flatnonzero(shares)
        if chosen.size == 1:
            return np.asarray(shares[chosen[0]] * self.rows[chosen[0]], dtype=np.float64)
        if self.rows.dtype == np.float64:
            return np.asarray(shares @ self.rows, dtype=np.float64)
        total = np.zeros(self.rows.shape[1])
        for row in chosen:  # A row at a time: a float64 copy of all rows would double the memory.
            total += shares[row] * self.rows[row].astype(np.float64)
        return total

    def input_weights(self, weights: FloatArray) -> FloatArray:
        """Return the weights (n,) of the rows as given that amount to `weights` of the mixed ones."""
        return weights if self.mixing is None else np.asarray(weights @ self.mixing)


class Needs(Protocol):
    """What a rule or a pre-aggregator asks of its input."""

    @property
    def name(self) -> str:
        """Name in results, in errors and in `make_rule`."""

    @property
    def f(self) -> int:
        """Number of rows that may lie."""

    @property
    def min_inputs(self) -> int:
        """Least n for which the rule holds f liars."""

    @property
    def mass_factor(self) -> int:
        """The f heaviest rows must hold less than 1 / mass_factor of all weight."""


class Rule(Needs, Protocol):
    """Many vectors in, one out, though f of them lie. A rule is a frozen value: no state, no randomness."""

    @property
    def sees_inputs(self) -> bool:
        """Whether the rule must see the single inputs: a sum under masks is not enough for it."""

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the aggregate (d,) of equally weighted vectors (n, d)."""

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return the aggregate and its evidence.

        Args:
            vectors: shape (n, d) or n vectors (d,), floating point, finite; rows in sorted sender order. Not modified.
            weights: shape (n,), each in (0, 1], relative to each other; None weighs all alike.
            reference: shape (d,), a public point such as the last model. It costs nothing and saves the digits of the
                distances when all rows are far from the origin but near each other.

        Raises:
            InvalidUpdate: empty, ragged, of another ndim, not floating point (integers too: their scale is the
                caller's to remove), not finite, or a bad weight; the row is named.
            InsufficientInputs: n < min_inputs, or the f heaviest rows hold too much of the weight.
        """

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return the aggregate of rows that have been read already (`Pipeline` calls this)."""


def check_f(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    """Validate a number of liars, as an attrs validator: a non-negative int, and not a bool.

    Raises:
        TypeError: not an int. True would count as one liar and hide a mistaken argument.
        ConfigError: negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be an int, got {value!r}")
    if value < 0:
        raise ConfigError(f"{attribute.name} must be at least 0, got {value}")


def read_stack(
    rule: Needs, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
) -> Stack:
    """Return the input of `rule`, checked in everything but finiteness (see `check_finite`).

    Raises:
        InvalidUpdate: see `Rule.aggregate`.
        InsufficientInputs: see `Rule.aggregate`.
    """
    rows = _read_rows(vectors)
    n, d = rows.shape
    if n < rule.min_inputs:
        raise InsufficientInputs(f"{rule.name} with f={rule.f} needs {rule.min_inputs} inputs, got {n}")
    shares = np.full(n, 1.0 / n) if weights is None else _read_weights(weights, n)
    heaviest = float(np.sort(shares)[n - rule.f :].sum())
    if rule.mass_factor * heaviest >= 1.0:
        raise InsufficientInputs(
            f"{rule.name} with f={rule.f}: the {rule.f} heaviest inputs hold {heaviest:.3f} of the weight, "
            f"which must be less than 1/{rule.mass_factor}"
        )
    return Stack(rows, shares, None if reference is None else _read_reference(reference, d))


def check_finite(stack: Stack) -> Stack:
    """Return the stack with finite and bounded rows.

    Raises:
        InvalidUpdate: a row has a value that is not finite.

    Cost: one pass over the rows.
    """
    if stack.checked:
        return stack
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.array([np.dot(row, row) for row in stack.rows])
    return attrs.evolve(stack, rows=bound_rows(stack.rows, squares), checked=True)


def bound_rows(rows: Rows, squares: Rows) -> Rows:
    """Return the rows, the huge ones scaled down to norm `NORM_MAX`; the same array if there are none.

    Args:
        rows: shape (n, d).
        squares: shape (n,), squared norms of the rows, computed in a way that an inf or NaN of the row shows in.

    Raises:
        InvalidUpdate: a row has a value that is not finite.
    """
    suspects = np.flatnonzero(~np.isfinite(squares))
    if suspects.size == 0:
        return rows
    bounded = np.array(rows, dtype=np.float64)  # float32 squares overflow near 2e19; in float64 those rows are tame.
    for row in suspects:
        bad = np.flatnonzero(~np.isfinite(rows[row]))
        if bad.size:
            raise InvalidUpdate(f"row {row}: value {bad[0]} is {rows[row, bad[0]]}, expected a finite number")
        largest = float(np.abs(bounded[row]).max())
        unit = bounded[row] / largest
        norm = float(np.linalg.norm(unit))
        if largest * norm > NORM_MAX:
            bounded[row] = unit * (NORM_MAX / norm)
    return bounded


def make_result(
    rule: Rule, stack: Stack, vector: FloatArray, weights: FloatArray, scores: FloatArray
) -> AggregationResult:
    """Return the result of `rule` on `stack`; `weights` (n,) are those of the mixed rows and sum to one."""
    shares = stack.input_weights(weights)
    selected = tuple(int(row) for row in np.flatnonzero(shares))
    return AggregationResult(vector, shares, selected, scores, rule.name, stack.n, rule.f)


def _read_rows(vectors: Vectors) -> Rows:
    if not isinstance(vectors, np.ndarray):
        vectors = _stack_rows(vectors)
    if vectors.ndim != 2:
        raise InvalidUpdate(f"expected vectors of shape (n, d), got {vectors.ndim} dimensions")
    if vectors.shape[0] == 0 or vectors.shape[1] == 0:
        raise InvalidUpdate(f"expected at least one vector of at least one value, got shape {vectors.shape}")
    if not np.issubdtype(vectors.dtype, np.floating):
        raise InvalidUpdate(f"expected floating point vectors, got {vectors.dtype}")
    dtype = vectors.dtype if vectors.dtype in (np.float32, np.float64) else np.float64
    # One memory layout, so that the same numbers give the same bits however the caller laid them out.
    with np.errstate(over="ignore"):  # A long double beyond float64 becomes inf and is refused as such.
        return np.ascontiguousarray(vectors, dtype=dtype)


def _stack_rows(vectors: Sequence[npt.ArrayLike]) -> npt.NDArray[Any]:
    rows: list[npt.NDArray[Any]] = []
    for index, vector in enumerate(vectors):
        try:
            row = np.asarray(vector)
        except ValueError as error:
            raise InvalidUpdate(f"row {index}: not a vector ({error})") from error
        if row.ndim != 1:
            raise InvalidUpdate(f"row {index}: expected 1 dimension, got {row.ndim}")
        if not np.issubdtype(row.dtype, np.floating):
            raise InvalidUpdate(f"row {index}: expected floating point values, got {row.dtype}")
        if rows and row.shape != rows[0].shape:
            raise InvalidUpdate(f"row {index}: {row.size} values, expected {rows[0].size} as in row 0")
        rows.append(row)
    if not rows:
        raise InvalidUpdate("expected at least one vector, got none")
    return np.stack(rows)


def _read_weights(weights: npt.ArrayLike, n: int) -> FloatArray:
    array = np.asarray(weights)
    if array.shape != (n,) or array.dtype.kind not in "fiu":
        raise InvalidUpdate(f"expected {n} weights, one a row, got shape {array.shape} of {array.dtype}")
    values = array.astype(np.float64)
    bad = np.flatnonzero(~((values > 0.0) & (values <= 1.0)))
    if bad.size:
        raise InvalidUpdate(f"row {bad[0]}: weight {values[bad[0]]} is not in (0, 1]")
    return np.asarray(values / values.sum())


def _read_reference(reference: npt.ArrayLike, d: int) -> FloatArray:
    array = np.asarray(reference)
    if array.shape != (d,) or array.dtype.kind != "f":
        raise InvalidUpdate(f"reference: expected {d} floating point values, got shape {array.shape} of {array.dtype}")
    values = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt(values @ values))
    if not norm <= NORM_MAX:
        raise InvalidUpdate(f"reference: expected finite values of norm at most {NORM_MAX:.0e}, got norm {norm}")
    return values
