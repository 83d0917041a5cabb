"""The discovery engine of one party: rows in, statistics, relations and predictions out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgpack
import numpy as np

from scarcity.engine.arrays import FloatArray, pack_symmetric
from scarcity.engine.discovery import discover
from scarcity.engine.moments import Moments, centre_gram, translate_gram
from scarcity.engine.relation import Relation
from scarcity.engine.rows import MAX_TIME, MissingPolicy, RowReader, infer_schema, read_times
from scarcity.engine.schema import Schema
from scarcity.engine.store import HypergraphStore, require_version, unpack_bounded
from scarcity.engine.stream import Part, RowStream
from scarcity.engine.var import VarFit, fit_var, public_scales
from scarcity.engine.vector import FORMS, Form, Increment, require_scales
from scarcity.errors import CodecError, ConfigError, InsufficientInputs, InvalidRow, LocalError

_VERSION = 1


@attrs.frozen
class EngineConfig:
    """Settings of an engine.

    Attributes:
        missing: "nan": a row with a missing value keeps its time index and is left out of products; "error": refused.
        max_open_increments: increments that were looked at and may still be marked as released. More cost one set of
            sums each (64 kB at p = 20); when an older one is marked, rows up to the present are given up.

    Raises:
        ConfigError: a field is out of range.
    """

    missing: MissingPolicy = "nan"
    max_open_increments: int = 4

    def __attrs_post_init__(self) -> None:
        if self.missing not in ("nan", "error"):
            raise ConfigError(f"missing must be 'nan' or 'error', got {self.missing!r}")
        if isinstance(self.max_open_increments, bool) or not 1 <= self.max_open_increments <= 1000:
            raise ConfigError(f"max_open_increments must lie in 1..1000, got {self.max_open_increments!r}")


class OnlineDiscoveryEngine:
    """Learns lagged relations from one party's rows, alone or as a member of a federation."""

    def __init__(self, schema: Schema | None = None, config: EngineConfig | None = None) -> None:
        """Start without rows; without a schema, names are taken from the first rows and there are no scales."""
        self.config = EngineConfig() if config is None else config
        self.store = HypergraphStore()
        self._reader: RowReader | None = None
        self._stream: RowStream | None = None
        self._released: Part | None = None
        self._rows_given_up = 0
        self._resume_at: int | None = None
        if schema is not None:
            self._open(schema)

    def _open(self, schema: Schema) -> None:
        self._reader = RowReader(schema, self.config.missing)
        self._stream = RowStream(schema)

    @property
    def schema(self) -> Schema | None:
        """The schema, None before the first row when none was given."""
        return None if self._stream is None else self._stream.schema

    @property
    def num_rows(self) -> int:
        """Rows processed, with those that have missing values."""
        return 0 if self._stream is None else self._stream.num_rows

    @property
    def num_missing_rows(self) -> int:
        """Rows with a missing value."""
        return 0 if self._stream is None else self._stream.num_missing

    @property
    def num_rows_given_up(self) -> int:
        """Rows that were skipped unreleased because an increment was marked too late."""
        return self._rows_given_up

    def process_row(self, row: Mapping[str, Any] | Sequence[float] | FloatArray, at: int | None = None) -> None:
        """Take in one row.

        Args:
            row: a mapping by name, or values in schema order; None and NaN are missing.
            at: its time index; the one after the last row's when None.

        Raises:
            InvalidRow: a bad value, column or time index; the state is unchanged.
        """
        stream, reader = self._stream, self._reader
        if stream is None or reader is None:
            self.process_rows([row], None if at is None else [at])
            return
        last = stream.last_at
        if at is None:
            at = 0 if last is None else last + 1
        elif type(at) is not int or abs(at) > MAX_TIME or (last is not None and at <= last):
            at = int(read_times([at], 1, last)[0])
        values = reader.read_row(row, at)
        self._reach(at)
        stream.append(values, at)

    def process_rows(self, rows: Any, at: Sequence[int] | None = None) -> None:
        """Take in many rows (2-d array, data frame, or an iterable of rows), all or none of them.

        Raises:
            InvalidRow: a bad value, column or time index anywhere; the state is unchanged.
        """
        if isinstance(rows, Iterator):
            rows = list(rows)  # it is looked at twice: for its names and for its values
        schema = self.schema or infer_schema(rows)
        if schema is None:
            return
        reader = self._reader or RowReader(schema, self.config.missing)
        values = reader.read_rows(rows)
        times = read_times(at, len(values), None if self._stream is None else self._stream.last_at)
        if self._stream is None:
            self._open(schema)
        stream = self._require_stream()
        first = len(times) if self._resume_at is None else int(np.searchsorted(times, self._resume_at))
        stream.extend(values[:first], times[:first])
        if first < len(times):
            self._reach(int(times[first]))
            stream.extend(values[first:], times[first:])

    def resume(self, spent_until: int) -> None:
        """Start the next increment at a time index: what comes before it was released in an earlier life.

        Call it on a new engine before the rows are read again: rows before the index are for the party's own eyes.
        Fails closed on an engine that is past the index (of an older snapshot): rows up to the present are given up. A
        snapshot does not hold the index; the ledger does.

        Args:
            spent_until: end of the rows that the ledger has charged; 0 or less changes nothing.
        """
        stream = self._stream
        self._resume_at = spent_until if spent_until > 0 else None
        if self._resume_at is None or stream is None or stream.last_at is None:
            return
        pending = self._released or self._whole()
        if pending.start_at >= spent_until:
            self._resume_at = None
        elif stream.last_at + 1 >= spent_until:
            self._rows_given_up += stream.last_at + 1 - spent_until
            self._cut_at(stream, stream.last_at + 1)

    def _reach(self, at: int) -> None:
        """Begin the next increment if the row that comes now is the first that was not released before."""
        stream = self._require_stream()
        if self._resume_at is None or at < self._resume_at:
            return
        if stream.parts:
            self._cut_at(stream, self._resume_at)
        self._resume_at = None  # without an earlier row the whole is what has not been released

    def _cut_at(self, stream: RowStream, start_at: int) -> None:
        cut = stream.mark(start_at)
        stream.parts[1:] = [cut]
        self._released, self._resume_at = cut, None

    def _require_stream(self) -> RowStream:
        if self._stream is None:
            raise InsufficientInputs("the engine has no rows and no schema yet")
        return self._stream

    def _whole(self) -> Part:
        stream = self._require_stream()
        if not stream.parts:
            raise InsufficientInputs("the engine has no rows yet")
        return stream.parts[0]

    def statistics(self) -> Moments:
        """Return the centred moments of all rows: exact, for the party's own eyes and for trust mode `none`.

        Raises:
            InsufficientInputs: no rows yet.
        """
        return self._moments("centred", self._whole())

    def differenced(self) -> Moments:
        """Return the differenced moments of all rows, without noise.

        Raises:
            InsufficientInputs: no rows yet.
            ConfigError: the schema has no public scales.
        """
        require_scales(self._require_stream().schema)
        return self._moments("differenced", self._whole())

    def _moments(self, form: Form, part: Part) -> Moments:
        vector, weight = self._vector(form, part)
        return Moments(self._require_stream().schema, form, vector, weight)

    def _vector(self, form: Form, part: Part) -> tuple[Any, int]:
        stream = self._require_stream()
        seen = stream.look(part)
        gram, products = seen.gram, seen.products
        if form == "differenced":
            require_scales(stream.schema)
            return products, int(products[0])
        if form == "centred":
            return pack_symmetric(centre_gram(gram)), round(gram[0, 0])
        shift = np.zeros(stream.schema.num_variables) if stream.shift is None else stream.shift
        centres = np.array([variable.centre for variable in stream.schema.variables])
        offset = np.tile((shift - centres) / public_scales(stream.schema), stream.schema.lags + 1)
        rows = gram[0, 0]
        return pack_symmetric(translate_gram(gram, offset)) / max(rows, 1.0), int(rows > 0)

    def increment(self, form: Form = "differenced") -> Increment:
        """Return the statistics of the rows since the last released ones; asking again gives the same.

        They depend on no row before the interval's start, so no two increments share a row.

        Raises:
            InsufficientInputs: no product can be formed from the new rows yet.
            ConfigError: unknown form, or no public scales for "differenced".
        """
        if form not in FORMS:
            raise ConfigError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        stream = self._require_stream()
        if self._resume_at is not None:
            raise InsufficientInputs(f"the rows before {self._resume_at} are released; none has come since")
        pending = self._released or self._whole()
        vector, weight = self._vector(form, pending)
        if weight == 0 or stream.last_at is None:
            raise InsufficientInputs(f"no {form} product can be formed from the rows since {pending.start_at} yet")
        end = stream.last_at + 1
        self._open_cut(stream, pending, end)
        return Increment(vector, weight, (pending.start_at, end), form)

    def _open_cut(self, stream: RowStream, pending: Part, end: int) -> None:
        stream.mark(end)
        cuts = [part for part in stream.parts[1:] if part is not pending]
        for part in cuts[: max(0, len(cuts) - self.config.max_open_increments)]:
            stream.parts.remove(part)

    def mark_released(self, increment: Increment) -> None:
        """Begin the next increment after this one's rows. Fails closed: a row is never offered twice.

        Raises:
            LocalError: the increment does not start at the first row that is not released.
        """
        stream = self._require_stream()
        pending = self._released or self._whole()
        start, end = increment.rows
        if start != pending.start_at or stream.last_at is None or not start < end <= stream.last_at + 1:
            raise LocalError(
                f"rows {increment.rows} are not the next ones to release; these start at {pending.start_at}"
            )
        cut = next((part for part in stream.parts[1:] if part.start_at == end and part is not pending), None)
        if cut is None:
            self._rows_given_up += stream.last_at + 1 - end
            cut = stream.mark(stream.last_at + 1)
        stream.parts[1:] = [cut]
        self._released = cut

    def relations(self, alpha: float = 0.05, min_effect: float = 0.02) -> list[Relation]:
        """Return what the party's own rows show; what the federation found is in `store.edges()`.

        Raises:
            InsufficientInputs: not more rows than parameters.
        """
        return discover(self.statistics(), alpha=alpha, min_effect=min_effect)

    def mean(self) -> FloatArray:
        """Return the party's own mean, shape (p,), over its complete rows.

        Raises:
            InsufficientInputs: no complete row yet.
        """
        stream = self._require_stream()
        level = stream.look(self._whole()).level
        if level[0] < 1 or stream.shift is None:
            raise InsufficientInputs("no complete row yet")
        return np.asarray(stream.shift + public_scales(stream.schema) * level[1:] / level[0], dtype=np.float64)

    def predict(self, fit: VarFit | None = None, history: FloatArray | None = None) -> FloatArray:
        """Return the row that should come next, shape (p,), around the party's own mean.

        Args:
            fit: whose coefficients to use, `fit_var(engine.store.moments())` for the federation's; own ones when None.
            history: shape (>= L, p), oldest first; the last L rows processed when None.

        Raises:
            InsufficientInputs: too few rows, or a missing value among the last L.
            InvalidRow: `history` has a wrong shape or a value that is not finite.
        """
        stream = self._require_stream()
        fit = fit_var(self.statistics()) if fit is None else fit
        if fit.names != stream.schema.names:
            raise InvalidRow(f"the fit is of variables {list(fit.names)}, the engine's are {list(stream.schema.names)}")
        if history is None:
            history = stream.recent(stream.schema.lags)
            if np.isnan(history).any():
                raise InsufficientInputs(f"the last {stream.schema.lags} rows are not complete; pass history")
        return fit.predict(history, self.mean())

    def snapshot(self) -> bytes:
        """Return the whole state as msgpack bytes."""
        stream = self._stream
        released = None if self._released is None or stream is None else stream.parts.index(self._released)
        packed: bytes = msgpack.packb(
            {
                "version": _VERSION,
                "config": attrs.asdict(self.config),
                "schema": None if stream is None else stream.schema.to_dict(),
                "stream": None if stream is None else stream.to_plain(),
                "released": released,
                "rows_given_up": self._rows_given_up,
                "store": self.store.snapshot(),
            }
        )
        return packed

    @classmethod
    def restore(cls, data: bytes) -> OnlineDiscoveryEngine:
        """Return the engine of a snapshot.

        Raises:
            CodecError: not a snapshot of an engine.
        """
        plain = unpack_bounded(data)
        require_version(plain, _VERSION)
        try:
            schema = None if plain["schema"] is None else Schema.from_dict(plain["schema"])
            engine = cls(schema, EngineConfig(**plain["config"]))
            if schema is not None:
                engine._stream = RowStream.from_plain(schema, plain["stream"])
                if plain["released"] is not None:
                    engine._released = engine._stream.parts[plain["released"]]
            engine._rows_given_up = int(plain["rows_given_up"])
            engine.store = HypergraphStore.restore(plain["store"])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise CodecError(f"not a snapshot of an engine: {error}") from error
        return engine
