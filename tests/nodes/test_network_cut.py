"""Three hosts in network namespaces with a daemon each: the network is cut in mid-round, and rounds come again.

Faults of a plan reach daemons in `test_storm.py`, through a proxy. This one stays on a real network, for the proxy is
always there to be dialled: only here does a connection get no answer at all, do packets die on their way, and is it the
system's TCP that says them again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill_world import check_all, read_disk
from tests.netns_world import Network, network, why_not
from tests.nodes_world import (
    _RUN,
    APART,
    CLIENTS,
    CLIENTS_AT,
    ROOT,
    Daemon,
    Federation,
    Rows,
    found,
    linked,
    newest_round,
)

SETTINGS = {"gossip_s": 0.5, "ready_s": 1.0, "close_s": 2.0, "deadline_s": 30.0, "stage_s": 2.0, "quorum": 0.9}


@pytest.fixture
def net() -> Iterator[Network]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with network(*CLIENTS_AT) as made:
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
    places = {name: net.address(name) for name in CLIENTS_AT}
    made = found(folder, APART, settings=SETTINGS, rounds=1000, interval_s=0.3, places=places)
    daemons = {name: Apart(daemon.folder, net.command(name)) for name, daemon in made.daemons.items()}
    return Federation(made.operator, daemons)


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
        federation.wait("a round without the south", lambda: newest_round(hub) >= open_round, 30)
        federation.wait("the end of the link", lambda: not linked(hub, "south"), 90)
        assert open_round not in south.models()
        net.heal("south")
        federation.wait(f"round {open_round}", lambda: all_hold(open_round), 60)
        rows.add(40)
        federation.wait("the next one", lambda: all_hold(open_round + 1), 60)
    for daemon in federation.each():
        assert "Traceback" not in daemon.log
    check_all({name: read_disk(daemon.data) for name, daemon in federation.daemons.items()}, CLIENTS)
