"""What tests of pages share: Debian's chromium without a window, and what it measures of a page's pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
function crossing(svg) {
  const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([_, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4
  ).map(([other]) => name + " / " + other));
}
function measure() {
  return {
    inner: window.innerWidth,
    width: document.documentElement.scrollWidth,
    pictures: [...document.querySelectorAll("svg[role=img]")].map(svg => {
      const box = svg.getBoundingClientRect(), sizes = [...svg.querySelectorAll("text")];
      return {key: svg.closest("section").id, width: box.width, height: box.height, cut: cut(svg),
        class: svg.getAttribute("class"), crossing: crossing(svg),
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
