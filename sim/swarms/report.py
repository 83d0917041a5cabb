"""What a swarm found, for people and for programs.

`render` writes text of at most 80 columns that reads without colour; `to_json` writes one object with the keys of
`JSON_KEYS` and no others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from rich.console import Console
from rich.table import Table

from scarcity.engine import Relation
from scarcity.node.data.model_file import ModelFile
from scarcity.node.data.prediction import Skills
from sim.swarms.plan import Closing, GossipSeen, Reason, Spending, Spent, Waited

WIDTH: Final = 80
_MAX_NAMES: Final = 6  # of those with one reason; the JSON has all
_MAX_COLUMNS: Final = 4  # baskets side by side; more do not fit into 80 columns
STATUS_OK: Final = 0
STATUS_NOTHING_RELEASED: Final = 3
STATUS_BUDGET_SPENT: Final = 4
STATUS_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

JSON_KEYS: Final = (
    "seed",
    "clients",
    "baskets",
    "rounds",
    "seconds",
    "relations",
    "basket_relations",
    "pooled_relations",
    "prediction",
    "privacy",
    "dropped",
    "refused",
    "version",
)


@attrs.frozen
class Privacy:
    """What was promised and what was spent.

    Attributes:
        mode: trust mode.
        unit: whose presence is hidden.
        epsilon: budget of each ledger; 0 in mode none.
        delta: budget of each ledger; 0 in mode none.
        max_colluders: members of a basket whose help to others the promise survives (mode distributed).
        spent: charges, one a client and layer.
        reproducible: the noise follows from the seed and protects nobody.
    """

    mode: str
    unit: str
    epsilon: float
    delta: float
    max_colluders: int = 0
    spent: tuple[Spent, ...] = ()
    reproducible: bool = False

    @property
    def layers(self) -> dict[str, tuple[int, float]]:
        """Layer -> (clients charged, the highest epsilon among them)."""
        charged: dict[str, list[float]] = {}
        for charge in self.spent:
            charged.setdefault(charge.layer, []).append(charge.epsilon)
        return {layer: (len(epsilons), max(epsilons)) for layer, epsilons in sorted(charged.items())}


@attrs.frozen
class SwarmResult:
    """What came of a swarm.

    Attributes:
        seed: of the faults, and of the noise when that is reproducible.
        clients: how many.
        baskets: how many.
        rounds: how many made a model.
        seconds: wall time of the rounds, and of gossip until it had settled.
        relations: what the global model shows.
        basket_relations: domain -> what its own aggregates show; baskets without an aggregate are left out.
        pooled_relations: what a fit of all rows together shows.
        pooled_projected_relations: the same in the record-private form without noise; None without public scales.
        prediction: over the held-out days of all parties.
        basket_prediction: domain -> the same over its own parties.
        privacy: promised and spent.
        dropped: who was silent or absent.
        refused: who was turned away, declined, or was left out.
        version: of scarcity.
        settings: lines for people that say what was run.
        status: exit status.
        last_line: why the status is not 0; empty when it is.
        seats: (client, domain), sorted by client.
        closings: how each round ended for each basket.
        waits: who waited for whom.
        spendings: what ledgers held after each round.
        gossip: what gossip had brought at the end; None where it carries no releases.
        model: the global model of all rounds, to be kept in a file; None without a model.
    """

    seed: int
    clients: int
    baskets: int
    rounds: int
    seconds: float
    relations: tuple[Relation, ...]
    basket_relations: Mapping[str, tuple[Relation, ...]]
    pooled_relations: tuple[Relation, ...]
    pooled_projected_relations: tuple[Relation, ...] | None
    prediction: Skills
    basket_prediction: Mapping[str, Skills]
    privacy: Privacy
    dropped: tuple[Reason, ...]
    refused: tuple[Reason, ...]
    version: str
    settings: tuple[str, ...]
    status: int = STATUS_OK
    last_line: str = ""
    seats: tuple[tuple[str, str], ...] = ()
    closings: tuple[Closing, ...] = ()
    waits: tuple[Waited, ...] = ()
    spendings: tuple[Spending, ...] = ()
    gossip: GossipSeen | None = None
    model: ModelFile | None = None


def to_json(result: SwarmResult) -> str:
    """Return one JSON object with exactly `JSON_KEYS`.

    A relation is {kind, sources, targets, lag, effect, se, p}. `prediction` is {median: {predictor: skill}, variables:
    {variable: {predictor: skill}}, baskets: {domain: {predictor: skill}}} with the predictors global, basket (a party's
    own basket), alone, pooled, and persistence, which is 0 by definition. `privacy` is {mode, unit, epsilon, delta,
    max_colluders, reproducible, layers: {layer: {clients, epsilon}}}. `dropped` and `refused` are lists of {who,
    reason}.
    """
    values: dict[str, Any] = {name: getattr(result, name) for name in JSON_KEYS}
    values["relations"] = _plain(result.relations)
    values["basket_relations"] = {name: _plain(found) for name, found in result.basket_relations.items()}
    values["pooled_relations"] = _plain(result.pooled_relations)
    values["prediction"] = {
        "median": _medians(result.prediction),
        "variables": {
            variable: {who: skill[i] for who, skill in result.prediction.per_variable.items()} | {"persistence": 0.0}
            for i, variable in enumerate(result.prediction.variables)
        },
        "baskets": {name: _medians(skill) for name, skill in result.basket_prediction.items()},
    }
    values["privacy"] = attrs.asdict(result.privacy, filter=lambda field, _: field.name != "spent") | {
        "layers": {name: {"clients": n, "epsilon": e} for name, (n, e) in result.privacy.layers.items()}
    }
    values["dropped"] = [attrs.asdict(reason) for reason in result.dropped]
    values["refused"] = [attrs.asdict(reason) for reason in result.refused]
    return json.dumps(values, indent=1, allow_nan=False)


def _plain(relations: Iterable[Relation]) -> list[dict[str, Any]]:
    return [attrs.asdict(relation) for relation in relations]


def _medians(skills: Skills) -> dict[str, float | None]:
    return {who: skills.median(who) for who in skills.per_variable} | {"persistence": 0.0}


def render(result: SwarmResult, *, colour: bool = False) -> str:
    """Return the report, at most `WIDTH` columns wide."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=WIDTH,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds} rounds"
    console.print(
        f"scarcity {result.version}: {result.clients} clients in {result.baskets} baskets, "
        f"{rounds} with a model, {result.seconds:.1f} s",
        style="bold",
    )
    for line in result.settings:
        console.print(line)
    if result.relations:
        own = len(result.relations) - len(_cross(result.relations))
        console.print(f"\nRelations of the global model (and {own} of a variable's own past)", style="bold")
        console.print(_relations_table(result))
        console.print("effect: deviations per deviation; pooled: the fit of all rows; in: baskets that")
        console.print("show it too")
    if result.rounds:
        console.print("\nLinks found, beside fits of the pooled rows", style="bold")
        console.print(_found_table(result))
        if result.pooled_projected_relations is not None:
            console.print("projected: pooled rows in the record-private form, without noise")
    if result.prediction.per_variable:
        console.print("\nPrediction of held-out rows: skill over persistence, median variable", style="bold")
        console.print(_prediction_table(result))
    if result.gossip is not None:
        console.print(f"\n{_gossip_line(result.gossip)}")
    _print_privacy(console, result)
    _print_reasons(console, "Dropped", result.dropped)
    _print_reasons(console, "Refused", result.refused)
    if result.last_line:
        console.print(result.last_line, style="bold red", soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(
            heading, justify="left" if i == 0 or heading == "in" else "right", overflow="fold", header_style="underline"
        )
    return table


def _cross(relations: Iterable[Relation]) -> dict[tuple[object, ...], Relation]:
    """Return the links between different variables by key; own lags are hardly news."""
    return {relation.key: relation for relation in relations if relation.kind != "persistent"}


def _signed(links: Mapping[Any, Relation]) -> set[tuple[Any, bool]]:
    """Return links with their signs: one that is found with the wrong sign is not found."""
    return {(key, relation.effect > 0) for key, relation in links.items()}


def _name(relation: Relation) -> str:
    return f"{', '.join(relation.sources)} -> {', '.join(relation.targets)}, lag {relation.lag}"


def _relations_table(result: SwarmResult) -> Table:
    """Global relations, strongest first, with the baskets that show them too and the pooled effect beside them."""
    pooled = _cross(result.pooled_relations)
    baskets = {name: _cross(found) for name, found in result.basket_relations.items()}
    table = _table("link", "effect", "se", "pooled", "in")
    for relation in sorted(_cross(result.relations).values(), key=lambda found: (-abs(found.effect), found.key)):
        beside = pooled.get(relation.key)
        there = [name for name, found in baskets.items() if relation.key in found]
        table.add_row(
            _name(relation),
            f"{relation.effect:+.3f}",
            f"{relation.se:.3f}",
            f"{beside.effect:+.3f}" if beside else "-",
            " ".join(there) if len(baskets) <= _MAX_COLUMNS else f"{len(there)} of {len(baskets)}",
        )
    return table


def _found_table(result: SwarmResult) -> Table:
    """How many of the pooled fit's links each model found, and how many others."""
    pooled = _cross(result.pooled_relations)
    projected = None if result.pooled_projected_relations is None else _cross(result.pooled_projected_relations)
    table = _table("model", "links", "of pooled", "others", "of projected")
    rows = [("global", result.relations), *((f"basket {n}", r) for n, r in result.basket_relations.items())]
    if result.pooled_projected_relations is not None:
        rows.append(("pooled, projected", result.pooled_projected_relations))
    rows.append(("pooled", result.pooled_relations))
    for name, relations in rows:
        found = _cross(relations)
        shared = len(_signed(found) & _signed(pooled))
        table.add_row(
            name,
            str(len(found)),
            f"{shared} of {len(pooled)}",
            str(len(found) - shared),
            "-" if projected is None else f"{len(_signed(found) & _signed(projected))} of {len(projected)}",
        )
    return table


_PREDICTORS: Final = (
    ("global", "global model"),
    ("basket", "each party's basket"),
    ("alone", "each party alone"),
    ("pooled", "pooled rows"),
    ("persistence", "persistence"),
)


def _prediction_table(result: SwarmResult) -> Table:
    """Skill in the median variable: over all parties, and over each basket's own."""
    overall = _medians(result.prediction)
    baskets = {name: _medians(skills) for name, skills in result.basket_prediction.items()}
    shown = list(baskets) if len(baskets) <= _MAX_COLUMNS else []
    table = _table("model", "all", *shown)
    for key, name in _PREDICTORS:
        if key in overall:
            table.add_row(name, _skill(overall[key]), *(_skill(baskets[basket].get(key)) for basket in shown))
    return table


def _skill(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _gossip_line(gossip: GossipSeen) -> str:
    kind = "view" if gossip.rule == "average" else "robust view"
    near = "" if gossip.agreement is None else f", at a median cosine of {gossip.agreement:.3f} to its aggregate"
    return f"Gossip: {gossip.with_view} of {gossip.clients} clients have a {kind} of their basket by gossip alone{near}"


def _print_privacy(console: Console, result: SwarmResult) -> None:
    privacy = result.privacy
    console.print("\nPrivacy", style="bold")
    if privacy.mode == "none":
        console.print("mode none: nothing is protected; for comparison only")
        return
    console.print(
        f"mode {privacy.mode}, unit {privacy.unit}, budget of each client: "
        f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}"
    )
    if privacy.mode == "distributed":
        members = "member" if privacy.max_colluders == 1 else "members"
        console.print(f"it holds while at most {privacy.max_colluders} {members} of a basket tell others their noise")
    for layer, (clients, epsilon) in privacy.layers.items():
        console.print(f"{layer}: {clients} clients charged, epsilon {epsilon:.3f} at most")
    if not privacy.spent:
        console.print("nothing was charged")
    if privacy.reproducible:
        console.print("noise reproducible: not private", style="bold red")


def _print_reasons(console: Console, title: str, reasons: Sequence[Reason]) -> None:
    """Print the names by reason; the JSON has all of them."""
    if not reasons:
        return
    console.print(f"\n{title}", style="bold")
    by_reason: dict[str, list[str]] = {}
    for reason in reasons:
        by_reason.setdefault(reason.reason, []).append(reason.who)
    for why, names in by_reason.items():
        known = [name for name in names if name]  # of a sum that failed, nobody may be to blame
        more = f" and {len(known) - _MAX_NAMES} more" if len(known) > _MAX_NAMES else ""
        console.print(f"{why}: {', '.join(known[:_MAX_NAMES])}{more}" if known else why)
