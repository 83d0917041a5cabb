"""The ledger: an append-only chain of records, each naming the hash of the one before it.

A record is written RESERVED before any noise of its release leaves, and later COMMITTED (the release was made) or VOID
(no noise was ever drawn). RESERVED alone counts as spent. Every record repeats the terms (unit, relation, budget) under
which it was written, so that nobody opens a ledger under other ones unnoticed.

Framing of a stored record: length (4 bytes, big-endian, of what follows) || body || BLAKE2b-256 of the body. The body
is canonical JSON with floats in hexadecimal and contains the previous hash. A record that ends too early is torn; as
the last one it was never acknowledged by the store, hence nothing was released under it, and it is dropped. Any other
damage is `LedgerCorrupt`. What a chain cannot show is a ledger that was cut back to an earlier whole state, by
restoring an old disk: that is out of scope and said in docs/privacy.md.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs

from scarcity.errors import LedgerCorrupt, UnsupportedEvent
from scarcity.privacy.events import GaussianEvent, NeighboringRelation, PrivacyParams, PrivacyUnit

_HASH_BYTES = 32
_LENGTH_BYTES = 4
_PERSON = b"scarcity.ledger1"
GENESIS_HASH = bytes(_HASH_BYTES)

Rows = tuple[int, int]


class RecordState(enum.Enum):
    """Where a release stands; what is not VOID counts as spent."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    VOID = "void"


@attrs.frozen
class LedgerTerms:
    """What the budget means: fixed when the ledger is created.

    Attributes:
        unit: what one guarantee covers.
        relation: how neighbouring inputs differ.
        budget: what all records together may cost, for the life of the ledger.
    """

    unit: PrivacyUnit = attrs.field(validator=attrs.validators.instance_of(PrivacyUnit))
    relation: NeighboringRelation = attrs.field(validator=attrs.validators.instance_of(NeighboringRelation))
    budget: PrivacyParams = attrs.field(validator=attrs.validators.instance_of(PrivacyParams))


@attrs.frozen
class LedgerRecord:
    """One link of the chain.

    Attributes:
        seq: position, from 0.
        ledger_id: the ledger it belongs to (a client's public key in hexadecimal, or a layer's name).
        terms: unit, relation and budget under which it was written.
        release_id: names the release; used once in a ledger.
        purpose: what the release was for, in words.
        event: what is charged.
        rows: interval [a, b) of durable row indices that the release depends on; None means every row.
        state: RESERVED, COMMITTED or VOID.
        prev_hash: hash of record seq - 1, zeros for the first.
        hash: BLAKE2b-256 over all of the above.
    """

    seq: int
    ledger_id: str
    terms: LedgerTerms
    release_id: str
    purpose: str
    event: GaussianEvent
    rows: Rows | None
    state: RecordState
    prev_hash: bytes
    hash: bytes


class LedgerStore(Protocol):
    """Where one ledger lives. Not shared: whoever opens it holds it alone."""

    def load(self) -> list[LedgerRecord]:
        """Return all whole records in order.

        Raises:
            LedgerCorrupt: something else than a torn last record is damaged.
        """

    def append(self, record: LedgerRecord) -> None:
        """Make `record` durable; when this returns, it survives a crash of process and machine."""

    def close(self) -> None:
        """Let go of the ledger."""


class MemoryLedgerStore:
    """A ledger that lives as long as the process: for tests, the facade and simulations."""

    def __init__(self) -> None:
        self._records: list[LedgerRecord] = []

    def load(self) -> list[LedgerRecord]:
        """Return the records written so far."""
        return list(self._records)

    def append(self, record: LedgerRecord) -> None:
        """Keep the record."""
        self._records.append(record)

    def close(self) -> None:
        """Do nothing: memory needs no closing, and the store may be opened again."""


def _body(record: LedgerRecord) -> bytes:
    budget = record.terms.budget
    fields = {
        "budget": [float(budget.epsilon).hex(), float(budget.delta).hex()],
        "kind": "gaussian",
        "ledger_id": record.ledger_id,
        "prev_hash": record.prev_hash.hex(),
        "purpose": record.purpose,
        "relation": record.terms.relation.value,
        "release_id": record.release_id,
        "rows": None if record.rows is None else list(record.rows),
        "sensitivity": float(record.event.sensitivity).hex(),
        "seq": record.seq,
        "sigma": float(record.event.sigma).hex(),
        "state": record.state.value,
        "unit": record.terms.unit.value,
        "version": 1,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_HASH_BYTES, person=_PERSON).digest()


def seal(record: LedgerRecord) -> LedgerRecord:
    """Return the record with the hash that its other fields have."""
    return attrs.evolve(record, hash=_digest(_body(record)))


def encode_record(record: LedgerRecord) -> bytes:
    """Return the canonical bytes of a sealed record: length || body || hash."""
    framed = _body(record) + record.hash
    return len(framed).to_bytes(_LENGTH_BYTES, "big") + framed


def is_torn(data: bytes) -> bool:
    """Tell whether `data` is the beginning of a record whose end was never written.

    A whole record whose length field alone was damaged is not torn: its hash still holds, and it is corrupt instead.
    """
    if len(data) < _LENGTH_BYTES + _HASH_BYTES:
        return True
    declared = int.from_bytes(data[:_LENGTH_BYTES], "big")
    body, found = data[_LENGTH_BYTES:-_HASH_BYTES], data[-_HASH_BYTES:]
    return declared > len(data) - _LENGTH_BYTES and not hmac.compare_digest(_digest(body), found)


def decode_record(data: bytes) -> LedgerRecord:
    """Return the record that `encode_record` turned into these bytes.

    Raises:
        LedgerCorrupt: a byte is missing, added or changed.
        UnsupportedEvent: an event of another kind than the Gaussian.
    """
    body, found = data[_LENGTH_BYTES:-_HASH_BYTES], data[-_HASH_BYTES:]
    declared = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if declared != len(data) - _LENGTH_BYTES or not hmac.compare_digest(_digest(body), found):
        raise LedgerCorrupt("a ledger record does not have the length or the hash that it states")
    try:
        record = _parse(json.loads(body), found)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise LedgerCorrupt(f"a ledger record cannot be read: {error}") from error
    if encode_record(record) != data:
        raise LedgerCorrupt("a ledger record is not in canonical form")
    return record


def _parse(fields: dict[str, Any], found: bytes) -> LedgerRecord:
    if fields["kind"] != "gaussian":
        raise UnsupportedEvent(f"ledger record of kind {fields['kind']!r}; only 'gaussian' is accounted for")
    epsilon, delta = (float.fromhex(text) for text in fields["budget"])
    return LedgerRecord(
        seq=fields["seq"],
        ledger_id=fields["ledger_id"],
        terms=LedgerTerms(
            unit=PrivacyUnit(fields["unit"]),
            relation=NeighboringRelation(fields["relation"]),
            budget=PrivacyParams(epsilon=epsilon, delta=delta),
        ),
        release_id=fields["release_id"],
        purpose=fields["purpose"],
        event=GaussianEvent(sigma=float.fromhex(fields["sigma"]), sensitivity=float.fromhex(fields["sensitivity"])),
        rows=None if fields["rows"] is None else (fields["rows"][0], fields["rows"][1]),
        state=RecordState(fields["state"]),
        prev_hash=bytes.fromhex(fields["prev_hash"]),
        hash=found,
    )


def decode_ledger(blobs: Sequence[bytes]) -> list[LedgerRecord]:
    """Return the records of one ledger, a torn last one dropped, and check the chain.

    Raises:
        LedgerCorrupt: any other damage.
    """
    whole = blobs[:-1] if blobs and is_torn(blobs[-1]) else blobs
    records = [decode_record(blob) for blob in whole]
    verify_chain(records)
    return records


def verify_chain(records: Iterable[LedgerRecord]) -> bytes:
    """Check hashes, order and life cycle of the records, and return the hash of the last one.

    Raises:
        LedgerCorrupt: a hash, a position or a ledger id does not fit, a release was reserved twice, or it was committed
            or voided without a reservation or twice; the position is named.
    """
    last, states, ledger_id = GENESIS_HASH, dict[str, RecordState](), ""
    for position, record in enumerate(records):
        ledger_id = ledger_id or record.ledger_id
        if record.seq != position or record.ledger_id != ledger_id:
            raise LedgerCorrupt(f"record {position} says it is number {record.seq} of ledger {record.ledger_id!r}")
        if record.prev_hash != last or _digest(_body(record)) != record.hash:
            raise LedgerCorrupt(f"ledger {ledger_id}: the hash chain breaks at record {position}")
        before = states.get(record.release_id)
        opens = record.state is RecordState.RESERVED
        if (before is not None) if opens else (before is not RecordState.RESERVED):
            raise LedgerCorrupt(f"ledger {ledger_id}: record {position} makes {before} into {record.state}")
        states[record.release_id] = record.state
        last = record.hash
    return last
