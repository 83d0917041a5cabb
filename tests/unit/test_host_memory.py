from __future__ import annotations

import json
from pathlib import Path

import pytest

from scarcity.errors import ConfigError
from scarcity.federation.privacy_guard import LEDGER
from scarcity.node.journal import MemoryJournal, member_journal
from scarcity.node.memory import LEDGER_KEY, remember_ledgers

K1, K2, K3 = (bytes([number]) * 32 for number in (1, 2, 3))
JOURNAL = Path("data/journal.sqlite")


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A list that tells of a contribution of `a0` and of a question of `a1`."""
    path = tmp_path / "outbox.jsonl"
    lines = [{"charge": "layer 1: Gaussian", "from": "a0"}, {"charge": "", "from": "a1"}]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return path


def journal(**spent: bytes) -> MemoryJournal:
    made = MemoryJournal()
    made.append("directory", "", b"1")
    for member, key in spent.items():
        member_journal(made, member, key).append(LEDGER, "0", b"record")
    return made


def test_the_ledger_of_a_member_is_noted_once(tmp_path: Path) -> None:
    made = MemoryJournal()
    for _ in range(2):
        remember_ledgers(made, JOURNAL, tmp_path / "none", {"a0": K1, "a1": K2})
    assert made.entries(LEDGER_KEY) == [("a0", K1), ("a1", K2)]
    remember_ledgers(made, JOURNAL, tmp_path / "none", {"a0": K1, "a2": K3})
    assert made.entries(LEDGER_KEY)[2:] == [("a2", K3)]


def test_another_ledger_than_before_is_refused_and_not_noted(tmp_path: Path) -> None:
    made = MemoryJournal()
    remember_ledgers(made, JOURNAL, tmp_path / "none", {"a0": K1})
    before = made.entries(LEDGER_KEY)
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"'a0' has spent of the ledger of key {K1.hex()}.*restore"):
            remember_ledgers(made, JOURNAL, tmp_path / "none", {"a0": K2, "a1": K3})
    assert made.entries(LEDGER_KEY) == before


def test_an_outbox_without_its_journal_is_refused_at_each_start(outbox: Path) -> None:
    made = MemoryJournal()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"the journal of what was spent is gone, .*outbox.*restore it; or"):
            remember_ledgers(made, JOURNAL, outbox, {"a0": K1})
    outbox.rename(outbox.with_suffix(".old"))
    remember_ledgers(made, JOURNAL, outbox, {"a0": K1})


def test_a_charge_in_the_outbox_needs_a_ledger(outbox: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is spent of the ledger of 'a0'"):
        remember_ledgers(journal(a0=K2), JOURNAL, outbox, {"a0": K1, "a1": K3})
    remember_ledgers(journal(a0=K1), JOURNAL, outbox, {"a0": K1, "a1": K3})
    remember_ledgers(journal(), JOURNAL, outbox, {"a1": K3})  # a0 is no member of this node any more


def test_lines_that_are_no_records_are_left_to_the_outbox(outbox: Path) -> None:
    outbox.write_bytes(b"[]\n\xff\n" + b"[" * 100_000 + b'\n{"charge":1,"from":[]}\n{"cha')
    remember_ledgers(journal(), JOURNAL, outbox, {"a0": K1})
