"""Hosts on one machine: network namespaces on a switch, for tests that cut a real network and mend it.

    skip_reason = why_not()                     # None where this machine allows it
    with network("north", "south") as net:
        Popen([*net.command("north"), "python", ...])   # runs there; files and unix sockets are those of this machine
        net.address("south")                    # "10.77.0.2", where the others reach it
        net.partition("south")                  # its cable is out
        net.heal("south")

Every host has a namespace with loopback and one interface, whose other end is a port of a bridge in one more namespace,
the switch. All of it is in a user namespace, so no root is needed, and it is gone when this process ends, however it
ends: each namespace is kept by a `cat` that reads from a pipe of ours. Needs Linux, util-linux and iproute2.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

TOOLS = ("unshare", "nsenter", "ip")
_KEEPER = ("sh", "-c", "echo ready; exec cat")
_NEW_USER = ("unshare", "--user", "--map-root-user", "--net")


def why_not() -> str | None:
    """Return why this machine cannot do it, `None` when it can: tries it once."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)} (util-linux, iproute2)"
    steps = "ip link add sw type bridge && ip link add h0 type veth peer name p0 && ip link set p0 master sw"
    done = subprocess.run([*_NEW_USER, "sh", "-c", steps], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not allowed here: {done.stderr.strip() or done.returncode}"
    return None


def _enter(pid: int) -> tuple[str, ...]:
    return ("nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials", "--")


def _run(pid: int, *command: str) -> None:
    subprocess.run([*_enter(pid), *command], check=True, capture_output=True, text=True)


@attrs.frozen
class Network:
    """Hosts by name, and the process that keeps each one's namespace."""

    switch: int
    hosts: dict[str, int]

    def command(self, host: str) -> tuple[str, ...]:
        """Return what to put before a command so that it runs on that host."""
        return _enter(self.hosts[host])

    def address(self, host: str) -> str:
        """Return the host's IP address."""
        return f"10.77.0.{1 + list(self.hosts).index(host)}"

    def partition(self, host: str) -> None:
        """Pull a host's cable: no packet leaves or reaches it, and nobody is told."""
        _run(self.switch, "ip", "link", "set", f"p-{host}", "down")

    def heal(self, host: str) -> None:
        """Put the cable back."""
        _run(self.switch, "ip", "link", "set", f"p-{host}", "up")


@contextmanager
def _kept(command: Sequence[str]) -> Iterator[int]:
    """A namespace, by the process that keeps it."""
    with subprocess.Popen([*command, *_KEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"ready\n":
            raise OSError(f"no namespace from {' '.join(command)}")
        try:
            yield keeper.pid
        finally:
            keeper.stdin.close()  # the end of `cat`


@contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """Hosts that reach each other. A name has at most 13 letters, because an interface is called by it."""
    with ExitStack() as stack:
        switch = stack.enter_context(_kept(_NEW_USER))
        keepers = {host: stack.enter_context(_kept([*_enter(switch), "unshare", "--net"])) for host in hosts}
        net = Network(switch, keepers)
        _run(switch, "ip", "link", "add", "sw", "type", "bridge")
        _run(switch, "ip", "link", "set", "sw", "up")
        for host, pid in keepers.items():
            port = f"p-{host}"
            _run(switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            _run(switch, "ip", "link", "set", port, "master", "sw", "up")
            _run(pid, "ip", "link", "set", "lo", "up")
            _run(pid, "ip", "address", "add", f"{net.address(host)}/24", "dev", "eth0")
            _run(pid, "ip", "link", "set", "eth0", "up")
        yield net
