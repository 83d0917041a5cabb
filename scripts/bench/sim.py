"""How fast the simulator is: 300 clients, mode none, K = 3, a round a second. Prints one JSON line.

`heap` and `loop` are deliveries a second and times real time, for baskets of 100 and of 10 clients: gossip brings every
update to every member of a basket, and each has to take it, so the size of a basket decides what a delivery costs.
`alone` is the heap with cores that pass a packet on and do nothing else: the simulator's own share.
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
from scarcity.federation.effects import Core, Effect, Send, Waiting  # noqa: E402 - needs the line above
from scarcity.federation.packets import Ack, Header, Packet  # noqa: E402
from sim.worlds.built import Built, WorldConfig, build  # noqa: E402
from sim.worlds.heap import Heap  # noqa: E402
from sim.worlds.world import World  # noqa: E402

CLIENTS, BASKETS, UNTIL_S = 300, (3, 30), 5.0
HOPS = 400_000


class Relay:
    """A core that passes every packet on to the next member."""

    def __init__(self, member: str, following: str, hops: list[int]) -> None:
        self._say = Send(following, Packet(Header("bench", 1, "", 1, member), Ack(b"")))
        self._hops = hops

    def start(self, _now: float) -> list[Effect]:
        return [self._say]

    def receive(self, _packet: Packet, _sender: str, _now: float) -> list[Effect]:
        self._hops[0] -= 1
        return [self._say] if self._hops[0] > 0 else []

    def fire(self, _timer: str, _now: float) -> list[Effect]:
        return []

    def waiting(self) -> tuple[Waiting, ...]:
        return ()


class Ring(Built):
    """A world of relays."""

    def core(self, member_id: str) -> Core:
        at = self.members.index(member_id)
        hops = self.given.setdefault(("", 0), [HOPS])  # type: ignore[arg-type]  # a place that all relays share
        return Relay(member_id, self.members[(at + 1) % len(self.members)], hops)  # type: ignore[arg-type]  # as above


def alone() -> dict[str, float]:
    sound = build(WorldConfig(clients=CLIENTS, baskets=3))
    world = Ring(**{name.lstrip("_"): getattr(sound, name) for name in Built.__slots__ if name != "__weakref__"})
    start = time.process_time()
    result = Heap(checkers=()).execute(world, 1.0)
    return {"deliveries_per_s": round(result.deliveries / (time.process_time() - start))}


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
    print(json.dumps({"clients": CLIENTS, "until_s": until_s, **rates, "alone": alone()}))


if __name__ == "__main__":
    main()
