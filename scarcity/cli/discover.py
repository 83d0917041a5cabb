"""`scarcity discover`: what one party's own rows show."""

from __future__ import annotations

from pathlib import Path

import click

from scarcity.cli.options import FILE, column_options, columns_of, json_option, require_json_file, show
from scarcity.engine.schema_file import read_schema
from scarcity.node.data.alone import discover_alone, discovery_json, discovery_text


@click.command()
@click.argument("file", type=FILE)
@column_options
@click.option("--who", metavar="ID", help="One party of the file. Default: each of them, alone.")
@click.option("--variables", metavar="A,B,C", help="Columns to learn from. Default: the schema's, or all others.")
@click.option("--schema", "schema_file", type=FILE, help="TOML or JSON file with variables and lags.")
@click.option("--lags", type=int, metavar="N", help="Rows back that a cause may lie. Default: the schema's, or 3.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="False discovery rate.")
@click.option("--min-effect", type=float, default=0.02, show_default=True, help="Smallest effect of interest.")
@json_option
def discover(
    *,
    file: Path,
    party: str,
    domain: str,
    time: str,
    who: str | None,
    variables: str | None,
    schema_file: Path | None,
    lags: int | None,
    alpha: float,
    min_effect: float,
    json_file: Path | None,
) -> None:
    """Find what drives what in FILE (CSV or Parquet), each party alone: relations with standard errors.

    Nothing is federated, nothing is noised and nothing leaves this machine: it is what a party can know without others.
    """
    require_json_file(json_file)
    found = discover_alone(
        file,
        columns_of(party, domain, time, variables),
        read_schema(schema_file) if schema_file else None,
        who=who,
        lags=lags,
        alpha=alpha,
        min_effect=min_effect,
    )
    show(discovery_text(found), discovery_json(found), json_file)
