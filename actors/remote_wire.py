"""What two systems of actors say to each other, as headers and blobs of a transport. Pure.

| kind | name | header | blob | channel |
|---|---|---|---|---|
| 1 | tell | route | the message | as its class says |
| 2 | ask | u64 number, f64 seconds left, route | the message | best effort |
| 3 | reply | u64 number | the value | best effort |
| 4 | failure | u64 number, u8 code (`FAILURES`) | text | best effort |
| 5 | returned | the route of a tell | u8 length and name of the message, text | best effort |
| 6 | watch | u64 number, path | | best effort |
| 7 | unwatch | u64 number, path | | best effort |
| 8 | down | u64 number, path | text | best effort |

All numbers are little-endian. A route is a u8 length and the path of whom it is for, then the path of the sender,
empty for someone outside the system. It has no place for a node: the nodes are those of the link, which has proven who
is at its other end, so a sender can claim a path of its own node and nothing else. Messages and values are encoded as
`actors.message` says; text is UTF-8. Numbers of asks and watches are the asking node's.

Best effort loses nothing while a link lasts, and what asks and watches are about ends with the link.
"""

from __future__ import annotations

import math
import struct

from actors.address import Address
from actors.errors import (
    ActorError,
    ActorStopped,
    AskTimeout,
    BadFrame,
    BadMessage,
    BadSetting,
    MailboxFull,
    UnhandledMessage,
    UnknownActor,
)

TELL, ASK, REPLY, FAILURE, RETURNED, WATCH, UNWATCH, DOWN = range(1, 9)
FAILURES: tuple[type[ActorError], ...] = (
    ActorError,
    AskTimeout,
    ActorStopped,
    UnknownActor,
    UnhandledMessage,
    MailboxFull,
    BadMessage,
)
"""What an ask can fail with, by its code."""

_TEXT_BYTES_MAX = 1024  # a reason is for people; more would only fill their logs
_NUMBER = struct.Struct("<Q")
_ASK = struct.Struct("<Qd")
_FAILURE = struct.Struct("<QB")


def pack_route(to: str, sender: str) -> bytes:
    """Return a route; both are paths that an `Address` has accepted."""
    path = to.encode()
    return bytes((len(path),)) + path + sender.encode()


def unpack_route(route: bytes, here: str, there: str) -> tuple[Address, Address | None]:
    """Return whom a message is for and who sent it.

    Args:
        route: what a peer sent.
        here: the node of the receiver.
        there: the node of the sender, as the link has proven it.

    Raises:
        BadFrame: it is no route.
    """
    end = 1 + route[0] if route else 1
    if len(route) < end:
        raise BadFrame("a route without a path")
    try:
        sender = route[end:].decode("ascii")
        return Address(here, route[1:end].decode("ascii")), Address(there, sender) if sender else None
    except (UnicodeDecodeError, BadSetting) as error:
        raise BadFrame(f"not a route: {error}") from error


def pack_ask(number: int, seconds: float, route: bytes) -> bytes:
    """Return the header of an ask."""
    return _ASK.pack(number, seconds) + route


def unpack_ask(header: bytes) -> tuple[int, float, bytes]:
    """Return number, seconds left and route.

    Raises:
        BadFrame: it is no header of an ask.
    """
    if len(header) < _ASK.size:
        raise BadFrame("an ask without number and seconds")
    number, seconds = _ASK.unpack_from(header)
    if not math.isfinite(seconds):
        raise BadFrame(f"an ask with {seconds} seconds left")
    return number, seconds, header[_ASK.size :]


def pack_number(number: int, path: str = "") -> bytes:
    """Return the header of a reply, or of what is about a watch."""
    return _NUMBER.pack(number) + path.encode()


def unpack_number(header: bytes) -> int:
    """Return the number of a reply.

    Raises:
        BadFrame: it is no number.
    """
    if len(header) != _NUMBER.size:
        raise BadFrame("a reply without a number")
    return int(_NUMBER.unpack(header)[0])


def unpack_watch(header: bytes, node: str) -> tuple[int, Address]:
    """Return number and address of what is about a watch; `node` is the one whose actor is watched.

    Raises:
        BadFrame: it is no such header.
    """
    if len(header) < _NUMBER.size:
        raise BadFrame("a watch without a number")
    try:
        return _NUMBER.unpack_from(header)[0], Address(node, header[_NUMBER.size :].decode("ascii"))
    except (UnicodeDecodeError, BadSetting) as error:
        raise BadFrame(f"not a watch: {error}") from error


def pack_failure(number: int, error: ActorError) -> tuple[bytes, bytes]:
    """Return header and blob of a failure.

    What an actor failed at may hold its data, so only the class of a cause crosses to another node.
    """
    code = next(FAILURES.index(kind) for kind in type(error).__mro__ if kind in FAILURES)
    cause = error.__cause__
    return _FAILURE.pack(number, code), pack_text(str(error) if cause is None else f"failed: {type(cause).__name__}")


def unpack_failure(header: bytes, blob: bytes | memoryview) -> tuple[int, ActorError]:
    """Return number and error.

    Raises:
        BadFrame: it is no failure.
    """
    if len(header) != _FAILURE.size or header[-1] >= len(FAILURES):
        raise BadFrame("a failure without number and code")
    number, code = _FAILURE.unpack(header)
    return number, FAILURES[code](unpack_text(blob))


def pack_returned(name: str, reason: str) -> bytes:
    """Return the blob of a message that comes back; one whose name does not fit has none."""
    data = name.encode() if len(name) < 256 else b""
    return bytes((len(data),)) + data + pack_text(reason)


def unpack_returned(blob: bytes | memoryview) -> tuple[str, str]:
    """Return name and reason.

    Raises:
        BadFrame: it is no such blob.
    """
    data = bytes(blob[: 1 + 255 + _TEXT_BYTES_MAX + 1])
    if not data or len(data) <= data[0]:
        raise BadFrame("a message came back without its name")
    return unpack_text(data[1 : 1 + data[0]]), unpack_text(data[1 + data[0] :])


def pack_text(text: str) -> bytes:
    """Return a text, cut to what may travel."""
    return text.encode(errors="replace")[:_TEXT_BYTES_MAX]


def unpack_text(blob: bytes | memoryview) -> str:
    """Return a text on one line, whatever the bytes are.

    Raises:
        BadFrame: it is longer than any that we send.
    """
    if len(blob) > _TEXT_BYTES_MAX:
        raise BadFrame(f"a text of {len(blob)} bytes, at most {_TEXT_BYTES_MAX} are read")
    text = bytes(blob).decode(errors="replace")
    # A peer's words end in logs and terminals: no line of its own there, and no escape sequence.
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)
