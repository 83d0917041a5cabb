"""`scarcity doctor`: is this machine fit? One small check a line; each takes facts and returns what it makes of them.

Facts are gathered at the end of the module and nowhere else, so that every check can be given any machine.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from statistics import median
from typing import Final, Literal

import attrs
import click
from rich.console import Console
from rich.table import Table

from scarcity import __version__
from scarcity.cli.main import DISTRIBUTION, STATUS_FAILED
from scarcity.errors import ConfigError

State = Literal["ok", "warning", "failed"]
WIDTH: Final = 100
_NAMESAKE: Final = "scarcity"
_LEAST_PYTHON: Final = (3, 11)
# This software is younger than the first of January 2025, and nobody runs it in 2100.
_CLOCK_RANGE: Final = (1_735_689_600.0, 4_102_444_800.0)
# A round trip to a device takes longer: tmpfs answers in .5 us, ext4 on a virtual disk in 160 us to 4 ms.
_FSYNC_S_MIN: Final = 20e-6
_FSYNCS: Final = 8
_IN_MEMORY: Final = ("tmpfs", "ramfs")
_REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
# A basket's sum has up to 512 members, each with a link and, for a moment, its successor.
_FILES_WANTED: Final = 1024
_FILES_LEAST: Final = 64  # a client: its peers, its journal, the loop's own
_MAX_PORT: Final = 65_535


@attrs.frozen
class Finding:
    """What a check found.

    Attributes:
        check: what was looked at.
        state: ok, warning (it works, but) or failed (it does not).
        found: what there is.
        fix: what to do; empty when ok.
    """

    check: str
    state: State
    found: str
    fix: str = ""


def check_python(running: tuple[int, ...]) -> Finding:
    """Check the interpreter's version."""
    found = ".".join(map(str, running[:3]))
    if running[:2] < _LEAST_PYTHON:
        return Finding("Python", "failed", found, "install Python 3.11 or newer and make a new environment with it")
    return Finding("Python", "ok", found)


def check_ours(installed: str | None, imported: str) -> Finding:
    """Check that what runs is what is installed."""
    if installed is None:
        return Finding(
            DISTRIBUTION, "warning", f"{imported}, from a source tree that is not installed", "pip install -e . there"
        )
    if installed != imported:
        found = f"{installed} installed, {imported} running"
        return Finding(DISTRIBUTION, "failed", found, "install again, or leave the directory of the source tree")
    return Finding(DISTRIBUTION, "ok", installed)


def check_packages(requirements: Sequence[str] | None, version_of: Callable[[str], str | None]) -> Finding:
    """Check that everything we require is there and new enough; extras are nobody's fault."""
    if requirements is None:
        return Finding("packages", "warning", "unknown: not installed", "pip install -e . in the source tree")
    named = [_requirement(text) for text in requirements if "extra ==" not in text]
    have = {name: version_of(name) for name, _ in named}
    bad = [
        f"{name} {have[name] or 'missing'} (needs {least})" if least else f"{name} missing"
        for name, least in named
        if have[name] is None or _numbers(have[name] or "") < _numbers(least)
    ]
    if bad:
        names = " ".join(sorted(name for name, _ in named if any(text.startswith(f"{name} ") for text in bad)))
        return Finding("packages", "failed", ", ".join(bad), f"pip install --upgrade {names}")
    return Finding("packages", "ok", ", ".join(f"{name} {have[name]}" for name, _ in sorted(named)))


def _requirement(text: str) -> tuple[str, str]:
    match = re.match(r"([A-Za-z0-9._-]+)[^>]*(?:>=\s*([0-9.]+))?", text)
    assert match is not None, f"a requirement has a name: {text!r}"
    return match.group(1), match.group(2) or ""


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, without trailing zeros: enough for our own `>=`."""
    leading = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    numbers = [int(part) for part in leading.group().split(".")] if leading else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_namesake(installed: str | None) -> Finding:
    """Check that the other package of our import name is not there: both write into one directory."""
    if installed is None:
        return Finding("the other scarcity", "ok", "not installed")
    fix = f"pip uninstall {_NAMESAKE}, then pip install --force-reinstall {DISTRIBUTION}"
    return Finding("the other scarcity", "failed", f"package {_NAMESAKE} {installed}, whose files replace ours", fix)


def check_clock(wall: float, readings: Sequence[float]) -> Finding:
    """Check that the wall clock is in our time and the monotonic one goes forward.

    Args:
        wall: seconds since 1970.
        readings: successive readings of the monotonic clock, seconds.
    """
    low, high = _CLOCK_RANGE
    if not low <= wall <= high:
        return Finding("clock", "failed", f"{wall:.0f} s since 1970", "set the date, or turn on time synchronisation")
    if any(b < a for a, b in itertools.pairwise(readings)):
        return Finding("clock", "failed", "the monotonic clock went back", "deadlines cannot hold here: mend the host")
    if not readings[-1] > readings[0]:
        return Finding(
            "clock", "failed", "the monotonic clock stands still", "deadlines cannot hold here: mend the host"
        )
    return Finding("clock", "ok", f"{time.strftime('%Y-%m-%d', time.gmtime(wall))}, monotonic")


def check_entropy(samples: tuple[bytes, bytes], ready: bool | None) -> Finding:
    """Check the source of keys and noise.

    Args:
        samples: two draws of 32 bytes.
        ready: whether the kernel's pool is initialised; None where it cannot be asked.
    """
    if ready is False:
        fix = "wait until the machine has booted; a virtual machine needs virtio-rng"
        return Finding("entropy", "failed", "the system's source is not ready: it would block", fix)
    if samples[0] == samples[1]:
        return Finding(
            "entropy", "failed", "two draws are equal", "no key or noise of this machine is safe: do not run"
        )
    return Finding("entropy", "ok", "os.urandom" + ("" if ready is None else ", ready"))


def check_disk(directory: Path, filesystem: str, fsyncs_s: Sequence[float] | OSError) -> Finding:
    """Check that the ledger's directory can be written and that a sync takes as long as a real one.

    Args:
        directory: where journals are to be.
        filesystem: its type; empty when unknown.
        fsyncs_s: durations of syncs of a small file in it, or what went wrong.
    """
    if isinstance(fsyncs_s, OSError):
        found, fix = f"{directory}: {fsyncs_s.strerror or fsyncs_s}", "choose another --dir, or make this one writable"
        return Finding("disk", "failed", found, fix)
    typical = median(fsyncs_s)
    found = f"{directory}: {filesystem or 'filesystem unknown'}, fsync {typical * 1e3:.3g} ms"
    if filesystem in _IN_MEMORY:
        return Finding("disk", "warning", found, "the ledger would be gone after a restart: choose a --dir on a disk")
    if filesystem in _REMOTE:
        fix = "locks and syncs of network filesystems may not hold: choose a --dir on a local disk"
        return Finding("disk", "warning", found, fix)
    if typical < _FSYNC_S_MIN:
        fix = "too fast to have reached a disk: turn off unsafe caching of the host, or choose another --dir"
        return Finding("disk", "warning", found, fix)
    return Finding("disk", "ok", found)


def filesystem_of(path: Path, mounts: str) -> str:
    """Return the type of the filesystem of an absolute path, from the text of /proc/mounts; empty when unknown."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:  # of equal ones the later hides the earlier
            best, kind = len(point.parts), fields[2]
    return kind


def check_files(limit: int | None) -> Finding:
    """Check how many files and sockets a process may hold open; None where the system does not say."""
    if limit is None:
        return Finding("open files", "warning", "the system does not say", "a large basket needs 1024")
    if limit < _FILES_LEAST:
        return Finding("open files", "failed", f"{limit}", f"ulimit -n {_FILES_WANTED}")
    if limit < _FILES_WANTED:
        fix = f"enough for a client; ulimit -n {_FILES_WANTED} for a basket of hundreds"
        return Finding("open files", "warning", f"{limit}", fix)
    return Finding("open files", "ok", "unlimited" if limit == sys.maxsize else f"{limit}")


def check_port(port: int, refusal: OSError | None) -> Finding:
    """Check that a TCP port can be listened on; port 0 is any."""
    what = f"port {port}" if port else "any free port"
    if refusal is None:
        return Finding("TCP", "ok", f"{what} can be bound")
    fix = "choose another --port, or stop what listens there"
    if isinstance(refusal, PermissionError):
        fix = "choose a --port of 1024 or more"
    return Finding("TCP", "failed", f"{what}: {refusal.strerror or refusal}", fix)


# Facts.


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> list[str] | None:
    try:
        return requires(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _entropy_ready() -> bool | None:
    if not hasattr(os, "getrandom"):
        return None
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        return False
    return True


def _fsyncs_s(directory: Path) -> list[float] | OSError:
    durations = []
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(_FSYNCS):
                file.write(bytes(512))
                file.flush()
                start = time.perf_counter()
                os.fsync(file.fileno())
                durations.append(time.perf_counter() - start)
    except OSError as error:
        return error
    return durations


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _open_files() -> int | None:
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # on Windows
        return None
    soft = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _refusal(port: int) -> OSError | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        if os.name == "posix":  # as servers do: a connection that is winding down is no listener
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            return error
    return None


def examine(directory: Path, port: int) -> list[Finding]:
    """Return all findings about this machine."""
    absolute = directory.resolve()
    return [
        check_python(sys.version_info[:3]),
        check_ours(_version_of(DISTRIBUTION), __version__),
        check_packages(_requirements(), _version_of),
        check_namesake(_version_of(_NAMESAKE)),
        check_clock(time.time(), [time.monotonic() for _ in range(10_000)]),
        check_entropy((os.urandom(32), os.urandom(32)), _entropy_ready()),
        check_disk(absolute, filesystem_of(absolute, _mounts()), _fsyncs_s(absolute)),
        check_files(_open_files()),
        check_port(port, _refusal(port)),
    ]


def render(findings: Sequence[Finding], *, colour: bool = False) -> str:
    """Return the findings as a table, at most `WIDTH` columns wide."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=WIDTH,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("check", "", "finding", "how to fix"):
        table.add_column(heading, header_style="underline", overflow="fold")
    styles = {"ok": "", "warning": "yellow", "failed": "bold red"}
    for each in findings:
        table.add_row(each.check, each.state, each.found, each.fix, style=styles[each.state])
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current one",
    help="State directory, where ledgers are to be kept.",
)
@click.option("--port", type=int, default=0, show_default="any", help="TCP port that is to be listened on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, /, *, directory: Path, port: int, as_json: bool) -> None:
    """Check whether this machine is fit to take part, and say how to mend it.

    Status: 0 fit, perhaps with warnings; 1 something failed; 2 wrong use.
    """
    if not 0 <= port <= _MAX_PORT:
        raise ConfigError(f"port must lie in 0..{_MAX_PORT} (0: any), got {port}")
    findings = examine(directory, port)
    if as_json:
        click.echo(json.dumps([attrs.asdict(each) for each in findings], indent=2))
    else:
        click.echo(render(findings, colour=sys.stdout.isatty()), nl=False)
    context.exit(STATUS_FAILED if any(each.state == "failed" for each in findings) else 0)
