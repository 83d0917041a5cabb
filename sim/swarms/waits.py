"""Who waited for whom: a core that is watched from outside.

A core says at any time what it waits for, but not that it has stopped. `Watched` stands between a driver and a core,
asks after every call, and tells a `Waited` for each wait that is gone. So no role needs an event for its stages.
"""

from __future__ import annotations

from collections.abc import Callable

from scarcity.federation.effects import Core, Effect, Send, Waiting
from scarcity.federation.packets import Packet
from sim.swarms.plan import Waited

_Key = tuple[str, str, float]


class Watched:
    """A core whose waits are told when they are over.

    Args:
        core: the protocol; called as it would be without this.
        tell: told each `Waited` and the instant.
    """

    def __init__(self, core: Core, tell: Callable[[Waited, float], None]) -> None:
        self._core = core
        self._tell = tell
        self._round_id = 0
        self._open: dict[_Key, tuple[int, Waiting]] = {}

    def start(self, now: float) -> list[Effect]:
        """Start the core."""
        return self._watch(self._core.start(now), now, by_clock=False)

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Give the core a packet."""
        return self._watch(self._core.receive(packet, sender, now), now, by_clock=False)

    def fire(self, timer: str, now: float) -> list[Effect]:
        """Tell the core of a timer."""
        return self._watch(self._core.fire(timer, now), now, by_clock=True)

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what the core waits for."""
        return self._core.waiting()

    def _watch(self, effects: list[Effect], now: float, *, by_clock: bool) -> list[Effect]:
        """Compare what is waited for with what was, and tell what is gone."""
        # Whoever begins to wait has just sent something of that round: its config, or a stage's messages.
        sent = (effect.packet.header.round_id for effect in effects if isinstance(effect, Send))
        self._round_id = max((self._round_id, *sent))
        current = {(w.who, w.what, w.since): w for w in self._core.waiting()}
        for key in sorted(self._open.keys() - current.keys()):
            round_id, was = self._open[key]
            self._tell(Waited(round_id, was.who, was.what, was.since, now, was.missing, by_clock), now)
        self._open = {key: (self._open.get(key, (self._round_id,))[0], waiting) for key, waiting in current.items()}
        return effects
