"""What actors of two nodes can expect of each other, over memory, TCP and mutual TLS, on asyncio and trio."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import anyio
import attrs
import numpy as np
import pytest

from actors import ActorError, ActorRef, ActorSystem, AskTimeout, Down, MailboxFull
from actors.errors import (
    ActorStopped,
    BadMessage,
    BadSetting,
    LinkFull,
    TransportClosed,
    UnhandledMessage,
    UnknownActor,
    UnknownPeer,
)
from actors.links import TcpTransport
from actors.remote_peer import RemoteLimits
from actors.trace import Returned
from actors.transport import MemoryHub, MemoryTransport
from tests.links_world import Authority, config, plain, until
from tests.remote_world import (
    Desk,
    Fail,
    Guard,
    Hold,
    Letter,
    Note,
    Odd,
    OpenTwo,
    Question,
    Say,
    SmallDesk,
    Two,
    Unheard,
    Watch,
    memory_two,
    tcp_two,
    until_letters,
    up,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "tcp", "tls"])
def open_two(request: pytest.FixtureRequest, tmp_path: Path) -> OpenTwo:
    if request.param == "memory":
        return memory_two
    return partial(tcp_two, plain if request.param == "tcp" else Authority(tmp_path).tls)


@pytest.fixture(params=["memory", "tcp"])
def open_quick(request: pytest.FixtureRequest) -> OpenTwo:
    """For what cannot depend on TLS."""
    return memory_two if request.param == "memory" else partial(tcp_two, plain)


def tell_much(to: ActorRef) -> None:
    for _ in range(20):  # without a checkpoint in between nothing can leave
        to.tell(Note(bytes(1_000_000)))


async def at_b(two: Two, desk: Desk, name: str = "desk") -> ActorRef:
    await two.b.spawn(desk, name=name)
    return two.far(name)


async def test_a_tell_arrives_with_its_sender_who_can_be_answered(open_two: OpenTwo) -> None:
    desk, home, guard = Desk(), Desk(), Guard()
    async with open_two() as two:
        far = await at_b(two, desk, "healthcare/desk")
        mine = await two.a.spawn(home, name="home")
        asker = await two.a.spawn(guard, name="guard")
        far.tell(Note("from outside"))
        asker.tell(Say(far, Note((1, mine, far))))
        await until(lambda: len(desk.kept) == 2)
        assert desk.senders == [None, two.b.ref("scarcity://a/guard")]
        number, back, own = desk.kept[1]  # type: ignore[misc]  # a tuple of three was sent
        assert (number, back, own) == (1, mine, two.b.ref("healthcare/desk"))
        back.tell(Note("back"))
        own.tell(Note("to itself"))
        await until(lambda: home.kept == ["back"] and len(desk.kept) == 3)


async def test_an_ask_brings_back_what_the_handler_returns(open_two: OpenTwo) -> None:
    async with open_two() as two:
        far = await at_b(two, Desk())
        array = np.arange(10_000.0).reshape(100, 100)
        for value in (None, 7, "text", b"bytes", [1, (2,)], {"a": 1.5}, Note("message"), far):
            assert await far.ask(Question(value), deadline=5) == value
        found = await far.ask(Question(array), deadline=5)
        np.testing.assert_array_equal(found, array)
        assert isinstance(found, np.ndarray)
        assert not found.flags.writeable
        statistics = two.a.remote_statistics()["b"], two.b.remote_statistics()["a"]
        assert [one.asks_out + one.asks_in for one in statistics] == [0, 0]


async def test_many_asks_at_once_get_each_their_own_reply(open_two: OpenTwo) -> None:
    found: dict[int, object] = {}
    async with open_two() as two:
        far = await at_b(two, Desk())

        async def ask(number: int) -> None:
            found[number] = await far.ask(Question(number), deadline=10)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(ask, number)
    assert found == {number: number for number in range(200)}


async def test_tells_of_one_channel_keep_their_order(open_two: OpenTwo) -> None:
    desk = Desk()
    async with open_two() as two:
        far = await at_b(two, desk)
        for number in range(100):
            far.tell(Note(number))
            far.tell(Letter(-number - 1))
        await until(lambda: len(desk.kept) == 200)
    assert [kept for kept in desk.kept if kept >= 0] == list(range(100))  # type: ignore[operator]  # numbers
    assert [kept for kept in desk.kept if kept < 0] == list(range(-1, -101, -1))  # type: ignore[operator]  # numbers


async def test_reliable_messages_come_once_and_in_order_across_lost_links(open_two: OpenTwo) -> None:
    desk = Desk()
    async with open_two() as two:
        far = await at_b(two, desk)
        for burst in range(4):
            for number in range(50):
                far.tell(Letter(50 * burst + number))
            await until(lambda: len(desk.kept) > 50 * burst)  # noqa: B023 - awaited at once
            await two.cut()
        await until(lambda: len(desk.kept) >= 200)
    assert desk.kept == list(range(200))


async def test_an_ask_fails_with_the_error_it_would_have_here(open_two: OpenTwo) -> None:
    async with open_two() as two:
        far = await at_b(two, Desk())
        small = SmallDesk()
        full = await at_b(two, small, "full")
        with pytest.raises(UnhandledMessage):
            await far.ask(Unheard(), deadline=5)
        with pytest.raises(UnknownActor):
            await two.far("nobody").ask(Question(), deadline=5)
        with pytest.raises(BadMessage, match="object"):
            await far.ask(Odd(), deadline=5)
        with pytest.raises(ActorStopped) as stopped:
            await far.ask(Fail("patient 17"), deadline=5)
        assert "ValueError" in str(stopped.value)
        assert "patient" not in str(stopped.value)  # what an actor failed at stays at its node
        full.tell(Hold())
        await small.busy.wait()
        full.tell(Note(1))
        with pytest.raises(MailboxFull, match="1 messages"):
            await full.ask(Question(), deadline=5)
        with pytest.raises(AskTimeout):
            await full.ask(Question(), deadline=1e-6)
        small.gate.set()
        assert [type(failure.error) for failure in two.b.failures] == [ValueError]
        with pytest.raises(BadSetting):
            await full.ask(Question(), deadline=-1)


async def test_an_actor_survives_replies_that_cannot_travel(open_quick: OpenTwo) -> None:
    async with open_quick() as two:
        desk = Desk()
        far = await at_b(two, desk)
        for odd in (object(), {1: 2}, bytes(5 << 20), bytes((4 << 20) - 10), "\ud800", [[]] * 20_000):
            desk.odd = odd
            with pytest.raises(BadMessage):
                await far.ask(Odd(), deadline=5)
        assert await far.ask(Question("alive"), deadline=5) == "alive"


async def test_an_ask_past_its_deadline_is_not_handled_there(open_quick: OpenTwo) -> None:
    desk = Desk()
    async with open_quick() as two:
        far = await at_b(two, desk)
        far.tell(Hold())
        await desk.busy.wait()
        with pytest.raises(AskTimeout):
            await far.ask(Question("late"), deadline=0.05)
        await until(lambda: two.b.remote_statistics()["a"].asks_in == 0)
        desk.gate.set()
        ref = two.b.ref("desk")
        await until(lambda: two.b.mailbox_statistics(ref).expired == 1)
        assert desk.senders == []


async def test_a_tell_that_is_not_delivered_comes_back_as_a_dead_letter(open_two: OpenTwo) -> None:
    small = SmallDesk()
    async with open_two() as two:
        far, nobody = await at_b(two, small), two.far("nobody")
        mine = await two.a.spawn(Guard, name="guard")
        mine.tell(Say(nobody, Note(1)))
        letters = await until_letters(two.a, 1)
        assert letters[0].message == Returned("remote.note")
        assert (letters[0].to, letters[0].sender) == (nobody.address, mine)
        assert "nobody lives" in letters[0].reason
        assert two.b.dead_letters[0].message == Note(1)
        assert two.b.dead_letters[0].sender == mine
        far.tell(Hold())
        await small.busy.wait()
        for number in range(3):
            far.tell(Note(number))
        letters = await until_letters(two.a, 3)
        assert [letter.reason[:5] for letter in letters[1:]] == ["busy:", "busy:"]
        small.gate.set()
        await until(lambda: small.kept == [0])
        here, there = two.a.remote_statistics()["b"], two.b.remote_statistics()["a"]
        assert (here.num_returned, there.num_busy, there.num_undelivered) == (3, 2, 1)
        assert (two.a.statistics().num_dead_letters, two.b.statistics().num_dead_letters) == (3, 1)


async def test_a_link_problem_is_an_error_of_who_sends(open_two: OpenTwo) -> None:
    async with open_two() as two:
        desk = Desk()
        far = await at_b(two, desk)
        for lost in (two.a.ref("scarcity://nowhere/x"), two.b.ref("scarcity://nowhere/x")):
            with pytest.raises(UnknownPeer):
                lost.tell(Note(1))
            with pytest.raises(UnknownPeer):
                await lost.send(Note(1))
            with pytest.raises(UnknownPeer):
                await lost.ask(Question(), deadline=1)
        with pytest.raises(MailboxFull, match="bytes wait"):
            tell_much(far)
        with pytest.raises(ActorError):
            far.tell(Note(bytes(5_000_000)))
        with anyio.fail_after(10):
            await far.send(Note("there was room in the end"))
        await until(lambda: desk.kept[-1:] == ["there was room in the end"])
    with pytest.raises(TransportClosed):
        far.tell(Note(1))
    with pytest.raises(TransportClosed):
        await far.ask(Question(), deadline=1)


async def test_what_cannot_travel_is_refused_where_it_is_said(open_quick: OpenTwo) -> None:
    async with open_quick() as two:
        far = await at_b(two, Desk())
        for wrong in ("text", [1], Note(object()), Down(far, "forged")):
            with pytest.raises(BadMessage):
                far.tell(wrong)
            with pytest.raises(BadMessage):
                await far.send(wrong)
            with pytest.raises(BadMessage):
                await far.ask(wrong, deadline=1)
        with pytest.raises(BadMessage, match="sender"):
            far.tell(Note(1), sender=far)
        assert two.a.remote_statistics()["b"].asks_out == 0


async def test_a_down_inside_a_message_is_data(open_quick: OpenTwo) -> None:
    desk = Desk()
    async with open_quick() as two:
        far = await at_b(two, desk)
        far.tell(Note(Down(far, "said")))
        await until(lambda: desk.kept == [Down(two.b.ref("desk"), "said")])


async def test_without_a_link_a_tell_is_a_dead_letter_and_an_ask_waits(open_quick: OpenTwo) -> None:
    async with open_quick() as two:
        absent = two.a.ref("scarcity://absent/desk")
        absent.tell(Note(1))
        absent.tell(Letter(1))  # waits for the link
        (letter,) = two.a.dead_letters
        assert (letter.message, letter.to) == (Note(1), absent.address)
        assert letter.reason.startswith("no link to absent: ")
        assert two.a.remote_statistics()["absent"].num_dropped == 1
        with pytest.raises(AskTimeout):
            await absent.ask(Question(), deadline=0.02)


async def test_an_ask_that_waits_for_the_link_is_sent_when_it_comes() -> None:
    hub = MemoryHub(("a", "b"))
    desk = Desk()
    found = []
    async with (
        ActorSystem("a", transport=MemoryTransport("a", hub)) as a,
        anyio.create_task_group() as group,
    ):
        far = a.ref("scarcity://b/desk")

        async def ask() -> None:
            found.append(await far.ask(Question("early"), deadline=10))

        group.start_soon(ask)
        await until(lambda: "b" in a.remote_statistics())
        b = ActorSystem("b", transport=MemoryTransport("b", hub))
        hub.cut("a", "b")
        async with b:
            await b.spawn(desk, name="desk")
            hub.heal("a", "b")
            await until(lambda: found == ["early"])


async def test_a_lost_link_fails_the_asks_that_wait_for_it(open_two: OpenTwo) -> None:
    desk = Desk()
    async with open_two() as two:
        far = await at_b(two, desk)
        errors: list[ActorError] = []

        async def ask() -> None:
            try:
                await far.ask(Hold(), deadline=60)
            except ActorStopped as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await desk.busy.wait()
            await two.cut()
            await until(lambda: bool(errors))
        assert "link lost: " in str(errors[0])
        desk.gate.set()
        await two.linked()
        await until(lambda: two.b.remote_statistics()["a"].asks_in == 0)
        assert await far.ask(Question("again"), deadline=5) == "again"
        assert two.a.remote_statistics()["b"].num_late == 0


async def test_a_question_that_a_lost_link_took_along_is_never_handled_later() -> None:
    hub = MemoryHub(("a", "b"))
    desk = Desk()
    async with (
        ActorSystem("a", transport=MemoryTransport("a", hub)) as a,
        ActorSystem("b", transport=MemoryTransport("b", hub)) as b,
    ):
        ref = await b.spawn(desk, name="desk")
        far = a.ref("scarcity://b/desk")

        async def ask() -> None:
            with contextlib.suppress(ActorStopped, AskTimeout):
                await far.ask(Question(), deadline=0.05)

        async def cut() -> None:
            hub.cut("a", "b")

        for number in range(20):  # the cut comes before the question has left, or after
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                group.start_soon(cut)
            await until(lambda: b.mailbox_statistics(ref).queued == 0)
            before = len(desk.senders)
            hub.heal("a", "b")
            await far.ask(Question(), deadline=5)
            assert len(desk.senders) == before + 1, number


async def test_asks_that_wait_are_bounded_at_both_ends(open_quick: OpenTwo) -> None:
    desk = Desk()
    async with open_quick(RemoteLimits(asks_out=2, asks_in=1)) as two:
        far = await at_b(two, desk)
        outcomes: list[object] = []

        async def ask() -> None:
            try:
                outcomes.append(await far.ask(Hold(), deadline=10))
            except MailboxFull as error:
                outcomes.append(type(error))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await desk.busy.wait()
            for _ in range(3):
                group.start_soon(ask)
            await until(lambda: len(outcomes) == 3)
            desk.gate.set()
        assert outcomes[-1] == "held"
        assert set(outcomes[:-1]) == {LinkFull, MailboxFull}
        assert two.a.remote_statistics()["b"].num_asks_full == 2
        assert two.b.remote_statistics()["a"].num_busy == 1


@pytest.mark.parametrize(("end", "reason"), [("stop", "stopped"), ("fail", "failed: ValueError")])
async def test_who_monitors_an_actor_of_another_node_hears_once_that_it_is_gone(
    open_two: OpenTwo, end: str, reason: str
) -> None:
    guard, other = Guard(), Guard()
    async with open_two() as two:
        far = await at_b(two, Desk())
        watchers = [await two.a.spawn(guard), await two.a.spawn(other)]
        for watcher in (*watchers, *watchers):
            watcher.tell(Watch(far))
        await until(lambda: two.b.remote_statistics()["a"].watches_in == 1)
        if end == "stop":
            two.b.stop(two.b.ref("desk"))
        else:
            far.tell(Fail("patient 17"))
        await until(lambda: bool(guard.downs and other.downs))
        await two.cut()
        await two.linked()
        assert guard.downs == other.downs == [(far, reason)]
        assert [two.a.remote_statistics()["b"].watches_out, two.b.remote_statistics()["a"].watches_in] == [0, 0]


async def test_who_monitors_nobody_or_without_a_link_hears_so_at_once(open_two: OpenTwo) -> None:
    guard = Guard()
    async with open_two() as two:
        watcher = await two.a.spawn(guard)
        for ref in (two.far("nobody"), two.a.ref("scarcity://absent/x"), two.a.ref("scarcity://nowhere/x")):
            watcher.tell(Watch(ref))
        await until(lambda: len(guard.downs) == 3)
        reasons = {ref.address.node: reason for ref, reason in guard.downs}
        assert reasons["b"] == "unknown"
        assert reasons["absent"].startswith("link lost: ")
        assert reasons["nowhere"] == "link lost: the node is not known"


async def test_who_monitors_hears_once_that_the_link_was_lost(open_two: OpenTwo) -> None:
    guard = Guard()
    async with open_two() as two:
        far = await at_b(two, Desk())
        watcher = await two.a.spawn(guard)
        watcher.tell(Watch(far))
        await until(lambda: two.b.remote_statistics()["a"].watches_in == 1)
        await two.cut()
        await until(lambda: bool(guard.downs))
        await two.linked()
        two.b.stop(two.b.ref("desk"))
        with pytest.raises(ActorStopped):
            await far.ask(Question(), deadline=5)
        assert [ref for ref, _ in guard.downs] == [far]
        assert guard.downs[0][1].startswith("link lost: ")
        assert two.b.remote_statistics()["a"].watches_in == 0


async def test_who_is_gone_does_not_monitor_any_more(open_quick: OpenTwo) -> None:
    async with open_quick() as two:
        far = await at_b(two, Desk())
        watchers = [await two.a.spawn(Guard), await two.a.spawn(Guard)]
        for watcher in watchers:
            watcher.tell(Watch(far))
        await until(lambda: two.b.remote_statistics()["a"].watches_in == 1)
        two.a.stop(watchers[0])
        with pytest.raises(ActorStopped):
            await watchers[0].ask(Question(), deadline=5)
        assert two.b.remote_statistics()["a"].watches_in == 1
        two.a.stop(watchers[1])
        await until(lambda: two.b.remote_statistics()["a"].watches_in == 0)
        assert two.a.remote_statistics()["b"].watches_out == 0


async def test_a_process_that_starts_again_fails_asks_and_monitors_and_can_be_asked_anew(open_two: OpenTwo) -> None:
    guard, desk = Guard(), Desk()
    errors: list[str] = []
    async with open_two() as two:
        far = await at_b(two, desk)
        watcher = await two.a.spawn(guard)
        watcher.tell(Watch(far))

        async def ask() -> None:
            try:
                await far.ask(Hold(), deadline=60)
            except ActorStopped as error:
                errors.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await desk.busy.wait()
            async with two.restart() as again:
                await until(lambda: bool(errors and guard.downs))
                await again.spawn(Desk, name="desk")
                await until(lambda: up(two.a, "b") and up(again, "a"))
                assert await far.ask(Question("new life"), deadline=5) == "new life"
                watcher.tell(Watch(far))
                await until(lambda: again.remote_statistics()["a"].watches_in == 1)
                assert len(guard.downs) == 1


async def test_the_last_words_of_a_system_leave_it(open_two: OpenTwo) -> None:
    desk = Desk()
    async with open_two() as two:
        await two.a.spawn(desk, name="desk")
        last = await two.b.spawn(Guard)
        home = two.b.ref("scarcity://a/desk")
        for number in range(20):
            last.tell(Say(home, Note(number)))
        async with two.restart():
            await until(lambda: len(desk.kept) == 20)
    assert desk.kept == list(range(20))


async def test_a_system_refuses_the_transport_of_another_node() -> None:
    with pytest.raises(BadSetting, match="transport"):
        ActorSystem("a", transport=MemoryTransport("b", MemoryHub(("a", "b"))))
    with pytest.raises(BadSetting, match="asks_in"):
        RemoteLimits(asks_in=0)


async def test_an_actor_of_another_node_is_not_taken_for_one_of_the_same_path_here() -> None:
    guard = Guard()
    foreign = ActorSystem("elsewhere").ref("desk")
    async with memory_two() as two:
        for system in (two.a, two.b):
            await system.spawn(Desk, name="desk")
        far, mine = two.far("desk"), two.a.ref("desk")
        for call in (two.a.stop, two.a.mailbox_statistics, two.a.actor_statistics):
            with pytest.raises(UnknownActor, match="does not live at a"):
                call(far)
        assert await mine.ask(Question("alive"), deadline=5) == "alive"
        assert far != mine
    async with ActorSystem("alone") as alone:
        watcher = await alone.spawn(guard)
        await alone.spawn(Desk, name="desk")
        watcher.tell(Watch(foreign))
        await until(lambda: guard.downs == [(foreign, "unknown")])


async def test_a_transport_that_cannot_begin_is_the_error_of_the_block() -> None:
    taken = TcpTransport(config("b"), plain("b"))
    async with ActorSystem("b", transport=taken):
        settings = attrs.evolve(config("a"), port=taken.port)
        with pytest.raises(OSError, match="in use"):
            async with ActorSystem("a", transport=TcpTransport(settings, plain("a"))):
                raise AssertionError("it began")


async def test_who_looks_at_links_sees_them_and_may_fail() -> None:
    hub = MemoryHub(("a", "b"))
    seen: list[tuple[str, bool, str]] = []

    def look(*link: object) -> None:
        seen.append(link)  # type: ignore[arg-type]  # three values by the type of the hook
        raise KeyError("mine")

    async with (
        ActorSystem("a", transport=MemoryTransport("a", hub), on_link=look) as a,
        ActorSystem("b", transport=MemoryTransport("b", hub)),
    ):
        assert a.transport_statistics().links["b"].up
    assert [(node, up) for node, up, _ in seen] == [("b", True), ("b", False)]
    async with ActorSystem("alone") as alone:
        assert not alone.transport_statistics().links
        assert not alone.remote_statistics()
        with pytest.raises(UnknownActor):
            alone.ref("scarcity://b/desk")


async def test_a_system_that_copies_talks_to_other_nodes_too() -> None:
    hub = MemoryHub(("a", "b"))
    async with (
        ActorSystem("a", transport=MemoryTransport("a", hub), copy="wire") as a,
        ActorSystem("b", transport=MemoryTransport("b", hub), copy="wire") as b,
    ):
        desk = Desk()
        ref = await b.spawn(desk, name="desk")
        far = a.ref("scarcity://b/desk")
        assert await far.ask(Question([far]), deadline=5) == [far]
        ref.tell(Note([ref, b.ref("scarcity://a/x")]))
        await until(lambda: desk.kept == [[ref, b.ref("scarcity://a/x")]])


async def test_an_error_in_the_block_comes_out_as_it_is_and_ends_the_transport() -> None:
    hub = MemoryHub(("a", "b"))
    with pytest.raises(KeyError):
        async with ActorSystem("a", transport=MemoryTransport("a", hub)) as a:
            raise KeyError("mine")
    with pytest.raises(TransportClosed):
        a.ref("scarcity://b/x").tell(Note(1))
    assert hub.running == {}
