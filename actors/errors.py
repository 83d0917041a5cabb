"""Every failure that the runtime raises, under one root."""

from __future__ import annotations


class ActorError(Exception):
    """Root of all errors of `actors`."""


class BadSetting(ActorError, ValueError):
    """A setting, a name or a declaration is out of range; the text names it and what was expected."""


class MailboxFull(ActorError):
    """The mailbox has no room and its policy refuses; nothing was delivered. Try again later, or use `send`."""


class AskTimeout(ActorError, TimeoutError):
    """No reply came before the deadline. The message may have been handled all the same."""


class ActorStopped(ActorError):
    """The actor has stopped, or stopped before it replied."""


class UnknownActor(ActorStopped):
    """No actor lives at this address: it never did, or it has gone."""


class UnhandledMessage(ActorError):
    """The actor has no handler for the type that was asked; the message is a dead letter."""


class BadMessage(ActorError, ValueError):
    """A value cannot travel, or bytes are not an encoded value; one error for all that can be wrong with either."""


class NameTaken(ActorError):
    """An actor of this name is alive in the system."""


class UnknownPeer(ActorError):
    """The transport was not told of this node; nothing was sent."""


class LinkFull(MailboxFull):
    """The byte budget to this node is used up, or too many asks wait for it; nothing was sent. Try again later."""


class TransportClosed(ActorError):
    """The transport is not running: it was not entered, or it has ended."""


class BadFrame(ActorError):
    """Bytes that a peer sent are no frame of ours; whoever decodes further up may raise it to end the link."""
