"""How well tomorrow is predicted, variable by variable."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes

from sim.pages import Table
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import (
    BEHIND,
    BLUE,
    GREEN,
    GREY,
    INK,
    PALE,
    RED,
    WIDTH,
    Picture,
    draw,
    fit_line,
    place,
)

_ROW: Final = 33.0
_TOP: Final = 70.0
_BOTTOM: Final = 40.0
_FLOOR: Final = -1.0  # worse than this is drawn at the edge
_PREDICTORS: Final = (("global", "global model"), ("basket", "each party's basket"), ("alone", "each party alone"))
_MARKS: Final = {"global": ("o", BLUE, "full"), "basket": ("s", GREEN, "none"), "alone": ("^", RED, "none")}
_MAX_ROWS: Final = 30


def skill(result: SwarmResult) -> Picture:
    """Return the picture of prediction skill by variable."""
    prediction = result.prediction
    names = prediction.variables[:_MAX_ROWS]
    title = "How well it predicts"
    height = _TOP + _ROW * max(1, len(names)) + _BOTTOM
    svg = draw("skill", title, _alternative(result), height, lambda axes: _paint(axes, result, names))
    lead = (
        "Skill on held-out rows: the share of persistence's squared error that is saved. 0 is as good as “tomorrow is "
        "as today”, 1 is perfect, less than 0 is worse than persistence."
    )
    notes = [f"No prediction by: {words}." for who, words in _PREDICTORS if who not in prediction.per_variable]
    if len(names) < len(prediction.variables):
        notes.append(f"The first {len(names)} of {len(prediction.variables)} variables are drawn; the table has all.")
    return Picture("skill", title, lead, svg, (_table(result),), tuple(notes))


def _paint(axes: Axes, result: SwarmResult, names: tuple[str, ...]) -> None:
    place(axes, 14, _TOP, 14, _BOTTOM)
    skills = {
        who: result.prediction.per_variable[who] for who, _ in _PREDICTORS if who in result.prediction.per_variable
    }
    values = [value for who in skills for value in skills[who][: len(names)]]
    low = max(_FLOOR, min([*values, 0.0]) - 0.06)
    high = max([*values, 0.5]) + 0.06
    axes.set(xlim=(low, high), ylim=(max(1, len(names)) - 0.3, -0.75))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("skill over persistence")
    axes.axvline(0, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1, label="persistence (0)")
    for i, name in enumerate(names):
        if i:
            axes.axhline(i - 0.72, color=PALE, linewidth=0.6, zorder=0)
        axes.text(low, i - 0.4, fit_line(name, WIDTH - 34, 10.5), size=10.5, va="center", zorder=4, bbox=BEHIND)
        axes.plot([low, high], [i + 0.08] * 2, color=PALE, linewidth=0.8, linestyle=":", zorder=0)
        for who, found in skills.items():
            _mark(axes, who, found[i], low, i + 0.08)
    for who, words in _PREDICTORS:
        marker, colour, fill = _MARKS[who]
        axes.plot([], [], marker=marker, color=colour, fillstyle=fill, linestyle="none", label=words)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=1, fontsize=10, borderaxespad=0.2, handlelength=1.8)


def _mark(axes: Axes, who: str, value: float, low: float, y: float) -> None:
    marker, colour, fill = _MARKS[who]
    axes.plot(
        [max(value, low)], [y], marker=marker, color=colour, fillstyle=fill, markersize=6.5, markeredgewidth=1.4,
        linestyle="none", clip_on=False, zorder=3,
    )  # fmt: skip
    if value < low:
        axes.text(low, y, f"     ← {value:.1f}", size=9, color=GREY, va="center")


def _alternative(result: SwarmResult) -> str:
    parts = [f"Skill for {len(result.prediction.variables)} variables."]
    for who, words in _PREDICTORS:
        median = result.prediction.median(who)
        if median is not None:
            parts.append(f"Median of the {words}: {median:.2f}.".replace("the each", "each"))
    return " ".join([*parts, "Persistence is 0 by definition."])


def _table(result: SwarmResult) -> Table:
    columns = (*_PREDICTORS, ("pooled", "pooled rows"))
    skills = result.prediction.per_variable
    rows = [
        (name, *(f"{skills[who][i]:.3f}" if who in skills else "-" for who, _ in columns), "0.000")
        for i, name in enumerate(result.prediction.variables)
    ]
    return Table("Skill by variable", ("variable", *(words for _, words in columns), "persistence"), tuple(rows))
