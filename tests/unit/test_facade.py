"""`HierarchicalFederation`: defaults, refusals that change nothing, rounds, joiners, budgets."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import (
    AlreadySubmittedError,
    ConfigError,
    DuplicateClientError,
    FederationError,
    InvalidUpdate,
    LocalError,
    PrivacyBudgetExceeded,
    SchemaMismatchError,
    UnknownClientError,
)
from scarcity.federation import HierarchicalFederation, HierarchicalFederationConfig, Model, Update
from scarcity.federation.packets import RoundSettings, TrustMode, Unit
from sim.chance import reproducible_entropy
from tests.federation_world import agent_of

D = 4
MODES = ["local", "distributed", "none"]


def federation(clients: dict[str, str] | None = None, **settings: Any) -> HierarchicalFederation:
    config = HierarchicalFederationConfig(**{"entropy": reproducible_entropy(5), **settings})
    fed = HierarchicalFederation(config)
    for name, domain in (clients or {f"c{i}": "d" for i in range(3)}).items():
        fed.register_client(name, domain)
    return fed


class Receiver:
    def __init__(self) -> None:
        self.models: list[Model] = []

    def receive_model(self, model: Model) -> None:
        self.models.append(model)


def state_of(fed: HierarchicalFederation) -> Any:
    """What an error must leave as it was: ledgers, states, rounds, journals, and what is waited for."""
    return (
        {name: (core.state, core.epsilon_spent, core.model) for name, core in fed._clients.items()},
        {name: basket.state for name, basket in fed._baskets.items()},
        None if fed._coordinator is None else (fed._coordinator.round_id, fed._coordinator.state),
        {name: tuple(entries) for name, entries in fed._pump.journals.items()},
        fed._layout,
        fed._seats,
        dict(fed._domains),
        fed.waiting(),
    )


def run_round(fed: HierarchicalFederation, names: list[str], value: float = 0.5) -> Model | None:
    for name in names:
        fed.submit_update(name, np.full(D, value))
    return fed.maybe_aggregate()


def test_the_defaults_are_the_documented_ones() -> None:
    config = HierarchicalFederationConfig()
    assert (config.total_epsilon, config.delta, config.planned_rounds) == (10.0, 1e-5, 10)
    rounds = config.rounds
    assert (rounds.mode, rounds.unit, rounds.clip_norm) == (TrustMode.LOCAL, Unit.CLIENT, 1.0)
    assert (rounds.min_clients, rounds.min_baskets) == (2, 1)
    assert {rounds.ready_s, rounds.close_s, rounds.deadline_s, rounds.stage_s} == {float("inf")}
    assert not config.auto_aggregate


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        HierarchicalFederationConfig(colour="red")
    for field in attrs.fields(RoundSettings):
        assert field.name in str(caught.value)
    assert "colour" in str(caught.value)
    assert "layer1" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"total_epsilon": 0.0},
        {"total_epsilon": float("nan")},
        {"total_epsilon": -1.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"planned_rounds": 0},
        {"planned_rounds": 2.5},
        {"layer1": "secret"},
        {"unit": "person"},
        {"clip_norm": 0.0},
        {"clip_norm": float("inf")},
        {"quorum": 1.5},
        {"min_clients": 0},
        {"gossip_fanout": 0},
        {"stage_s": -1.0},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)).removeprefix("total_").replace("layer1", "mode")):
        HierarchicalFederationConfig(**settings)


def test_a_second_registration_of_an_id_is_refused_and_changes_nothing() -> None:
    fed = federation()
    before = state_of(fed)
    with pytest.raises(DuplicateClientError, match="c0"):
        fed.register_client("c0", "elsewhere")
    assert state_of(fed) == before


@pytest.mark.parametrize("name", ["", "a/b", "coordinator", "line\nbreak", "x" * 129])
def test_an_id_that_cannot_be_one_is_refused(name: str) -> None:
    fed = federation()
    with pytest.raises(ConfigError):
        fed.register_client(name, "d")
    assert name not in fed._domains


BAD_VECTORS = {
    "nan": (np.array([0.1, np.nan, 0.0, 0.0]), InvalidUpdate, r"vector\[1\] is nan"),
    "inf": (np.array([0.1, 0.0, np.inf, 0.0]), InvalidUpdate, r"vector\[2\] is inf"),
    "minus inf": (np.array([-np.inf, 0.0, 0.0, 0.0]), InvalidUpdate, r"vector\[0\]"),
    "longer": (np.zeros(D + 1), SchemaMismatchError, "5 numbers"),
    "shorter": (np.zeros(D - 1), SchemaMismatchError, "3 numbers"),
    "empty": (np.zeros(0), InvalidUpdate, "non-empty"),
    "two dimensions": (np.zeros((2, 2)), InvalidUpdate, "one dimension"),
    "a number": (3.0, InvalidUpdate, "one dimension"),
    "text": (["a", "b", "c", "d"], InvalidUpdate, "array of numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], InvalidUpdate, "array of numbers"),
    "nothing": (None, InvalidUpdate, "array of numbers"),
    "complex": (np.array([1j, 0, 0, 0]), InvalidUpdate, "complex"),
    "digits as text": (["1", "2", "3", "4"], InvalidUpdate, "array of numbers"),
    "another's": (Update("c1", None, b"", np.zeros(D)), InvalidUpdate, "'c1' was submitted for 'c0'"),
    "another schema": (Update("c0", None, b"s", np.zeros(D)), SchemaMismatchError, "schema"),
    "another round": (Update("c0", 7, b"", np.zeros(D)), LocalError, "round 7"),
    "weight": (Update("c0", None, b"", np.zeros(D), weight=2), InvalidUpdate, "weight"),
}


@pytest.mark.parametrize("mode", ["local", "distributed"])
@pytest.mark.parametrize("case", BAD_VECTORS)
def test_a_bad_update_in_an_open_round_is_refused_and_changes_nothing(case: str, mode: str) -> None:
    vector, error, words = BAD_VECTORS[case]
    fed = federation(layer1=mode)
    fed.submit_update("c1", np.zeros(D))
    before = state_of(fed)
    with pytest.raises(error, match=words):
        fed.submit_update("c0", vector)
    assert state_of(fed) == before
    fed.submit_update("c0", np.zeros(D))
    fed.submit_update("c2", np.zeros(D))
    assert fed.maybe_aggregate() is not None


@pytest.mark.parametrize("case", [c for c in BAD_VECTORS if c not in ("longer", "shorter", "another schema")])
def test_a_bad_first_update_opens_no_round_and_fixes_no_schema(case: str) -> None:
    vector, error, words = BAD_VECTORS[case]
    fed = federation()
    before = state_of(fed)
    with pytest.raises(error, match=words):
        fed.submit_update("c0", vector)
    assert state_of(fed) == before


def test_the_callers_array_is_neither_kept_nor_changed() -> None:
    fed = federation(layer1="none")
    vector = np.full(D, 0.25)
    fed.submit_update("c0", vector)
    vector[:] = 1e9
    fed.submit_update("c1", np.full(D, 0.25))
    fed.submit_update("c2", np.full(D, 0.25))
    model = fed.maybe_aggregate()
    assert model is not None
    np.testing.assert_allclose(model.vector, 0.25, atol=1e-10)


def test_an_unknown_client_is_refused_everywhere() -> None:
    fed = federation()
    for call in (lambda: fed.submit_update("who", np.zeros(D)), lambda: fed.privacy_spent("who")):
        with pytest.raises(UnknownClientError, match="who"):
            call()
    assert fed.local_view("who") is None


@pytest.mark.parametrize("mode", MODES)
def test_a_second_submit_is_refused_and_nothing_is_charged(mode: str) -> None:
    fed = federation(layer1=mode)
    fed.submit_update("c0", np.zeros(D))
    before = state_of(fed)
    with pytest.raises(AlreadySubmittedError):
        fed.submit_update("c0", np.ones(D))
    assert state_of(fed) == before


def test_a_client_alone_in_its_basket_is_told_that_nothing_is_released() -> None:
    fed = federation({"h1": "health", "h2": "health", "b1": "bank"})
    before = state_of(fed)
    with pytest.raises(LocalError, match="1 of min_clients=2"):
        fed.submit_update("b1", np.zeros(D))
    assert state_of(fed) == before


def test_none_without_quorum_closes_nothing_and_waiting_names_who_is_missing() -> None:
    fed = federation()
    fed.submit_update("c1", np.zeros(D))
    before = state_of(fed)
    assert fed.maybe_aggregate() is None
    assert state_of(fed) == before
    (waiting,) = [w for w in fed.waiting() if w.who == "basket/d"]
    assert (waiting.have, waiting.need, waiting.missing) == (1, 3, ("c0", "c2"))
    assert "1 of 3" in waiting.describe(fed._pump.now)
    assert run_round(fed, ["c0", "c2"]) is not None
    assert fed.waiting() == ()


def test_before_the_first_submit_there_is_nothing_to_aggregate_or_to_wait_for() -> None:
    fed = federation()
    assert fed.maybe_aggregate() is None
    assert fed.waiting() == ()
    assert fed.run_gossip_round().pushes == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_basket_that_is_complete_makes_a_model_though_another_has_nobody(mode: str) -> None:
    clients = {f"a{i}": "a" for i in range(3)} | {f"b{i}": "b" for i in range(3)}
    fed = federation(clients, layer1=mode)
    model = run_round(fed, ["a0", "a1", "a2"])
    assert model is not None
    assert model.count == 3
    second = run_round(fed, sorted(clients))
    assert second is not None
    assert second.count == 6


@pytest.mark.parametrize("mode", MODES)
def test_a_quorum_is_enough_for_maybe_aggregate(mode: str) -> None:
    fed = federation({f"c{i}": "d" for i in range(10)}, layer1=mode)
    for i in range(8):
        fed.submit_update(f"c{i}", np.full(D, 0.1))
    model = fed.maybe_aggregate()
    assert model is not None
    assert model.count == 8
    assert model.round_id == 1


def test_min_baskets_holds_a_round_open() -> None:
    clients = {f"a{i}": "a" for i in range(2)} | {f"b{i}": "b" for i in range(2)}
    fed = federation(clients, min_baskets=2)
    assert run_round(fed, ["a0", "a1"]) is None
    model = run_round(fed, ["b0", "b1"])
    assert model is not None
    assert model.count == 4


@pytest.mark.parametrize("mode", MODES)
def test_many_rounds_in_a_row_need_no_gossip_and_no_clock(mode: str) -> None:
    fed = federation(layer1=mode, planned_rounds=40)
    names = ["c0", "c1", "c2"]
    models = [run_round(fed, names) for _ in range(40)]
    assert [model.round_id for model in models if model is not None] == list(range(1, 41))
    assert all(core.model == models[-1] for core in fed._clients.values())


def test_the_model_of_a_round_is_returned_once_and_the_next_round_waits_for_that() -> None:
    fed = federation()
    for name in ("c0", "c1", "c2"):
        fed.submit_update(name, np.zeros(D))
    with pytest.raises(AlreadySubmittedError, match="maybe_aggregate"):
        fed.submit_update("c0", np.zeros(D))
    assert fed.maybe_aggregate() is not None
    assert fed.maybe_aggregate() is None
    assert fed.submit_update("c0", np.zeros(D)).round_id == 2


def test_auto_aggregate_goes_on_by_itself_and_returns_the_newest_model() -> None:
    fed = federation(auto_aggregate=True)
    for round_id in (1, 2, 3):
        for name in ("c0", "c1", "c2"):
            assert fed.submit_update(name, np.zeros(D)).round_id == round_id
    model = fed.maybe_aggregate()
    assert model is not None
    assert model.round_id == 3


def test_submits_move_no_time_and_a_gossip_round_moves_one_period() -> None:
    fed = federation(gossip_s=2.0)
    fed.submit_update("c0", np.zeros(D))
    assert fed._pump.now == 0.0
    assert fed.run_gossip_round().at == 2.0
    assert fed.run_gossip_round().at == 4.0


def test_gossip_gives_a_client_a_local_view_of_its_basket() -> None:
    clients = {f"c{i}": "d" for i in range(6)}
    fed = federation(clients)
    for i in range(4):
        fed.submit_update(f"c{i}", np.full(D, 0.2))
    assert all(fed.local_view(name) is None for name in clients)
    reports = [fed.run_gossip_round() for _ in range(5)]
    assert reports[-1].views == 6
    for name in clients:
        view = fed.local_view(name)
        assert view is not None
        assert view.shape == (D,)


# Budget.


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_the_budget_lasts_for_the_planned_rounds_and_for_no_more(mode: str) -> None:
    fed = federation(layer1=mode, planned_rounds=3)
    names = ["c0", "c1", "c2"]
    for _ in range(3):
        assert run_round(fed, names) is not None
    for name in names:
        assert 9.9 < fed.privacy_spent(name).epsilon <= 10.0
        before = state_of(fed)
        with pytest.raises(PrivacyBudgetExceeded):
            fed.submit_update(name, np.zeros(D))
        assert state_of(fed) == before


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_client_without_budget_declines_and_the_others_go_on(mode: str) -> None:
    clients = {f"c{i}": "d" for i in range(10)}
    fed = federation(clients, layer1=mode, planned_rounds=2)
    early, rest = ["c0", "c1"], [f"c{i}" for i in range(2, 10)]
    assert run_round(fed, early + rest[:6]) is not None  # a quorum; c8 and c9 have their whole budget left
    assert run_round(fed, early + rest[:6]) is not None
    fed.register_client("d0", "e")
    for name in ("d1", "d2"):
        fed.register_client(name, "e")
    fed.submit_update("c8", np.zeros(D))
    with pytest.raises(PrivacyBudgetExceeded):
        fed.submit_update("c0", np.zeros(D))
    before = state_of(fed)
    with pytest.raises(PrivacyBudgetExceeded):
        fed.submit_update("c1", np.zeros(D))
    assert state_of(fed) == before
    model = run_round(fed, ["c9", "d0", "d1", "d2"])
    assert model is not None
    assert model.count == 3  # the two that are left of ten are too few, for a sum as for the rule


def test_a_budget_that_needs_more_noise_than_can_be_drawn_is_refused_before_anything_is_kept() -> None:
    fed = federation(total_epsilon=1e-9, delta=1e-9)
    before = state_of(fed)
    with pytest.raises(FederationError):
        fed.submit_update("c0", np.zeros(1000))
    assert state_of(fed) == before


def test_what_is_spent_is_zero_before_the_first_submit_and_in_mode_none() -> None:
    fed = federation()
    assert fed.privacy_spent("c0").epsilon == 0.0
    clean = federation(layer1="none")
    assert run_round(clean, ["c0", "c1", "c2"]) is not None
    assert clean.privacy_spent("c0").epsilon == 0.0


def test_a_receipt_names_the_round_the_release_and_the_spending() -> None:
    fed = federation()
    receipt = fed.submit_update("c0", np.zeros(D))
    assert receipt.round_id == 1
    assert "c0" in receipt.release_id
    assert receipt.epsilon_spent == fed.privacy_spent("c0").epsilon > 0


# Joining.


@pytest.mark.parametrize("mode", MODES)
def test_who_registers_in_mid_round_joins_the_next_one_and_receives_models(mode: str) -> None:
    fed = federation(layer1=mode)
    fed.submit_update("c0", np.zeros(D))
    late = Receiver()
    fed.register_client("late", "d", agent=late)
    before = state_of(fed)
    with pytest.raises(LocalError, match="takes part from the next"):
        fed.submit_update("late", np.zeros(D))
    assert state_of(fed) == before
    first = run_round(fed, ["c1", "c2"])
    assert first is not None
    assert first.count == 3
    assert late.models == []
    second = run_round(fed, ["c0", "c1", "c2", "late"])
    assert second is not None
    assert second.count == 4
    assert late.models == [first, second]  # the first one is what round 2 starts from


@pytest.mark.parametrize("mode", MODES)
def test_a_new_domain_joins_between_two_rounds(mode: str) -> None:
    fed = federation(layer1=mode)
    assert run_round(fed, ["c0", "c1", "c2"]) is not None
    spent = fed.privacy_spent("c0")
    for name in ("e0", "e1", "e2"):
        fed.register_client(name, "e")
    model = run_round(fed, ["c0", "c1", "c2", "e0", "e1", "e2"])
    assert model is not None
    assert model.count == 6
    if mode != "none":  # the ledger went on, it did not start again
        assert fed.privacy_spent("c0").epsilon > spent.epsilon


@pytest.mark.parametrize("mode", MODES)
def test_every_agent_receives_every_model(mode: str) -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(layer1=mode, entropy=reproducible_entropy(5)))
    receivers = {f"c{i}": Receiver() for i in range(7)}
    for i, (name, receiver) in enumerate(receivers.items()):
        fed.register_client(name, "ab"[i % 2] if i < 6 else "alone", agent=receiver)
    models = [run_round(fed, [f"c{i}" for i in range(6)]) for _ in range(3)]
    for receiver in receivers.values():
        assert receiver.models == models


# Agents.


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_unit_client_refuses_an_agent_whose_vectors_hold_public_counts(mode: str) -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(layer1=mode))
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, "d", agent=agent)
    before = state_of(fed)
    with pytest.raises(ConfigError, match="unit client"):
        fed.submit_update("c0", agents["c0"].get_shareable_update())
    assert state_of(fed) == before


@pytest.mark.parametrize("mode", MODES)
def test_an_array_from_a_client_whose_agent_shares_another_form_opens_no_round(mode: str) -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(layer1=mode))
    for name in ("c0", "c1", "c2"):
        fed.register_client(name, "d", agent=agent_of(name, 1, with_schema=False))
    before = state_of(fed)
    with pytest.raises(SchemaMismatchError, match="another schema or form"):
        fed.submit_update("c0", np.zeros(D))
    assert state_of(fed) == before


def test_unit_record_needs_to_know_what_a_record_can_change() -> None:
    fed = federation(unit="record")
    before = state_of(fed)
    with pytest.raises(ConfigError, match="schema with public scales"):
        fed.submit_update("c0", np.zeros(D))
    assert state_of(fed) == before


def test_a_client_without_a_layout_declines_rounds_of_records_and_stops_nobody() -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(unit="record", entropy=reproducible_entropy(3)))
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, "d", agent=agent)
    fed.register_client("plain", "d")
    for name, agent in agents.items():
        fed.submit_update(name, agent.get_shareable_update())
    model = fed.maybe_aggregate()
    assert model is not None
    assert model.count == 3
    assert fed._clients["plain"].model == model


@pytest.mark.parametrize(
    "changes",
    [{"weight": 100_001}, {"rows": (5, 3)}, {"vector": np.full(20, 2**62)}, {"vector": np.zeros(20)}],
    ids=["too many rows", "no interval", "beyond what rows can sum to", "floats"],
)
def test_a_record_update_that_cannot_be_one_is_refused_and_changes_nothing(changes: dict[str, Any]) -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(unit="record", entropy=reproducible_entropy(3)))
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, "d", agent=agent)
    fed.submit_update("c1", agents["c1"].get_shareable_update())
    update = agents["c0"].get_shareable_update()
    if "vector" in changes:
        changes = {"vector": np.resize(changes["vector"], update.vector.shape)}
    before = state_of(fed)
    with pytest.raises(LocalError):
        fed.submit_update("c0", attrs.evolve(update, **changes))
    assert state_of(fed) == before
    fed.submit_update("c0", update)


def test_rows_are_charged_once_however_many_rounds_there_are() -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(unit="record", entropy=reproducible_entropy(3)))
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, "d", agent=agent)
    spent = []
    for round_id in range(4):
        for name, agent in agents.items():
            fed.submit_update(name, agent.get_shareable_update())
            agent.engine.process_rows(np.random.default_rng(round_id).standard_normal((40, 3)))
        assert fed.maybe_aggregate() is not None
        spent.append(fed.privacy_spent("c0").epsilon)
    assert len(set(spent)) == 1
    assert len(agents["c0"].engine.store) == 4


def test_the_same_rows_again_are_refused_by_the_ledger() -> None:
    fed = HierarchicalFederation(HierarchicalFederationConfig(unit="record", entropy=reproducible_entropy(3)))
    agents = {f"c{i}": agent_of(f"c{i}", i, with_schema=True) for i in range(3)}
    for name, agent in agents.items():
        fed.register_client(name, "d", agent=agent)
    updates = {name: agent.get_shareable_update() for name, agent in agents.items()}
    for name, update in updates.items():
        fed.submit_update(name, update)
    assert fed.maybe_aggregate() is not None
    before = state_of(fed)
    with pytest.raises(PrivacyBudgetExceeded):
        fed.submit_update("c0", updates["c0"])
    assert state_of(fed) == before
