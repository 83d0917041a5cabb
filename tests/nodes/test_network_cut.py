"""Three hosts in network namespaces with a daemon each: the network is cut in mid-round, and rounds come again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill_world import check_all, read_disk
from tests.netns_world import Network, network, why_not
from tests.nodes_world import _RUN, ROOT, Daemon, Federation, Host, found, write_rows

SETTINGS = {"gossip_s": 0.5, "ready_s": 1.0, "close_s": 2.0, "deadline_s": 30.0, "stage_s": 2.0, "quorum": 0.9}
CLIENTS = {f"{domain}{number}": domain for domain in "ab" for number in range(2)}
AT = {"hub": (), "north": ("a0", "a1"), "south": ("b0", "b1")}
BASKET = {"north": ("b",), "south": ("a",)}  # not where its clients are


@pytest.fixture
def net() -> Iterator[Network]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with network(*AT) as made:
        yield made


class Apart(Daemon):
    """A daemon whose process is in its host's namespace; its control socket is a file and so within reach."""

    def __init__(self, folder: Path, prefix: tuple[str, ...]) -> None:
        super().__init__(folder, 0)
        self._prefix = prefix

    def start(self, *arguments: str) -> None:
        with (self.folder / "node.log").open("ab") as log:
            begin = [*self._prefix, sys.executable, "-c", _RUN, "--config", str(self.config), *arguments]
            self.process = subprocess.Popen(begin, cwd=ROOT, stdout=log, stderr=log)


def federation_of(net: Network, folder: Path) -> Federation:
    hosts = [
        Host(name, tuple((client, CLIENTS[client]) for client in clients), BASKET.get(name, ()), name == "hub")
        for name, clients in AT.items()
    ]
    places = {name: net.address(name) for name in AT}
    made = found(folder, hosts, settings=SETTINGS, rounds=1000, interval_s=0.3, places=places)
    daemons = {name: Apart(daemon.folder, net.command(name)) for name, daemon in made.daemons.items()}
    return Federation(made.operator, daemons)


class Rows:
    """Rows of all clients, more of them whenever asked."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._number = 0

    def add(self, number: int) -> None:
        for host, clients in AT.items():
            for client in clients:
                path = self._federation.daemons[host].folder / f"{client}.csv"
                write_rows(path, self._number, self._number + number, 1)
        self._number += number


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_network_that_is_cut_in_mid_round_and_mended_completes_that_round_and_the_next(
    net: Network, tmp_path: Path
) -> None:
    federation = federation_of(net, tmp_path)
    rows = Rows(federation)
    rows.add(40)
    hub, south = federation.daemons["hub"], federation.daemons["south"]

    def all_hold(round_id: int) -> bool:
        return all(round_id in daemon.models() for daemon in federation.each())

    with federation.running():
        federation.wait("round 1", lambda: all_hold(1), 60)
        net.partition("south")
        rows.add(40)
        held = max(hub.models())
        open_round = held + 1
        federation.wait("a round without the south", lambda: newest(hub) >= open_round, 30)
        federation.wait("the end of the link", lambda: not linked(hub, "south"), 90)
        assert open_round not in south.models()
        net.heal("south")
        federation.wait(f"round {open_round}", lambda: all_hold(open_round), 60)
        rows.add(40)
        federation.wait("the next one", lambda: all_hold(open_round + 1), 60)
    for daemon in federation.each():
        assert "Traceback" not in daemon.log
    check_all({name: read_disk(daemon.data) for name, daemon in federation.daemons.items()}, CLIENTS)


def newest(daemon: Daemon) -> int:
    return max(member["round_id"] for member in daemon.status()["members"])


def linked(daemon: Daemon, node: str) -> bool:
    return next(link["up"] for link in daemon.status()["links"] if link["node"] == node)
