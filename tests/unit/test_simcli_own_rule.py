"""A callable is a rule of a simulated federation, and of no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scarcity.errors import ConfigError
from scarcity.federation.assembly import round_settings
from scarcity.robust import Median, make_rule
from scarcity.robust.pipeline import own_rules
from sim.worlds.own_rule import own_rule
from sim.worlds.world import World


def world(rule: Any) -> World:
    return World(seed=2).clients(5).settings(mode="local", unit="client", rounds=2, rule=rule)


@pytest.mark.parametrize("executor", ["heap", "loop"])
def test_a_callable_sees_every_contribution_and_its_vector_is_the_model(executor: str) -> None:
    seen: list[tuple[int, ...]] = []

    def thrice(vectors: Any) -> Any:
        seen.append(vectors.shape)
        return 3 * vectors.mean(axis=0)

    result, plain = (world(rule).executor(executor).run(until_s=10) for rule in (thrice, "average"))
    assert result.violations == ()
    assert (5, 4) in seen
    assert result.model is not None
    assert plain.model is not None
    np.testing.assert_allclose(result.model.vector, 3 * plain.model.vector, atol=1e-3)


def test_a_rule_of_ours_as_an_object_gives_the_model_that_its_name_gives() -> None:
    by_name = world("median").run(until_s=10).model
    by_object = world(Median(1)).run(until_s=10).model
    assert by_name is not None
    assert by_object is not None
    np.testing.assert_allclose(by_object.vector, by_name.vector)


@pytest.mark.parametrize("wrong", [lambda vectors: vectors, lambda vectors: vectors[0] * np.nan])
def test_what_is_no_vector_of_that_shape_is_the_users_to_mend(wrong: Any) -> None:
    with pytest.raises(TypeError, match="rule own:<lambda> must return"):
        world(wrong).run(until_s=10)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="rule must be a name or a callable"):
        world(7)


def test_a_mode_that_shows_no_contributions_takes_no_rule() -> None:
    with pytest.raises(ConfigError, match="rule must be 'average'"):
        World().settings(mode="none", rule=np.sum).run(until_s=1)


def test_a_name_is_known_in_its_context_alone() -> None:
    rule = own_rule(np.sum)
    with own_rules({rule.name: rule.make}):
        assert round_settings({"rule": rule.name}).rule == rule.name
        assert make_rule(rule.name, 1).f == 1
    with pytest.raises(ConfigError, match="rule must be one of"):
        round_settings({"rule": rule.name})


def test_the_rules_of_a_federation_keep_their_meaning() -> None:
    with own_rules({"median": own_rule(np.sum).make}):
        assert make_rule("median", 1).name == "median"
