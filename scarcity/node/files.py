"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from scarcity.errors import ConfigError


def require_writable(path: Path, option: str, *, replace: bool = True) -> None:
    """Refuse a file that could not be written, before the work for it is done in vain.

    Args:
        path: where the file will be.
        option: what the user called it, for the message.
        replace: whether a file that is there already may be replaced.

    Raises:
        ConfigError: no such folder, no permission, a folder of that name, or a file that must not be replaced.
    """
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long
        raise ConfigError(f"{option} {path}: {error.strerror}") from None
    if is_folder:
        raise ConfigError(f"{option} {path}: is a folder; name a file")
    device = _is_device(path)
    place = path if device else path.parent
    if not os.access(place, os.W_OK) or not (device or place.is_dir()):
        raise ConfigError(f"{option} {path}: cannot write into {place}")
    if not replace and path.exists():
        raise ConfigError(f"{option} {path}: is there already; --force replaces it")


def write_whole(path: Path, data: bytes, option: str) -> None:
    """Write a file under another name and rename it, so that nobody ever finds half of it.

    Raises:
        ConfigError: it cannot be written; what was there before is unchanged.
    """
    draft = ""
    try:
        if _is_device(path):
            path.write_bytes(data)
            return
        path = path.resolve()  # a link stays, what it points to is replaced
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's file is for the owner alone; the new one gets what the process gives any new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(draft).chmod(0o666 & ~mask)
        Path(draft).replace(path)
    except OSError as error:
        if draft:
            Path(draft).unlink(missing_ok=True)
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def _is_device(path: Path) -> bool:
    """Say whether the path is a pipe or device such as /dev/null: it is written to, never replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()
