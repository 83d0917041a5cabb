"""`scarcity relations`: what a federation has found."""

from __future__ import annotations

from pathlib import Path

import click

from scarcity.cli.options import FILE, json_option, require_json_file, show
from scarcity.node.data.alone import discovery_json, discovery_text
from scarcity.node.data.relations import relations_in


@click.command()
@click.argument("model", type=FILE)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="False discovery rate.")
@click.option("--min-effect", type=float, default=0.02, show_default=True, help="Smallest effect of interest.")
@json_option
def relations(*, model: Path, alpha: float, min_effect: float, json_file: Path | None) -> None:
    """Show what MODEL holds: a file of `scarcity swarm --model`, or `model` in a node's data folder.

    Standard errors contain the sampling error and the noise that hides each record.
    """
    require_json_file(json_file)
    found = relations_in(model, alpha=alpha, min_effect=min_effect)
    show(discovery_text(found), discovery_json(found), json_file)
