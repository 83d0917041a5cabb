"""Run a federation of four daemons on this machine through a crash, with the commands that a user would type."""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scarcity.cli import main as cli
from scarcity.errors import FederationError
from scarcity.node.daemon import CONTROL
from scarcity.node.data.source import Party
from scarcity.node.watch.control import ask_control
from sim.swarms.sources import flights

NODE = [sys.executable, "-m", "scarcity.cli.main", "node", "--config", "node.toml"]
AIRPORTS = ("EWR", "JFK", "LGA")
FEDERATION = "airports"
PAUSE_S = 6.0  # between the two rounds: time to kill a host, start it again and write new rows
PATIENCE_S = 90.0


def say(text: str) -> None:
    print(f">> {text}", flush=True)


def scarcity(*arguments: str, folder: Path) -> str:
    """Run a command as a user would, in a folder, and return what it prints on standard output."""
    print(f"{folder.name}$ scarcity {shlex.join(arguments)}", flush=True)
    said = io.StringIO()
    # In this process: thirty interpreters would take longer than the federation.
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        status = cli.run(cli.scarcity, arguments)
    if status:
        raise FederationError(f"scarcity {arguments[0]} ended with {status}")
    return said.getvalue()


def free_ports(number: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


def write_rows(path: Path, names: tuple[str, ...], party: Party, start: int, end: int) -> None:
    """Append the party's rows start .. end to its file, with a heading when the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["day", *names])
        for day, row in zip(party.times[start:end], party.rows[start:end], strict=True):
            writer.writerow([day, *("" if value != value else repr(float(value)) for value in row)])


class Host:
    """One host: its folder, and its daemon when it runs."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        print(f"{self.folder.name}$ scarcity node --config node.toml 2>> node.log &", flush=True)
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(NODE, cwd=self.folder, stdout=log, stderr=log)

    def end(self, number: int, patience_s: float = 20.0) -> int:
        """Send a signal, unless it is 0, and return the exit status."""
        assert self.process is not None
        if number:
            self.process.send_signal(number)
        return self.process.wait(timeout=patience_s)

    def status(self) -> dict[str, Any]:
        return ask_control(self.folder / f"{self.name}-data" / CONTROL, "status")

    def last_words(self) -> str:
        path = self.folder / "node.log"
        return path.read_text()[-2000:] if path.exists() else ""

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None


def prepare(folder: Path, clients: int, epsilon: float) -> tuple[list[Host], dict[str, list[Party]]]:
    """Make keys, the directory and configs; return the hosts and the routes of each airport."""
    source = flights()
    routes = {
        airport: sorted((p for p in source.parties if p.domain == airport), key=lambda p: (-len(p.times), p.id))[
            :clients
        ]
        for airport in AIRPORTS
    }
    names = ("hub", *(airport.lower() for airport in AIRPORTS))
    hosts = [Host(name, folder / name, port) for name, port in zip(names, free_ports(4), strict=True)]
    for host in hosts:
        host.folder.mkdir()
    operator = folder / "operator"
    operator.mkdir()
    schema = operator / "schema.json"
    schema.write_text(json.dumps(source.schema.to_dict(), indent=1))

    say("the operator makes the federation's keys")
    made = json.loads(scarcity("keys", "federation", "--name", FEDERATION, "--out", "keys", "--json", folder=operator))
    say("every host makes its own keys and asks for a place; private keys never leave it")
    for host, airport in zip(hosts, (None, *AIRPORTS), strict=True):
        seats = ["--coordinator"] if airport is None else ["--basket", airport]
        for party in routes.get(airport or "", ()):
            seats += ["--client", f"{party.id}:{airport}"]
        scarcity("keys", "node", host.name, "--address", host.address, *seats, "--out", "keys", folder=host.folder)
    say("the operator signs certificates and the directory of who is who")
    requests = [str(host.folder / "keys" / "request.json") for host in hosts]
    for host, request in zip(hosts, requests, strict=True):
        certificate = str(host.folder / "keys" / "node.pem")
        scarcity("keys", "sign", request, "--federation-dir", "keys", "--out", certificate, folder=operator)
        (host.folder / "keys" / "authority.pem").write_bytes((operator / "keys" / "authority.pem").read_bytes())
    scarcity("keys", "roster", "make", *requests, "--federation-dir", "keys", "--out", "roster.json", folder=operator)
    say("and writes down what all agree on")
    terms = ["--mode", "distributed", "--unit", "record", "--epsilon", f"{epsilon:g}", "--delta", "1e-5"]
    rounds = ["--rounds", "2", "--interval-s", f"{PAUSE_S:g}", "--gather-s", "60"]
    key = ["--operator-key", made["operator_key"]]
    scarcity(
        "init",
        "federation",
        "--name",
        FEDERATION,
        *terms,
        *rounds,
        *key,
        "--schema",
        "schema.json",
        "--out",
        "federation.toml",
        folder=operator,
    )
    for host in hosts:
        for name in ("roster.json", "federation.toml", "schema.json"):
            (host.folder / name).write_bytes((operator / name).read_bytes())
        own = ["--keys", "keys", "--federation", "federation.toml", "--roster", "roster.json", "--listen", host.address]
        scarcity("init", "node", host.name, *own, "--time", "day", "--out", "node.toml", folder=host.folder)
    return hosts, routes


def feed(hosts: list[Host], routes: dict[str, list[Party]], names: tuple[str, ...], *, second: bool) -> None:
    """Write the first half of every route's days into its file, or append the second."""
    for host in hosts[1:]:
        for party in routes[host.name.upper()]:
            half, end = len(party.times) // 2, len(party.times)
            span = (half, end) if second else (0, half)
            write_rows(host.folder / f"{party.id}.csv", names, party, *span)


def wait_for(what: str, hosts: list[Host], done: Callable[[], bool]) -> None:
    """Wait until something is so; say what the hosts wait for meanwhile, and what they said last when it is not."""
    deadline, told_at = time.monotonic() + PATIENCE_S, time.monotonic() + 5.0
    while not done():
        fallen = [host for host in hosts if not host.is_up]
        if fallen or time.monotonic() > deadline:
            names = ", ".join(host.name for host in fallen) or "nobody has"
            words = "\n".join(f"--- {host.name}\n{host.last_words()}" for host in fallen or hosts)
            raise FederationError(f"{what} did not come ({names} fallen)\n{words}")
        if time.monotonic() > told_at:
            say(f"waiting for {what}: " + "; ".join(waits_of(hosts)))
            told_at += 5.0
        time.sleep(0.2)


def waits_of(hosts: list[Host]) -> list[str]:
    """Return what members wait for, three of them."""
    members = [member for host in hosts for member in host.status()["members"]]
    waits = [f"{member['id']}: {wait['what']}" for member in members for wait in member["waiting"]]
    return waits[:3] or ["nobody says for what"]


def show_model(host: Host, title: str) -> None:
    """Print what the model file of a host holds."""
    model = f"{host.name}-data/model"
    digest = hashlib.blake2b((host.folder / model).read_bytes(), digest_size=8).hexdigest()
    say(f"{title}: model file {digest}")
    print(scarcity("relations", model, folder=host.folder), end="", flush=True)


@contextlib.contextmanager
def running(hosts: list[Host]) -> Iterator[None]:
    for host in hosts:
        host.start()
    try:
        yield
    finally:
        for host in hosts:
            if host.is_up:
                host.end(signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=12, help="routes of each airport (default: 12)")
    parser.add_argument("--epsilon", type=float, default=10.0, help="budget of each route (default: 10)")
    parser.add_argument("--folder", type=Path, help="where keys, rows and journals go (default: a temporary folder)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="federation-")))
        folder.mkdir(exist_ok=True)
        run(folder.resolve(), options.clients, options.epsilon)


def run(folder: Path, clients: int, epsilon: float) -> None:
    hosts, routes = prepare(folder, clients, epsilon)
    hub, victim = hosts[0], hosts[2]
    names = flights().schema.names
    feed(hosts, routes, names, second=False)
    say("four daemons")
    with running(hosts):
        wait_for("round 1", hosts, lambda: 1 in rounds_of(hub) and all(1 in rounds_of(host) for host in hosts[1:]))
        show_model(hub, "after round 1")
        spent = spendings(victim)
        say(f"kill -9 of {victim.name}")
        victim.end(signal.SIGKILL)
        feed(hosts, routes, names, second=True)
        victim.start()
        wait_for("recovery", hosts, lambda: is_back(victim))
        if spendings(victim) != spent:
            raise FederationError(f"{victim.name}: a crash has changed what was spent")
        say(f"{victim.name} is back, with its ledgers as they were")
        wait_for("round 2", hosts, lambda: all({1, 2} <= rounds_of(host) for host in hosts))
        show_model(hub, "after round 2")
        for host in hosts:
            print(scarcity("outbox", "--config", "node.toml", "--verify", folder=host.folder).splitlines()[-1])
        for host in hosts:
            scarcity("stop", "--config", "node.toml", "--wait", folder=host.folder)
            status = host.end(0)
            if status != 0:
                raise FederationError(f"{host.name} ended with {status}: {host.last_words()}")
    say(f"two models, one crash, four clean ends; all files were in {folder}")


def spendings(host: Host) -> dict[str, float]:
    """Return what each ledger of a host has spent."""
    return {member["id"]: member["epsilon_spent"] for member in host.status()["members"]}


def rounds_of(host: Host) -> set[int]:
    with contextlib.suppress(FederationError):
        return set(host.status()["models"])
    return set()


def is_back(host: Host) -> bool:
    with contextlib.suppress(FederationError):
        return any(link["up"] for link in host.status()["links"])
    return False


if __name__ == "__main__":
    try:
        main()
    except FederationError as error:
        sys.exit(f"error: {error}")
