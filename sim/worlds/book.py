"""What every executor writes down while it runs: the trace, counts, models, and what checkers have to be told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from scarcity.federation.codec import kind_of
from scarcity.federation.effects import Effect, Emit, Entry, ModelMade, Reject, RoundAborted, Send
from scarcity.federation.packets import GossipPull, GossipPush, Model, Packet, SecureSum
from scarcity.node.shell import CoreActor
from sim.worlds.built import Built
from sim.worlds.checkers import Checker, Checks, View
from sim.worlds.liveness import GossipConverged, Liveness, NothingOverdue
from sim.worlds.result import KEPT_MODELS, SimResult
from sim.worlds.safety import (
    BudgetKept,
    DurableFirst,
    MailboxesBounded,
    OneAnswer,
    OneModel,
    RowsOnce,
    SubmissionsKept,
    SumExact,
)
from sim.worlds.trace import Trace, digest_text

_NUMBERS: Final = re.compile(r"\d+")
MAILBOX: Final = CoreActor.mailbox.capacity
TICK_S: Final = 1.0  # how often checkers look around
TORN_S: Final = 1.0  # how long a torn crash waits for a record
_HEADER_BYTES: Final = 160  # of a packet, about: envelope, signature, framing


def default_checkers(built: Built) -> tuple[Checker, ...]:
    """Return one of each."""
    return (
        BudgetKept(built),
        RowsOnce(),
        SumExact(built),
        SubmissionsKept(built),
        DurableFirst(),
        OneAnswer(built),
        OneModel(),
        NothingOverdue(),
        MailboxesBounded(MAILBOX),
        GossipConverged(built),
        Liveness(built),
    )


def size_of(packet: Packet) -> int:
    """Return about how many bytes a packet has on the wire, without encoding it."""
    body = packet.body
    if isinstance(body, GossipPush):
        return _HEADER_BYTES + sum(map(len, body.items))
    if isinstance(body, GossipPull):
        return _HEADER_BYTES + sum(16 + 12 * len(origins) for _, _, origins in body.known)
    if isinstance(body, SecureSum):
        return _HEADER_BYTES + len(body.payload)
    vector = getattr(body, "vector", None)
    return _HEADER_BYTES + (0 if vector is None else int(vector.nbytes))


class Book:
    """The record of one run.

    Args:
        built: the world.
        checkers: who is told; None: one of each.
        sink: takes the lines of the trace file.
    """

    def __init__(self, built: Built, checkers: Iterable[Checker] | None, sink: Callable[[str], object] | None) -> None:
        self._built = built
        self._checks = Checks(default_checkers(built) if checkers is None else checkers)
        self._trace = Trace(sink)
        self._models: dict[int, Model] = {}
        self._counts: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    def delivered(self, now: float, member: str, sender: str, packet: Packet) -> None:
        """A core is about to take a packet."""
        self._counts["deliveries"] += 1
        self._trace.note(now, "deliver", member, sender, kind_of(packet.body))

    def fired(self, now: float, member: str, name: str) -> None:
        """A core is about to be told of a timer."""
        self._trace.note(now, "fire", member, "", name)

    def dead(self, now: float, member: str, sender: str, packet: Packet) -> None:
        """A packet found its member down, or its mailbox full."""
        self._counts["dead"] += 1
        self._trace.note(now, "dead", member, sender, kind_of(packet.body))

    def lost(self, now: float, member: str, to: str, packet: Packet) -> None:
        """The network lost a packet."""
        self._counts["lost"] += 1
        self._trace.note(now, "lose", member, to, kind_of(packet.body))

    def sent(self, now: float, member: str, effect: Send) -> None:
        """A packet has left a core; what becomes of it is the network's."""
        self._checks.sent(member, effect, now)

    def wrote(self, now: float, member: str, entry: Entry) -> None:
        """A record is durable."""
        self._trace.note(now, "persist", member, "", f"{entry.kind} {digest_text(entry.payload)}")
        self._checks.wrote(member, entry, now)

    def said(self, now: float, member: str, effect: Effect) -> None:
        """A core has emitted an event, or refused a packet."""
        if isinstance(effect, Reject):
            # Reasons without a code say rounds: an hour of them must not be an hour of keys.
            code = _NUMBERS.sub("#", effect.reason.partition(":")[0])
            self._refusals[code] += 1
            self._trace.note(now, "refuse", member, effect.peer, code)
        elif isinstance(effect, Emit):
            if isinstance(event := effect.event, ModelMade):
                self._models[event.model.round_id] = event.model
                self._models.pop(event.model.round_id - KEPT_MODELS, None)
                self._counts["models"] += 1
            elif isinstance(event, RoundAborted):
                self._counts["aborted"] += 1
            self._checks.emitted(member, event, now)

    def up(self, now: float, member: str) -> None:
        """A member has started."""
        self._trace.note(now, "up", member)

    def died(self, now: float, member: str, *, torn: bool) -> None:
        """A member has crashed."""
        self._counts["crashes"] += 1
        self._trace.note(now, "crash", member, "", "torn" if torn else "")
        self._checks.died(member, now)

    def tick(self, view: View) -> None:
        """Let checkers look around."""
        self._checks.tick(view)

    def close(self, view: View) -> SimResult:
        """Let checkers look around for the last time, and return what came of it."""
        self._checks.end(view)
        return SimResult(
            trace_hash=self._trace.hash,
            violations=tuple(self._checks.violations),
            models=dict(self._models),
            num_models=self._counts["models"],
            num_aborted=self._counts["aborted"],
            dead_letters=self._counts["dead"],
            lost=self._counts["lost"],
            deliveries=self._counts["deliveries"],
            crashes=self._counts["crashes"],
            refusals=dict(sorted(self._refusals.items())),
            fired=self._built.stage.fired(view.now),
            now_s=view.now,
        )


class Executor:
    """What runs worlds, each in a book of its own.

    Args:
        checkers: None: one of each (`default_checkers`).
        sink: takes each line of the trace file.
    """

    def __init__(
        self, checkers: Iterable[Checker] | None = None, *, sink: Callable[[str], object] | None = None
    ) -> None:
        self._checkers = checkers
        self._sink = sink

    def _book(self, world: Built) -> Book:
        return Book(world, self._checkers, self._sink)
