"""From contributions to an aggregate, from aggregates to a model."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from scarcity.errors import InsufficientInputs, InvalidUpdate
from scarcity.federation.aggregator import make_rule
from scarcity.federation.codec import body_digest
from scarcity.federation.layers import (
    Contributed,
    aggregate_contributions,
    aggregate_of_sum,
    contribution_unit,
    layer2_bits,
    layer2_input,
    layer2_scale,
    model_belongs,
    model_of_sum,
    view_of,
)
from scarcity.federation.packets import Aggregate, BasketReport, Header, Model, Packet, Release, RoundConfig
from scarcity.federation.roster import COORDINATOR
from tests.federation_world import World, agent_of


def config_of(mode: str = "local", **settings: Any) -> RoundConfig:
    world = World(layer1=mode, **settings)
    world.open()
    body = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(body, RoundConfig)
    return body


def test_the_mean_is_weighted_by_rows_and_the_total_is_mean_times_weight() -> None:
    held = {
        "a": Contributed(np.array([10.0, 0.0]), 10),
        "b": Contributed(np.array([0.0, 60.0]), 30),
    }
    aggregate = aggregate_contributions(make_rule("average", 0), held, 2.0)
    np.testing.assert_allclose(aggregate.mean, [0.25, 1.5])
    np.testing.assert_allclose(aggregate.total, [10.0, 60.0])
    assert (aggregate.weight, aggregate.count, aggregate.rule) == (40.0, 2, "average")
    assert aggregate.noise_variance == pytest.approx(2 * 2.0**2)  # a sum of two noises


def test_age_scales_the_weight_and_never_the_content() -> None:
    held = {"a": Contributed(np.array([4.0]), 1), "b": Contributed(np.array([4.0]), 1, 0.5)}
    aggregate = aggregate_contributions(make_rule("average", 0), held, 1.0)
    assert aggregate.weight == 1.5
    np.testing.assert_allclose(aggregate.mean, [4.0])
    assert aggregate.noise_variance == pytest.approx(1.0 + 0.25)


def test_too_few_for_the_rule_make_no_aggregate() -> None:
    held = {name: Contributed(np.zeros(2), 1) for name in "abcd"}
    with pytest.raises(InsufficientInputs):
        aggregate_contributions(make_rule("krum", 1), held, 1.0)


def test_a_robust_rule_runs_per_unit_of_weight() -> None:
    held = {
        name: Contributed(np.full(3, 5.0 * rows), rows) for name, rows in zip("abcde", (1, 2, 3, 4, 50), strict=True)
    }
    aggregate = aggregate_contributions(make_rule("median", 0), held, 0.0)
    np.testing.assert_allclose(aggregate.mean, 5.0)
    assert aggregate.weight == 16.0  # 50 counts as twice the median, 6: what a sender says of its own weight is a claim


def test_a_sum_passes_layer_2_bit_for_bit_beyond_what_a_float_holds() -> None:
    total = np.array([2**60 + 1, -(2**60) - 3, 7], dtype=np.int64)
    aggregate = aggregate_of_sum(total, {"a": 2, "b": 3}, 9.0)
    assert (aggregate.weight, aggregate.count) == (5.0, 2)
    config = config_of("distributed")
    entered = layer2_input(aggregate, layer2_scale(config), layer2_bits(2))
    assert entered.dtype == np.int64
    assert entered.tolist() == total.tolist()


@pytest.mark.parametrize("num_baskets", [1, 2, 3, 4, 5, 100, 512])
def test_as_many_largest_totals_as_there_are_baskets_fit_the_ring(num_baskets: int) -> None:
    assert num_baskets * 2 ** layer2_bits(num_baskets) <= 2**62
    bits = layer2_bits(num_baskets)
    layer2_input(Aggregate(np.array([2.0**bits * 0.999]), 1.0, 1, "average", 0.0), 1, bits)
    for value in (2.0**bits, -(2.0**bits), np.inf, np.nan):
        with pytest.raises(InvalidUpdate, match="coordinate 0"):
            layer2_input(Aggregate(np.array([value]), 1.0, 1, "average", 0.0), 1, bits)


def test_clean_totals_keep_ten_digits_and_released_ones_their_lattice() -> None:
    assert layer2_scale(config_of("none")) == 2**36
    assert layer2_scale(config_of("local")) == 2**16
    assert layer2_scale(config_of("distributed")) == 1


@pytest.mark.parametrize("mode", ["local", "distributed", "none"])
def test_the_model_is_the_weighted_mean_in_the_callers_units(mode: str) -> None:
    config = config_of(mode, clip_norm=3.0)
    unit = 1.0 if mode == "none" else 3.0 / config.noise.steps
    assert contribution_unit(config) == unit
    parts = [Aggregate(np.array([6.0, -9.0, 0.0, 3.0]), 3.0, 3, "r", 4.0), Aggregate(np.ones(4), 2.0, 2, "r", 5.0)]
    bits = layer2_bits(2)
    total = sum(layer2_input(part, layer2_scale(config), bits) for part in parts)
    reports = [BasketReport(part.weight, part.count, part.noise_variance) for part in parts]
    model = model_of_sum(np.asarray(total), reports, config=config, round_id=4)
    np.testing.assert_allclose(model.vector, np.array([7.0, -8.0, 1.0, 4.0]) / 5.0 * unit, rtol=1e-9)
    assert (model.round_id, model.weight, model.count) == (4, 5.0, 5)
    assert model.noise_std == pytest.approx(3.0 * unit)
    assert model.config_hash == body_digest(config)


def test_sums_of_records_stay_integers_in_lattice_units_in_mode_none() -> None:
    layout = agent_of("x", 1, with_schema=True).layout
    assert layout is not None
    world = World(layer1="none", unit="record", layout=attrs.evolve(layout, noise_scales=layout.noise_scales))
    assert world.terms.noise.steps == layout.steps
    world.open()
    config = world.net.sent_by(COORDINATOR, RoundConfig)[0].body
    assert isinstance(config, RoundConfig)
    assert contribution_unit(config) == 1.0
    assert layer2_scale(config) == 2**8


def test_a_model_belongs_to_its_round_or_to_the_one_that_the_config_starts_from() -> None:
    def belongs(model: Model, round_id: int, config: RoundConfig) -> bool:
        said = Packet(Header("f", 1, "layer2", model.round_id, "coordinator"), model)
        return model_belongs(said, Packet(Header("f", 1, "layer2", round_id, "coordinator"), config))

    config = config_of()
    model = Model(3, b"", np.zeros(4), 1.0, 1, 0.0, body_digest(config))
    assert belongs(model, 3, config)
    assert not belongs(attrs.evolve(model, config_hash=bytes(32)), 3, config)
    assert not belongs(model, 4, config)
    assert not belongs(model, 2, config)
    later = attrs.evolve(config, model_hash=body_digest(model))
    assert belongs(model, 4, later)
    assert not belongs(attrs.evolve(model, weight=2.0), 4, later)


def test_a_view_is_the_baskets_rule_and_waits_for_enough() -> None:
    world = World({f"a{i}": "a" for i in range(5)}, rule="trmean")
    packets = [
        world.say(f"a{i}", Release(b"", np.full(2, 100 if i == 4 else i, dtype=np.int64), 1), 1, to="basket/a")
        for i in range(5)
    ]
    settings = world.assembly.settings
    assert view_of(packets[:2], settings, 5) is None
    view = view_of(packets, settings, 5)
    assert view is not None
    np.testing.assert_allclose(view, 2.0)  # one is cut off at both ends
