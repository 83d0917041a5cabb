"""Schemas refuse what cannot be, and their hash tells any two apart."""

import math

import pytest

from scarcity.engine import Schema, Variable
from scarcity.errors import ConfigError


def scaled(*names):
    return [Variable(name, scale=2.0) for name in names]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"name": "a", "kind": "categorical"}, "kind"),
        ({"name": "a", "unit": 5}, "unit"),
        ({"name": "a", "scale": 0.0}, "scale"),
        ({"name": "a", "scale": -1.0}, "scale"),
        ({"name": "a", "scale": math.nan}, "scale"),
        ({"name": "a", "scale": True}, "scale"),
        ({"name": "a", "scale": "1"}, "scale"),
        ({"name": "a", "centre": math.inf}, "centre"),
        ({"name": "a", "bounds": (1.0, 1.0)}, "bounds"),
        ({"name": "a", "bounds": (1.0,)}, "bounds"),
        ({"name": "a", "bounds": (math.nan, 1.0)}, "bounds"),
    ],
)
def test_a_variable_names_the_field_that_is_wrong(fields, named):
    with pytest.raises(ConfigError, match=named):
        Variable(**fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"variables": []}, "variables"),
        ({"variables": ["a"]}, "variables"),
        ({"variables": scaled("a", "b", "a")}, "duplicate names 'a'"),
        ({"lags": 0}, "lags"),
        ({"lags": 2.0}, "lags"),
        ({"lags": True}, "lags"),
        ({"horizon": 0}, "horizon"),
        ({"lattice": 3}, "lattice"),
        ({"lattice": 1 << 40}, "lattice"),
        ({"clip_factor": 0.0}, "clip_factor"),
        ({"clip_factor": math.nan}, "clip_factor"),
    ],
)
def test_a_schema_names_the_field_that_is_wrong(fields, named):
    with pytest.raises(ConfigError, match=named):
        Schema(**({"variables": scaled("a")} | fields))


def test_a_schema_goes_through_a_dict_and_back():
    schema = Schema([Variable("a", "binary", "m", 2, 1, (0, 1)), Variable("b")], lags=2, horizon=4)
    assert Schema.from_dict(schema.to_dict()) == schema
    assert Schema.from_dict(schema.to_dict()).hash == schema.hash
    assert len(schema.hash) == 32


def test_whole_and_float_settings_that_are_equal_have_one_hash():
    assert Schema([Variable("a", scale=2)]).hash == Schema([Variable("a", scale=2.0)]).hash


@pytest.mark.parametrize("change", [{"lags": 4}, {"horizon": 9}, {"lattice": 4095}, {"clip_factor": 0.5}])
def test_every_setting_changes_the_hash(change):
    assert Schema(scaled("a"), **change).hash != Schema(scaled("a")).hash


def test_order_and_scale_of_variables_change_the_hash():
    hashes = {Schema(scaled("a", "b")).hash, Schema(scaled("b", "a")).hash, Schema([Variable("a"), Variable("b")]).hash}
    assert len(hashes) == 3


def test_an_unknown_key_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown keys lag; known are variables, lags"):
        Schema.from_dict({"variables": [], "lag": 3})
    with pytest.raises(ConfigError, match="name is missing"):
        Schema.from_dict({"variables": [{}]})


def test_scales_are_public_only_when_every_variable_has_one():
    assert Schema(scaled("a", "b")).has_public_scales
    assert not Schema([*scaled("a"), Variable("b")]).has_public_scales
    assert Schema(scaled("a", "b")).row_norm == pytest.approx(0.55 * 2)
