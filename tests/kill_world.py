"""What must hold on the disks of daemons that were killed at any moment, read without them.

A disk is read from a copy of its files: to open the journal itself would mend what the killed daemon left, and the
daemon would come up from what we have mended.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import msgpack

from scarcity.federation.codec import body_digest, decode_packet, encode_packet
from scarcity.federation.packets import CONTRIBUTIONS, Ack, BasketReport, Header, Packet, Unprotected
from scarcity.federation.recovery import (
    CONFIG,
    CONTRIBUTION,
    DECLINED,
    EQUIVOCATION,
    MODEL,
    OUTCOME,
    RECEIPT,
    Outcome,
    _outcome,
)
from scarcity.node.daemon import JOURNAL, OUTBOX
from scarcity.node.watch.outbox import OutboxRecord, iterate_outbox
from scarcity.privacy.ledger import LedgerRecord, RecordState, decode_ledger

_LEDGER = ":ledger"
_LAYER2 = "layer 2"
# A packet of these kinds is a statement: its author may say it again, in the same bytes.
STATEMENTS = (
    "config", "declined", "release", "trusted-update", "unprotected", "basket-report", "absent", "model", "aborted",
)  # fmt: skip


@attrs.frozen
class Row:
    """An entry of a host's journal."""

    member: str
    kind: str
    key: str
    payload: bytes


@attrs.frozen
class Disk:
    """What one host had on its disk at one moment.

    Attributes:
        rows: its journal in the order in which it was written, without ledgers.
        ledgers: key that owns it -> its records, as stored.
        sent: its outbox.
    """

    rows: tuple[Row, ...]
    ledgers: Mapping[str, tuple[bytes, ...]]
    sent: tuple[OutboxRecord, ...]

    def of(self, *kinds: str) -> Iterator[Row]:
        return (row for row in self.rows if row.kind in kinds)

    def packets(self, *kinds: str) -> Iterator[tuple[Row, Packet]]:
        return ((row, decode_packet(row.payload)) for row in self.of(*kinds))


def read_disk(data: Path, verify_key: bytes | None = None) -> Disk:
    """Read the journal and the outbox of a host whose daemon does not run; outbox signatures too when given a key."""
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        for path in data.glob(f"{JOURNAL}*"):
            shutil.copy(path, folder)
        connection = sqlite3.connect(Path(folder) / JOURNAL)
        try:
            (whole,) = connection.execute("PRAGMA quick_check").fetchone()
            assert whole == "ok", f"{data}: {whole}"
            query = "SELECT kind, key, payload FROM entry ORDER BY position"
            found = connection.execute(query).fetchall() if _has_table(connection) else []
        finally:
            connection.close()
    rows, ledgers = [], defaultdict[str, list[bytes]](list)
    for kind, key, payload in found:
        if kind.endswith(_LEDGER):
            ledgers[kind.removesuffix(_LEDGER)].append(payload)
        else:
            member, _, name = kind.partition(":")
            rows.append(Row(member, name, key, payload))
    outbox = data / OUTBOX
    sent = tuple(iterate_outbox(outbox, verify_key)) if outbox.exists() else ()
    return Disk(tuple(rows), {name: tuple(records) for name, records in ledgers.items()}, sent)


def _has_table(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entry'").fetchall())


def check_grown(before: Disk, after: Disk) -> None:
    """A journal, a ledger and an outbox only grow: what was spent stays spent, whatever died in between."""
    assert after.rows[: len(before.rows)] == before.rows, "the journal has lost or changed entries"
    for name, records in before.ledgers.items():
        assert after.ledgers[name][: len(records)] == records, f"ledger {name} has lost or changed records"
    assert after.sent[: len(before.sent)] == before.sent, "the outbox has lost or changed records"


def check_all(disks: Mapping[str, Disk], domain_of: Mapping[str, str]) -> None:
    """Check all laws.

    Args:
        disks: host -> its disk, of all hosts.
        domain_of: client -> domain.
    """
    everyone = tuple(disks.values())
    check_each_stage_is_answered_once(everyone)
    check_no_equivocation(everyone)
    check_receipts(everyone)
    check_outcomes(everyone)
    check_charges(everyone, domain_of)
    check_rows(everyone)
    models_of(everyone)


def check_each_stage_is_answered_once(disks: Iterable[Disk]) -> None:
    """What one member has said of one stage, as its own disk, others' disks and all outboxes know it, is one thing."""
    said: dict[tuple[str, str, int], bytes] = {}
    sent: dict[tuple[str, str, int], str] = {}
    for disk in disks:
        for _, packet in disk.packets(CONFIG, CONTRIBUTION, DECLINED, RECEIPT, MODEL):
            kind = "contribution" if isinstance(packet.body, CONTRIBUTIONS) else type(packet.body).__name__
            stage = (packet.header.sender, kind, packet.header.round_id)
            assert said.setdefault(stage, packet.signature) == packet.signature, f"{stage} was answered twice"
        for record in disk.sent:
            if record.kind in STATEMENTS and record.round_id:
                place = (record.sender, record.kind, record.round_id)
                # A basket passes the coordinator's config and model on, in the coordinator's bytes.
                assert sent.setdefault(place, record.digest) == record.digest, f"{place} left with two contents"
    masked = {}
    for record in itertools.chain.from_iterable(disk.sent for disk in disks):
        if record.kind == "secure-sum/masked" and not record.sender.startswith("basket/"):
            place = (record.sender, record.kind, record.round_id)
            assert masked.setdefault(place, record.digest) == record.digest, f"{place}: one input in two sums"


def check_no_equivocation(disks: Iterable[Disk]) -> None:
    proofs = [row for disk in disks for row in disk.of(EQUIVOCATION)]
    assert not proofs, f"honest members were caught: {[(row.member, row.key) for row in proofs]}"


def check_receipts(disks: Iterable[Disk]) -> None:
    """Every acknowledgement that left is for a contribution that is on the basket's disk."""
    for disk in disks:
        acks: set[tuple[str, str, str]] = set()
        for row, packet in disk.packets(RECEIPT):
            head = packet.header
            place = Header(head.federation, head.epoch, head.scope, head.round_id, row.member)
            data = encode_packet(Packet(place, Ack(body_digest(packet.body))))
            acks.add((row.member, head.sender, _blake(data)))
        for record in disk.sent:
            if record.kind == "ack":
                assert (record.sender, record.to, record.digest) in acks, f"{record} has no receipt"


def _blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def check_outcomes(disks: Iterable[Disk]) -> None:
    """A round of a basket has one outcome, a contribution is in one at most, and what was acknowledged is not lost."""
    for disk in disks:
        baskets = sorted({row.member for row in disk.of(OUTCOME, RECEIPT)})
        for basket in baskets:
            _check_basket([row for row in disk.of(OUTCOME, RECEIPT) if row.member == basket])


def _check_basket(rows: Sequence[Row]) -> None:
    weights: dict[tuple[str, int], int] = {}
    waiting: dict[str, int] = {}
    taken: set[tuple[str, int]] = set()
    rounds: set[int] = set()
    for row in rows:
        if row.kind == RECEIPT:
            packet = decode_packet(row.payload)
            place = (packet.header.sender, packet.header.round_id)
            assert place not in weights, f"{row.member}: two receipts of {place}"
            assert isinstance(packet.body, CONTRIBUTIONS)
            weights[place] = packet.body.weight
            waiting[place[0]] = max(place[1], waiting.get(place[0], 0))
            continue
        outcome = _outcome(row.payload)
        where = f"{row.member}, round {outcome.round_id}"
        assert outcome.round_id not in rounds, f"{where}: two outcomes"
        rounds.add(outcome.round_id)
        if outcome.taken is None:
            continue
        used = set(outcome.taken)
        assert not used & taken, f"{where}: {used & taken} used twice"
        assert used <= set(weights), f"{where}: {used - set(weights)} used without a receipt"
        taken |= used
        due = {name: at for name, at in waiting.items() if at <= outcome.round_id}
        assert due.items() <= dict(used).items(), f"{where}: {due} acknowledged, {used} used"
        waiting = {name: at for name, at in waiting.items() if at > outcome.round_id}
        if outcome.aggregate is not None:
            _check_report(where, outcome, {place: weights[place] for place in used})


def _check_report(where: str, outcome: Outcome, weights: Mapping[tuple[str, int], int]) -> None:
    aggregate, report = outcome.aggregate, outcome.statement.body
    assert isinstance(report, BasketReport)
    assert aggregate is not None
    assert report.count == aggregate.count == len(weights), f"{where}: {aggregate.count} of {len(weights)}"
    round_id = outcome.round_id
    aged = sum(weight * 2.0 ** (at - round_id) for (_, at), weight in weights.items())
    slack = 1e-9 * aged
    assert aggregate.weight <= aged + slack, f"{where}: weight {aggregate.weight}, not {aged}"
    if aggregate.rule == "average":  # a robust rule caps the weight of who has far more rows than the others
        assert aggregate.weight >= aged - slack, f"{where}: weight {aggregate.weight}, not {aged}"


def check_charges(disks: Iterable[Disk], domain_of: Mapping[str, str]) -> None:
    """Whatever of a client's rows left was charged, and never given back."""
    for disk in disks:
        spent: set[tuple[str, int]] = set()
        for payloads in disk.ledgers.values():
            spent |= {
                _round_of(record) for record in _newest(payloads).values() if record.state is not RecordState.VOID
            }
        made = disk.packets(CONTRIBUTION)
        left = {(p.header.sender, p.header.round_id) for _, p in made if not isinstance(p.body, Unprotected)}
        left |= {(r.sender, r.round_id) for r in disk.sent if r.kind in ("release", "secure-sum/masked")}
        owed = {place for place in left if place[0] in domain_of}
        assert owed <= spent, f"not charged, or refunded: {owed - spent}"


def _newest(payloads: Sequence[bytes]) -> dict[str, LedgerRecord]:
    return {record.release_id: record for record in decode_ledger(list(payloads))}  # a broken chain raises


def _round_of(record: LedgerRecord) -> tuple[str, int]:
    """Return (member, round) of "<federation>/<round>/<member>/<layer>"; a client's name here has no slash."""
    _, round_id, member, _ = record.release_id.split("/")
    return member, int(round_id)


def check_rows(disks: Iterable[Disk]) -> None:
    """No row is in two contributions of its client, whether there is a ledger or not."""
    for disk in disks:
        given: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for name, payloads in disk.ledgers.items():
            for record in _newest(payloads).values():
                if record.rows is not None and record.state is not RecordState.VOID:
                    given[f"{name} {record.purpose}"].append(record.rows)
        for row in disk.of("rows"):
            start, end = msgpack.unpackb(row.payload)
            given[row.member].append((start, end))
        for rows in (sorted(each) for each in given.values()):
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(rows)), f"rows given twice: {rows}"


def models_of(disks: Iterable[Disk]) -> dict[int, bytes]:
    """Return the digest of each round's model; it is the same one on every disk."""
    found: dict[int, bytes] = {}
    for disk in disks:
        for row, packet in disk.packets(MODEL):
            digest = body_digest(packet.body)
            round_id = packet.header.round_id
            assert found.setdefault(round_id, digest) == digest, f"{row.member} has another model of round {round_id}"
    return found


def contributions_of(disks: Iterable[Disk]) -> set[tuple[str, int]]:
    """Return (client, round) of all contributions that clients have made, plain or in a sum."""
    made = set()
    for disk in disks:
        for payloads in disk.ledgers.values():
            newest = _newest(payloads).values()
            made |= {_round_of(r) for r in newest if r.state is RecordState.COMMITTED and r.purpose != _LAYER2}
        made |= {(p.header.sender, p.header.round_id) for _, p in disk.packets(CONTRIBUTION)}
    return made
