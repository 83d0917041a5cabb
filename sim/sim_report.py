"""What a simulated run came to, for people and for programs; and its progress while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from scarcity.federation.effects import ModelMade, RoundAborted
from scarcity.federation.packets import RoundConfig
from sim.faults.stage import Fired
from sim.worlds.built import WorldConfig
from sim.worlds.checkers import Checker, Seen, View
from sim.worlds.result import SimResult, Violation

_NAMES: Final = 4  # of those that a fault struck; the JSON has all
_VIOLATIONS: Final = 10  # shown; the capsule has all


class Stopped(Exception):
    """Somebody pressed Ctrl-C; `at_s` is the virtual instant."""

    def __init__(self, at_s: float) -> None:
        super().__init__(f"{at_s:.0f} virtual s")
        self.at_s = at_s


class Progress(Checker):
    """Shows how far a run is; promises nothing.

    Args:
        until_s: end of the run.
        show: takes a line; None: nothing is shown.
        clock: real seconds.
        stopped: whether the run is to end; asked once a virtual second.
        every_s: real seconds between two lines.
    """

    watches = (ModelMade, RoundAborted, RoundConfig)

    def __init__(
        self,
        until_s: float,
        show: Callable[[str], object] | None,
        clock: Callable[[], float],
        stopped: Callable[[], bool],
        every_s: float = 1.0,
    ) -> None:
        self._until_s = until_s
        self._show = show
        self._clock = clock
        self._stopped = stopped
        self._every_s = every_s
        self._shown_at = clock()
        self._round_id = self._models = self._aborted = 0

    def note(self, seen: Seen) -> Iterable[str]:
        """Count rounds."""
        if isinstance(seen.what, ModelMade):
            self._models += 1
        elif isinstance(seen.what, RoundAborted):
            self._aborted += 1
        else:
            self._round_id = max(self._round_id, seen.what.packet.header.round_id)
        return ()

    def tick(self, view: View) -> Iterable[str]:
        """Show a line when it is time for one.

        Raises:
            Stopped: the run is to end.
        """
        if self._stopped():
            raise Stopped(view.now)
        if self._show is not None and self._clock() - self._shown_at >= self._every_s:
            self._shown_at = self._clock()
            self._show(
                f"{view.now:.0f} of {self._until_s:.0f} virtual s: round {self._round_id}, {self._models} models, "
                f"{self._aborted} given up{_longest_wait(view)}"
            )
        return ()

    def end(self, view: View) -> Iterable[str]:
        """Show nothing more."""
        del view
        return ()


def _longest_wait(view: View) -> str:
    waits = [(wait.since, name, wait) for name, core in view.cores.items() for wait in core.waiting()]
    if not waits:
        return ""
    _since, name, wait = min(waits, key=lambda found: found[:2])
    return f"; {wait.describe(view.local_time(name))}"


def fired_line(fired: Fired) -> str:
    """Return a fault, how often it struck, and whom."""
    return f"{fired.name}: {fired.count}{named(fired.on)}" if fired.count else f"{fired.name}: never"


def named(names: tuple[str, ...]) -> str:
    """Return ` on` and the first of the names; empty: there are none."""
    rest = f", ... ({len(names)})" if len(names) > _NAMES else ""
    return f" on {', '.join(names[:_NAMES])}{rest}" if names else ""


def violation_line(violation: Violation) -> str:
    """Return a violation as one line."""
    who = f", {violation.member}" if violation.member else ""
    return f"violation at {violation.at:.3f} s, {violation.checker}{who}: {violation.what}"


def render(config: WorldConfig, result: SimResult) -> str:
    """Return a run's result as text; violations are last."""
    refused = ", ".join(f"{code} {count}" for code, count in result.refusals.items())
    lines = [
        f"{result.now_s:g} virtual s of {config.clients} clients in {config.baskets} baskets, mode {config.mode}, unit "
        f"{config.unit}, seed {config.seed}, {config.executor}"
        + (f"; without faults from {config.heal_at:g} s on" if config.heals else ""),
        f"models: {result.num_models}, rounds given up: {result.num_aborted}",
        f"packets: {result.deliveries} delivered, {result.lost} lost, {result.dead_letters} dead letters; "
        f"crashes: {result.crashes}",
        *([f"refused: {refused}"] if refused else []),
        *(f"fault {fired.index}, {fired_line(fired)}" for fired in result.fired),
        f"trace hash: {result.trace_hash}",
        *([] if config.demands_model else [f"not demanded: a new model at the end, {_too_short(config)}"]),
    ]
    if not result.violations:
        return "\n".join([*lines, "no promise was broken"])
    rest = len(result.violations) - _VIOLATIONS
    more = [f"... and {rest} more"] if rest > 0 else []
    # The first one is the last line: what is behind it is often its consequence.
    shown = [violation_line(violation) for violation in result.violations[:_VIOLATIONS]]
    return "\n".join([*lines, *more, *reversed(shown)])


def _too_short(config: WorldConfig) -> str:
    return f"which may take {config.calm_s:g} s without faults, of which this run ends with {config.heal_s:g}"


def to_json(config: WorldConfig, result: SimResult) -> str:
    """Return a run's result as one JSON object."""
    named: dict[str, Any] = {
        "config": config.to_dict(),
        "trace_hash": result.trace_hash,
        "virtual_s": result.now_s,
        "models": result.num_models,
        "aborted": result.num_aborted,
        "deliveries": result.deliveries,
        "lost": result.lost,
        "dead_letters": result.dead_letters,
        "crashes": result.crashes,
        "refusals": dict(result.refusals),
        "fired": [attrs.asdict(fired) for fired in result.fired],
        "violations": [attrs.asdict(violation) for violation in result.violations],
    }
    return json.dumps(named, indent=1)
