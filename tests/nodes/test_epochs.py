"""A newer directory under running daemons: whom it takes away, a full disk meanwhile, and who starts again in it."""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from pathlib import Path

import anyio
import pytest

from scarcity.cli.keys import keys
from scarcity.errors import FederationError
from scarcity.node.daemon import JOURNAL, NodeDaemon
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.deployment import open_deployment
from tests.nodes_world import Daemon, Federation, Host, command, found, write_rows

QUICK = {"gossip_s": 0.3, "ready_s": 0.5, "close_s": 0.4, "deadline_s": 1.0, "stage_s": 0.5, "quorum": 0.5}
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Rows:
    """Rows of all clients, a few more whenever somebody waits for a round."""

    def __init__(self, federation: Federation) -> None:
        self.files = [d.folder / f"{d.name[1]}{i}.csv" for d in federation.each() if d.name != "hub" for i in range(3)]
        self.length = 0

    def more(self, number: int = 2) -> None:
        for seed, path in enumerate(self.files):
            write_rows(path, self.length, self.length + number, seed)
        self.length += number


def epoch_of(daemon: Daemon) -> int:
    with contextlib.suppress(FederationError):  # busy, or not up yet
        return int(daemon.status()["epoch"])
    return 0


def fill_disk(daemon: Daemon) -> None:
    assert daemon.process is not None
    size = (daemon.data / f"{JOURNAL}-wal").stat().st_size
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def free_disk(daemon: Daemon) -> None:
    assert daemon.process is not None
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)


def test_a_newer_directory_is_in_force_for_members_that_start_again_and_takes_away_who_is_not_on_it(
    tmp_path: Path,
) -> None:
    hosts = [Host("hub", coordinator=True)]
    hosts += [Host(f"h{d}", tuple((f"{d}{i}", d) for i in range(3)), (d,)) for d in "ab"]
    federation = found(tmp_path, hosts, settings=QUICK, rounds=1000, interval_s=0.3)
    hub, ha = federation.daemons["hub"], federation.daemons["ha"]
    rows = Rows(federation)
    rows.more(40)

    def newer_model() -> bool:
        rows.more()
        return max(hub.models(), default=0) > newest

    with federation.running():
        federation.wait("a model", lambda: max(hub.models(), default=0) > 0)
        roster, place = federation.operator / "roster.json", ("--federation-dir", federation.operator / "keys")
        command(keys, "roster", "revoke", roster, "--member", "a2", *place)
        command(keys, "roster", "revoke", roster, "--node", "hb", *place)
        fill_disk(ha)
        for daemon in (hub, ha):
            shutil.copy(roster, daemon.folder / "roster.json")
        federation.wait("a disk that does not take the epoch", lambda: "stays in force for now" in ha.log)
        assert ha.is_up
        free_disk(ha)
        federation.wait("epoch 3", lambda: epoch_of(ha) == epoch_of(hub) == 3)
        assert not next(link for link in ha.status()["links"] if link["node"] == "hb")["up"]
        assert "a2 is not placed here by epoch 3" in ha.log
        newest = max(hub.models())
        federation.wait("a model of those who are left", newer_model)
        fill_disk(hub)
        rows.more()
        federation.wait("a coordinator that starts again", lambda: "starts again" in hub.log)
        free_disk(hub)
        newest = max(hub.models())
        federation.wait("a model of the coordinator that started again", newer_model)
        assert ha.is_up
        assert hub.is_up


@pytest.mark.anyio
async def test_a_directory_that_comes_while_a_daemon_starts_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scarcity.node.daemon._WATCH_S", 0.05)
    hosts = [Host("hub", (("a0", "a"), ("a1", "a")), ("a",), coordinator=True), Host("hb", (("b0", "b"),), ("b",))]
    federation = found(tmp_path, hosts)
    hub, operator = federation.daemons["hub"], federation.operator
    daemon = NodeDaemon(open_deployment(read_node_config(hub.config), time.time()))
    place = ("--federation-dir", operator / "keys", "--out", hub.folder / "new.json")
    command(keys, "roster", "revoke", operator / "roster.json", "--node", "hb", *place)
    (hub.folder / "new.json").replace(hub.folder / "roster.json")
    async with anyio.create_task_group() as group:
        group.start_soon(daemon.run)
        with anyio.fail_after(20):
            while daemon._signed.directory.epoch < 2:  # noqa: ASYNC110 - a daemon's state has no event
                await anyio.sleep(0.02)
        daemon.stop()
