"""A plan of members on the nodes that host them: groups, partitions of several nodes, and what bytes cannot have."""

from __future__ import annotations

from typing import Any

import pytest

from scarcity.errors import ConfigError
from sim.chance import Chance
from sim.faults.plan import (
    Byzantine,
    Churn,
    ClockSkew,
    Clog,
    Crash,
    Dropout,
    Duplicate,
    FaultPlan,
    Latency,
    Loss,
    Partition,
    Reorder,
    SlowHandler,
)
from sim.faults.stage import FaultStage
from sim.testing.faulty_transport import ANY_PACKET
from sim.testing.proxy_plan import ProxiedNode, plan_on_nodes

NODES = {
    "hub": ProxiedNode(("127.0.0.1", 1), {"coordinator": ""}),
    "north": ProxiedNode(("127.0.0.1", 2), {"a0": "a", "a1": "a", "basket/b": "b"}),
    "south": ProxiedNode(("127.0.0.1", 3), {"b0": "b"}),
    "west": ProxiedNode(("127.0.0.1", 4), {"basket/a": "a"}),
}
SEATS = {name: name for name in NODES}


def of(group: str) -> tuple[str, ...]:
    (entry,) = plan_on_nodes(FaultPlan((), (Clog(1.0, 2.0, (group,)),)), NODES).plan.faults
    assert isinstance(entry, Clog)
    return entry.of


@pytest.mark.parametrize(
    ("group", "nodes"),
    [
        ("*", ("hub", "north", "south", "west")),
        ("clients", ("north", "south")),
        ("baskets", ("north", "west")),
        ("a", ("north", "west")),
        ("basket/b", ("north",)),
        ("coordinator", ("hub",)),
        ("south", ("south",)),
    ],
)
def test_a_group_is_the_nodes_that_host_its_members(group: str, nodes: tuple[str, ...]) -> None:
    assert of(group) == nodes


def test_entries_keep_their_identities_and_so_their_decisions() -> None:
    plan = FaultPlan((Loss(0.3, ("b0",)), Latency.exponential(0.1)), (Clog(1.0, 2.0, ("a",)),))
    seated = plan_on_nodes(plan, NODES)
    assert (seated.plan.ids, seated.origin) == (plan.ids, (0, 1, 2))

    def decisions(what: FaultPlan) -> list[tuple[float, ...]]:
        stage = FaultStage(what, SEATS, Chance(3), 10.0)
        return [stage.passages("hub", "south", ANY_PACKET, 10, 0.0) for _ in range(100)]

    by_node = plan.replaced(0, Loss(0.3, ("south",))).without(2)
    assert decisions(seated.plan) == decisions(by_node)


def lost_pairs(fault: Partition) -> set[str]:
    seated = plan_on_nodes(FaultPlan((), (fault,)), NODES)
    stage = FaultStage(seated.plan, SEATS, Chance(1), 10.0)
    pairs = [(src, dst) for src in NODES for dst in NODES if src != dst]
    return {f"{src[0]}{dst[0]}" for src, dst in pairs if not stage.passages(src, dst, ANY_PACKET, 1, 1.0)}


def test_a_partition_of_groups_of_several_nodes_keeps_all_of_them_apart() -> None:
    assert lost_pairs(Partition(0.0, 9.0, ("a", "coordinator"), mode="split")) == {"nh", "hn", "wh", "hw"}
    assert lost_pairs(Partition(0.0, 9.0, ("a", "coordinator"), False, "split")) == {"nh", "wh"}
    alone = {"nh", "hn", "wh", "hw", "ns", "sn", "ws", "sw"}
    assert lost_pairs(Partition(0.0, 9.0, ("a",))) == alone
    assert lost_pairs(Partition(0.0, 9.0, ("a",), symmetric=False)) == {"nh", "wh", "ns", "ws"}
    assert lost_pairs(Partition(0.0, 9.0, ("a", "coordinator"))) == alone | {"hs", "sh"}
    both = {"nh", "wh", "ns", "ws", "hn", "hw", "hs"}
    assert lost_pairs(Partition(0.0, 9.0, ("a", "coordinator"), symmetric=False)) == both
    parted = {"hs", "sh", "hw", "wh", "sw", "ws"}
    assert lost_pairs(Partition(0.0, 9.0, ("hub", "south", "west"), mode="split")) == parted


def test_a_partition_counts_as_one_entry() -> None:
    plan = FaultPlan((Latency.fixed(0.1),), (Partition(0.0, 9.0, ("a", "hub"), mode="split"), Crash(1.0, ("b",))))
    seated = plan_on_nodes(plan, NODES)
    stage = FaultStage(seated.plan, SEATS, Chance(1), 10.0)
    for src, dst in (("north", "hub"), ("hub", "west"), ("south", "hub")):
        stage.passages(src, dst, ANY_PACKET, 1, 1.0)
    fired = seated.as_given(plan, stage.fired())
    assert [(each.index, each.name, each.count, each.on) for each in fired] == [
        (0, "latency", 3, ("hub", "north", "south")),
        (1, "partition", 2, ("hub", "north")),
        (2, "crash", 2, ("north", "south")),
    ]


ALLOWED = "allowed: latency, loss, bandwidth, partition, clog, crash, churn"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Duplicate(0.1), rf"network\[0\]: kind is duplicate, .*; {ALLOWED}"),
        (Reorder(0.1, 1.0), rf"network\[0\]: kind is reorder, .*; {ALLOWED}"),
        (Dropout("release"), rf"faults\[0\]: kind is dropout, .*; {ALLOWED}"),
        (Byzantine("sign-flip", share=0.2), rf"faults\[0\]: kind is byzantine, .*; {ALLOWED}"),
        (SlowHandler(("hub",), 1.0), rf"faults\[0\]: kind is slow-handler, .*; {ALLOWED}"),
        (ClockSkew(("hub",), 1.0), rf"faults\[0\]: kind is clock-skew, .*; {ALLOWED}"),
        (Crash(1.0, ("hub",), torn=True), r"faults\[0\]: torn is True; allowed: false"),
        (
            Churn(1.0, 1.0, ("east",)),
            r"faults\[0\]: group 'east' has no members; .*; nodes are hub, north",
        ),
        (Loss(0.1, ("east",)), r"network\[0\]: group 'east' has no members"),
        (Partition(1.0, 2.0, ("a", "b")), r"faults\[0\]: groups is a, b; allowed: .* 'north' is in two"),
        (Partition(1.0, 2.0, ("*",)), r"faults\[0\]: groups is \*, which is every node; allowed"),
    ],
)
def test_what_bytes_between_nodes_cannot_have_is_refused_by_its_place(entry: Any, words: str) -> None:
    network = words.startswith("network")
    plan = FaultPlan((entry,), ()) if network else FaultPlan((), (entry,))
    with pytest.raises(ConfigError, match=words):
        plan_on_nodes(plan, NODES)


def test_a_node_with_the_name_of_a_role_is_refused() -> None:
    with pytest.raises(ConfigError, match="a node is called 'clients'"):
        plan_on_nodes(FaultPlan(), {"clients": ProxiedNode(("127.0.0.1", 1))})
