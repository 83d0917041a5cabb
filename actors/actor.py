"""What an actor is, and what it may do.

An actor handles one message at a time. A handler, plain or async, is chosen by the exact type of the message; a type
without one becomes a dead letter.

A handler or a task that raises ends this incarnation of its actor: the message is a dead letter, who asked gets
`ActorStopped`, timers, tasks and children are gone. Then `actors.supervision` decides. Either a new instance from the
same factory takes over address, mailbox and monitors, and to the others nothing has happened; or the actor is down for
good: who monitors it gets one `Down`, and so does the actor that spawned it. Cancellation is never taken for an error
and passes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol, TypeVar, TypeVarTuple

from actors.address import ActorRef
from actors.clock import Timer, check_seconds
from actors.errors import BadSetting
from actors.mailbox import Mailbox
from actors.message import is_message
from actors.supervision import Restart

F = TypeVar("F", bound=Callable[..., object])
Ts = TypeVarTuple("Ts")

_MARK = "_actors_handles"


def handles(*types: type) -> Callable[[F], F]:
    """Mark a method `(self, msg, ctx)`, plain or async, as the handler of these message types.

    Raises:
        BadSetting: a type was not made by `@message`.
    """
    for cls in types:
        if not is_message(cls):
            raise BadSetting(f"handles: {cls!r} is not a message, decorate it with @message(name)")

    def mark(function: F) -> F:
        setattr(function, _MARK, types)
        return function

    return mark


class Actor:
    """State that only its own handlers touch. A subclass's `__init__` need not call this one.

    Attributes:
        mailbox: the bound of its mailbox.
        restart: whether it starts again after an error; by default it does not.
    """

    mailbox: ClassVar[Mailbox] = Mailbox()
    restart: ClassVar[Restart] = Restart("temporary")
    _handlers: ClassVar[dict[type, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for field, expected in (("mailbox", Mailbox), ("restart", Restart)):
            if not isinstance(getattr(cls, field), expected):
                raise BadSetting(f"{cls.__name__}.{field}: expected a {expected.__name__}, got {getattr(cls, field)!r}")
        own: dict[type, str] = {}
        for name, member in vars(cls).items():
            for kind in getattr(member, _MARK, ()):
                if kind in own:
                    raise BadSetting(f"{cls.__name__}: {own[kind]} and {name} both handle {kind.__name__}")
                own[kind] = name
        inherited: dict[type, str] = {}
        for base in reversed(cls.__mro__[1:]):
            inherited |= vars(base).get("_handlers", {})
        cls._handlers = inherited | own

    async def on_start(self, ctx: Context) -> None:
        """Run before the first message, of each incarnation: reload here what must survive a restart."""

    async def on_stop(self, ctx: Context) -> None:
        """Run after the last message, also after a failure; shielded, and cut off after a second."""


class Life(Protocol):
    """What a context needs of the task that drives its actor; `actors.cell.Cell` is that."""

    ref: ActorRef

    def now(self) -> float:
        """Return the instant on the system's clock."""

    def set_timer(self, seconds: float, message: object, *, period_s: float | None) -> Timer:
        """Tell the actor a message later, once or again and again."""

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run an async function beside the handlers."""

    async def spawn(self, what: Callable[[], Actor] | Actor, name: str | None) -> ActorRef:
        """Start a child."""

    def monitor(self, ref: ActorRef) -> None:
        """Let the actor hear when another is gone."""

    def leave(self) -> None:
        """Handle what waits, then stop."""


class Context:
    """What an actor may do. One object an actor; `sender` is of the message being handled."""

    __slots__ = ("_cell", "sender")

    def __init__(self, cell: Life) -> None:
        self._cell = cell
        self.sender: ActorRef | None = None

    @property
    def self_ref(self) -> ActorRef:
        """The actor's own reference."""
        return self._cell.ref

    def now(self) -> float:
        """Return the instant on the system's clock, in seconds."""
        return self._cell.now()

    def tell(self, to: ActorRef, message: object) -> None:
        """As `to.tell`, with this actor as the sender."""
        to.tell(message, sender=self._cell.ref)

    async def send(self, to: ActorRef, message: object) -> None:
        """As `to.send`, with this actor as the sender."""
        await to.send(message, sender=self._cell.ref)

    async def ask(self, to: ActorRef, message: object, *, deadline: float) -> object:
        """As `to.ask`, with this actor as the sender. No other message is handled while a handler awaits it."""
        return await to.ask(message, deadline=deadline, sender=self._cell.ref)

    def after(self, seconds: float, message: object) -> Timer:
        """Tell this actor `message` once, `seconds` from now; the result can be cancelled."""
        return self._cell.set_timer(check_seconds("seconds", seconds), message, period_s=None)

    def every(self, seconds: float, message: object) -> Timer:
        """Tell this actor `message` every `seconds`, first one period from now; missed instants are skipped."""
        return self._cell.set_timer(check_seconds("seconds", seconds), message, period_s=seconds)

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run an async function beside the handlers; it ends with the actor, and its error ends the actor."""
        self._cell.start_soon(function, *args)

    async def spawn(self, what: Callable[[], Actor] | Actor, *, name: str | None = None) -> ActorRef:
        """As `ActorSystem.spawn`, for a child: it stops when this actor stops or starts again.

        When the child is down for good because of an error, this actor gets `Down`, if it has a handler for it.
        """
        return await self._cell.spawn(what, name)

    def monitor(self, ref: ActorRef) -> None:
        """Get `Down(ref, reason)` when that actor is gone, exactly once, at once when nobody lives there."""
        self._cell.monitor(ref)

    def stop(self) -> None:
        """Accept nothing more, handle what waits already, then stop; a `permanent` actor starts again at once."""
        self._cell.leave()
