"""What is demanded of a run besides safety: nothing waits for ever, and a world that has healed makes models again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from scarcity.federation.client import ClientCore
from scarcity.federation.effects import ModelAccepted, ModelMade
from scarcity.federation.packets import RoundConfig
from scarcity.federation.roster import COORDINATOR
from sim.worlds.built import Built
from sim.worlds.checkers import Checker, Seen, View
from sim.worlds.trace import digest_text

# A timer fires at its instant. Clocks differ by rounding, and the actors' wheel turns every millisecond.
_GRACE_S = 0.01
# Periods of gossip in which all of a basket learn of a model: the 99th percentile of 300 members is 7, lossy networks
# take one more, and a push may just have gone.
_SETTLE_PERIODS = 12


class NothingOverdue(Checker):
    """Nobody waits past the deadline that it gives itself."""

    def tick(self, view: View) -> Iterable[str]:
        """Compare what cores wait for with their own clocks."""
        for member, core in view.cores.items():
            if member in view.built.clients:
                continue  # a client's waits have no deadline: its basket's and the coordinator's end them
            # A slow member's timer takes its turn: it is late by no more than what is in hand by now. A clock that
            # drifts shows less than twice as much of that.
            grace = _GRACE_S + 2 * view.behind_s(member)
            now = view.local_time(member)
            for waiting in core.waiting():
                if waiting.until + grace < now:
                    yield f"{waiting.describe(now)}, {now - waiting.until:.3f} s past its deadline"


class GossipConverged(Checker):
    """After the heal, every client of a basket holds the models that were made a while ago.

    Where no round has opened for that while, all views of a basket (its rule over the newest contributions) are equal,
    of those that have heard of the same newest round.
    """

    watches = (RoundConfig, ModelMade, ModelAccepted)

    def __init__(self, built: Built) -> None:
        self._built = built
        self._settle_s = _SETTLE_PERIODS * built.settings.gossip_s
        self._opened_at = 0.0
        self._made: list[tuple[float, int]] = []
        self._held: dict[str, int] = {}

    def note(self, seen: Seen) -> Iterable[str]:
        """Follow who holds which model."""
        member, what, at = seen.member, seen.what, seen.at
        if isinstance(what, ModelAccepted):
            self._held[member] = max(what.model.round_id, self._held.get(member, 0))
        elif isinstance(what, ModelMade):
            self._made.append((at, what.model.round_id))
            # Of those that are old enough by now only the newest is asked for.
            old = [made for made in self._made if made[0] <= at - self._settle_s]
            self._made = [*old[-1:], *(made for made in self._made if made[0] > at - self._settle_s)]
        elif member == COORDINATOR:
            self._opened_at = at
        return ()

    def tick(self, _view: View) -> Iterable[str]:
        """Demand nothing while faults strike."""
        return ()

    def end(self, view: View) -> Iterable[str]:
        """Demand the newest model that is old enough, and equal views where all is quiet."""
        if self._built.config.heal_s < self._settle_s:
            return
        due = max((made for at, made in self._made if at <= view.now - self._settle_s), default=0)
        for member in self._built.clients:
            core = view.cores.get(member)
            # Configs are said once: who lost the last one of all learns of its round with the next, which never comes.
            unheard = isinstance(core, ClientCore) and core.round_id < due
            excused = unheard and self._opened_at < self._built.config.heal_at
            if self._held.get(member, 0) < due and not excused:
                yield f"{member} holds the model of round {self._held.get(member, 0)}, that of {due} is old"
        if self._opened_at <= view.now - self._settle_s:
            yield from self._views(view)

    def _views(self, view: View) -> Iterable[str]:
        seen: dict[tuple[str, int], str] = {}
        for member, domain in self._built.clients.items():
            core = view.cores.get(member)
            if not isinstance(core, ClientCore):
                continue
            local = core.local_view()
            text = "nothing" if local is None else digest_text(local.tobytes())
            others = seen.setdefault((domain, core.round_id), text)
            if others != text:
                yield f"{member} sees {text} of round {core.round_id} in {domain}, others {others}"


class Liveness(Checker):
    """After the heal everybody is up, and, where it was long enough, a round that opened after it has a model."""

    watches = (RoundConfig, ModelMade)

    def __init__(self, built: Built) -> None:
        self._built = built
        self._first = math.inf  # the first round that opened after the heal
        self._newest = 0  # the newest model's

    def note(self, seen: Seen) -> Iterable[str]:
        """Follow which rounds open, and which end well."""
        what = seen.what
        if isinstance(what, ModelMade):
            self._newest = max(self._newest, what.model.round_id)
        elif seen.member == COORDINATOR and seen.at >= self._built.config.heal_at:
            self._first = min(self._first, what.packet.header.round_id)
        return ()

    def end(self, view: View) -> Iterable[str]:
        """Demand them, where there was time to heal."""
        config = self._built.config
        if not config.heal_s > 0:
            return
        for member in self._built.members:
            if member not in view.cores:
                yield f"{member} is down after the heal"
        if config.demands_model and self._newest < self._first and not self._is_over:
            yield f"{config.heal_s} s after the heal no new round has a model (newest: {self._newest})"

    @property
    def _is_over(self) -> bool:
        """Whether all rounds that were asked for have been opened before the heal."""
        rounds = self._built.config.rounds
        return rounds > 0 and math.isinf(self._first)
