"""`scarcity schema`: schemas of tables."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from scarcity.cli.options import FILE, column_options, columns_of
from scarcity.node.data.schema_inference import WARNING, infer_schema, schema_text
from scarcity.node.files import require_writable, write_whole


@click.group()
def schema() -> None:
    """Say what is measured: variables, units, public scales."""


@schema.command()
@click.argument("file", type=FILE)
@column_options
@click.option("--variables", metavar="A,B,C", help="Columns to describe. Default: all others.")
@click.option("--out", type=FILE, metavar="FILE", help="Write the schema there, as TOML. Default: stdout.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def infer(
    *, file: Path, party: str, domain: str, time: str, variables: str | None, out: Path | None, force: bool
) -> None:
    """Write a schema for tables like FILE, a PUBLIC or reference CSV or Parquet file.

    Kinds, scales, centres, bounds, lags and horizon are rounded robust guesses; units are left for you to fill in.
    Never use the private data: everything in a schema is published, and what it says of them no budget covers.
    """
    if out is not None:
        require_writable(out, "--out", replace=force)
    inferred = infer_schema(file, columns_of(party, domain, time, variables))
    text = schema_text(inferred, file.name)
    click.echo(textwrap.fill(WARNING, 80), err=True)
    if out is None:
        click.echo(text, nl=False)
        return
    write_whole(out, text.encode(), "--out")
    click.echo(
        f"wrote {out}: {inferred.num_variables} variables, lags {inferred.lags}, horizon {inferred.horizon}; "
        "check it and fill in the units"
    )
