"""The combination guard, one test a row, and seats."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import ConfigError, DuplicateClientError, LedgerCorrupt
from scarcity.federation.assembly import (
    CANNOT_HOLD,
    Assembly,
    refuse_combinations,
    refuse_layout,
    round_settings,
    seat,
)
from scarcity.federation.packets import RoundSettings, TrustMode, Unit
from scarcity.federation.privacy_guard import Layout, PrivacyParams, array_layout, clean_layout
from scarcity.federation.roster import COORDINATOR, Role, verify_roster
from sim.chance import reproducible_entropy
from tests.federation_world import World, agent_of, payloads

# Row of CANNOT_HOLD -> settings that hit it and no other row.
ROWS: dict[str, dict[str, Any]] = {
    "unknown rule": {"rule": "mode"},
    "robust rule over masked inputs": {"layer1": "distributed", "rule": "krum"},
    "robust rule in mode none": {"layer1": "none", "rule": "median"},
    "sum of too few": {"layer1": "distributed", "min_clients": 2},
    "sum of too few baskets": {"layer1": "central", "rule": "average", "min_baskets": 2},
    "Layer 2 noise after a robust rule": {"layer1": "central", "rule": "trmean"},
    "layer2_clip of records": {"layer1": "central", "unit": "record", "rule": "average", "layer2_clip": 1.0},
    "layer2_clip where sums are masked": {"layer1": "distributed", "layer2_clip": 1.0},
    "no noise left for clients": {"rule": "average", "central_share": 1.0},
    "noise without a promise": {"layer1": "none", "central_share": 0.5},
    "no quorum": {"quorum": 0.0},
    "half of them lie": {"byzantine_share": 0.5},
    "colluders without noise": {"layer1": "local", "max_colluders": 1},
}


def test_every_row_of_the_table_has_a_case() -> None:
    assert {name for name, _, _ in CANNOT_HOLD} == set(ROWS)
    assert len({name for name, _, _ in CANNOT_HOLD}) == len(CANNOT_HOLD)


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_hold_together_is_refused_by_its_own_row_with_the_reason(name: str) -> None:
    (reason,) = [reason for row, _, reason in CANNOT_HOLD if row == name]
    with pytest.raises(ConfigError) as caught:
        round_settings(ROWS[name])
    assert str(caught.value) == f"{name}: {reason}"
    assert len(reason) > 20


@pytest.mark.parametrize("mode", ["local", "distributed", "none", "central"])
@pytest.mark.parametrize("unit", ["client", "record"])
def test_the_defaults_of_every_mode_hold(mode: str, unit: str) -> None:
    rule = {"rule": "average"} if mode == "central" else {}
    settings = round_settings({"layer1": mode, "unit": unit, **rule})
    refuse_combinations(settings)
    assert settings.mode is TrustMode(mode)
    assert settings.unit is Unit(unit)
    assert (settings.rule == "average") is (mode != "local")


def test_enough_members_follow_from_the_colluders_that_a_sum_counts_on() -> None:
    assert round_settings({"layer1": "distributed", "max_colluders": 2}).min_clients == 7
    with pytest.raises(ConfigError, match="sum of too few"):
        round_settings({"layer1": "distributed", "max_colluders": 2, "min_clients": 6})


def test_mode_has_two_names_and_an_unknown_value_lists_the_known_ones() -> None:
    assert round_settings({"mode": "none"}) == round_settings({"layer1": "none"})
    assert round_settings({"layer1": TrustMode.NONE}) == round_settings({"layer1": "none"})
    with pytest.raises(ConfigError, match="local, distributed"):
        round_settings({"layer1": "public"})
    with pytest.raises(ConfigError, match="client, record"):
        round_settings({"unit": "row"})


# Layouts.


def record_layout_of(d: int = 9) -> Layout:
    layout = agent_of("x", 1, with_schema=True).layout
    assert layout is not None
    return layout


LAYOUTS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "records as plain arrays": ({"unit": "record"}, lambda: array_layout(4), "unit record"),
    "public counts in unit client": ({}, record_layout_of, "unit client"),
    "no noise in unit client": ({}, lambda: clean_layout(4), "unit client"),
    "sensitivity that is not the bound": ({}, lambda: attrs.evolve(array_layout(4), sensitivity=1.0), "unit client"),
    "one quiet coordinate": (
        {},
        lambda: attrs.evolve(array_layout(2), noise_scales=np.array([1.0, 0.1])),
        "unit client",
    ),
    "too long": ({}, lambda: attrs.evolve(array_layout(4), dimension=10**6), "numbers"),
    "too long in mode none": ({"layer1": "none"}, lambda: attrs.evolve(clean_layout(4), dimension=10**6), "numbers"),
    "empty": ({"layer1": "none"}, lambda: attrs.evolve(clean_layout(4), dimension=0), "numbers"),
}


@pytest.mark.parametrize("mode", ["local", "distributed"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_vectors_that_cannot_be_protected_are_refused(name: str, mode: str) -> None:
    settings, layout, words = LAYOUTS[name]
    with pytest.raises(ConfigError, match=words):
        refuse_layout(round_settings({"layer1": mode, **settings}), layout())


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_vectors_that_can_be_protected_are_not_refused(mode: str) -> None:
    refuse_layout(round_settings({"layer1": mode}), clean_layout(4) if mode == "none" else array_layout(4))
    refuse_layout(round_settings({"layer1": mode, "unit": "record"}), record_layout_of())


def test_noise_that_is_too_little_to_be_shared_is_refused_before_a_round() -> None:
    settings = round_settings({"layer1": "distributed"})
    assembly = attrs.evolve(World().assembly, settings=settings, budget=PrivacyParams(epsilon=1e5, delta=1e-5))
    seats = seat(assembly, [(f"c{i}", "d") for i in range(300)])
    with pytest.raises(ConfigError, match="share"):
        assembly.terms(array_layout(4), seats.roster)


@pytest.mark.parametrize("epsilon", [1e-12, 1e14])
def test_a_budget_whose_noise_cannot_be_drawn_is_refused(epsilon: float) -> None:
    assembly = attrs.evolve(World().assembly, budget=PrivacyParams(epsilon=epsilon, delta=1e-12))
    seats = seat(assembly, [("a", "d"), ("b", "d")])
    with pytest.raises(ConfigError, match="noise"):
        assembly.terms(attrs.evolve(array_layout(10**5)), seats.roster)


# Seats.


def assembly_of() -> Assembly:
    return Assembly(
        settings=RoundSettings(),
        budget=PrivacyParams(epsilon=1.0, delta=1e-5),
        planned_rounds=1,
        entropy=reproducible_entropy(1),
        federation="fed",
    )


def test_seats_bring_baskets_and_coordinator_along_and_are_signed() -> None:
    seats = seat(assembly_of(), [("b", "y"), ("a", "x")])
    roles = {m.id: m.role for m in seats.roster.members}
    assert roles == {
        "a": Role.CLIENT,
        "b": Role.CLIENT,
        "basket/x": Role.BASKET,
        "basket/y": Role.BASKET,
        COORDINATOR: Role.COORDINATOR,
    }
    assert verify_roster(seats.roster.canonical, seats.signature, seats.operator_public_key) == seats.roster
    assert "SigningKey" not in repr(seats)


@pytest.mark.parametrize("name", ROWS)
def test_no_cores_are_made_under_settings_that_cannot_hold_whoever_made_them(name: str) -> None:
    values = {("mode" if key == "layer1" else key): value for key, value in ROWS[name].items()}
    values["mode"] = TrustMode(values.get("mode", "local"))
    values["unit"] = Unit(values.get("unit", "client"))
    values.setdefault("rule", "average" if values["mode"] in (TrustMode.DISTRIBUTED, TrustMode.NONE) else "trmean")
    with pytest.raises(ConfigError):
        attrs.evolve(assembly_of(), settings=RoundSettings(**values))


def test_who_stays_keeps_its_key_and_a_new_epoch_begins() -> None:
    assembly = assembly_of()
    first = seat(assembly, [("a", "x")])
    second = seat(assembly, [("a", "x"), ("b", "x")], before=first)
    assert second.roster.epoch == first.roster.epoch + 1
    assert second.keys["a"] is first.keys["a"]
    assert second.operator_key is first.operator_key


def test_an_id_twice_is_refused() -> None:
    with pytest.raises(DuplicateClientError):
        seat(assembly_of(), [("a", "x"), ("a", "y")])


# Journals.


def test_a_clients_ledger_is_that_of_its_key_and_a_damaged_journal_opens_nothing() -> None:
    world = World()
    world.open()
    world.submit("a1", np.zeros(4))
    journal = payloads(world.net.journals["a1"])
    operator = world.seats.operator_public_key
    again = world.assembly.client(world.seats.identity("a1"), operator, journal=journal)
    assert again.epsilon_spent == world.clients["a1"].epsilon_spent
    with pytest.raises(ValueError, match="cannot be opened"):
        world.assembly.client(world.seats.identity("a2"), operator, journal=journal)
    damaged = {"ledger": [journal["ledger"][0][:-1] + b"?", *journal["ledger"][1:]]}
    with pytest.raises(LedgerCorrupt):
        world.assembly.client(world.seats.identity("a1"), operator, journal=damaged)
    assert math.isinf(world.assembly.settings.deadline_s)
