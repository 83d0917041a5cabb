"""The page of a simulated run: verdict first, then the picture, then tables, then the plan.

One file, no script, nothing fetched, nothing but the plain installation needed. It stays below `MOST_BYTES`, whatever
the run: the picture counts into parts of the run, and what has no end is cut, and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Final

from sim.faults.files import plan_toml
from sim.faults.plan import Entry, entry_dict
from sim.pages import Fact, Table, as_table, document, facts, style
from sim.timelines.canvas import NARROW, WIDE
from sim.timelines.drawing import Run, count, draw
from sim.timelines.lanes import crashes_of, members_of, named_by, window_of
from sim.worlds.capsule import versions_here
from sim.worlds.fuzz import label
from sim.worlds.result import Violation

MOST_BYTES: Final = 2_000_000
_MOST_ROWS: Final = 200  # of a table
_MOST_PLAN: Final = 100_000  # characters
_MOST_CELL: Final = 400  # characters
_SHOWN: Final = 3  # violations in the head; the table has all
_KEPT: Final = 100  # violations that a run keeps (`sim.worlds.checkers.Checks`)
_NAMES: Final = 6  # of those that a fault struck
# Whose violations have to do with what is waited for.
_WAITERS: Final = frozenset({"Liveness", "NothingOverdue", "GossipConverged"})


def render_timeline(run: Run, wrong: Iterable[str] = (), versions: Mapping[str, str] | None = None) -> str:
    """Return the page of a run.

    Args:
        run: what was run, and what was recorded of it.
        wrong: what else is not as it should be, each as a sentence.
        versions: what it ran on; None: those here.
    """
    verdict = _verdict(run, [*_unfired(run), *wrong])
    config = run.config
    title = f"{verdict[0].partition(':')[0]}: {config.clients} clients, seed {config.seed}, mode {config.mode}"
    sheet = style() + files("sim.timelines").joinpath("timeline.css").read_text(encoding="utf-8")
    head = _head(run, verdict, versions_here() if versions is None else versions)
    sections = "".join(_section(*section) for section in _sections(run))
    foot = (
        f'<footer><p class="soft">Trace hash {run.result.trace_hash}: the same world, plan and versions give the same '
        "one. Times are virtual seconds from the start of the run.</p></footer>\n"
    )
    return document(title, sheet, f"{head}<main>\n{_picture(run)}{sections}{_plan(run)}</main>\n{foot}")


# The head.


def _unfired(run: Run) -> list[str]:
    return [
        f"{run.plan.place(fired.index)} ({fired.name}) never struck, so nothing was tested by it"
        for fired in run.result.fired
        if not fired.count
    ]


def _verdict(run: Run, wrong: list[str]) -> list[str]:
    """Return the verdict and the sentences that it rests on."""
    violations = run.result.violations
    if not violations and not wrong:
        return ["Passed: no promise was broken"]
    said = [f"At {violation.at:.3f} s, {_who(run, violation)}: {violation.what}" for violation in violations[:_SHOWN]]
    if len(violations) > _SHOWN:
        said.append(f"{len(violations) - _SHOWN} more violations are in the table.")
    if not violations:
        return ["Failed: no promise was broken, but the run is not what was asked for", *wrong]
    more = " or more" if len(violations) >= _KEPT else ""
    times = "a promise was broken" if len(violations) == 1 else f"promises were broken {len(violations)}{more} times"
    return [f"Failed: {times}", *said, *wrong]


def _who(run: Run, violation: Violation) -> str:
    member = named_by(violation, frozenset(members_of(run.config))) or violation.member
    return f"{violation.checker}, {member}" if member else violation.checker


def _head(run: Run, verdict: list[str], versions: Mapping[str, str]) -> str:
    config = run.config
    reasons = "".join(f"<li>{escape(_cut(line))}</li>" for line in verdict[1 : 1 + 3 * _SHOWN])
    look, sign = ("failed", "✕") if verdict[1:] else ("passed", "✓")
    healed = f", the last {config.heal_s:g} without faults" if config.heals else ""
    ran_on = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f'<header>\n<h1 class="verdict {look}"><span aria-hidden="true">{sign}</span> {escape(verdict[0])}</h1>\n'
        + (f"<ul>{reasons}</ul>\n" if reasons else "")
        + f'<p class="soft">A simulated run of {config.clients} clients in {config.baskets} baskets: seed '
        f"{config.seed}, mode {escape(config.mode)}, unit {escape(config.unit)}, executor {escape(config.executor)}, "
        f"{config.until_s:g} virtual seconds{healed}. {escape(_cut(ran_on))}.</p>\n"
        f"{facts(_facts(run))}</header>\n"
    )


def _facts(run: Run) -> list[Fact]:
    config, result = run.config, run.result
    struck = sum(1 for fired in result.fired if fired.count)
    return [
        Fact("Models", count(result.num_models), f"{count(result.num_aborted)} rounds given up"),
        Fact("Faults in the plan", str(len(run.plan.entries)), f"{struck} of them struck"),
        Fact("Crashes", count(result.crashes), f"of {len(crashes_of(run.recording))} members"),
        Fact("Delivered", count(result.deliveries), f"packets in {config.until_s:g} virtual s"),
        Fact("Lost", count(result.lost), "packets"),
        Fact("Dead letters", count(result.dead_letters), "found nobody up, or no room"),
        Fact("Refused", count(sum(result.refusals.values())), "packets"),
        Fact("Trace hash", result.trace_hash[:8], result.trace_hash[8:]),
    ]


# The picture.

_CROSS: Final = '<path class="cross" d="M{x} 4.5l7 7m0 -7l-7 7"/>'
_GLYPHS: Final = (
    (
        '<path class="violation" d="M15 2l6 6l-6 6l-6 -6z"/>',
        "a broken promise, when it was found; also on its member's lane",
    ),
    (
        '<rect class="round made" x="1" y="3" width="22" height="10"/><circle class="dot" cx="23" cy="8" r="3.5"/>',
        "a round that made a model (●)",
    ),
    (
        f'<rect class="round given-up" x="1" y="3" width="22" height="10"/>{_CROSS.format(x=19.5)}',
        "a round that was given up (✕)",
    ),
    (
        '<rect class="window" x="1" y="2" width="28" height="12"/>'
        '<path class="strike" stroke-width="3" d="M8 14v-5M13 14v-10"/>',
        "when a fault may strike; bars: when it did, and how often",
    ),
    ('<path class="up" d="M1 8H29"/>', "a member is up"),
    (
        f'<path class="up" d="M1 8H9M23 8H29"/><path class="down" d="M9 8H23"/>{_CROSS.format(x=5.5)}',
        "it crashes (×) and is down",
    ),
    ('<path class="up" d="M1 6H29"/><path class="refusal" d="M10 9.5v5M16 9.5v5"/>', "it refuses packets (▾)"),
    (
        '<rect class="heal" x="1" y="1" width="28" height="14"/>',
        "no faults any more: everybody is up, and a new model is demanded",
    ),
)


def _picture(run: Run) -> str:
    items = "".join(
        f'<li><svg class="glyph" viewBox="0 0 30 16" aria-hidden="true">{glyph}</svg> {escape(said)}</li>'
        for glyph, said in _GLYPHS
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in _notes(run))
    return (
        f'<section id="timeline">\n<h2>Timeline</h2>\n<figure>{draw(run, WIDE)}{draw(run, NARROW)}</figure>\n'
        f'<ul class="legend">{items}</ul>\n<ul class="notes">{notes}</ul>\n</section>\n'
    )


def _notes(run: Run) -> list[str]:
    lanes, total = run.lanes, len(members_of(run.config))
    others = total - len(lanes.members) - lanes.left_out
    notes = []
    if lanes.left_out:
        notes.append(f"{lanes.left_out} more members crashed or were named; they have no lane for want of room.")
    if others:
        notes.append(f"{others} clients that never crashed and that no violation names have no lane.")
    if not run.recording.rounds and run.result.num_models:
        notes.append("There were too many rounds to draw each: bars count them.")
    return notes


# The tables.


def _sections(run: Run) -> list[tuple[str, str, Table, str]]:
    """Return (key, heading, table, note)."""
    found = [("violations", "Broken promises", _violations(run), "")] if run.result.violations else []
    if _WAITERS & {violation.checker for violation in run.result.violations} or run.recording.down:
        found.append(("waits", "What was waited for at the end", _waits(run), _more_waits(run)))
    rest = len(run.plan.entries) - _MOST_ROWS
    found.append(("faults", "Faults", _faults(run), f"{rest} more are left out." if rest > 0 else ""))
    found.append(("members", "Members with a lane", _members(run), ""))
    return [*found, ("refusals", "Refused packets", _refusals(run), "")] if run.result.refusals else found


def _section(key: str, heading: str, table: Table, note: str) -> str:
    plain = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f'<section id="{key}">\n<h2>{escape(heading)}</h2>\n{as_table(table)}{plain}</section>\n'


def _more_waits(run: Run) -> str:
    rest = run.recording.num_waits - len(run.recording.waits)
    return f"{rest} shorter waits are left out." if rest > 0 else ""


def _violations(run: Run) -> Table:
    known = frozenset(members_of(run.config))
    rows = tuple(
        (str(place), f"{v.at:.3f}", v.checker, named_by(v, known) or v.member or "-", _cut(v.what))
        for place, v in enumerate(run.result.violations[:_MOST_ROWS], start=1)
    )
    return Table("In the order in which they were found", ("number", "at, s", "promise", "member", "what"), rows)


def _waits(run: Run) -> Table:
    downs = [(member, "to be started: it is down", "-", "-", "-", "-") for member in run.recording.down[:_MOST_ROWS]]
    waits = [
        (
            wait.who,
            _cut(wait.what),
            f"{wait.have} of {wait.need}",
            f"{wait.since:.3f}",
            "none" if math.isinf(wait.until) else f"{wait.until:.3f}",
            _names(wait.missing) or "-",
        )
        for wait in run.recording.waits
    ]
    headings = ("member", "waits for", "has", "since, s", "deadline, s", "missing")
    return Table("By the clock of who waits, longest first", headings, tuple([*downs, *waits][:_MOST_ROWS]))


def _faults(run: Run) -> Table:
    rows = []
    for entry, fired in run.fired[:_MOST_ROWS]:
        at_s, until_s = window_of(entry, run.config)
        struck = count(fired.count) if fired.count else "never"
        when = (f"{at_s:g}", f"{until_s:g}")
        rows.append((run.plan.place(fired.index), label(entry), *when, _says(entry), struck, _names(fired.on) or "-"))
    headings = ("place", "fault", "from, s", "until, s", "as the plan says", "struck", "whom")
    return Table("Entries of the plan, and how often each struck", headings, tuple(rows))


def _says(entry: Entry) -> str:
    """Return what the plan says of an entry beside its kind and times."""
    named = {key: value for key, value in entry_dict(entry).items() if key not in ("kind", "at_s", "until_s")}
    values = (_names(value) if isinstance(value, list) else f"{value}" for value in named.values())
    return _cut("; ".join(f"{key} {value}" for key, value in zip(named, values, strict=True))) or "-"


def _members(run: Run) -> Table:
    crashes, recording = crashes_of(run.recording), run.recording
    known = frozenset(members_of(run.config))
    named = [named_by(violation, known) for violation in run.result.violations]
    rows = tuple(
        (
            member,
            str(crashes.get(member, 0)),
            f"{sum(min(o.up_at_s, recording.until_s) - o.at_s for o in recording.outages.get(member, ())):.1f}",
            count(sum(recording.refusals.get(member, {}).values())),
            str(named.count(member)),
        )
        for member in run.lanes.members
    )
    return Table("What the lanes show", ("member", "crashes", "down, s", "packets refused", "violations"), rows)


def _refusals(run: Run) -> Table:
    codes = sorted(run.result.refusals.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
    return Table(
        "Why members refused packets", ("reason", "packets"), tuple((_cut(code), count(n)) for code, n in codes)
    )


def _plan(run: Run) -> str:
    text = plan_toml(run.plan)
    if not text:
        return ""
    more = "\n# ... and more\n" if len(text) > _MOST_PLAN else ""
    return (
        f'<section id="plan">\n<h2>Plan</h2>\n<details><summary>As a file</summary><pre>{escape(text[:_MOST_PLAN])}'
        f"{more}</pre></details>\n</section>\n"
    )


def _names(names: Iterable[str]) -> str:
    """Return the first few names, and how many there are."""
    all_of = tuple(names)
    more = f", … ({len(all_of)})" if len(all_of) > _NAMES else ""
    return _cut(", ".join(all_of[:_NAMES])) + more


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CELL else f"{text[:_MOST_CELL]}…"
