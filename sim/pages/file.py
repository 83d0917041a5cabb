"""`--report FILE.html`: refused before the run when it could not be written, and never half-written after it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scarcity.errors import ConfigError
from scarcity.node.files import require_writable, write_whole

_OPTION: Final = "--report"


def require_page(path: Path) -> None:
    """Refuse a page that could not be written, before its run has been for nothing.

    Raises:
        ConfigError: no file can be made there.
    """
    if str(path) == "-":
        raise ConfigError(f"{_OPTION} -: a page needs a file; give its name")
    require_writable(path, _OPTION)


def write_page(path: Path, page: str) -> None:
    """Write a page: whoever opens it finds all of it, or the one that was there before.

    Raises:
        ConfigError: it cannot be written; what was there before is untouched.
    """
    write_whole(path, page.encode("utf-8", errors="replace"), _OPTION)
