"""The task that drives an actor: incarnation after incarnation, until it is down for good.

A `Cell` is what stays when an actor starts again: its reference, its inbox, who monitors it and whom it monitors. What
belongs to one incarnation (the instance, the message in hand, timers, tasks, children) ends with it, in this order:
tasks are cancelled, the message in hand is buried and its asker told, timers are cancelled, the children stop, and
`on_stop` runs. Only then does the pause before the next incarnation begin.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVarTuple

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from actors.actor import Actor, Context
from actors.address import ActorRef
from actors.clock import Timer, Timers
from actors.errors import ActorError, ActorStopped, BadSetting, MailboxFull, UnhandledMessage
from actors.mailbox import BATCH, Activity, Envelope, Inbox
from actors.message import Down
from actors.supervision import RestartLaw
from actors.trace import ActorStatistics, EventKind

Ts = TypeVarTuple("Ts")

log = logging.getLogger("actors")

_INCARNATIONS = 1 << 48  # two lives at one address have the same number once in 2.8e14
_STOP_HOOK_S = 1.0  # `on_stop` runs shielded from cancellation, so it must be short: time to flush, not to negotiate
_SWEEP_MIN = 32  # timers an actor may have set before those that have fired are forgotten


class Host(Protocol):
    """What a running actor needs of its system."""

    timers: Timers
    activity: Activity
    drain_s: float
    rng: Callable[[], float]

    @property
    def tracing(self) -> bool:
        """Whether somebody looks at events."""

    def emit(self, kind: EventKind, to: ActorRef, envelope: Envelope | None = None, detail: str = "") -> None:
        """Show an event to the hook, if there is one."""

    def bury(self, envelope: Envelope, to: ActorRef, reason: str) -> None:
        """Record a dead letter."""

    def monitor(self, watcher: Cell, ref: ActorRef) -> None:
        """See that the watcher gets one `Down`."""

    def restarted(self, cell: Cell) -> None:
        """Count a restart."""

    def gone(self, cell: Cell, reason: str) -> None:
        """Take a finished actor off the books and tell its parent and who monitors it."""

    async def spawn_child(self, parent: Cell, what: Callable[[], Actor] | Actor, name: str | None) -> ActorRef:
        """Start an actor that lives no longer than this incarnation of its parent."""


class Watcher(Protocol):
    """Who is told when an actor is gone."""

    watched: set[Cell]

    def control(self, message: Down) -> None:
        """Take the news."""


@attrs.frozen
class _Renew:
    """In the control lane: a permanent actor wants to start again."""

    incarnation: int


class _Renewal(Exception):
    """Ends an incarnation that is not at fault."""


class Cell:
    """A running actor: its inbox, its timers, its tasks."""

    __slots__ = (
        "_actor",
        "_childless",
        "_context",
        "_current",
        "_factory",
        "_group",
        "_kind",
        "_law",
        "_num_restarts",
        "_pause",
        "_renewal",
        "_scope",
        "_sweep_at",
        "_timers",
        "_verdict",
        "children",
        "error",
        "failed_to_start",
        "host",
        "inbox",
        "incarnation",
        "parent",
        "ref",
        "started",
        "supervisor",
        "watched",
        "watchers",
    )

    def __init__(
        self, host: Host, ref: ActorRef, actor: Actor, factory: Callable[[], Actor] | None, parent: Cell | None
    ) -> None:
        self.host = host
        self.ref = ref
        self.inbox = Inbox(actor.mailbox, host.activity, self._dropped if host.tracing else None)
        self.started = anyio.Event()
        self.failed_to_start = True
        self.error: Exception | None = None
        self.watchers: dict[ActorRef, Watcher] = {}
        self.watched: set[Cell] = set()
        self.parent = parent
        self.supervisor = parent if parent is not None and parent.hears_down else None
        self.children: dict[Cell, None] = {}  # a set would stop them in an order that differs from run to run
        self.incarnation = int(host.rng() * _INCARNATIONS)
        self._num_restarts = 0
        self._actor: Actor | None = actor
        self._kind = type(actor)
        self._factory = factory
        self._law = None if factory is None or actor.restart.kind == "temporary" else RestartLaw(actor.restart)
        self._context = Context(self)
        self._current: Envelope | None = None
        self._scope = anyio.CancelScope()
        self._group: anyio.abc.TaskGroup | None = None
        self._timers: set[Timer] = set()
        self._sweep_at = _SWEEP_MIN
        self._renewal = False
        self._verdict: float | str | None = None
        self._pause: anyio.Event | None = None
        self._childless: anyio.Event | None = None

    @property
    def hears_down(self) -> bool:
        """Whether it can be told that another actor is gone."""
        return Down in self._kind._handlers  # noqa: SLF001 - its own runtime

    async def run(self) -> None:
        """Live, once or several times. Returns, unless cancelled from above."""
        try:
            await self._live()
            while isinstance(self._verdict, float) and await self._wait(self._verdict):
                self._begin_again()
                await self._live()
        finally:
            self._close_books()

    def statistics(self) -> ActorStatistics:
        """Return what there is to say about it now."""
        return ActorStatistics(
            address=self.ref.address,
            kind=self._kind.__qualname__,
            incarnation=self.incarnation,
            num_restarts=self._num_restarts,
            num_children=len(self.children),
            parent=None if self.parent is None else self.parent.ref.address,
            mailbox=self.inbox.statistics(),
        )

    def close(self) -> None:
        """Accept nothing more and do not start again."""
        self.inbox.close()
        if self._pause is not None:
            self._pause.set()

    def stop(self) -> None:
        """Accept nothing more and handle the rest; what is left after the drain time is lost to the dead letters."""
        if not self.inbox.closed:
            self.close()
            self._add_timer(self.host.timers.now() + self.host.drain_s, self.abort)

    def leave(self) -> None:
        """Stop on its own wish, which for a permanent actor means to start again."""
        if self._law is None or self._law.setting.kind != "permanent":
            self.stop()
        else:
            self.inbox.control(Envelope(_Renew(self.incarnation), self.ref, None, None))

    def abort(self) -> None:
        """Stop now, in the middle of a handler if need be."""
        self.close()
        self._scope.cancel()

    async def spawn(self, what: Callable[[], Actor] | Actor, name: str | None) -> ActorRef:
        """Start a child."""
        if self._scope.cancel_called:
            raise ActorStopped(f"{self.ref} is not running")
        return await self.host.spawn_child(self, what, name)

    def forget(self, child: Cell) -> None:
        """Take note that a child has gone."""
        self.children.pop(child, None)
        if not self.children and self._childless is not None:
            self._childless.set()

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run an async function in the actor's task group."""
        if self._group is None or self._scope.cancel_called:
            raise ActorStopped(f"{self.ref} is not running")
        self._group.start_soon(self._guard, function, *args)

    def now(self) -> float:
        """Return the instant on the system's clock."""
        return self.host.timers.now()

    def monitor(self, ref: ActorRef) -> None:
        """Let this actor get one `Down` when another is gone."""
        self.host.monitor(self, ref)

    def set_timer(self, seconds: float, message: object, *, period_s: float | None) -> Timer:
        """Tell the actor itself `message` after `seconds`, and then every `period_s`."""
        return self._add_timer(self.host.timers.now() + seconds, lambda: self._ring(message), period_s)

    def control(self, message: Down) -> None:
        """Put what the runtime says in the lane that is drained first."""
        self.inbox.control(Envelope(message, message.ref, None, None))

    async def _live(self) -> None:
        """Live one incarnation: start, handle messages, and clear away what it leaves."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._group:
                    try:
                        if self._actor is None:
                            assert self._factory is not None
                            self._actor = make(self._factory)
                        await self._actor.on_start(self._context)
                        self.failed_to_start = False
                        self.started.set()
                        await self._serve(self._actor)
                    except _Renewal:
                        self._renewal = True
                    except Exception as error:  # noqa: BLE001 - whatever a handler raises ends this actor, not its system
                        self._fail(error)
                    self._scope.cancel()
        finally:
            await self._clear()

    async def _serve(self, actor: Actor) -> None:
        """Take and handle until the inbox is closed and empty, with a checkpoint every `BATCH` messages."""
        inbox, context = self.inbox, self._context
        table = {kind: self._bind(actor, name) for kind, name in actor._handlers.items()}  # noqa: SLF001 - its own runtime
        table[_Renew] = (self._renew, False)
        left = BATCH
        result: Any = None
        while True:
            envelope = inbox.take()
            if envelope is None:
                # An idle actor must not keep its last message and reply alive: they may be large arrays.
                self._current = context.sender = result = None
                if inbox.closed:
                    return
                await inbox.park()
                left = BATCH
                continue
            handler = table.get(type(envelope.message))
            if envelope.deadline_at is not None and envelope.deadline_at <= self.host.timers.now():
                inbox.expired += 1
                self.host.emit("expired", self.ref, envelope)
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
                self._current = None  # it has been handled: an error of a task at this checkpoint is not its failure
                await anyio.lowlevel.checkpoint()
                left = BATCH

    def _bind(self, actor: Actor, name: str) -> tuple[Callable[..., Any], bool]:
        function = getattr(actor, name)
        is_async = inspect.iscoroutinefunction(function)
        return (self._traced(function) if self.host.tracing else function), is_async

    def _traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a handler, so that without a hook the loop need not even ask whether there is one."""

        def traced(message: object, context: Context) -> object:
            self.host.emit("delivered", self.ref, self._current)
            return function(message, context)

        return traced

    def _renew(self, message: _Renew, _context: Context) -> None:
        if message.incarnation == self.incarnation and not self.inbox.closed:
            raise _Renewal

    def _dropped(self, envelope: Envelope, policy: str) -> None:
        self.host.emit("dropped", self.ref, envelope, policy)

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
        if self.error is None and not isinstance(self._verdict, float):
            self.error = error
        else:  # the first one is the reason, and what comes next is decided: another on the way out is only shown
            log.error("%s failed again while it ended", self.ref.address, exc_info=error)

    def _ring(self, message: object) -> None:
        envelope = Envelope(message, self.ref, None, None)
        try:
            self.inbox.offer(envelope)
        except (MailboxFull, ActorStopped) as error:
            self.host.bury(envelope, self.ref, f"timer: {error}")
        except Exception as error:  # noqa: BLE001 - a mailbox's own `key` raised: it must not end the system's timers
            self._fail(error)
            self._scope.cancel()

    def _add_timer(self, due_at: float, action: Callable[[], None], period_s: float | None = None) -> Timer:
        if len(self._timers) >= self._sweep_at:
            self._timers = {timer for timer in self._timers if timer.active}
            self._sweep_at = 2 * len(self._timers) + _SWEEP_MIN
        timer = self.host.timers.at(due_at, action, period_s=period_s)
        self._timers.add(timer)
        return timer

    async def _clear(self) -> None:
        """End an incarnation: decide what comes next, then let go of its message, timers and children."""
        self._verdict = self._judge()
        if not isinstance(self._verdict, float):
            self.close()
        self._context.sender = None
        current, self._current = self._current, None
        if current is not None and current.reply is not None:
            current.reply.fail(self._stopped("stopped before it replied"))
        if current is not None and self.error is not None:
            self.host.bury(current, self.ref, f"the actor {self._reason()}")
        self._drop_timers()
        try:
            await self._stop_children()
        finally:
            await self._stop_hook()
            self._drop_timers()

    def _judge(self) -> float | str | None:
        """Return the pause before the next incarnation, or why there is none, or nothing when none was wanted."""
        wanted = self.error is not None or self._renewal
        if self._law is None or self.failed_to_start or self.inbox.closed or not wanted:
            return None
        pause_s = self._law.plan(self.host.timers.now(), self.host.rng)
        if pause_s is not None:
            log.warning("%s %s, starts again in %.3g s", self.ref.address, self._reason(), pause_s, exc_info=self.error)
            return pause_s
        setting = self._law.setting
        return f"{setting.max_restarts} restarts within {setting.within_s:g} s were not enough"

    async def _wait(self, pause_s: float) -> bool:
        """Wait before a restart; return whether it is still wanted. Those who end the system wait for it too."""
        self._pause = anyio.Event()
        timer = self.host.timers.at(self.host.timers.now() + pause_s, self._pause.set)
        try:
            if not self.inbox.closed:
                await self._pause.wait()
        finally:
            timer.cancel()
            self._pause = None
        return not self.inbox.closed

    def _begin_again(self) -> None:
        assert self._law is not None
        self._law.began(self.host.timers.now())
        self.incarnation += 1
        self._num_restarts += 1
        self._actor = None
        self.error = None
        self._renewal = False
        self._verdict = None
        self._scope = anyio.CancelScope()
        self.host.restarted(self)

    async def _stop_children(self) -> None:
        """Stop them all and wait until they have gone: a new incarnation may give their names again."""
        for child in list(self.children):
            child.supervisor = None  # what they fail at now is not for the next incarnation to hear
            child.stop()
        while self.children:
            self._childless = anyio.Event()
            await self._childless.wait()

    def _drop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _close_books(self) -> None:
        self.close()
        self._drop_timers()  # a stop during the pause has set one
        reason = self._reason()
        while (envelope := self.inbox.take()) is not None:
            if type(envelope.message) is not _Renew:
                self.host.bury(envelope, self.ref, f"the actor {reason}")
            if envelope.reply is not None:
                envelope.reply.fail(self._stopped("stopped before its turn came"))
        self.host.gone(self, reason)
        self.host.activity.end()
        self.started.set()

    def _reason(self) -> str:
        why = f" ({self._verdict})" if isinstance(self._verdict, str) else ""
        return f"stopped{why}" if self.error is None else f"failed: {_describe(self.error)}{why}"

    def _stopped(self, when: str) -> ActorStopped:
        error = ActorStopped(f"{self.ref} {when} ({self._reason()})")
        error.__cause__ = self.error
        return error

    async def _stop_hook(self) -> None:
        if self._actor is None:  # the factory failed
            return
        with anyio.move_on_after(_STOP_HOOK_S, shield=True) as scope:
            try:
                await self._actor.on_stop(self._context)
            except Exception as error:  # noqa: BLE001 - a failing farewell must not keep the books open
                self._fail(error)
        if scope.cancelled_caught:
            self._fail(ActorError(f"on_stop took longer than {_STOP_HOOK_S} s"))


def make(factory: Callable[[], Actor]) -> Actor:
    """Return what a factory makes.

    Raises:
        BadSetting: it makes no actor.
    """
    actor = factory()
    if not isinstance(actor, Actor):
        raise BadSetting(f"spawn: the factory returned {actor!r}, which is no actor")
    return actor


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
