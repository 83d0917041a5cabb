"""A daemon whose disk is full: what it cannot keep does not leave, it says why, and it goes on when there is space."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarcity.node.daemon import JOURNAL
from tests.kill_world import check_all, read_disk
from tests.nodes_world import Daemon, Federation, Host, found, write_rows

SETTINGS = {"gossip_s": 0.3, "ready_s": 0.5, "close_s": 0.3, "deadline_s": 0.6, "stage_s": 0.5, "quorum": 0.5}
CLIENTS = {f"{domain}{number}": domain for domain in "ab" for number in range(2)}
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class World:
    """A federation whose clients have new rows whenever one looks at it."""

    def __init__(self, folder: Path) -> None:
        sites = [Host(f"h{d}", tuple(pair for pair in CLIENTS.items() if pair[1] == d), (d,)) for d in "ab"]
        hosts = [Host("hub", coordinator=True), *sites]
        self.federation: Federation = found(folder, hosts, rounds=1000, interval_s=0.2, settings=SETTINGS)
        self.full, self.other = self.federation.daemons["ha"], self.federation.daemons["hb"]
        self._num_rows = 0
        self.add_rows(40)

    def add_rows(self, number: int) -> None:
        for name, domain in CLIENTS.items():
            path = self.federation.daemons[f"h{domain}"].folder / f"{name}.csv"
            write_rows(path, self._num_rows, self._num_rows + number, 1)
        self._num_rows += number

    def wait_for_models(self, daemon: Daemon, after: int, seconds: float = 20.0) -> int:
        def come() -> bool:
            self.add_rows(1)
            return max(daemon.models(), default=0) > after

        self.federation.wait(f"{daemon.name}'s model after round {after}", come, seconds)
        return max(daemon.models())

    def fill(self) -> None:
        """No file of that daemon may grow beyond its journal: to the daemon its disk is full."""
        assert self.full.process is not None
        size = (self.full.data / f"{JOURNAL}-wal").stat().st_size
        resource.prlimit(self.full.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free(self) -> None:
        assert self.full.process is not None
        resource.prlimit(self.full.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)

    def check_disks(self) -> None:
        for daemon in self.federation.each():
            if daemon.is_up:
                daemon.kill()
        check_all({daemon.name: read_disk(daemon.data) for daemon in self.federation.each()}, CLIENTS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.federation.running():
        yield made


def test_a_full_disk_keeps_packets_here_the_others_go_on_and_so_does_it_with_new_space(world: World) -> None:
    made = world.wait_for_models(world.full, 0)
    world.fill()
    reason = f"{world.full.data / JOURNAL}: disk I/O error; nothing of it was kept"
    world.federation.wait("the reason", lambda: world.add_rows(1) or reason in world.full.log)
    world.wait_for_models(world.other, made)
    assert world.full.is_up
    states = {member["id"]: member["num_restarts"] for member in world.full.status()["members"]}
    world.free()
    world.wait_for_models(world.full, max(world.other.models()))
    assert set(states) == {"a0", "a1", "basket/a"}
    world.check_disks()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_disk_that_stays_full_ends_the_daemon_with_the_cause_and_it_goes_on_when_started_again(world: World) -> None:
    world.wait_for_models(world.full, 0)
    world.fill()
    world.federation.wait("its end", lambda: world.add_rows(1) or not world.full.is_up, 150)
    assert world.full.process is not None
    assert world.full.process.returncode == 1
    last = world.full.log.splitlines()[-1]
    assert last.startswith("scarcity: member ")
    assert "nothing of it was kept" in last or "the packet stays here" in last
    made = world.wait_for_models(world.other, max(world.other.models()))
    world.full.start()
    world.wait_for_models(world.full, made)
    world.check_disks()
