"""Whether a long simulation keeps its memory: an hour of virtual time, clients that come and go. Prints one JSON line.

Resident memory is read once a virtual minute, after a collection, so that what is counted is what is held. `flat` is
how far the readings from `after_s` on lie from the first of them, at most, as a share of it.
Run it with OMP_NUM_THREADS=1 python scripts/bench/sim_memory.py [--clients 300] [--baskets 3] [--seconds 3600].
Linux: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])
from sim.faults.plan import Churn  # noqa: E402 - needs the line above
from sim.worlds.checkers import Checker, View  # noqa: E402
from sim.worlds.world import World  # noqa: E402

EVERY_S = 60.0


class Scales(Checker):
    """Reads the memory of this process once a virtual minute; a checker that demands nothing."""

    def __init__(self, tell: bool) -> None:
        self.readings: list[tuple[float, float]] = []  # virtual seconds, MiB
        self._tell = tell

    def tick(self, view: View) -> Iterable[str]:
        """Read, if a minute has passed."""
        if not self.readings or view.now >= self.readings[-1][0] + EVERY_S:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.readings.append((view.now, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
            if self._tell:
                print(f"{view.now:6.0f} s  {self.readings[-1][1]:7.1f} MiB", file=sys.stderr, flush=True)
        return ()


def measure(clients: int, baskets: int, seconds: float, after_s: float, *, tell: bool = False) -> dict[str, Any]:
    """Run the world and return what it held."""
    scales = Scales(tell)
    world = World(seed=7).clients(clients, baskets=baskets).faults(Churn(per_minute=6, down_s=10))
    start = time.process_time()
    result = world.run(until_s=seconds, watch=[scales])
    assert not result.violations, result.violations[0]
    kept = [mib for at, mib in scales.readings if at >= after_s]
    return {
        "clients": clients,
        "virtual_s": seconds,
        "crashes": result.crashes,
        "models": result.num_models,
        "after_s": after_s,
        "mib_first": round(kept[0], 1),
        "mib_most": round(max(kept), 1),
        "mib_last": round(kept[-1], 1),
        "flat": round(max(abs(mib - kept[0]) for mib in kept) / kept[0], 4),
        "cpu_s": round(time.process_time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--baskets", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--after", type=float, default=600.0)
    args = parser.parse_args()
    print(json.dumps(measure(args.clients, args.baskets, args.seconds, args.after, tell=sys.stderr.isatty())))


if __name__ == "__main__":
    main()
