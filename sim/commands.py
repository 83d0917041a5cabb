"""`scarcity swarm`: options in, report out. What is decided here is only what is printed where."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from scarcity.errors import ConfigError
from scarcity.federation.effects import (
    BasketAbsent,
    BasketClosed,
    ContributionMade,
    ModelMade,
    RoundAborted,
    RoundDeclined,
    Waiting,
)
from scarcity.node.data.model_file import write_model
from scarcity.node.data.source import TableColumns
from scarcity.node.files import require_writable, write_whole
from sim.faults.attacks import ATTACKS
from sim.interrupts import Interrupts
from sim.swarms.plan import Observer, Said
from sim.swarms.report import STATUS_INTERRUPTED, SwarmResult, render, to_json
from sim.swarms.report_file import require_report, write_report
from sim.swarms.swarm import SwarmConfig, run_swarm

_QUIET_S: Final = 2.0  # between two lines about one party's waiting
_EVERY: Final = 50  # contributions between two lines that count them
_FILE = click.Path(dir_okay=False, path_type=Path)
_F = TypeVar("_F", bound=Callable[..., None])


def _options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def apply(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


_data_options = _options(
    click.option(
        "--data",
        type=_FILE,
        help="CSV or Parquet file: a row a party and time. Default: the flights of the extra [demo].",
    ),
    click.option("--party", metavar="COL", help="Column of party ids (with --data)."),
    click.option("--domain", metavar="COL", help="Column of domains, the baskets (with --data)."),
    click.option("--time", metavar="COL", help="Column of ISO dates or whole numbers (with --data)."),
    click.option("--variables", metavar="A,B,C", help="Columns to learn from. Default: the schema's, or all others."),
    click.option("--schema", type=_FILE, help="TOML or JSON: variables with name, kind, unit, scale; lags; horizon."),
    click.option("--synthetic", type=int, metavar="N", help="N parties in three domains with known links instead."),
)
_privacy_options = _options(
    click.option(
        "--privacy",
        type=click.Choice(["none", "local", "distributed", "central"]),
        default="distributed",
        show_default=True,
        help="Trust mode: who may see a client's own statistics. none protects nothing.",
    ),
    click.option("--epsilon", type=float, default=1.0, show_default=True, help="Budget of each client."),
    click.option("--delta", type=float, default=1e-6, show_default=True, help="Budget of each client."),
    click.option(
        "--unit",
        type=click.Choice(["record", "client"]),
        default="record",
        show_default=True,
        help="What the budget hides: one row of a client, or all of it.",
    ),
)
_round_options = _options(
    click.option(
        "--aggregator", metavar="RULE", help="Rule inside a basket. Default: nnm+trmean in local, else average."
    ),
    click.option("--rounds", type=int, default=1, show_default=True, help="Increments that the rows are split into."),
    click.option("--quorum", type=float, default=0.7, show_default=True, help="Share of a basket that must be there."),
)
_fault_options = _options(
    click.option("--drop", type=float, default=0.0, metavar="P", help="A client falls silent with probability P."),
    click.option("--latency", type=float, default=0.0, metavar="S", help="Seconds that every message takes."),
    click.option("--liars", type=float, default=0.0, metavar="P", help="Share of every basket that lies."),
    click.option(
        "--attack", default="sign-flip", show_default=True, help=f"How they lie. Known: {', '.join(sorted(ATTACKS))}."
    ),
)
_run_options = _options(
    click.option("--seed", type=int, help="Makes all of it reproducible, the noise too: NOT private."),
    click.option(
        "--backend",
        type=click.Choice(["asyncio", "trio"]),
        default="asyncio",
        show_default=True,
        help="Event loop; the result is the same.",
    ),
    click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the result as JSON; - for stdout."),
    click.option(
        "--report", "report_file", type=_FILE, metavar="FILE.html", help="Write a page with pictures; needs [report]."
    ),
    click.option("--model", "model_file", type=_FILE, help="Write the global model, for `scarcity predict`."),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
)


@click.command()
@_data_options
@_privacy_options
@_round_options
@_fault_options
@_run_options
@click.pass_context
def swarm(
    context: click.Context,
    /,
    *,
    party: str | None,
    domain: str | None,
    time: str | None,
    variables: str | None,
    json_file: Path | None,
    report_file: Path | None,
    model_file: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run a federation of many clients in this process, and show what they found out.

    Every party of the data is a client that shows nobody a row, every domain a basket. Without --data, airline routes
    out of New York find out what drives their delays. At the end: the relations found, beside the fit that pooling all
    rows would give; what was spent of the budget; who was dropped or refused, and why; how well held-out days are
    predicted.

    Status: 0 done, 1 failed, 2 wrong use, 3 nothing was released for want of clients, 4 budget spent, 130 interrupted.
    """
    if json_file is not None and str(json_file) != "-":
        require_writable(json_file, "--json")
    if model_file is not None:
        require_writable(model_file, "--model")
    if report_file is not None:
        require_report(report_file)
    columns = _columns(party, domain, time, variables)
    config = SwarmConfig.from_mapping({**settings, "columns": columns})
    observe = None if quiet else progress(lambda line: click.echo(line, err=True))
    with Interrupts() as interrupts:
        result = run_swarm(config, observe=observe, interrupts=interrupts)
        _show(result, json_file, report_file, model_file)
        status = result.status
        if interrupts.noted and status != STATUS_INTERRUPTED:
            status = STATUS_INTERRUPTED
            click.echo("interrupted: the run had ended, and all of it is written", err=str(json_file) == "-")
    context.exit(status)


def _show(result: SwarmResult, json_file: Path | None, report_file: Path | None, model_file: Path | None) -> None:
    """Write the files that were asked for, and the report for people where the JSON is not."""
    to_stdout = json_file is not None and str(json_file) == "-"
    if json_file is not None:
        _write(json_file, to_json(result), to_stdout=to_stdout)
    if model_file is not None and result.model is not None:
        write_model(result.model, model_file, "--model")
    said = [render(result, colour=sys.stdout.isatty() and not to_stdout)]
    if report_file is not None:
        write_report(report_file, result)
        # Why the status is not 0 is the last line, whatever else there is to say.
        said.insert(0 if result.last_line else 1, f"\nReport with pictures: {report_file}\n")
    click.echo("".join(said), nl=False, err=to_stdout)


def _columns(party: str | None, domain: str | None, time: str | None, variables: str | None) -> TableColumns | None:
    """Return the roles of the columns, None when no option speaks of columns."""
    given = {"party": party, "domain": domain, "time": time}
    if variables is None and not any(given.values()):
        return None
    if missing := [f"--{name}" for name, value in given.items() if not value]:
        raise ConfigError(f"--data needs {', '.join(missing)} as well")
    names = tuple(name.strip() for name in (variables or "").split(",") if name.strip())
    return TableColumns(party or "", domain or "", time or "", names)


def _write(path: Path, text: str, *, to_stdout: bool) -> None:
    if to_stdout:
        click.echo(text)
        return
    write_whole(path, f"{text}\n".encode(), "--json")


def progress(show: Callable[[str], None]) -> Observer:
    """Return an observer that shows one line for what matters, and who waits for whom when something takes long."""
    counts: dict[int, int] = {}
    shown: dict[tuple[str, str], float] = {}

    def tell(said: Said, now: float) -> None:
        line = _waiting_line(said, now, shown) if isinstance(said, Waiting) else _event_line(said, counts)
        if line:
            show(line)

    return tell


def _waiting_line(waiting: Waiting, now: float, shown: dict[tuple[str, str], float]) -> str:
    key = (waiting.who, waiting.what)
    if now - shown.get(key, -_QUIET_S) < _QUIET_S:
        return ""
    shown[key] = now
    return waiting.describe(now)


def _event_line(event: Said, counts: dict[int, int]) -> str:
    match event:
        case ContributionMade():
            counts[event.round_id] = count = counts.get(event.round_id, 0) + 1
            return f"round {event.round_id}: {count} contributions" if count % _EVERY == 0 else ""
        case RoundDeclined():
            return f"round {event.round_id}: {event.client_id} declined: {event.reason}"
        case BasketClosed():
            missing = f", {len(event.missing)} missing" if event.missing else ""
            return f"round {event.round_id}: {event.basket_id} has {len(event.members)} contributions{missing}"
        case BasketAbsent():
            return f"round {event.round_id}: {event.basket_id} absent ({event.have} of {event.need}): {event.reason}"
        case ModelMade():
            return f"round {event.model.round_id}: model of {event.model.count} clients, {len(event.baskets)} baskets"
        case RoundAborted():
            return f"round {event.round_id}: given up ({event.have} of {event.need} baskets): {event.reason}"
        case _:
            return ""
