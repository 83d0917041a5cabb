"""The outbox of a node: what it says of a packet, what it survives, and how it shows that somebody changed it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import SigningKey

from scarcity.errors import OutboxCorrupt, OutboxError
from scarcity.federation.codec import encode_packet
from scarcity.federation.packets import (
    BasketReport,
    Body,
    GossipPull,
    GossipPush,
    Header,
    Model,
    Packet,
    Release,
    SecureSum,
)
from scarcity.node.journal import MemoryJournal
from scarcity.node.watch.outbox import DURABLE, Outbox, iterate_outbox, read_outbox
from scarcity.privacy import GaussianEvent, PrivacyFilter, PrivacyParams
from scarcity.privacy.ledger import encode_record

ROOT = Path(__file__).parents[2]
KEY = SigningKey(bytes(range(32)))
PUBLIC = KEY.verify_key.encode()
RELEASE = Release(b"", np.arange(5, dtype=np.int64), 7)


def packet(body: Body, round_id: int = 3, sender: str = "a/h1") -> Packet:
    return Packet(Header("fed", 1, "basket/a", round_id, sender), body)


def note(outbox: Outbox, body: Body, round_id: int = 3) -> None:
    each = packet(body, round_id)
    outbox.record("a/h1", "basket/a", "beta", each, encode_packet(each))


def opened(path: Path) -> Outbox:
    return Outbox(path, KEY, lambda: 1_700_000_000.25)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


def fill(path: Path, count: int = 4) -> list[bytes]:
    outbox = opened(path)
    for index in range(count):
        note(outbox, GossipPull((("release", index, (f"c{index}",)),)))
    outbox.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_record_says_who_what_and_how_large_and_is_signed(path: Path) -> None:
    outbox = opened(path)
    note(outbox, RELEASE)
    note(outbox, SecureSum(b"not one of ours"))
    note(outbox, BasketReport(30.0, 3, 4.0))
    note(outbox, Model(3, b"", np.ones(2), 1.0, 3, 0.5, b""))
    pushed = encode_packet(packet(RELEASE))
    note(outbox, GossipPush((pushed,)))
    release, secret, report, model, push = read_outbox(path, PUBLIC)
    assert (release.sender, release.to, release.node, release.kind) == ("a/h1", "basket/a", "beta", "release")
    assert (release.round_id, release.shapes, release.at) == (3, ((5,),), "2023-11-14T22:13:20.250+00:00")
    assert release.size_bytes == len(encode_packet(packet(RELEASE)))
    assert release.noise is None
    assert release.charge == ""
    assert (secret.kind, secret.shapes) == ("secure-sum", ((15,),))
    assert (report.noise, model.noise, model.shapes) == (2.0, 0.5, ((2,),))
    assert push.carries == ("release of a/h1, round 3",)
    assert push.shapes == ((5,),)


def test_the_digest_is_what_b2sum_gives(path: Path) -> None:
    outbox = opened(path)
    note(outbox, RELEASE)
    done = subprocess.run(["b2sum", "-l", "256"], input=encode_packet(packet(RELEASE)), capture_output=True, check=True)
    assert read_outbox(path, PUBLIC)[0].digest == done.stdout.split()[0].decode()


def test_the_charge_of_a_contribution_is_told_by_the_members_journal(path: Path) -> None:
    outbox, journal = opened(path), MemoryJournal()
    ledger = PrivacyFilter(PrivacyParams(1.0, 1e-6), ledger_id="ab")
    early = ledger.reserve(GaussianEvent(9.0, 1.0), "fed/2/a/h1/layer 1", "layer 1")[1]
    journal.append("ledger", "ab", encode_record(early))
    watched = outbox.watch("a/h1", journal)
    late = ledger.reserve(GaussianEvent(8.0, 1.5), "fed/3/a/h1/layer 1", "layer 1")[1]
    watched.append("ledger", "ab", encode_record(late))
    assert len(journal.entries("ledger")) == 2
    note(outbox, RELEASE, 2)
    note(outbox, RELEASE, 3)
    note(outbox, RELEASE, 4)
    note(outbox, GossipPull(()), 3)
    old, new, free, pull = read_outbox(path, PUBLIC)
    assert old.noise == 9.0
    assert (new.noise, new.charge) == (8.0, "layer 1: Gaussian, sigma 8, sensitivity 1.5, unit client")
    assert (free.charge, pull.charge) == ("", "")


def test_a_list_goes_on_where_it_ended(path: Path) -> None:
    fill(path, 2)
    outbox = opened(path)
    assert (len(outbox), outbox.num_torn, outbox.size_bytes) == (2, 0, path.stat().st_size)
    note(outbox, RELEASE)
    assert [record.seq for record in read_outbox(path, PUBLIC)] == [0, 1, 2]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [1, 17, -1])
def test_a_torn_last_line_is_cut_off_and_counted(path: Path, left: int) -> None:
    lines = fill(path, 3)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:left])
    assert len(read_outbox(path, PUBLIC)) == 2
    outbox = opened(path)
    assert (len(outbox), outbox.num_torn) == (2, 1)
    note(outbox, RELEASE)
    assert len(read_outbox(path, PUBLIC)) == 3


def test_one_process_holds_the_file(path: Path) -> None:
    outbox = opened(path)
    with pytest.raises(OutboxError, match="another process"):
        opened(path)
    outbox.close()
    opened(path).close()


def test_a_list_of_another_key_is_not_continued(path: Path) -> None:
    fill(path)
    with pytest.raises(OutboxCorrupt, match="line 4: not signed by the key"):
        Outbox(path, SigningKey.generate(), lambda: 0.0)


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_changed_removed_or_exchanged_line_is_found_where_it_stands(path: Path, index: int) -> None:
    lines = fill(path)
    fields = json.loads(lines[index])
    fields["to"] = "basket/b"
    forged = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    changed = [*lines[:index], forged, *lines[index + 1 :]]
    path.write_bytes(b"".join(changed))
    with pytest.raises(OutboxCorrupt, match=rf"line {index + 1}: not signed"):
        read_outbox(path, PUBLIC)
    with pytest.raises(OutboxCorrupt, match=rf"line {min(index + 2, 4)}: "):
        opened(path)
    path.write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
    if index < 3:
        with pytest.raises(OutboxCorrupt, match=rf"line {index + 1}: the chain breaks"):
            opened(path)


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[]\n", b"\xff\n", b'{"v":1}\n', b"[" * 5000 + b"\n", b"\0" * 40 + b"\n", b"1" * (1 << 21)],
)
def test_garbage_is_refused_with_its_line(path: Path, line: bytes) -> None:
    lines = fill(path, 2)
    path.write_bytes(b"".join(lines) + line + lines[0])
    with pytest.raises(OutboxCorrupt, match="line 3"):
        opened(path)
    with pytest.raises(OutboxCorrupt, match="line 3"):
        list(iterate_outbox(path, None))


def test_the_same_fields_in_another_form_are_refused(path: Path) -> None:
    lines = fill(path, 1)
    path.write_bytes(json.dumps(json.loads(lines[0])).encode() + b"\n")
    with pytest.raises(OutboxCorrupt, match="line 1: not in the form"):
        read_outbox(path, PUBLIC)
    with pytest.raises(OutboxCorrupt, match="line 1: "):
        opened(path)


def test_what_carries_learnt_numbers_is_forced_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, synced = opened(path), list[int]()
    monkeypatch.setattr(os, "fsync", synced.append)
    note(outbox, GossipPull(()))
    assert not synced
    note(outbox, RELEASE)
    assert len(synced) == 1
    assert {Release, SecureSum, BasketReport, Model} < set(DURABLE)


def test_on_a_full_disk_nothing_of_the_record_stays_and_the_packet_does_not_leave(path: Path) -> None:
    """A limit on the size of files is how a test has a full disk: a part is written, then nothing."""
    outbox = opened(path)
    note(outbox, RELEASE)
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for room in (0, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
            with pytest.raises(OutboxError, match="the packet stays here"):
                note(outbox, RELEASE)
            assert path.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    note(outbox, RELEASE)
    assert len(read_outbox(path, PUBLIC)) == 2


_KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.test_host_outbox import note, opened, GossipPull
outbox = opened(Path({path!r}))
for number in range(1000):
    note(outbox, GossipPull(()), number)
    os.write(1, b"left\\n")
"""


def test_a_killed_process_has_listed_everything_that_left(path: Path) -> None:
    code = _KILLED.format(root=str(ROOT), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(50)]
        process.kill()
        num_left = len(heard) + process.stdout.read().count(b"left\n")
    records = read_outbox(path, PUBLIC)
    assert num_left <= len(records) <= num_left + 1
    assert len(opened(path)) == len(records)
