from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

import scarcity
from scarcity.errors import ConfigError, LocalError
from scarcity.federation.effects import (
    BasketAbsent,
    BasketClosed,
    ContributionMade,
    Event,
    ModelMade,
    RoundAborted,
    RoundDeclined,
    Waiting,
)
from scarcity.federation.packets import TrustMode, Unit
from scarcity.node.data.source import TableColumns
from sim.swarms.plan import Observer, Outcome, Reason, Record, SwarmPlan
from sim.swarms.report import JSON_KEYS, render, to_json
from sim.swarms.swarm import SwarmConfig, load_source, plan_swarm, run_swarm
from sim.swarms.truth import true_links
from tests.swarm.summing import summing

SMALL = SwarmConfig(synthetic=9, seed=3, privacy="none")


def absent(domain: str, have: int, need: int) -> BasketAbsent:
    """Later fields of the event, if it has any, are empty tuples."""
    fields = {"basket_id": f"basket/{domain}", "round_id": 1, "reason": "no quorum", "have": have, "need": need}
    return BasketAbsent(**{field.name: fields.get(field.name, ()) for field in attrs.fields(BasketAbsent)})


def replay(*events: Event) -> Outcome:
    record = Record()
    for event in events:
        record(event, 0.0)
    return record.outcome()


# What is found


def test_without_privacy_the_global_relations_are_those_of_the_pooled_fit() -> None:
    result = run_swarm(SMALL, execute=summing())
    assert [r.key for r in result.relations] == [r.key for r in result.pooled_relations]
    difference = [a.effect - b.effect for a, b in zip(result.relations, result.pooled_relations, strict=True)]
    assert np.abs(difference).max() < 1e-9
    found = {(r.sources[0], r.targets[0], r.lag) for r in result.relations if r.kind == "lagged"}
    assert found >= {(link.source, link.target, link.lag) for link in true_links(3)}


def test_two_runs_of_one_seed_give_the_same_relations() -> None:
    one, two = (run_swarm(SMALL, execute=summing()) for _ in range(2))
    assert one.relations == two.relations
    assert one.basket_relations == two.basket_relations


def test_a_noised_sum_still_finds_links_and_knows_its_noise() -> None:
    config = attrs.evolve(SMALL, privacy="distributed")
    clean, noised = (run_swarm(config, execute=summing(noise_std=s)) for s in (0.0, 2e8))
    assert clean.relations == clean.pooled_projected_relations
    assert noised.relations[0].se > clean.relations[0].se
    assert noised.privacy.layers == {"layer 1, round 1": (9, 1.0)}
    assert noised.privacy.reproducible


def test_every_kind_of_model_beats_persistence_on_held_out_rows() -> None:
    result = run_swarm(SMALL, execute=summing())
    medians = {who: result.prediction.median(who) for who in ("global", "basket", "alone", "pooled")}
    assert all(median is not None and median > 0.2 for median in medians.values())
    assert medians["global"] == pytest.approx(medians["pooled"], abs=1e-12)
    assert set(result.basket_prediction) == {"domain-0", "domain-1", "domain-2"}


def test_liars_spoil_a_plain_sum() -> None:
    honest = run_swarm(attrs.evolve(SMALL, synthetic=15), execute=summing())
    spoilt = run_swarm(attrs.evolve(SMALL, synthetic=15, liars=0.45), execute=summing())
    wrong = {r.key for r in spoilt.relations} ^ {r.key for r in spoilt.pooled_relations}
    assert wrong
    assert (spoilt.prediction.median("global") or 0) < (honest.prediction.median("global") or 0)
    assert not {r.key for r in honest.relations} ^ {r.key for r in honest.pooled_relations}


# The report


def test_json_has_exactly_the_agreed_keys() -> None:
    values = json.loads(to_json(run_swarm(SMALL, execute=summing())))
    assert tuple(values) == JSON_KEYS
    assert (values["clients"], values["baskets"], values["rounds"], values["seed"]) == (9, 3, 1, 3)
    assert values["version"] == scarcity.__version__
    for relation in (values["relations"][0], values["pooled_relations"][0], values["basket_relations"]["domain-0"][0]):
        assert set(relation) == {"kind", "sources", "targets", "lag", "effect", "se", "p"}
    assert set(values["prediction"]["median"]) == {"global", "basket", "alone", "pooled", "persistence"}
    assert set(values["prediction"]["variables"]) == {"x0", "x1", "x2", "x3", "x4"}
    assert values["privacy"] == {
        "mode": "none",
        "unit": "record",
        "epsilon": 0.0,
        "delta": 0.0,
        "max_colluders": 0,
        "reproducible": False,
        "layers": {},
    }


def test_the_report_is_plain_text_of_80_columns() -> None:
    result = run_swarm(attrs.evolve(SMALL, privacy="distributed"), execute=summing(noise_std=2e8))
    result = attrs.evolve(result, dropped=tuple(Reason(f"party-{i:04d}", "round 1: silent") for i in range(30)))
    text = render(result)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    for part in ("Relations of the global model", "of pooled", "each party alone", "persistence", "and 24 more"):
        assert part in text
    assert "noise reproducible: not private" in text
    assert "layer 1, round 1: 9 clients charged, epsilon 1.000 at most" in text


def test_colour_changes_no_word() -> None:
    result = run_swarm(SMALL, execute=summing())
    coloured = render(result, colour=True)
    assert "\x1b[" in coloured


# When nothing, or not all, comes of it


def test_below_the_threshold_the_last_line_says_how_many_were_there() -> None:
    def execute(_plan: SwarmPlan, _observe: Observer) -> Outcome:
        domains = [absent(f"domain-{i}", have=1, need=3) for i in range(3)]
        return replay(*domains, RoundAborted(1, "no basket has a quorum", 0, 1))

    result = run_swarm(SMALL, execute=execute)
    assert result.status == 3
    assert (result.relations, result.rounds) == ((), 0)
    last = render(result).splitlines()[-1]
    assert last.startswith("nothing was released: 3 of 9 clients were there (domain-0 1 of 3, 3 needed")
    assert result.pooled_relations
    assert result.dropped[0] == Reason("basket domain-0", "round 1: no quorum (1 of 3 needed)")


def test_a_spent_budget_is_status_4() -> None:
    def execute(_plan: SwarmPlan, _observe: Observer) -> Outcome:
        why = "ledger a: sigma 1 exceeds the budget; remaining: nothing"
        return replay(RoundDeclined("party-0001", 1, why), RoundAborted(1, "nobody is ready", 0, 1))

    result = run_swarm(SMALL, execute=execute)
    assert result.status == 4
    assert render(result).splitlines()[-1] == "budget spent: 0 of 1 rounds were released"
    assert result.refused == (Reason("party-0001", f"declined round 1: {why_of(result.refused)}"),)


def why_of(refused: tuple[Reason, ...]) -> str:
    return refused[0].reason.split(": ", 1)[1]


def test_an_interrupt_reports_what_was_done() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    result = run_swarm(SMALL, execute=summing(before_model=interrupt))
    assert result.status == 130
    assert result.last_line == "interrupted: 9 contributions had been made, 0 models"
    assert set(result.basket_relations) == {"domain-0", "domain-1", "domain-2"}
    assert tuple(json.loads(to_json(result))) == JSON_KEYS


def test_an_absent_basket_is_named_beside_a_model() -> None:
    def execute(plan: SwarmPlan, observe: Observer) -> Outcome:
        outcome = summing()(plan, observe)
        return attrs.evolve(outcome, dropped=(Reason("basket domain-2", "round 1: no quorum (1 of 3 needed)"),))

    result = run_swarm(SMALL, execute=execute)
    assert result.status == 0
    assert "no quorum (1 of 3 needed): basket domain-2" in render(result)


def test_what_cores_say_reaches_the_observer() -> None:
    told: list[type] = []
    run_swarm(SMALL, execute=summing(), observe=lambda said, _now: told.append(type(said)))
    assert set(told) == {Waiting, ContributionMade, BasketClosed, ModelMade}


# The plan


def test_the_plan_says_what_the_settings_say() -> None:
    config = attrs.evolve(SMALL, synthetic=30, privacy="local", liars=0.25, quorum=0.6, epsilon=10.0)
    source = load_source(config)
    plan = plan_swarm(config, source, 3)
    assert (plan.settings.mode, plan.settings.unit, plan.settings.rule) == (TrustMode.LOCAL, Unit.RECORD, "nnm+trmean")
    assert (plan.settings.quorum, plan.form, plan.epsilon) == (0.6, "differenced", 10.0)
    domain_of = {party.id: party.domain for party in source.parties}
    assert sorted(domain_of[liar] for liar in plan.liars) == ["domain-0"] * 2 + ["domain-1"] * 2 + ["domain-2"] * 2
    assert plan.liars == plan_swarm(config, source, 3).liars


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (attrs.evolve(SMALL, synthetic=3), "no domain has the 2 parties that a basket needs"),
        (
            attrs.evolve(SMALL, synthetic=30, privacy="local", epsilon=10.0, aggregator="bulyan"),
            "aggregator bulyan needs 11 contributions where 2 may lie, and the largest domain has 10 parties: choose",
        ),
        (
            attrs.evolve(SMALL, privacy="local", epsilon=1e-5, aggregator="average"),
            "epsilon 1e-05 with delta 1e-06 asks for more noise than can be drawn: raise epsilon",
        ),
        (
            attrs.evolve(SMALL, rounds=40),
            r"rounds 40: too few parties have rows for round 1 \(domain-0 0 of 3, .*choose fewer",
        ),
    ],
)
def test_what_could_only_wait_for_its_deadline_is_refused(config: SwarmConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_swarm(config, execute=summing())


def test_without_a_seed_the_entropy_is_the_systems() -> None:
    config = attrs.evolve(SMALL, seed=None)
    assert plan_swarm(config, load_source(config), 1).entropy is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"privacy": "shared"}, "privacy must be one of none, local"),
        ({"unit": "row"}, "unit must be one of record, client"),
        ({"backend": "curio"}, "backend must be one of"),
        ({"epsilon": 0.0}, "epsilon must lie in"),
        ({"epsilon": float("nan")}, "epsilon must lie in"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"quorum": 0.0}, "quorum must lie in"),
        ({"drop": -0.1}, "drop must lie in"),
        ({"liars": 1.5}, "liars must lie in"),
        ({"latency": -1.0}, "latency must lie in"),
        ({"rounds": 0}, "rounds must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"synthetic": 0}, "synthetic must be a whole number"),
        ({"attack": "bribe"}, "attack 'bribe' is unknown; known are sign-flip"),
        ({"privacy": "local", "aggregator": "mode"}, "aggregator 'mode' is unknown; known are average, bulyan"),
        ({"aggregator": "krum"}, "aggregator krum needs privacy local: masked inputs"),
        ({"privacy": "none", "aggregator": "krum"}, "aggregator krum needs privacy local"),
        ({"data": Path("x.csv")}, "data needs the columns"),
        ({"data": Path("x.csv"), "synthetic": 3}, "exclude each other"),
        ({"schema": Path("x.toml")}, "belong to data"),
        ({"colour": "red"}, "unknown settings colour; known are data, columns, schema"),
    ],
)
def test_settings_that_cannot_hold_are_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SwarmConfig.from_mapping(fields)


def write_table(path: Path) -> TableColumns:
    rng = np.random.default_rng(0)
    lines = ["who,where,when,x,y"]
    for i in range(6):
        lines += [f"p{i},d{i % 2},{t},{rng.normal():.4f},{rng.normal():.4f}" for t in range(60)]
    path.write_text("\n".join(lines))
    return TableColumns("who", "where", "when")


def test_record_privacy_without_public_scales_is_refused_with_the_way_out(tmp_path: Path) -> None:
    columns = write_table(tmp_path / "t.csv")
    config = SwarmConfig(data=tmp_path / "t.csv", columns=columns)
    with pytest.raises(LocalError, match=r"public scale for x, y: give a schema .* unit client, or privacy none"):
        run_swarm(config, execute=summing())
    for evolved in (attrs.evolve(config, privacy="none"), attrs.evolve(config, unit="client")):
        assert run_swarm(evolved, execute=summing()).clients == 6


def test_a_schema_file_gives_the_scales(tmp_path: Path) -> None:
    columns = write_table(tmp_path / "t.csv")
    scales = {"variables": [{"name": "x", "scale": 1.0}, {"name": "y", "scale": 1.0}], "lags": 1, "horizon": 5}
    (tmp_path / "s.json").write_text(json.dumps(scales))
    config = SwarmConfig(data=tmp_path / "t.csv", columns=columns, schema=tmp_path / "s.json")
    assert run_swarm(config, execute=summing()).pooled_projected_relations is not None
