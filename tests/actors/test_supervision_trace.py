"""The hook for events: which come, in what order, and that looking on changes nothing."""

from __future__ import annotations

import logging

import anyio
import attrs
import pytest

from actors import Actor, ActorSystem, Context, Mailbox, Restart, handles, message
from actors.mailbox import Overflow
from actors.trace import TraceEvent

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@message("trace.note")
class Note:
    n: int


@message("trace.fail")
class Fail:
    pass


@message("trace.hold")
class Hold:
    pass


@message("trace.strange")
class Strange:
    pass


class Desk(Actor):
    restart = Restart("transient", backoff_s=1.0)

    def __init__(self) -> None:
        self.seen: list[int] = []

    @handles(Note)
    def note(self, msg: Note, ctx: Context) -> int:
        self.seen.append(msg.n)
        return msg.n

    @handles(Fail)
    async def fail(self, msg: Fail, ctx: Context) -> None:
        raise ValueError("bad luck")

    @handles(Hold)
    async def hold(self, msg: Hold, ctx: Context) -> None:
        await anyio.sleep(1.0)


async def test_the_events_of_a_life_come_in_order_with_who_what_and_when() -> None:
    events: list[TraceEvent] = []
    async with ActorSystem("s", rng=lambda: 0.0, trace=events.append) as system:
        start = anyio.current_time()
        ref = await system.spawn(Desk, name="desk")
        ref.tell(Note(1), sender=system.ref("other"))
        ref.tell(Fail())
        ref.tell(Strange())
        await anyio.sleep(5)
    told = [(event.kind, event.message, event.detail) for event in events]
    assert told == [
        ("spawned", None, "incarnation 0"),
        ("delivered", Note(1), ""),
        ("delivered", Fail(), ""),
        ("dead_letter", Fail(), "the actor failed: ValueError: bad luck"),
        ("restarted", None, "incarnation 1"),
        ("dead_letter", Strange(), "no handler for Strange"),
        ("stopped", None, "stopped"),
    ]
    assert events[1].sender == system.ref("other")
    assert {event.to for event in events} == {ref.address}
    assert [event.at - start for event in events[3:5]] == pytest.approx([0.0, 1.0])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        events[0].kind = "stopped"  # type: ignore[misc]  # frozen is the point


@pytest.mark.parametrize(
    ("overflow", "lost"), [("drop_oldest", [0, 1]), ("drop_newest", [1, 2]), ("conflate", [0, 1]), ("reject", [])]
)
async def test_what_a_policy_drops_is_an_event_that_names_it(overflow: Overflow, lost: list[int]) -> None:
    class Small(Desk):
        mailbox = Mailbox(1, overflow, key=(lambda message, sender: sender) if overflow == "conflate" else None)

    events: list[TraceEvent] = []
    async with ActorSystem("s", trace=events.append) as system:
        ref = await system.spawn(Small)
        ref.tell(Hold())
        await anyio.sleep(0.5)
        for n in range(3 if lost else 1):
            ref.tell(Note(n))
    dropped = [event for event in events if event.kind == "dropped"]
    assert [event.message for event in dropped] == [Note(n) for n in lost]
    assert {event.detail for event in dropped} <= {overflow}


async def test_an_expired_ask_is_an_event() -> None:
    events: list[TraceEvent] = []
    async with ActorSystem("s", trace=events.append) as system:
        ref = await system.spawn(Desk)
        ref.tell(Hold())
        with pytest.raises(TimeoutError):
            await ref.ask(Note(1), deadline=0.5)
        await anyio.sleep(1)
    assert [event.message for event in events if event.kind == "expired"] == [Note(1)]
    assert Note(1) not in [event.message for event in events if event.kind == "delivered"]


async def test_a_hook_that_raises_is_logged_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def trace(event: TraceEvent) -> None:
        nonlocal calls
        calls += 1
        raise KeyError("the hook's own")

    async with ActorSystem("s", trace=trace) as system:
        ref = await system.spawn(Desk)
        assert await ref.ask(Note(3), deadline=1) == 3
        assert system.failures == ()
    assert calls == 1
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "actors")]


async def test_with_and_without_a_hook_the_same_happens() -> None:
    async def run(events: list[TraceEvent] | None) -> tuple[object, ...]:
        async with ActorSystem("s", rng=lambda: 0.5, trace=None if events is None else events.append) as system:
            desk = await system.spawn(Desk, name="desk")
            for n in range(100):
                desk.tell(Note(n))
                if n == 50:
                    desk.tell(Fail())
            await anyio.sleep(5)
            statistics = system.actor_statistics(desk)
        return statistics, system.dead_letters, system.statistics()

    events: list[TraceEvent] = []
    assert await run(events) == await run(None)
    assert sum(event.kind == "delivered" for event in events) == 101
