"""The guide's examples run, on both event loops, and print what the guide says."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "actors.md"


EXAMPLES = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_example_of_the_guide_is_followed_by_what_it_prints() -> None:
    assert len(EXAMPLES) == GUIDE.read_text(encoding="utf-8").count("```python")


@pytest.fixture
def _log_again() -> Iterator[None]:
    """One example switches logging off."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.virtual_time
@pytest.mark.usefixtures("_log_again")
@pytest.mark.parametrize(("code", "expected"), EXAMPLES, ids=[str(number) for number in range(len(EXAMPLES))])
def test_an_example_of_the_guide_prints_what_the_guide_says(
    anyio_backend: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    run, (backend, options) = anyio.run, anyio_backend
    if "TcpTransport" in code:  # sockets do not know of virtual time
        options = {}
    monkeypatch.setattr(anyio, "run", lambda main: run(main, backend=backend, backend_options=options))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, str(GUIDE), "exec"), {"__name__": "guide"})  # noqa: S102 - our own guide
    assert printed.getvalue() == expected
