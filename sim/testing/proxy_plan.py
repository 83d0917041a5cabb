"""A plan of members brought down to the nodes that host them, as far as a byte stream between processes can have it.

The simulator's groups stay what they are: `basket-0` means the nodes that host a member of it. The name of a node is a
group too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, product
from typing import Any

import attrs

from scarcity.errors import ConfigError
from scarcity.node.setup.directory import Directory, parse_address
from sim.faults.network import Bandwidth, Latency, Loss, Network
from sim.faults.plan import (
    BASKETS,
    CLIENTS,
    EVERYBODY,
    ISOLATE,
    SPLIT,
    Churn,
    Clog,
    Crash,
    Entry,
    Fault,
    FaultPlan,
    Partition,
    at_place,
    kind_name,
    members_of,
)
from sim.faults.stage import Fired

_ALLOWED = (Latency, Loss, Bandwidth, Partition, Clog, Crash, Churn)
_NAMES = "latency, loss, bandwidth, partition, clog, crash, churn"


@attrs.frozen
class ProxiedNode:
    """A node behind the proxy.

    Attributes:
        address: host and port where it really listens.
        members: id -> domain of the members that it hosts, for groups that name them; the coordinator's is empty.
    """

    address: tuple[str, int]
    members: Mapping[str, str] = attrs.field(factory=dict)


def nodes_of(directory: Directory) -> dict[str, ProxiedNode]:
    """Return the nodes of a directory that can be dialled, by name; its addresses are where they really listen."""
    domain_of = {member.id: member.domain for member in directory.roster.members}
    return {
        entry.name: ProxiedNode(parse_address(entry.address), {name: domain_of[name] for name in entry.members})
        for entry in directory.nodes
        if entry.address
    }


@attrs.frozen
class NodePlan:
    """A plan whose groups are nodes.

    Attributes:
        plan: what a `FaultStage` is asked about.
        origin: of each entry of it, the index of the entry in the plan that was given. A partition of groups has one
            entry for each two of its nodes, for a stage knows single nodes only.
    """

    plan: FaultPlan
    origin: tuple[int, ...]

    def as_given(self, given: FaultPlan, fired: Iterable[Fired]) -> tuple[Fired, ...]:
        """Return what has struck by the entries of the plan that was given."""
        totals: list[tuple[int, set[str]]] = [(0, set()) for _ in given.entries]
        for each in fired:
            count, on = totals[self.origin[each.index]]
            totals[self.origin[each.index]] = (count + each.count, on | set(each.on))
        return tuple(
            Fired(index, kind_name(entry), count, tuple(sorted(on)))
            for index, (entry, (count, on)) in enumerate(zip(given.entries, totals, strict=True))
        )


def plan_on_nodes(plan: FaultPlan, nodes: Mapping[str, ProxiedNode]) -> NodePlan:
    """Return the plan for these nodes; entries keep their identities, and so their decisions.

    Raises:
        ConfigError: an entry that a byte stream cannot have, a group without nodes, groups of a partition that share
            one, or a node whose name is that of a role; the message names the entry and lists what is allowed.
    """
    if reserved := {EVERYBODY, CLIENTS, BASKETS} & set(nodes):
        raise ConfigError(f"a node is called {min(reserved)!r}; allowed: names that are no group's")
    found: list[tuple[int, str, Entry]] = []
    for index, (entry, identity) in enumerate(zip(plan.entries, plan.ids, strict=True)):
        with at_place(plan.place(index)):
            _require_possible(entry)
            if isinstance(entry, Partition):
                parts = enumerate(_pairs_apart(entry, nodes))
                found += [(index, f"{identity}/{number}", part) for number, part in parts]
            else:
                found.append((index, identity, _seated(entry, nodes)))
    network = tuple(entry for _, _, entry in found if isinstance(entry, Network))
    faults = tuple(entry for _, _, entry in found if isinstance(entry, Fault))
    origin = tuple(index for index, _, _ in found)
    return NodePlan(FaultPlan(network, faults, tuple(identity for _, identity, _ in found)), origin)


def _require_possible(entry: Entry) -> None:
    if not isinstance(entry, _ALLOWED):
        raise ConfigError(f"kind is {kind_name(entry)}, which bytes between nodes cannot have; allowed: {_NAMES}")
    if isinstance(entry, Crash) and entry.torn:
        raise ConfigError("torn is True; allowed: false, for who kills a process does not choose what it was writing")


def _seated(entry: Any, nodes: Mapping[str, ProxiedNode]) -> Entry:
    """Return an entry whose groups, in the field `of`, are single nodes."""
    seated: Entry = attrs.evolve(entry, of=sorted({name for group in entry.of for name in _nodes_of(group, nodes)}))
    return seated


def _nodes_of(group: str, nodes: Mapping[str, ProxiedNode]) -> tuple[str, ...]:
    if group == EVERYBODY:
        return tuple(nodes)
    if group in nodes:
        return (group,)
    home = {member: name for name, node in nodes.items() for member in node.members}
    try:
        found = members_of(
            group, {member: domain for node in nodes.values() for member, domain in node.members.items()}
        )
    except ConfigError as error:
        raise ConfigError(f"{error}; nodes are {', '.join(sorted(nodes))}") from None
    return tuple(home[member] for member in found)


def _pairs_apart(entry: Partition, nodes: Mapping[str, ProxiedNode]) -> list[Partition]:
    """Return a split for each two nodes that a partition keeps apart; not symmetric, it loses what the first one says.

    A cut that comes and goes does so for each of these pairs by itself.
    """
    groups = [set(_nodes_of(group, nodes)) for group in entry.groups]
    for one, other in combinations(groups, 2):
        if shared := one & other:
            named = ", ".join(entry.groups)
            raise ConfigError(f"groups is {named}; allowed: groups on different nodes, {min(shared)!r} is in two")
    if entry.mode == ISOLATE:
        sides = [(group, set(nodes) - group) for group in groups]
    else:
        sides = list(combinations(groups, 2))
    pairs = [pair for one, other in sides for pair in product(sorted(one), sorted(other))]
    if entry.symmetric:  # two isolated groups have each pair of theirs from both sides
        pairs = [pair for at, pair in enumerate(pairs) if pair[::-1] not in pairs[:at]]
    if not pairs:
        raise ConfigError(f"groups is {', '.join(entry.groups)}, which is every node; allowed: groups that leave one")
    return [attrs.evolve(entry, groups=pair, mode=SPLIT) for pair in pairs]
