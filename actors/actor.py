"""What an actor is, what it may do, and the task that drives it.

An actor handles one message at a time. A handler, plain or async, is chosen by the exact type of the message; a type
without one becomes a dead letter. A handler that raises ends its actor: the system records the error, who asked gets
`ActorStopped`, who monitors gets one `Down`. Cancellation is never taken for an error and passes through.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, TypeVar, TypeVarTuple

import anyio
import anyio.abc
import anyio.lowlevel

from actors.address import ActorRef
from actors.clock import Timer, Timers, check_seconds
from actors.errors import ActorError, ActorStopped, BadSetting, MailboxFull, UnhandledMessage
from actors.mailbox import BATCH, Activity, Envelope, Inbox, Mailbox
from actors.message import Down, is_message

F = TypeVar("F", bound=Callable[..., object])
Ts = TypeVarTuple("Ts")

_MARK = "_actors_handles"
_STOP_HOOK_S = 1.0  # `on_stop` runs shielded from cancellation, so it must be short: time to flush, not to negotiate
_SWEEP_MIN = 32  # timers an actor may have set before those that have fired are forgotten


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
    """

    mailbox: ClassVar[Mailbox] = Mailbox()
    _handlers: ClassVar[dict[type, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "restart"):
            # The name is kept for supervision: an actor that believes it is restarted and is not would be a trap.
            raise BadSetting(f"{cls.__name__}.restart: actors are not restarted, monitor this one and spawn a new one")
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
        """Run before the first message; `spawn` returns when it has ended."""

    async def on_stop(self, ctx: Context) -> None:
        """Run after the last message, also after a failure; shielded, and cut off after a second."""


class Host(Protocol):
    """What a running actor needs of its system."""

    timers: Timers
    activity: Activity
    drain_s: float

    def bury(self, envelope: Envelope, to: ActorRef, reason: str) -> None:
        """Record a dead letter."""

    def monitor(self, watcher: Cell, ref: ActorRef) -> None:
        """See that the watcher gets one `Down`."""

    def report(self, ref: ActorRef, error: Exception) -> None:
        """Record a failure."""

    def gone(self, cell: Cell, reason: str) -> None:
        """Take a finished actor off the books and tell who monitors it."""


class Context:
    """What an actor may do. One object an actor; `sender` is of the message being handled."""

    __slots__ = ("_cell", "sender")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.sender: ActorRef | None = None

    @property
    def self_ref(self) -> ActorRef:
        """The actor's own reference."""
        return self._cell.ref

    def now(self) -> float:
        """Return the instant on the system's clock, in seconds."""
        return self._cell.host.timers.now()

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

    def monitor(self, ref: ActorRef) -> None:
        """Get `Down(ref, reason)` when that actor is gone, exactly once, at once when nobody lives there."""
        self._cell.host.monitor(self._cell, ref)

    def stop(self) -> None:
        """Accept nothing more, handle what waits already, then stop."""
        self._cell.stop()


class Cell:
    """A running actor: its inbox, its timers, its tasks."""

    __slots__ = (
        "_actor",
        "_context",
        "_current",
        "_group",
        "_scope",
        "_sweep_at",
        "_timers",
        "error",
        "failed_to_start",
        "host",
        "inbox",
        "ref",
        "started",
        "watched",
        "watchers",
    )

    def __init__(self, host: Host, ref: ActorRef, actor: Actor) -> None:
        self.host = host
        self.ref = ref
        self.inbox = Inbox(actor.mailbox, host.activity)
        self.started = anyio.Event()
        self.failed_to_start = True
        self.error: Exception | None = None
        self.watchers: dict[ActorRef, Cell] = {}
        self.watched: set[Cell] = set()
        self._actor = actor
        self._context = Context(self)
        self._current: Envelope | None = None
        self._scope = anyio.CancelScope()
        self._group: anyio.abc.TaskGroup | None = None
        self._timers: set[Timer] = set()
        self._sweep_at = _SWEEP_MIN

    async def run(self) -> None:
        """Live: start, handle messages, stop. Returns, unless cancelled from above."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._group:
                    try:
                        await self._actor.on_start(self._context)
                        self.failed_to_start = False
                        self.started.set()
                        await self._serve()
                    except Exception as error:  # noqa: BLE001 - whatever a handler raises ends this actor, not its system
                        self._fail(error)
                    self._scope.cancel()
        finally:
            await self._finish()

    def stop(self) -> None:
        """Accept nothing more and handle the rest; what is left after the drain time is lost to the dead letters."""
        if not self.inbox.closed:
            self.inbox.close()
            self._add_timer(self.host.timers.now() + self.host.drain_s, self.abort)

    def abort(self) -> None:
        """Stop now, in the middle of a handler if need be."""
        self.inbox.close()
        self._scope.cancel()

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run an async function in the actor's task group."""
        if self._group is None or self._scope.cancel_called:
            raise ActorStopped(f"{self.ref} is not running")
        self._group.start_soon(self._guard, function, *args)

    def set_timer(self, seconds: float, message: object, *, period_s: float | None) -> Timer:
        """Tell the actor itself `message` after `seconds`, and then every `period_s`."""
        return self._add_timer(self.host.timers.now() + seconds, lambda: self._ring(message), period_s)

    def control(self, message: Down) -> None:
        """Put what the runtime says in the lane that is drained first."""
        self.inbox.control(Envelope(message, message.ref, None, None))

    async def _serve(self) -> None:
        """Take and handle until the inbox is closed and empty, with a checkpoint every `BATCH` messages."""
        inbox, actor, context = self.inbox, self._actor, self._context
        table = {kind: _bind(actor, name) for kind, name in actor._handlers.items()}  # noqa: SLF001 - its own runtime
        left = BATCH
        result: Any = None
        while True:
            envelope = inbox.take()
            if envelope is None:
                if inbox.closed:
                    return
                # An idle actor must not keep its last message and reply alive: they may be large arrays.
                self._current = context.sender = result = None
                await inbox.park()
                left = BATCH
                continue
            handler = table.get(type(envelope.message))
            if envelope.deadline_at is not None and envelope.deadline_at <= self.host.timers.now():
                inbox.expired += 1
            elif handler is None:
                self._refuse(envelope)
            else:
                self._current = envelope
                context.sender = envelope.sender
                function, is_async = handler
                result = function(envelope.message, context)
                if is_async:
                    result = await result
                if envelope.reply is not None:
                    envelope.reply.resolve(result)
            left -= 1
            if left == 0:
                await anyio.lowlevel.checkpoint()
                left = BATCH

    def _refuse(self, envelope: Envelope) -> None:
        kind = type(envelope.message).__name__
        self.host.bury(envelope, self.ref, f"no handler for {kind}")
        if envelope.reply is not None:
            envelope.reply.fail(UnhandledMessage(f"{self.ref} has no handler for {kind}"))

    async def _guard(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        try:
            await function(*args)
        except Exception as error:  # noqa: BLE001 - as in `run`: the error ends this actor alone
            self._fail(error)
            self._scope.cancel()

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self.host.report(self.ref, error)

    def _ring(self, message: object) -> None:
        envelope = Envelope(message, self.ref, None, None)
        try:
            self.inbox.offer(envelope)
        except (MailboxFull, ActorStopped) as error:
            self.host.bury(envelope, self.ref, f"timer: {error}")
        except Exception as error:  # noqa: BLE001 - a mailbox's own `key` raised: it must not end the system's timers
            self._fail(error)
            self.abort()

    def _add_timer(self, due_at: float, action: Callable[[], None], period_s: float | None = None) -> Timer:
        if len(self._timers) >= self._sweep_at:
            self._timers = {timer for timer in self._timers if timer.active}
            self._sweep_at = 2 * len(self._timers) + _SWEEP_MIN
        timer = self.host.timers.at(due_at, action, period_s=period_s)
        self._timers.add(timer)
        return timer

    async def _finish(self) -> None:
        self.inbox.close()
        self._context.sender = None
        if self._current is not None and self._current.reply is not None:
            self._current.reply.fail(self._stopped("stopped before it replied"))
        for timer in self._timers:
            timer.cancel()
        try:
            await self._stop_hook()
        finally:
            reason = self._reason()
            while (envelope := self.inbox.take()) is not None:
                self.host.bury(envelope, self.ref, f"the actor {reason}")
                if envelope.reply is not None:
                    envelope.reply.fail(self._stopped("stopped before its turn came"))
            self.host.gone(self, reason)
            self.host.activity.end()
            self.started.set()

    def _reason(self) -> str:
        return "stopped" if self.error is None else f"failed: {_describe(self.error)}"

    def _stopped(self, when: str) -> ActorStopped:
        error = ActorStopped(f"{self.ref} {when} ({self._reason()})")
        error.__cause__ = self.error
        return error

    async def _stop_hook(self) -> None:
        with anyio.move_on_after(_STOP_HOOK_S, shield=True) as scope:
            try:
                await self._actor.on_stop(self._context)
            except Exception as error:  # noqa: BLE001 - a failing farewell must not keep the books open
                self._fail(error)
        if scope.cancelled_caught:
            self._fail(ActorError(f"on_stop took longer than {_STOP_HOOK_S} s"))


def _bind(actor: Actor, name: str) -> tuple[Callable[..., Any], bool]:
    function = getattr(actor, name)
    return function, inspect.iscoroutinefunction(function)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
