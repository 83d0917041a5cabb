"""`scarcity privacy`: what a budget buys. Options in, a table out; figures are of `scarcity.federation.planning`."""

from __future__ import annotations

import functools
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click
from rich.console import Console
from rich.table import Table

from scarcity.engine import OnlineDiscoveryEngine, Schema
from scarcity.engine.power import Power, mean_norm, power_of, usable_rows
from scarcity.engine.schema_file import read_schema
from scarcity.engine.vector import Form
from scarcity.errors import ConfigError
from scarcity.federation.client_agent import FederationClientAgent
from scarcity.federation.packets import RoundSettings, Unit
from scarcity.federation.planning import MODES, ModePlan, NoPlan, Question, cautions, plan_mode, plan_modes
from scarcity.federation.privacy_guard import Layout

WIDTH: Final = 100
_DEFAULTS: Final = RoundSettings()
_FORMS: Final[dict[Unit, Form]] = {Unit.RECORD: "differenced", Unit.CLIENT: "mean"}


@click.group()
def privacy() -> None:
    """Plan a privacy budget before any of it is spent."""


@privacy.command()
@click.option("--clients", type=int, required=True, metavar="N", help="Clients in all.")
@click.option("--baskets", type=int, default=1, show_default=True, help="Domains that they are spread over evenly.")
@click.option("--dimension", type=int, metavar="D", help="Numbers in a contribution: plain arrays of unit client.")
@click.option(
    "--schema",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML or JSON: variables with name, kind, unit, scale; lags; horizon. Instead of --dimension.",
)
@click.option("--rows", type=int, metavar="R", help="Rows of each client (with --schema).")
@click.option("--epsilon", type=float, default=1.0, show_default=True, help="Budget of each client.")
@click.option("--delta", type=float, default=1e-6, show_default=True, help="Budget of each client.")
@click.option("--rounds", type=int, default=1, show_default=True, help="Releases that the budget has to last for.")
@click.option("--unit", help="record or client: what the budget hides. Default: record where scales allow it.")
@click.option("--mode", help=f"One of {', '.join(MODES)}. Default: all of them, side by side.")
@click.option(
    "--quorum",
    type=float,
    default=_DEFAULTS.quorum,
    show_default=True,
    help="Share of a basket that must be there; it sizes the shares of noise.",
)
@click.option("--max-colluders", type=int, default=0, show_default=True, help="Members who may tell their noise.")
@click.option("--clip-norm", type=float, help="Bound of a client's vector (unit client). Default: 1, or by the schema.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plan(context: click.Context, /, *, mode: str | None, as_json: bool, **options: Any) -> None:
    """Show what a budget buys: noise, error and what could be found, in each trust mode.

    The figures are those of the round itself, with everybody there and a plain mean; nothing is drawn, charged or sent.
    Where the answer is "nothing", the plan says so and what would help.

    Status: 0 done, 2 wrong use.
    """
    question, layout, find = _asked(**options)
    plans = [plan_mode(question, mode, layout, find)] if mode else plan_modes(question, layout, find)
    if as_json:
        click.echo(to_json(question, plans))
    else:
        click.echo(render(question, plans, colour=sys.stdout.isatty()), nl=False)
    context.exit(0)


def _asked(
    *,
    schema: Path | None,
    rows: int | None,
    unit: str | None,
    clip_norm: float | None,
    dimension: int | None,
    **rest: Any,
) -> tuple[Question, Layout | None, Callable[[float], Power] | None]:
    """Return the question, and what a schema adds to it."""
    if unit not in (None, "record", "client"):
        raise ConfigError(f"unit must be one of record, client, got {unit!r}")
    if (schema is None) is (dimension is None):
        raise ConfigError("give either --dimension D or --schema FILE: it says how many numbers are released")
    if schema is None:
        if unit == "record" or rows is not None:
            raise ConfigError(
                "unit record and --rows need --schema FILE, whose public scales say what a row can change"
            )
        return Question(dimension=_given(dimension), clip_norm=_or(clip_norm, _DEFAULTS.clip_norm), **rest), None, None
    if rows is None:
        raise ConfigError("--schema needs --rows R, the rows of each client: they decide what can be found")
    read = read_schema(schema)
    chosen = Unit(unit or ("record" if read.has_public_scales else "client"))
    return _asked_of_schema(read, chosen, rows, clip_norm, rest)


def _asked_of_schema(
    schema: Schema, unit: Unit, rows: int, clip_norm: float | None, rest: dict[str, Any]
) -> tuple[Question, Layout, Callable[[float], Power]]:
    form = _FORMS[unit]
    if unit is Unit.RECORD and clip_norm is not None:
        raise ConfigError("--clip-norm is for unit client: a row is bounded by the schema's clip_factor")
    if not 1 <= rows <= _DEFAULTS.max_rows:
        raise ConfigError(f"rows must lie in 1..{_DEFAULTS.max_rows}, what one client may bring to a round, got {rows}")
    layout = FederationClientAgent(OnlineDiscoveryEngine(schema), "plan", form).layout
    assert layout is not None, "an engine with a schema has a layout"
    weight = usable_rows(schema, form, rows)
    if weight == 0:
        raise ConfigError(
            f"{rows} rows form no product with {schema.lags} lags and horizon {schema.horizon}: take more"
        )
    norm = _or(clip_norm, mean_norm(schema) if form == "mean" else _DEFAULTS.clip_norm)
    question = Question(dimension=layout.dimension, weight=weight, unit=unit, clip_norm=norm, **rest)
    find = functools.partial(_power, schema, form, question)
    return question, layout, find


def _power(schema: Schema, form: Form, question: Question, noise_std: float) -> Power:
    weight, clients = question.clients * question.weight, question.clients
    return power_of(schema, form, weight=weight, parties=clients, noise_std=noise_std, clip_norm=question.clip_norm)


def _given(value: int | None) -> int:
    assert value is not None, "checked by the caller"
    return value


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def to_json(question: Question, plans: Sequence[ModePlan | NoPlan]) -> str:
    """Return question and plans as JSON; what is infinite is null."""
    asked = {**attrs.asdict(question), "unit": question.unit.value}
    said = {"question": asked, "modes": [_finite(attrs.asdict(each)) for each in plans], "cautions": cautions(question)}
    return json.dumps(said, indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(question: Question, plans: Sequence[ModePlan | NoPlan], *, colour: bool = False) -> str:
    """Return the plan as text, at most `WIDTH` columns wide."""
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
    record = question.unit is Unit.RECORD
    console.print(
        f"clients: {question.clients} in {question.baskets} basket{'s' * (question.baskets > 1)}, "
        f"{question.dimension} numbers each" + (f" of {question.weight} usable rows" if record else "")
    )
    console.print(
        f"budget of each client: epsilon {question.epsilon:g}, delta {question.delta:g}, unit {question.unit.value}, "
        + ("each row released once" if record else f"for {question.rounds} release{'s' * (question.rounds > 1)}")
    )
    console.print()
    console.print(_table([each for each in plans if isinstance(each, ModePlan)], record=record))
    console.print()
    console.print(_legend(record=record, fitted=any(getattr(each, "found", None) for each in plans)), style="dim")
    for each in plans:
        if isinstance(each, NoPlan):
            console.print(f"{each.mode}: not possible. {each.reason}")
        elif each.nothing:
            console.print(f"{each.mode}: {each.nothing}", style="bold red")
    for caution in cautions(question):
        console.print(f"caution: {caution}", style="yellow")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _table(plans: Sequence[ModePlan], *, record: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    fitted = any(each.found for each in plans)
    headings = ["mode", "noise from", "client's sigma", "sd of mean", "error"]
    headings += ["se of link", "smallest link"] if fitted else []
    headings += ["per row" if record else "releases"]
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < 2 else "right", header_style="underline")
    for each in plans:
        cells = [each.mode, each.noised_by, *(f"{v:.3g}" for v in (each.client_sigma, each.noise_sd, each.error))]
        if each.found is not None:
            cells += [_effect(each.found.se), _effect(each.found.smallest_effect)]
        table.add_row(*cells, str(each.releases))
    return table


def _effect(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "none"


def _legend(*, record: bool, fitted: bool) -> str:
    bound = "the largest square of a row" if record else "the clip norm"
    text = f"sigma, sd and error (L2, all numbers together) in units of {bound}"
    if record:
        text += "; per row: releases that a row can be in"
    if fitted:
        text += "; links in deviations per deviation, smallest: likelier found than not, for variables without memory"
    return text + "."
