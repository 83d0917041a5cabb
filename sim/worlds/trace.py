"""What happened in a run, in order: one line an event, a hash over all lines, and the lines themselves if asked for.

An event is (at, kind, member, peer, what): at `at` virtual seconds something of this kind happened to a member. The
kinds are in `KINDS`; `what` names a packet's kind, a timer, or a record with a digest of its bytes, so that two runs
with one hash wrote the same bytes to every disk. The hash is BLAKE2b over the events as JSON arrays, one a line: it is
the same in every process, whatever its hash seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Final

import attrs

KINDS: Final = (
    "deliver",  # a member took a packet of a peer
    "fire",  # a timer of a member
    "persist",  # a member wrote a record
    "lose",  # a packet of a member to a peer was lost on its way
    "dead",  # a packet of a peer found a member down, or its mailbox full
    "refuse",  # a member refused what a peer sent
    "crash",
    "up",
)
_BATCH = 512  # lines that are hashed at once


@attrs.frozen
class TraceEvent:
    """One event."""

    at: float
    kind: str
    member: str
    peer: str
    what: str

    @classmethod
    def from_json(cls, line: str) -> TraceEvent:
        """Read a line of a trace file."""
        return cls(*json.loads(line)) if line.startswith("[") else cls(**json.loads(line))


class Trace:
    """Hashes events; hands each to `sink` as a line of JSON, an object, if there is one.

    Args:
        sink: takes the lines of a trace file, without the end of line.

    Attributes:
        num_events: how many.
    """

    def __init__(self, sink: Callable[[str], object] | None = None) -> None:
        self._state = hashlib.blake2b(digest_size=16, person=b"sim.trace")
        self._lines: list[str] = []
        self._sink = sink
        self.num_events = 0

    def note(self, at: float, kind: str, member: str, peer: str = "", what: str = "") -> None:
        """Add an event."""
        # Ids and kinds are plain words, so that this is what json.dumps would write, at a tenth of its time.
        self._lines.append(f'[{at!r}, "{kind}", "{member}", "{peer}", "{what}"]\n')
        if len(self._lines) == _BATCH:
            self._flush()
        if self._sink is not None:
            self._sink(json.dumps({"at": at, "kind": kind, "member": member, "peer": peer, "what": what}))

    def _flush(self) -> None:
        self.num_events += len(self._lines)
        self._state.update("".join(self._lines).encode())
        self._lines.clear()

    @property
    def hash(self) -> str:
        """Hexadecimal digest of all events so far."""
        self._flush()
        return self._state.hexdigest()


def digest_text(payload: bytes) -> str:
    """Return a short name of bytes: 16 hexadecimal digits."""
    return hashlib.blake2b(payload, digest_size=8).hexdigest()
