"""Execute a swarm with the real actors on a real clock, all in one event loop (asyncio or trio).

Every client, basket and the coordinator is an actor with a mailbox of its own; packets pass by reference. `Stage`
stands between `Send` and delivery and decides faults.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections import Counter
from collections.abc import Callable

import anyio
import attrs
import numpy as np
import trio
from anyio.abc import TaskGroup

from actors import ActorError, ActorRef, ActorSystem
from scarcity.engine import OnlineDiscoveryEngine
from scarcity.errors import FederationError
from scarcity.federation.assembly import Assembly, seat
from scarcity.federation.client import ClientCore
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.effects import BasketClosed, Core, EntropyLabel, Event, ModelMade, Reject, RoundAborted
from scarcity.federation.packets import FloatArray, Model, Packet, TrustMode, Update
from scarcity.federation.privacy_guard import Layout, PrivacyParams
from scarcity.federation.roster import COORDINATOR, Role
from scarcity.federation.transport import Reach, refuse_unsafe
from scarcity.node.data.source import Party
from scarcity.node.journal import MemoryJournal
from scarcity.node.shell import CoreActor, Delivery
from sim.faults.attacks import Attack
from sim.interrupts import Interrupts
from sim.swarms.plan import Backend, GossipSeen, Observer, Outcome, Reason, Record, Said, Spending, Spent, SwarmPlan
from sim.swarms.settle import POLL_S, SETTLE_S, Views, viewers_of
from sim.swarms.silence import Stage
from sim.swarms.waits import Watched

_PROGRESS_S = 1.0  # how often what is waited for is told
_FEDERATION = "swarm"


def system_entropy(_label: EntropyLabel) -> Callable[[int], bytes]:
    """Return the operating system's source of secret bytes."""
    return os.urandom


def execute(plan: SwarmPlan, observe: Observer) -> Outcome:
    """Run all rounds of a plan and say what came of it.

    Ctrl-C ends the run; the outcome says what had been done and charged until then. It never raises: asyncio and trio
    leave SIGINT alone where somebody else listens, and a second one finds nothing more to end.

    Raises:
        FederationError: an actor failed (our own bug, with its cause).
    """
    refuse_unsafe(Reach.IN_PROCESS, plan.settings.mode, reproducible_noise=plan.entropy is not None)
    with Interrupts() as interrupts:
        interrupts.hold()
        run = _Run(plan, observe)
        anyio.run(run.main, interrupts, backend=plan.backend)
        return attrs.evolve(run.outcome(), interrupted=interrupts.noted)


def _in_loop(backend: Backend) -> Callable[[Callable[[], object]], object]:
    """Return what has something done soon in the loop that is running, and may be called by a signal handler."""
    if backend == "asyncio":
        return asyncio.get_running_loop().call_soon_threadsafe
    return trio.lowlevel.current_trio_token().run_sync_soon


class RowFeeder:
    """A client's learner in a swarm: before each round it feeds the next part of the party's rows to the engine.

    Args:
        party: the rows.
        agent: the engine's agent.
        rounds: into how many parts the rows are split.
        forge: what a liar makes of its update.
    """

    def __init__(
        self, party: Party, agent: FederationClientAgent, rounds: int, forge: Callable[[Update], Update] | None
    ) -> None:
        self._parts = list(zip(np.array_split(party.rows, rounds), np.array_split(party.times, rounds), strict=True))
        self._agent = agent
        self._forge = forge
        self._num_fed = 0
        self._honest: Update | None = None

    @property
    def layout(self) -> Layout | None:
        """The agent's layout."""
        return self._agent.layout

    def update_for(self, round_id: int) -> Update | None:
        """Feed the parts up to this round's and return the update.

        Raises:
            InsufficientInputs: too few rows; the client declines the round.
        """
        for rows, times in self._parts[self._num_fed : round_id]:
            self._agent.engine.process_rows(rows, [int(time) for time in times])
        self._num_fed = max(self._num_fed, round_id)
        self._honest = self._agent.get_shareable_update()
        return self._honest if self._forge is None else self._forge(self._honest)

    def accepted(self, _update: Update) -> None:
        """Spend the rows; a liar's too, so that it looks like the others."""
        if self._honest is not None:
            self._agent.accepted(self._honest)

    def receive_model(self, model: Model) -> None:
        """Merge a model into the engine's store."""
        self._agent.receive_model(model)


class _Run:
    """One execution: cores, actors and what they said."""

    def __init__(self, plan: SwarmPlan, observe: Observer) -> None:
        self._plan = plan
        self._tell = observe
        self._record = Record()
        self._rejects: Counter[tuple[str, str]] = Counter()
        self._stage = Stage(plan)
        self._cores: dict[str, Core] = {}
        self._clients: dict[str, ClientCore] = {}
        self._refs: dict[str, ActorRef] = {}
        self._num_lost = 0
        self._over = anyio.Event()
        self._means: dict[str, FloatArray] = {}  # domain -> its last aggregate, of the last round
        self._gossip: GossipSeen | None = None
        self._assemble()

    def _assemble(self) -> None:
        plan = self._plan
        assembly = Assembly(
            settings=plan.settings,
            budget=PrivacyParams(epsilon=plan.epsilon, delta=plan.delta),
            planned_rounds=plan.rounds,
            entropy=plan.entropy or system_entropy,
            federation=_FEDERATION,
        )
        parties = {party.id: party for party in plan.source.parties}
        seats = seat(assembly, ((party.id, party.domain) for party in plan.source.parties))
        feeders = {name: self._feeder(party) for name, party in parties.items()}
        layout = next(iter(feeders.values())).layout
        assert layout is not None, "a source has a schema"
        for member in seats.roster.members:
            identity, operator = seats.identity(member.id), seats.operator_public_key
            if member.role is Role.CLIENT:
                core = assembly.client(identity, operator, learner=feeders[member.id])
                self._clients[member.id] = self._cores[member.id] = core
            elif member.role is Role.BASKET:
                self._cores[member.id] = assembly.basket(identity, operator)
        self._cores[COORDINATOR] = assembly.coordinator(
            seats.identity(COORDINATOR), terms=assembly.terms(layout, seats.roster), rounds=plan.rounds
        )

    def _feeder(self, party: Party) -> RowFeeder:
        plan = self._plan
        agent = FederationClientAgent(OnlineDiscoveryEngine(plan.source.schema), party.id, plan.form)
        num_public = plan.source.schema.lags + 1 if plan.form == "differenced" else 1
        forge = _forger(plan.attack, num_public) if party.id in plan.liars else None
        return RowFeeder(party, agent, plan.rounds, forge)

    async def main(self, interrupts: Interrupts) -> None:
        """Live until the last round has ended, or somebody interrupts."""
        interrupts.tell(functools.partial(_in_loop(self._plan.backend), self._over.set))
        try:
            await self._live(interrupts)
        finally:
            interrupts.tell(None)  # the loop takes no calls once it is closed

    async def _live(self, interrupts: Interrupts) -> None:
        async with anyio.create_task_group() as group, ActorSystem(_FEDERATION) as system:
            self._refs = {name: system.ref(name) for name in self._cores}
            for name, core in sorted(self._cores.items(), key=_late_comers_last):
                actor = CoreActor(
                    name,
                    core if name in self._clients else Watched(core, self._keep),
                    post=functools.partial(self._post, group),
                    journal=MemoryJournal(),
                    observe=self._observe,
                )
                await system.spawn(actor, name=name)
            group.start_soon(self._progress, system)
            await self._over.wait()
            if self._plan.settings.mode is TrustMode.LOCAL and not (interrupts.noted or system.failures):
                self._gossip = await self._settle(interrupts)
            group.cancel_scope.cancel()
        if system.failures:
            raise FederationError(f"an actor failed: {system.failures[0].error!r}") from system.failures[0].error

    async def _settle(self, interrupts: Interrupts) -> GossipSeen:
        """Wait, not for long, until gossip has brought every client its basket's releases; return what it brought."""
        domains = {party.id: party.domain for party in self._plan.source.parties}
        views = Views(
            viewers_of(self._clients, domains, self._means, self._stage.fallen), rule=self._plan.settings.rule
        )
        with anyio.move_on_after(SETTLE_S):
            while not (interrupts.noted or views.settled()):  # noqa: ASYNC110  a view that grows tells nobody
                await anyio.sleep(POLL_S)
        return views.seen()

    def _post(self, group: TaskGroup, sender: str, to: str, packet: Packet) -> None:
        delay_s = self._stage.passage(sender, packet)
        if delay_s is None:
            return
        if delay_s > 0:
            group.start_soon(self._deliver_later, delay_s, sender, to, packet)
        else:
            self._deliver(sender, to, packet)

    async def _deliver_later(self, delay_s: float, sender: str, to: str, packet: Packet) -> None:
        await anyio.sleep(delay_s)
        self._deliver(sender, to, packet)

    def _deliver(self, sender: str, to: str, packet: Packet) -> None:
        try:
            self._refs[to].tell(Delivery(sender, packet))
        except ActorError:
            self._num_lost += 1  # a full mailbox: what is lost is resent or waited out, and counted

    def _observe(self, _who: str, what: Event | Reject) -> None:
        if isinstance(what, Reject):
            self._rejects[what.peer, what.reason] += 1
            return
        now = anyio.current_time()
        self._keep(what, now)
        if isinstance(what, BasketClosed) and what.aggregate is not None and what.round_id == self._plan.rounds:
            self._means[what.basket_id.removeprefix("basket/")] = what.aggregate.mean
        if isinstance(what, ModelMade | RoundAborted):
            round_id = what.model.round_id if isinstance(what, ModelMade) else what.round_id
            for name, core in self._clients.items():
                self._keep(Spending(round_id, name, core.epsilon_spent), now)
            if round_id >= self._plan.rounds:
                self._over.set()

    def _keep(self, said: Said, now: float) -> None:
        self._record(said, now)
        self._tell(said, now)

    async def _progress(self, system: ActorSystem) -> None:
        """Tell, once a second, what the coordinator and the baskets wait for; end when an actor has failed."""
        while not system.failures:
            await anyio.sleep(_PROGRESS_S)
            for name, core in self._cores.items():
                if name not in self._clients:
                    for waiting in core.waiting():
                        self._keep(waiting, anyio.current_time())
        self._over.set()

    def outcome(self) -> Outcome:
        """Return what came of it."""
        charged = {name: core.epsilon_spent for name, core in self._clients.items()}
        layer = "layer 2" if self._plan.settings.layer2_share == 1 else "layer 1"
        spent = tuple(Spent(name, layer, epsilon) for name, epsilon in charged.items() if epsilon > 0)
        refused = [Reason(who, f"{why} ({count} times)") for (who, why), count in sorted(self._rejects.items())]
        if self._num_lost:
            refused.append(Reason("mailboxes", f"{self._num_lost} packets found a full mailbox"))
        return attrs.evolve(self._record.outcome(spent, tuple(refused)), gossip=self._gossip)


def _late_comers_last(member: tuple[str, Core]) -> tuple[int, str]:
    """Order members so that everybody listens when the coordinator, last, opens a round."""
    name = member[0]
    return (2 if name == COORDINATOR else 0 if name.startswith("basket/") else 1, name)


def _forger(attack: Attack, num_public: int) -> Callable[[Update], Update]:
    return lambda update: attack(update, num_public)
