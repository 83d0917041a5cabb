"""`scarcity init`: commented config files. Options in, TOML out; what is allowed is of `scarcity.node.setup.config`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import click

from scarcity.cli.keys import FOLDER
from scarcity.cli.options import FILE
from scarcity.errors import ConfigError
from scarcity.node.files import require_writable, write_whole
from scarcity.node.setup.config import read_federation_file
from scarcity.node.setup.config_text import beside, federation_text, node_text
from scarcity.node.setup.keys import REQUEST
from scarcity.node.setup.request import read_request


@click.group()
def init() -> None:
    """Write the two config files of a node, every key with a line that says what is allowed."""


@init.command()
@click.option("--name", required=True, metavar="ID", help="The federation's id, as on its roster.")
@click.option("--operator-key", required=True, metavar="HEX", help="The operator's public key, compared by telephone.")
@click.option("--schema", required=True, type=FILE, help="The schema's file.")
@click.option("--mode", default="distributed", show_default=True, help="local, distributed, central or none.")
@click.option("--unit", default="record", show_default=True, help="record or client: what the budget hides.")
@click.option("--epsilon", type=float, required=True, help="Budget of each client, for life.")
@click.option("--delta", type=float, required=True, help="Budget of each client, for life.")
@click.option("--rounds", type=int, required=True, metavar="N", help="Rounds that the coordinator opens.")
@click.option("--planned-rounds", type=int, metavar="N", help="Rounds the budget has to last for. Default: --rounds.")
@click.option("--interval-s", type=float, default=60.0, show_default=True, help="Pause between two rounds.")
@click.option(
    "--gather-s", type=float, default=30.0, show_default=True, help="Wait for baskets before the first round."
)
@click.option("--set", "more", multiple=True, metavar="KEY=VALUE", help="Another key of [settings], in TOML; repeat.")
@click.option("--out", required=True, type=FILE, metavar="FILE", help="File to write.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def federation(
    *,
    name: str,
    operator_key: str,
    schema: Path,
    mode: str,
    unit: str,
    epsilon: float,
    delta: float,
    rounds: int,
    planned_rounds: int | None,
    interval_s: float,
    gather_s: float,
    more: Sequence[str],
    out: Path,
    force: bool,
) -> None:
    """Write what all parties agree on: rules, budget, schema, and the operator's key.

    Every host has the same file; the digest that is printed says whether it has.

    Status: 0 done, 2 wrong use.
    """
    require_writable(out, "--out", replace=force)
    text = federation_text(
        out,
        {"federation": name, "operator_key": operator_key, "schema": beside(out.parent, schema)},
        {"epsilon": epsilon, "delta": delta, "planned_rounds": rounds if planned_rounds is None else planned_rounds},
        {"rounds": rounds, "interval_s": interval_s, "gather_s": gather_s},
        {"mode": mode, "unit": unit} | _settings(more),
    )
    write_whole(out, text.encode(), "--out")
    click.echo(f"wrote {out}: digest {read_federation_file(out).digest.hex()}")


def _settings(items: Sequence[str]) -> dict[str, object]:
    """Return settings given as `KEY=VALUE`; a value that is no TOML is a text."""
    found: dict[str, object] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not (key.strip() and sign):
            raise ConfigError(f"--set: expected KEY=VALUE, got {item[:60]!r}")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            found[key.strip()] = value.strip()
    return found


@init.command()
@click.argument("name")
@click.option("--keys", required=True, type=FOLDER, metavar="DIR", help="The host's folder of `keys node`.")
@click.option("--federation", required=True, type=FILE, help="federation.toml.")
@click.option("--roster", required=True, type=FILE, help="roster.json; it need not be there yet.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where the node listens.")
@click.option("--source", "sources", multiple=True, metavar="ID=CSV", help="Rows of a client; repeat. Default: ID.csv.")
@click.option("--time", default="date", show_default=True, metavar="COL", help="Column that orders the rows.")
@click.option("--data-dir", type=FOLDER, metavar="DIR", help="Folder of journal, outbox and model. Default: NAME-data.")
@click.option("--security", default="mtls", show_default=True, help="mtls, or plaintext on a loopback address.")
@click.option("--log-format", default="human", show_default=True, help="human or json.")
@click.option("--out", required=True, type=FILE, metavar="FILE", help="File to write.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def node(
    *,
    name: str,
    keys: Path,
    federation: Path,
    roster: Path,
    listen: str,
    sources: Sequence[str],
    time: str,
    data_dir: Path | None,
    security: str,
    log_format: str,
    out: Path,
    force: bool,
) -> None:
    """Write the config of host NAME: whom it hosts is read from the request in its folder of keys.

    Put the certificate there as node.pem, and authority.pem beside it. See to the sources and columns of its clients.

    Status: 0 done, 2 wrong use.
    """
    require_writable(out, "--out", replace=force)
    request = read_request(keys / REQUEST)
    if request.node != name:
        raise ConfigError(f"--keys {keys}: these are the keys of node {request.node!r}, not of {name!r}")
    here = out.parent
    top = {
        "federation": beside(here, federation),
        "roster": beside(here, roster),
        "listen": listen,
        "data_dir": f"{name}-data" if data_dir is None else beside(here, data_dir),
        "security": security,
        "log_format": log_format,
    }
    text = node_text(out, request, keys, top, sources=_sources(sources, here), time=time)
    write_whole(out, text.encode(), "--out")
    click.echo(f"wrote {out}: {', '.join(request.entry.members)}")


def _sources(items: Sequence[str], here: Path) -> dict[str, str]:
    found = {}
    for item in items:
        name, sign, path = item.partition("=")
        if not (name and sign and path):
            raise ConfigError(f"--source: expected ID=CSV, got {item[:60]!r}")
        found[name] = beside(here, Path(path))
    return found
