"""What drives what: the links of the global model between variables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from scarcity.engine import Relation
from sim.pages import Table
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import BLUE, GREY, INK, RED, WIDTH, Picture, draw, fit_line, measure
from sim.swarms.report_html.links import by_strength, cross, name_of

_ROW: Final = 44.0  # between boxes of a column
_MAX_RING: Final = 8
_MAX_ARROWS: Final = 30
_MAX_LABELS: Final = 6
_LABEL: Final = (18.0, 8.5)  # half its width and height
_Point = tuple[float, float]
_Area = tuple[float, float, float, float]  # centre, half the width, half the height
_SHORT: Final = 140.0
_MAX_VARIABLES: Final = 24


def graph(result: SwarmResult) -> Picture:
    """Return the picture of the global model's links."""
    links = by_strength(result.relations)
    pairs = _strongest_of_each_pair(links)
    arrows = pairs[:_MAX_ARROWS]
    variables = _variables(result, arrows)
    title = "What drives what"
    svg = draw(
        "graph", title, _alternative(links), _height(len(variables)), lambda axes: _paint(axes, variables, arrows)
    )
    lead = (
        "An arrow leads from a variable to one that follows it in time. Solid: more is followed by more; dashed: more "
        "is followed by less. The thicker, the stronger; the strongest carry their effect."
    )
    notes = [] if links else ["No link between two variables was found."]
    if len(arrows) < len(pairs):
        notes.append(f"The {len(arrows)} strongest of {len(pairs)} pairs are drawn; the table has all.")
    if len(pairs) < len(links):
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


def _places(num: int) -> list[tuple[float, float]]:
    """Return where boxes stand: on an ellipse, or in two bent columns where a ring would be too crowded."""
    centre = WIDTH / 2
    if num <= _MAX_RING:
        angles = [2 * math.pi * i / max(1, num) - math.pi / 2 for i in range(num)]
        return [(centre + 112 * math.cos(angle), _height(num) / 2 + 160 * math.sin(angle)) for angle in angles]
    rows = -(-num // 2)
    bends = [math.sin(math.pi * (i + 0.5) / rows) for i in range(rows)]
    right = [(centre + 72 + 32 * bend, 30 + _ROW * i) for i, bend in enumerate(bends)]
    left = [(WIDTH - x, y) for x, y in reversed(right)]
    return [*right, *left][:num]


def _height(num: int) -> float:
    return 380.0 if num <= _MAX_RING else 60.0 + _ROW * (-(-num // 2) - 1)


def _paint(axes: Axes, variables: Sequence[str], arrows: Sequence[Relation]) -> None:
    columns = len(variables) > _MAX_RING
    room, size = (116.0, 10.0) if columns else (112.0, 11.0)
    places = zip(variables, _places(len(variables)), strict=True)
    boxes = {name: _box(axes, fit_line(name, room, size), at, size) for name, at in places}
    strongest = max((abs(link.effect) for link in arrows), default=1.0)
    taken = [(*_centre(box), box.get_width() / 2, box.get_height() / 2) for box in boxes.values()]
    for rank, link in enumerate(arrows):
        for source, target in itertools.product(link.sources, link.targets):
            if source in boxes and target in boxes:
                start, end = _centre(boxes[source]), _centre(boxes[target])
                bend = _bend(start, end, columns=columns)
                share = abs(link.effect) / strongest
                _arrow(axes, (boxes[source], boxes[target]), share, bend, more=link.effect > 0)
                if rank < _MAX_LABELS:
                    _label(axes, start, end, bend, link.effect, taken)


def _box(axes: Axes, label: str, at: _Point, size: float) -> FancyBboxPatch:
    """Draw a variable's box, moved to where it is inside the picture."""
    width = measure(label, size) + 10
    x, y = min(max(at[0], width / 2 + 6), WIDTH - width / 2 - 6), at[1]
    box = FancyBboxPatch(
        (x - width / 2, y - 11), width, 22, boxstyle="round,pad=2,rounding_size=6", facecolor="white",
        edgecolor=INK, linewidth=1.2, zorder=3,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(x, y, label, ha="center", va="center", size=size, zorder=4)
    return box


def _bend(start: _Point, end: _Point, *, columns: bool) -> float:
    """Return how far aside an arrow's control point stands, as a share of its length; to the right when positive.

    On a ring every arrow bends to its right, so that an answer in the other direction lies beside it. Within a column
    arrows bend inward, around the boxes between.
    """
    (x0, y0), (x1, y1) = start, end
    if not columns or (x0 < WIDTH / 2) != (x1 < WIDTH / 2):
        return 0.14
    inward = math.copysign(1.0, (x0 - WIDTH / 2) * (y1 - y0))
    return inward * min(0.8, 136.0 / math.hypot(x1 - x0, y1 - y0))


def _arrow(axes: Axes, ends: tuple[FancyBboxPatch, FancyBboxPatch], share: float, bend: float, *, more: bool) -> None:
    """Draw one arrow, `share` of the strongest's strength."""
    start, end = (_centre(box) for box in ends)
    axes.add_patch(
        FancyArrowPatch(
            start, end, patchA=ends[0], patchB=ends[1], shrinkA=1, shrinkB=1,
            connectionstyle=f"arc3,rad={bend:.3f}", arrowstyle="-|>", mutation_scale=8 + 6 * share,
            linewidth=0.6 + 3.2 * share, linestyle="-" if more else (0, (3, 1.6)),
            color=BLUE if more else RED, zorder=1 + share,
        )
    )  # fmt: skip


def _label(axes: Axes, start: _Point, end: _Point, bend: float, effect: float, taken: list[_Area]) -> None:
    """Write an effect on its arrow, where nothing else is written; `taken` grows by the place."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    # Between boxes that are close together there is no room on the curve itself.
    aside = bend + (math.copysign(28.0, bend) / length if length < _SHORT else 0.0)
    control = (x0 + x1) / 2 - aside * (y1 - y0), (y0 + y1) / 2 + aside * (x1 - x0)
    places = [_on_curve(start, control, end, share) for share in (0.5, 0.38, 0.62, 0.3, 0.7)]
    x, y = next((p for p in places if not any(_covers(area, p) for area in taken)), places[0])
    taken.append((x, y, *_LABEL))
    axes.text(
        x, y, f"{effect:+.2f}".replace("-", "\u2212"), size=10, color=BLUE if effect > 0 else RED, ha="center",
        va="center", zorder=5, bbox={"facecolor": "white", "edgecolor": GREY, "linewidth": 0.4, "pad": 1.5},
    )  # fmt: skip


def _on_curve(start: _Point, control: _Point, end: _Point, share: float) -> _Point:
    """Return a point of a quadratic Bezier curve."""
    weights = ((1 - share) ** 2, 2 * share * (1 - share), share**2)
    points = (start, control, end)
    return (
        sum(w * point[0] for w, point in zip(weights, points, strict=True)),
        sum(w * point[1] for w, point in zip(weights, points, strict=True)),
    )


def _covers(area: _Area, at: _Point) -> bool:
    """Whether a label at a point would touch an area."""
    x, y, half_width, half_height = area
    return abs(x - at[0]) < half_width + _LABEL[0] and abs(y - at[1]) < half_height + _LABEL[1]


def _centre(box: FancyBboxPatch) -> _Point:
    return box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2


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
