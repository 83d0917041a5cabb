"""Options that several subcommands share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from scarcity.node.data.source import TableColumns
from scarcity.node.files import require_writable, write_whole


class _Seconds(click.FloatRange):
    """A finite number of seconds."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


FILE: Final = click.Path(dir_okay=False, path_type=Path)
# The float's range leaves out what no clock reaches; a NaN is in every range, as no comparison with it holds.
SECONDS: Final = _Seconds(min=0, max=1e9)
_F = TypeVar("_F", bound=Callable[..., None])


def column_options(function: _F) -> _F:
    """Add --party, --domain and --time."""
    named = {
        "--time": "Column of ISO dates or whole numbers. Default: rows in order.",
        "--domain": "Column of domains, the baskets. Default: one domain.",
        "--party": "Column of party ids. Default: the file is one party's.",
    }
    for name, meaning in named.items():
        function = click.option(name, default="", metavar="COL", help=meaning)(function)
    return function


def json_option(function: _F) -> _F:
    """Add --json."""
    option = click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write JSON; - for stdout.")
    return option(function)


def columns_of(party: str, domain: str, time: str, variables: str | None = None) -> TableColumns:
    """Return the roles of the columns."""
    names = tuple(name.strip() for name in (variables or "").split(",") if name.strip())
    return TableColumns(party, domain, time, names)


def require_json_file(json_file: Path | None) -> None:
    """Refuse a JSON file that could not be written."""
    if json_file is not None and str(json_file) != "-":
        require_writable(json_file, "--json")


def show(text: str, json_text: str, json_file: Path | None) -> None:
    """Print the text, and the JSON where it was asked for: alone on stdout for -, the text on stderr then."""
    to_stdout = json_file is not None and str(json_file) == "-"
    if to_stdout:
        sys.stdout.write(f"{json_text}\n")
    elif json_file is not None:
        write_whole(json_file, f"{json_text}\n".encode(), "--json")
    click.echo(text, nl=False, err=to_stdout)
