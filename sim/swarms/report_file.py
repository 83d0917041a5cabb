"""`--report FILE.html`: refused before the run when it could not be written, and never half-written after it.

The pictures need the extra [report]; nothing of it is imported before a report is asked for.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol, cast

from scarcity.errors import ConfigError
from scarcity.node.files import require_writable, write_whole
from sim.swarms.report import SwarmResult

_OPTION: Final = "--report"
_INSTALL: Final = "python -m pip install 'scarcity-federation[report]'"


class _Pages(Protocol):
    def render_page(self, result: SwarmResult) -> str: ...


def require_report(path: Path) -> None:
    """Refuse a report that could not be made, before a swarm has run for nothing.

    Raises:
        ConfigError: matplotlib is missing, or no file can be made there.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{_OPTION} needs matplotlib: {_INSTALL}")
    if str(path) == "-":
        raise ConfigError(f"{_OPTION} -: a page needs a file; give its name")
    require_writable(path, _OPTION)


def write_report(path: Path, result: SwarmResult) -> None:
    """Write the page: whoever opens it finds all of it, or the one that was there before.

    Raises:
        ConfigError: it cannot be written; what was there before is untouched.
    """
    pages = cast("_Pages", importlib.import_module("sim.swarms.report_html"))
    write_whole(path, pages.render_page(result).encode("utf-8", errors="replace"), _OPTION)
