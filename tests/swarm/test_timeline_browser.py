"""The page of a simulated run as a browser shows it, on a phone's width and on a desk's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.faults.plan import Byzantine, Crash, FaultPlan, Loss
from sim.timelines import render_timeline
from tests.browser import CHROMIUM, chromium, measured
from tests.timeline_world import broken, crowded, run_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; on Debian: apt-get install chromium")


def pages() -> dict[str, str]:
    long = "w" * 400
    many = [broken(i / 10, f"c0001 {long}", checker="APromiseWithALongName") for i in range(100)]
    plan = FaultPlan((Loss(0.1), Loss(0.2)), (Byzantine("equivocate", ("c0004",)), Crash(2.0, ("c0001",))))
    large = crowded(run_of(violations=many, plan=plan, clients=300, baskets=30, refusals={long: 3}))
    return {"small": render_timeline(run_of(violations=[broken(4.0)])), "large": render_timeline(large, [long])}


@pytest.mark.parametrize(("width", "key"), [(400, "narrow"), (1200, "wide")])
@pytest.mark.parametrize("name", ["small", "large"])
def test_the_drawing_of_this_width_is_seen_whole_and_nothing_scrolls_sideways(
    name: str, width: int, key: str, tmp_path: Path
) -> None:
    both = measured(pages()[name], width, tmp_path)
    for shown in both.values():
        assert shown["inner"] == width
        assert shown["width"] <= width
        (picture,) = [picture for picture in shown["pictures"] if picture["visible"]]
        assert picture["class"] == key
        assert picture["width"] > 0.8 * width
        assert picture["cut"] == []
        assert picture["smallest"] >= 9.5
        assert picture["crossing"] == []


def test_the_console_stays_silent(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    page.write_text(pages()["small"], encoding="utf-8")
    shown = chromium(page, tmp_path / "profile", "--enable-logging=stderr", "--v=0", "--dump-dom")
    assert "Broken promises" in shown.stdout
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
