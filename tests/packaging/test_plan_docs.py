"""docs/how-to-plan.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scarcity.cli.doctor import doctor
from scarcity.cli.main import run
from scarcity.cli.privacy import privacy

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "how-to-plan.md").read_text(encoding="utf-8")
TABLES = re.findall(r"```console\n\$ scarcity privacy ([^\n]*)\n(.*?)```", TEXT, re.DOTALL)
(SCHEMA,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
(SAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def _beside_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("arguments", "printed"), TABLES)
def test_every_table_is_what_the_command_prints(
    arguments: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(privacy, arguments.split()) == 0
    assert capsys.readouterr().out == printed


def test_the_page_has_its_tables_and_the_python_sample_agrees_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(TABLES) == 4
    exec(compile(SAMPLE, "how-to-plan.md", "exec"), {})  # noqa: S102 - the page's own words
    error, releases, verdict = capsys.readouterr().out.split(maxsplit=2)
    assert verdict.strip() == "worth it"
    row = next(line for line in TABLES[1][1].splitlines() if line.startswith("distributed")).split()
    assert (round(float(row[-2]), 2), row[-1]) == (float(error), releases)


def test_doctor_looks_at_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    run(doctor, ["--dir", "."])
    said = capsys.readouterr().out
    checks = ["Python", "packages", "the other scarcity", "clock", "entropy", "disk", "open files", "TCP"]
    assert [line for line in checks if not re.search(rf"^{line}\b", said, re.MULTILINE)] == []
