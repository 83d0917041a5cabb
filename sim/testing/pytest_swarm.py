"""What the fixture `swarm` gives: a world whose run fails for a broken promise, and for a fault that never struck."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from actors.transport import Transport
from scarcity.errors import ConfigError
from sim.faults.network import Network
from sim.faults.plan import FAULT_KINDS, NETWORK_KINDS, Fault
from sim.faults.stage import never_struck
from sim.sim_report import violation_line
from sim.testing.faulty_transport import FaultyTransport
from sim.worlds.capsule import capsule_of, write_capsule
from sim.worlds.checkers import Checker
from sim.worlds.result import SimResult
from sim.worlds.world import World

_SHOWN = 3  # violations in a failure's message; the first is often the cause of all others


def seed_of_name(name: str) -> int:
    """Return the seed of a test's name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4, person=b"sim.pytest").digest(), "little")


class Swarm(World):
    """A world in a test.

    Args:
        seed: decides everything that chance does.
        folder: where the capsule of a failure goes; asked when there is one.
    """

    def __init__(self, seed: int, folder: Callable[[], Path]) -> None:
        super().__init__(seed)
        self._folder = folder

    def go_wrong(self, *entries: Any) -> Swarm:
        """Add laws of the network and faults, in any order.

        Raises:
            ConfigError: one is neither; the message lists what there is.
        """
        for entry in entries:
            if isinstance(entry, Network):
                self.network(entry)
            elif isinstance(entry, Fault):
                self.faults(entry)
            else:
                known = ", ".join(kind.__name__ for kind in (*NETWORK_KINDS.values(), *FAULT_KINDS.values()))
                raise ConfigError(f"{entry!r} is neither a law of the network nor a fault; known are {known}")
        return self

    def transport(self, inner: Transport, nodes: Iterable[str]) -> FaultyTransport:
        """Return a transport for actors of one's own, with the faults of this test between them.

        Args:
            inner: what carries the messages, such as a `MemoryTransport`.
            nodes: names of all nodes.

        Raises:
            ConfigError: a fault of the test strikes members of a swarm, not messages.
        """
        return FaultyTransport(inner, self.plan, nodes, self.config.seed)

    def run(
        self,
        until_s: float | None = None,
        *,
        heal_s: float | None = None,
        checkers: Iterable[Checker] | None = None,
        watch: Iterable[Checker] = (),
        sink: Callable[[str], object] | None = None,
    ) -> SimResult:
        """Run as `World.run` does, and fail the test unless all promises held and every fault struck.

        Raises:
            AssertionError: with the seed, and the capsule's file where the world is data alone.
            ConfigError: see `World.run`.
        """
        config = self.config_for(until_s, heal_s)
        result = self.try_run(until_s, heal_s=heal_s, checkers=checkers, watch=watch, sink=sink)
        never = never_struck(self.plan, result.fired)
        if not result.violations and not never:
            return result
        wrong = [violation_line(violation) for violation in result.violations[:_SHOWN]]
        if never:
            wrong.append(f"never struck, so nothing was tested by it: {never}")
        wrong.append(f"swarm's seed: {config.seed} (--swarm-seed {config.seed} runs it again)")
        if not self.own_code:
            path = self._folder() / "swarm.json"
            write_capsule(path, capsule_of(self, config, result), "capsule")
            wrong.append(f"capsule for `scarcity sim replay` and `shrink`: {path}")
        raise AssertionError("\n".join(wrong))

    def try_run(
        self,
        until_s: float | None = None,
        *,
        heal_s: float | None = None,
        checkers: Iterable[Checker] | None = None,
        watch: Iterable[Checker] = (),
        sink: Callable[[str], object] | None = None,
    ) -> SimResult:
        """Run as `World.run` does, for tests that look at broken promises themselves."""
        return super().run(until_s, heal_s=heal_s, checkers=checkers, watch=watch, sink=sink)
