"""Systems: delivery, order, replies, deadlines, and what becomes of a message that nobody handles."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

import actors
from actors import Actor, ActorRef, ActorSystem, AskTimeout, Context, Mailbox, MailboxFull, handles, message
from actors.errors import ActorStopped, BadSetting, NameTaken, UnhandledMessage, UnknownActor

pytestmark = pytest.mark.anyio


@message("test.add")
class Add:
    n: int


@message("test.get")
class Get:
    pass


@message("test.hold")
class Hold:
    pass


@message("test.strange")
class Strange:
    pass


@message("test.forward")
class Forward:
    to: ActorRef
    n: int


class Log(Actor):
    """Keeps what it is told; `Hold` keeps it busy until `gate` opens."""

    mailbox = Mailbox(4)

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.seen: list[int] = []
        self.senders: list[ActorRef | None] = []
        self.inside = 0

    @handles(Add)
    async def add(self, msg: Add, ctx: Context) -> None:
        self.inside += 1
        assert self.inside == 1, "two messages at a time"
        await anyio.lowlevel.checkpoint()
        self.seen.append(msg.n)
        self.senders.append(ctx.sender)
        self.inside -= 1

    @handles(Get)
    def get(self, msg: Get, ctx: Context) -> list[int]:
        return self.seen

    @handles(Hold)
    async def hold(self, msg: Hold, ctx: Context) -> str:
        await self.gate.wait()
        return "held"


class Forwarder(Actor):
    @handles(Forward)
    async def forward(self, msg: Forward, ctx: Context) -> None:
        await ctx.send(msg.to, Add(msg.n))


class Block(Log):
    mailbox = Mailbox(1, "block")


async def busy(system: ActorSystem, log: Log) -> ActorRef:
    ref = await system.spawn(log)
    ref.tell(Hold())
    await settle()
    return ref


async def settle() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


def test_the_public_names_are_these() -> None:
    assert actors.__all__ == [
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
    assert len(actors.__all__) <= 12
    assert all(hasattr(actors, name) for name in actors.__all__)


async def test_an_ask_gets_what_the_handler_returns() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(Log, name="a/log")
        ref.tell(Add(1))
        await ref.send(Add(2))
        assert await ref.ask(Get(), deadline=5) == [1, 2]
        assert await system.ref("scarcity://s/a/log").ask(Get(), deadline=5) == [1, 2]
        assert system.ref("a/log") == ref


async def test_messages_of_one_sender_arrive_in_its_order_and_one_at_a_time() -> None:
    log = Log()
    async with ActorSystem("s") as system:
        ref = await system.spawn(log)
        forwarders = [await system.spawn(Forwarder) for _ in range(5)]
        for n in range(40):
            for sender in forwarders:
                await sender.send(Forward(ref, n))
    for sender in forwarders:
        assert [n for n, who in zip(log.seen, log.senders, strict=True) if who == sender] == list(range(40))


async def test_a_tell_to_a_full_mailbox_raises_and_a_send_waits_for_room() -> None:
    log = Log()
    async with ActorSystem("s") as system:
        ref = await busy(system, log)
        for n in range(4):
            ref.tell(Add(n))
        with pytest.raises(MailboxFull):
            ref.tell(Add(99))
        with pytest.raises(MailboxFull):
            await ref.ask(Get(), deadline=5)
        async with anyio.create_task_group() as group:
            group.start_soon(ref.send, Add(4))
            await settle()
            assert system.mailbox_statistics(ref).waiting == 1
            log.gate.set()
    assert log.seen == [0, 1, 2, 3, 4]


async def test_a_cancelled_sender_leaves_the_line() -> None:
    log = Log()
    async with ActorSystem("s") as system:
        ref = await busy(system, log)
        for n in range(4):
            ref.tell(Add(n))
        async with anyio.create_task_group() as group:
            group.start_soon(ref.send, Add(4))
            await settle()
            group.cancel_scope.cancel()
        assert system.mailbox_statistics(ref).waiting == 0
        log.gate.set()
    assert log.seen == [0, 1, 2, 3]


@pytest.mark.virtual_time
async def test_an_ask_of_a_blocking_mailbox_waits_for_room_within_its_deadline() -> None:
    log = Block()
    async with ActorSystem("s") as system:
        ref = await busy(system, log)
        ref.tell(Add(1))
        with pytest.raises(AskTimeout):
            await ref.ask(Get(), deadline=1)
        assert system.mailbox_statistics(ref).waiting == 0
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ref.ask(Get(), deadline=5))
            await settle()
            log.gate.set()
    assert system.dead_letters == ()


@pytest.mark.virtual_time
async def test_a_message_past_its_deadline_is_not_handled_but_counted() -> None:
    log = Log()
    async with ActorSystem("s") as system:
        ref = await busy(system, log)
        started = anyio.current_time()
        with pytest.raises(AskTimeout):
            await ref.ask(Add(1), deadline=2.5)
        assert anyio.current_time() - started == pytest.approx(2.5)
        log.gate.set()
        assert await ref.ask(Get(), deadline=1) == []
        assert system.mailbox_statistics(ref).expired == 1
        assert system.statistics().num_timers == 0


async def test_a_type_without_a_handler_is_a_dead_letter_and_the_actor_lives() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(Log, name="log")
        ref.tell(Strange())
        ref.tell("text")
        with pytest.raises(UnhandledMessage, match="Strange"):
            await ref.ask(Strange(), deadline=5)
        assert await ref.ask(Get(), deadline=5) == []
        assert [letter.message for letter in system.dead_letters] == [Strange(), "text", Strange()]
        assert system.dead_letters[0].to == ref.address


async def test_what_is_told_to_nobody_is_a_dead_letter_and_the_record_is_bounded() -> None:
    async with ActorSystem("s") as system:
        nobody = system.ref("nobody")
        for n in range(1000):
            nobody.tell(Add(n))
        with pytest.raises(UnknownActor):
            await nobody.send(Add(1))
        with pytest.raises(UnknownActor):
            await nobody.ask(Get(), deadline=1)
        assert system.statistics().num_dead_letters == 1000
        assert len(system.dead_letters) < 1000
        assert system.dead_letters[-1].message == Add(999)


async def test_names_are_unique_among_the_living_and_free_again_afterwards() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(Log, name="log")
        with pytest.raises(NameTaken):
            await system.spawn(Log, name="log")
        system.stop(ref)
        await settle()
        assert await system.spawn(Log, name="log") == ref


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
async def test_a_deadline_is_positive_and_finite(deadline: float) -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(Log)
        with pytest.raises(BadSetting, match="deadline"):
            await ref.ask(Get(), deadline=deadline)


@pytest.mark.parametrize("address", ["", "a b", "scarcity://s", "scarcity://s/", "../x y", "a//b", "x" * 300])
async def test_a_malformed_address_is_refused(address: str) -> None:
    async with ActorSystem("s") as system:
        with pytest.raises(BadSetting):
            system.ref(address)


async def test_an_address_of_another_node_needs_a_link() -> None:
    async with ActorSystem("s") as system:
        with pytest.raises(UnknownActor, match="no link"):
            system.ref("scarcity://elsewhere/log")


async def test_a_system_that_has_ended_spawns_nothing_and_buries_what_it_is_told() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(Log)
    ref.tell(Add(1))
    assert system.statistics().num_dead_letters == 1
    with pytest.raises(ActorStopped):
        await system.spawn(Log)
    with pytest.raises(BadSetting):
        await system.__aenter__()


async def test_on_asyncio_two_runs_interleave_in_the_same_way(anyio_backend_name: str) -> None:
    async def run() -> list[tuple[int, str]]:
        log = Log()
        async with ActorSystem("s") as system:
            ref = await system.spawn(log)
            forwarders = [await system.spawn(Forwarder, name=f"f{i}") for i in range(7)]
            for n in range(20):
                for sender in forwarders:
                    await sender.send(Forward(ref, n))
        return [(n, str(who)) for n, who in zip(log.seen, log.senders, strict=True)]

    first, second = await run(), await run()
    assert sorted(first) == sorted(second)
    if anyio_backend_name == "asyncio":
        assert first == second
