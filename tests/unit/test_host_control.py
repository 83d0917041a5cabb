"""The control socket: one line in, one line out, for its owner alone, whatever is said to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from scarcity.errors import ConfigError, FederationError, NodeNotRunning, NodeRunning
from scarcity.node.watch import control
from scarcity.node.watch.control import CLIENTS_MAX, REQUEST_BYTES_MAX, ask_control, serve_control, stop_and_wait

ROOT = Path(__file__).parents[2]


def answer(command: str) -> Mapping[str, Any]:
    if command == "status":
        return {"node": "alpha"}
    if command == "bug":
        raise ZeroDivisionError
    raise ConfigError(f"unknown command {command!r}; known are status, stop")


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        await group.start(serve_control, path, answer)
        yield
        group.cancel_scope.cancel()


async def ask(path: Path, command: str) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(ask_control, path, command)


async def say(path: Path, data: bytes) -> Any:
    async with await anyio.connect_unix(path) as stream:
        with contextlib.suppress(anyio.BrokenResourceError):  # it may have said already why it does not listen
            await stream.send(data)
        heard = b""
        while not heard.endswith(b"\n"):
            heard += await stream.receive()
        return json.loads(heard)


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.mark.anyio
async def test_a_question_is_answered_and_the_socket_goes_with_its_daemon(path: Path) -> None:
    async with served(path):
        assert await ask(path, "status") == {"node": "alpha"}
        assert mode(path) == 0o600
        assert names(path.parent) == ["control.sock"]
        with pytest.raises(FederationError, match="the daemon: unknown command 'fly'; known are status, stop"):
            await ask(path, "fly")
    assert names(path.parent) == []
    with pytest.raises(NodeNotRunning, match="no daemon runs here"):
        ask_control(path, "status")


@pytest.mark.anyio
async def test_a_bug_in_an_answer_does_not_end_the_daemon(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(path):
        assert (await say(path, b'{"command": "bug"}\n'))["error"].startswith("the daemon failed")
        assert await ask(path, "status") == {"node": "alpha"}
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"status\n",
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b'["status"]\n',
        b'{"command": 1}\n',
        b'{"command": "status", "more": 1}\n',
        b'{"command": "status"}\n{"command": "status"}\n',
        b"x" * (REQUEST_BYTES_MAX + 2),
    ],
)
async def test_garbage_is_answered_with_an_error(path: Path, data: bytes) -> None:
    async with served(path):
        assert "expected" in (await say(path, data))["error"]
        assert await ask(path, "status") == {"node": "alpha"}


@pytest.mark.anyio
async def test_who_leaves_in_the_middle_or_never_reads_harms_nobody(path: Path) -> None:
    async with served(path):
        for data in (b"", b'{"comm', b'{"command": "status"}\n'):
            stream = await anyio.connect_unix(path)
            if data:
                await stream.send(data)
            await stream.aclose()
        assert await ask(path, "status") == {"node": "alpha"}


@pytest.mark.anyio
async def test_a_half_question_is_given_up_after_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_S", 0.05)
    async with served(path):
        assert "expected one line" in (await say(path, b'{"command": "sta'))["error"]


@pytest.mark.anyio
async def test_many_ask_at_once_and_more_than_the_bound_are_told_to_come_again(path: Path) -> None:
    async with served(path):
        idle = [await anyio.connect_unix(path) for _ in range(CLIENTS_MAX)]
        said = {}
        while "error" not in said:  # until all idle ones have been taken in
            said = await say(path, b'{"command": "status"}\n')
        assert "come again" in said["error"]
        for stream in idle:
            await stream.aclose()
        while "error" in said:
            said = await say(path, b'{"command": "status"}\n')
        async with anyio.create_task_group() as group:
            for _ in range(CLIENTS_MAX - 2):
                group.start_soon(say, path, b'{"command": "status"}\n')


@pytest.mark.anyio
async def test_the_socket_of_a_dead_daemon_is_replaced_and_a_live_one_refused(path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with served(path):
        assert await ask(path, "status") == {"node": "alpha"}
        with pytest.raises(NodeRunning, match=f"a daemon runs already, pid {os.getpid()}"):
            await serve_control(path, answer)
        assert await ask(path, "status") == {"node": "alpha"}


@pytest.mark.anyio
async def test_a_place_that_cannot_hold_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("rows")
    for place, why in (
        (taken, "no socket"),
        (tmp_path / "absent" / "s", "No such file"),
        (tmp_path / ("x" * 100), "107 bytes"),
    ):
        with pytest.raises(ConfigError, match=why):
            await serve_control(place, answer)
    assert taken.read_text() == "rows"
    assert names(tmp_path) == ["taken"]


def test_what_is_no_daemon_of_ours_is_said_so(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(FederationError, match=r"did not answer within 0\.05 s"):
            ask_control(path, "status", timeout_s=0.05)
    path.unlink()
    path.write_text("rows")
    with pytest.raises(NodeNotRunning):
        ask_control(path, "status")


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        (b"", NodeNotRunning, "ended before it answered"),
        (b"hello\n", FederationError, "no daemon of ours"),
        (b"[]\n", FederationError, "no daemon of ours"),
        (b'{"error": "no"}\n', FederationError, "the daemon: no"),
    ],
)
def test_an_answer_that_is_none_is_an_error(path: Path, said: bytes, error: type[Exception], why: str) -> None:
    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(REQUEST_BYTES_MAX)
            peer.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with pytest.raises(error, match=why):
            ask_control(path, "status")
        server.join()


_DAEMON = """
import sys; sys.path.insert(0, {root!r})
import anyio
from pathlib import Path
from scarcity.node.watch.control import serve_control

async def main():
    stop = anyio.Event()
    def answer(command):
        if command == "stop" and {stops}:
            stop.set()
        return {{"said": command}}
    async with anyio.create_task_group() as group:
        await group.start(serve_control, Path({path!r}), answer)
        print("ready", flush=True)
        await stop.wait()
        group.cancel_scope.cancel()

anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize(("backend", "stops"), [("asyncio", True), ("trio", True), ("asyncio", False)])
def test_stop_is_answered_and_waits_until_the_process_is_gone(path: Path, backend: str, stops: bool) -> None:
    code = _DAEMON.format(root=str(ROOT), path=str(path), backend=backend, stops=stops)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert stop_and_wait(path, timeout_s=20.0 if stops else 0.05) is stops
        if stops:
            assert process.wait(5) == 0
            with pytest.raises(NodeNotRunning):
                stop_and_wait(path, timeout_s=1.0)
        process.kill()
