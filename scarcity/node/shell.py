"""Any core as an actor: receive, ask the core, carry out its effects in order, keep its timers.

There is one shell for all roles; what a role does is in its core. Each timer name has a task of its own (a client's
gossip push and gossip pull run beside each other), and all of them speak to the core through the mailbox, so the core
sees one thing at a time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable

import anyio
import attrs

from actors import Actor, Context, Mailbox, Restart, handles, message
from actors.errors import ActorStopped
from scarcity.errors import CodecError
from scarcity.federation.codec import decode_packet
from scarcity.federation.effects import Core, Effect, Emit, Event, Persist, Reject, Send, SetTimer
from scarcity.federation.packets import Packet
from scarcity.node.journal import JournalStore
from scarcity.node.parcel import GossipParcel, Parcel

# A basket of 500 hears each member a few times per stage of a sum; what gossip adds is bounded by its period.
_MAILBOX = 8192


@message("scarcity.delivery", local=True)
class Delivery:
    """A packet from an authenticated peer on this node; from another one it comes as a parcel."""

    sender: str
    packet: Packet


@message("scarcity.ring", local=True)
class Ring:
    """A timer has come to its instant."""

    name: str
    at: float


def _nobody(_node: str, _member: str) -> bool:
    return False


@attrs.define(eq=False)
class _Bell:
    """One timer name: when it is due, and a way to wake its task when that changes."""

    at: float
    moved: anyio.Event


class CoreActor(Actor):
    """The shell of one core.

    Args:
        member_id: whose core it is.
        core: the protocol, or what makes it: a factory is called at each start, so an actor that is restarted in place
            (spawned by a factory of its own) comes up with a core that is restored from the journal.
        post: hands (sender, recipient, packet) to the transport; must not block.
        journal: where entries become durable.
        observe: told of events and refusals, with the member's id.
        hosts: whether a node may speak for a member; without it nobody on another node is listened to.
    """

    mailbox = Mailbox(_MAILBOX, overflow="reject")
    restart = Restart("transient")

    def __init__(
        self,
        member_id: str,
        core: Core | Callable[[], Core],
        *,
        post: Callable[[str, str, Packet], None],
        journal: JournalStore,
        observe: Callable[[str, Event | Reject], None],
        hosts: Callable[[str, str], bool] = _nobody,
    ) -> None:
        self._member_id = member_id
        self._make = core if callable(core) else lambda: core
        self._core: Core | None = None
        self._post = post
        self._journal = journal
        self._observe = observe
        self._hosts = hosts
        self._bells: dict[str, _Bell] = {}

    async def on_start(self, ctx: Context) -> None:
        """Start the core."""
        self._core = self._make()
        self._carry(self._core.start(ctx.now()), ctx)

    @property
    def _running(self) -> Core:
        assert self._core is not None, "an actor that handles messages has started"
        return self._core

    @handles(Delivery)
    def deliver(self, msg: Delivery, ctx: Context) -> None:
        """Give the core a packet."""
        self._carry(self._running.receive(msg.packet, msg.sender, ctx.now()), ctx)

    @handles(Parcel, GossipParcel)
    def unpack(self, msg: Parcel | GossipParcel, ctx: Context) -> None:
        """Give the core a packet from another node, if that node hosts who says it."""
        node, sender = ("", "") if ctx.sender is None else (ctx.sender.address.node, ctx.sender.address.path)
        if not self._hosts(node, sender):
            self._observe(self._member_id, Reject(node, f"speaks for {sender or 'nobody'}, whom it does not host"))
            return
        try:
            packet = decode_packet(msg.packet)
        except CodecError as error:
            self._observe(self._member_id, Reject(sender, f"not a packet: {error}"))
            return
        self._carry(self._running.receive(packet, sender, ctx.now()), ctx)

    @handles(Ring)
    def ring(self, msg: Ring, ctx: Context) -> None:
        """Tell the core of a timer, unless it was set anew in the meantime."""
        bell = self._bells.get(msg.name)  # none, when it rang for the life before a restart
        if bell is not None and bell.at == msg.at:
            bell.at = math.inf
            self._carry(self._running.fire(msg.name, ctx.now()), ctx)

    def _carry(self, effects: Iterable[Effect], ctx: Context) -> None:
        """Carry effects out in list order: a `Persist` is durable before the `Send` behind it leaves."""
        for effect in effects:
            if isinstance(effect, Send):
                self._post(self._member_id, effect.to, effect.packet)
            elif isinstance(effect, Persist):
                self._journal.append(effect.entry.kind, effect.entry.key, effect.entry.payload)
            elif isinstance(effect, SetTimer):
                self._arm(effect, ctx)
            elif isinstance(effect, Emit):
                self._observe(self._member_id, effect.event)
            else:
                self._observe(self._member_id, effect)

    def _arm(self, timer: SetTimer, ctx: Context) -> None:
        bell = self._bells.get(timer.name)
        if bell is not None:
            bell.at = timer.at
            bell.moved.set()
        elif not math.isinf(timer.at):
            self._bells[timer.name] = _Bell(timer.at, anyio.Event())
            ctx.start_soon(self._keep, timer.name, ctx)

    async def _keep(self, name: str, ctx: Context) -> None:
        """Ring whenever this timer is due: the task of one timer name."""
        bell = self._bells[name]
        while True:
            bell.moved = anyio.Event()
            due_at = bell.at
            with anyio.move_on_after(max(0.0, due_at - ctx.now())) as waited:
                await bell.moved.wait()
            if waited.cancelled_caught:
                with contextlib.suppress(ActorStopped):  # it is being stopped, and this task with it
                    await ctx.send(ctx.self_ref, Ring(name, due_at))
                if bell.at == due_at:
                    await bell.moved.wait()
