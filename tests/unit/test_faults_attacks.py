"""What liars make of their updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scarcity.errors import InsufficientInputs
from scarcity.federation.packets import Model, Update
from scarcity.federation.privacy_guard import Layout
from sim.faults.attacks import BEHAVIOURS, FORGES, Scene
from sim.faults.plan import Byzantine
from tests.faults_world import CLIENTS, stage_of

_ROWS = arrays(np.float64, (5, 4), elements=st.floats(-1e3, 1e3))


def _scene(honest: Any, strength: float = 1.0, own: int = 0, round_id: int = 1) -> Scene:
    rows = np.asarray(honest, dtype=np.float64)
    return Scene(rows[own], rows, strength, round_id, np.random.default_rng(3))


SPREAD = [[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]
GOLDEN = {
    "sign-flip": [-2.0, 0.0],
    "on-off": [1.0, 0.0],  # round 1 of every second
    "ipm": [-4.0, -2.0],
    "alie": [2.0 - 2 * np.sqrt(2 / 3), 1.0 - 2 * np.sqrt(2)],
    "mimic": [1.0, 0.0],
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_attacks_have_golden_values(name: str) -> None:
    np.testing.assert_allclose(FORGES[name](_scene(SPREAD, strength=2.0)), GOLDEN[name])


@given(_ROWS)
def test_min_max_is_as_far_from_the_honest_as_they_are_from_each_other(rows: Any) -> None:
    forged = FORGES["min-max"](_scene(rows))
    apart = max(np.linalg.norm(a - b) for a in rows for b in rows)
    farthest = max(np.linalg.norm(forged - row) for row in rows)
    assert farthest <= apart * (1 + 1e-6) + 1e-6
    if rows.std(axis=0).max() > 1e-3:
        assert farthest >= apart * (1 - 1e-6)


@given(_ROWS)
def test_min_sum_is_as_far_from_all_the_honest_as_the_farthest_of_them(rows: Any) -> None:
    forged = FORGES["min-sum"](_scene(rows))
    most = max(sum(np.sum((a - b) ** 2) for b in rows) for a in rows)
    reached = sum(np.sum((forged - row) ** 2) for row in rows)
    assert reached <= most * (1 + 1e-6) + 1e-6
    if rows.std(axis=0).max() > 1e-3:
        assert reached >= most * (1 - 1e-6)


@given(_ROWS, st.sampled_from(sorted(FORGES)))
def test_an_attack_leaves_what_it_sees_alone_and_stays_finite(rows: Any, name: str) -> None:
    kept = rows.copy()
    forged = FORGES[name](_scene(rows))
    assert (rows == kept).all()
    assert np.isfinite(forged).all()
    assert forged.shape == (4,)


@pytest.mark.parametrize("name", ["alie", "min-max", "min-sum", "mimic"])
def test_a_liar_without_colluders_has_nothing_to_hide_among(name: str) -> None:
    np.testing.assert_array_equal(FORGES[name](_scene([[1.0, -2.0]])), [1.0, -2.0])


def test_gaussian_noise_is_as_strong_as_the_update() -> None:
    own = np.full((1, 20_000), 3.0)
    forged = FORGES["gaussian"](_scene(own, strength=2.0))
    # The deviation of 20,000 normals is off by 3.5 % with probability 1e-6; the seed is fixed.
    assert abs(float(forged.std()) / 6.0 - 1) < 0.035
    assert abs(float(forged.mean())) < 4.9 * 6.0 / np.sqrt(20_000)


# In the learner that a liar's core is given.


class Plain:
    """A learner of one vector; it counts what it is asked."""

    def __init__(self, vector: Any, weight: int = 1, layout: Layout | None = None) -> None:
        self.update: Update | None = Update("x", None, b"", np.asarray(vector), weight)
        self.layout = layout
        self.spent: list[Update] = []
        self.models: list[Model] = []

    def update_for(self, _round_id: int) -> Update | None:
        return self.update

    def accepted(self, update: Update) -> None:
        self.spent.append(update)

    def receive_model(self, model: Model) -> None:
        self.models.append(model)


def test_an_honest_client_keeps_its_learner() -> None:
    learner = Plain([1.0])
    stage = stage_of(Byzantine("ipm", of=("c0001",)))
    assert stage.learner("c0000", learner) is learner


def test_a_liar_forges_what_it_gives_and_spends_what_it_has() -> None:
    stage = stage_of(Byzantine("sign-flip", of=("c0001",), strength=2.0))
    beneath = Plain([1.0, -2.0])
    liar = stage.learner("c0001", beneath)
    forged = liar.update_for(1)
    assert forged is not None
    assert forged.vector.tolist() == [-2.0, 4.0]
    liar.accepted(forged)
    assert beneath.spent == [beneath.update]
    assert stage.fired()[0].on == ("c0001",)


def test_colluders_know_each_others_honest_updates_and_nobody_elses() -> None:
    stage = stage_of(Byzantine("mimic", of=("c0001", "c0002", "c0003")))
    liars = {name: stage.learner(name, Plain([float(name[-1]), 1.0])) for name in CLIENTS}
    updates = {name: liars[name].update_for(1) for name in CLIENTS}
    assert [u.vector[0] for u in updates.values() if u is not None] == [0, 1, 1, 1, 4, 5, 6, 7, 8, 9]
    assert stage.fired()[0].on == ("c0002", "c0003")


def test_who_forges_last_still_knows_what_the_first_have_spent() -> None:
    class Once(Plain):
        def accepted(self, update: Update) -> None:
            super().accepted(update)
            self.update = None

    stage = stage_of(Byzantine("ipm", of=("c0001", "c0002", "c0003")))
    liars = [stage.learner(name, Once([float(name[-1])])) for name in ("c0001", "c0002", "c0003")]
    for liar in liars:
        forged = liar.update_for(1)
        assert forged is not None
        assert forged.vector.tolist() == [-2.0]
        liar.accepted(forged)


def test_colluders_that_have_nothing_to_give_are_left_out() -> None:
    class Empty(Plain):
        def update_for(self, _round_id: int) -> Update | None:
            raise InsufficientInputs("no rows")

    stage = stage_of(Byzantine("ipm", of=("c0001", "c0002", "c0003")))
    stage.learner("c0002", Empty([1.0, 1.0]))
    stage.learner("c0003", Plain([1.0, 1.0, 1.0]))
    forged = stage.learner("c0001", Plain([2.0, 2.0])).update_for(1)
    assert forged is not None
    assert forged.vector.tolist() == [-2.0, -2.0]
    silent = Plain([1.0])
    silent.update = None
    assert stage.learner("c0001", silent).update_for(1) is None


def test_sums_over_rows_keep_their_type_bound_and_public_counts() -> None:
    layout = Layout(b"", 4, steps=3, sensitivity=1.0, noise_scales=np.array([0.0, 1.0, 1.0, 1.0]))
    stage = stage_of(Byzantine("sign-flip", of=("c0001",), strength=100.0))
    forged = stage.learner("c0001", Plain(np.array([5, 4, -2, 0]), 5, layout)).update_for(1)
    assert forged is not None
    assert forged.vector.dtype == np.int64
    assert forged.vector.tolist() == [5, -45, 45, 0]  # 5 rows of at most 3 * 3


def test_weights_do_not_make_a_colluder_count_for_more() -> None:
    stage = stage_of(Byzantine("ipm", of=("c0001", "c0002")))
    stage.learner("c0002", Plain([300.0], 100))
    forged = stage.learner("c0001", Plain([10.0], 10)).update_for(1)
    assert forged is not None
    assert forged.vector.tolist() == [-20.0]  # ten rows of -(1 + 3) / 2


def test_an_on_off_liar_is_honest_in_between() -> None:
    stage = stage_of(Byzantine("on-off", of=("c0001",), strength=3))
    liar = stage.learner("c0001", Plain([1.0]))
    updates = [liar.update_for(round_id) for round_id in range(1, 7)]
    assert [float(update.vector[0]) for update in updates if update is not None] == [1, 1, -1, 1, 1, -1]
    assert stage.fired()[0].count == 2


def test_a_flipped_label_is_the_last_column_of_rows_that_are_summed() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    stage = stage_of(Byzantine("label-flip", of=("c0001",)))
    forged = stage.learner("c0001", Plain(rows.sum(axis=0))).update_for(1)
    assert forged is not None
    assert forged.vector.tolist() == (rows * [1, 1, -1]).sum(axis=0).tolist()
    assert stage.fired()[0].on == ("c0001",)


def test_a_share_of_liars_is_one_of_each_domain() -> None:
    stage = stage_of(Byzantine("sign-flip", share=0.4))
    for name in CLIENTS:
        stage.learner(name, Plain([1.0])).update_for(1)
    on = stage.fired()[0].on
    assert len(on) == 4
    assert sorted(int(name[-1]) % 2 for name in on) == [0, 0, 1, 1]


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS))
def test_every_behaviour_is_seated_with_its_own_strength_and_a_plans(behaviour: str) -> None:
    for strength in (None, 0.5, 3.0):
        stage_of(Byzantine(behaviour, share=0.4, strength=strength))
