"""What is known, as a grow-only set of evidence: merging two stores is the union of their sets.

Relations are a pure function of the set, so any two parties that hold the same evidence see the same relations, in
whatever order it came. A record may supersede others (a cumulative record and the rounds in it): whenever two records
share evidence, exactly one of them counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import msgpack
import numpy as np

from scarcity.engine.discovery import discover
from scarcity.engine.moments import Moments
from scarcity.engine.relation import Relation
from scarcity.engine.schema import Schema, require_text
from scarcity.errors import CodecError, ConfigError, InsufficientInputs, LocalError

_VERSION = 1
MAX_RECORDS = 100_000  # a daily round for 270 years
MAX_SNAPSHOT_BYTES = 1 << 30
ID_BYTES = 32


def _sorted_ids(ids: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(ids)))


@attrs.frozen
class EvidenceRecord:
    """Moments that came from somewhere, immutable, named by the hash of all that it says (equal iff the ids are).

    Attributes:
        scope: whose evidence it is: "global", a basket's id, a party's id.
        moments: the statistics; their schema, rows, parties and noise are the record's.
        origin: what made it ("round 3"); tells apart equal statistics of different rounds.
        supersedes: ids of all records that its moments contain, those below a cumulative one too: a store that does
            not hold the cumulative one could not know them.
    """

    scope: str = attrs.field(eq=False)
    moments: Moments = attrs.field(eq=False)
    origin: str = attrs.field(default="", eq=False)
    supersedes: tuple[bytes, ...] = attrs.field(default=(), converter=_sorted_ids, eq=False)
    id: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for field in ("scope", "origin"):
            require_text(getattr(self, field), field)
        if any(type(entry) is not bytes or len(entry) != ID_BYTES for entry in self.supersedes):
            raise ConfigError(f"supersedes must hold ids of {ID_BYTES} bytes")
        canonical = msgpack.packb([_VERSION, self.schema_hash, *self._fields()])
        digest = hashlib.blake2b(canonical, digest_size=ID_BYTES, person=b"scarcity-record").digest()
        object.__setattr__(self, "id", digest)

    @property
    def schema_hash(self) -> bytes:
        """Hash of the schema."""
        return self.moments.schema.hash

    @property
    def rows(self) -> int:
        """Rows of evidence."""
        return self.moments.rows

    @property
    def parties(self) -> int:
        """Contributors."""
        return self.moments.parties

    @property
    def noise_std(self) -> float:
        """Privacy noise on a unit-scale coordinate."""
        return self.moments.noise_std

    def _fields(self) -> list[Any]:
        moments = self.moments
        numbers = [moments.rows, moments.parties, moments.noise_std]
        return [
            self.scope,
            self.origin,
            list(self.supersedes),
            moments.form,
            *numbers,
            moments.vector.astype("<f8").tobytes(),
        ]


@attrs.frozen
class Explanation:
    """What a relation rests on.

    Attributes:
        relation: the one that was asked about, as the evidence has it now; None when it no longer holds.
        evidence: the records that count, sorted by id.
        rows: their rows.
        parties: their contributions.
        noise_std: privacy noise on a unit-scale coordinate of their sum.
    """

    relation: Relation | None
    evidence: tuple[EvidenceRecord, ...]
    rows: int
    parties: int
    noise_std: float


class HypergraphStore:
    """A set of evidence records that only grows; relations are computed from it."""

    def __init__(self, records: Iterable[EvidenceRecord] = ()) -> None:
        self._records: dict[bytes, EvidenceRecord] = {}
        for record in records:
            self.add(record)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[EvidenceRecord]:
        return iter(self.records)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HypergraphStore) and self._records.keys() == other._records.keys()

    __hash__ = None  # type: ignore[assignment]  # a store grows: it is no key

    @property
    def records(self) -> tuple[EvidenceRecord, ...]:
        """All records, sorted by id."""
        return tuple(self._records[key] for key in sorted(self._records))

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that have evidence, sorted."""
        return tuple(sorted({record.scope for record in self._records.values()}))

    def add(self, record: EvidenceRecord) -> None:
        """Add a record; the same one again changes nothing.

        Raises:
            LocalError: the store holds MAX_RECORDS already.
        """
        if record.id not in self._records and len(self._records) >= MAX_RECORDS:
            raise LocalError(f"the store holds {MAX_RECORDS} records; merge rounds into a cumulative record first")
        self._records.setdefault(record.id, record)

    def merge(self, other: HypergraphStore) -> HypergraphStore:
        """Return the union; commutative, associative, idempotent. Neither store changes."""
        return HypergraphStore([*self.records, *other.records])

    def active(self, scope: str = "global") -> tuple[EvidenceRecord, ...]:
        """Return the records of a scope that count, sorted by id: no evidence is in two of them.

        A record goes before those in its lineage; where two lineages overlap, the longer one counts, then the one with
        more rows, then the lower id: a function of the set alone.
        """
        within = {record.id: record for record in self.records if record.scope == scope}
        lineages = {key: _lineage(key, within) for key in within}
        order = sorted(within, key=lambda key: (-len(lineages[key]), -within[key].rows, key))
        covered: set[bytes] = set()
        chosen = []
        for key in order:
            if covered.isdisjoint(lineages[key]):
                covered |= lineages[key]
                chosen.append(within[key])
        return tuple(sorted(chosen, key=lambda record: record.id))

    def moments(self, scope: str = "global") -> Moments:
        """Return the sum of the active records of a scope.

        Where records of several schemas or forms are there (they do not add), the kind with most rows is taken.

        Raises:
            InsufficientInputs: the scope has no evidence.
        """
        return Moments.sum(record.moments for record in self._summable(scope))

    def _summable(self, scope: str) -> tuple[EvidenceRecord, ...]:
        kinds: dict[tuple[bytes, str], list[EvidenceRecord]] = {}
        for record in self.active(scope):
            kinds.setdefault((record.schema_hash, record.moments.form), []).append(record)
        if not kinds:
            raise InsufficientInputs(f"no evidence of scope {scope!r}; there is evidence of {list(self.scopes)}")
        best = min(kinds, key=lambda kind: (-sum(record.rows for record in kinds[kind]), kind))
        return tuple(kinds[best])

    def edges(self, alpha: float = 0.05, min_effect: float = 0.02, scope: str = "global") -> list[Relation]:
        """Return the relations that the scope's evidence supports; empty when it has none or too little.

        Raises:
            ConfigError: alpha or min_effect is out of range.
        """
        try:
            return discover(self.moments(scope), alpha=alpha, min_effect=min_effect)
        except InsufficientInputs:
            return []

    def explain(
        self, relation: Relation, scope: str = "global", *, alpha: float = 0.05, min_effect: float = 0.02
    ) -> Explanation:
        """Return the evidence behind a relation and its present strength.

        Raises:
            InsufficientInputs: the scope has no evidence.
        """
        evidence = self._summable(scope)
        total = Moments.sum(record.moments for record in evidence)
        now = [edge for edge in self.edges(alpha, min_effect, scope) if edge.key == relation.key]
        return Explanation(now[0] if now else None, evidence, total.rows, total.parties, total.noise_std)

    def snapshot(self) -> bytes:
        """Return the canonical bytes: equal sets give equal bytes."""
        schemas = {record.schema_hash: record.moments.schema for record in self._records.values()}
        return _pack(
            {
                "version": _VERSION,
                "schemas": [schemas[key].to_dict() for key in sorted(schemas)],
                "records": [[record.schema_hash, *record._fields()] for record in self.records],
            }
        )

    @classmethod
    def restore(cls, data: bytes) -> HypergraphStore:
        """Return the store of a snapshot.

        Raises:
            CodecError: not a snapshot, too large, or not canonical.
        """
        plain = unpack_bounded(data)
        require_version(plain, _VERSION)
        try:
            schemas = {schema.hash: schema for schema in map(Schema.from_dict, plain["schemas"])}
            store = cls(_record(schemas, *fields) for fields in plain["records"])
        except (KeyError, TypeError, ValueError) as error:
            raise CodecError(f"not a snapshot of a store: {error}") from error
        if store.snapshot() != data:
            raise CodecError("a snapshot of a store that is not canonical")
        return store


def _lineage(key: bytes, records: dict[bytes, EvidenceRecord]) -> frozenset[bytes]:
    """Return the ids of a record and of all below it; ids are hashes, so there is no circle."""
    seen: set[bytes] = set()
    waiting = [key]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            if current in records:
                waiting.extend(records[current].supersedes)
    return frozenset(seen)


def _record(
    schemas: dict[bytes, Schema],
    schema_hash: bytes,
    scope: str,
    origin: str,
    supersedes: list[bytes],
    form: Any,
    rows: int,
    parties: int,
    noise_std: float,
    vector: bytes,
) -> EvidenceRecord:
    moments = Moments(schemas[schema_hash], form, np.frombuffer(vector, dtype="<f8"), rows, parties, noise_std)
    return EvidenceRecord(scope, moments, origin, supersedes)


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def require_version(plain: dict[str, Any], version: int) -> None:
    """Raise CodecError unless the snapshot is of this version."""
    if plain.get("version") != version:
        raise CodecError(f"snapshot of version {plain.get('version')!r}, expected {version}")


def unpack_bounded(data: bytes) -> dict[str, Any]:
    """Return the mapping in msgpack bytes.

    Raises:
        CodecError: too large, malformed, or not a mapping.
    """
    if len(data) > MAX_SNAPSHOT_BYTES:
        raise CodecError(f"a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes, got {len(data)}")
    try:
        plain = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise CodecError(f"not a snapshot: {error}") from error
    if not isinstance(plain, dict):
        raise CodecError("not a snapshot: no mapping")
    return plain
