"""Children: they live no longer than an incarnation of their parent, and the parent hears when one is down for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest

from actors import Actor, ActorRef, ActorSystem, Context, Down, Restart, handles, message
from actors.errors import ActorStopped, NameTaken
from actors.trace import TraceEvent

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@message("children.fail")
class Fail:
    pass


@message("children.hire")
class Hire:
    pass


@message("children.hang")
class Hang:
    pass


class Child(Actor):
    restart = Restart("transient", max_restarts=2, within_s=60.0, backoff_s=1.0, jitter=0.0)

    @handles(Fail)
    def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError("bad luck")

    @handles(Hang)
    async def hang(self, msg: Hang, ctx: Context) -> None:
        await anyio.sleep_forever()


class Deaf(Actor):
    """A parent without a handler for `Down`."""

    restart = Restart("transient", max_restarts=2, within_s=60.0, backoff_s=1.0, jitter=0.0)
    watches: ClassVar[bool] = False
    make: ClassVar[Callable[[], Actor]] = Child

    def __init__(self) -> None:
        self.children: list[ActorRef] = []

    async def on_start(self, ctx: Context) -> None:
        for name in ("one", "two"):
            self.children.append(await ctx.spawn(type(self).make, name=f"child/{name}"))
            if self.watches:
                ctx.monitor(self.children[-1])

    @handles(Fail)
    def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError("parent's bad luck")

    @handles(Hire)
    async def hire(self, msg: Hire, ctx: Context) -> ActorRef:
        return await ctx.spawn(Child)


class Parent(Deaf):
    def __init__(self) -> None:
        super().__init__()
        self.downs: list[Down] = []

    @handles(Down)
    def down(self, msg: Down, ctx: Context) -> None:
        self.downs.append(msg)


class Watching(Parent):
    watches = True


async def fail_for_good(ref: ActorRef) -> None:
    for _ in range(3):
        ref.tell(Fail())
    await anyio.sleep(10)


@pytest.mark.parametrize("kind", [Parent, Watching])
async def test_a_parent_gets_one_down_when_a_child_has_failed_for_good(kind: type[Parent]) -> None:
    parent = kind()
    async with ActorSystem("s") as system:
        await system.spawn(parent)
        one = system.ref("child/one")
        one.tell(Fail())
        await anyio.sleep(5)
        assert parent.downs == []
        await fail_for_good(one)
        assert parent.downs == [Down(one, "failed: ValueError: bad luck (2 restarts within 60 s were not enough)")]
        assert system.failures == ()
        assert system.statistics().num_actors == 2
    # At the end of the system the other child stops: only a monitor asks to hear of that.
    assert {down.ref for down in parent.downs} <= {one, system.ref("child/two")}


async def test_a_parent_that_cannot_hear_leaves_the_failure_to_the_record() -> None:
    async with ActorSystem("s") as system:
        await system.spawn(Deaf)
        await fail_for_good(system.ref("child/one"))
        assert [failure.ref for failure in system.failures] == [system.ref("child/one")]
        assert [letter.message for letter in system.dead_letters] == [Fail()] * 3


async def test_a_child_that_stops_by_itself_is_no_news() -> None:
    parent = Parent()
    async with ActorSystem("s") as system:
        ref = await system.spawn(parent)
        system.stop(system.ref("child/one"))
        await anyio.sleep(1)
        assert parent.downs == []
        assert system.actor_statistics(ref).num_children == 1
        assert system.actor_statistics(system.ref("child/two")).parent == ref.address


async def test_children_stop_with_their_parent_and_before_it() -> None:
    stopped: list[str] = []

    def trace(event: TraceEvent) -> None:
        if event.kind == "stopped":
            stopped.append(event.to.path)

    async with ActorSystem("s", trace=trace) as system:
        parent = await system.spawn(Parent, name="parent")
        system.stop(parent)
        await anyio.sleep(1)
        assert sorted(stopped[:2]) == ["child/one", "child/two"]
        assert stopped[2:] == ["parent"]
        assert system.statistics().num_actors == 0


async def test_a_parent_that_restarts_gets_new_children_under_the_same_names() -> None:
    async with ActorSystem("s") as system:
        parent = await system.spawn(Parent, name="parent")
        one = system.ref("child/one")
        before = system.actor_statistics(one).incarnation
        parent.tell(Fail())
        await anyio.sleep(5)
        assert system.statistics().num_actors == 3
        assert system.actor_statistics(one).incarnation != before
        assert system.actor_statistics(one).num_restarts == 0
        assert system.actor_statistics(parent).num_restarts == 1


async def test_what_a_child_fails_at_when_it_is_stopped_is_not_for_the_next_incarnation_to_hear() -> None:
    class Sulking(Child):
        async def on_stop(self, ctx: Context) -> None:
            raise ValueError("no farewell")

    class Unlucky(Parent):
        make = Sulking

    parents: list[Parent] = []

    def factory() -> Parent:
        parents.append(Unlucky())
        return parents[-1]

    async with ActorSystem("s") as system:
        ref = await system.spawn(factory)
        ref.tell(Fail())
        await anyio.sleep(5)
        assert [parent.downs for parent in parents] == [[], []]
        assert [str(failure.error) for failure in system.failures] == ["no farewell"] * 2


async def test_a_child_that_hangs_delays_its_parents_end_by_the_drain_time_at_most() -> None:
    async with ActorSystem("s", drain_s=2.0) as system:
        parent = await system.spawn(Parent)
        system.ref("child/two").tell(Hang())
        await anyio.sleep(0.1)
        system.stop(parent)
        await anyio.sleep(1.9)
        assert system.statistics().num_actors == 2
        await anyio.sleep(0.2)
        assert system.statistics().num_actors == 0


async def test_a_child_of_a_child_goes_too_and_a_failure_climbs_as_far_as_each_level_gives_up() -> None:
    class Strict(Parent):
        """Fails when a child is down: the failure goes up."""

        restart = Restart("temporary")

        @handles(Down)
        def down(self, msg: Down, ctx: Context) -> None:
            raise RuntimeError(f"cannot do without {msg.ref.address.path}")

    class Root(Parent):
        async def on_start(self, ctx: Context) -> None:
            self.children.append(await ctx.spawn(Strict, name="middle"))

    root = Root()
    async with ActorSystem("s") as system:
        await system.spawn(root)
        assert system.statistics().num_actors == 4
        await fail_for_good(system.ref("child/one"))
        assert root.downs == [Down(system.ref("middle"), "failed: RuntimeError: cannot do without child/one")]
        assert system.statistics().num_actors == 1
        assert system.failures == ()


async def test_a_child_that_does_not_start_is_the_error_of_the_parents_spawn() -> None:
    class Broken(Child):
        async def on_start(self, ctx: Context) -> None:
            raise OSError("no disk")

    class Boss(Parent):
        errors: ClassVar[list[Exception]] = []

        async def on_start(self, ctx: Context) -> None:
            for what in (Broken, Child, Child):
                try:
                    await ctx.spawn(what, name="same")
                except (ActorStopped, NameTaken) as error:
                    self.errors.append(error)

    boss = Boss()
    async with ActorSystem("s") as system:
        await system.spawn(boss)
        assert [type(error) for error in boss.errors] == [ActorStopped, NameTaken]
        assert boss.downs == []


async def test_an_actor_that_ends_spawns_nothing() -> None:
    class Last(Deaf):
        refused: ClassVar[list[str]] = []

        async def on_stop(self, ctx: Context) -> None:
            with pytest.raises(ActorStopped) as raised:
                await ctx.spawn(Child)
            self.refused.append(str(raised.value))

    async with ActorSystem("s") as system:
        await system.spawn(Last)
    assert len(Last.refused) == 1
    assert system.statistics().num_actors == 0
    assert system.failures == ()


async def test_cancelling_a_system_takes_children_along() -> None:
    with anyio.move_on_after(1.0) as scope:
        async with ActorSystem("s") as system:
            parent = await system.spawn(Parent)
            child = await parent.ask(Hire(), deadline=1)
            assert isinstance(child, ActorRef)
            child.tell(Hang())
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert system.statistics().num_actors == 0
