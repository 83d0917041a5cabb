"""Who watches a simulated run: what a checker is told, and what it may look at.

A checker names what it watches: classes of bodies (of packets that leave a core), kinds of journal records, classes of
events, and `Died`. For each it is told at once (`note`); once a virtual second it may look at all members (`tick`), and
once more when the run is over (`end`). Each returns what does not hold, as sentences. A checker sees what cores do, not
what the network or a liar makes of it, and keeps a bounded number of rounds in mind.

The promises themselves are in `sim.worlds.safety`, which hold at every instant, and in `sim.worlds.liveness`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import attrs

from scarcity.federation.effects import Core, Entry, Event, Send
from sim.worlds.built import Built
from sim.worlds.result import Violation


@attrs.frozen
class Died:
    """A member crashed."""


class Seen(NamedTuple):
    """What a checker is told: `what` is a Send, an Entry of a journal, an event, or Died."""

    member: str
    what: Any
    at: float


class View(Protocol):
    """What a checker may look at: the executor."""

    built: Built

    @property
    def now(self) -> float:
        """Virtual seconds."""

    @property
    def cores(self) -> Mapping[str, Core]:
        """The members that are up."""

    def local_time(self, member: str) -> float:
        """Return what a member's clock shows."""

    def mailbox_sizes(self) -> Mapping[str, int]:
        """Return how many messages wait at a member, where any do."""

    def behind_s(self, member: str) -> float:
        """Return how long ago came what a slow member has in hand; 0: it has nothing in hand."""


class Checker:
    """A promise. Subclasses watch, and say what is wrong.

    Attributes:
        watches: classes of bodies, kinds of records, classes of events.
    """

    watches: tuple[type | str, ...] = ()

    def note(self, seen: Seen) -> Iterable[str]:
        """Take what a member did."""
        del seen
        return ()

    def tick(self, view: View) -> Iterable[str]:
        """Look at all members."""
        del view
        return ()

    def end(self, view: View) -> Iterable[str]:
        """Look at all members once more, when the run is over."""
        return self.tick(view)


class Checks:
    """All checkers of a run.

    Args:
        checkers: who is told.
        most: violations kept; a broken promise breaks again and again.
    """

    def __init__(self, checkers: Iterable[Checker], most: int = 100) -> None:
        self._checkers = tuple(checkers)
        self._most = most
        self.violations: list[Violation] = []
        self.table: dict[type | str, tuple[Checker, ...]] = {}
        for checker in self._checkers:
            for key in checker.watches:
                self.table[key] = (*self.table.get(key, ()), checker)

    def sent(self, member: str, send: Send, at: float) -> None:
        """Tell of a packet that has left a core."""
        self._tell(type(send.packet.body), member, send, at)

    def wrote(self, member: str, entry: Entry, at: float) -> None:
        """Tell of a record that is durable."""
        self._tell(entry.kind, member, entry, at)

    def emitted(self, member: str, event: Event, at: float) -> None:
        """Tell of an event."""
        self._tell(type(event), member, event, at)

    def _tell(self, key: type | str, member: str, what: Any, at: float) -> None:
        told = self.table.get(key)
        if told is not None:
            seen = Seen(member, what, at)
            for checker in told:
                self._keep(checker, member, at, checker.note(seen))

    def died(self, member: str, at: float) -> None:
        """Tell of a crash."""
        for checker in self.table.get(Died, ()):
            self._keep(checker, member, at, checker.note(Seen(member, Died(), at)))

    def tick(self, view: View) -> None:
        """Let all of them look around."""
        for checker in self._checkers:
            self._keep(checker, "", view.now, checker.tick(view))

    def end(self, view: View) -> None:
        """Let all of them look around for the last time."""
        for checker in self._checkers:
            self._keep(checker, "", view.now, checker.end(view))

    def _keep(self, checker: Checker, member: str, at: float, wrong: Iterable[str]) -> None:
        for text in wrong:
            if len(self.violations) < self._most:
                self.violations.append(Violation(type(checker).__name__, at, member, text))
