"""Bugs planted in the cores' effects: each is found by the checker whose promise it breaks, and sound cores by none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.federation.effects import BasketClosed, Effect, Emit, ModelMade, Persist, Send, SetTimer
from scarcity.federation.packets import Ack, Model, RoundConfig, SecureSum
from scarcity.federation.privacy_guard import LEDGER
from scarcity.federation.recovery import OUTCOME, RECEIPT
from scarcity.federation.secure_aggregation import decode, encode
from scarcity.federation.secure_aggregation.messages import Reveal
from sim.worlds.built import WorldConfig
from tests.sim_world import Alter, run_buggy

NONE = WorldConfig(clients=6, baskets=2, until_s=12.0)
LOCAL = attrs.evolve(NONE, mode="local")
SUMS = attrs.evolve(NONE, mode="distributed")


def each(change: Callable[[str, Effect], list[Effect]]) -> Alter:
    return lambda member, effects: [out for effect in effects for out in change(member, effect)]


def dropping(unwanted: Callable[[Effect], bool]) -> Alter:
    return each(lambda _member, effect: [] if unwanted(effect) else [effect])


def is_record(effect: Effect, kind: str) -> bool:
    return isinstance(effect, Persist) and effect.entry.kind == kind


def says(effect: Effect, kind: type) -> bool:
    return isinstance(effect, Send) and isinstance(effect.packet.body, kind)


def charge_after(_member: str, effects: list[Effect]) -> list[Effect]:
    """The budget is journalled behind what it pays for."""
    late = [effect for effect in effects if is_record(effect, LEDGER)]
    return [*(effect for effect in effects if effect not in late), *late]


def second_model(member: str, effect: Effect) -> list[Effect]:
    if not (says(effect, Model) and isinstance(effect, Send) and member == "coordinator"):
        return [effect]
    other = attrs.evolve(effect.packet.body, vector=np.ones(4))  # type: ignore[call-arg]  # it is a Model
    return [effect, Send(effect.to, attrs.evolve(effect.packet, body=other))]


def wrong_model(_member: str, effect: Effect) -> list[Effect]:
    """Layer 2's sum forgets a unit."""
    if not (isinstance(effect, Emit) and isinstance(effect.event, ModelMade)):
        return [effect]
    model = attrs.evolve(effect.event.model, vector=effect.event.model.vector + 1e-9)
    return [Emit(ModelMade(model, effect.event.baskets))]


def wrong_aggregate(_member: str, effect: Effect) -> list[Effect]:
    if not (isinstance(effect, Emit) and isinstance(effect.event, BasketClosed)):
        return [effect]
    event, made = effect.event, effect.event.aggregate
    assert made is not None
    total = np.asarray(made.total + 2**40, dtype=made.total.dtype)
    return [Emit(attrs.evolve(event, aggregate=attrs.evolve(made, total=total)))]


def second_reveal(_member: str, effect: Effect) -> list[Effect]:
    """A member unmasks for another set of survivors too."""
    if not (isinstance(effect, Send) and isinstance(effect.packet.body, SecureSum)):
        return [effect]
    message = decode(effect.packet.body.payload)
    if not isinstance(message, Reveal):
        return [effect]
    changed = attrs.evolve(message, own=bytes(len(message.own)))
    return [effect, Send(effect.to, attrs.evolve(effect.packet, body=SecureSum(encode(changed))))]


def mute_timer(_member: str, effect: Effect) -> list[Effect]:
    """A basket forgets to decide at its deadline."""
    return [] if isinstance(effect, SetTimer) and effect.name == "close" else [effect]


BUGS: dict[str, tuple[WorldConfig, Alter, str, dict[str, Any]]] = {
    "the budget's journal is skipped": (LOCAL, dropping(lambda e: is_record(e, LEDGER)), "BudgetKept", {}),
    "the budget is journalled after the release": (LOCAL, charge_after, "BudgetKept", {}),
    "a masked input is not journalled": (SUMS, dropping(lambda e: is_record(e, LEDGER)), "BudgetKept", {}),
    "an ack is dropped": (NONE, dropping(lambda e: says(e, Ack)), "SubmissionsKept", {}),
    "a receipt is not written": (NONE, dropping(lambda e: is_record(e, RECEIPT)), "SubmissionsKept", {}),
    "the coordinator signs two models": (NONE, each(second_model), "OneAnswer", {}),
    "a member holds another model": (NONE, each(wrong_model), "OneModel", {}),
    "layer 2's sum is wrong": (NONE, each(wrong_model), "SumExact", {}),
    "a basket's sum is wrong": (NONE, each(wrong_aggregate), "SumExact", {}),
    "a basket's secure sum is wrong": (SUMS, each(wrong_aggregate), "SumExact", {}),
    "a member reveals twice": (SUMS, each(second_reveal), "OneAnswer", {}),
    "a basket's deadline never comes": (NONE, each(mute_timer), "NothingOverdue", {"loss": 0.7}),
    "the outcome is not written": (
        NONE,
        dropping(lambda e: is_record(e, OUTCOME)),
        "DurableFirst",
        {},
    ),
    "no round opens any more": (
        attrs.evolve(NONE, until_s=40.0, heal_s=31.0),
        dropping(lambda e: says(e, RoundConfig)),
        "Liveness",
        {},
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_by_its_checker(bug: str) -> None:
    config, alter, checker, rough = BUGS[bug]
    found = {violation.checker for violation in run_buggy(config, alter, **rough).violations}
    assert checker in found, f"{bug}: {found}"


@pytest.mark.parametrize("config", [NONE, LOCAL, SUMS], ids=lambda config: config.mode)
def test_sound_cores_break_no_promise(config: WorldConfig) -> None:
    result = run_buggy(config, lambda _member, effects: effects)
    assert result.violations == ()
    assert result.model is not None
