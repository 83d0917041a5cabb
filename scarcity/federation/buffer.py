"""Hold contributions until their round closes, and weigh the late ones by age.

One entry per (client, round). Closing round r takes each sender's newest entry of a round <= r that is not older than
`max_staleness`; an entry for a round that is already closed therefore counts in the next one, with weight
2^(-age / half_life_rounds), unless its sender has a newer one. Nothing counts twice.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

from scarcity.errors import ConfigError

Item = TypeVar("Item")


class Added(enum.Enum):
    """What became of an entry."""

    STORED = "stored"
    LATE = "late"  # stored, its round is closed: it counts in the next one
    OCCUPIED = "occupied"  # this (client, round) has its entry
    SUPERSEDED = "superseded"  # an entry of this client of the same or a newer round was used
    TOO_OLD = "too-old"
    FULL = "full"


@attrs.frozen
class BufferEntry(Generic[Item]):
    """An entry as a closing round sees it; `age_weight` in (0, 1]."""

    client_id: str
    round_id: int
    item: Item
    age_weight: float


class UpdateBuffer(Generic[Item]):
    """Contributions by (client, round).

    Args:
        max_staleness: largest age in rounds that counts; more keeps slow clients in, less keeps rounds apart.
        half_life_rounds: the weight halves with every so many rounds; infinity: age does not matter.
        capacity: most entries; (max_staleness + 2) a client are enough. Beyond it entries are refused and counted.

    Attributes:
        counts: outcomes of `add`.
    """

    def __init__(self, max_staleness: int, half_life_rounds: float, capacity: int = 65_536) -> None:
        if max_staleness < 0 or not half_life_rounds > 0 or capacity < 1:
            raise ConfigError(
                f"a buffer needs max_staleness >= 0, half_life_rounds > 0 and capacity >= 1, "
                f"got {max_staleness}, {half_life_rounds}, {capacity}"
            )
        self._max_staleness = max_staleness
        self._half_life_rounds = half_life_rounds
        self._capacity = capacity
        self._entries: dict[tuple[str, int], Item] = {}
        self._seen: tuple[int, dict[str, int]] | None = None  # the round that was asked for last, and its `_newest`
        self._used: dict[str, int] = {}
        self._closed: int | None = None
        self.counts: Counter[Added] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, client_id: str, round_id: int, item: Item) -> Added:
        """Store an entry unless it cannot count any more; a refusal changes nothing."""
        outcome = self._outcome(client_id, round_id)
        if outcome in (Added.STORED, Added.LATE):
            self._entries[client_id, round_id] = item
            self._see(client_id, round_id)
        self.counts[outcome] += 1
        return outcome

    def _outcome(self, client_id: str, round_id: int) -> Added:
        if (client_id, round_id) in self._entries:
            return Added.OCCUPIED
        if client_id in self._used and round_id <= self._used[client_id]:
            return Added.SUPERSEDED
        if self._closed is not None and round_id < self._closed + 1 - self._max_staleness:
            return Added.TOO_OLD
        if len(self._entries) >= self._capacity:
            return Added.FULL
        return Added.LATE if self._closed is not None and round_id <= self._closed else Added.STORED

    def _newest(self, round_id: int) -> dict[str, int]:
        """Return client -> round of its entry that counts in a round."""
        if self._seen is None or self._seen[0] != round_id:
            self._seen = (round_id, {})
            for client_id, entry_round in self._entries:
                self._see(client_id, entry_round)
        return self._seen[1]

    def _see(self, client_id: str, entry_round: int) -> None:
        if self._seen is not None:
            round_id, newest = self._seen
            if round_id - self._max_staleness <= entry_round <= round_id:
                newest[client_id] = max(entry_round, newest.get(client_id, entry_round))

    def holds(self, client_id: str, round_id: int) -> bool:
        """Say whether a client's contribution to this very round is here."""
        return (client_id, round_id) in self._entries

    def senders(self, round_id: int) -> tuple[str, ...]:
        """Return, sorted, whose entries would count if the round closed now."""
        return tuple(sorted(self._newest(round_id)))

    def num_senders(self, round_id: int) -> int:
        """Return how many `senders` there are; it costs nothing to ask after each entry."""
        return len(self._newest(round_id))

    def close(self, round_id: int) -> tuple[BufferEntry[Item], ...]:
        """Return the entries of a closing round, sorted by client id, and drop what can no longer count."""
        newest = self._newest(round_id)
        taken = tuple(
            BufferEntry(name, newest[name], self._entries[name, newest[name]], self._age_weight(round_id, newest[name]))
            for name in sorted(newest)
        )
        self._entries = {place: item for place, item in self._entries.items() if place[1] > round_id}
        self._seen = None
        self._closed = round_id if self._closed is None else max(self._closed, round_id)
        self._used |= newest
        oldest = self._closed + 1 - self._max_staleness
        # What is older is refused as TOO_OLD: remembering that it was used would only grow.
        self._used = {name: used for name, used in self._used.items() if used >= oldest}
        return taken

    def _age_weight(self, round_id: int, entry_round: int) -> float:
        return float(2.0 ** (-(round_id - entry_round) / self._half_life_rounds))

    def resume(self, closed: int, used: Mapping[str, int]) -> None:
        """Take over which round was closed last and which entries were used, before entries are added again.

        Args:
            closed: the newest closed round.
            used: client -> newest round of its entries that a closed round has taken.
        """
        oldest = closed + 1 - self._max_staleness
        self._closed, self._used = closed, {name: at for name, at in used.items() if at >= oldest}

    def remove(self, client_id: str, round_id: int) -> bool:
        """Take one entry out (its sender equivocated); say whether there was one."""
        self._seen = None
        return self._entries.pop((client_id, round_id), None) is not None

    def drop_client(self, client_id: str) -> int:
        """Drop all entries of a client that left; return how many."""
        gone = [place for place in self._entries if place[0] == client_id]
        for place in gone:
            del self._entries[place]
        self._seen = None
        return len(gone)
