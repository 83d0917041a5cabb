"""The report as a browser shows it: Debian's chromium without a window, on a phone's width and on a desk's."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

pytest.importorskip("matplotlib", reason="the extra [report] is not installed")

from sim.swarms.plan import Waited
from sim.swarms.report import SwarmResult
from sim.swarms.report_html import render_page
from sim.swarms.swarm import SwarmConfig, run_swarm
from tests.browser import CHROMIUM, chromium, measured
from tests.swarm.summing import summing

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; on Debian: apt-get install chromium")

KEYS = ["hierarchy", "graph", "effects", "skill", "budget", "timeline"]


def hostile(result: SwarmResult) -> SwarmResult:
    """The same with names as long as they may be, unbroken, and forty baskets that were waited for."""
    long = "w" * 128
    waits = tuple(
        Waited(1, f"basket/{long}{i}", "stage masked of the secure sum in x", 0.0, 1.0 + i, (long,), i % 2 == 0)
        for i in range(40)
    )
    seats = tuple((f"{long}{i}", f"{long}{i % 40}") for i in range(400))
    return attrs.evolve(result, seats=seats, waits=waits, closings=(), settings=(long,), last_line=long)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    result = run_swarm(SwarmConfig(synthetic=9, seed=3, privacy="none"), execute=summing())
    live = run_swarm(SwarmConfig(synthetic=12, seed=3, privacy="local", epsilon=30.0, unit="client"))
    return {"clean": render_page(result), "live": render_page(live), "hostile": render_page(hostile(result))}


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["clean", "live", "hostile"])
def test_every_picture_is_seen_whole_and_the_page_does_not_scroll_sideways(
    name: str, width: int, pages: dict[str, str], tmp_path: Path
) -> None:
    both = measured(pages[name], width, tmp_path)
    for state in ("closed", "opened"):
        shown = both[state]
        assert shown["inner"] == width
        assert shown["width"] <= width, state
        assert [picture["key"] for picture in shown["pictures"]] == KEYS
        for picture in shown["pictures"]:
            assert picture["visible"], picture
            assert picture["width"] > 0.75 * min(width, 520), picture
            assert picture["height"] > 60, picture
            assert picture["cut"] == [], picture
            assert picture["smallest"] >= 8.5, picture


def test_the_console_stays_silent_and_nothing_is_fetched(pages: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(pages["live"], encoding="utf-8")
    shown = chromium(page, tmp_path / "profile", "--enable-logging=stderr", "--v=0", "--dump-dom")
    assert "Who waited for whom" in shown.stdout
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []


def test_an_error_on_the_console_would_have_been_seen(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<!doctype html><script>console.error('so it is')</script>", encoding="utf-8")
    shown = chromium(page, tmp_path / "profile", "--enable-logging=stderr", "--v=0", "--dump-dom")
    assert any("CONSOLE" in line and "so it is" in line for line in shown.stderr.splitlines())
