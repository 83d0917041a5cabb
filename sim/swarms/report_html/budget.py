"""What it cost: the budget that was spent, round after round."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes

from sim.pages import Table
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import BEHIND, BLUE, FILL, INK, RED, Picture, draw, place

_HEIGHT: Final = 270.0
_MAX_LABELS: Final = 6
# (round, clients charged so far, least, median, most epsilon)
_Row = tuple[int, int, float, float, float]


def budget(result: SwarmResult) -> Picture:
    """Return the picture of the budget over rounds."""
    rows = _rows(result)
    privacy = result.privacy
    title = "What it cost"
    svg = draw("budget", title, _alternative(result, rows), _HEIGHT, lambda axes: _paint(axes, result, rows))
    lead = (
        "Epsilon that clients' ledgers hold after each round, at "
        f"delta {privacy.delta:g}; a ledger refuses whatever would cross the line of its budget."
        if privacy.mode != "none"
        else "Mode none protects nothing, so no ledger is charged."
    )
    notes = [] if rows else ["No round ended."]
    at_end = max((charge.epsilon for charge in privacy.spent), default=0.0)
    if at_end > max((row[4] for row in rows), default=0.0):
        notes.append(f"When the run was ended, {len(privacy.spent)} clients had been charged, {at_end:.3g} at most.")
    if privacy.unit == "record" and privacy.mode != "none":
        notes.append("Rounds over different rows cost a record no more than the dearest of them.")
    return Picture("budget", title, lead, svg, (_table(rows),), tuple(notes))


def _rows(result: SwarmResult) -> list[_Row]:
    rounds: dict[int, list[float]] = {}
    for spending in result.spendings:
        rounds.setdefault(spending.round_id, []).append(spending.epsilon)
    return [
        (round_id, sum(e > 0 for e in spent), min(spent), float(np.median(spent)), max(spent))
        for round_id, spent in sorted(rounds.items())
    ]


def _paint(axes: Axes, result: SwarmResult, rows: list[_Row]) -> None:
    place(axes, 46, 56, 14, 42)
    limit = result.privacy.epsilon
    top = 1.25 * max([limit, *(row[4] for row in rows)]) or 1.0
    rounds, most, median = ([row[i] for row in rows] for i in (0, 4, 3))
    axes.set(xlim=(0.4, max(rounds, default=1) + 0.6), ylim=(0, top), xlabel="after round", ylabel="epsilon")
    axes.set_xticks(rounds[:: 1 + len(rounds) // 9])
    if not any(most) and limit <= 0:
        axes.text(0.5, 0.5, "nothing was charged", transform=axes.transAxes, ha="center", size=11)
        return
    if rows:
        axes.bar(rounds, most, width=0.5, facecolor=FILL, edgecolor=BLUE, hatch="///", label="client that spent most")
        axes.plot(rounds, median, marker="D", color=INK, markersize=5, linestyle="none", label="median client")
    if limit > 0:
        axes.axhline(limit, color=RED, linestyle=(0, (5, 2)), linewidth=1.4, label=f"budget of each: {limit:g}")
    for round_id, charged, _, _, height in rows if len(rows) <= _MAX_LABELS else ():
        axes.annotate(f"{height:.3g}", (round_id, height), (0, 9), textcoords="offset points", size=10, ha="center")
        axes.annotate(f"{charged} clients", (round_id, 0), (0, 6), textcoords="offset points", size=9.5, ha="center",
                      bbox=BEHIND)  # fmt: skip
    axes.legend(loc="lower left", bbox_to_anchor=(-0.14, 1.0), ncols=1, fontsize=10, borderaxespad=0.1,
                handlelength=2.0)  # fmt: skip


def _alternative(result: SwarmResult, rows: list[_Row]) -> str:
    if result.privacy.mode == "none":
        return "Nothing was charged: mode none protects nothing."
    told = "; ".join(f"after round {r}, {n} clients charged, at most {most:.3f}" for r, n, _, _, most in rows[-10:])
    return f"Epsilon spent by rounds, budget {result.privacy.epsilon:g}: {told or 'no round ended'}."


def _table(rows: list[_Row]) -> Table:
    cells = [(str(r), str(n), f"{low:.3f}", f"{mid:.3f}", f"{high:.3f}") for r, n, low, mid, high in rows]
    return Table("Epsilon after each round", ("round", "clients charged", "least", "median", "most"), tuple(cells))
