"""A core in its shell, on both event loops: effects in order, timers, one thing at a time, a stop in between."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors import ActorSystem
from scarcity.errors import ConfigError
from scarcity.federation.effects import Effect, Emit, Entry, Persist, Reject, RoundAborted, Send, SetTimer, Waiting
from scarcity.federation.packets import Header, ModelRequest, Packet
from scarcity.node.journal import MemoryJournal, SqliteJournal, everything, member_journal
from scarcity.node.shell import CoreActor, Delivery

HELLO = Packet(Header("f", 1, "layer2", 0, "x"), ModelRequest())
pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Script:
    """A core that answers from a script and notes when it was told what."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.told: list[tuple[str, float]] = []
        self.zero: float | None = None

    def _note(self, what: str, now: float) -> list[Effect]:
        self.zero = now if self.zero is None else self.zero
        self.told.append((what, round(now - self.zero, 3)))
        answer = self.answers.get(what, [])
        return answer(now) if callable(answer) else list(answer)

    def start(self, now: float) -> list[Effect]:
        return self._note("start", now)

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        return self._note(f"from {sender}", now)

    def fire(self, timer: str, now: float) -> list[Effect]:
        return self._note(timer, now)

    def waiting(self) -> tuple[Waiting, ...]:
        return ()


class Log:
    """Where posts, appends and observations are noted in one order."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def post(self, sender: str, to: str, packet: Packet) -> None:
        self.all.append(("post", sender, to))

    def append(self, kind: str, key: str, payload: bytes) -> None:
        self.all.append(("append", kind))

    def entries(self, kind: str) -> list[tuple[str, bytes]]:
        return []

    def kinds(self) -> list[str]:
        return []

    def close(self) -> None:
        pass

    def observe(self, who: str, what: Any) -> None:
        self.all.append(("observe", type(what).__name__))


async def run(core: Script, seconds: float, deliver: list[tuple[float, str]] | None = None) -> Log:
    log = Log()
    async with ActorSystem("s") as system:
        actor = CoreActor("me", core, post=log.post, journal=log, observe=log.observe)
        ref = await system.spawn(actor, name="me")
        at = 0.0
        for when, sender in deliver or []:
            await anyio.sleep(when - at)
            at = when
            ref.tell(Delivery(sender, HELLO))
        await anyio.sleep(seconds - at)
    assert not system.failures
    return log


async def test_effects_are_carried_out_in_list_order() -> None:
    effects = [
        Persist(Entry("ledger", "1", b"")),
        Send("you", HELLO),
        Emit(RoundAborted(1, "", 0, 1)),
        Persist(Entry("model", "1", b"")),
        Reject("you", "no"),
    ]
    log = await run(Script(start=effects), 1.0)
    assert log.all == [
        ("append", "ledger"),
        ("post", "me", "you"),
        ("observe", "RoundAborted"),
        ("append", "model"),
        ("observe", "Reject"),
    ]


async def test_timers_ring_when_they_are_due_and_each_name_has_its_own() -> None:
    core = Script(start=lambda now: [SetTimer("b", now + 2.0), SetTimer("a", now + 1.0), SetTimer("never", math.inf)])
    await run(core, 10.0)
    assert core.told == [("start", 0.0), ("a", 1.0), ("b", 2.0)]


async def test_a_periodic_timer_rearms_itself() -> None:
    def again(now: float) -> list[Effect]:
        return [SetTimer("t", now + 2.0)]

    core = Script(start=again, t=again)
    await run(core, 7.0)
    assert [what for what, _ in core.told] == ["start", "t", "t", "t"]
    assert [at for _, at in core.told] == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(("new", "rings"), [(1.0, [("t", 2.0)]), (9.0, [("t", 10.0)]), (math.inf, [])])
async def test_a_timer_that_is_set_anew_rings_at_the_new_instant_alone(new: float, rings: list[Any]) -> None:
    core = Script(start=lambda now: [SetTimer("t", now + 5.0)], **{"from peer": lambda now: [SetTimer("t", now + new)]})
    await run(core, 20.0, deliver=[(1.0, "peer")])
    assert core.told == [("start", 0.0), ("from peer", 1.0), *rings]


async def test_a_disarmed_timer_can_be_armed_again() -> None:
    core = Script(
        start=lambda now: [SetTimer("t", now + 5.0)],
        **{
            "from off": [SetTimer("t", math.inf)],
            "from on": lambda now: [SetTimer("t", now + 1.0)],
        },
    )
    await run(core, 30.0, deliver=[(1.0, "off"), (10.0, "on")])
    assert core.told[-1] == ("t", 11.0)
    assert len(core.told) == 4


async def test_a_timer_in_the_past_rings_at_once() -> None:
    core = Script(start=lambda now: [SetTimer("t", now - 5.0)])
    await run(core, 1.0)
    assert core.told == [("start", 0.0), ("t", 0.0)]


async def test_packets_come_with_their_peer_in_order() -> None:
    core = Script()
    await run(core, 1.0, deliver=[(0.1, "a"), (0.1, "b"), (0.2, "a")])
    assert [what for what, _ in core.told] == ["start", "from a", "from b", "from a"]


async def test_a_journal_that_fails_ends_the_actor_before_anything_leaves() -> None:
    class Full(Log):
        def append(self, kind: str, key: str, payload: bytes) -> None:
            raise OSError("no space left")

    log = Full()
    core = Script(**{"from peer": [Persist(Entry("ledger", "1", b"")), Send("you", HELLO)]})
    async with ActorSystem("s") as system:
        actor = CoreActor("me", core, post=log.post, journal=log, observe=log.observe)
        ref = await system.spawn(actor, name="me")
        ref.tell(Delivery("peer", HELLO))
        await anyio.sleep(1.0)
        (failure,) = system.failures
    assert isinstance(failure.error, OSError)
    assert log.all == []


async def test_what_was_persisted_is_on_disk(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    core = Script(start=[Persist(Entry("ledger", "1", b"one")), Persist(Entry("ledger", "2", b"two"))])
    async with ActorSystem("s") as system:
        actor = CoreActor("me", core, post=Log().post, journal=journal, observe=Log().observe)
        await system.spawn(actor, name="me")
        await anyio.sleep(1.0)
    journal.close()
    again = SqliteJournal(tmp_path / "journal.db")
    assert again.entries("ledger") == [("1", b"one"), ("2", b"two")]
    again.close()


def test_a_memory_journal_gives_back_by_kind() -> None:
    journal = MemoryJournal()
    journal.append("a", "1", b"x")
    journal.append("b", "1", b"y")
    journal.append("a", "2", b"z")
    assert journal.entries("a") == [("1", b"x"), ("2", b"z")]


async def test_a_shell_that_is_made_by_a_factory_comes_up_again_with_a_core_from_its_journal() -> None:
    journal, log, lives = MemoryJournal(), Log(), []

    class Dying(Script):
        def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
            if len(lives) == 1:
                raise RuntimeError("a bug of ours")
            return super().receive(packet, sender, now)

    def core() -> Script:
        lives.append(everything(journal))
        kept = Persist(Entry("model", str(len(lives)), bytes(len(lives))))
        return Dying(start=[kept, SetTimer("late", 3.0)], **{"from peer": [Send("you", HELLO)]})

    async with ActorSystem("s") as system:
        ref = await system.spawn(
            lambda: CoreActor("me", core, post=log.post, journal=journal, observe=log.observe), name="me"
        )
        ref.tell(Delivery("peer", HELLO))
        await anyio.sleep(1.0)
        ref.tell(Delivery("peer", HELLO))
        await anyio.sleep(5.0)
        assert not system.failures
    assert lives == [{}, {"model": [b"\0"]}]
    assert log.all == [("post", "me", "you")]


def test_members_of_one_journal_see_their_own_entries_alone() -> None:
    journal = MemoryJournal()
    one, other = member_journal(journal, "a/1"), member_journal(journal, "a/1/model")
    one.append("model", "1", b"x")
    one.append("ledger", "1", b"y")
    one.append("model", "2", b"z")
    other.append("model", "1", b"w")
    assert everything(one) == {"ledger": [b"y"], "model": [b"x", b"z"]}
    assert everything(other) == {"model": [b"w"]}
    assert one.entries("model") == [("1", b"x"), ("2", b"z")]


def test_a_member_whose_id_could_be_read_as_another_members_kind_has_no_journal() -> None:
    with pytest.raises(ConfigError, match="colon"):
        member_journal(MemoryJournal(), "a:model")


def test_a_journal_on_disk_gives_all_back_by_member_and_kind(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    member_journal(journal, "basket/a").append("receipt", "1/a1", b"one")
    member_journal(journal, "a1").append("contribution", "1", b"two")
    journal.close()
    again = SqliteJournal(tmp_path / "journal.sqlite")
    assert everything(member_journal(again, "basket/a")) == {"receipt": [b"one"]}
    assert everything(member_journal(again, "a1")) == {"contribution": [b"two"]}
    again.close()
