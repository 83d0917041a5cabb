"""The page on links: its example prints what it says, and its tables have every kind, limit and reason."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import anyio
import attrs
import pytest

from actors.links import Limits

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "links.md"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_example_of_the_page_on_links_prints_what_the_page_says(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, expected = (
        re.search(rf"```{kind}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL) for kind in ("python", "text")
    )
    assert code is not None
    assert expected is not None
    run = anyio.run
    monkeypatch.setattr(anyio, "run", lambda main: run(main, backend=backend))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code[1], str(GUIDE), "exec"), {"__name__": "guide"})  # noqa: S102 - our own guide
    assert printed.getvalue() == expected[1]


def test_the_page_on_links_names_every_limit() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for field in attrs.fields(Limits):
        assert f"`{field.name}`" in text, field.name
