"""The page about the secure sum names what the code has, and its sample runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scarcity.federation.secure_aggregation import ClientState, CoordinatorState, Reason
from scarcity.federation.secure_aggregation.messages import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "secure-aggregation.md").read_text()


@pytest.mark.parametrize("state", [*ClientState, *CoordinatorState], ids=lambda state: state.name)
def test_every_state_has_a_row(state: ClientState | CoordinatorState) -> None:
    assert f"| {state.name} |" in PAGE


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_every_reason_is_named(reason: Reason) -> None:
    assert re.search(rf"\b{reason.name}\b", PAGE)


def test_every_message_has_a_row() -> None:
    for kind in KINDS.values():
        name = {"SumConfigMessage": "config"}.get(kind.__name__, kind.__name__)
        assert re.search(rf"\| {name} [SP]->[SP] \|", PAGE), name


def test_the_sample_runs() -> None:
    (sample,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(sample, "docs/secure-aggregation.md", "exec"), {})  # noqa: S102  # it is our own page
