"""The SQLite journal: append-only, chained, one owner."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from scarcity.errors import LedgerCorrupt, LedgerInUse, LocalError
from scarcity.node.journal import JournalStore, SqliteJournal
from scarcity.privacy import GaussianEvent, LedgerStore, PrivacyAccountant, PrivacyParams

_BUDGET = PrivacyParams(10.0, 1e-5)
_ROOT = Path(__file__).parents[2]
_EVENT = GaussianEvent(2.0, 1.0)


def _fill(path: Path, releases: int = 3) -> PrivacyParams:
    journal = SqliteJournal(path)
    accountant = PrivacyAccountant(_BUDGET, journal.ledger("client"), ledger_id="client")
    for index in range(releases):
        accountant.commit(accountant.reserve(_EVENT, f"r{index}", "round"))
    accountant.verify()
    spent = accountant.spent
    journal.close()
    return spent


def test_a_ledger_survives_closing(tmp_path: Path) -> None:
    spent = _fill(tmp_path / "journal")
    journal = SqliteJournal(tmp_path / "journal")
    store: LedgerStore = journal.ledger("client")
    accountant = PrivacyAccountant(_BUDGET, store, ledger_id="client")
    assert accountant.spent == spent
    assert len(accountant.ledger()) == 6
    accountant.reserve(_EVENT, "r3", "round")
    with pytest.raises(LocalError, match="used before"):
        accountant.reserve(_EVENT, "r1", "round")
    journal.close()


def test_two_ledgers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    one, two = (PrivacyAccountant(_BUDGET, journal.ledger(name), ledger_id=name) for name in ("one", "two"))
    one.reserve(_EVENT, "r", "p")
    two.reserve(_EVENT, "r", "p")
    one.reserve(_EVENT, "s", "p")
    assert [len(accountant.ledger()) for accountant in (one, two)] == [2, 1]
    journal.close()


def test_two_accountants_on_one_ledger_cannot_fork_the_chain(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    one, two = (PrivacyAccountant(_BUDGET, journal.ledger("client"), ledger_id="client") for _ in range(2))
    one.reserve(_EVENT, "r", "p")
    with pytest.raises(LedgerCorrupt, match="already"):
        two.reserve(_EVENT, "s", "p")
    journal.close()


def test_entries_come_back_by_kind_in_order(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    store: JournalStore = journal
    for kind, key, payload in [("a", "k", b"1"), ("b", "k", b"2"), ("a", "k", b"\x00\xff"), ("a", "j", b"")]:
        store.append(kind, key, payload)
    store.close()
    journal = SqliteJournal(tmp_path / "journal")
    assert journal.entries("a") == [("k", b"1"), ("k", b"\x00\xff"), ("j", b"")]
    assert journal.entries("b") == [("k", b"2")]
    assert journal.entries("c") == []
    journal.close()


def test_every_commit_is_synced_in_full_and_the_file_is_private(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    pragma = {
        name: journal._execute(f"PRAGMA {name}", ())[0][0] for name in ("synchronous", "journal_mode", "locking_mode")
    }
    assert pragma == {"synchronous": 2, "journal_mode": "wal", "locking_mode": "exclusive"}
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    journal.close()


def test_a_second_owner_in_this_process_fails_at_once(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    with pytest.raises(LedgerInUse):
        SqliteJournal(tmp_path / "journal")
    journal.append("a", "k", b"still ours")
    journal.close()
    SqliteJournal(tmp_path / "journal").close()


_SECOND = """
import sys, time
from scarcity.errors import LedgerInUse
from scarcity.node.journal import SqliteJournal
start = time.monotonic()
try:
    SqliteJournal(sys.argv[1])
except LedgerInUse:
    print(time.monotonic() - start)
"""


def test_a_second_process_fails_at_once(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    PrivacyAccountant(_BUDGET, journal.ledger("client")).reserve(_EVENT, "r", "p")
    command = [sys.executable, "-c", _SECOND, str(tmp_path / "journal")]
    second = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert float(second.stdout) < 1.0, second.stderr
    journal.close()


@pytest.mark.parametrize("record", [0, 2, 5])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_byte_in_a_stored_record_is_corrupt(tmp_path: Path, record: int, where: float) -> None:
    path = tmp_path / "journal"
    _fill(path)
    connection = sqlite3.connect(path)
    blob = connection.execute("SELECT record FROM ledger WHERE seq = ?", (record,)).fetchone()[0]
    connection.close()
    data = bytearray(path.read_bytes())
    assert data.count(blob) == 1
    data[data.index(blob) + round(where * (len(blob) - 1))] ^= 0x10
    path.write_bytes(data)
    journal = SqliteJournal(path)
    with pytest.raises(LedgerCorrupt):
        PrivacyAccountant(_BUDGET, journal.ledger("client"), ledger_id="client")
    journal.close()


@pytest.mark.parametrize("damage", ["header", "garbage"])
def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal"
    _fill(path)
    data = path.read_bytes()
    path.write_bytes(b"X" + data[1:] if damage == "header" else b"not a database " * 400)
    with pytest.raises(LedgerCorrupt):
        SqliteJournal(path)


def test_a_record_removed_from_the_middle_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _fill(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM ledger WHERE seq = 2")
    connection.close()
    journal = SqliteJournal(path)
    with pytest.raises(LedgerCorrupt):
        journal.ledger("client").load()
    journal.close()


def test_a_torn_last_record_is_dropped_and_the_ledger_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _fill(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE ledger SET record = substr(record, 1, 90) WHERE seq = 5")
    connection.close()
    journal = SqliteJournal(path)
    accountant = PrivacyAccountant(_BUDGET, journal.ledger("client"), ledger_id="client")
    assert len(accountant.ledger()) == 5
    accountant.reserve(_EVENT, "r9", "round")
    accountant.verify()
    journal.close()
