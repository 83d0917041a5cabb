"""Restarts in place: what stays, what goes, who hears of it, and when there is no more of it."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from actors import Actor, ActorRef, ActorSystem, AskTimeout, Context, Down, Mailbox, Restart, handles, message
from actors.errors import ActorStopped
from actors.mailbox import BATCH
from actors.trace import ActorStatistics, TraceEvent
from tests.conftest import VirtualLoop

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

STEADY = Restart("transient", max_restarts=3, within_s=30.0, backoff_s=1.0, jitter=0.0)


@message("restart.add")
class Add:
    n: int


@message("restart.total")
class Total:
    pass


@message("restart.fail")
class Fail:
    pass


@message("restart.watch")
class Watch:
    ref: ActorRef


@message("restart.leave")
class Leave:
    pass


@message("restart.wait")
class Wait:
    seconds: float


class Account(Actor):
    """Writes down what it is told, and reads it again when it starts."""

    mailbox = Mailbox(8)
    restart = STEADY

    def __init__(self, disk: list[int]) -> None:
        self.disk = disk
        self.total = 0
        self.started = 0

    async def on_start(self, ctx: Context) -> None:
        self.total = sum(self.disk)

    @handles(Add)
    def add(self, msg: Add, ctx: Context) -> None:
        self.disk.append(msg.n)
        self.total += msg.n

    @handles(Total)
    def answer(self, msg: Total, ctx: Context) -> int:
        return self.total

    @handles(Fail)
    def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError("bad luck")

    @handles(Leave)
    def leave(self, msg: Leave, ctx: Context) -> None:
        ctx.stop()

    @handles(Wait)
    async def wait(self, msg: Wait, ctx: Context) -> None:
        await anyio.sleep(msg.seconds)


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
    for _ in range(40):
        await anyio.lowlevel.checkpoint()


async def watched(system: ActorSystem, ref: ActorRef) -> Watcher:
    watcher = Watcher()
    await (await system.spawn(watcher)).ask(Watch(ref), deadline=1)
    return watcher


async def test_a_new_instance_takes_over_address_mailbox_and_durable_state() -> None:
    disk: list[int] = []
    made: list[Account] = []

    def factory() -> Account:
        made.append(Account(disk))
        return made[-1]

    async with ActorSystem("s") as system:
        ref = await system.spawn(factory, name="account")
        before = system.actor_statistics(ref)
        for saying in (Add(1), Add(2), Fail(), Add(3), Add(4)):
            ref.tell(saying)
        assert await ref.ask(Total(), deadline=5) == 10
        after = system.actor_statistics(ref)
        assert (after.incarnation, after.num_restarts) == (before.incarnation + 1, 1)
        assert (after.kind, after.address, after.parent) == ("Account", ref.address, None)
        assert after.mailbox.accepted == 6
    assert disk == [1, 2, 3, 4]
    assert len(made) == 2
    assert [letter.message for letter in system.dead_letters] == [Fail()]
    assert system.failures == ()
    assert system.statistics().num_restarts == 1


async def test_who_asked_the_failed_one_is_told_and_who_waits_is_answered_by_the_next() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Account([7]))
        totals: list[object] = []

        async def ask() -> None:
            totals.append(await ref.ask(Total(), deadline=5))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            with pytest.raises(ActorStopped, match="bad luck") as raised:
                await ref.ask(Fail(), deadline=5)
        assert isinstance(raised.value.__cause__, ValueError)
        assert totals == [7]
        ref.tell(Fail())
        with pytest.raises(AskTimeout):  # a deadline runs on during the pause
            await ref.ask(Total(), deadline=0.5)


async def test_a_restart_is_no_down_and_the_end_is_exactly_one(caplog: pytest.LogCaptureFixture) -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Account([]))
        watcher = await watched(system, ref)
        for _ in range(3):
            ref.tell(Fail())
            await anyio.sleep(6)
            assert system.actor_statistics(ref).num_restarts
        assert watcher.downs == []
        ref.tell(Fail())
        await anyio.sleep(6)
        reason = "failed: ValueError: bad luck (3 restarts within 30 s were not enough)"
        assert watcher.downs == [Down(ref, reason)]
        assert [(failure.ref, str(failure.error)) for failure in system.failures] == [(ref, "bad luck")]
        assert system.statistics().num_restarts == 3
        assert await system.spawn(lambda: Account([])) != ref
    assert len(watcher.downs) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3 + [logging.ERROR]


async def test_failures_far_enough_apart_are_survived_for_ever() -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Account([]))
        for _ in range(20):
            ref.tell(Fail())
            await anyio.sleep(11)
        assert system.actor_statistics(ref).num_restarts == 20
        assert system.failures == ()


async def test_pauses_follow_the_injected_random_numbers_and_the_systems_clock() -> None:
    class Jittery(Account):
        restart = Restart("transient", backoff_s=2.0, jitter=0.5)

    restarted: list[float] = []

    def trace(event: TraceEvent) -> None:
        if event.kind == "restarted":
            restarted.append(event.at)

    async with ActorSystem("s", rng=lambda: 0.25, trace=trace) as system:
        start = anyio.current_time()
        ref = await system.spawn(lambda: Jittery([]))
        ref.tell(Fail())
        ref.tell(Fail())
        await anyio.sleep(100)
    assert [at - start for at in restarted] == pytest.approx([1.75, 1.75 + 3.5])


async def test_timers_and_tasks_of_the_failed_incarnation_are_gone() -> None:
    class Clockwork(Account):
        beats: ClassVar[list[tuple[int, str]]] = []
        lives = 0

        async def on_start(self, ctx: Context) -> None:
            Clockwork.lives += 1
            self.life = Clockwork.lives
            ctx.every(1.0, Add(self.life))
            ctx.start_soon(self.beat)

        async def on_stop(self, ctx: Context) -> None:
            ctx.after(0.7, Fail())  # a last wish is not granted
            await anyio.sleep(0.6)  # and the old timers do not ring any more: the next beat was due in this time

        @handles(Add)
        def add(self, msg: Add, ctx: Context) -> None:
            self.beats.append((msg.n, "timer"))

        async def beat(self) -> None:
            while True:
                await anyio.sleep(1.0)
                self.beats.append((self.life, "task"))

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Clockwork([]))
        await anyio.sleep(2.5)
        ref.tell(Fail())
        await anyio.sleep(3.8)
        assert system.statistics().num_timers == 1
        assert sorted(Clockwork.beats) == [(n, kind) for n in (1, 2) for kind in ("task", "timer") for _ in range(2)]


async def test_an_error_in_a_task_buries_the_message_that_was_being_handled() -> None:
    class Runner(Account):
        @handles(Leave)
        def leave(self, msg: Leave, ctx: Context) -> None:
            ctx.start_soon(self.crash)

        async def crash(self) -> None:
            await anyio.sleep(0.5)
            raise ValueError("in a task")

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Runner([]))
        ref.tell(Leave())
        ref.tell(Wait(10))
        ref.tell(Add(1))
        assert await ref.ask(Total(), deadline=5) == 1
        assert [letter.message for letter in system.dead_letters] == [Wait(10)]
        ref.tell(Leave())
        await anyio.sleep(5)  # it fails idle: nothing was in hand
        assert await ref.ask(Total(), deadline=5) == 0
        assert len(system.dead_letters) == 1


async def test_a_message_that_was_handled_is_not_buried_with_a_later_failure() -> None:
    class Deep(Account):
        mailbox = Mailbox(4 * BATCH)

        async def on_start(self, ctx: Context) -> None:
            self.crash = anyio.Event()
            ctx.start_soon(self.wait_and_crash)

        async def wait_and_crash(self) -> None:
            await self.crash.wait()
            raise ValueError("in a task")

        @handles(Add)
        def add(self, msg: Add, ctx: Context) -> None:
            self.disk.append(msg.n)
            if msg.n == BATCH - 1:
                self.crash.set()

    disk: list[int] = []
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Deep(disk))
        for n in range(4 * BATCH):
            ref.tell(Add(n))
        await anyio.sleep(5)
        assert system.actor_statistics(ref).num_restarts == 1
    assert disk == list(range(4 * BATCH))
    assert system.dead_letters == ()


async def test_a_key_that_raises_under_a_timer_is_a_failure_too() -> None:
    class Odd(Account):
        mailbox = Mailbox(2, "conflate", key=lambda message, sender: message.n)

        async def on_start(self, ctx: Context) -> None:
            ctx.after(1.0, Add(1) if self.disk else Total())
            self.disk.append(0)

    async with ActorSystem("s") as system:
        disk: list[int] = []
        ref = await system.spawn(lambda: Odd(disk))
        await anyio.sleep(5)
        assert system.actor_statistics(ref).num_restarts == 1
        assert disk == [0, 0, 1]


async def test_a_farewell_that_fails_before_a_restart_is_logged_and_hinders_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rude(Account):
        restart = Restart("permanent", backoff_s=1.0)

        async def on_stop(self, ctx: Context) -> None:
            raise OSError("no farewell")

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Rude([]))
        for saying in (Fail(), Leave()):
            ref.tell(saying)
            await anyio.sleep(5)
            assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
                f"{ref.address} failed again while it ended"
            ]
            caplog.clear()
        assert system.actor_statistics(ref).num_restarts == 2
        assert system.failures == ()
    assert [str(failure.error) for failure in system.failures] == ["no farewell"]


async def test_a_factory_or_a_start_that_fails_counts_as_a_failure_of_a_restart() -> None:
    attempts: list[float] = []

    class Fragile(Account):
        async def on_start(self, ctx: Context) -> None:
            if len(attempts) == 3:
                raise OSError("no disk")

    def factory() -> Account:
        attempts.append(anyio.current_time())
        if len(attempts) == 2:
            raise OSError("no memory")
        return Fragile([9])

    async with ActorSystem("s") as system:
        ref = await system.spawn(factory)
        ref.tell(Fail())
        await anyio.sleep(20)
        assert len(attempts) == 4
        assert await ref.ask(Total(), deadline=1) == 0
        assert system.actor_statistics(ref).num_restarts == 3
        assert system.failures == ()


async def test_an_instance_and_a_temporary_actor_are_not_restarted() -> None:
    class Mortal(Account):
        restart = Restart("temporary")

    async with ActorSystem("s") as system:
        for what in (Account([]), lambda: Mortal([])):
            ref = await system.spawn(what)
            watcher = await watched(system, ref)
            ref.tell(Fail())
            await anyio.sleep(5)
            assert watcher.downs == [Down(ref, "failed: ValueError: bad luck")]
        assert system.statistics().num_restarts == 0
        assert len(system.failures) == 2


async def test_a_first_start_that_fails_is_the_spawners_error_and_not_tried_again() -> None:
    class Broken(Account):
        async def on_start(self, ctx: Context) -> None:
            raise OSError("no disk")

    async with ActorSystem("s") as system:
        with pytest.raises(ActorStopped, match="no disk"):
            await system.spawn(lambda: Broken([]))
        assert system.statistics().num_restarts == 0


async def test_a_transient_actor_that_stops_itself_stays_down_and_a_permanent_one_comes_back() -> None:
    class Eternal(Account):
        restart = Restart("permanent", max_restarts=3, within_s=30.0, backoff_s=1.0)

    async with ActorSystem("s") as system:
        transient, permanent = [await system.spawn(lambda cls=cls: cls([1])) for cls in (Account, Eternal)]
        for ref in (transient, permanent):
            ref.tell(Leave())
            ref.tell(Add(1))
        assert await permanent.ask(Total(), deadline=5) == 2
        assert system.dead_letters == ()
        assert system.actor_statistics(permanent).num_restarts == 1
        with pytest.raises(ActorStopped):
            await transient.ask(Total(), deadline=5)
        watcher = await watched(system, permanent)
        system.stop(permanent)
        await anyio.sleep(5)
        assert watcher.downs == [Down(permanent, "stopped")]


async def test_a_permanent_actor_that_leaves_too_often_is_down() -> None:
    class Restless(Account):
        restart = Restart("permanent", max_restarts=3, within_s=30.0, backoff_s=1.0)

        async def on_start(self, ctx: Context) -> None:
            ctx.stop()
            ctx.stop()

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Restless([]))
        watcher = await watched(system, ref)
        await anyio.sleep(30)
        assert watcher.downs == [Down(ref, "stopped (3 restarts within 30 s were not enough)")]
        assert system.statistics().num_dead_letters == 0


async def test_a_wish_to_start_again_dies_with_the_incarnation_that_had_it() -> None:
    class Torn(Account):
        restart = Restart("permanent", backoff_s=1.0)

        @handles(Leave)
        def leave(self, msg: Leave, ctx: Context) -> None:
            ctx.stop()
            raise ValueError("bad luck")

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Torn([]))
        ref.tell(Leave())
        await anyio.sleep(10)
        assert system.actor_statistics(ref).num_restarts == 1


async def test_a_failure_while_it_stops_is_the_end_and_nobody_says_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Account([]))
        watcher = await watched(system, ref)
        ref.tell(Fail())
        system.stop(ref)
        await anyio.sleep(5)
        assert watcher.downs == [Down(ref, "failed: ValueError: bad luck")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_stopping_during_the_pause_is_the_end() -> None:
    class Slow(Account):
        restart = Restart("transient", backoff_s=60.0, backoff_max_s=60.0, jitter=0.0)

    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Slow([]))
        watcher = await watched(system, ref)
        ref.tell(Fail())
        ref.tell(Add(1))
        await anyio.sleep(1)
        system.stop(ref)
        await settle()
        assert [down.ref for down in watcher.downs] == [ref]
        assert [letter.message for letter in system.dead_letters] == [Fail(), Add(1)]
        assert system.statistics().num_actors == 1
        assert system.statistics().num_timers == 0


async def test_leaving_the_block_lets_a_restart_finish_within_the_drain_time() -> None:
    disk: list[int] = []
    async with ActorSystem("s") as system:
        ref = await system.spawn(lambda: Account(disk))
        ref.tell(Fail())
        ref.tell(Add(1))
    assert disk == [1]

    class Slow(Account):
        restart = Restart("transient", backoff_s=60.0, backoff_max_s=60.0)

    start = anyio.current_time()
    async with ActorSystem("s", drain_s=2.0) as system:
        (await system.spawn(lambda: Slow([]))).tell(Fail())
    assert anyio.current_time() - start == pytest.approx(2.0)


async def test_what_an_actor_monitors_it_still_monitors_after_its_restart() -> None:
    class Guard(Watcher):
        restart = STEADY
        heard: ClassVar[list[Down]] = []

        @handles(Down)
        def down(self, msg: Down, ctx: Context) -> None:
            self.heard.append(msg)

        @handles(Fail)
        def fail(self, msg: Fail, ctx: Context) -> None:
            raise ValueError("bad luck")

    async with ActorSystem("s") as system:
        guard, ref = await system.spawn(Guard), await system.spawn(lambda: Account([]))
        await guard.ask(Watch(ref), deadline=1)
        guard.tell(Fail())
        system.stop(ref)  # goes down while the guard is between two lives
        await anyio.sleep(5)
        assert Guard.heard == [Down(ref, "stopped")]


async def test_each_spawn_draws_an_incarnation_of_its_own() -> None:
    async def lives(**options: Any) -> list[ActorStatistics]:
        async with ActorSystem("s", **options) as system:
            found = []
            for _ in range(2):
                ref = await system.spawn(lambda: Account([]), name="account")
                found.append(system.actor_statistics(ref))
                system.stop(ref)
                await settle()
            return found

    numbers = [life.incarnation for life in await lives() + await lives()]
    assert len(set(numbers)) == 4
    draws = iter([0.25, 0.75])
    assert [life.incarnation for life in await lives(rng=lambda: next(draws))] == [1 << 46, 3 << 46]


async def downs_run(steps: list[tuple[str, int]]) -> tuple[list[int], list[int]]:
    """Do the steps; return how often each watcher was to be told that the account is down, and how often it was."""

    class Guard(Watcher):
        restart = Restart("transient", max_restarts=100, within_s=1.0, backoff_s=0.5)

        def __init__(self, downs: list[Down]) -> None:
            self.downs = downs

        @handles(Fail)
        def fail(self, msg: Fail, ctx: Context) -> None:
            raise ValueError("bad luck")

    heard: list[list[Down]] = [[], [], []]
    due, waiting = [0, 0, 0], [False, False, False]
    async with ActorSystem("s") as system:
        account = await system.spawn(lambda: Account([]), name="account")
        guards = [await system.spawn(lambda downs=downs: Guard(downs)) for downs in heard]
        for step, which in steps:
            alive = system.statistics().num_actors == 4
            if step == "watch":
                guards[which].tell(Watch(account))
                waiting[which] = alive
                due[which] += not alive
            elif step == "guard":
                guards[which].tell(Fail())
            elif step == "fail":
                account.tell(Fail())
            else:
                system.stop(account)
            await anyio.sleep(7)
            if system.statistics().num_actors == 3:
                due, waiting = [n + still for n, still in zip(due, waiting, strict=True)], [False] * 3
        return due, [len(downs) for downs in heard]


STEPS = st.tuples(st.sampled_from(["watch", "watch", "fail", "guard", "stop"]), st.integers(0, 2))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=14))
def test_each_monitor_gets_exactly_one_down_whoever_restarts_in_between(
    backend: str, steps: list[tuple[str, int]]
) -> None:
    due, heard = anyio.run(downs_run, steps, backend=backend, backend_options=virtual(backend))
    assert heard == due


def virtual(backend: str) -> dict[str, Any]:
    return {"loop_factory": VirtualLoop} if backend == "asyncio" else {"clock": MockClock(autojump_threshold=0)}


async def failing_run(setting: Restart, gaps_s: list[float]) -> tuple[list[float], bool]:
    """Make an actor fail after each gap; return when it was restarted, and whether it is down for good."""

    class Failing(Account):
        restart = setting

    restarted: list[float] = []

    def trace(event: TraceEvent) -> None:
        if event.kind == "restarted":
            restarted.append(event.at)

    async with ActorSystem("s", trace=trace, drain_s=1.0) as system:
        ref = await system.spawn(lambda: Failing([]))
        for gap_s in gaps_s:
            await anyio.sleep(gap_s)
            if system.statistics().num_actors and system.mailbox_statistics(ref).queued < 8:
                ref.tell(Fail())
        return restarted, not system.statistics().num_actors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40, deadline=None)
@given(
    max_restarts=st.integers(1, 4),
    backoff_s=st.sampled_from([0.01, 1.0]),
    gaps_s=st.lists(st.sampled_from([0.001, 0.5, 3.0, 11.0]), min_size=1, max_size=25),
)
def test_no_actor_is_restarted_more_often_within_the_window_than_its_setting_says(
    backend: str, max_restarts: int, backoff_s: float, gaps_s: list[float]
) -> None:
    setting = Restart("transient", max_restarts=max_restarts, within_s=10.0, backoff_s=backoff_s)
    began, down = anyio.run(failing_run, setting, gaps_s, backend=backend, backend_options=virtual(backend))
    assert all(sum(end - 10.0 < at <= end for at in began) <= max_restarts for end in began)
    if down:
        assert len(began) >= max_restarts
