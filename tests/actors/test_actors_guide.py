"""The guide's example runs, on both event loops, and prints what the guide says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "actors.md"


@pytest.mark.virtual_time
def test_the_guides_example_prints_what_the_guide_says(
    anyio_backend: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, expected = (
        re.search(rf"```{kind}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL) for kind in ("python", "text")
    )
    assert code is not None
    assert expected is not None
    run, (backend, options) = anyio.run, anyio_backend
    monkeypatch.setattr(anyio, "run", lambda main: run(main, backend=backend, backend_options=options))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code[1], str(GUIDE), "exec"), {"__name__": "guide"})  # noqa: S102 - our own guide
    assert printed.getvalue() == expected[1]
