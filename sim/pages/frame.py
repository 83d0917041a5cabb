"""The frame of a page, and the pieces that all pages share. Every text is escaped here, whoever wrote it.

The page's policy forbids scripts and loads, whatever a client, a column or a plan is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Final

import attrs

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@attrs.frozen
class Table:
    """Figures; every cell is plain text."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@attrs.frozen
class Fact:
    """What is to be known first: a name, a figure, and more about it."""

    name: str
    value: str
    more: str = ""


def style() -> str:
    """Return the style sheet of every page."""
    return files("sim.pages").joinpath("page.css").read_text(encoding="utf-8")


def document(title: str, style_sheet: str, body: str) -> str:
    """Return an HTML document.

    Args:
        title: plain text.
        style_sheet: CSS.
        body: HTML, with every text in it escaped.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style_sheet}</style>\n</head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )


def facts(known: Iterable[Fact]) -> str:
    """Return what is to be known first as a list."""
    items = "".join(
        f"<div><dt>{escape(fact.name)}</dt><dd>{escape(fact.value)}<small>{escape(fact.more)}</small></dd></div>\n"
        for fact in known
    )
    return f"<dl>\n{items}</dl>\n"


def as_table(table: Table) -> str:
    """Return a table that scrolls inside of a box of its own where it is too large."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    empty = f'<tr><td colspan="{len(table.headings)}">nothing</td></tr>\n'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows or empty}</tbody>"
        "</table></div>\n"
    )
