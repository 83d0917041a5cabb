"""How fast the simulator is: 300 clients, mode none, K = 3, a round a second. Prints one JSON line.

`heap` and `loop` are deliveries a second and times real time, for baskets of 100 and of 10 clients: gossip brings every
update to every member of a basket, and each has to take it, so the size of a basket decides what a delivery costs.
`alone` is both with cores that say a word to three others a second and do nothing else: the simulator's own share.
Seconds are CPU seconds of this process, which on an idle core are the wall's.
Run with one thread on an idle core: OMP_NUM_THREADS=1 python scripts/bench/sim.py [virtual seconds]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])
from scarcity.federation.effects import Core, Effect, Send, SetTimer, Waiting  # noqa: E402 - needs the line above
from scarcity.federation.packets import Ack, Header, Packet  # noqa: E402
from sim.worlds.built import Built, WorldConfig, build  # noqa: E402
from sim.worlds.heap import Heap  # noqa: E402
from sim.worlds.loop import Loop  # noqa: E402
from sim.worlds.world import World  # noqa: E402

CLIENTS, BASKETS, UNTIL_S = 300, (3, 30), 5.0
FANOUT, ALONE_S = 3, 300.0


class Chatter:
    """A core that says a word to three others every second, and does nothing with what it hears."""

    def __init__(self, member: str, others: tuple[str, ...]) -> None:
        self._says = [Send(other, Packet(Header("bench", 1, "", 1, member), Ack(b""))) for other in others]

    def start(self, now: float) -> list[Effect]:
        return [SetTimer("talk", now + 1.0)]

    def receive(self, _packet: Packet, _sender: str, _now: float) -> list[Effect]:
        return []

    def fire(self, timer: str, now: float) -> list[Effect]:
        return [SetTimer(timer, now + 1.0), *self._says]

    def waiting(self) -> tuple[Waiting, ...]:
        return ()


class Chatting(Built):
    """A world of chatters."""

    def core(self, member_id: str) -> Core:
        at = self.members.index(member_id)
        return Chatter(member_id, tuple(self.members[(at + step) % len(self.members)] for step in range(1, FANOUT + 1)))


def alone(executor: Heap | Loop) -> dict[str, float]:
    """Return what an executor does where members cost nothing: its own share of every delivery."""
    sound = build(WorldConfig(clients=CLIENTS, baskets=3))
    world = Chatting(**{name.lstrip("_"): getattr(sound, name) for name in Built.__slots__ if name != "__weakref__"})
    start = time.process_time()
    result = executor.execute(world, ALONE_S)
    seconds = time.process_time() - start
    return {"deliveries_per_s": round(result.deliveries / seconds), "times_real": round(ALONE_S / seconds, 1)}


def swarm(executor: str, baskets: int, until_s: float) -> dict[str, Any]:
    world = World(seed=7).clients(CLIENTS, baskets=baskets).settings(gossip_fanout=3).executor(executor)
    start = time.process_time()
    result = world.run(until_s=until_s)
    seconds = time.process_time() - start
    assert not result.violations, result.violations[0]
    return {
        "deliveries_per_s": round(result.deliveries / seconds),
        "times_real": round(until_s / seconds, 2),
        "rounds": result.num_models,
    }


def main() -> None:
    until_s = float(sys.argv[1]) if len(sys.argv) > 1 else UNTIL_S
    rates = {
        executor: {f"{CLIENTS // baskets} a basket": swarm(executor, baskets, until_s) for baskets in BASKETS}
        for executor in ("heap", "loop")
    }
    each_alone = {"heap": alone(Heap(checkers=())), "loop": alone(Loop(checkers=()))}
    print(json.dumps({"clients": CLIENTS, "until_s": until_s, **rates, "alone": each_alone}))


if __name__ == "__main__":
    main()
