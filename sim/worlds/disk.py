"""A member's journal as a simulated disk: durable record by record, it can be torn, and it forgets what is too old.

A record is being written between `begin` and `finish`; `append` does both. A crash loses what is not durable: with
`torn` that is the record in hand, of which a part may have reached the platter and nothing is read back (SQLite's WAL
drops a frame without its checksum, and so does the ledger's reader).

The disk of a real node grows for ever. Here an hour of 300 members would fill the memory with records that nobody reads
again: of each kind but the ledger, whose chain must be whole, only the newest are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from scarcity.federation.effects import Entry
from scarcity.federation.privacy_guard import LEDGER
from scarcity.federation.recovery import EQUIVOCATION, RECEIPT

_OF_SENDERS: Final = frozenset({RECEIPT, EQUIVOCATION})  # kinds of which there is one for each sender of a round


class Disk:
    """What one member has written.

    Args:
        keep: records held of each kind but the ledger's: of what is written once a round, so many rounds.
        senders: how many others this member keeps something of in each round.

    Attributes:
        num_written: records that became durable.
        num_torn: records that a crash cut off.
    """

    def __init__(self, keep: int = 64, senders: int = 1) -> None:
        self._keep = keep
        self._senders = max(1, senders)
        self._kinds: dict[str, deque[Entry]] = {}
        self._in_hand: Entry | None = None
        self.num_written = 0
        self.num_torn = 0

    def append(self, entry: Entry) -> None:
        """Write a record; it is durable on return."""
        self.begin(entry)
        self.finish()

    def begin(self, entry: Entry) -> None:
        """Start to write a record."""
        assert self._in_hand is None, "a member writes one record at a time"
        self._in_hand = entry

    def finish(self) -> None:
        """Sync: the record in hand is durable."""
        entry, self._in_hand = self._in_hand, None
        assert entry is not None, "nothing was being written"
        kept = self._kinds.get(entry.kind)
        if kept is None:
            kept = self._kinds[entry.kind] = deque(maxlen=self._most(entry.kind))
        kept.append(entry)
        self.num_written += 1

    def _most(self, kind: str) -> int | None:
        if kind == LEDGER:
            return None
        return self._keep * self._senders if kind in _OF_SENDERS else self._keep

    def crash(self, *, torn: bool) -> None:
        """Lose what was not durable.

        Args:
            torn: the record in hand is lost; without it the disk had synced it just before.
        """
        if self._in_hand is None:
            return
        if torn:
            self._in_hand = None
            self.num_torn += 1
        else:
            self.finish()

    def entries(self, kind: str) -> Sequence[Entry]:
        """Return the records held of one kind, oldest first."""
        return tuple(self._kinds.get(kind, ()))

    def journal(self) -> dict[str, list[bytes]]:
        """Return the payloads by kind, oldest first, as `Assembly` takes them."""
        return {kind: [entry.payload for entry in kept] for kind, kept in self._kinds.items()}
