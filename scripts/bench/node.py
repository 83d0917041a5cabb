"""Measure one daemon that hosts 100 clients, a basket and the coordinator: start, memory, one round.

Prints one JSON line. The daemon is a process of its own, as a user would start it; its rows are 200 a client. Times are
from the start of the process: until its control socket answers, until all members are up, until the first model; then
one more round, from its opening to the model on the disk. `python scripts/bench/node.py [clients]`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

# Python puts the folder of a script first, where another file has the package's own name: look in the project instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])
from scarcity.errors import FederationError  # noqa: E402 - needs the line above
from scarcity.node.daemon import JOURNAL  # noqa: E402
from tests.nodes_world import Daemon, Host, found, write_rows  # noqa: E402

ROWS = 200


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def num_entries(data: Path) -> int:
    """Return how many times the journal was forced to the disk: once an entry."""
    with contextlib.closing(sqlite3.connect(data / JOURNAL)) as journal:
        return int(journal.execute("SELECT count(*) FROM entry").fetchone()[0])


def seconds_until(daemon: Daemon, what: str, began: float) -> float:
    """Return when the log has said something, in seconds since `began`."""
    while what not in daemon.log:
        if not daemon.is_up or time.monotonic() > began + 300:
            raise SystemExit(f"{what!r} did not come: {daemon.log[-2000:]}")
        time.sleep(0.01)
    return time.monotonic() - began


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(FederationError):
        return bool(daemon.status())
    return False


def measure(folder: Path, clients: int) -> dict[str, object]:
    """Run a daemon for two rounds."""
    host = Host("all", tuple((f"c{number}", "a") for number in range(clients)), ("a",), coordinator=True)
    with contextlib.redirect_stdout(sys.stderr):
        federation = found(folder, [host], settings={"rule": "average"}, rounds=2, interval_s=3.0)
    daemon = federation.daemons["all"]
    for number in range(clients):
        write_rows(daemon.folder / f"c{number}.csv", 0, ROWS, number)
    began = time.monotonic()
    daemon.start()
    try:
        first_s = seconds_until(daemon, "coordinator, round 1: model", began)
        up_s = seconds_until(daemon, "all is up with", began)
        for number in range(clients):
            write_rows(daemon.folder / f"c{number}.csv", ROWS, 2 * ROWS, number)
        seconds_until(daemon, "round 2: contributed", began)
        opened = time.monotonic()
        seconds_until(daemon, "coordinator, round 2: model", began)
        round_s = time.monotonic() - opened
        assert answers(daemon)
        status = daemon.status()
        assert daemon.process is not None
        figures: dict[str, object] = {
            "clients": clients,
            "rows": ROWS,
            "members_up_s": round(up_s, 2),
            "first_model_s": round(first_s, 2),
            "round_s": round(round_s, 2),
            "cpu_s": cpu_s(daemon.process.pid),
            "peak_mb": round(peak_mb(daemon.process.pid), 1),
            "journal_mb": round(status["journal_bytes"] / 1e6, 2),
        }
        began = time.monotonic()
        daemon.end()
        figures["stop_s"] = round(time.monotonic() - began, 2)
        return figures | {"journal_entries": num_entries(daemon.data)}
    finally:
        if daemon.is_up:
            daemon.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="node-") as place:
        print(json.dumps(measure(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else 100)))
