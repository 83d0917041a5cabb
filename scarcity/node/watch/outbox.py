"""The outbox: a signed, append-only list of everything that left this node, one JSON line a packet, without values.

A line says when, from which member to whom on which node, kind and round, the shapes of the packet's arrays, its size
and BLAKE2b-256 digest (`b2sum -l 256` of the bytes that were sent), the noise on it and what was charged for it. It
names the hash of the line before it and is signed with the node's link key, so that nobody without that key can change,
reorder or remove a line from the middle. What a chain cannot show is that its end was cut off by whoever holds the
key; a recipient's digest of a packet that is not listed shows that.

A line is handed to the operating system before `record` returns, so a killed process loses nothing that has left. It is
also forced to the disk (`DURABLE`), as a power cut must not lose it either, where a packet carries what was learnt from
rows: contributions, the messages of secure sums, a basket's report, models, and gossip's pushes, which carry releases
and models. What only asks or acknowledges is not worth a write to the disk each: after a power cut its lines may be
missing, from the end of the list.

Cost: about 500 bytes a packet. What never ends is gossip's pulls: a client with three peers on other nodes writes 26 MB
a day with a period of 5 s, 130 MB with one of 1 s. The file is not rotated: a whole file that is moved away while the
node is down begins a new list. Opening takes 0.3 s for each of such days.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from scarcity.errors import OutboxCorrupt, OutboxError, RemoteError
from scarcity.federation.codec import decode_packet, kind_of
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    BasketReport,
    Body,
    GossipPush,
    Model,
    Packet,
    Release,
    SecureSum,
    TrustedUpdate,
    Unprotected,
)
from scarcity.federation.secure_aggregation import CODEC
from scarcity.federation.secure_aggregation import decode as decode_sum
from scarcity.node.journal import JournalStore
from scarcity.privacy.ledger import LedgerRecord, RecordState, decode_record

DURABLE: Final = (Release, TrustedUpdate, Unprotected, SecureSum, BasketReport, Model, GossipPush)
_VERSION: Final = 1
_SIGNED: Final = b"scarcity.outbox"
_START: Final = "0" * 64
_BREAKS: Final = "the chain breaks here; it does not name the line before it"
_LEDGER: Final = "ledger"
_MASKED: Final = "secure-sum/masked"
_KEPT_ROUNDS: Final = 4  # of a member's charges: a contribution is sent again until its round has ended
_LINE_BYTES_MAX: Final = 1 << 20  # 128 items of gossip take 20 kB


@attrs.frozen(kw_only=True)
class OutboxRecord:
    """One packet that left.

    Attributes:
        seq: position, from 0.
        at: UTC, ISO 8601.
        sender: the member that sent it.
        to: the member that it went to.
        node: the node that it went to.
        kind: what it was; a secure sum's message is "secure-sum/<its kind>".
        round_id: its round.
        shapes: of its arrays, those of carried packets included.
        carries: what gossip's push carried, as "<kind> of <origin>, round <n>".
        size_bytes: of the packet.
        noise: standard deviation on a unit-scale coordinate, in the units of what was sent; None: there is none, or (in
            a secure sum) it is on the sum alone.
        charge: what was charged for it, in words; empty: nothing.
        digest: hexadecimal BLAKE2b-256 of the packet's bytes.
        previous: hexadecimal BLAKE2b-256 of the line before, zeros for the first.
        signature: hexadecimal Ed25519 signature of the node's link key.
    """

    seq: int
    at: str
    sender: str
    to: str
    node: str
    kind: str
    round_id: int
    shapes: tuple[tuple[int, ...], ...]
    carries: tuple[str, ...]
    size_bytes: int
    noise: float | None
    charge: str
    digest: str
    previous: str
    signature: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they stand in the file."""
        return {
            "at": self.at,
            "bytes": self.size_bytes,
            "carries": list(self.carries),
            "charge": self.charge,
            "digest": self.digest,
            "from": self.sender,
            "kind": self.kind,
            "node": self.node,
            "noise": self.noise,
            "prev": self.previous,
            "round": self.round_id,
            "seq": self.seq,
            "shapes": [list(shape) for shape in self.shapes],
            "signature": self.signature,
            "to": self.to,
            "v": _VERSION,
        }


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _signed_bytes(record: OutboxRecord) -> bytes:
    fields = record.to_json()
    del fields["signature"]
    return _SIGNED + _canonical(fields)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


@attrs.frozen
class _Contents:
    """What an outsider may know of a body."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    carries: tuple[str, ...] = ()


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    fields = (getattr(value, field.name) for field in attrs.fields(type(value)))
    return tuple(field.shape for field in fields if isinstance(field, np.ndarray))


def _contents(body: Body) -> _Contents:
    if isinstance(body, SecureSum):
        try:
            inner = decode_sum(body.payload)
        except RemoteError:  # what it is, is for the protocol to say; that it left, is for us
            return _Contents(kind_of(body), ((len(body.payload),),))
        return _Contents(f"{kind_of(body)}/{CODEC.kind_of(inner)}", _shapes(inner) or ((len(body.payload),),))
    if isinstance(body, GossipPush):
        packets = [decode_packet(item) for item in body.items]
        carries = tuple(f"{kind_of(p.body)} of {p.header.sender}, round {p.header.round_id}" for p in packets)
        return _Contents(kind_of(body), tuple(shape for p in packets for shape in _shapes(p.body)), carries)
    return _Contents(kind_of(body), _shapes(body))


@attrs.frozen
class _Charge:
    layer: str
    sigma: float
    text: str


def _charge_of(record: LedgerRecord) -> _Charge:
    event, unit = record.event, record.terms.unit.value
    text = f"{record.purpose}: Gaussian, sigma {event.sigma:.6g}, sensitivity {event.sensitivity:.6g}, unit {unit}"
    return _Charge(record.purpose, event.sigma, text)


class Charges:
    """What members have been charged for their newest rounds, learnt from their ledgers' records."""

    def __init__(self) -> None:
        self._charged: dict[str, dict[int, dict[str, _Charge]]] = {}

    def note(self, member_id: str, payload: bytes) -> None:
        """Learn of a ledger's record.

        Args:
            member_id: whose ledger it is.
            payload: the record as the journal keeps it.
        """
        record = decode_record(payload)
        # "<federation>/<round>/<member>/<layer>", where the federation's and the member's names may hold slashes.
        tail = f"/{member_id}/{record.purpose}"
        number = record.release_id.removesuffix(tail).rpartition("/")[2]
        if not record.release_id.endswith(tail) or not number.isdecimal():
            return
        rounds = self._charged.setdefault(member_id, {})
        layers = rounds.setdefault(int(number), {})
        if record.state is RecordState.VOID:
            layers.pop(record.purpose, None)
        else:
            layers[record.purpose] = _charge_of(record)
        for old in sorted(rounds)[:-_KEPT_ROUNDS]:
            del rounds[old]

    def of(self, member_id: str, round_id: int) -> tuple[_Charge, ...]:
        """Return the charges of a member's round, by layer."""
        layers = self._charged.get(member_id, {}).get(round_id, {})
        return tuple(layers[name] for name in sorted(layers))


class ChargedJournal:
    """A member's journal whose ledger records the outbox learns of as they are written."""

    def __init__(self, member_id: str, inner: JournalStore, charges: Charges) -> None:
        self._member_id = member_id
        self._inner = inner
        self._charges = charges
        for _, payload in inner.entries(_LEDGER):
            charges.note(member_id, payload)

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Make one entry durable."""
        self._inner.append(kind, key, payload)
        if kind == _LEDGER:
            self._charges.note(self._member_id, payload)

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, payload) of all entries of this kind, oldest first."""
        return self._inner.entries(kind)

    def kinds(self) -> list[str]:
        """Return the kinds that have entries, sorted."""
        return self._inner.kinds()

    def close(self) -> None:
        """Let go of the journal."""
        self._inner.close()


class Outbox:
    """The outbox of a node that runs; one process holds the file.

    Args:
        path: the file, made (readable by its owner alone) when it is not there; its directory must exist.
        signing_key: the node's link key.
        now: seconds since 1970.

    Attributes:
        num_torn: 1 when the last line was cut off by a crash and has been removed. Its packet had not left.

    Raises:
        OutboxCorrupt: the chain is broken, or the list was begun under another key.
        OutboxError: it cannot be opened or another process holds it.
    """

    def __init__(self, path: Path, signing_key: SigningKey, now: Callable[[], float]) -> None:
        self._path = path
        self._key = signing_key
        self._now = now
        self._charges = Charges()
        self.num_torn = 0
        self._dirty = False  # bytes of a record that failed may stand behind the last whole line
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxError(f"{path}: {error.strerror}") from None
        try:
            self._seq, self._last, self._size = self._open()
        except BaseException:
            os.close(self._file)
            raise

    def _open(self) -> tuple[int, str, int]:
        """Take the lock, cut a torn line off, check the chain; return next number, hash of the last line, and size."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutboxError(f"{self._path}: another process holds this outbox") from None
        seq, last, size, newest = 0, _START, 0, (b"", _START)
        with self._path.open("rb") as file:
            for line in _lines(file, self._path):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, size)
                    self.num_torn = 1
                    break
                if f'"prev":"{last}"'.encode() not in line:
                    raise OutboxCorrupt(f"{self._path}, line {seq + 1}: {_BREAKS}")
                newest = (line[:-1], last)
                seq, last, size = seq + 1, _hash(line[:-1]), size + len(line)
        if seq:
            # Each line names the bytes of the one before, so the signature of the last one answers for all of them.
            record = _link(newest[0], seq - 1, newest[1], self._path)
            _check_signature(record, self._key.verify_key, self._path)
        _sync_directory(self._path.parent)
        return seq, last, size

    def watch(self, member_id: str, journal: JournalStore) -> JournalStore:
        """Return a member's journal such that the outbox can say what was charged for what the member sends."""
        return ChargedJournal(member_id, journal, self._charges)

    def record(self, sender: str, to: str, node: str, packet: Packet, data: bytes) -> None:
        """Note a packet that is about to leave.

        Args:
            sender: the member that sends it.
            to: the member that it is for.
            node: the node that hosts it.
            packet: what leaves.
            data: its bytes, as they leave.

        Raises:
            OutboxError: it could not be written (a full disk, for example), and nothing of it stays; the packet must
                not leave.

        Cost: 0.1 ms; for what `DURABLE` names one fsync beside it, 1 to 5 ms.
        """
        contents = _contents(packet.body)
        noise, charge = self._noise_and_charge(sender, packet, contents)
        record = OutboxRecord(
            seq=self._seq,
            at=dt.datetime.fromtimestamp(self._now(), dt.UTC).isoformat(timespec="milliseconds"),
            sender=sender,
            to=to,
            node=node,
            kind=contents.kind,
            round_id=packet.header.round_id,
            shapes=contents.shapes,
            carries=contents.carries,
            size_bytes=len(data),
            noise=noise,
            charge=charge,
            digest=_hash(data),
            previous=self._last,
        )
        signature = self._key.sign(_signed_bytes(record)).signature.hex()
        line = _canonical(attrs.evolve(record, signature=signature).to_json())
        self._append(line + b"\n", durable=isinstance(packet.body, DURABLE))
        self._seq, self._last, self._size = self._seq + 1, _hash(line), self._size + len(line) + 1

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return self._size

    def __len__(self) -> int:
        return self._seq

    def close(self) -> None:
        """Force what was written to the disk and let go of the file."""
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def _noise_and_charge(self, sender: str, packet: Packet, contents: _Contents) -> tuple[float | None, str]:
        body = packet.body
        if isinstance(body, BasketReport):
            return _finite(math.sqrt(max(0.0, body.noise_variance))), ""
        if isinstance(body, Model):
            return _finite(body.noise_std), ""
        if not isinstance(body, CONTRIBUTIONS) and contents.kind != _MASKED:
            return None, ""
        charges = self._charges.of(sender, packet.header.round_id)
        own = [each.sigma for each in charges if each.layer == "layer 1"] if isinstance(body, Release) else []
        return (own[0] if own else None), "; ".join(each.text for each in charges)

    def _append(self, line: bytes, *, durable: bool) -> None:
        try:
            if self._dirty:
                os.ftruncate(self._file, self._size)
            self._dirty = True
            if os.write(self._file, line) == len(line):
                if durable:
                    os.fsync(self._file)
                self._dirty = False
                return
            reason = "the disk took only a part of the record"  # the next write would say that it is full
        except OSError as error:
            reason = str(error.strerror)
        with contextlib.suppress(OSError):  # then before the next record, or at the next start
            os.ftruncate(self._file, self._size)
            self._dirty = False
        raise OutboxError(f"{self._path}: {reason}; the packet stays here")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sync_directory(path: Path) -> None:
    """Make the file's name durable: a new file is lost with its directory entry."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(file: Any, path: Path) -> Iterator[bytes]:
    number = 0
    while line := file.readline(_LINE_BYTES_MAX):
        if len(line) == _LINE_BYTES_MAX:
            raise OutboxCorrupt(f"{path}, line {number + 1}: longer than {_LINE_BYTES_MAX} bytes, so it is no record")
        number += 1
        yield line


def _link(line: bytes, seq: int, last: str, path: Path) -> OutboxRecord:
    """Return the record of a line that must be the next one of the chain."""
    where = f"{path}, line {seq + 1}"
    try:
        fields = json.loads(line)
        record = _parse(fields)
        canonical = _canonical(record.to_json())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutboxCorrupt(f"{where}: not a record: {type(error).__name__}") from None
    if canonical != line:
        raise OutboxCorrupt(f"{where}: not in the form in which it was written")
    if record.seq != seq or record.previous != last:
        raise OutboxCorrupt(f"{where}: {_BREAKS}")
    return record


def _parse(fields: dict[str, Any]) -> OutboxRecord:
    if fields["v"] != _VERSION:
        raise ValueError(f"a record of version {_VERSION}")
    return OutboxRecord(
        seq=fields["seq"],
        at=fields["at"],
        sender=fields["from"],
        to=fields["to"],
        node=fields["node"],
        kind=fields["kind"],
        round_id=fields["round"],
        shapes=tuple(tuple(shape) for shape in fields["shapes"]),
        carries=tuple(fields["carries"]),
        size_bytes=fields["bytes"],
        noise=fields["noise"],
        charge=fields["charge"],
        digest=fields["digest"],
        previous=fields["prev"],
        signature=fields["signature"],
    )


def _check_signature(record: OutboxRecord, key: VerifyKey, path: Path) -> None:
    try:
        key.verify(_signed_bytes(record), bytes.fromhex(record.signature))
    except (BadSignatureError, ValueError, TypeError):
        raise OutboxCorrupt(
            f"{path}, line {record.seq + 1}: not signed by the key {key.encode().hex()[:16]}..; after a change of keys "
            "move the old list away, it is verified with the old key"
        ) from None


def iterate_outbox(path: Path, verify_key: bytes | None) -> Iterator[OutboxRecord]:
    """Yield the records of a list in order, each checked; a torn last line is left out. A running node may be writing.

    Args:
        path: the file.
        verify_key: the node's public link key; None: the chain alone is checked, no signatures.

    Raises:
        OutboxError: it cannot be read.
        OutboxCorrupt: where the chain breaks or a signature does not hold.
    """
    key = None if verify_key is None else VerifyKey(verify_key)
    last = _START
    try:
        file = path.open("rb")
    except OSError as error:
        raise OutboxError(f"{path}: {error.strerror}") from None
    with file:
        for seq, line in enumerate(_lines(file, path)):
            if not line.endswith(b"\n"):
                return
            record = _link(line[:-1], seq, last, path)
            if key is not None:
                _check_signature(record, key, path)
            last = _hash(line[:-1])
            yield record


def read_outbox(path: Path, verify_key: bytes) -> list[OutboxRecord]:
    """Return all records of a list, verified; see `iterate_outbox`."""
    return list(iterate_outbox(path, verify_key))
