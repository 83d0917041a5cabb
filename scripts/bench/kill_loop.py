"""Kill daemons at random moments, start them again, and check on their disks what must never happen.

Three hosts on loopback, over TCP with mutual TLS (mode none is refused there and goes over plain TCP): the coordinator
on one; each basket on another one than its clients, so that contributions and their acknowledgements cross sockets.
While rounds run and rows come in, a daemon is killed with SIGKILL again and again, when `PLAN` says: it is a fault plan
of the simulator, whose members are the hosts. A disk must only have grown; at the end all disks together must keep the
laws of `tests.kill_world`, and a round must still complete. Prints one JSON line; a law that is broken ends it with
status 1 and the seed, and the disks stay for whoever looks into it.

Daemons are forked from a process that has imported everything: then a life begins in a tenth of a second, and it is
the protocol that is killed, not Python's imports. `python scripts/bench/kill_loop.py --kills 200 --seed 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# Python puts the folder of a script first, where another file has the package's own name: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scarcity.cli.main import run  # noqa: E402 - needs the line above
from scarcity.cli.node import node  # noqa: E402
from scarcity.errors import FederationError  # noqa: E402
from scarcity.node.setup.keys import read_private_key  # noqa: E402
from sim.chance import Chance  # noqa: E402
from sim.faults.plan import Churn, FaultPlan  # noqa: E402
from sim.faults.stage import FaultStage  # noqa: E402
from tests.kill_world import Disk, check_all, check_grown, contributions_of, models_of, read_disk  # noqa: E402
from tests.nodes_world import APART, CLIENTS, Daemon, Federation, Rows, found  # noqa: E402

SETTINGS = {
    "gossip_s": 0.3, "ready_s": 0.6, "close_s": 0.5, "deadline_s": 1.5, "stage_s": 0.6,
    "quorum": 0.5, "rule": "average",
}  # fmt: skip
# Long enough for a round to get somewhere, short enough for a loop: a round takes some 0.3 s undisturbed.
_DOWN_S = (0.01, 0.1, 0.25, 0.5)
PLAN = FaultPlan((), tuple(Churn(per_minute=50, down_s=down_s, of=("*",)) for down_s in _DOWN_S))
_KILL_S = 60 / 200  # mean of the plan's pauses
_SPARE_S = 60.0
_CONTEXT = multiprocessing.get_context("forkserver")


def _live(config: str, log: str) -> None:
    """Be a daemon."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(run(node, ["--config", config]))


class Killable:
    """A host's daemon through its lives."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.due_s = 0.0  # of its next life, in the plan's time
        self.disk = Disk((), {}, ())
        self.spent: dict[str, float] = {}
        self.died: list[str] = []  # ends that were not ours
        self._link_key = read_private_key(daemon.folder / "keys" / "node.key").verify_key.encode()
        self._process: ForkServerProcess | None = None

    @property
    def is_up(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        arguments = (str(self.daemon.config), str(self.daemon.folder / "node.log"))
        self._process = _CONTEXT.Process(target=_live, args=arguments)
        self._process.start()

    def kill(self) -> None:
        """End it now, and see that its disk has only grown since its last end."""
        assert self._process is not None
        if self._process.exitcode is not None:
            self.died.append(f"{self.daemon.name}, {self._process.exitcode}: {self.daemon.log[-300:]}")
        self._process.kill()
        self._process.join()
        self._process = None
        if self.daemon.data.exists():
            disk = read_disk(self.daemon.data, self._link_key)
            check_grown(self.disk, disk)
            self.disk = disk


class Loop:
    """The hosts, their rows, and who is killed when: a function of the seed, as far as the machine keeps time."""

    def __init__(self, federation: Federation, kills: int, seed: int) -> None:
        self.hosts = {daemon.name: Killable(daemon) for daemon in federation.each()}
        self.rows = Rows(federation)
        self.num_kills = 0
        until_s = _KILL_S * (2 * kills + 100)  # fewer crashes than `kills` by then: in less than one of 10^6 seeds
        stage = FaultStage(PLAN, {name: name for name in self.hosts}, Chance(seed), until_s)
        self._crashes = iter(stage.crashes())
        self._federation = federation
        self._began_at = time.monotonic()

    def start_due(self, now_s: float) -> None:
        for host in self.hosts.values():
            if not host.is_up and now_s >= host.due_s:
                host.start()

    def step(self) -> None:
        """Wait for the next crash of the plan, and kill whom it strikes."""
        event = next(self._crashes)
        while (now_s := time.monotonic() - self._began_at) < event.at_s:
            self.start_due(now_s)
            time.sleep(0.01)
        self.start_due(event.at_s)
        began = time.monotonic()
        self.rows.add(4)
        host = self.hosts[event.member]
        host.kill()
        host.due_s = event.up_at_s
        self.num_kills += 1
        self._began_at += time.monotonic() - began  # the plan's time stands still while a disk is read

    def come_round(self) -> None:
        """Let all live until they hold the model of a round that was opened when everybody was up again."""
        self.start_due(math.inf)
        daemons = [host.daemon for host in self.hosts.values()]
        newest = 0

        def is_up() -> bool:
            nonlocal newest
            with contextlib.suppress(FederationError):
                newest = max(member["round_id"] for daemon in daemons for member in daemon.status()["members"])
                return True
            return False

        def has_come() -> bool:
            self.rows.add(1)  # a client without new rows has nothing to give
            return max(set.intersection(*(daemon.models() for daemon in daemons)), default=0) > newest

        self._federation.wait("the last life of every daemon", is_up, _SPARE_S)
        self._federation.wait(f"a model of a round after {newest}", has_come, _SPARE_S)


def play(folder: Path, *, kills: int, seed: int, mode: str) -> dict[str, object]:
    """Run the loop, and return its figures.

    Raises:
        AssertionError: a law is broken, or no round completes any more.
    """
    with contextlib.redirect_stdout(sys.stderr):
        pace = {"rounds": 100_000, "interval_s": 0.1, "gather_s": 1.0}
        security = "plaintext" if mode == "none" else "mtls"
        federation = found(folder, APART, settings=SETTINGS, epsilon=50.0, mode=mode, security=security, **pace)
    loop = Loop(federation, kills, seed)
    loop.rows.add(30)
    began = time.monotonic()
    try:
        loop.start_due(0.0)
        while loop.num_kills < kills:
            loop.step()
        seconds = time.monotonic() - began
        loop.come_round()
        status = [host.daemon.status() for host in loop.hosts.values()]
    finally:
        for host in loop.hosts.values():
            if host.is_up:
                host.kill()
    disks = {host.daemon.name: host.disk for host in loop.hosts.values()}
    check_all(disks, CLIENTS)
    died = [end for host in loop.hosts.values() for end in host.died]
    assert not died, f"daemons ended by themselves: {died}"
    acks = sum(record.kind == "ack" for disk in disks.values() for record in disk.sent)
    return {
        "mode": mode,
        "seed": seed,
        "kills": loop.num_kills,
        "seconds": round(seconds, 1),
        "kills_per_s": round(loop.num_kills / seconds, 2),
        "models": len(models_of(disks.values())),
        "contributions": len(contributions_of(disks.values())),
        "acknowledgements": acks,
        "packets": sum(len(disk.sent) for disk in disks.values()),
        "restarts_in_place": sum(member["num_restarts"] for each in status for member in each["members"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", default="local", choices=["local", "distributed", "none"])
    chosen = parser.parse_args()
    _CONTEXT.set_forkserver_preload(["scarcity.cli.node", "scarcity.node.daemon", "tests.kill_world"])
    folder = Path(tempfile.mkdtemp(prefix="kill-loop-"))
    try:
        figures = play(folder, kills=chosen.kills, seed=chosen.seed, mode=chosen.mode)
    except AssertionError as error:
        print(f"seed {chosen.seed}, disks in {folder}: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
