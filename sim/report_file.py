"""`--report FILE.html`: refused before the run when it could not be written, and never half-written after it.

The pictures need the extra [report]; nothing of it is imported before a report is asked for.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol, cast

from scarcity.errors import ConfigError
from sim.report import SwarmResult

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
    if str(path) == "-":
        raise ConfigError("--report -: a page needs a file; give its name")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"--report {path}: the file there is read-only")
        # Only trying tells: permissions, a full or read-only disk, a parent that is missing or a file.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--report {path}: cannot write into {path.parent}: {error.strerror}") from None


def write_report(path: Path, result: SwarmResult) -> None:
    """Write the page beside its place, then move it there: whoever opens it finds all of it, or the old one.

    Raises:
        ConfigError: it cannot be written; what was there before is untouched.
    """
    pages = cast("_Pages", importlib.import_module("sim.report_html"))
    page = pages.render_page(result).encode("utf-8", errors="replace")
    beside: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".scarcity-report-", delete=False) as file:
            beside = Path(file.name)
            file.write(page)
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise ConfigError(f"--report {path}: {error.strerror}") from None


def _umask() -> int:
    """Return the mask that a plainly opened file would have got; it can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
