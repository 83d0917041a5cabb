"""Whom a message is for: an address as a value, and a reference that can be told, sent and asked.

A reference holds the address and the system that routes for it, never the actor: it stays valid when the actor stops,
and two references are equal when their addresses are.
"""

from __future__ import annotations

import re
from typing import Protocol, Self

import attrs

from actors.errors import BadSetting

SCHEME = "scarcity://"
_SEGMENT = r"[A-Za-z0-9_.\-]+"
_NODE = re.compile(_SEGMENT)
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_NAME_LENGTH_MAX = 255  # an address is shown in logs and travels in headers: long names are refused at birth


@attrs.frozen
class Address:
    """Where an actor lives.

    Attributes:
        node: the system's name, one segment of letters, digits, `_`, `.` and `-`.
        path: the actor's name, segments joined by `/`.
    """

    node: str
    path: str

    def __attrs_post_init__(self) -> None:
        if len(self.node) > _NAME_LENGTH_MAX or not _NODE.fullmatch(self.node):
            raise BadSetting(f"node: expected letters, digits, _ . -, got {self.node!r}")
        if len(self.path) > _NAME_LENGTH_MAX or not _PATH.fullmatch(self.path):
            raise BadSetting(f"name: expected segments of letters, digits, _ . - joined by /, got {self.path!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `scarcity://<node>/<path>`.

        Raises:
            BadSetting: the text has another form.
        """
        node, slash, path = text.removeprefix(SCHEME).partition("/")
        if not text.startswith(SCHEME) or not slash:
            raise BadSetting(f"address: expected {SCHEME}<node>/<name>, got {text!r}")
        return cls(node, path)

    def __str__(self) -> str:
        return f"{SCHEME}{self.node}/{self.path}"


class Router(Protocol):
    """What a reference needs of its system."""

    def route_tell(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Deliver now, or raise `MailboxFull`."""

    async def route_send(self, to: ActorRef, message: object, sender: ActorRef | None) -> None:
        """Deliver as soon as there is room."""

    async def route_ask(self, to: ActorRef, message: object, deadline: float, sender: ActorRef | None) -> object:
        """Deliver, wait for the reply and return it."""


@attrs.frozen(repr=False)
class ActorRef:
    """A handle on an actor, alive or not. Equal and hashed by address.

    Delivery is at most once, and first in, first out between one sender and one receiver.
    """

    address: Address
    _router: Router = attrs.field(eq=False)

    def tell(self, message: object, *, sender: ActorRef | None = None) -> None:
        """Deliver and return at once. To an actor that is gone the message becomes a dead letter.

        Raises:
            MailboxFull: there is no room, and the mailbox's policy refuses; or `LinkFull`, to an actor of another node.
            UnknownPeer: the node is not known to the transport.
            BadMessage: it cannot travel to another node.
        """
        self._router.route_tell(self, message, sender)

    async def send(self, message: object, *, sender: ActorRef | None = None) -> None:
        """Deliver as soon as there is room. If cancelled, the message may or may not have been taken.

        Raises:
            ActorStopped: the actor is gone, or went while this waited.
            MailboxFull: only with policy `conflate`, when every place holds another key.
        """
        await self._router.route_send(self, message, sender)

    async def ask(self, message: object, *, deadline: float, sender: ActorRef | None = None) -> object:
        """Deliver and return what the handler returns.

        Args:
            message: the question.
            deadline: seconds from now; past it the message is not handled any more, if it still is in the mailbox.
            sender: who asks, `None` for someone outside the system.

        Raises:
            AskTimeout: the deadline passed.
            ActorStopped: the actor is gone, or stopped before it replied.
            MailboxFull: there is no room (policy `block` waits for it within the deadline).
            UnhandledMessage: the actor has no handler for this type.
        """
        return await self._router.route_ask(self, message, deadline, sender)

    def __repr__(self) -> str:
        return f"ActorRef({self.address})"
