"""`scarcity predict`: what a federation's model says about a party's rows."""

from __future__ import annotations

from pathlib import Path

import click

from scarcity.cli.options import FILE, column_options, columns_of, json_option, require_json_file, show
from scarcity.engine.schema_file import read_schema
from scarcity.node.data import forecast


@click.command()
@click.argument("model", type=FILE)
@click.argument("file", type=FILE)
@column_options
@click.option("--who", metavar="ID", help="One party of the file. Default: all.")
@click.option("--schema", "schema_file", type=FILE, help="Refuse a model that was made under another schema.")
@click.option("--score", is_flag=True, help="Hold out the last third of the time and score the model on it.")
@json_option
def predict(
    *,
    model: Path,
    file: Path,
    party: str,
    domain: str,
    time: str,
    who: str | None,
    schema_file: Path | None,
    score: bool,
    json_file: Path | None,
) -> None:
    """Predict the next row of each party of FILE with MODEL.

    MODEL is a file of `scarcity swarm --model`, or `model` in a node's data folder. Each party is predicted around its
    own mean, which nobody else knows. With --score, held-out rows are predicted one step ahead instead, beside what
    each party alone would have made of its rows.
    """
    require_json_file(json_file)
    said = forecast.predict(
        model,
        file,
        columns_of(party, domain, time),
        read_schema(schema_file) if schema_file else None,
        who=who,
        score=score,
    )
    show(forecast.forecast_text(said), forecast.forecast_json(said), json_file)
