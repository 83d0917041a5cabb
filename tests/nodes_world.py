"""A federation of daemons on this machine for tests: folders as users would make them, processes, and their disks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from scarcity.cli.init import init
from scarcity.cli.keys import keys
from scarcity.errors import FederationError
from scarcity.node.daemon import CONTROL
from scarcity.node.watch.control import ask_control

ROOT = Path(__file__).parents[1]
_RUN = "import sys; from scarcity.cli.main import run; from scarcity.cli.node import node; sys.exit(run(node))"
SCHEMA = {
    "variables": [
        {"name": "load", "unit": "", "scale": 1.0, "centre": 0.0},
        {"name": "price", "unit": "", "scale": 1.0, "centre": 0.0},
    ],
    "lags": 1,
    "horizon": 2,
}


def command(group: Any, *arguments: object) -> None:
    """Run a subcommand as `scarcity` would; its errors are raised."""
    group.main(args=[str(each) for each in arguments], prog_name="scarcity", standalone_mode=False)


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


@attrs.frozen
class Host:
    """What one host is to host: its name, (client, domain) pairs, domains of its baskets, whether the coordinator."""

    name: str
    clients: tuple[tuple[str, str], ...] = ()
    baskets: tuple[str, ...] = ()
    coordinator: bool = False


class Daemon:
    """One host's folder and, while it runs, its process."""

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.name = folder.name
        self.address = f"{host}:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def data(self) -> Path:
        return self.folder / f"{self.name}-data"

    def start(self, *arguments: str) -> None:
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, "--config", str(self.config), *arguments],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=seconds)

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        path = self.folder / "node.log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any]:
        return ask_control(self.data / CONTROL, "status")

    def models(self) -> set[int]:
        """Rounds whose model this node holds; none while it does not answer."""
        with contextlib.suppress(FederationError):
            return set(self.status()["models"])
        return set()


@attrs.frozen
class Federation:
    """The daemons of a federation, and its operator's folder."""

    operator: Path
    daemons: Mapping[str, Daemon]

    def each(self) -> tuple[Daemon, ...]:
        return tuple(self.daemons.values())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for daemon in self.each():
            daemon.start()
        try:
            yield
        finally:
            for daemon in self.each():
                if daemon.is_up:
                    daemon.kill()

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something is so; what the daemons said last is in the failure."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                said = "\n".join(f"--- {daemon.name}\n{daemon.log[-3000:]}" for daemon in self.each())
                raise AssertionError(f"{what} did not come in {seconds} s\n{said}")
            time.sleep(0.05)


def found(
    folder: Path,
    hosts: Sequence[Host],
    *,
    security: str = "mtls",
    settings: Mapping[str, object] | None = None,
    rounds: int = 2,
    interval_s: float = 1.0,
    gather_s: float = 20.0,
    epsilon: float = 10.0,
    mode: str = "local",
    unit: str = "record",
    places: Mapping[str, str] | None = None,
) -> Federation:
    """Make keys, roster and configs of a federation in a folder; nothing runs yet.

    Hosts are at free ports of this machine's loopback, or at the IP addresses that `places` gives them.
    """
    operator = folder / "operator"
    operator.mkdir(parents=True)
    command(keys, "federation", "--name", "test", "--out", operator / "keys")
    daemons = {}
    for host, port in zip(hosts, free_ports(len(hosts)), strict=True):
        at = "127.0.0.1" if places is None else places[host.name]
        daemons[host.name] = daemon = Daemon(folder / host.name, port, at)
        daemon.folder.mkdir()
        seats = [f"--client={name}:{domain}" for name, domain in host.clients]
        seats += [f"--basket={domain}" for domain in host.baskets] + ["--coordinator"] * host.coordinator
        out = daemon.folder / "keys"
        command(keys, "node", host.name, "--address", daemon.address, *seats, "--out", out)
        request = out / "request.json"
        command(keys, "sign", request, "--federation-dir", operator / "keys", "--out", out / "node.pem")
        (out / "authority.pem").write_bytes((operator / "keys" / "authority.pem").read_bytes())
    requests = [daemon.folder / "keys" / "request.json" for daemon in daemons.values()]
    command(keys, "roster", "make", *requests, "--federation-dir", operator / "keys", "--out", operator / "roster.json")
    (operator / "schema.json").write_text(json.dumps(SCHEMA))
    from scarcity.node.setup.keys import read_federation

    agreed = operator / "federation.toml"
    terms = ["--mode", mode, "--unit", unit, "--epsilon", epsilon, "--delta", 1e-5]
    pace = ["--rounds", rounds, "--interval-s", interval_s, "--gather-s", gather_s]
    more = [f"--set={key}={value}" for key, value in (settings or {}).items()]
    operator_key = read_federation(operator / "keys").operator_public_key.hex()
    command(
        init, "federation", "--name", "test", *terms, *pace, *more, "--operator-key", operator_key,
        "--schema", operator / "schema.json", "--out", agreed,
    )  # fmt: skip
    for daemon in daemons.values():
        for name in ("roster.json", "federation.toml", "schema.json"):
            (daemon.folder / name).write_bytes((operator / name).read_bytes())
        own = ["--federation", daemon.folder / "federation.toml", "--roster", daemon.folder / "roster.json"]
        place = ["--listen", daemon.address, "--security", security, "--time", "day"]
        command(init, "node", daemon.name, "--keys", daemon.folder / "keys", *own, *place, "--out", daemon.config)
    return Federation(operator, daemons)


CLIENTS = {f"{domain}{number}": domain for domain in "ab" for number in range(3)}
CLIENTS_AT = {"hub": (), "north": ("a0", "a1", "a2"), "south": ("b0", "b1", "b2")}
BASKET_AT = {"north": ("b",), "south": ("a",)}  # not where its clients are, so that contributions cross links
APART = tuple(
    Host(name, tuple((client, CLIENTS[client]) for client in clients), BASKET_AT.get(name, ()), name == "hub")
    for name, clients in CLIENTS_AT.items()
)


class Rows:
    """Rows of all clients of APART, more of them whenever asked."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._number = 0

    def add(self, number: int) -> None:
        for host, clients in CLIENTS_AT.items():
            for client in clients:
                path = self._federation.daemons[host].folder / f"{client}.csv"
                write_rows(path, self._number, self._number + number, list(CLIENTS).index(client))
        self._number += number


def newest_round(daemon: Daemon) -> int:
    return max(member["round_id"] for member in daemon.status()["members"])


def linked(daemon: Daemon, node: str) -> bool:
    return next(link["up"] for link in daemon.status()["links"] if link["node"] == node)


def write_rows(path: Path, start: int, end: int, seed: int) -> None:
    """Append rows start .. end - 1 of a little world in which load drives price."""
    import numpy as np

    rng = np.random.default_rng(seed)
    values = rng.standard_normal((end, 2))
    for day in range(1, end):
        values[day, 0] += 0.5 * values[day - 1, 0]
        values[day, 1] += 0.6 * values[day - 1, 0]
    new = not path.exists()
    with path.open("a") as file:
        if new:
            file.write("day,load,price\n")
        file.writelines(f"{day},{values[day, 0]:.6f},{values[day, 1]:.6f}\n" for day in range(start, end))
