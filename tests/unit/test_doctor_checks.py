"""Every check of `scarcity doctor`, on machines that we do not have."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

import pytest

from scarcity.cli import doctor as checks
from scarcity.cli.doctor import Finding, doctor
from scarcity.cli.main import run

FORWARD = [1.0, 1.0, 1.1]
NOW = 1_790_000_000.0


def state(finding: Finding) -> str:
    assert (finding.fix == "") is (finding.state == "ok"), "what is not ok has a way out"
    return finding.state


@pytest.mark.parametrize(
    ("running", "expected"), [((3, 10, 14), "failed"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok"), ((2, 7, 18), "failed")]
)
def test_an_old_python_fails(running: tuple[int, ...], expected: str) -> None:
    assert state(checks.check_python(running)) == expected


@pytest.mark.parametrize(("installed", "expected"), [("0.1.0", "ok"), (None, "warning"), ("0.0.9", "failed")])
def test_what_runs_is_what_is_installed(installed: str | None, expected: str) -> None:
    assert state(checks.check_ours(installed, "0.1.0")) == expected


NEEDED = ["anyio>=4.6", "msgpack>=1.1", "rich>=13.7", "pandas>=2.2; extra == 'demo'"]


def packages(have: dict[str, str]) -> Finding:
    return checks.check_packages(NEEDED, have.get)


def test_packages_that_are_there_are_listed_and_extras_are_not_missed() -> None:
    finding = packages({"anyio": "4.10.0", "msgpack": "1.1", "rich": "14.0"})
    assert state(finding) == "ok"
    assert finding.found == "anyio 4.10.0, msgpack 1.1, rich 14.0"


def test_packages_that_are_missing_or_old_are_named_with_what_is_needed() -> None:
    finding = packages({"anyio": "4.5.9", "rich": "13.10.1rc1"})
    assert state(finding) == "failed"
    assert finding.found == "anyio 4.5.9 (needs 4.6), msgpack missing (needs 1.1)"
    assert finding.fix == "pip install --upgrade anyio msgpack"


def test_packages_of_a_tree_that_is_not_installed_are_unknown() -> None:
    assert state(checks.check_packages(None, lambda _: None)) == "warning"


def test_the_other_package_of_our_name_fails() -> None:
    assert state(checks.check_namesake(None)) == "ok"
    finding = checks.check_namesake("0.3.0")
    assert state(finding) == "failed"
    assert "pip uninstall scarcity" in finding.fix


@pytest.mark.parametrize(
    ("wall", "readings", "expected"),
    [
        (NOW, FORWARD, "ok"),
        (0.0, FORWARD, "failed"),
        (9e9, FORWARD, "failed"),
        (float("nan"), FORWARD, "failed"),
        (NOW, [1.0, 0.9, 1.1], "failed"),
        (NOW, [1.0, 1.0, 1.0], "failed"),
    ],
)
def test_clocks_that_are_wrong_stand_still_or_go_back_fail(wall: float, readings: list[float], expected: str) -> None:
    assert state(checks.check_clock(wall, readings)) == expected


@pytest.mark.parametrize(
    ("samples", "ready", "expected"),
    [
        ((b"a" * 32, b"b" * 32), True, "ok"),
        ((b"a" * 32, b"b" * 32), None, "ok"),
        ((b"a" * 32, b"b" * 32), False, "failed"),
        ((b"a" * 32, b"a" * 32), True, "failed"),
    ],
)
def test_entropy_that_blocks_or_repeats_fails(samples: tuple[bytes, bytes], ready: bool | None, expected: str) -> None:
    assert state(checks.check_entropy(samples, ready)) == expected


@pytest.mark.parametrize(
    ("filesystem", "fsyncs_s", "expected"),
    [
        ("ext4", [2e-4, 3e-3, 4e-3], "ok"),
        ("", [2e-4], "ok"),
        ("ext4", [1e-6, 1e-6, 4e-3], "warning"),
        ("tmpfs", [1e-3], "warning"),
        ("nfs4", [1e-3], "warning"),
        ("ext4", OSError(errno.EROFS, "Read-only file system"), "failed"),
    ],
)
def test_a_disk_that_forgets_is_a_warning_and_one_that_refuses_fails(
    filesystem: str, fsyncs_s: list[float] | OSError, expected: str
) -> None:
    assert state(checks.check_disk(Path("/srv"), filesystem, fsyncs_s)) == expected


MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /srv tmpfs rw 0 0\n/dev/vdb /srv/my\\040data xfs rw 0 0\n\nbroken\n"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/a", "ext4"), ("/srv", "tmpfs"), ("/srv/x", "tmpfs"), ("/srv/my data/x", "xfs"), ("/srvx", "ext4")],
)
def test_the_filesystem_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert checks.filesystem_of(Path(path), MOUNTS) == kind
    assert checks.filesystem_of(Path(path), "") == ""


@pytest.mark.parametrize(("limit", "expected"), [(1024, "ok"), (256, "warning"), (16, "failed"), (None, "warning")])
def test_too_few_open_files_fail_and_few_are_a_warning(limit: int | None, expected: str) -> None:
    assert state(checks.check_files(limit)) == expected


@pytest.mark.parametrize(
    ("refusal", "word"),
    [(OSError(errno.EADDRINUSE, "Address already in use"), "another --port"), (PermissionError(13, "no"), "1024")],
)
def test_a_port_that_cannot_be_bound_fails(refusal: OSError, word: str) -> None:
    finding = checks.check_port(80, refusal)
    assert state(finding) == "failed"
    assert word in finding.fix
    assert state(checks.check_port(0, None)) == "ok"


def test_this_machine_is_examined_and_warnings_leave_the_status_at_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(doctor, ["--dir", str(tmp_path), "--json"])
    findings = [Finding(**each) for each in json.loads(capsys.readouterr().out)]
    assert status == int(any(finding.state == "failed" for finding in findings))
    assert {finding.check: state(finding) for finding in findings}["clock"] == "ok"
    assert len(findings) == 9


def test_a_port_that_is_taken_and_a_directory_that_is_not_there_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(doctor, ["--dir", "/gone", "--port", str(port)]) == 1  # short: a long path wraps in its column
    text = capsys.readouterr().out
    assert f"port {port}: Address" in text
    assert "No such file or directory" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_port_out_of_range_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(doctor, ["--port", "70000"]) == 2
    assert capsys.readouterr().err == "scarcity: port must lie in 0..65535 (0: any), got 70000\n"
