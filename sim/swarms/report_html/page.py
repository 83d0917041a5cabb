"""The page: a head that says what was run and what it came to, six pictures, a table behind each.

One file, no script, nothing fetched: its policy forbids both, whatever a client or a column is called. Every text of a
user passes `html.escape` here or in `sim.pages`, or the SVG writer's own in `chart`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from sim.pages import Fact, as_table, document, facts, style
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.budget import budget
from sim.swarms.report_html.chart import Picture
from sim.swarms.report_html.effects import effects
from sim.swarms.report_html.graph import graph
from sim.swarms.report_html.hierarchy import hierarchy
from sim.swarms.report_html.skill import skill
from sim.swarms.report_html.timeline import timeline

_PICTURES: Final = (hierarchy, graph, effects, skill, budget, timeline)


def render_page(result: SwarmResult) -> str:
    """Return the report as one HTML document."""
    pictures = [picture(result) for picture in _PICTURES]
    title = f"Report of a swarm of {result.clients} clients"
    body = (
        f"{_head(result, title)}{_contents(pictures)}<main>\n"
        + "".join(_section(picture) for picture in pictures)
        + f'</main>\n<footer><p class="soft">scarcity {escape(result.version)}, seed {result.seed}. '
        "A lagged link is predictive given the measured variables; it is not a cause.</p></footer>\n"
    )
    return document(title, style(), body)


def _head(result: SwarmResult, title: str) -> str:
    verdict = f'<p class="verdict">{escape(result.last_line)}</p>\n' if result.last_line else ""
    if result.privacy.reproducible:
        verdict += '<p class="verdict">The noise is reproducible from the seed: this run was not private.</p>\n'
    settings = "".join(f'<p class="soft">{escape(line)}</p>\n' for line in result.settings)
    return f"<header>\n<h1>{escape(title)}</h1>\n{verdict}{settings}{facts(_facts(result))}</header>\n"


def _facts(result: SwarmResult) -> list[Fact]:
    """Return what is to be known first."""
    links = {(r.key, r.effect > 0) for r in result.relations if r.kind != "persistent"}
    pooled = {(r.key, r.effect > 0) for r in result.pooled_relations if r.kind != "persistent"}
    skills = {who: result.prediction.median(who) for who in ("global", "alone")}
    privacy = result.privacy
    spent = max((charge.epsilon for charge in privacy.spent), default=0.0)
    promise = "nothing is protected" if privacy.mode == "none" else f"{spent:.3g} of epsilon {privacy.epsilon:g} spent"
    return [
        Fact("Clients", str(result.clients), f"in {result.baskets} baskets"),
        Fact("Models", str(result.rounds), f"{result.seconds:.1f} s in all"),
        Fact("Links", str(len(links)), f"{len(links & pooled)} of the {len(pooled)} that pooling shows"),
        Fact("Skill", _figure(skills["global"]), f"each party alone {_figure(skills['alone'])}"),
        Fact("Privacy", privacy.mode, f"unit {privacy.unit}; {promise}"),
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
    tables = "".join(as_table(table) for table in picture.tables)
    return (
        f'<section id="{picture.key}"{tall}>\n<h2>{escape(picture.title)}</h2>\n'
        f'<p class="lead">{escape(picture.lead)}</p>\n'
        f"<figure>{picture.svg}</figure>\n{noted}"
        f"<details><summary>The figures as a table</summary>\n{tables}</details>\n</section>\n"
    )
