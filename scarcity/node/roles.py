"""The cores of one node's members, made from its config and from what an earlier run left in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs

from scarcity.engine import OnlineDiscoveryEngine
from scarcity.engine.vector import Form
from scarcity.federation.assembly import Assembly
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.effects import Core, EntropyLabel
from scarcity.federation.identity import Identity
from scarcity.federation.packets import TrustMode, Unit
from scarcity.federation.recovery import rows_spent_until
from scarcity.federation.roster import COORDINATOR, Role
from scarcity.node.data.tail import RowsLearner, TailedRows
from scarcity.node.journal import SqliteJournal, everything, member_journal
from scarcity.node.setup.config import ClientSeat, FederationFile
from scarcity.node.setup.deployment import Deployment
from scarcity.node.setup.directory import SignedDirectory


def system_entropy(_label: EntropyLabel) -> Callable[[int], bytes]:
    """Return the operating system's source of secret bytes, whatever they are for."""
    return os.urandom


def form_of(federation: FederationFile) -> Form:
    """Return the layout of what clients share under a federation's settings."""
    if federation.settings.mode is TrustMode.NONE:
        return "centred"
    return "mean" if federation.settings.unit is Unit.CLIENT else "differenced"


class Roles:
    """Makes the core of any member of this node, as often as it has to start.

    Args:
        deployment: keys, directory, settings.
        journal: the node's, with what earlier lives of its members left.
    """

    def __init__(self, deployment: Deployment, journal: SqliteJournal) -> None:
        federation = deployment.config.federation
        self._deployment = deployment
        self._journal = journal
        self._assembly = Assembly(
            settings=federation.settings,
            budget=federation.budget,
            planned_rounds=federation.planned_rounds,
            entropy=system_entropy,
            federation=federation.federation,
        )
        self._seats = {seat.id: seat for seat in deployment.config.clients}

    def adopt(self, signed: SignedDirectory) -> None:
        """Make cores under a newer directory from now on."""
        self._deployment = attrs.evolve(self._deployment, signed=signed)

    @property
    def member_ids(self) -> tuple[str, ...]:
        """Members of this node; who is asked when others start comes first: the coordinator, baskets, clients."""
        roster = self._deployment.roster
        order = (Role.COORDINATOR, Role.BASKET, Role.CLIENT)
        names = self._deployment.member_keys
        return tuple(sorted(names, key=lambda name: (order.index(roster.member(name).role), name)))

    def make(self, member_id: str) -> tuple[Core, RowsLearner | None]:
        """Return a member's core as its journal left it, and a client's learner.

        Raises:
            FederationError: the journal or the member's file of rows cannot be used; it says why.
        """
        deployment, federation = self._deployment, self._deployment.config.federation
        identity = Identity(member_id, deployment.member_keys[member_id], deployment.roster)
        ledger_key = deployment.ledger_keys[member_id]
        left = everything(member_journal(self._journal, member_id, ledger_key))
        if member_id == COORDINATOR:
            layout = FederationClientAgent(OnlineDiscoveryEngine(federation.schema), "", form_of(federation)).layout
            assert layout is not None, "a federation file has a schema"
            coordinator = self._assembly.coordinator(
                identity,
                terms=self._assembly.terms(layout, deployment.roster),
                rounds=federation.rounds,
                interval_s=federation.interval_s,
                gather_s=federation.gather_s,
                journal=left,
            )
            # Who was away when this roster was pushed, or came up with an older file, gets it with the next round.
            coordinator.adopt(deployment.roster, deployment.signed.roster_signature)
            return coordinator, None
        operator_key = federation.operator_key
        if member_id not in self._seats:
            return self._assembly.basket(identity, operator_key, journal=left), None
        learner = self._learner(self._seats[member_id], rows_spent_until(left))
        return self._assembly.client(
            identity, operator_key, learner=learner, journal=left, ledger_key=ledger_key
        ), learner

    def _learner(self, seat: ClientSeat, spent_until: int) -> RowsLearner:
        federation = self._deployment.config.federation
        agent = FederationClientAgent(OnlineDiscoveryEngine(federation.schema), seat.id, form_of(federation))
        agent.resume(spent_until)
        tail = TailedRows(seat.source, federation.schema, seat.time, seat.variables)
        return RowsLearner(agent, tail, spent_until=spent_until, rows_per_round=federation.settings.max_rows)
