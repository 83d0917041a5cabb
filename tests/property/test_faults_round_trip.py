"""A plan is the same plan after it was written and read, in either form, whole or in part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scarcity.errors import ConfigError
from sim.faults.files import plan_json, plan_toml, read_plan
from sim.faults.plan import Dropout, FaultPlan, Latency, Loss, Partition
from tests.faults_world import PLANS

_SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@_SAME_FOLDER
@given(PLANS)
def test_a_plan_comes_back_from_toml_and_json_as_it_was(tmp_path: Path, plan: FaultPlan) -> None:
    for name, text in (("plan.toml", plan_toml(plan)), ("plan.json", plan_json(plan))):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert read_plan(path) == plan


@settings(max_examples=60)
@given(PLANS, st.data())
def test_a_part_of_a_plan_keeps_its_identities_in_a_file(plan: FaultPlan, data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.integers(0, len(plan.entries) - 1))) if plan.entries else set()
    part = plan.only(kept)
    assert part.ids == tuple(plan.ids[i] for i in sorted(kept))
    assert FaultPlan.from_dict(json.loads(json.dumps(part.to_dict()))) == part


@given(PLANS)
def test_only_identities_that_do_not_follow_from_the_entries_are_written(plan: FaultPlan) -> None:
    assert "id" not in {key for table in (*plan.to_dict()["network"], *plan.to_dict()["faults"]) for key in table}


def test_of_two_equal_entries_either_can_be_taken_out_and_written() -> None:
    plan = FaultPlan((Loss(0.1), Loss(0.1), Loss(0.1)))
    assert len(set(plan.ids)) == 3
    for index in range(3):
        rest = plan.without(index)
        assert rest.ids == plan.ids[:index] + plan.ids[index + 1 :]
        assert FaultPlan.from_dict(rest.to_dict()) == rest
        more = FaultPlan.from_dict({"network": [*rest.to_dict()["network"], {"kind": "loss", "probability": 0.1}]})
        assert len(set(more.ids)) == 3


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_whatever_stands_in_a_file_is_a_plan_or_a_config_error(value: Any) -> None:
    for named in ({"network": value}, {"faults": [value]}, value if isinstance(value, dict) else {}):
        try:
            FaultPlan.from_dict(named)
        except ConfigError:
            continue


@settings(max_examples=200)
@given(PLANS, _JSON, st.data())
def test_a_plan_with_one_value_replaced_is_a_plan_or_a_config_error(
    plan: FaultPlan, value: Any, data: st.DataObject
) -> None:
    named = plan.to_dict()
    tables = [*named["network"], *named["faults"]]
    if tables:
        table = data.draw(st.sampled_from(tables))
        table[data.draw(st.sampled_from(sorted(table)))] = value
    words = ""
    try:
        FaultPlan.from_dict(named)
    except ConfigError as error:
        words = str(error)
    assert not words or "; allowed: " in words


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("plan.yaml", b"", "ending is '.yaml'; allowed: .toml, .json"),
        ("plan.toml", b"[[faults", "plan.toml: "),
        ("plan.toml", b"\xff", "plan.toml: "),
        ("plan.json", b"[1]", "it holds no object"),
        ("plan.json", b"[" * 100_000, "plan.json: "),
        ("plan.json", b" " * (1 << 20) + b"{}", "larger than"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        read_plan(tmp_path / name)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_plan(tmp_path / "none.toml")


WRITTEN = """
[[network]]
kind = "latency"
law = "exponential"
mean_s = 0.02
floor_s = 0.005

[[network]]
kind = "loss"
probability = 0.05
of = ["basket-0", "c0003"]  # a domain and a client
until_s = 60

[[faults]]
kind = "partition"
at_s = 30
until_s = 45
groups = ["basket-0", "basket-1"]
symmetric = false
mode = "split"
stability_s = 2

[[faults]]
kind = "dropout"
stage = "masked"
probability = 0.2
"""


def test_a_plan_is_written_by_hand_as_one_thinks_of_it(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(WRITTEN, encoding="utf-8")
    assert read_plan(tmp_path / "plan.toml") == FaultPlan(
        (Latency.exponential(mean_s=0.02, floor_s=0.005), Loss(0.05, of=("basket-0", "c0003"), until_s=60)),
        (
            Partition(30, 45, ("basket-0", "basket-1"), symmetric=False, mode="split", stability_s=2),
            Dropout("masked", 0.2),
        ),
    )
