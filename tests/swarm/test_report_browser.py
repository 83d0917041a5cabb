"""The report as a browser shows it: Debian's chromium without a window, on a phone's width and on a desk's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import attrs
import pytest

pytest.importorskip("matplotlib", reason="the extra [report] is not installed")

from sim.swarms.plan import Waited
from sim.swarms.report import SwarmResult
from sim.swarms.report_html import render_page
from sim.swarms.swarm import SwarmConfig, run_swarm
from tests.swarm.summing import summing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; on Debian: apt-get install chromium")

KEYS = ["hierarchy", "graph", "effects", "skill", "budget", "timeline"]
# Runs in a copy that the test makes; the report itself has no script, and forbids any.
MEASURE = """
<script>
function cut(svg) {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 8 || box.right > frame.right + 8 || box.top < frame.top - 2
      || box.bottom > frame.bottom + 2;
  }).map(text => text.textContent);
}
function measure() {
  return {
    inner: window.innerWidth,
    width: document.documentElement.scrollWidth,
    pictures: [...document.querySelectorAll("svg[role=img]")].map(svg => {
      const box = svg.getBoundingClientRect(), sizes = [...svg.querySelectorAll("text")];
      return {key: svg.closest("section").id, width: box.width, height: box.height, cut: cut(svg),
        visible: svg.checkVisibility({opacityProperty: true, visibilityProperty: true}),
        smallest: Math.min(...sizes.map(text => parseFloat(getComputedStyle(text).fontSize)
          * box.width / svg.viewBox.baseVal.width))};
    }),
  };
}
const closed = measure();
document.querySelectorAll("details").forEach(details => { details.open = true; });
const opened = measure();
parent.postMessage(JSON.stringify({closed, opened}), "*");
</script>
"""
# A window without a screen is at least 500 pixels wide; a frame is as narrow as it is told to be.
FRAME = """<!doctype html><pre id="measured"></pre>
<script>
addEventListener("message", said => {{ document.getElementById("measured").textContent = said.data; }});
</script>
<iframe src="measured.html" style="border: 0; width: {width}px; height: 900px"></iframe>
"""


def chromium(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def measured(page: str, width: int, folder: Path) -> dict[str, Any]:
    copy = folder / "measured.html"
    allowed = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    copy.write_text(allowed.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    options = (f"--window-size={width + 100},1000", "--virtual-time-budget=5000", "--dump-dom")
    shown = chromium(frame, folder / "profile", *options).stdout
    found = re.search(r'<pre id="measured">(.*?)</pre>', shown, re.DOTALL)
    assert found, shown[-500:]
    return dict(json.loads(unescape(found[1])))


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
