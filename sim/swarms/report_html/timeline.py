"""The timeline of a round: who waited for whom, at which stage, from when until when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes

from sim.pages import Table
from sim.swarms.plan import Waited
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import BLUE, FILL, INK, PALE, RED, WIDTH, Picture, draw, fit_line, place

_MAX_ROWS: Final = 24
_ROW: Final = 40.0
_TOP: Final = 14.0
_AXIS: Final = 40.0
_MARGIN: Final = 12.0
_MAX_NAMES: Final = 3
_MAX_NOTES: Final = 8
_STAGE: Final = re.compile(r"stage (\w+) of the secure sum in (.+)", re.DOTALL)

# What is waited for, in the order of a round: as cores name it, as people do, and the hatch of its bar.
_STAGES: Final = (
    ("contributions", "clients' answers", ""),
    ("advertise", "keys (advertise)", "////"),
    ("shares", "shares of masks (shares)", "...."),
    ("masked", "masked inputs (masked)", "xxxx"),
    ("confirm", "word on who is in (confirm)", "----"),
    ("reveal", "shares to unmask (reveal)", "\\\\\\\\"),
    ("baskets' aggregates", "baskets' sums", "||||"),
)
_ORDER: Final = {name: i for i, (name, _, _) in enumerate(_STAGES)}


def timeline(result: SwarmResult) -> Picture:
    """Return the picture of the round that took longest."""
    round_id = _longest(result.waits)
    waits = [wait for wait in result.waits if wait.round_id == round_id]
    who = _who(waits)[:_MAX_ROWS]
    stages = sorted({_stage(wait) for wait in waits if wait.who in who}, key=_rank)
    title = "Who waited for whom"
    height = _TOP + _ROW * max(1, len(who)) + _AXIS + 18.0 * len(stages) + (20.0 if _late(waits) else 0.0)
    svg = draw("timeline", title, _alternative(round_id, waits), height, lambda axes: _paint(axes, waits, who, stages))
    lead = f"Round {round_id}, from its opening to its end. A bar is a wait; its number and hatch say for what."
    notes = [] if waits else ["Nothing was waited for, or nobody kept a record of it."]
    rounds = len({wait.round_id for wait in result.waits})
    if rounds > 1:
        notes.append(f"The longest of {rounds} rounds is drawn; the table has all.")
    if len(_who(waits)) > len(who):
        notes.append(f"{len(_who(waits)) - len(who)} more baskets are in the table alone.")
    late = _late(waits)
    notes += [_late_note(wait) for wait in late[:_MAX_NOTES]]
    if len(late) > _MAX_NOTES:
        notes.append(f"{len(late) - _MAX_NOTES} more waits in vain are in the table.")
    return Picture(
        "timeline", title, lead if waits else "No wait is known.", svg, (_table(result.waits),), tuple(notes)
    )


def _longest(waits: Sequence[Waited]) -> int:
    spans: dict[int, list[float]] = {}
    for wait in waits:
        spans.setdefault(wait.round_id, []).extend((wait.since, wait.until))
    return max(spans, key=lambda r: (max(spans[r]) - min(spans[r]), -r), default=0)


def _who(waits: Sequence[Waited]) -> list[str]:
    """Return who waited: the coordinator, then the baskets."""
    return sorted({wait.who for wait in waits}, key=lambda who: (who.startswith("basket/"), who))


def _late(waits: Sequence[Waited]) -> list[Waited]:
    return [wait for wait in waits if wait.by_clock and wait.missing]


def _stage(wait: Waited) -> str:
    found = _STAGE.fullmatch(wait.what)
    return found[1] if found else wait.what


def _words(stage: str) -> str:
    return _STAGES[_ORDER[stage]][1] if stage in _ORDER else stage


def _plain(who: str) -> str:
    return who.replace("basket/", "basket ", 1)


def _rank(stage: str) -> tuple[int, str]:
    return _ORDER.get(stage, len(_ORDER)), stage


def _paint(axes: Axes, waits: Sequence[Waited], who: Sequence[str], stages: Sequence[str]) -> None:
    late, height = bool(_late(waits)), axes.get_ylim()[0]
    place(axes, _MARGIN, _TOP, _MARGIN, _AXIS + 18.0 * len(stages) + (20.0 if late else 0.0))
    start = min((wait.since for wait in waits), default=0.0)
    span = max((wait.until - start for wait in waits), default=1.0) or 1.0
    axes.set(xlim=(0, span), ylim=(max(1, len(who)) - 0.1, -0.5))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds")
    for i, name in enumerate(who):
        axes.text(0, i - 0.25, fit_line(_plain(name), WIDTH - 2 * _MARGIN, 10.5), size=10.5, va="center")
        axes.axhline(i + 0.62, color=PALE, linewidth=0.6, zorder=0)
    per_unit = span / (WIDTH - 2 * _MARGIN)
    for wait in waits:
        if wait.who in who:
            _bar(axes, wait, who.index(wait.who), start, per_unit)
    _legend(axes, height, stages, late=late)


def _bar(axes: Axes, wait: Waited, row: int, start: float, per_unit: float) -> None:
    stage = _stage(wait)
    # The coordinator waits for baskets while they wait for clients: its own sum comes after, in the same row.
    left, length = wait.since - start, wait.until - wait.since
    hatch = _STAGES[_ORDER[stage]][2] if stage in _ORDER else ""
    axes.barh(row + 0.2, length, left=left, height=0.46, facecolor=FILL, edgecolor=BLUE, hatch=hatch, linewidth=0.8)
    if wait.by_clock:
        axes.plot([wait.until - start] * 2, [row - 0.1, row + 0.5], color=RED, linewidth=3.0, solid_capstyle="butt",
                  clip_on=False)  # fmt: skip
    if length > 14 * per_unit:
        axes.text(left + length / 2, row + 0.2, _number(stage), size=10, ha="center", va="center", color=INK,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2})  # fmt: skip


def _number(stage: str) -> str:
    return str(_ORDER[stage] + 1) if stage in _ORDER else "?"


def _legend(axes: Axes, height: float, stages: Sequence[str], *, late: bool) -> None:
    """Say below the axis what numbers and hatches mean."""
    below = axes.figure.add_axes((0.0, 0.0, 1.0, 1.0), facecolor="none")
    below.set(xlim=(0.0, WIDTH), ylim=(height, 0.0))
    below.set_axis_off()
    y = height - 18.0 * len(stages) - (20.0 if late else 0.0) + 8.0
    for stage in stages:
        hatch = _STAGES[_ORDER[stage]][2] if stage in _ORDER else ""
        below.barh(y, 26, left=_MARGIN, height=12, facecolor=FILL, edgecolor=BLUE, hatch=hatch, linewidth=0.8)
        below.text(_MARGIN + 34, y, f"{_number(stage)}  waits for {_words(stage)}", size=10, va="center")
        y += 18.0
    if late:
        below.plot([_MARGIN + 13] * 2, [y - 6, y + 6], color=RED, linewidth=3.0, solid_capstyle="butt")
        below.text(_MARGIN + 34, y, "time was up: went on without the silent", size=10, va="center", color=INK)


def _late_note(wait: Waited) -> str:
    names = ", ".join(wait.missing[:_MAX_NAMES])
    more = f" and {len(wait.missing) - _MAX_NAMES} more" if len(wait.missing) > _MAX_NAMES else ""
    seconds = wait.until - wait.since
    return f"{_plain(wait.who)} waited {seconds:.1f} s for {_words(_stage(wait))} in vain: {names}{more}."


def _alternative(round_id: int, waits: Sequence[Waited]) -> str:
    if not waits:
        return "An empty timeline: no wait is known."
    start, end = min(wait.since for wait in waits), max(wait.until for wait in waits)
    longest = max(waits, key=lambda wait: (wait.who != "coordinator", wait.until - wait.since))
    late = _late(waits)
    return (
        f"Bars of {len(waits)} waits of {len(_who(waits))} members over {end - start:.1f} seconds of round {round_id}. "
        f"The longest of a basket: {_plain(longest.who)} waited {longest.until - longest.since:.1f} seconds for "
        f"{_words(_stage(longest))}. {len(late)} waits ended because time was up."
    )


def _table(waits: Sequence[Waited]) -> Table:
    starts: dict[int, float] = {}
    for wait in waits:
        starts[wait.round_id] = min(starts.get(wait.round_id, wait.since), wait.since)
    rows = []
    for wait in sorted(waits, key=lambda w: (w.round_id, w.since, w.who)):
        start = starts[wait.round_id]
        names = ", ".join(wait.missing[:_MAX_NAMES]) + (", …" if len(wait.missing) > _MAX_NAMES else "")
        told = f"in vain: {names}" if wait.by_clock else names
        times = (f"{wait.since - start:.3f}", f"{wait.until - start:.3f}")
        rows.append((str(wait.round_id), wait.who, _words(_stage(wait)), *times, told or "-"))
    headings = ("round", "who waited", "for", "from, s", "until, s", "whom, last")
    return Table("All waits", headings, tuple(rows))
