"""Who took part: the coordinator, its baskets, their clients, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from matplotlib.axes import Axes

from sim.pages import Table
from sim.swarms.plan import Closing
from sim.swarms.report import SwarmResult
from sim.swarms.report_html.chart import BLUE, GREY, INK, PALE, RED, WIDTH, Picture, draw, fit_line, measure

_MAX_BASKETS: Final = 20
_MAX_MARKS: Final = 208  # eight lines
_STEP: Final = 12.2
_LEFT: Final = 46.0
_PER_LINE: Final = int((WIDTH - _LEFT) // _STEP)
_MAX_NAMES: Final = 6
_MAX_NOTES: Final = 12

# What may become of a client, with the mark that says so without colour.
_IN, _PART, _VAIN, _SILENT, _DECLINED = "in", "part", "vain", "silent", "declined"
_WORDS: Final = {
    _IN: "in every sum",
    _PART: "in some rounds' sums",
    _VAIN: "its basket made no sum",
    _SILENT: "fell silent",
    _DECLINED: "declined, or was turned away",
}
_MARKS: Final[Mapping[str, dict[str, Any]]] = {
    _IN: {"marker": "o", "color": BLUE, "markersize": 6.5},
    _PART: {"marker": "o", "color": BLUE, "markersize": 6.5, "fillstyle": "left", "markerfacecoloralt": "white"},
    _VAIN: {"marker": "o", "color": BLUE, "markersize": 6.0, "fillstyle": "none"},
    _SILENT: {"marker": "x", "color": RED, "markersize": 6.5, "markeredgewidth": 1.8},
    _DECLINED: {"marker": "^", "color": RED, "markersize": 6.5, "fillstyle": "none"},
}


@attrs.frozen
class _Fate:
    """What became of one client: a key of `_WORDS`, the rounds whose sum it is in, and why it is not in the others."""

    client_id: str
    domain: str
    kind: str
    num_in: int
    why: tuple[str, ...]


def hierarchy(result: SwarmResult) -> Picture:
    """Return the picture of who took part."""
    fates = _fates(result)
    by_domain: dict[str, list[_Fate]] = {}
    for fate in fates:
        by_domain.setdefault(fate.domain, []).append(fate)
    shown = dict(list(by_domain.items())[:_MAX_BASKETS])
    kinds = [kind for kind in _WORDS if any(fate.kind == kind for fate in fates)]
    title = "Who took part"
    height = _height(shown, len(kinds))
    svg = draw("hierarchy", title, _alternative(result, by_domain), height, lambda a: _paint(a, result, shown, kinds))
    notes = _notes(result, fates)
    if len(by_domain) > len(shown):
        notes.append(f"{len(by_domain) - len(shown)} more baskets are in the table alone.")
    lead = (
        "The coordinator sums what baskets made, each basket what its clients sent. A mark is a client; its shape says "
        "what became of it."
    )
    if any(len(fates) > _MAX_MARKS for fates in shown.values()):
        notes.append(f"Of a basket's clients {_MAX_MARKS} are drawn; the table has all.")
    tables = (_basket_table(result, by_domain), _client_table(fates), _reason_table(result))
    return Picture("hierarchy", title, lead, svg, tables, tuple(notes))


def _fates(result: SwarmResult) -> list[_Fate]:
    closings: dict[str, list[Closing]] = {}
    for closing in result.closings:
        closings.setdefault(closing.domain, []).append(closing)
    missing = _missing(result)
    seats = sorted(result.seats, key=lambda seat: (seat[1], seat[0]))
    return [_fate(name, domain, closings.get(domain, []), missing) for name, domain in seats]


def _missing(result: SwarmResult) -> dict[tuple[int, str], str]:
    """Return (round, client) -> why it is in no sum."""
    in_vain = {(wait.round_id, name) for wait in result.waits if wait.by_clock for name in wait.missing}
    reasons = {}
    for closing in result.closings:
        for name, why in closing.missing:
            key = (closing.round_id, name)
            # A basket that made no sum calls all of its members missing, those too who did all they were asked for.
            let_down = closing.absent and why == "silent" and key not in in_vain
            reasons[key] = _WORDS[_VAIN] if let_down else why
    return reasons


def _fate(name: str, domain: str, closings: Sequence[Closing], missing: Mapping[tuple[int, str], str]) -> _Fate:
    kinds, why = [], []
    for closing in closings:
        reason = missing.get((closing.round_id, name))
        if reason is None and not closing.absent:
            continue
        # An absence that names nobody is the basket's own.
        reason = reason or _WORDS[_VAIN]
        kinds.append(_VAIN if reason == _WORDS[_VAIN] else _DECLINED if reason.startswith("declined") else _SILENT)
        why.append(f"round {closing.round_id}: {reason}")
    num_in = len(closings) - len(kinds)
    if not closings:
        return _Fate(name, domain, _VAIN, 0, ("no round ended for its basket",))
    kind = _IN if not kinds else _PART if num_in else next((k for k in kinds if k != _VAIN), _VAIN)
    return _Fate(name, domain, kind, num_in, tuple(why))


def _lines(fates: Sequence[_Fate]) -> int:
    return -(-min(len(fates), _MAX_MARKS) // _PER_LINE)


def _height(shown: Mapping[str, Sequence[_Fate]], num_kinds: int) -> float:
    return 48.0 + sum(36.0 + _STEP * _lines(fates) for fates in shown.values()) + 12.0 + 16.0 * num_kinds


def _paint(axes: Axes, result: SwarmResult, shown: Mapping[str, Sequence[_Fate]], kinds: Sequence[str]) -> None:
    models = f"{result.rounds} model{'' if result.rounds == 1 else 's'} made"
    axes.plot([14], [16], marker="D", color=INK, markersize=11, clip_on=False)
    axes.text(28, 16, f"coordinator: {models}", va="center", size=11.5, weight="bold")
    made = {closing.domain for closing in result.closings if not closing.absent}
    y = 48.0
    for domain, fates in shown.items():
        axes.plot([14, 14, 30], [16, y, y], color=GREY, linewidth=1.0, zorder=0)
        fill = "full" if domain in made else "none"
        axes.plot([34], [y], marker="s", color=INK, markersize=9, fillstyle=fill, clip_on=False)
        num_in = sum(fate.num_in > 0 for fate in fates)
        told = f": {num_in} of {len(fates)} clients{'' if domain in made else ', no sum'}"
        name = fit_line(domain, WIDTH - _LEFT - 4 - measure(told, 11), 11)
        axes.text(_LEFT, y, f"{name}{told}", va="center", size=11)
        _paint_marks(axes, fates, y + 17.0)
        y += 36.0 + _STEP * _lines(fates)
    axes.plot([8, WIDTH - 8], [y - 12, y - 12], color=PALE, linewidth=0.8)
    for i, kind in enumerate(kinds):
        axes.plot([14], [y + 4 + 16 * i], linestyle="none", **_MARKS[kind])
        axes.text(28, y + 4 + 16 * i, _WORDS[kind], va="center", size=10.5)


def _paint_marks(axes: Axes, fates: Sequence[_Fate], top: float) -> None:
    order = list(_WORDS)
    marks = sorted(fates, key=lambda fate: (order.index(fate.kind), fate.client_id))
    shown = marks[:_MAX_MARKS]
    for kind in order:
        at = [i for i, fate in enumerate(shown) if fate.kind == kind]
        if at:
            xs = [_LEFT + 5 + _STEP * (i % _PER_LINE) for i in at]
            ys = [top + _STEP * (i // _PER_LINE) for i in at]
            axes.plot(xs, ys, linestyle="none", **_MARKS[kind])


def _alternative(result: SwarmResult, by_domain: Mapping[str, Sequence[_Fate]]) -> str:
    parts = [f"A tree: a coordinator with {len(by_domain)} baskets; {result.rounds} models were made."]
    for domain, fates in by_domain.items():
        counts = ", ".join(
            f"{number} {words}" for kind, words in _WORDS.items() if (number := sum(f.kind == kind for f in fates))
        )
        parts.append(f"Basket {domain}, {len(fates)} clients: {counts}.")
    return " ".join(parts)


def _notes(result: SwarmResult, fates: Sequence[_Fate]) -> list[str]:
    """Return a line for each reason, with the names of those that it kept out or turned away."""
    names: dict[str, list[str]] = {}
    for fate in fates:
        for reason in fate.why:
            names.setdefault(f"Not in the sum, {reason}", []).append(fate.client_id)
    told = {(fate.client_id, reason) for fate in fates for reason in fate.why}
    for refused in result.refused:
        # Of a sum that failed nobody may be to blame; the table of baskets says how it ended.
        if refused.who and (refused.who, _as_told(refused.reason)) not in told:
            names.setdefault(f"Refused, {refused.reason}", []).append(refused.who)
    lines = [f"{reason}: {_some(who)}." for reason, who in sorted(names.items())]
    more = [f"{len(lines) - _MAX_NOTES} more reasons are in the tables."] if len(lines) > _MAX_NOTES else []
    return [*lines[:_MAX_NOTES], *more]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"


def _as_told(reason: str) -> str:
    """`declined round 2: why` is told as `round 2: declined: why`."""
    head, _, why = reason.partition(": ")
    return f"{head.removeprefix('declined ')}: declined: {why}" if head.startswith("declined round ") else reason


def _basket_table(result: SwarmResult, by_domain: Mapping[str, Sequence[_Fate]]) -> Table:
    rows = [
        (
            str(closing.round_id),
            closing.domain,
            f"{len(closing.members)} of {len(by_domain.get(closing.domain, ()))}",
            closing.absent or "made its sum",
        )
        for closing in result.closings
    ]
    return Table("Baskets, round by round", ("round", "basket", "clients in the sum", "how it ended"), tuple(rows))


def _client_table(fates: Sequence[_Fate]) -> Table:
    rows = [(f.client_id, f.domain, _WORDS[f.kind], str(f.num_in), "; ".join(f.why) or "-") for f in fates]
    headings = ("client", "basket", "what became of it", "sums", "why not in the others")
    return Table("Clients", headings, tuple(rows))


def _reason_table(result: SwarmResult) -> Table:
    rows = [("dropped", r.who, r.reason) for r in result.dropped]
    rows += [("refused", r.who or "-", r.reason) for r in result.refused]
    return Table("All that was dropped or refused", ("what", "who", "why"), tuple(rows))
