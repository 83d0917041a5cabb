"""`scarcity swarm --report FILE.html`: the pages of `sim.pages`, with the pictures of `sim.swarms.report_html`.

The pictures need the extra [report]; nothing of it is imported before a report is asked for.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol, cast

from scarcity.errors import ConfigError
from sim.pages import require_page, write_page
from sim.swarms.report import SwarmResult

_INSTALL: Final = "python -m pip install 'scarcity-federation[report]'"


class _Pages(Protocol):
    def render_page(self, result: SwarmResult) -> str: ...


def require_report(path: Path) -> None:
    """Refuse a report that could not be made, before a swarm has run for nothing.

    Raises:
        ConfigError: matplotlib is missing, or no file can be made there.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(f"--report needs matplotlib: {_INSTALL}")
    require_page(path)


def write_report(path: Path, result: SwarmResult) -> None:
    """Write the page: whoever opens it finds all of it, or the one that was there before.

    Raises:
        ConfigError: it cannot be written; what was there before is untouched.
    """
    pages = cast("_Pages", importlib.import_module("sim.swarms.report_html"))
    write_page(path, pages.render_page(result))
