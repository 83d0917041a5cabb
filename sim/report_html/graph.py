"""What drives what: the links of the global model between variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from scarcity.engine import Relation
from sim.report import SwarmResult
from sim.report_html.chart import BLUE, GREY, INK, RED, WIDTH, Picture, Table, draw, fit_line, measure
from sim.report_html.links import by_strength, cross, name_of

_HEIGHT: Final = 380.0
_MAX_ARROWS: Final = 30
_MAX_LABELS: Final = 6
_SHORT: Final = 140.0
_MAX_VARIABLES: Final = 14


def graph(result: SwarmResult) -> Picture:
    """Return the picture of the global model's links."""
    links = by_strength(result.relations)
    arrows = _strongest_of_each_pair(links)[:_MAX_ARROWS]
    variables = _variables(result, arrows)
    title = "What drives what"
    svg = draw("graph", title, _alternative(links), _HEIGHT, lambda axes: _paint(axes, variables, arrows))
    lead = (
        "An arrow leads from a variable to one that follows it in time. Solid: more is followed by more; dashed: more "
        "is followed by less. The thicker, the stronger; the strongest carry their effect."
    )
    notes = [] if links else ["No link between two variables was found."]
    if len(arrows) < len(links):
        notes.append("Of several lags between the same two, the strongest is drawn; the table has all.")
    return Picture("graph", title, lead, svg, (_table(result, links),), tuple(notes))


def _strongest_of_each_pair(links: Sequence[Relation]) -> list[Relation]:
    pairs: dict[tuple[tuple[str, ...], tuple[str, ...]], Relation] = {}
    for link in links:
        pairs.setdefault((link.sources, link.targets), link)
    return list(pairs.values())


def _variables(result: SwarmResult, arrows: Sequence[Relation]) -> list[str]:
    """Return the variables that are drawn: all of them, or those with arrows where all would be too many."""
    names = result.prediction.variables
    if len(names) <= _MAX_VARIABLES:
        return list(names)
    linked = {name for link in arrows for name in (*link.sources, *link.targets)}
    return [name for name in names if name in linked]


def _paint(axes: Axes, variables: Sequence[str], arrows: Sequence[Relation]) -> None:
    centre_x, centre_y = WIDTH / 2, _HEIGHT / 2
    places: dict[str, tuple[float, float]] = {}
    boxes: dict[str, FancyBboxPatch] = {}
    for i, name in enumerate(variables):
        angle = 2 * math.pi * i / max(1, len(variables)) - math.pi / 2
        x, y = centre_x + 112 * math.cos(angle), centre_y + 160 * math.sin(angle)
        label = fit_line(name, 112, 11)
        width = measure(label, 11) + 10
        x = min(max(x, width / 2 + 6), WIDTH - width / 2 - 6)
        box = FancyBboxPatch(
            (x - width / 2, y - 11), width, 22, boxstyle="round,pad=2,rounding_size=6", facecolor="white",
            edgecolor=INK, linewidth=1.2, zorder=3,
        )  # fmt: skip
        places[name], boxes[name] = (x, y), box
        axes.add_patch(box)
        axes.text(x, y, label, ha="center", va="center", size=11, zorder=4)
    strongest = max((abs(link.effect) for link in arrows), default=1.0)
    for rank, link in reversed(list(enumerate(arrows))):
        for source in link.sources:
            for target in link.targets:
                if source in places and target in places:
                    _arrow(axes, places, boxes, source, target, link.effect, strongest, labelled=rank < _MAX_LABELS)


def _arrow(
    axes: Axes,
    places: Mapping[str, tuple[float, float]],
    boxes: Mapping[str, FancyBboxPatch],
    source: str,
    target: str,
    effect: float,
    strongest: float,
    *,
    labelled: bool,
) -> None:
    """Draw one arrow, bent to its right, so that an answer in the other direction lies beside it."""
    share = abs(effect) / strongest
    colour = BLUE if effect > 0 else RED
    axes.add_patch(
        FancyArrowPatch(
            places[source], places[target], patchA=boxes[source], patchB=boxes[target], shrinkA=1, shrinkB=1,
            connectionstyle="arc3,rad=0.14", arrowstyle="-|>", mutation_scale=8 + 6 * share,
            linewidth=0.6 + 3.2 * share, linestyle="-" if effect > 0 else (0, (3, 1.6)),
            color=colour, zorder=1 + share,
        )
    )  # fmt: skip
    if not labelled:
        return
    (x0, y0), (x1, y1) = places[source], places[target]
    # A quadratic curve passes half way to its control point, which stands 0.14 of the length aside. Between boxes that
    # are close together there is no room on the curve itself.
    length = math.hypot(x1 - x0, y1 - y0)
    aside = 0.07 + (14.0 / length if length < _SHORT else 0.0)
    x, y = (x0 + x1) / 2 - aside * (y1 - y0), (y0 + y1) / 2 + aside * (x1 - x0)
    axes.text(
        x, y, f"{effect:+.2f}".replace("-", "\u2212"), size=10, color=colour, ha="center", va="center", zorder=5,
        bbox={"facecolor": "white", "edgecolor": GREY, "linewidth": 0.4, "pad": 1.5},
    )  # fmt: skip


def _alternative(links: Sequence[Relation]) -> str:
    if not links:
        return "The variables, with no arrow between them: no link was found."
    told = "; ".join(f"{name_of(link)}, effect {link.effect:+.2f}" for link in links[:5])
    return f"A graph of variables with {len(links)} links between them. The strongest: {told}."


def _table(result: SwarmResult, links: Sequence[Relation]) -> Table:
    baskets = {name: cross(found) for name, found in result.basket_relations.items()}
    rows = [
        (
            ", ".join(link.sources),
            ", ".join(link.targets),
            str(link.lag),
            f"{link.effect:+.3f}",
            f"{link.se:.3f}",
            ", ".join(name for name, found in baskets.items() if link.key in found) or "-",
        )
        for link in links
    ]
    return Table(
        "Links of the global model", ("from", "to", "lag", "effect", "se", "baskets that show it"), tuple(rows)
    )
