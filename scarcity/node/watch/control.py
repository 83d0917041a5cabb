"""The control socket of a daemon: one JSON line in, one out, over a unix socket that only its owner may open.

    {"command": "status"}   ->  what the daemon answers, an object
    anything else           ->  {"error": "..."}

Who may open the socket may stop the node, so it is made for its owner alone (0600, and never for an instant more: it is
made in a folder of its own and then moved to its place). It trusts that owner and nobody else; all the same a question
has a bound in bytes and in time, and so has the number of those who ask at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from scarcity.errors import ConfigError, FederationError, NodeNotRunning, NodeRunning

REQUEST_BYTES_MAX: Final = 4096  # a command is a word
REQUEST_S: Final = 5.0  # from the connection to the end of the question; an answer may take as long to be read
ANSWER_BYTES_MAX: Final = 16 << 20  # the status of thousands of members takes a few
CLIENTS_MAX: Final = 16  # who ask at once; more are told to come again
_SOCKET_PATH_MAX: Final = 107  # bytes, of Linux's sockaddr_un without the closing zero
_LAST_ANSWER_S: Final = 1.0  # the answer to "stop" is sent while everything around it ends
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_POLL_S: Final = 0.1

Answer = Callable[[str], Mapping[str, Any]]
log = logging.getLogger("scarcity.node")


async def serve_control(
    path: Path, answer: Answer, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Answer at a socket until cancelled; the socket's file goes with it.

    Args:
        path: where the socket will be; one that a dead daemon left is replaced.
        answer: command -> an object for JSON; it must not block. A FederationError of it is the answer "error".
        task_status: told once the socket is there.

    Raises:
        NodeRunning: a daemon answers there already.
        ConfigError: there is something else, the path is too long, or it cannot be made.
    """
    _require_free(path)
    listener = await _listen(path)
    inode = _inode(path)
    clients = anyio.Semaphore(CLIENTS_MAX)
    try:
        async with listener:
            task_status.started()
            await listener.serve(lambda stream: _serve_client(stream, answer, clients))
    finally:
        _remove(path, inode)


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Remove the socket unless it is another daemon's by now."""
    with contextlib.suppress(OSError):
        if _inode(path) == inode:
            path.unlink()


@contextmanager
def _own_folder(beside: Path) -> Iterator[Path]:
    """Make a folder that its owner alone may enter, and remove it with what is still in it."""
    folder = Path(tempfile.mkdtemp(prefix=".c", dir=beside.parent))
    try:
        yield folder
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


async def _listen(path: Path) -> anyio.abc.SocketListener:
    try:
        with _own_folder(path) as folder:
            draft = folder / "s"
            if max(len(os.fsencode(path)), len(os.fsencode(draft))) > _SOCKET_PATH_MAX:
                raise ConfigError(f"{path}: a socket's path takes {_SOCKET_PATH_MAX} bytes: choose a shorter data_dir")
            listener = await anyio.create_unix_listener(draft, mode=0o600)
            os.rename(draft, path)  # noqa: PTH104 - one system call; the rule for async code flags Path's the same
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return listener


def _require_free(path: Path) -> None:
    """Refuse what is not a socket, and the socket of a daemon that lives."""
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not is_socket:
        raise ConfigError(f"{path}: there is a file of this name that is no socket")
    try:
        with _connected(path, REQUEST_S) as asker:
            pid = _peer_pid(asker)
    except NodeNotRunning:
        return
    except TimeoutError:
        pid = 0
    raise NodeRunning(f"{path}: a daemon runs already" + (f", pid {pid}" if pid else ""))


async def _serve_client(stream: anyio.abc.SocketStream, answer: Answer, clients: anyio.Semaphore) -> None:
    async with stream:
        try:
            clients.acquire_nowait()
        except anyio.WouldBlock:
            await _send(stream, {"error": f"{CLIENTS_MAX} are asking already: come again"})
            return
        try:
            said = _answered(await _request(stream), answer)
            await _send(stream, said)
        finally:
            clients.release()


async def _request(stream: anyio.abc.SocketStream) -> bytes:
    """Return the line, without its end; whatever came when it is too long, too slow or broken off."""
    data = b""
    with anyio.move_on_after(REQUEST_S), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while b"\n" not in data and len(data) <= REQUEST_BYTES_MAX:
            data += await stream.receive(REQUEST_BYTES_MAX)
    return data


def _answered(data: bytes, answer: Answer) -> Mapping[str, Any]:
    line, end, rest = data.partition(b"\n")
    if not end or rest or len(line) > REQUEST_BYTES_MAX:
        return {"error": f"expected one line of at most {REQUEST_BYTES_MAX} bytes within {REQUEST_S:g} s"}
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "expected JSON"}
    if not isinstance(asked, dict) or set(asked) != {"command"} or not isinstance(asked["command"], str):
        return {"error": 'expected {"command": "..."} and nothing beside it'}
    try:
        return answer(asked["command"])
    except FederationError as error:
        return {"error": str(error)}
    except Exception:
        # A question must never end a node, not even one that finds a bug of ours.
        log.exception("the question %r has no answer", asked["command"][:40])
        return {"error": "the daemon failed to answer; its log says why"}


async def _send(stream: anyio.abc.SocketStream, said: Mapping[str, Any]) -> None:
    # Shielded: "stop" cancels what is here, and whoever asked for it is to hear that it was heard.
    data = json.dumps(said, allow_nan=False).encode() + b"\n"
    with (
        anyio.move_on_after(REQUEST_S),
        contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError),
        anyio.CancelScope(shield=True) as shielded,
    ):
        shielded.deadline = anyio.current_time() + _LAST_ANSWER_S
        await stream.send(data)


# The side of who asks.


@contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    asker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asker.settimeout(timeout_s)
        try:
            asker.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NodeNotRunning(f"{path}: no daemon runs here") from None
        except PermissionError:
            raise FederationError(f"{path}: the daemon is another user's") from None
        except BlockingIOError:
            raise TimeoutError from None  # somebody listens, and too many are in line
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        yield asker
    finally:
        asker.close()


def _peer_pid(asker: socket.socket) -> int:
    """Return the process at the other end; 0 where the system does not say, or it is in another container."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0
    return int(_CREDENTIALS.unpack(asker.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))[0])


def _ask(asker: socket.socket, path: Path, command: str) -> dict[str, Any]:
    data = b""
    try:
        with contextlib.suppress(BrokenPipeError):  # it may have said already why it does not listen
            asker.sendall(json.dumps({"command": command}).encode() + b"\n")
        while not data.endswith(b"\n") and len(data) < ANSWER_BYTES_MAX:
            chunk = asker.recv(1 << 16)
            if not chunk:
                break
            data += chunk
        said = json.loads(data)
    except ConnectionError:
        raise NodeNotRunning(f"{path}: the daemon ended before it answered") from None
    except ValueError:
        if not data:
            raise NodeNotRunning(f"{path}: the daemon ended before it answered") from None
        raise FederationError(f"{path}: what answers there is no daemon of ours") from None
    if not isinstance(said, dict):
        raise FederationError(f"{path}: what answers there is no daemon of ours")
    if "error" in said:
        raise FederationError(f"the daemon: {said['error']}")
    return said


def ask_control(path: Path, command: str, *, timeout_s: float = REQUEST_S) -> dict[str, Any]:
    """Ask a daemon, and return what it says.

    Raises:
        NodeNotRunning: nobody listens there.
        FederationError: no answer in time, an answer that is an error, or not a daemon's.
    """
    try:
        with _connected(path, timeout_s) as asker:
            return _ask(asker, path, command)
    except TimeoutError:
        raise FederationError(f"{path}: the daemon did not answer within {timeout_s:g} s") from None


def stop_and_wait(path: Path, *, timeout_s: float) -> bool:
    """Ask a daemon to stop and wait until its process is gone; return whether it went in time.

    Raises:
        NodeNotRunning: nobody listens there.
        FederationError: as `ask_control`.
    """
    until = time.monotonic() + timeout_s
    try:
        with _connected(path, REQUEST_S) as asker:
            # The process is held before it is asked to go, so that its number cannot have become another one's.
            process = _hold(_peer_pid(asker))
            try:
                _ask(asker, path, "stop")
                return _gone(process, until) if process is not None else _silent(path, until)
            finally:
                if process is not None:
                    os.close(process)
    except TimeoutError:
        raise FederationError(f"{path}: the daemon did not answer within {REQUEST_S:g} s") from None


def _hold(pid: int) -> int | None:
    """Return a file descriptor of a process; None where that cannot be had."""
    if pid <= 0 or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _gone(process: int, until: float) -> bool:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(max(0.0, until - time.monotonic()) * 1000))


def _silent(path: Path, until: float) -> bool:
    """Wait until nobody listens any more: all that can be seen of a process in another container."""
    while time.monotonic() < until:
        try:
            with _connected(path, _POLL_S):
                pass
        except NodeNotRunning:
            return True
        except TimeoutError:
            pass
        time.sleep(_POLL_S)
    return False
