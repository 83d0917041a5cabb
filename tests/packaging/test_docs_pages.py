"""The pages of the documentation: their samples are run as they stand, and the site builds without a broken link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples import ROOT, difference, run, samples

PAGES = ("docs/tutorial.md", "docs/how-to-own-data.md", "docs/how-to-model-file.md", "docs/how-to-three-hosts.md")
WITHOUT_MKDOCS = "the extra [docs] is not installed: the site cannot be built"


@pytest.mark.parametrize("name", PAGES)
def test_every_sample_of_a_page_prints_what_the_page_shows(name: str, tmp_path: Path) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    found = samples(page)
    printed = run(page, tmp_path)
    assert len(printed) == len(found) > 0
    for sample, output in zip(found, printed, strict=True):
        if sample.shown is not None:
            assert not (why := difference(sample.shown, output)), f"{sample.code}: {why}"
        assert "Traceback" not in output


def test_only_the_installation_is_not_run() -> None:
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        blocks = page.count("```bash\n") + page.count("```python\n")
        assert blocks - len(samples(page)) == (name == "docs/tutorial.md"), name


def test_a_page_that_shows_something_else_is_found() -> None:
    assert not difference("a 1.00\n...\nb 0.4 s\n", "a 1.01\nx\ny\nb 3.7 s\n")
    assert difference("a 1.00\n", "a 1.10\n")
    assert difference("a\n", "b\na\n")
    assert difference("a\n", "a\nb\n")
    assert difference("a\n...\nb\n", "a\nc\n")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit = (ROOT / "docs" / "examples" / "scarcity-node.service").read_text(encoding="utf-8")
    unit = unit.replace("/opt/scarcity/bin/scarcity", "/bin/true").replace(
        "=scarcity\nGroup=scarcity", "=root\nGroup=root"
    )
    (tmp_path / "scarcity-node.service").write_text(unit, encoding="utf-8")
    command = ["systemd-analyze", "verify", str(tmp_path / "scarcity-node.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def site(folder: Path, configuration: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(
        [*command, "--config-file", str(configuration)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_site_builds_and_asks_no_other_server_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason=WITHOUT_MKDOCS)
    pytest.importorskip("mkdocstrings", reason=WITHOUT_MKDOCS)
    built = site(tmp_path / "site", ROOT / "mkdocs.yml")
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "tutorial.html", "reference/command.html", "reference/engine.html"} <= set(pages)
    for page in pages.values():
        text = page.read_text(encoding="utf-8")
        assert not [
            part for part in text.split("<")[1:] if part.startswith(("script src=", "img src=")) and "//" in part
        ]
    assert "OnlineDiscoveryEngine" in pages["reference/engine.html"].read_text(encoding="utf-8")
    assert "scarcity predict" in pages["reference/command.html"].read_text(encoding="utf-8")


def test_broken_links_and_anchors_fail_the_site(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason=WITHOUT_MKDOCS)
    pytest.importorskip("mkdocstrings", reason=WITHOUT_MKDOCS)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    links = ("no-page.md", "privacy.md#no-heading", "../README.md#no-promise")
    page = "# Actors\n\n" + "".join(f"See [there]({link}).\n" for link in links)
    (tmp_path / "docs" / "actors.md").write_text(page, encoding="utf-8")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = text.replace("hooks: [scripts/", f"hooks: [{ROOT}/scripts/").replace("paths: [.]", f"paths: ['{ROOT}']")
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    built = site(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode == 1
    for words in ("no-page.md", "#no-heading", "#no-promise"):
        assert words in built.stderr, words
