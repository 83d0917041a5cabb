"""What tests of the timeline share: a run that is over, made up of what a test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import attrs

from sim.faults.plan import Crash, FaultPlan, Loss, Partition, kind_name
from sim.faults.stage import Fired
from sim.timelines import Recording, Run
from sim.timelines.bins import Outage
from sim.timelines.recorder import NUM_BINS, Round
from sim.worlds.built import WorldConfig
from sim.worlds.result import SimResult, Violation

PLAN = FaultPlan((Loss(0.1),), (Crash(2.0, ("c0001",), down_s=1.0), Partition(3.0, 5.0, ("basket-0",))))


def run_of(
    *,
    violations: Iterable[Violation] = (),
    plan: FaultPlan = PLAN,
    struck: int = 3,
    refusals: Mapping[str, int] | None = None,
    clients: int = 6,
    baskets: int = 2,
    on: tuple[str, ...] = ("c0001",),
    **recorded: Any,
) -> Run:
    """A run of ten seconds, the last two without faults."""
    config = WorldConfig(seed=7, clients=clients, baskets=baskets, until_s=10.0, heal_s=2.0)
    result = SimResult(
        trace_hash="0123456789abcdef" * 2,
        violations=tuple(violations),
        models={},
        num_models=2,
        num_aborted=1,
        dead_letters=4,
        lost=3,
        deliveries=1234,
        crashes=1,
        refusals=dict(refusals or {}),
        fired=tuple(Fired(i, kind_name(entry), struck, on if struck else ()) for i, entry in enumerate(plan.entries)),
        now_s=10.0,
    )
    counts = {kind: tuple(i % 3 for i in range(NUM_BINS)) for kind in ("deliver", "lose", "opened", "model")}
    known: dict[str, Any] = {
        "until_s": 10.0,
        "counts": {**counts, "dead": (0,) * NUM_BINS, "aborted": (0,) * NUM_BINS},
        "rounds": (Round(1, 0.5, 1.5, True), Round(2, 2.0, 5.0, False), Round(3, 9.5)),
        "strikes": tuple(tuple(i % 2 for i in range(10)) for _ in plan.entries),
        "outages": {"c0001": (Outage(2.0, 3.0),)},
        "refusals": {"basket/basket-0": {0: 1, NUM_BINS - 1: 2}},
    }
    return Run(config=config, plan=plan, result=result, recording=Recording(**(known | recorded)))


def broken(at: float, what: str = "two models", *, member: str = "", checker: str = "OneModel") -> Violation:
    return Violation(checker, at, member, what)


def crowded(run: Run) -> Run:
    """The same where every member was down, refused and is named, as often as can be."""
    until_s = run.config.until_s
    step = until_s / NUM_BINS
    members = ("coordinator", *(f"basket/{d}" for d in run.config.domains), *run.config.seats)
    outages = tuple(Outage(i * step, (i + 0.5) * step) for i in range(NUM_BINS))
    recording = attrs.evolve(
        run.recording,
        outages=dict.fromkeys(members, outages),
        refusals=dict.fromkeys(members, dict.fromkeys(range(NUM_BINS), 1_000_000)),
        counts=dict.fromkeys(run.recording.counts, (1000000,) * NUM_BINS),
        strikes=tuple((1_000_000,) * 120 for _ in run.plan.entries),
        rounds=(),
    )
    return attrs.evolve(run, recording=recording)


class Outline(HTMLParser):
    """A page's tags with their attributes, its texts, and that each tag is closed."""

    VOID = ("meta", "link", "br", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures(page: str) -> list[ET.Element]:
    """The SVG drawings of a page (not its legend's), read as XML."""
    pieces = page.split("<svg ")[1:]
    found = [ET.fromstring(f"<svg {piece.split('</svg>')[0]}</svg>") for piece in pieces]  # noqa: S314 - our own
    return [svg for svg in found if svg.get("role") == "img"]
