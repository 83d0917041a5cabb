"""How a daemon comes up."""

from __future__ import annotations

from pathlib import Path

from tests.nodes_world import Daemon, Host, found, write_rows

GATHER_S = 20  # of `found`: how long a first round waits for baskets that do not come up


def test_baskets_beside_their_coordinator_are_not_waited_for_in_vain(tmp_path: Path) -> None:
    clients = tuple((f"{domain}{number}", domain) for domain in ("a", "b") for number in range(2))
    federation = found(tmp_path, [Host("all", clients, ("a", "b"), coordinator=True)], rounds=1)
    (daemon,) = federation.each()
    for seed, (name, _) in enumerate(clients):
        write_rows(daemon.folder / f"{name}.csv", 0, 30, seed)
    with federation.running():
        federation.wait("a model", lambda: 1 in daemon.models())
        assert daemon.status()["uptime_s"] < GATHER_S
        assert daemon.end() == 0


def checked(daemon: Daemon) -> tuple[int, str]:
    """Return status and words of a check."""
    (daemon.folder / "node.log").unlink(missing_ok=True)
    daemon.start("--check")
    assert daemon.process is not None
    return daemon.process.wait(timeout=30), daemon.log


def test_a_check_looks_at_certificates_and_rows_too(tmp_path: Path) -> None:
    federation = found(
        tmp_path, [Host("all", (("a0", "a"), ("a1", "a")), ("a",), coordinator=True), Host("other", baskets=("b",))]
    )
    daemon = federation.daemons["all"]
    write_rows(daemon.folder / "a0.csv", 0, 30, 1)
    status, words = checked(daemon)
    assert (status, words.splitlines()[-1]) == (0, "rows of its clients so far: a0 30, a1 0")
    (daemon.folder / "a1.csv").write_text("day,load\n1,2.0\n")
    status, words = checked(daemon)
    assert status == 2
    assert "a1.csv: columns ['price'] are missing" in words
    (daemon.folder / "a1.csv").unlink()
    certificate = daemon.folder / "keys" / "node.pem"
    certificate.write_bytes((tmp_path / "other" / "keys" / "node.pem").read_bytes())
    status, words = checked(daemon)
    assert status == 2
    assert "it is not the key of" in words
    certificate.unlink()
    status, words = checked(daemon)
    assert status == 2
    assert f"{certificate}: No such file" in words
    assert len(words.splitlines()) == 1
