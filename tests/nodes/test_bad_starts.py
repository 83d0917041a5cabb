"""A daemon that cannot start says why in one line, with the file that has to be mended, and ends with a status."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scarcity.cli.keys import keys
from scarcity.cli.main import run
from scarcity.cli.node import node
from scarcity.engine.vector import vector_dimension
from scarcity.federation.codec import encode_packet
from scarcity.federation.packets import LAYER2, Header, Model, Packet
from scarcity.node.daemon import JOURNAL, OUTBOX
from scarcity.node.setup.config import read_node_config
from tests.nodes_world import _RUN, ROOT, Daemon, Federation, Host, command, found, write_rows

CLIENTS = (("a0", "a"), ("a1", "a"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation in which one host has everything but the coordinator; nobody breaks this one."""
    hosts = [Host("hub", coordinator=True), Host("site", CLIENTS, ("a",))]
    federation = found(tmp_path_factory.mktemp("bad"), hosts, settings={"min_clients": 2})
    for number in range(2):
        write_rows(federation.daemons["site"].folder / f"a{number}.csv", 0, 40, number)
    return federation


@pytest.fixture
def site(made: Federation, tmp_path: Path) -> Iterator[Daemon]:
    """A copy of a host's folder, to be spoilt."""
    original = made.daemons["site"]
    shutil.copytree(original.folder, tmp_path / "site")
    daemon = Daemon(tmp_path / "site", int(original.address.rpartition(":")[2]))
    yield daemon
    if daemon.is_up:
        daemon.kill()


def refused(capsys: pytest.CaptureFixture[str], daemon: Daemon, *words: object) -> None:
    """Its files are found wrong before anything starts: one line, a status, and these words in the line."""
    assert run(node, ["--config", str(daemon.config)]) == 2
    said(capsys.readouterr().err, *words)
    assert not daemon.data.exists()


def ended(daemon: Daemon, *words: object) -> None:
    """The process ends by itself; its last line has these words, and none of its lines is a traceback."""
    begin = [sys.executable, "-c", _RUN, "--config", str(daemon.config)]
    done = subprocess.run(begin, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert "Traceback" not in done.stderr
    assert 0 < done.returncode < 100, done.stderr
    said(done.stderr.splitlines()[-1] + "\n", *words)


def said(text: str, *words: object) -> None:
    assert text.startswith("scarcity: ")
    assert text.count("\n") == 1, text
    for word in words:
        assert str(word) in text


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def up(daemon: Daemon, lives: int = 1) -> None:
    daemon.start()
    deadline = time.monotonic() + 20
    while daemon.log.count(" is up with ") < lives:
        assert daemon.is_up, daemon.log
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)


def test_an_unreadable_config_is_named_with_line_and_key(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    change(site.config, "listen =", "lisen =")
    refused(capsys, site, site.config, "lisen", "listen")


def test_a_config_that_is_no_toml_is_named(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    site.config.write_bytes(b"\xff\x00 not toml")
    refused(capsys, site, site.config)


def test_plaintext_on_an_address_of_a_network_is_refused(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    change(site.config, site.address, "0.0.0.0:7000")
    change(site.config, '"mtls"', '"plaintext"')
    refused(capsys, site, site.config, "listen", "plaintext", "loopback")


def test_a_key_that_is_not_on_the_roster_is_refused(
    capsys: pytest.CaptureFixture[str], site: Daemon, made: Federation
) -> None:
    shutil.copy(made.daemons["hub"].folder / "keys" / "node.key", site.folder / "keys" / "node.key")
    refused(capsys, site, site.folder / "roster.json", "another key")


def test_a_federation_file_of_another_federation_is_refused(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    change(site.folder / "federation.toml", '"test"', '"other"')
    refused(capsys, site, site.folder / "roster.json", "'test'", "'other'")


def test_clean_vectors_over_a_network_are_refused(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    change(site.folder / "federation.toml", 'mode = "local"', 'mode = "none"')
    refused(capsys, site, "none", "clean vectors")


def test_an_expired_roster_is_refused(
    capsys: pytest.CaptureFixture[str], site: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_two_years = time.time() + 2 * 365 * 86400
    monkeypatch.setattr("scarcity.cli.node.time.time", lambda: in_two_years)
    refused(capsys, site, site.folder / "roster.json", "expired on")


def test_an_altered_roster_is_refused(capsys: pytest.CaptureFixture[str], site: Daemon) -> None:
    roster = site.folder / "roster.json"
    change(roster, '"a0"', '"a9"')
    refused(capsys, site, roster, "signature")


def test_a_port_that_is_in_use_is_named(site: Daemon) -> None:
    with socket.create_server(("127.0.0.1", int(site.address.rpartition(":")[2]))):
        ended(site, site.config, site.address, "in use")


def test_a_second_daemon_on_one_data_dir_is_refused_and_the_first_goes_on(site: Daemon) -> None:
    up(site)
    ended(site, site.data / JOURNAL, "held by another process")
    assert site.status()["node"] == "site"
    assert site.end(signal.SIGTERM) == 0
    assert site.log.splitlines()[-1].endswith("site finishes")


def test_an_epoch_older_than_one_that_was_in_force_is_refused(site: Daemon, made: Federation) -> None:
    operator, old = site.folder.parent / "operator", (site.folder / "roster.json").read_bytes()
    shutil.copytree(made.operator, operator)
    newer = operator / "roster.json"
    command(keys, "roster", "sign", newer, "--federation-dir", operator / "keys")
    shutil.copy(newer, site.folder / "roster.json")
    up(site)
    assert site.end(signal.SIGTERM) == 0
    (site.folder / "roster.json").write_bytes(old)
    ended(site, site.folder / "roster.json", "epoch 1", "epoch 2 was in force")


def test_a_damaged_journal_is_named_and_so_is_a_damaged_outbox(site: Daemon) -> None:
    up(site)
    assert site.end(signal.SIGTERM) == 0
    outbox, journal = site.data / OUTBOX, site.data / JOURNAL
    whole = outbox.read_bytes()
    outbox.write_bytes(b'{"v":1}\n' + whole)
    ended(site, outbox, "line 1")
    outbox.write_bytes(whole)
    with sqlite3.connect(journal) as connection:
        connection.execute("INSERT INTO entry (kind, key, payload) VALUES ('a0:contribution', '1', x'00')")
    connection.close()
    ended(site, journal, "member a0", "contribution")
    journal.write_bytes(b"this is no database at all, but it is long enough to be looked at".ljust(4096))
    for extra in site.data.glob(f"{JOURNAL}-*"):
        extra.unlink()
    ended(site, journal, "damaged")


def test_a_damaged_record_of_any_kind_is_named_with_its_journal(site: Daemon) -> None:
    up(site)
    assert site.end(signal.SIGTERM) == 0
    journal = site.data / JOURNAL
    whole = journal.read_bytes()
    damaged = [
        ("directory", b"\xff\x00", "directory"),
        ("a0:sum-mark", b"\xff\x00", "member a0"),
        ("basket/a:sum-mark", b"\x93\x01\x02\x03", "member basket/a"),
        ("a1:rows", b"\x91\x01", "member a1"),
        ("basket/a:sum-opened", b"\x93", "member basket/a"),
        ("a1:model", b"\xff\x00", "member a1"),
    ]
    for kind, payload, words in damaged:
        for extra in site.data.glob(f"{JOURNAL}-*"):
            extra.unlink()
        journal.write_bytes(whole)
        with sqlite3.connect(journal) as connection:
            connection.execute("DELETE FROM entry WHERE kind = ?", (kind,))
            connection.execute("INSERT INTO entry (kind, key, payload) VALUES (?, '1', ?)", (kind, payload))
        connection.close()
        ended(site, journal, words, kind.rpartition(":")[2])


def test_a_budget_is_not_forgotten_with_the_journal_or_with_a_key(site: Daemon) -> None:
    up(site)
    assert site.end(signal.SIGTERM) == 0
    outbox, journal = site.data / OUTBOX, site.data / JOURNAL
    with sqlite3.connect(journal) as connection:
        connection.execute("UPDATE entry SET payload = zeroblob(32) WHERE kind = 'ledger-key' AND key = 'a0'")
    connection.close()
    ended(site, journal, "'a0' has spent of the ledger of key 0000", "restore the .key file")
    for path in site.data.glob(f"{JOURNAL}*"):
        path.unlink()
    outbox.write_bytes(b"{}\n")
    for _ in range(2):
        ended(site, journal, "the journal of what was spent is gone", "restore it", "move the outbox away")


def test_a_node_that_holds_a_model_it_cannot_add_starts_and_says_so(site: Daemon) -> None:
    up(site)
    assert site.end(signal.SIGTERM) == 0
    schema = read_node_config(site.config).federation.schema
    size = vector_dimension(schema, "differenced")
    model = Model(1, schema.hash, np.zeros(size), 10.0, 2, 1e308, bytes(32))
    payload = encode_packet(Packet(Header("test", 1, LAYER2, 1, "coordinator"), model, bytes(64)))
    with sqlite3.connect(site.data / JOURNAL) as connection:
        for member in ("a0", "basket/a"):
            connection.execute(
                "INSERT INTO entry (kind, key, payload) VALUES (?, '1', ?)", (f"{member}:model", payload)
            )
    connection.close()
    up(site, lives=2)
    assert site.status()["node"] == "site"
    assert site.log.count("the model of round 1 is left out of the model file") == 1
    assert "the learner cannot take the model of round 1" in site.log


def test_one_interrupt_drains_and_is_reported_as_an_interrupt(site: Daemon) -> None:
    up(site)
    assert site.end(signal.SIGINT) == 130
    assert "SIGINT: finishing" in site.log
    assert "Traceback" not in site.log


def test_a_second_signal_gives_up_what_waits(site: Daemon) -> None:
    up(site)
    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)  # both wait then, and come one after the other
    site.process.send_signal(signal.SIGINT)
    site.process.send_signal(signal.SIGTERM)
    assert site.end(signal.SIGCONT, 5.0) == 130
    assert " again: what waits is given up" in site.log
    assert "Traceback" not in site.log


def test_status_of_a_running_node_is_json_that_names_who_is_missing(site: Daemon) -> None:
    up(site)
    links = {link["node"]: link["up"] for link in json.loads(json.dumps(site.status()))["links"]}
    assert links == {"hub": False}
