"""A local swarm from its settings to its result: read rows, decide everything that can be decided, execute, evaluate.

`execute` is a parameter, so that what runs the cores (actors on a real clock, a pump) is nobody's business here.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

import scarcity
from scarcity.engine import OnlineDiscoveryEngine, Relation, VarFit, relations_of
from scarcity.engine.schema_file import read_schema
from scarcity.engine.vector import Form
from scarcity.errors import ConfigError
from scarcity.federation.aggregator import RULES, byzantine_count, make_rule
from scarcity.federation.assembly import round_settings
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.packets import RoundSettings
from scarcity.federation.privacy_guard import PrivacyParams, contribution_terms, layer2_terms
from scarcity.federation.reconciler import model_moments
from scarcity.node.data.model_file import MAX_TEXT, ModelFile, Provenance
from scarcity.node.data.prediction import skills
from scarcity.node.data.source import Party, Source, TableColumns, table_source, unusable
from scarcity.privacy.mechanisms import SIGMA_MAX
from sim.chance import Chance, reproducible_entropy
from sim.faults.attacks import attack_named
from sim.interrupts import Interrupts
from sim.swarms.evaluate import LocalFits, aggregate_moments, fit_or_none, local_fits
from sim.swarms.plan import Backend, Execute, Observer, Outcome, Reason, Record, SwarmPlan
from sim.swarms.report import (
    STATUS_BUDGET_SPENT,
    STATUS_INTERRUPTED,
    STATUS_NOTHING_RELEASED,
    STATUS_OK,
    Privacy,
    SwarmResult,
)
from sim.swarms.sources import flights, split_rounds
from sim.swarms.truth import synthetic

# Layer 1's rule by trust mode: masked and clean contributions can only be averaged.
_DEFAULT_RULES: Final = {"none": "average", "local": "nnm+trmean", "distributed": "average", "central": "average"}
_ONLY_AVERAGES: Final = {
    "none": "mode none compares with plain sums",
    "distributed": "masked inputs show nobody, only their average",
    "central": "Layer 2's noise is sized for what one client adds to a plain sum of records",
}
# Wider rows lose more to noise and less to the projection. `local`, whose noise is on every release, is served best by
# .7 on the flights at epsilon 10; sums are by the schema's own .55.
_LOCAL_CLIP_FACTOR: Final = 0.7
# Everybody answers within these, unless the machine is far too slow for the swarm.
_STAGE_S: Final = 60.0
# Where clients fall silent on purpose, every stage is waited out in full.
_STAGE_WITH_DROPS_S: Final = 5.0
# Where gossip carries releases, a round in one process is over before gossip's usual second.
_GOSSIP_S: Final = 0.1


def _number(low: float, high: float, *, open_low: bool = True) -> Any:
    def check(_instance: Any, field: attrs.Attribute[float], value: float) -> None:
        inside = (low < value if open_low else low <= value) and value <= high and math.isfinite(value)
        if not inside:
            raise ConfigError(f"{field.name} must lie in {'(' if open_low else '['}{low:g}, {high:g}], got {value!r}")

    return check


def _one_of(*known: str) -> Any:
    def check(_instance: Any, field: attrs.Attribute[str], value: str) -> None:
        if value not in known:
            raise ConfigError(f"{field.name} must be one of {', '.join(known)}, got {value!r}")

    return check


def _whole(low: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and (type(value) is not int or value < low):
            raise ConfigError(f"{field.name} must be a whole number of at least {low}, got {value!r}")

    return check


@attrs.frozen(kw_only=True)
class SwarmConfig:
    """Settings of a swarm; those of the command `scarcity swarm`, with the same names.

    Attributes:
        data: CSV or Parquet file; None: the flights, or synthetic rows.
        columns: the roles of its columns, needed with `data`.
        schema: TOML or JSON file with the variables' public scales.
        synthetic: that many parties with a known answer.
        privacy: trust mode.
        epsilon: budget of each client.
        delta: budget of each client. More than one in the number of records of a party protects nobody.
        unit: record or client.
        aggregator: Layer 1's rule; None: the trust mode's own.
        rounds: increments that the rows are split into.
        drop: probability with which a client falls silent at a random stage.
        latency: seconds that every message takes.
        liars: share of every basket's clients that lie, rounded down.
        attack: how they lie.
        seed: makes everything reproducible, the noise too; None: the system's entropy, the only private choice.
        backend: event loop.
        quorum: share of a basket's clients without which it is Absent; sizes the shares of noise.

    Raises:
        ConfigError: a field is out of range, or fields cannot hold together; the message names them.
    """

    data: Path | None = None
    columns: TableColumns | None = None
    schema: Path | None = None
    synthetic: int | None = attrs.field(default=None, validator=_whole(1))
    privacy: str = attrs.field(default="distributed", validator=_one_of("none", "local", "distributed", "central"))
    epsilon: float = attrs.field(default=1.0, validator=_number(0, 1e6))
    delta: float = attrs.field(default=1e-6, validator=_number(0, 0.5))
    unit: str = attrs.field(default="record", validator=_one_of("record", "client"))
    aggregator: str | None = None
    rounds: int = attrs.field(default=1, validator=_whole(1))
    drop: float = attrs.field(default=0.0, validator=_number(0, 1, open_low=False))
    latency: float = attrs.field(default=0.0, validator=_number(0, 60, open_low=False))
    liars: float = attrs.field(default=0.0, validator=_number(0, 1, open_low=False))
    attack: str = "sign-flip"
    seed: int | None = attrs.field(default=None, validator=_whole(0))
    backend: str = attrs.field(default="asyncio", validator=_one_of("asyncio", "trio"))
    quorum: float = attrs.field(default=0.7, validator=_number(0, 1))

    def __attrs_post_init__(self) -> None:
        attack_named(self.attack)
        if self.data is not None and self.synthetic is not None:
            raise ConfigError("data and synthetic exclude each other")
        if self.data is not None and self.columns is None:
            raise ConfigError("data needs the columns that hold party, domain and time")
        if self.data is None and (self.columns is not None or self.schema is not None):
            raise ConfigError("party, domain, time, variables and schema belong to data, which is not given")
        if self.aggregator is not None and self.aggregator not in RULES:
            raise ConfigError(f"aggregator {self.aggregator!r} is unknown; known are {', '.join(sorted(RULES))}")
        if self.privacy != "local" and self.rule != "average":
            raise ConfigError(f"aggregator {self.aggregator} needs privacy local: {_ONLY_AVERAGES[self.privacy]}")

    @property
    def rule(self) -> str:
        """Layer 1's rule."""
        return self.aggregator or _DEFAULT_RULES[self.privacy]

    @property
    def form(self) -> Form:
        """Layout of what clients contribute."""
        if self.privacy == "none":
            return "centred"
        return "differenced" if self.unit == "record" else "mean"

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> SwarmConfig:
        """Return the config of plain values.

        Raises:
            ConfigError: an unknown key (the known ones are listed), or a field out of range.
        """
        known = [field.name for field in attrs.fields(cls)]
        if unknown := sorted(set(fields) - set(known)):
            raise ConfigError(f"unknown settings {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**fields)


def load_source(config: SwarmConfig) -> Source:
    """Return the parties that the config names.

    Raises:
        ConfigError: nothing to read, or unit record without public scales.
        InvalidRow: a bad cell of the user's table.
    """
    if config.data is not None and config.columns is not None:
        source = table_source(config.data, config.columns, read_schema(config.schema) if config.schema else None)
    elif config.synthetic is not None:
        source = synthetic(config.synthetic, config.seed or 0)
    else:
        source = flights()
    if config.form == "differenced" and not source.schema.has_public_scales:
        without = ", ".join(v.name for v in source.schema.variables if v.scale is None)
        raise ConfigError(
            f"unit record needs a public scale for {without}: give a schema with scales from common knowledge (never "
            "from the data), or choose unit client, or privacy none"
        )
    if config.form == "differenced" and config.privacy == "local" and config.schema is None:
        return attrs.evolve(source, schema=attrs.evolve(source.schema, clip_factor=_LOCAL_CLIP_FACTOR))
    return source


def plan_swarm(config: SwarmConfig, source: Source, seed: int) -> SwarmPlan:
    """Return the plan of a config over a source.

    Raises:
        ConfigError: settings that cannot hold together.
    """
    chance = Chance(seed)
    stage_s = _STAGE_WITH_DROPS_S if config.drop else _STAGE_S
    # Every diagonal entry of a client's mean Gram is about one in units of the public scales.
    size = 1 + source.schema.num_variables * (source.schema.lags + 1)
    settings = round_settings(
        {
            "mode": config.privacy,
            "unit": config.unit,
            "rule": config.rule,
            "byzantine_share": 0.0 if config.rule == "average" else 0.2,
            "quorum": config.quorum,
            "max_colluders": _colluders(source) if config.privacy == "distributed" else 0,
            "clip_norm": math.sqrt(size) if config.form == "mean" else 1.0,
            "ready_s": stage_s,
            "close_s": stage_s,
            "deadline_s": 2 * stage_s,
            "stage_s": stage_s,
            "gossip_s": _GOSSIP_S if config.privacy == "local" else RoundSettings().gossip_s,
        }
    )
    _require_enough(source, settings, config.rounds)
    _require_drawable(config, source, settings)
    return SwarmPlan(
        source=source,
        settings=settings,
        form=config.form,
        epsilon=config.epsilon,
        delta=config.delta,
        rounds=config.rounds,
        liars=_liars(source, config.liars, chance),
        attack=attack_named(config.attack),
        drop=config.drop,
        latency_s=config.latency,
        chance=chance,
        entropy=None if config.seed is None else reproducible_entropy(config.seed),
        backend=cast("Backend", config.backend),
    )


def _colluders(source: Source) -> int:
    """Return how many members of a basket may tell it their noise: one, where every basket has the four it takes."""
    sizes = [sum(party.domain == domain for party in source.parties) for domain in source.domains]
    return 1 if min(sizes) >= 4 else 0


def _require_enough(source: Source, settings: RoundSettings, rounds: int) -> None:
    """Refuse what could only wait for its deadlines: baskets nobody expects, rounds without rows."""
    members = {d: [party for party in source.parties if party.domain == d] for d in source.domains}
    if max(map(len, members.values())) < settings.min_clients:
        sizes = ", ".join(f"{domain} {len(parties)}" for domain, parties in members.items())
        raise ConfigError(f"no domain has the {settings.min_clients} parties that a basket needs: {sizes}")
    _require_inputs(settings, sorted(map(len, members.values()), reverse=True))
    for index in range(rounds):
        # A release forms its products from the rows since the last one alone.
        ready = {
            domain: sum(not unusable(split_rounds(party, rounds)[index], source.schema) for party in parties)
            for domain, parties in members.items()
        }
        if all(count < settings.quorum * len(members[domain]) for domain, count in ready.items()):
            there = ", ".join(f"{domain} {count} of {len(members[domain])}" for domain, count in ready.items())
            raise ConfigError(
                f"rounds {rounds}: too few parties have rows for round {index + 1} ({there}); choose fewer"
            )


def _require_inputs(settings: RoundSettings, sizes: Sequence[int]) -> None:
    """Refuse a rule for which no basket has the inputs: every client would be charged, and nothing released."""
    liars = {size: byzantine_count(settings.byzantine_share, size) for size in sizes}
    needs = {size: make_rule(settings.rule, count).min_inputs for size, count in liars.items()}
    if all(needs[size] > size for size in sizes):
        largest = sizes[0]
        raise ConfigError(
            f"aggregator {settings.rule} needs {needs[largest]} contributions where {liars[largest]} may lie, and the "
            f"largest domain has {largest} parties: choose another aggregator (nnm+trmean, median), or larger domains"
        )


def _require_drawable(config: SwarmConfig, source: Source, settings: RoundSettings) -> None:
    """Refuse a budget so small that its noise is beyond the sampler's range."""
    layout = FederationClientAgent(OnlineDiscoveryEngine(source.schema), "", config.form).layout
    assert layout is not None, "a source has a schema"
    budget = PrivacyParams(epsilon=config.epsilon, delta=config.delta)
    largest = max(sum(party.domain == domain for party in source.parties) for domain in source.domains)
    own = contribution_terms(settings, layout, budget, config.rounds)
    shared = layer2_terms(settings, layout, budget, config.rounds, largest)
    if max(own.sigma, shared.sigma) > SIGMA_MAX:
        fewer = ", or fewer rounds" if config.unit == "client" and config.rounds > 1 else ""
        raise ConfigError(
            f"epsilon {config.epsilon:g} with delta {config.delta:g} asks for more noise than can be drawn: raise "
            f"epsilon{fewer}; so small a budget would show nothing but noise"
        )


def _liars(source: Source, share: float, chance: Chance) -> tuple[str, ...]:
    """Return the same share of every basket, rounded down, as a rule's f is: liars are spread, not gathered."""
    chosen: list[str] = []
    for domain in source.domains:
        ids = sorted(
            (party.id for party in source.parties if party.domain == domain),
            key=lambda name: chance.uniform("liar", name),
        )
        chosen += ids[: math.floor(share * len(ids))]
    return tuple(sorted(chosen))


def run_swarm(
    config: SwarmConfig,
    *,
    execute: Execute | None = None,
    observe: Observer | None = None,
    interrupts: Interrupts | None = None,
) -> SwarmResult:
    """Run a swarm and say what came of it.

    Args:
        config: settings.
        execute: runs a plan; None: the real actors in one event loop.
        observe: told every event and what is waited for, as it happens.
        interrupts: SIGINT's handler, of a caller that has something to write afterwards; it holds from the moment at
            which the plan is executed. None: one for as long as this takes.

    Raises:
        LocalError: bad settings or rows.
        BudgetError: a ledger refused before anything could be released.
    """
    source = load_source(config)
    seed = int.from_bytes(os.urandom(4), "big") if config.seed is None else config.seed
    plan = plan_swarm(config, source, seed)
    if interrupts is not None:
        return _run(config, plan, execute or _live(), observe, interrupts)
    with Interrupts() as interrupts:
        return _run(config, plan, execute or _live(), observe, interrupts)


def _run(
    config: SwarmConfig, plan: SwarmPlan, execute: Execute, observe: Observer | None, interrupts: Interrupts
) -> SwarmResult:
    record = Record()

    def tell(said: Any, now: float) -> None:
        record(said, now)
        if observe is not None:
            observe(said, now)

    start = time.perf_counter()
    interrupts.hold()
    try:
        outcome = execute(plan, tell)
    except KeyboardInterrupt:
        outcome = attrs.evolve(record.outcome(), interrupted=True)
    result = _evaluate(config, plan, outcome, time.perf_counter() - start)
    if outcome.interrupted or interrupts.noted:
        last = f"interrupted: {record.num_contributions} contributions had been made, {result.rounds} models"
        return attrs.evolve(result, status=STATUS_INTERRUPTED, last_line=last)
    return result


def _live() -> Execute:
    # Imported when it is needed: the actors and their loops are not, for reading a help text or refusing a setting.
    return cast("Execute", importlib.import_module("sim.swarms.live").execute)


def _evaluate(config: SwarmConfig, plan: SwarmPlan, outcome: Outcome, seconds: float) -> SwarmResult:
    source, form = plan.source, plan.form
    local = local_fits(source)
    moments = model_moments(source.schema, form, outcome.models)
    fit = fit_or_none(moments)
    baskets = {
        domain: fit_or_none(aggregate_moments(source.schema, form, aggregates, plan.aggregate_unit))
        for domain, aggregates in outcome.basket_aggregates.items()
    }
    predictors = _predictors(fit, baskets, local)
    status, last_line = _status(plan, outcome)
    protected = config.privacy != "none"
    return SwarmResult(
        seed=plan.chance.seed,
        clients=len(source.parties),
        baskets=len(source.domains),
        rounds=len(outcome.models),
        seconds=round(seconds, 3),
        relations=_relations(fit),
        basket_relations={domain: _relations(found) for domain, found in baskets.items()},
        pooled_relations=_relations(local.pooled),
        pooled_projected_relations=None if local.projected is None else _relations(local.projected),
        prediction=skills(source.schema, source.parties, predictors),
        basket_prediction={
            domain: skills(source.schema, (party for party in source.parties if party.domain == domain), predictors)
            for domain in source.domains
        },
        privacy=Privacy(
            mode=config.privacy,
            unit=config.unit,
            epsilon=config.epsilon if protected else 0.0,
            delta=config.delta if protected else 0.0,
            max_colluders=plan.settings.max_colluders,
            spent=outcome.spent,
            reproducible=protected and plan.entropy is not None,
        ),
        dropped=outcome.dropped,
        refused=(*(Reason(who, why) for who, why in source.left_out), *outcome.refused),
        version=scarcity.__version__,
        settings=_settings(config, plan),
        status=status,
        last_line=last_line,
        seats=tuple((party.id, party.domain) for party in source.parties),
        closings=outcome.closings,
        waits=outcome.waits,
        spendings=outcome.spendings,
        gossip=outcome.gossip,
        model=None if moments is None else ModelFile(moments, _provenance(config, plan, outcome)),
    )


def _provenance(config: SwarmConfig, plan: SwarmPlan, outcome: Outcome) -> Provenance:
    protected = config.privacy != "none"
    return Provenance(
        made_by=f"scarcity {scarcity.__version__}",
        note=plan.source.note[:MAX_TEXT],
        mode=config.privacy,
        unit=config.unit,
        rule=config.rule,
        epsilon=float(config.epsilon) if protected else 0.0,
        delta=float(config.delta) if protected else 0.0,
        clients=len(plan.source.parties),
        baskets=len(plan.source.domains),
        rounds=len(outcome.models),
        reproducible=protected and plan.entropy is not None,
    )


def _relations(fit: VarFit | None) -> tuple[Relation, ...]:
    return () if fit is None else tuple(relations_of(fit))


def _predictors(
    fit: VarFit | None, baskets: Mapping[str, VarFit | None], local: LocalFits
) -> dict[str, Callable[[Party], VarFit | None]]:
    return {
        "global": lambda _: fit,
        "basket": lambda party: baskets.get(party.domain),
        "alone": lambda party: local.alone[party.id],
        "pooled": lambda _: local.pooled,
    }


def _status(plan: SwarmPlan, outcome: Outcome) -> tuple[int, str]:
    """Return the exit status and, unless it is 0, the line that says why."""
    last = outcome.ends[-1] if outcome.ends else None
    if outcome.budget_spent and (last is None or not last.released):
        return STATUS_BUDGET_SPENT, f"budget spent: {len(outcome.models)} of {plan.rounds} rounds were released"
    if outcome.models:
        return STATUS_OK, ""
    members = dict.fromkeys(plan.source.domains, 0)
    for party in plan.source.parties:
        members[party.domain] += 1
    there = {domain: outcome.absences.get(domain, (count, 0))[0] for domain, count in members.items()}
    short = [
        f"{domain} {have} of {members[domain]}, {need} needed" for domain, (have, need) in outcome.absences.items()
    ]
    why = "; ".join(short) or (last.reason if last else "no round ended")
    line = f"nothing was released: {sum(there.values())} of {sum(members.values())} clients were there ({why})"
    return STATUS_NOTHING_RELEASED, line


def _settings(config: SwarmConfig, plan: SwarmPlan) -> tuple[str, ...]:
    lines = [
        plan.source.note,
        f"privacy {config.privacy}, rule {config.rule}, quorum {config.quorum:g}, seed {plan.chance.seed}",
    ]
    if plan.liars:
        lines.append(f"{len(plan.liars)} liars: {config.attack}")
    if config.drop or config.latency:
        lines.append(f"a client falls silent with probability {config.drop:g}; messages take {config.latency:g} s")
    if config.form == "mean" and not plan.source.schema.has_public_scales:
        lines.append("no public scales: a schema would let the vectors be clipped where they carry information")
    return tuple(lines)
