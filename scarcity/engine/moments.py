"""Additive statistics: the sum over parties is the statistic of the pooled data, and all that inference needs."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.engine.arrays import FloatArray, frozen_copy, unpack_symmetric
from scarcity.engine.schema import Schema
from scarcity.engine.vector import FORMS, Form, check_length, unpack_gammas
from scarcity.errors import ConfigError, InvalidUpdate, SchemaMismatchError

MAX_SUM = 1e150  # no rows that were accepted reach it, and no square in a fit overflows below it
MAX_COUNT = 2**63 - 1  # what a file of evidence can hold
_same_array = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen
class Moments:
    """Sums over rows and parties, in the layout of `vector`'s form (scarcity.engine.vector).

    Attributes:
        schema: names, lags and constants.
        form: "centred" (within-party, exact fixed effects), "differenced" (record-private) or "mean".
        vector: read-only float64; integers of the lattice for "differenced" (exact below 2^53).
        rows: rows that inference may count on.
        parties: releases that were added, each with a mean of its own.
        noise_std: std of the noise on a unit-scale coordinate of the SUM, in the vector's units; 0 without noise.

    Raises:
        SchemaMismatchError: the vector's length is not the form's.
        InvalidUpdate: a value is not finite or beyond MAX_SUM, or rows, parties or noise are negative or too large.
        ConfigError: no such form.
    """

    schema: Schema
    form: Form
    vector: FloatArray = attrs.field(converter=frozen_copy, eq=_same_array, hash=False, repr=False)
    rows: int
    parties: int = 1
    noise_std: float = 0.0

    def __attrs_post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        check_length(self.vector, self.schema, self.form)
        sound = np.abs(self.vector) <= MAX_SUM
        if not sound.all():
            where = int(np.argmin(sound))
            raise InvalidUpdate(
                f"coordinate {where} of the vector is {self.vector[where]}, not finite or beyond {MAX_SUM}"
            )
        whole = 0 <= self.rows <= MAX_COUNT and 0 <= self.parties <= MAX_COUNT
        if not whole or not 0 <= self.noise_std <= MAX_SUM:
            numbers = f"rows {self.rows}, parties {self.parties}, noise_std {self.noise_std}"
            raise InvalidUpdate(f"{numbers} must be >= 0, and not beyond {MAX_COUNT}, {MAX_COUNT} and {MAX_SUM}")

    @classmethod
    def from_vector(
        cls,
        schema: Schema,
        form: Form,
        vector: npt.ArrayLike,
        weight: float,
        parties: int,
        noise_std: float = 0.0,
    ) -> Moments:
        """Return the moments of a vector that was SUMMED over parties (a weighted mean times its total weight).

        Args:
            schema: the round's.
            form: the layout.
            vector: shape (d,), int64 or float64.
            weight: the sum of the parties' weights: rows for "centred" and "differenced", parties for "mean" (where
                rows are not sent, a party counts as one row: cautious standard errors).
            parties: contributors.
            noise_std: std of the noise on a coordinate whose noise scale is 1, in the vector's units.

        Raises:
            SchemaMismatchError: bad length.
            InvalidUpdate: a value is not finite.
        """
        if not 0 <= weight < math.inf:
            raise InvalidUpdate(f"weight must be finite and >= 0, got {weight}")
        return cls(schema, form, vector, round(weight), parties, float(noise_std))

    @property
    def counts(self) -> FloatArray:
        """Shape (L + 1,) for "differenced": pairs at each lag. Shape (1,) else: windows, or parties for "mean"."""
        return self.vector[: self.schema.lags + 1] if self.form == "differenced" else self.vector[:1]

    @property
    def gammas(self) -> FloatArray:
        """Gamma_D(0..L), shape (L + 1, p, p), sums in units of the scales; "differenced" only."""
        if self.form != "differenced":
            raise ConfigError(f"{self.form} moments have a gram, not gammas")
        packed = unpack_gammas(self.vector[self.schema.lags + 1 :], self.schema)
        return packed * (self.schema.row_norm / self.schema.lattice) ** 2

    @property
    def gram(self) -> FloatArray:
        """Gram of [1, z_t .. z_{t-L}], shape (1 + p (L + 1),) * 2; "centred" and "mean" only."""
        if self.form == "differenced":
            raise ConfigError("differenced moments have gammas, not a gram")
        return unpack_symmetric(self.vector, 1 + self.schema.num_variables * (self.schema.lags + 1))

    def __add__(self, other: Moments) -> Moments:
        """Return the statistic of both parts together; independent noises add in quadrature."""
        self._require_same(other)
        noise = math.hypot(self.noise_std, other.noise_std)
        return Moments(
            self.schema,
            self.form,
            self.vector + other.vector,
            self.rows + other.rows,
            self.parties + other.parties,
            noise,
        )

    def __sub__(self, part: Moments) -> Moments:
        """Return what is left when `part`, which had been added to this sum, is taken out again.

        Raises:
            InvalidUpdate: `part` has more rows, parties or noise than the sum.
        """
        self._require_same(part)
        variance = self.noise_std**2 - part.noise_std**2
        if variance < -1e-9 * self.noise_std**2 or part.rows > self.rows or part.parties > self.parties:
            raise InvalidUpdate("cannot take out a part that has more rows, parties or noise than the sum")
        return Moments(
            self.schema,
            self.form,
            self.vector - part.vector,
            self.rows - part.rows,
            self.parties - part.parties,
            math.sqrt(max(variance, 0.0)),
        )

    def _require_same(self, other: Moments) -> None:
        if self.form != other.form or self.schema != other.schema:
            raise SchemaMismatchError(f"{self.form} moments do not add to {other.form} ones of another schema or form")

    @classmethod
    def sum(cls, parts: Iterable[Moments]) -> Moments:
        """Return the sum, in the order given (sort by id first where bytes must agree).

        Raises:
            InvalidUpdate: no parts.
            SchemaMismatchError: parts of different schemas or forms.
        """
        collected = list(parts)
        if not collected:
            raise InvalidUpdate("the sum of no moments has no schema")
        return functools.reduce(cls.__add__, collected)


def centre_gram(gram: FloatArray) -> FloatArray:
    """Return the Gram of [1, w - mean(w)] given that of [1, w]: the within-party form, the first row n, 0, .., 0."""
    rows = gram[0, 0]
    centred = np.zeros_like(gram)
    if rows > 0:
        centred[0, 0] = rows
        centred[1:, 1:] = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:]) / rows
    return centred


def translate_gram(gram: FloatArray, offset: FloatArray) -> FloatArray:
    """Return the Gram of [1, w + offset] given that of [1, w]; exact algebra, offset of shape (len(gram) - 1,)."""
    move = np.eye(len(gram))
    move[1:, 0] = offset
    return np.asarray(move @ gram @ move.T, dtype=np.float64)
