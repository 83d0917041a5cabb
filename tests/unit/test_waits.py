from __future__ import annotations

from scarcity.federation.effects import Effect, Waiting
from scarcity.federation.packets import Packet
from sim.swarms.plan import Record, Waited
from sim.swarms.waits import Watched


class Stages:
    """A core that waits for one stage after another, whatever it is told."""

    def __init__(self, *stages: Waiting | None) -> None:
        self._stages = list(stages)

    def start(self, now: float) -> list[Effect]:
        return []

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        raise NotImplementedError

    def fire(self, timer: str, now: float) -> list[Effect]:
        self._stages.pop(0)
        return []

    def waiting(self) -> tuple[Waiting, ...]:
        return () if self._stages[0] is None else (self._stages[0],)


def test_a_wait_is_told_once_when_it_is_over_with_whom_it_was_for_last() -> None:
    told: list[tuple[Waited, float]] = []
    first = Waiting("basket/a", "one", 0, 2, ("c1", "c2"), 1.0, 9.0)
    nearly = Waiting("basket/a", "one", 1, 2, ("c2",), 1.0, 9.0)
    second = Waiting("basket/a", "two", 0, 2, ("c1", "c2"), 3.0, 9.0)
    core = Watched(Stages(first, nearly, second, None), lambda wait, now: told.append((wait, now)))
    core.start(1.0)
    core.fire("t", 2.0)
    assert told == []
    assert core.waiting() == (nearly,)
    core.fire("t", 3.0)
    core.fire("t", 9.0)
    assert told == [
        (Waited(0, "basket/a", "one", 1.0, 3.0, ("c2",), by_clock=True), 3.0),
        (Waited(0, "basket/a", "two", 3.0, 9.0, ("c1", "c2"), by_clock=True), 9.0),
    ]


def test_what_an_interrupted_swarm_was_waiting_for_is_kept() -> None:
    record = Record()
    record(Waiting("basket/a", "one", 0, 2, ("c1", "c2"), 1.0, 9.0), 2.0)
    record(Waiting("basket/b", "one", 1, 2, ("c4",), 1.0, 9.0), 2.0)
    record(Waited(1, "basket/a", "one", 1.0, 2.5), 2.5)
    record(Waiting("basket/b", "one", 1, 2, ("c4",), 1.0, 9.0), 3.0)
    waits = record.outcome().waits
    assert waits == (
        Waited(1, "basket/a", "one", 1.0, 2.5),
        Waited(1, "basket/b", "one", 1.0, 3.0, ("c4",)),
    )
