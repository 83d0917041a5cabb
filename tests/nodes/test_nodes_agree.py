"""One seed, no faults: four nodes over TCP and over mutual TLS give the model that the facade gives, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from actors import ActorSystem
from actors.links import Security, TcpConfig, TcpTransport
from scarcity.engine import OnlineDiscoveryEngine
from scarcity.federation.assembly import Assembly, seat
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.effects import Core, Event, ModelMade, Reject
from scarcity.federation.packets import Model
from scarcity.federation.privacy_guard import PrivacyParams
from scarcity.federation.roster import COORDINATOR, Member, Role
from scarcity.node.journal import MemoryJournal
from scarcity.node.post import Post
from scarcity.node.shell import CoreActor
from sim.swarms.live import RowFeeder
from sim.swarms.plan import SwarmPlan
from tests.links_world import FEDERATION, QUICK, Authority, plain, public_key
from tests.swarm.test_drivers_agree import by_facade, plan_of

CASES = [("local", "record"), ("distributed", "record"), ("distributed", "client"), ("none", "client")]


def node_of(member: Member) -> str:
    """The coordinator and each basket with its clients have a node of their own."""
    return "hub" if member.role is Role.COORDINATOR else f"host-{member.domain}"


class Nodes:
    """All members of a plan, spread over nodes that share nothing but sockets."""

    def __init__(self, plan: SwarmPlan, secure: Callable[[str], Security]) -> None:
        assert plan.entropy is not None
        self.plan = plan
        self.secure = secure
        self.model: Model | None = None
        self.made = anyio.Event()
        self.refused: list[Reject] = []
        assembly = Assembly(
            settings=plan.settings,
            budget=PrivacyParams(epsilon=plan.epsilon, delta=plan.delta),
            planned_rounds=plan.rounds,
            entropy=plan.entropy,
            federation="swarm",
        )
        self.seats = seat(assembly, ((party.id, party.domain) for party in plan.source.parties))
        self.members = {member.id: member for member in self.seats.roster.members}
        self.names = sorted({node_of(member) for member in self.members.values()})
        learners = {party.id: self.learner(party) for party in plan.source.parties}
        layout = next(iter(learners.values())).layout
        assert layout is not None
        self.cores: dict[str, Core] = {}
        for name, member in self.members.items():
            identity, operator = self.seats.identity(name), self.seats.operator_public_key
            if member.role is Role.CLIENT:
                self.cores[name] = assembly.client(identity, operator, learner=learners[name])
            elif member.role is Role.BASKET:
                self.cores[name] = assembly.basket(identity, operator)
            else:
                terms = assembly.terms(layout, self.seats.roster)
                self.cores[name] = assembly.coordinator(identity, terms=terms, rounds=plan.rounds)

    def learner(self, party: object) -> RowFeeder:
        agent = FederationClientAgent(OnlineDiscoveryEngine(self.plan.source.schema), party.id, self.plan.form)  # type: ignore[attr-defined]
        return RowFeeder(party, agent, self.plan.rounds, None)  # type: ignore[arg-type]

    def hosts(self, node: str, member_id: str) -> bool:
        return member_id in self.members and node_of(self.members[member_id]) == node

    def observe(self, _who: str, what: Event | Reject) -> None:
        if isinstance(what, ModelMade):
            self.model = what.model
            self.made.set()
        elif isinstance(what, Reject):
            self.refused.append(what)

    async def run(self) -> Model:
        peers = {name: public_key(name) for name in self.names}
        async with AsyncExitStack() as stack:
            systems: dict[str, ActorSystem] = {}
            transports = {
                name: TcpTransport(TcpConfig(name, FEDERATION, peers[name], peers, backoff=QUICK), self.secure(name))
                for name in self.names
            }
            for name, transport in transports.items():
                systems[name] = await stack.enter_async_context(ActorSystem(name, transport=transport))
                for other in systems:
                    if other != name:
                        transport.dial(other, "127.0.0.1", transports[other].port)
            order = sorted(self.members.values(), key=lambda member: (member.role is Role.COORDINATOR, member.id))
            for member in order:
                await self.start(systems[node_of(member)], member)
            with anyio.fail_after(60):
                await self.made.wait()
            assert not any(system.failures for system in systems.values())
        assert self.model is not None
        return self.model

    async def start(self, system: ActorSystem, member: Member) -> None:
        post = Post(system, lambda name: node_of(self.members[name]), lambda *noted: None)
        actor = CoreActor(
            member.id,
            self.cores[member.id],
            post=post,
            journal=MemoryJournal(),
            observe=self.observe,
            hosts=self.hosts,
        )
        await system.spawn(actor, name=member.id)


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "unit"), CASES)
@pytest.mark.parametrize("carrier", ["tcp", "tls"])
async def test_nodes_over_sockets_give_the_facades_model(mode: str, unit: str, carrier: str, tmp_path: Path) -> None:
    plan = plan_of(mode, unit)
    nodes = Nodes(plan, plain if carrier == "tcp" else Authority(tmp_path).tls)
    model = await nodes.run()
    assert COORDINATOR in nodes.members
    assert model.identity == by_facade(plan).identity
    assert nodes.refused == []
