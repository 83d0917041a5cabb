"""What a plan may say, and what is answered to what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from scarcity.errors import ConfigError
from sim.chance import Chance
from sim.faults.attacks import BEHAVIOURS, FORGES
from sim.faults.lies import LIES, SIGNED_LIES
from sim.faults.plan import (
    FAULT_KINDS,
    LAWS,
    NETWORK_KINDS,
    Byzantine,
    Churn,
    Clog,
    Crash,
    Dropout,
    FaultPlan,
    Latency,
    Loss,
    Partition,
    members_of,
)
from sim.faults.stage import FaultStage
from sim.faults.stages import STAGE_NAMES
from tests.faults_world import CLIENTS, END_S, SEATS, stage_of

_FAULT = {"kind": "partition", "at_s": 30, "until_s": 45, "groups": ["basket-0"]}


def _refused(named: Any) -> str:
    with pytest.raises(ConfigError) as error:
        FaultPlan.from_dict(named)
    return str(error.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"probability": 1.5}, "network[0]: probability is 1.5; allowed: a number in [0, 1]"),
        ({"probability": -0.1}, "network[0]: probability is -0.1; allowed: a number in [0, 1]"),
        ({"probability": float("nan")}, "network[0]: probability is nan; allowed: a number in [0, 1]"),
        ({"probability": True}, "network[0]: probability is True; allowed: a number in [0, 1]"),
        ({"probability": "0.1"}, "network[0]: probability is '0.1'; allowed: a number in [0, 1]"),
        ({}, "network[0]: key 'probability' is missing; allowed: probability, of, at_s, until_s"),
        ({"probabilty": 0.1}, "network[0]: key 'probabilty' is unknown; allowed: probability, of, at_s, until_s"),
        ({"probability": 0.1, "at_s": -1}, "network[0]: at_s is -1.0; allowed: seconds from the start of the run"),
        ({"probability": 0.1, "at_s": 5, "until_s": 5}, "until_s is 5.0; allowed: more than at_s, which is 5.0"),
        ({"probability": 0.1, "of": "clients"}, "of is 'clients'; allowed: a list of groups, each once"),
        ({"probability": 0.1, "of": ["a", "a"]}, "of is ('a', 'a'); allowed: a list of groups, each once"),
        ({"probability": 0.1, "id": 3}, "network[0]: id is 3; allowed: text"),
    ],
)
def test_a_bad_value_of_a_loss_is_named_with_what_is_allowed(table: dict[str, Any], words: str) -> None:
    assert words in _refused({"network": [{"kind": "loss", **table}]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "flood"}, f"faults[1]: kind is 'flood'; allowed: {', '.join(FAULT_KINDS)}"),
        ({"kind": "loss"}, "faults[1]: kind is 'loss'; allowed: partition"),
        ({}, "faults[1]: kind is None; allowed: partition"),
        ({"kind": "dropout", "stage": "lunch"}, f"stage is 'lunch'; allowed: one of {', '.join(STAGE_NAMES)}"),
        ({"kind": "dropout", "stage": "masked", "round_id": 0}, "round_id is 0; allowed: a round, 1 or more"),
        ({"kind": "byzantine", "behaviour": "bribe", "share": 0.1}, "behaviour is 'bribe'; allowed: one of sign-flip"),
        ({"kind": "byzantine", "behaviour": "ipm"}, "of is () and share 0.0; allowed: one of them, and not both"),
        (
            {"kind": "byzantine", "behaviour": "ipm", "share": 0.1, "strength": -1},
            "strength is -1.0; allowed: a number",
        ),
        ({**_FAULT, "until_s": 20}, "until_s is 20.0; allowed: more than at_s, which is 30.0"),
        ({**_FAULT, "until_s": float("inf")}, "until_s is inf; allowed: seconds above at_s, not inf"),
        ({**_FAULT, "groups": []}, "groups is (); allowed: a list of at least one group"),
        ({**_FAULT, "symmetric": 1}, "symmetric is 1; allowed: true or false"),
        ({**_FAULT, "mode": "bridge"}, "mode is 'bridge'; allowed: one of isolate, split"),
        ({**_FAULT, "mode": "split"}, "groups is ('basket-0',); allowed: two groups or more, where mode is split"),
        ({**_FAULT, "stability_s": 0}, "stability_s is 0.0; allowed: seconds above 0, or inf"),
        ({**_FAULT, "stability_s": 0.001}, "stability_s is 0.001; allowed: 0.0015 or more, for at most 10000 turns"),
        ({"kind": "churn", "per_minute": 0, "down_s": 1}, "per_minute is 0.0; allowed: a number above 0"),
        ({"kind": "clock-skew", "of": ["*"], "offset_s": 0, "drift": -1}, "drift is -1.0; allowed: seconds gained"),
    ],
)
def test_a_bad_fault_is_named_with_its_place_and_what_is_allowed(table: dict[str, Any], words: str) -> None:
    assert words in _refused({"faults": [_FAULT, table]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, f"law is None; allowed: {', '.join(LAWS)}"),
        ({"law": "cauchy"}, "law is 'cauchy'; allowed: fixed, uniform, exponential, lognormal"),
        ({"law": "fixed"}, "key 'seconds' is missing; allowed: seconds, of, at_s, until_s"),
        ({"law": "fixed", "mean_s": 1}, "key 'mean_s' is unknown; allowed: seconds, of, at_s, until_s"),
        ({"law": "uniform", "low_s": 2, "high_s": 1}, "high_s is 1.0; allowed: at least low_s, which is 2.0"),
        ({"law": "exponential", "mean_s": 1, "floor_s": 2}, "mean_s is 1.0; allowed: at least floor_s, which is 2.0"),
    ],
)
def test_a_latency_takes_the_keys_of_its_law(table: dict[str, Any], words: str) -> None:
    assert words in _refused({"network": [{"kind": "latency", **table}]})


def test_a_plan_has_two_lists_of_tables_and_nothing_else() -> None:
    assert _refused({"fault": []}) == "key 'fault' is unknown; allowed: network, faults"
    assert _refused({"faults": 3}) == "faults is 3; allowed: a list of tables"
    assert _refused({"faults": [3]}) == "faults[0]: it is 3; allowed: a table with the key kind"


def test_entries_in_the_wrong_list_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"network is .*; allowed: a tuple of Latency, Loss"):
        FaultPlan((Churn(1, 1),))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ConfigError, match="ids has 2 names; allowed: one for each of 1 entries"):
        FaultPlan((Loss(0.1),), ids=("a", "b"))


def test_whole_numbers_and_floats_say_the_same() -> None:
    assert Partition(30, 45, ["basket-0"]) == Partition(30.0, 45.0, ("basket-0",))  # type: ignore[arg-type]  # a list
    assert FaultPlan(faults=(Churn(6, 10),)).ids == FaultPlan(faults=(Churn(6.0, 10.0),)).ids


def test_an_identity_survives_removal_and_narrowing_but_not_another_wording() -> None:
    plan = FaultPlan((Loss(0.1), Latency.fixed(0.2)), (Crash(3, ("c0001",)),))
    assert plan.without(0).ids == plan.ids[1:]
    assert plan.without(-1).ids == plan.ids[:2]
    assert plan.replaced(0, Loss(0.05)).ids == plan.ids
    assert FaultPlan((Loss(0.05),)).ids[0] != plan.ids[0]
    assert [plan.place(i) for i in range(3)] == ["network[0]", "network[1]", "faults[0]"]


def test_identities_are_golden() -> None:
    plan = FaultPlan((Latency.exponential(mean_s=0.02, floor_s=0.005), Loss(0.05)), (Churn(per_minute=6, down_s=10),))
    assert plan.ids == ("411c054c116a", "4793d9ac1678", "8b10159ccdfe")


# Groups.


@pytest.mark.parametrize(
    ("group", "members"),
    [
        ("*", tuple(sorted(SEATS))),
        ("clients", CLIENTS),
        ("baskets", ("basket/basket-0", "basket/basket-1")),
        ("basket-1", ("basket/basket-1", *CLIENTS[1::2])),
        ("coordinator", ("coordinator",)),
        ("c0003", ("c0003",)),
        ("basket/basket-0", ("basket/basket-0",)),
    ],
)
def test_a_group_is_a_member_a_domain_a_role_or_everybody(group: str, members: tuple[str, ...]) -> None:
    assert members_of(group, SEATS) == members


@pytest.mark.parametrize(
    "entry",
    [
        Loss(0.1, of=("nobody",)),
        Latency.fixed(0.1, of=("nobody",)),
        Partition(1, 2, ("basket-0", "nobody")),
        Clog(1, 2, ("nobody",)),
        Crash(1, ("nobody",)),
        Churn(1, 1, ("nobody",)),
        Dropout("masked", of=("nobody",)),
        Byzantine("ipm", of=("nobody",)),
    ],
)
def test_a_group_without_members_is_refused_when_the_plan_meets_the_seats(entry: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"(network|faults)\[0\]: group 'nobody' has no members; known groups are \*, c"
    ):
        stage_of(entry)


def test_only_clients_drop_out_and_lie() -> None:
    for entry in (Dropout("masked", of=("baskets",)), Byzantine("ipm", of=("coordinator",))):
        with pytest.raises(ConfigError, match=r"faults\[0\]: group '(baskets|coordinator)' has no clients"):
            stage_of(entry)


def test_a_share_of_liars_without_a_single_liar_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"faults\[0\]: share is 0.1; allowed: enough for one client"):
        stage_of(Byzantine("ipm", share=0.1))


def test_a_partition_of_everybody_from_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"faults\[0\]: groups is \*; allowed: groups that somebody is outside of"):
        stage_of(Partition(1, 2, ("*",)))


def test_groups_of_a_partition_have_no_members_in_common() -> None:
    with pytest.raises(ConfigError, match=r"groups is basket-0, c0002; allowed: disjoint groups, 'c0002' is in two"):
        stage_of(Partition(1, 2, ("basket-0", "c0002")))


def test_a_churn_of_more_crashes_than_a_run_can_use_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"faults\[0\]: per_minute is 1000000.0, which is more than 200000 crashes"):
        stage_of(Churn(1e6, 1))
    with pytest.raises(ConfigError, match=r"per_minute is 1\.0, which is more than"):
        FaultStage(FaultPlan(faults=(Churn(1, 1),)), SEATS, Chance(1), float("inf"))


def test_lies_that_carry_a_signature_need_somebody_who_signs() -> None:
    for behaviour in sorted(SIGNED_LIES):
        with pytest.raises(ConfigError, match=rf"behaviour is '{behaviour}'; allowed only where lies can be signed"):
            FaultStage(FaultPlan(faults=(Byzantine(behaviour, of=("c0001",)),)), SEATS, Chance(1), END_S)


def test_every_behaviour_is_a_forged_update_or_a_lie() -> None:
    assert set(BEHAVIOURS) == {*FORGES, *LIES}
    assert set(LIES) >= SIGNED_LIES
    assert all(behaviour.meaning for behaviour in BEHAVIOURS.values())
    assert not set(FORGES) & set(LIES)


def test_kinds_have_one_name_each() -> None:
    assert not set(NETWORK_KINDS) & set(FAULT_KINDS)
