"""How strong: the global model's effects with their intervals, beside what pooling all rows would have given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes

from scarcity.engine import Relation
from sim.pages import Table
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import (
    BEHIND,
    BLUE,
    GREEN,
    GREY,
    PALE,
    RED,
    WIDTH,
    Picture,
    draw,
    fit_line,
    place,
)
from sim.swarms.report_html.links import Key, by_strength, cross, name_of

_MAX_ROWS: Final = 24
_ROW: Final = 31.0
_TOP: Final = 54.0
_BOTTOM: Final = 40.0
_Z95: Final = 1.959964  # two-sided 95 % of the normal law
_Found = Mapping[Key, Relation]


def effects(result: SwarmResult) -> Picture:
    """Return the picture of effects beside both pooled fits."""
    found, pooled = cross(result.relations), cross(result.pooled_relations)
    projected = cross(result.pooled_projected_relations or ())
    # Without a model there is still what pooling would have shown.
    links = by_strength(result.relations) or by_strength(result.pooled_relations)
    shown = links[:_MAX_ROWS]
    title = "How strong, and how sure"
    height = _TOP + _ROW * max(1, len(shown)) + _BOTTOM
    svg = draw(
        "effects", title, _alternative(found, pooled, projected), height,
        lambda axes: _paint(axes, shown, found, pooled, projected),
    )  # fmt: skip
    lead = (
        "Deviations of the target for one deviation of the source. The bar is the 95 % interval from the standard "
        "error, which counts sampling and the noise of privacy. The pooled fits show what nobody could have computed "
        "without all rows; “projected” is the same clipped and differenced rows without noise."
    )
    notes = [] if found else ["No effect was released: only the pooled fits are drawn."]
    if len(links) > len(shown):
        notes.append(f"The {len(shown)} strongest of {len(links)} are drawn; the table has all.")
    return Picture("effects", title, lead, svg, (_table(found, pooled, projected),), tuple(notes), tall=len(shown) > 12)


def _paint(axes: Axes, links: Sequence[Relation], found: _Found, pooled: _Found, projected: _Found) -> None:
    place(axes, 10, _TOP, 10, _BOTTOM)
    reach = [abs(r.effect) + _Z95 * r.se for r in found.values()]
    reach += [abs(r.effect) for fit in (pooled, projected) for key, r in fit.items() if key in {k.key for k in links}]
    limit = min(1.05 * max(reach, default=1.0), 3.0)
    axes.set(xlim=(-limit, limit), ylim=(max(1, len(links)) - 0.3, -0.75))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("effect")
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=0)
    for i, link in enumerate(links):
        if i:
            axes.axhline(i - 0.72, color=PALE, linewidth=0.6, zorder=0)
        axes.text(
            -limit, i - 0.38, fit_line(name_of(link), WIDTH - 24, 10), size=10, va="center", zorder=4, bbox=BEHIND
        )
        for fit, marker, colour, size in ((projected, "s", GREEN, 7.0), (pooled, "D", RED, 7.5)):
            if link.key in fit:
                axes.plot([fit[link.key].effect], [i + 0.05], marker=marker, color=colour, markersize=size,
                          fillstyle="none", markeredgewidth=1.3, linestyle="none", zorder=2)  # fmt: skip
        if (own := found.get(link.key)) is not None:
            axes.errorbar([own.effect], [i + 0.05], xerr=[_Z95 * own.se], fmt="o", color=BLUE, markersize=4.5,
                          elinewidth=1.4, capsize=3.5, zorder=3)  # fmt: skip
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.plot([], [], marker="o", color=BLUE, markersize=4.5, linewidth=1.4, label="global model, 95 % interval")
    for marker, colour, label in (("D", RED, "pooled rows"), ("s", GREEN, "pooled, projected")):
        axes.plot([], [], marker=marker, color=colour, fillstyle="none", linestyle="none", label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=1, fontsize=10, borderaxespad=0.2, handlelength=1.8)


def _inside(own: Relation, other: Relation) -> bool:
    return abs(own.effect - other.effect) <= _Z95 * own.se


def _alternative(found: _Found, pooled: _Found, projected: _Found) -> str:
    if not found:
        return f"No effect was released; the pooled rows show {len(pooled)} links."
    parts = [f"{len(found)} effects with intervals."]
    for name, fit in (("pooled rows", pooled), ("pooled, projected rows", projected)):
        both = found.keys() & fit.keys()
        inside = sum(_inside(found[key], fit[key]) for key in both)
        parts.append(f"{len(both)} are also in the fit of the {name}, whose value is inside the interval for {inside}.")
    return " ".join(parts)


def _table(found: _Found, pooled: _Found, projected: _Found) -> Table:
    links = sorted({**projected, **pooled, **found}.values(), key=lambda link: (-abs(link.effect), link.key))
    rows = []
    for link in links:
        own = found.get(link.key)
        interval = "-" if own is None else f"{own.effect - _Z95 * own.se:+.3f} to {own.effect + _Z95 * own.se:+.3f}"
        fits = (f"{fit[link.key].effect:+.3f}" if link.key in fit else "-" for fit in (found, pooled, projected))
        effect, by_pool, by_projection = fits
        rows.append((name_of(link), effect, interval, by_pool, by_projection))
    headings = ("link", "global", "95 % interval", "pooled", "projected")
    return Table("Effects; a dash: not found there", headings, tuple(rows))
