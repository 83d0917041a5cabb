"""An actor's life: declaration, start, timers, tasks, failure, monitors, stop, cancellation."""

from __future__ import annotations

import gc
import logging
import weakref

import anyio
import anyio.lowlevel
import attrs
import pytest

from actors import Actor, ActorRef, ActorSystem, Context, Down, Mailbox, MailboxFull, handles, message
from actors.errors import ActorStopped, BadSetting
from actors.mailbox import BATCH
from actors.message import registry

pytestmark = pytest.mark.anyio


@message("life.tick")
class Tick:
    pass


@message("life.fail")
class Fail:
    pass


@message("life.watch")
class Watch:
    ref: ActorRef


@message("life.slow")
class Slow:
    seconds: float


@message("life.count")
class Count:
    key: str
    n: int


class Worker(Actor):
    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.slow_ended = 0
        self.events: list[str] = []

    async def on_stop(self, ctx: Context) -> None:
        await anyio.lowlevel.checkpoint()
        self.events.append("stopped")

    @handles(Tick)
    def tick(self, msg: Tick, ctx: Context) -> int:
        self.ticks.append(ctx.now())
        return len(self.ticks)

    @handles(Fail)
    def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError("bad luck")

    @handles(Slow)
    async def slow(self, msg: Slow, ctx: Context) -> None:
        await anyio.sleep(msg.seconds)
        self.slow_ended += 1


class Watcher(Actor):
    def __init__(self) -> None:
        self.downs: list[Down] = []

    @handles(Watch)
    def watch(self, msg: Watch, ctx: Context) -> None:
        ctx.monitor(msg.ref)

    @handles(Down)
    def down(self, msg: Down, ctx: Context) -> None:
        self.downs.append(msg)


async def settle() -> None:
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def test_a_failing_handler_ends_its_actor_alone_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    async with ActorSystem("s") as system:
        worker, other = await system.spawn(Worker), await system.spawn(Worker)
        watch = await system.spawn(watcher)
        for _ in range(3):
            await watch.send(Watch(worker))
        await settle()
        with pytest.raises(ActorStopped, match="bad luck") as raised:
            await worker.ask(Fail(), deadline=5)
        assert isinstance(raised.value.__cause__, ValueError)
        await settle()
        assert watcher.downs == [Down(worker, "failed: ValueError: bad luck")]
        assert await other.ask(Tick(), deadline=5) == 1
        (failure,) = system.failures
        assert failure.ref == worker
        assert isinstance(failure.error, ValueError)
    assert len(watcher.downs) == 1
    assert [(record.name, record.levelno) for record in caplog.records] == [("actors", logging.ERROR)]


async def test_those_who_wait_for_a_failed_actor_are_told_and_the_rest_is_dead_letters() -> None:
    async with ActorSystem("s") as system:
        worker = await system.spawn(Worker)
        worker.tell(Fail())
        with pytest.raises(ActorStopped):
            await worker.ask(Tick(), deadline=5)
        assert [letter.message for letter in system.dead_letters] == [Fail(), Tick()]


async def test_a_watcher_that_has_gone_is_forgotten() -> None:
    async with ActorSystem("s") as system:
        worker, watch = await system.spawn(Worker, name="worker"), await system.spawn(Watcher)
        await watch.ask(Watch(worker), deadline=5)
        assert len(system._cells["worker"].watchers) == 1
        system.stop(watch)
        await settle()
        assert not system._cells["worker"].watchers


async def test_a_busy_actor_lets_others_run_after_every_batch() -> None:
    class Deep(Worker):
        mailbox = Mailbox(10 * BATCH)

    deep = Deep()
    async with ActorSystem("s") as system:
        ref = await system.spawn(deep)
        for _ in range(10 * BATCH):
            ref.tell(Tick())
        while not deep.ticks:
            await anyio.lowlevel.checkpoint()
        assert len(deep.ticks) <= 3 * BATCH
    assert len(deep.ticks) == 10 * BATCH


async def test_a_monitor_of_nobody_gets_its_down_at_once() -> None:
    watcher = Watcher()
    async with ActorSystem("s") as system:
        watch = await system.spawn(watcher)
        watch.tell(Watch(system.ref("nobody")))
    assert watcher.downs == [Down(system.ref("nobody"), "unknown")]


async def test_a_stopped_actor_handles_what_waits_and_is_down_once() -> None:
    watcher, worker = Watcher(), Worker()
    async with ActorSystem("s") as system:
        ref, watch = await system.spawn(worker), await system.spawn(watcher)
        await watch.ask(Watch(ref), deadline=5)
        for _ in range(100):
            ref.tell(Tick())
        system.stop(ref)
        ref.tell(Tick())
        await settle()
        assert watcher.downs == [Down(ref, "stopped")]
    assert len(worker.ticks) == 100
    assert worker.events == ["stopped"]
    assert system.statistics().num_dead_letters == 1
    assert system.statistics().num_timers == 0


@pytest.mark.virtual_time
async def test_timers_of_an_actor_are_messages_can_be_cancelled_and_end_with_it() -> None:
    class Clockwork(Worker):
        async def on_start(self, ctx: Context) -> None:
            self.regular = ctx.every(1.0, Tick())
            self.once = ctx.after(0.25, Tick())
            self.never = ctx.after(0.5, Fail())
            self.never.cancel()

    actor = Clockwork()
    async with ActorSystem("s") as system:
        start = anyio.current_time()
        ref = await system.spawn(actor)
        await anyio.sleep(3.5)
        assert [round(at - start, 6) for at in actor.ticks] == [0.25, 1, 2, 3]
        assert not actor.once.active
        system.stop(ref)
        await anyio.sleep(10)
        assert len(actor.ticks) == 4
        assert system.statistics().num_timers == 0


@pytest.mark.virtual_time
async def test_a_timer_that_finds_a_full_mailbox_is_a_dead_letter() -> None:
    class Small(Worker):
        mailbox = Mailbox(1)

        async def on_start(self, ctx: Context) -> None:
            ctx.every(1.0, Tick())

    async with ActorSystem("s") as system:
        ref = await system.spawn(Small)
        ref.tell(Slow(5.5))
        await anyio.sleep(5)
        assert "timer" in system.dead_letters[0].reason


@pytest.mark.virtual_time
async def test_tasks_run_beside_the_handlers_and_end_with_the_actor() -> None:
    laps: list[float] = []

    class Runner(Worker):
        async def on_start(self, ctx: Context) -> None:
            ctx.start_soon(self.lap, 1.0)
            ctx.start_soon(self.lap, 1.0)

        async def lap(self, pause_s: float) -> None:
            while True:
                await anyio.sleep(pause_s)
                laps.append(anyio.current_time())

    async with ActorSystem("s") as system:
        ref = await system.spawn(Runner)
        ref.tell(Slow(2.0))
        await anyio.sleep(3.5)
        assert len(laps) == 6
        system.stop(ref)
        await anyio.sleep(10)
    assert len(laps) == 6


async def test_an_error_in_a_task_ends_the_actor() -> None:
    class Runner(Worker):
        async def on_start(self, ctx: Context) -> None:
            ctx.start_soon(self.crash)

        async def crash(self) -> None:
            await anyio.lowlevel.checkpoint()
            raise ValueError("in a task")

    async with ActorSystem("s") as system:
        await system.spawn(Runner, name="runner")
        await settle()
        assert system.statistics().num_actors == 0
        assert str(system.failures[0].error) == "in a task"


async def test_an_actor_that_fails_to_start_is_the_spawners_error() -> None:
    class Broken(Worker):
        async def on_start(self, ctx: Context) -> None:
            raise ValueError("no disk")

    async with ActorSystem("s") as system:
        with pytest.raises(ActorStopped, match="no disk"):
            await system.spawn(Broken)
        assert system.statistics().num_actors == 0


async def test_leaving_the_block_lets_a_chain_of_actors_finish() -> None:
    class Relay(Actor):
        def __init__(self, to: ActorRef) -> None:
            self.to = to

        @handles(Tick)
        async def tick(self, msg: Tick, ctx: Context) -> None:
            await ctx.send(self.to, msg)

    end = Worker()
    async with ActorSystem("s") as system:
        last = await system.spawn(end)
        for _ in range(10):
            last = await system.spawn(Relay(last))
        for _ in range(50):
            last.tell(Tick())
    assert len(end.ticks) == 50
    assert system.statistics() == attrs.evolve(system.statistics(), num_actors=0, num_dead_letters=0, num_failures=0)


@pytest.mark.virtual_time
async def test_stopping_is_bounded_and_the_rest_is_dead_letters() -> None:
    worker = Worker()
    started = anyio.current_time()
    async with ActorSystem("s", drain_s=2.0) as system:
        ref = await system.spawn(worker)
        ref.tell(Slow(1000))
        ref.tell(Tick())
    assert anyio.current_time() - started == pytest.approx(2.0)
    assert worker.slow_ended == 0
    assert worker.events == ["stopped"]
    assert [letter.message for letter in system.dead_letters] == [Tick()]
    assert system.failures == ()


@pytest.mark.virtual_time
async def test_stopping_one_actor_is_bounded_too() -> None:
    async with ActorSystem("s", drain_s=2.0) as system:
        ref = await system.spawn(Worker)
        ref.tell(Slow(1000))
        system.stop(ref)
        await anyio.sleep(3)
        assert system.statistics().num_actors == 0


@pytest.mark.virtual_time
async def test_cancellation_passes_through_and_farewells_still_run() -> None:
    worker = Worker()
    with anyio.move_on_after(1.0) as scope:
        async with ActorSystem("s") as system:
            ref = await system.spawn(worker)
            ref.tell(Slow(1000))
            await anyio.sleep(100)
    assert scope.cancelled_caught
    assert worker.events == ["stopped"]
    assert system.failures == ()


@pytest.mark.virtual_time
async def test_a_farewell_that_hangs_is_cut_off() -> None:
    class Clinging(Worker):
        async def on_stop(self, ctx: Context) -> None:
            await anyio.sleep(1000)

    started = anyio.current_time()
    async with ActorSystem("s") as system:
        await system.spawn(Clinging)
    assert anyio.current_time() - started < 2
    assert "on_stop" in str(system.failures[0].error)


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    worker = Worker()

    async def block() -> None:
        async with ActorSystem("s") as system:
            await system.spawn(worker)
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await block()
    assert worker.events == ["stopped"]


async def test_conflation_keeps_the_newest_of_each_sender() -> None:
    class Latest(Actor):
        mailbox = Mailbox(2, "conflate", key=lambda message, sender: sender)

        def __init__(self) -> None:
            self.got: list[int] = []

        @handles(Count)
        def count(self, msg: Count, ctx: Context) -> None:
            self.got.append(msg.n)

    latest = Latest()
    async with ActorSystem("s") as system:
        ref = await system.spawn(latest)
        one, two, three = (system.ref(name) for name in ("one", "two", "three"))
        for n, sender in enumerate((one, two, one, two, one)):
            ref.tell(Count("x", n), sender=sender)
        with pytest.raises(MailboxFull):
            ref.tell(Count("x", 9), sender=three)
    assert latest.got == [3, 4]


@pytest.mark.virtual_time
async def test_a_key_that_raises_under_a_timer_ends_its_actor_and_not_the_system() -> None:
    class Odd(Worker):
        mailbox = Mailbox(2, "conflate", key=lambda message, sender: message.missing)

        async def on_start(self, ctx: Context) -> None:
            ctx.after(1.0, Tick())

    async with ActorSystem("s") as system:
        await system.spawn(Odd)
        other = await system.spawn(Worker)
        await anyio.sleep(2)
        assert isinstance(system.failures[0].error, AttributeError)
        assert await other.ask(Tick(), deadline=1) == 1


@pytest.mark.virtual_time
async def test_an_idle_actor_keeps_neither_its_last_message_nor_its_reply_alive() -> None:
    class Big:
        pass

    @message("life.big")
    class Carry:
        big: Big

    class Echo(Actor):
        @handles(Carry)
        def echo(self, msg: Carry, ctx: Context) -> Big:
            return msg.big

    async with ActorSystem("s") as system:
        echo = await system.spawn(Echo)
        big = Big()
        alive = weakref.ref(big)
        await echo.ask(Carry(big), deadline=1)
        del big
        await settle()
        gc.collect()
        assert alive() is None


@pytest.mark.parametrize("setting", [{"restart": "always"}, {"mailbox": 64}])
def test_a_setting_of_another_type_is_refused_rather_than_ignored(setting: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match=next(iter(setting))):
        type("Wrong", (Actor,), setting)


def test_one_type_has_one_handler_and_a_subclass_may_replace_it() -> None:
    with pytest.raises(BadSetting, match="both handle"):

        class Two(Actor):
            @handles(Tick)
            def one(self, msg: Tick, ctx: Context) -> None: ...

            @handles(Tick)
            def two(self, msg: Tick, ctx: Context) -> None: ...

    class Other(Worker):
        @handles(Tick)
        def another(self, msg: Tick, ctx: Context) -> None: ...

    assert Other._handlers[Tick] == "another"
    assert Other._handlers[Fail] == "fail"


def test_only_messages_are_handled() -> None:
    with pytest.raises(BadSetting, match="not a message"):
        handles(int)


def test_a_message_is_frozen_and_its_name_is_its_own() -> None:
    assert registry["life.tick"] is Tick
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Count("a", 1).n = 2  # type: ignore[misc]  # frozen is the point
    with pytest.raises(BadSetting, match="belongs to"):
        message("life.tick")(type("Tock", (), {}))
    with pytest.raises(BadSetting, match="lower case"):
        message("Life Tick")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
async def test_a_timer_needs_positive_finite_seconds(seconds: float) -> None:
    class Wrong(Worker):
        async def on_start(self, ctx: Context) -> None:
            ctx.every(seconds, Tick())

    async with ActorSystem("s") as system:
        with pytest.raises(ActorStopped, match="seconds"):
            await system.spawn(Wrong)
