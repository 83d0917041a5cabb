"""What a timeline is drawn from: who looks over a run's shoulder, and what is left of it when the run is over.

A `Recorder` promises nothing and changes nothing: it watches as checkers do and reads the lines of the trace. It counts
into parts of the run, so an hour of 300 clients leaves as much behind as a minute of six.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from scarcity.federation.effects import ModelMade, RoundAborted, Waiting
from scarcity.federation.packets import RoundConfig
from scarcity.federation.roster import COORDINATOR
from sim.timelines.bins import Bins, Outage, Outages
from sim.worlds.checkers import Checker, Seen, View

NUM_BINS: Final = 240  # of counts and of outages: three or four pixels each on a desk
NUM_STRIKES: Final = 120  # of faults: to ask the stage takes as long as it has pairs of members
MOST_ROUNDS: Final = 60  # drawn one by one; of more than these only counts can be told apart
MOST_WAITS: Final = 100  # kept, the longest ones
# All that most lines of a trace are needed for: the other kinds are read whole.
_HEAD: Final = re.compile(r'\{"at": ([-+.0-9e]+), "kind": "(deliver|fire|persist|lose|dead)"')


@attrs.frozen
class Round:
    """A round: `model` says how it ended; None and infinity: the run was over before."""

    round_id: int
    at_s: float
    until_s: float = math.inf
    model: bool | None = None


@attrs.frozen(kw_only=True)
class Recording:
    """What a run left behind.

    Attributes:
        until_s: end of the run.
        counts: kind of event (`deliver`, `lose`, `dead`, `opened`, `model`, `aborted`) -> how many in each part.
        rounds: one by one; empty when there were more than `MOST_ROUNDS`.
        strikes: of each entry of the plan, how often it struck in each of up to `NUM_STRIKES` parts.
        outages: member -> when it was down; who never crashed is left out.
        refusals: member -> part -> how often it refused a packet.
        waits: what members waited for at the end, longest first, at most `MOST_WAITS`.
        num_waits: how many waits there were at the end.
        down: who was down at the end, sorted.
    """

    until_s: float
    counts: Mapping[str, tuple[int, ...]]
    rounds: tuple[Round, ...] = ()
    strikes: tuple[tuple[int, ...], ...] = ()
    outages: Mapping[str, tuple[Outage, ...]] = attrs.field(factory=dict)
    refusals: Mapping[str, Mapping[int, int]] = attrs.field(factory=dict)
    waits: tuple[Waiting, ...] = ()
    num_waits: int = 0
    down: tuple[str, ...] = ()


class Recorder(Checker):
    """Watches a run (`watch=[recorder], sink=recorder.take`) of which a timeline is to be drawn.

    Args:
        until_s: end of the run.
    """

    watches = (RoundConfig, ModelMade, RoundAborted)

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        kinds = ("deliver", "lose", "dead", "opened", "model", "aborted")
        self._counts = {kind: Bins(NUM_BINS, until_s) for kind in kinds}
        self._rounds: list[Round] = []
        self._newest = 0
        self._outages: dict[str, Outages] = {}
        self._refusals: dict[str, Counter[int]] = {}
        # Checkers look around once a second, so there are no more parts than seconds.
        self._num_strikes = max(1, min(NUM_STRIKES, int(until_s)))
        self._strikes: list[Bins] = []
        self._struck: list[int] = []
        self._asked_at = 0.0
        self._waits: tuple[Waiting, ...] = ()
        self._num_waits = 0
        self._down: tuple[str, ...] = ()

    def take(self, line: str) -> None:
        """Take a line of the trace."""
        head = _HEAD.match(line)
        if head is not None:
            self._count(float(head[1]), head[2])
            return
        event = json.loads(line)
        at, kind, member = event["at"], event["kind"], event["member"]
        self._count(at, kind)
        if kind == "crash":
            self._outages.setdefault(member, Outages(self._until_s / NUM_BINS)).crash(at)
        elif kind == "up" and member in self._outages:
            self._outages[member].up(at)
        elif kind == "refuse":
            self._refusals.setdefault(member, Counter())[self._counts["deliver"].place(at)] += 1

    def _count(self, at: float, kind: str) -> None:
        bins = self._counts.get(kind)
        if bins is not None:
            bins.add(at)

    def note(self, seen: Seen) -> Iterable[str]:
        """Follow the rounds."""
        what = seen.what
        if isinstance(what, ModelMade):
            self._end_round(seen.at, what.model.round_id, model=True)
        elif isinstance(what, RoundAborted):
            self._end_round(seen.at, what.round_id, model=False)
        elif seen.member == COORDINATOR and what.packet.header.round_id > self._newest:
            self._newest = what.packet.header.round_id
            self._counts["opened"].add(seen.at)
            if len(self._rounds) <= MOST_ROUNDS:
                self._rounds.append(Round(self._newest, seen.at))
        return ()

    def _end_round(self, at: float, round_id: int, *, model: bool) -> None:
        self._counts["model" if model else "aborted"].add(at)
        for place, last in enumerate(self._rounds):
            if last.round_id == round_id:
                self._rounds[place] = attrs.evolve(last, until_s=at, model=model)

    def tick(self, view: View) -> Iterable[str]:
        """See whom the faults have struck, when a part is over."""
        if view.now >= self._asked_at + self._until_s / self._num_strikes:
            self._ask(view)
        return ()

    def end(self, view: View) -> Iterable[str]:
        """See what is waited for, and who is down."""
        self._ask(view)
        # By whatever clock who waits has.
        waits = sorted(
            (wait for core in view.cores.values() for wait in core.waiting()), key=lambda w: (w.since, w.who)
        )
        self._num_waits, self._waits = len(waits), tuple(waits[:MOST_WAITS])
        self._down = tuple(sorted(member for member in view.built.members if member not in view.cores))
        return ()

    def _ask(self, view: View) -> None:
        totals = [fired.count for fired in view.built.stage.fired(view.now)]
        if not self._strikes:
            self._strikes = [Bins(self._num_strikes, self._until_s) for _ in totals]
            self._struck = [0] * len(totals)
        middle = (self._asked_at + view.now) / 2
        for bins, total, before in zip(self._strikes, totals, self._struck, strict=True):
            bins.add(middle, total - before)
        self._struck, self._asked_at = totals, view.now

    def recording(self) -> Recording:
        """Return what the run left behind, when it is over."""
        return Recording(
            until_s=self._until_s,
            counts={kind: tuple(bins.counts) for kind, bins in self._counts.items()},
            rounds=tuple(self._rounds) if len(self._rounds) <= MOST_ROUNDS else (),
            strikes=tuple(tuple(bins.counts) for bins in self._strikes),
            outages={member: found.all for member, found in self._outages.items()},
            refusals={member: dict(found) for member, found in self._refusals.items()},
            waits=self._waits,
            num_waits=self._num_waits,
            down=self._down,
        )
