"""A small actor runtime for asyncio and trio. It knows nothing of learning."""

from actors.actor import Actor, Context, handles
from actors.address import ActorRef
from actors.errors import ActorError, AskTimeout, MailboxFull
from actors.mailbox import Mailbox
from actors.message import Down, message
from actors.supervision import Restart
from actors.system import ActorSystem

__all__ = [
    "Actor",
    "ActorError",
    "ActorRef",
    "ActorSystem",
    "AskTimeout",
    "Context",
    "Down",
    "Mailbox",
    "MailboxFull",
    "Restart",
    "handles",
    "message",
]
