"""The picture of a run: time from left to right, violations on top, then rounds, faults, members and packets.

What something is, its shape says; colour repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from sim.faults.plan import Entry, FaultPlan
from sim.faults.stage import Fired
from sim.timelines.canvas import Canvas, Frame, fit, number, width_of
from sim.timelines.lanes import (
    Lanes,
    clusters_of,
    crashes_of,
    lanes_of,
    members_of,
    named_by,
    ticks_of,
    window_of,
)
from sim.timelines.recorder import NUM_BINS, Recording, Round
from sim.worlds.built import WorldConfig
from sim.worlds.fuzz import label
from sim.worlds.result import SimResult, Violation

MOST_FAULTS: Final = 24  # lanes; the table has more
_BAND: Final = 16.0
_STRIP: Final = 30.0
_NEAR: Final = 10.0  # marks with less between them share a label
_LABEL_ROWS: Final = 4
_ROW: Final = 15.0
_BOLD: Final = 1.25  # how much wider bold letters are, of DejaVu Sans
_CROSSES: Final = 30  # of more crashes on a lane only ticks can be told apart


@attrs.frozen(kw_only=True)
class Run:
    """A run that is over, with what was recorded of it.

    Attributes:
        config: the world, as `World.config_for` gives it.
        plan: what went wrong.
        result: what came of it.
        recording: what a `Recorder` saw.
    """

    config: WorldConfig
    plan: FaultPlan
    result: SimResult
    recording: Recording

    @property
    def lanes(self) -> Lanes:
        """Whose lanes the picture has."""
        return lanes_of(self.config, self.result.violations, self.recording)

    @property
    def fired(self) -> tuple[tuple[Entry, Fired], ...]:
        """Each entry of the plan, and how often it struck."""
        return tuple(zip(self.plan.entries, self.result.fired, strict=True))


def draw(run: Run, frame: Frame) -> str:
    """Return the picture as an SVG element."""
    canvas = Canvas(frame, run.config.until_s)
    marks = _violations(canvas, run.result.violations)
    top = canvas.y
    _rounds(canvas, run)
    _faults(canvas, run)
    middles = _members(canvas, run)
    _packets(canvas, run.recording)
    _backdrop(canvas, run, top)
    _marks(canvas, run, marks, top, middles)
    _axis(canvas, run.config.until_s)
    return canvas.svg("Timeline of the run", alternative(run))


def alternative(run: Run) -> str:
    """Return what the picture shows, for those who do not see it."""
    result, lanes = run.result, run.lanes
    violations = ", ".join(f"{v.checker} at {v.at:.1f} s" for v in result.violations[:3])
    more = f" and {len(result.violations) - 3} more" if len(result.violations) > 3 else ""
    return (
        f"{run.config.until_s:g} virtual seconds from left to right. {result.num_models} rounds made a model, "
        f"{result.num_aborted} were given up. {len(run.plan.entries)} entries of the plan struck "
        f"{sum(fired.count for fired in result.fired)} times. Lanes of {len(lanes.members)} members with "
        f"{result.crashes} crashes. Violations: {violations or 'none'}{more}. The tables below have the figures."
    )


# Violations: labels above everything, marks and lines on top of everything.


def _violations(canvas: Canvas, violations: Sequence[Violation]) -> tuple[float, ...]:
    """Write the labels, leave room for the marks and return where these are."""
    xs = tuple(canvas.x(violation.at) for violation in violations)
    if not xs:
        return xs
    placed: list[_Placed] = []
    top = canvas.y
    for cluster in clusters_of(violations, xs, _NEAR):
        # Where there is no room for a label there may be for its number; the marks are there anyway.
        for said in (fit(cluster.label, canvas.frame.width * 0.45), cluster.number):
            found = _place(cluster.x, said, canvas.frame.right, placed)
            if found is not None:
                placed.append(found)
                x, anchor = (found.end, "end") if found.end < found.x else (found.start, "start")
                canvas.text("broken", x, top + _ROW * found.row + 11.0, said, anchor)
                break
    canvas.y += _ROW * (1 + max((found.row for found in placed), default=0)) + 4.0
    below = number(canvas.y)
    canvas.path("leader", [f"M{number(found.x)} {number(top + _ROW * found.row + 1.0)}V{below}" for found in placed])
    return xs


@attrs.frozen
class _Placed:
    """A label from `start` to `end` in a row, with a line from there down to what is at `x`."""

    x: float
    start: float
    end: float
    row: int

    def meets(self, other: _Placed) -> bool:
        """Say whether a later label or its line would be drawn over this one or its line."""
        apart = other.end + 4.0 < self.start or self.end + 4.0 < other.start
        above, below = (self, other) if self.row < other.row else (other, self)
        return not apart if self.row == other.row else below.start - 3.0 <= above.x <= below.end + 3.0


def _place(x: float, said: str, right: float, placed: Sequence[_Placed]) -> _Placed | None:
    wide = width_of(said) * _BOLD
    start = x + 8.0 if x + 8.0 + wide <= right else x - 8.0 - wide
    tried = (_Placed(x, start, start + wide, row) for row in range(_LABEL_ROWS))
    return next((label for label in tried if not any(other.meets(label) for other in placed)), None)


def _marks(canvas: Canvas, run: Run, xs: Sequence[float], top: float, middles: Mapping[str, float]) -> None:
    known = frozenset(members_of(run.config))
    drawn = sorted({number(x) for x in xs}, key=float)
    if drawn:
        lines = "".join(f"M{x} {number(top)}V{number(canvas.y)}" for x in drawn)
        canvas.add(f'<path class="cut" d="{lines}"/>', behind=True)
    for place, (violation, x) in enumerate(zip(run.result.violations, xs, strict=True), start=1):
        canvas.path("violation", [_diamond(x, top + 2.0)], f"{place}: {violation}"[:300])
        member = named_by(violation, known)
        if member in middles:
            canvas.path("mark", [_diamond(x, middles[member])])


def _diamond(x: float, y: float) -> str:
    return f"M{number(x)} {number(y - 6)}l6 6l-6 6l-6 -6z"


# Rounds.


def _rounds(canvas: Canvas, run: Run) -> None:
    canvas.heading("Rounds")
    counts, result = run.recording.counts, run.result
    if not run.recording.rounds and any(counts["opened"]):
        _strip(canvas, "opened", counts["opened"], "opened")
        _strip(canvas, "model made", counts["model"], "made")
        _strip(canvas, "given up", counts["aborted"], "given-up")
        return
    ended = f"{result.num_models} ●" + (f" {result.num_aborted} ✕" if result.num_aborted else "")
    y = canvas.lane("from opening to end", ended, _BAND)
    room = (canvas.frame.right - canvas.x(0.0)) / max(1, len(run.recording.rounds))
    for found in run.recording.rounds:
        _round(canvas, found, y, min(3.5, 0.25 * room))


def _round(canvas: Canvas, found: Round, y: float, radius: float) -> None:
    look = "unended" if found.model is None else "made" if found.model else "given-up"
    canvas.rect(f"round {look}", found.at_s, found.until_s, y + 2.0, _BAND - 4.0)
    start, end = canvas.x(found.at_s), canvas.x(found.until_s)
    middle, said = y + _BAND / 2, str(found.round_id)
    if found.model:
        canvas.add(f'<circle class="dot" cx="{number(end)}" cy="{number(middle)}" r="{number(radius)}"/>')
    elif found.model is not None:
        canvas.path("cross", [_cross(end, middle, radius)])
    if width_of(said) + 8.0 < end - start - 4.0:
        canvas.text("inside", (start + end - 4.0) / 2, middle + 4.0, said, "middle")


def _cross(x: float, y: float, half: float = 3.5) -> str:
    size = number(2 * half)
    return f"M{number(x - half)} {number(y - half)}l{size} {size}m0 -{size}l-{size} {size}"


# Faults.


def _faults(canvas: Canvas, run: Run) -> None:
    if not run.plan.entries:
        return
    canvas.heading("Faults: when they may strike, and when they did")
    names = lane_names(run.plan)
    for entry, fired in run.fired[:MOST_FAULTS]:
        y = canvas.lane(names[fired.index], count(fired.count) if fired.count else "never", _BAND)
        at_s, until_s = window_of(entry, run.config)
        canvas.rect("window" if fired.count else "window never", at_s, until_s, y + 1.0, _BAND - 2.0)
        strikes = run.recording.strikes[fired.index] if fired.index < len(run.recording.strikes) else ()
        _bars(canvas, strikes, y + _BAND - 1.0, _BAND - 2.0, "strike", least=0.35)
    if len(run.plan.entries) > MOST_FAULTS:
        canvas.lane(f"{len(run.plan.entries) - MOST_FAULTS} more are in the table", "", _BAND)


def lane_names(plan: FaultPlan) -> tuple[str, ...]:
    """Return what each entry does, and of those that do the same also where they stand."""
    does = [label(entry) for entry in plan.entries]
    return tuple(name if does.count(name) == 1 else f"{name}, {plan.place(index)}" for index, name in enumerate(does))


# Members.


def _members(canvas: Canvas, run: Run) -> dict[str, float]:
    """Draw the lanes and return where the middle of each is."""
    canvas.heading("Members: up and down")
    crashes, middles = crashes_of(run.recording), dict[str, float]()
    for member in run.lanes.members:
        refused = run.recording.refusals.get(member, {})
        crashed = f"{count(crashes[member])} ×" if member in crashes else ""
        tally = f"{crashed} {count(sum(refused.values()))} ▾" if refused else crashed
        y = canvas.lane(member, tally.strip(), _BAND)
        middles[member] = y + _BAND / 2 - 1.0
        _life(canvas, run.recording, member, middles[member])
        width = run.config.until_s / NUM_BINS
        places = (number(canvas.x((place + 0.5) * width)) for place in sorted(refused))
        canvas.path("refusal", [f"M{x} {number(y + _BAND - 4.5)}v4.5" for x in places])
    return middles


def _life(canvas: Canvas, recording: Recording, member: str, y: float) -> None:
    """Draw a thick line while a member is up, a thin one while it is down, a cross where it crashed."""
    outages = recording.outages.get(member, ())
    starts = [0.0, *(outage.up_at_s for outage in outages)]
    ends = [*(outage.at_s for outage in outages), recording.until_s]
    at = number(y)
    canvas.path(
        "up",
        [f"M{number(canvas.x(a))} {at}H{number(canvas.x(b))}" for a, b in zip(starts, ends, strict=True) if a < b],
    )
    downs = ((canvas.x(outage.at_s), canvas.x(outage.up_at_s)) for outage in outages)
    canvas.path("down", [f"M{number(a)} {at}H{number(b)}" for a, b in downs])
    xs = [canvas.x(outage.at_s) for outage in outages]
    if len(xs) <= _CROSSES:
        canvas.path("cross", [_cross(x, y) for x in xs])
    else:
        canvas.path("cross", [f"M{number(x)} {number(y - 4.0)}v8" for x in xs])


# Packets.


def _packets(canvas: Canvas, recording: Recording) -> None:
    canvas.heading("Packets")
    for name, kind in (("delivered", "deliver"), ("lost", "lose"), ("dead letters", "dead")):
        counts = recording.counts[kind]
        if kind == "deliver" or any(counts):
            _strip(canvas, name, counts, kind)


def _strip(canvas: Canvas, name: str, counts: Sequence[int], look: str) -> None:
    per_s = max(counts) * len(counts) / (canvas.until_s or 1.0)
    y = canvas.lane(name, count(sum(counts)), _STRIP, f"at most {rate(per_s)}")
    _bars(canvas, counts, y + _STRIP - 1.0, _STRIP - 3.0, look)
    base = number(y + _STRIP - 0.5)
    canvas.path("base", [f"M{number(canvas.x(0.0))} {base}H{number(canvas.frame.right)}"])


def _bars(canvas: Canvas, counts: Sequence[int], base: float, height: float, look: str, least: float = 0.0) -> None:
    """Draw a bar for each part in which something was counted; `least` of the height for the rarest."""
    most = max(counts, default=0)
    if not most:
        return
    part_s = canvas.until_s / len(counts)
    wide = canvas.x(part_s) - canvas.x(0.0)
    moves = [
        f"M{number(canvas.x((place + 0.5) * part_s))} {number(base)}v-{number(height * _share(n, most, least))}"
        for place, n in enumerate(counts)
        if n
    ]
    canvas.path(look, moves, stroke=max(1.2, wide * 0.85))


def _share(n: int, most: int, least: float) -> float:
    return least + (1.0 - least) * n / most


# Behind and below.


def _backdrop(canvas: Canvas, run: Run, top: float) -> None:
    """Draw the heal as an area, and a line for every tick."""
    config = run.config
    if config.heals:
        canvas.rect("heal", config.heal_at, config.until_s, top, canvas.y - top, behind=True)
    _unit, ticks = ticks_of(config.until_s, canvas.frame.ticks)
    lines = "".join(f"M{number(canvas.x(at))} {number(top)}V{number(canvas.y)}" for at, _label in ticks)
    canvas.add(f'<path class="grid" d="{lines}"/>', behind=True)


def _axis(canvas: Canvas, until_s: float) -> None:
    unit, ticks = ticks_of(until_s, canvas.frame.ticks)
    canvas.y += 14.0
    for place, (at, said) in enumerate(ticks):
        x = canvas.x(at)
        said = f"{said} {unit}" if place == len(ticks) - 1 else said
        if x + width_of(said) / 2 > canvas.frame.width:
            canvas.text("tick", canvas.frame.width, canvas.y, said, "end")
        else:
            canvas.text("tick", x, canvas.y, said, "middle")
    canvas.y += 6.0


def count(n: int) -> str:
    """Return a count with its thousands apart."""
    return f"{n:,}".replace(",", "\u202f")


def rate(per_s: float) -> str:
    """Return how often a second or, where that is rare, a minute."""
    if per_s >= 1.0 or math.isclose(per_s, 0.0):
        return f"{count(round(per_s))}/s"
    return f"{per_s * 60:.2g}/min"
