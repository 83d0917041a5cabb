"""Statistics of a growing series: rows go in one by one, sums come out for any start that was marked.

Rows wait in a buffer and are folded in blocks, so a row costs little and a sum's rounding does not depend on how rows
came in. A look computes the waiting rows on the side: looking changes nothing.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from scarcity.engine.arrays import BoolArray, FloatArray, IntArray, pack_symmetric, unpack_symmetric
from scarcity.engine.schema import Schema
from scarcity.engine.var import public_scales
from scarcity.engine.vector import difference_products, vector_dimension, window_gram
from scarcity.errors import CodecError

BLOCK_ROWS = 256  # one GEMM a block: large enough for BLAS, small enough that its float64 integers stay exact


Sums = tuple[FloatArray, FloatArray, IntArray]


@attrs.define(eq=False)
class Part:
    """Sums over the rows from a start on; a product that needs an earlier row is left out.

    Attributes:
        start_at: time index of the first row that may be in it.
        start: the same as a position in the stream.
        gram: Gram of [1, w], w shifted by the stream's shift and scaled.
        level: count and sum of the complete rows, shifted and scaled, shape (1 + p,).
        products: the differenced vector, empty without public scales.
    """

    start_at: int
    start: int
    gram: FloatArray
    level: FloatArray
    products: IntArray

    def plus(self, sums: Sums) -> Part:
        """Return a part with the sums of further rows."""
        return attrs.evolve(
            self, gram=self.gram + sums[0], level=self.level + sums[1], products=self.products + sums[2]
        )


def _complete(rows: FloatArray) -> BoolArray:
    """Return which rows have no NaN; a sum of finite values within MAX_ABSOLUTE has none either."""
    return np.asarray(~np.isnan(np.einsum("ij->i", rows)), dtype=np.bool_)


def _clipped(rows: FloatArray, schema: Schema) -> FloatArray:
    """Return the rows clipped to the variables' public bounds."""
    bounds = [variable.bounds for variable in schema.variables]
    if not any(bounds):
        return rows
    low, high = np.array([(-np.inf, np.inf) if pair is None else pair for pair in bounds]).T
    return np.clip(rows, low, high)


@attrs.define(eq=False)
class RowStream:
    """The state of one series: a few rows of context, the waiting rows, and the sums of each marked start.

    A gap in the time index enters as rows of NaN, at most H + L of them, since nothing looks back further.
    """

    schema: Schema
    shift: FloatArray | None = None
    last_at: int | None = None
    num_rows: int = 0
    num_missing: int = 0
    parts: list[Part] = attrs.field(factory=list)
    _context: FloatArray = attrs.field(default=None)
    _waiting: list[tuple[float, ...]] = attrs.field(factory=list)
    _folded: int = 0
    _nothing: tuple[float, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._nothing = (float("nan"),) * self.schema.num_variables
        if self._context is None:
            self._context = np.full((self._reach, self.schema.num_variables), np.nan)

    @property
    def _reach(self) -> int:
        return self.schema.horizon + self.schema.lags

    @property
    def length(self) -> int:
        """Positions so far: rows, and the rows of NaN that stand for gaps."""
        return self._folded + len(self._waiting)

    def append(self, values: tuple[float, ...], at: int) -> None:
        """Add one checked row at a time index that comes after the last one."""
        if self.last_at is not None and at != self.last_at + 1:
            self._skip(at)
        elif not self.parts:
            self.mark(at)
        total = sum(values)
        if total != total:  # Only NaN differs from itself; this runs for every row.
            self.num_missing += 1
        elif self.shift is None:
            self.shift = np.array(values)
        self._waiting.append(values)
        self.last_at = at
        self.num_rows += 1
        if len(self._waiting) >= BLOCK_ROWS:
            self._fold()

    def extend(self, rows: FloatArray, times: IntArray) -> None:
        """Add checked rows, shape (n, p), at increasing time indices; the state is that of `append` row by row."""
        cuts = np.flatnonzero(np.diff(times) != 1) + 1
        for run, run_times in zip(np.split(rows, cuts), np.split(times, cuts), strict=True):
            if len(run):
                self.append(tuple(run[0].tolist()), int(run_times[0]))
                self._extend_run(run[1:], int(run_times[-1]))

    def _extend_run(self, rows: FloatArray, last_at: int) -> None:
        complete = _complete(rows)
        if self.shift is None and complete.any():
            self.shift = rows[int(np.argmax(complete))].copy()
        self.num_missing += int(np.count_nonzero(~complete))
        self.num_rows += len(rows)
        self.last_at = last_at
        while len(rows):
            taken = min(BLOCK_ROWS - len(self._waiting), len(rows))
            block, rows = rows[:taken], rows[taken:]
            if taken == BLOCK_ROWS:
                self._fold(block)  # nothing waits, and the block is whole: no detour over tuples
                continue
            self._waiting.extend(map(tuple, block.tolist()))
            if len(self._waiting) >= BLOCK_ROWS:
                self._fold()

    def mark(self, start_at: int) -> Part:
        """Start sums at the next row, whose time index is `start_at` or later; the same mark twice is one."""
        for part in self.parts:
            if part.start == self.length and part.start_at == start_at:
                return part
        size = 1 + self.schema.num_variables * (self.schema.lags + 1)
        dimension = vector_dimension(self.schema, "differenced") if self.schema.has_public_scales else 0
        part = Part(
            start_at,
            self.length,
            np.zeros((size, size)),
            np.zeros(1 + self.schema.num_variables),
            np.zeros(dimension, dtype=np.int64),
        )
        self.parts.append(part)
        return part

    def look(self, part: Part) -> Part:
        """Return a copy of a part that has the waiting rows too, and change nothing."""
        if not self._waiting:
            return attrs.evolve(part)
        return part.plus(self._sums(self._joined(np.array(self._waiting)), part.start))

    def recent(self, count: int) -> FloatArray:
        """Return the last `count` <= H + L positions, shape (count, p), NaN where there is no value."""
        joined = self._joined(np.array(self._waiting)) if self._waiting else self._context
        return joined[len(joined) - count :].copy()

    def _skip(self, at: int) -> None:
        assert self.last_at is not None
        for _ in range(min(at - self.last_at - 1, self._reach)):
            self._waiting.append(self._nothing)
            if len(self._waiting) >= BLOCK_ROWS:
                self._fold()

    def _joined(self, block: FloatArray) -> FloatArray:
        return np.concatenate((self._context, block))

    def _fold(self, block: FloatArray | None = None) -> None:
        joined = self._joined(np.array(self._waiting) if block is None else block)
        sums: dict[int, Sums] = {}
        for part in self.parts:
            first = max(part.start, self._folded - self._reach)
            if first not in sums:
                sums[first] = self._sums(joined, first)
            part.gram += sums[first][0]
            part.level += sums[first][1]
            part.products += sums[first][2]
        self._folded += len(joined) - self._reach
        self._context = joined[len(joined) - self._reach :].copy()
        self._waiting.clear()

    def _sums(self, joined: FloatArray, start: int) -> Sums:
        """Return what the rows after the context add, rows before the position `start` left out."""
        valid = _complete(joined)
        valid[: max(0, start - (self._folded - self._reach))] = False
        joined = _clipped(joined, self.schema)
        lags = self.schema.lags
        shift = np.zeros(self.schema.num_variables) if self.shift is None else self.shift
        z = (joined[self.schema.horizon :] - shift) / public_scales(self.schema)
        gram = window_gram(z, valid[self.schema.horizon :], lags)
        complete = z[lags:][valid[self._reach :]]
        level = np.concatenate(([float(len(complete))], complete.sum(axis=0)))
        if not self.schema.has_public_scales:
            return gram, level, np.zeros(0, dtype=np.int64)
        return gram, level, difference_products(joined, valid, self.schema)

    def to_plain(self) -> dict[str, Any]:
        """Return the state as values that msgpack takes (arrays as little-endian bytes)."""
        return {
            "shift": None if self.shift is None else self.shift.astype("<f8").tobytes(),
            "last_at": self.last_at,
            "num_rows": self.num_rows,
            "num_missing": self.num_missing,
            "folded": self._folded,
            "context": self._context.astype("<f8").tobytes(),
            "waiting": np.array(self._waiting, dtype="<f8").tobytes(),
            "parts": [
                [
                    part.start_at,
                    part.start,
                    pack_symmetric(part.gram).astype("<f8").tobytes(),
                    part.level.astype("<f8").tobytes(),
                    part.products.astype("<i8").tobytes(),
                ]
                for part in self.parts
            ],
        }

    @classmethod
    def from_plain(cls, schema: Schema, plain: dict[str, Any]) -> RowStream:
        """Return the stream of `to_plain`.

        Raises:
            CodecError: a value is absent or of the wrong size.
        """
        p, size = schema.num_variables, 1 + schema.num_variables * (schema.lags + 1)
        dimension = vector_dimension(schema, "differenced") if schema.has_public_scales else 0
        try:
            waiting = np.frombuffer(plain["waiting"], dtype="<f8").reshape(-1, p)
            shift = plain["shift"]
            stream = cls(
                schema,
                shift=None if shift is None else np.frombuffer(shift, dtype="<f8").reshape(p).copy(),
                last_at=plain["last_at"],
                num_rows=int(plain["num_rows"]),
                num_missing=int(plain["num_missing"]),
                context=np.frombuffer(plain["context"], dtype="<f8").reshape(schema.horizon + schema.lags, p).copy(),
                waiting=list(map(tuple, waiting.tolist())),
                folded=int(plain["folded"]),
            )
            for start_at, start, gram, level, products in plain["parts"]:
                stream.parts.append(
                    Part(
                        int(start_at),
                        int(start),
                        unpack_symmetric(np.frombuffer(gram, dtype="<f8"), size),
                        np.frombuffer(level, dtype="<f8").reshape(1 + p).copy(),
                        np.frombuffer(products, dtype="<i8").reshape(dimension).copy(),
                    )
                )
        except (KeyError, TypeError, ValueError) as error:
            raise CodecError(f"not a snapshot of a row stream: {error}") from error
        return stream
