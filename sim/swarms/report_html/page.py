"""The page: a head that says what was run and what it came to, six pictures, a table behind each.

One file, no script, nothing fetched: its policy forbids both, whatever a client or a column is called. Every text of a
user passes `html.escape` here, or the SVG writer's own in `chart`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Final

from sim.swarms.report import SwarmResult
from sim.swarms.report_html.budget import budget
from sim.swarms.report_html.chart import Picture, Table
from sim.swarms.report_html.effects import effects
from sim.swarms.report_html.graph import graph
from sim.swarms.report_html.hierarchy import hierarchy
from sim.swarms.report_html.skill import skill
from sim.swarms.report_html.timeline import timeline

_PICTURES: Final = (hierarchy, graph, effects, skill, budget, timeline)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(result: SwarmResult) -> str:
    """Return the report as one HTML document."""
    pictures = [picture(result) for picture in _PICTURES]
    style = files("sim.swarms.report_html").joinpath("page.css").read_text(encoding="utf-8")
    title = f"Report of a swarm of {result.clients} clients"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f"{_head(result, title)}{_contents(pictures)}<main>\n"
        + "".join(_section(picture) for picture in pictures)
        + f'</main>\n<footer><p class="soft">scarcity {escape(result.version)}, seed {result.seed}. '
        "A lagged link is predictive given the measured variables; it is not a cause.</p></footer>\n</body>\n</html>\n"
    )


def _head(result: SwarmResult, title: str) -> str:
    verdict = f'<p class="verdict">{escape(result.last_line)}</p>\n' if result.last_line else ""
    if result.privacy.reproducible:
        verdict += '<p class="verdict">The noise is reproducible from the seed: this run was not private.</p>\n'
    settings = "".join(f'<p class="soft">{escape(line)}</p>\n' for line in result.settings)
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>\n"
        for name, value, more in _facts(result)
    )
    return f"<header>\n<h1>{escape(title)}</h1>\n{verdict}{settings}<dl>\n{facts}</dl>\n</header>\n"


def _facts(result: SwarmResult) -> list[tuple[str, str, str]]:
    """Return what is to be known first: (name, figure, more)."""
    links = {(r.key, r.effect > 0) for r in result.relations if r.kind != "persistent"}
    pooled = {(r.key, r.effect > 0) for r in result.pooled_relations if r.kind != "persistent"}
    skills = {who: result.prediction.median(who) for who in ("global", "alone")}
    privacy = result.privacy
    spent = max((charge.epsilon for charge in privacy.spent), default=0.0)
    promise = "nothing is protected" if privacy.mode == "none" else f"{spent:.3g} of epsilon {privacy.epsilon:g} spent"
    return [
        ("Clients", str(result.clients), f"in {result.baskets} baskets"),
        ("Models", str(result.rounds), f"{result.seconds:.1f} s in all"),
        ("Links", str(len(links)), f"{len(links & pooled)} of the {len(pooled)} that pooling shows"),
        ("Skill", _figure(skills["global"]), f"each party alone {_figure(skills['alone'])}"),
        ("Privacy", privacy.mode, f"unit {privacy.unit}; {promise}"),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _contents(pictures: Sequence[Picture]) -> str:
    items = "".join(f'<li><a href="#{p.key}">{escape(p.title)}</a></li>' for p in pictures)
    return f'<nav aria-label="Pictures"><ul>{items}</ul></nav>\n'


def _section(picture: Picture) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in picture.notes)
    noted = f'<ul class="notes">{notes}</ul>\n' if notes else ""
    tall = ' class="tall"' if picture.tall else ""
    tables = "".join(_table(table) for table in picture.tables)
    return (
        f'<section id="{picture.key}"{tall}>\n<h2>{escape(picture.title)}</h2>\n'
        f'<p class="lead">{escape(picture.lead)}</p>\n'
        f"<figure>{picture.svg}</figure>\n{noted}"
        f"<details><summary>The figures as a table</summary>\n{tables}</details>\n</section>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    empty = f'<tr><td colspan="{len(table.headings)}">nothing</td></tr>\n'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows or empty}</tbody>"
        "</table></div>\n"
    )
