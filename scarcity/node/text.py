"""Tables for people: text of at most 80 columns that reads without colour."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

WIDTH: Final = 80


def table_text(heading: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return a table; the first `text_columns` are flush left, the others hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(heading):
        table.add_column(
            name, justify="left" if index < text_columns else "right", overflow="fold", header_style="underline"
        )
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(
        file=out, width=WIDTH, color_system=None, highlight=False, emoji=False, markup=False, legacy_windows=False
    ).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
