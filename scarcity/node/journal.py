"""The durable journal of one host: an SQLite file that holds its ledgers and an append-only log of protocol entries.

One process owns the file: the connection takes SQLite's EXCLUSIVE lock when it is opened and keeps it until it is
closed or the process dies; a second process fails at once with `LedgerInUse`. Every append is its own transaction in
WAL mode with synchronous=FULL: one fsync, durable when the call returns. A write that was cut off is undone by SQLite
(frames of the WAL carry checksums); what it would not notice, a changed byte in a stored record, breaks the ledger's
own hash chain.

Trusts: the disk to keep what it has synced. Does not defend against somebody who restores an older copy of the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from scarcity.errors import BudgetError, ConfigError, FederationError, LedgerCorrupt, LedgerInUse
from scarcity.federation.privacy_guard import LEDGER
from scarcity.privacy.ledger import LedgerRecord, decode_ledger, encode_record

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS ledger (ledger_id TEXT NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL,"
    " PRIMARY KEY (ledger_id, seq)) STRICT",
    "CREATE TABLE IF NOT EXISTS entry (position INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL,"
    " payload BLOB NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS entry_kind ON entry (kind, position)",
)


class JournalStore(Protocol):
    """An append-only log of protocol entries (contributions, marks, receipts) by kind."""

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Make one entry durable; when this returns, it survives a crash of process and machine."""

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, payload) of all entries of this kind, oldest first."""

    def kinds(self) -> list[str]:
        """Return the kinds that have entries, sorted."""

    def close(self) -> None:
        """Let go of the journal."""


class MemoryJournal:
    """A journal that lives as long as the process: for local swarms and tests."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str, bytes]] = []

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Keep the entry."""
        self._entries.append((kind, key, payload))

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, payload) of all entries of this kind, oldest first."""
        return [(key, payload) for entry_kind, key, payload in self._entries if entry_kind == kind]

    def kinds(self) -> list[str]:
        """Return the kinds that have entries, sorted."""
        return sorted({kind for kind, _, _ in self._entries})

    def close(self) -> None:
        """Do nothing: memory needs no closing."""


@contextmanager
def _as_ledger_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's words for a held lock, a damaged file and a full disk into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LedgerInUse(f"{path} is held by another process") from error
        # A full disk, one that fails, a file that may not be written: SQLite has undone the write.
        raise FederationError(f"{path}: {error}; nothing of it was kept") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LedgerCorrupt(f"{path} is damaged: {error}") from error
        raise


def _sync_directory(path: Path) -> None:
    """Make the file's name durable: a new file is lost with its directory entry."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SqliteJournal:
    """The journal of one host.

    Args:
        path: the SQLite file; created (readable by its owner alone) when absent, its directory must exist.

    Raises:
        LedgerInUse: another connection holds the file; raised at once.
        LedgerCorrupt: the file is damaged.
        BudgetError: the file system cannot keep a write-ahead log.
        FederationError: the disk is full, or fails; so does every append then, and nothing of it is kept.

    Used from the thread that opened it. Cost of an append: one fsync.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.touch(mode=0o600, exist_ok=True)
        self._connection = sqlite3.connect(self._path, timeout=0.0, isolation_level=None)
        try:
            with _as_ledger_errors(self._path):
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        # EXCLUSIVE before WAL: the lock is then kept for the life of the connection and no shared memory is used.
        self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        mode = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":  # SQLite answers with what it did instead of raising
            raise BudgetError(f"{self._path}: this file system cannot keep a write-ahead log (SQLite chose {mode})")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self._connection.execute("COMMIT")
        _sync_directory(self._path.parent)

    def ledger(self, ledger_id: str) -> SqliteLedgerStore:
        """Return the store of one ledger in this file."""
        return SqliteLedgerStore(self, ledger_id)

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Make one entry durable."""
        self._execute("INSERT INTO entry (kind, key, payload) VALUES (?, ?, ?)", (kind, key, payload))

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, payload) of all entries of this kind, oldest first."""
        rows = self._execute("SELECT key, payload FROM entry WHERE kind = ? ORDER BY position", (kind,))
        return [(key, payload) for key, payload in rows]

    def kinds(self) -> list[str]:
        """Return the kinds that have entries, sorted."""
        return [kind for (kind,) in self._execute("SELECT DISTINCT kind FROM entry ORDER BY kind", ())]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def load_ledger(self, ledger_id: str) -> list[LedgerRecord]:
        """Return the whole records of one ledger; a torn last one is removed from the file, so that appends go on.

        Raises:
            LedgerCorrupt: any other damage.
        """
        rows = self._execute("SELECT seq, record FROM ledger WHERE ledger_id = ? ORDER BY seq", (ledger_id,))
        records = decode_ledger([bytes(record) for _, record in rows])
        for seq, _ in rows[len(records) :]:
            self._execute("DELETE FROM ledger WHERE ledger_id = ? AND seq = ?", (ledger_id, seq))
        for record, (seq, _) in zip(records, rows, strict=False):
            if record.ledger_id != ledger_id or record.seq != seq:
                raise LedgerCorrupt(f"{self._path}: row {seq} of ledger {ledger_id} holds another record")
        return records

    def append_ledger(self, ledger_id: str, record: LedgerRecord) -> None:
        """Make one record durable.

        Raises:
            LedgerCorrupt: the ledger has a record of this number, so it was written behind our back.
        """
        row = (ledger_id, record.seq, encode_record(record))
        try:
            self._execute("INSERT INTO ledger (ledger_id, seq, record) VALUES (?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise LedgerCorrupt(f"{self._path}: ledger {ledger_id} has a record {record.seq} already") from error

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        with _as_ledger_errors(self._path):
            return self._connection.execute(statement, values).fetchall()


class SqliteLedgerStore:
    """One ledger of an `SqliteJournal`. Closing it leaves the journal open: the host closes that."""

    def __init__(self, journal: SqliteJournal, ledger_id: str) -> None:
        self._journal = journal
        self._ledger_id = ledger_id

    def load(self) -> list[LedgerRecord]:
        """Return all whole records in order; see `SqliteJournal.load_ledger`."""
        return self._journal.load_ledger(self._ledger_id)

    def append(self, record: LedgerRecord) -> None:
        """Make the record durable."""
        self._journal.append_ledger(self._ledger_id, record)

    def close(self) -> None:
        """Do nothing: the journal holds the file."""


# Between a member's id and the kind. Ids are actor paths and kinds are our own words: neither has a colon.
_SEPARATOR = ":"


class MemberJournal:
    """The part of a host's journal that belongs to one member. Closing it leaves the journal open.

    Its ledger is kept under the key that owns it, all else under the member's id: under another name the same key has
    the same ledger, for else a second name would be a second budget.
    """

    def __init__(self, journal: JournalStore, member_id: str, ledger_key: bytes) -> None:
        self._journal = journal
        self._prefix = member_id + _SEPARATOR
        self._ledger = ledger_key.hex() + _SEPARATOR + LEDGER

    def append(self, kind: str, key: str, payload: bytes) -> None:
        """Make one entry of this member durable."""
        self._journal.append(self._place(kind), key, payload)

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        """Return (key, payload) of all entries of this member and kind, oldest first."""
        return self._journal.entries(self._place(kind))

    def kinds(self) -> list[str]:
        """Return the kinds of which this member has entries, sorted."""
        known = self._journal.kinds()
        own = [kind.removeprefix(self._prefix) for kind in known if kind.startswith(self._prefix)]
        return sorted([*own, LEDGER] if self._ledger in known else own)

    def close(self) -> None:
        """Do nothing: the host closes the journal."""

    def _place(self, kind: str) -> str:
        return self._ledger if kind == LEDGER else self._prefix + kind


def member_journal(journal: JournalStore, member_id: str, ledger_key: bytes) -> JournalStore:
    """Return one member's view of a host's journal: many members, one file, one lock.

    Args:
        journal: the host's.
        member_id: whose part.
        ledger_key: 32 bytes, the public key that the member's data source had first; it owns the ledger.

    Raises:
        ConfigError: an id with a colon, which could be read as another member's.
    """
    if _SEPARATOR in member_id:
        raise ConfigError(f"member id {member_id!r} has a colon; an id is letters, digits, '_', '.', '-' and '/'")
    return MemberJournal(journal, member_id, ledger_key)


def everything(store: JournalStore) -> dict[str, list[bytes]]:
    """Return all payloads by kind, oldest first: what `Assembly` restores a role from."""
    return {kind: [payload for _, payload in store.entries(kind)] for kind in store.kinds()}
