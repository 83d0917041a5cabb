"""`scarcity outbox`, `status` and `stop` as they are called: what they print, and how they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import numpy as np
import pytest

from actors.transport import TransportStatistics
from scarcity.cli import main as cli
from scarcity.federation.codec import encode_packet
from scarcity.federation.packets import Body, GossipPull, Header, Packet, Release
from scarcity.node.setup.directory import sign_directory, write_directory
from scarcity.node.watch import control
from scarcity.node.watch.control import serve_control
from scarcity.node.watch.logs import RepeatLimit
from scarcity.node.watch.outbox import Outbox
from scarcity.node.watch.status import status_of
from tests.keys_world import OPERATOR, directory, federation_toml, key_of, public

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.GROUP]
NODE = """\
name = "spoke"
federation = "federation.toml"
roster = "roster.json"
listen = "127.0.0.1:0"
data_dir = "data"
security = "plaintext"
key = "node.key"
[[client]]
id = "h1"
key = "h1.key"
source = "h1.csv"
time = "t"
"""


@pytest.fixture(autouse=True)
def _declared_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, value, cli.GROUP) for name, value in DECLARED.items()}
    monkeypatch.setattr(cli, "entry_points", lambda: points)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node's files; its epoch has expired long ago, which changes nothing of what left."""
    federation_toml(tmp_path)
    write_directory(tmp_path / "roster.json", sign_directory(directory(expires_at=1000.0), OPERATOR))
    (tmp_path / "data").mkdir()
    path = tmp_path / "node.toml"
    path.write_text(NODE)
    return path


@pytest.fixture
def listed(config: Path) -> Path:
    path = config.parent / "data" / "outbox.jsonl"
    outbox = Outbox(path, key_of("node spoke"), lambda: 0.0)
    bodies: list[Body] = [Release(b"", np.arange(3), 1), GossipPull(()), GossipPull(())]
    for round_id, body in enumerate(bodies):
        packet = Packet(Header("kenya-health", 1, "basket/kenya", round_id, "h1"), body)
        outbox.record("h1", "basket/kenya", "hub", packet, encode_packet(packet))
    outbox.close()
    return path


def run(*arguments: object) -> int:
    return cli.run(cli.scarcity, [str(argument) for argument in arguments])


def test_the_outbox_shows_totals_records_and_that_the_list_holds(
    config: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("outbox", "--config", config, "--verify", "--last", 1) == 0
    text = capsys.readouterr().out
    assert [line.split()[:4] for line in text.splitlines()[1:3]] == [
        ["gossip-pull", "basket/kenya", "hub", "2"],
        ["release", "basket/kenya", "hub", "1"],
    ]
    assert text.count(" h1 -> basket/kenya on hub: ") == 1
    assert text.endswith("3 records; every signature and the chain hold\n")
    assert run("outbox", "--config", config, "--kind", "release", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["num_records"], said["whole"], len(said["records"])) == (3, True, 1)
    assert said["records"][0]["shapes"] == [[3]]


def test_a_kind_that_no_record_has_is_answered_with_those_there_are(
    config: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("outbox", "--config", config, "--kind", "nonsense") == 0
    assert "no record is of that kind; there are gossip-pull, release\n" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "-inf"])
@pytest.mark.parametrize("command", [("status", "--wait-round", 1), ("stop", "--wait")])
def test_a_timeout_that_no_clock_reaches_is_wrong_use(command: tuple[object, ...], seconds: str, config: Path) -> None:
    assert run(*command, "--config", config, "--timeout", seconds) == 2


@pytest.mark.parametrize("stderr_too", [False, True])
def test_output_that_cannot_be_written_is_one_line_and_a_status(config: Path, listed: Path, stderr_too: bool) -> None:
    call = f"main.run(outbox.outbox, ['--config', {str(config)!r}])"
    code = f"import sys\nfrom scarcity.cli import main, outbox\nsys.exit({call})"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        errors = full if stderr_too else subprocess.PIPE
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=errors, check=False, text=True
        )
    assert done.returncode == 1
    if not stderr_too:
        assert done.stderr == "scarcity: the output cannot be written: No space left on device\n"


def test_an_auditor_needs_the_list_and_the_public_key_alone(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("outbox", "--file", listed, "--key", public("node spoke").hex(), "--verify") == 0
    assert run("outbox", "--file", listed, "--key", public("node hub").hex(), "--verify") == 1
    assert "broken: " in capsys.readouterr().out
    assert run("outbox", "--file", listed, "--key", "beef") == 2
    assert run("outbox", "--file", listed) == 2


def test_a_broken_list_is_status_1_and_says_where(
    config: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = listed.read_bytes().splitlines(keepends=True)
    listed.write_bytes(lines[0] + lines[2])
    assert run("outbox", "--config", config) == 1
    assert f"broken: {listed}, line 2: the chain breaks here" in capsys.readouterr().out
    assert run("outbox", "--config", config, "--json") == 1
    assert json.loads(capsys.readouterr().out)["whole"] is False
    listed.unlink()
    assert run("outbox", "--config", config) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def _status() -> Mapping[str, Any]:
    return status_of(
        node="spoke",
        pid=1,
        federation="kenya-health",
        federation_digest=bytes(32),
        epoch=1,
        now=10.0,
        started_at=0.0,
        listening="",
        transport=TransportStatistics({}),
        link_changed_at={},
        members=(),
        node_of=str,
        seen_at={},
        refusals={},
    ).to_json()


@pytest.fixture
def asked(config: Path) -> Iterator[list[str]]:
    """A control socket in another thread, as the daemon has it in another process; what it was asked."""
    heard: list[str] = []

    def answer(command: str) -> Mapping[str, Any]:
        heard.append(command)
        return _status() if command == "status" else {"stopping": True}

    with anyio.from_thread.start_blocking_portal() as portal:
        future, _ = portal.start_task(_serve, config.parent / "data" / "control.sock", answer)
        yield heard
        future.cancel()


async def _serve(path: Path, answer: Any, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await serve_control(path, answer, task_status=task_status)


def test_status_is_shown_as_text_and_as_json(
    config: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", "--config", config) == 0
    assert "node spoke of kenya-health, epoch 1, up 10 s, dials out only" in capsys.readouterr().out
    assert run("status", "--config", config, "--json") == 0
    assert json.loads(capsys.readouterr().out)["node"] == "spoke"
    assert run("stop", "--config", config) == 0
    assert asked == ["status", "status", "stop"]


def test_a_wait_that_ends_is_followed_by_the_status(
    config: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", "--config", config, "--wait-epoch", 1) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("node spoke of kenya-health, epoch 1, up 10 s")
    assert captured.err == ""
    assert set(asked) == {"status"}


def test_a_wait_in_vain_is_status_1_with_the_reason(
    config: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", "--config", config, "--wait-round", 1, "--timeout", 0) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scarcity: not reached within 0 s: waiting for a model of round 1 or later; ")
    assert asked == ["status"]


def test_a_timeout_needs_something_to_wait_for(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--config", config, "--timeout", 5) == 2
    assert "give --wait-round N or --wait-epoch N" in capsys.readouterr().err


def test_stop_wait_gives_up_at_its_deadline(config: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stop", "--config", config, "--wait", "--timeout", 0.05) == 1
    assert capsys.readouterr().err == "scarcity: still there after 0.05 s\n"
    assert asked == ["stop"]


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("stop",), ("stop", "--wait")])
def test_without_a_daemon_there_is_one_line_and_status_1(
    config: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--config", config) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("no daemon runs here\n")
    assert len(captured.err.splitlines()) == 1


def test_the_page_of_the_outbox_names_every_key_of_a_record(listed: Path) -> None:
    page = (ROOT / "docs" / "reference" / "outbox.md").read_text()
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert named == set(json.loads(listed.read_bytes().splitlines()[0]))


def test_the_page_of_the_status_names_the_bounds_as_they_are() -> None:
    page = (ROOT / "docs" / "reference" / "status.md").read_text()
    limit = RepeatLimit()
    for text in (
        f"| question | {control.REQUEST_BYTES_MAX} bytes, {control.REQUEST_S:g} s |",
        f"| answer | {control.ANSWER_BYTES_MAX >> 20} MiB |",
        f"| who ask at once | {control.CLIENTS_MAX} |",
        f"alike {limit.warnings} are written in a minute, of other messages {limit.notices}",
    ):
        assert text in page
