"""Shells that die in mid-round and come up from one SQLite file: both event loops, every role."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from actors import ActorError, ActorSystem
from scarcity.federation.effects import Core, Event, ModelMade, Reject
from scarcity.federation.packets import Packet
from scarcity.federation.roster import COORDINATOR, Role
from scarcity.node.journal import JournalStore, SqliteJournal, everything, member_journal
from scarcity.node.shell import CoreActor, Delivery
from sim.chance import reproducible_entropy
from tests.crash_world import DURATIONS, Giver
from tests.federation_world import World

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Failing:
    """A member's journal whose disk fails once, at the given append."""

    def __init__(self, journal: JournalStore, fails_at: int) -> None:
        self._journal = journal
        self._fails_at = fails_at
        self._count = itertools.count(1)
        self.entries, self.kinds, self.close = journal.entries, journal.kinds, journal.close

    def append(self, kind: str, key: str, payload: bytes) -> None:
        if next(self._count) == self._fails_at:
            raise OSError("the disk failed once")
        self._journal.append(kind, key, payload)


class Host:
    """All members of a world as actors of one host, with one journal."""

    def __init__(self, world: World, journal: SqliteJournal, victim: str, fails_at: int) -> None:
        self._world = world
        self._lives = itertools.count(1)
        self.journals: dict[str, Any] = {}
        for member in world.cores:
            part = member_journal(journal, member, member.encode().ljust(32, b"."))
            self.journals[member] = Failing(part, fails_at if member == victim else 0)
        self.refs: dict[str, Any] = {}
        self.made: list[ModelMade] = []

    def post(self, sender: str, to: str, packet: Packet) -> None:
        with contextlib.suppress(ActorError):  # who is not up misses it
            self.refs[to].tell(Delivery(sender, packet))

    def observe(self, _who: str, what: Event | Reject) -> None:
        if isinstance(what, ModelMade):
            self.made.append(what)

    def actor(self, member: str) -> CoreActor:
        return CoreActor(
            member,
            lambda: self.core(member),
            post=self.post,
            journal=self.journals[member],
            observe=self.observe,
        )

    def core(self, member: str) -> Core:
        world, journal = self._world, everything(self.journals[member])
        assembly = attrs.evolve(world.assembly, entropy=reproducible_entropy(next(self._lives)))
        identity, operator = world.seats.identity(member), world.seats.operator_public_key
        if member == COORDINATOR:
            times = {"interval_s": 20.0, "gather_s": 5.0}
            return assembly.coordinator(identity, terms=world.terms, rounds=2, journal=journal, **times)
        if identity.member.role is Role.BASKET:
            return assembly.basket(identity, operator, journal=journal)
        learner = Giver(member, int(member[1:]), 4)
        return assembly.client(identity, operator, learner=learner, journal=journal)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
@pytest.mark.parametrize("victim", [COORDINATOR, "basket/a", "a1"])
async def test_a_shell_whose_disk_fails_once_comes_up_from_the_file_and_the_next_round_has_everybody(
    tmp_path: Path, victim: str, fails_at: int
) -> None:
    world = World(mode="local", rule="average", quorum=0.5, **DURATIONS)
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    host = Host(world, journal, victim, fails_at)
    async with ActorSystem("host") as system:
        host.refs = {member: system.ref(member) for member in world.cores}
        for member in world.cores:
            await system.spawn(lambda member=member: host.actor(member), name=member)
        await anyio.sleep(90.0)
        assert system.actor_statistics(host.refs[victim]).num_restarts == 1
        assert not system.failures
    journal.close()
    assert (host.made[-1].model.round_id, host.made[-1].model.count) == (2, 6)
