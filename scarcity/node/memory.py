"""What a node remembers of its ledgers, so that no start can begin a second one for the same data.

The journal holds what was spent, and which key's ledger each member has spent of; the outbox, beside it, tells of what
left. Where files, journal and outbox contradict each other the node does not start: a budget that was spent and is
forgotten would be spent again.

Trusts: that not both, journal and outbox, are taken away. Who takes both has a new node, and only its rows tell.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scarcity.errors import ConfigError
from scarcity.federation.privacy_guard import LEDGER
from scarcity.node.journal import JournalStore, member_journal

LEDGER_KEY: Final = "ledger-key"  # kind of the journal's entries of whose ledger is which; members' kinds have a colon
_FREE: Final = b'"charge":""'  # in an outbox's line of which nothing was charged
_LINE_BYTES_MAX: Final = 1 << 20  # the outbox refuses a longer one
_ADVICE: Final = "restore it; or, if what was spent shall be forgotten, move the outbox away"


def remember_ledgers(journal: JournalStore, path: Path, outbox: Path, ledger_keys: Mapping[str, bytes]) -> None:
    """See that each member goes on with the ledger that it had, and note that of a new member.

    Args:
        journal: the node's.
        path: its file, for messages.
        outbox: file of the outbox; it need not be there.
        ledger_keys: id -> public key that owns the member's ledger, by the key files.

    Raises:
        ConfigError: another ledger than before, or the journal of what the outbox tells of is gone.

    Cost: one reading of the outbox, without checking its chain.
    """
    if not journal.kinds() and outbox.is_file() and outbox.stat().st_size:
        raise ConfigError(f"{path}: the journal of what was spent is gone, {outbox} has records; {_ADVICE}")
    known = dict(journal.entries(LEDGER_KEY))
    for member, key in ledger_keys.items():
        if known.get(member, key) != key:
            raise ConfigError(
                f"{path}: member {member!r} has spent of the ledger of key {known[member].hex()}, its key files name "
                f"that of {key.hex()}; restore the .key file, and the .ledger file beside it, of that member"
            )
    for member in sorted(_charged(outbox) & ledger_keys.keys()):
        if not member_journal(journal, member, ledger_keys[member]).entries(LEDGER):
            raise ConfigError(f"{path}: nothing is spent of the ledger of {member!r}, {outbox} has charges; {_ADVICE}")
    for member, key in sorted(ledger_keys.items()):
        if member not in known:
            journal.append(LEDGER_KEY, member, key)


def _charged(outbox: Path) -> set[str]:
    """Return whom an outbox lists as charged for what they sent; the outbox refuses what it cannot read."""
    found: set[str] = set()
    with contextlib.suppress(OSError), outbox.open("rb") as file:
        while line := file.readline(_LINE_BYTES_MAX):
            if _FREE in line:
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(fields, dict) and fields.get("charge") and isinstance(fields.get("from"), str):
                found.add(fields["from"])
    return found
