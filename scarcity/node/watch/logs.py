"""What a daemon says on stderr: lines for people, or one JSON object a line. Set up once, on the standard logging.

A JSON line has `at` (UTC, ISO 8601), `level`, `logger`, `event` and, where the caller gave `extra={"fields": {...}}`,
`fields`. Bytes and arrays are never written out, whoever logs them: their size stands in their place, so that neither a
key nor a vector gets into a log by mistake. What a peer has said is one line, whatever it holds.

A hostile peer must not fill the disk: of warnings that begin alike (the same logger and message, whatever was put into
it) so many are written in a minute, and of everything else that begins alike so many more; how many were not is said
with the next one, and counted.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TextIO

import attrs
import numpy as np

from scarcity.errors import ConfigError

LogFormat = Literal["human", "json"]
TEXT_MAX: Final = 2000  # characters of one event; a traceback comes beside it
_OWN: Final = ("scarcity", "actors")


@attrs.frozen
class RepeatLimit:
    """How often one thing may be said.

    Attributes:
        warnings: of one message at WARNING or above, in each period. 20 show what goes on.
        notices: of one message below that. A host of 200 members says 3 a member and round.
        per_s: the period.
        messages: different ones that are counted apart; all others share one count. Bounds memory, and with the rest
            the log: at 200 bytes a line 100 MB a day when one hostile peer does its worst.
    """

    warnings: int = attrs.field(default=20)
    notices: int = attrs.field(default=600)
    per_s: float = attrs.field(default=60.0)
    messages: int = attrs.field(default=256)

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(RepeatLimit):
            if not getattr(self, field.name) > 0:
                raise ConfigError(f"{field.name} must be positive, got {getattr(self, field.name)!r}")


@attrs.define(eq=False)
class _Count:
    since: float
    said: int = 0
    unsaid: int = 0


class RepeatFilter(logging.Filter):
    """Lets the first of a period through, and says how many there were beside them.

    Attributes:
        num_suppressed: records that were not written.
    """

    def __init__(self, limit: RepeatLimit | None = None, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limit = limit or RepeatLimit()
        self._now = now
        self._counts: dict[tuple[str, int, str], _Count] = {}
        self.num_suppressed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        now, loud = self._now(), record.levelno >= logging.WARNING
        key = (record.name, record.levelno, str(record.msg))
        if key not in self._counts and len(self._counts) >= self._limit.messages:
            key = ("", record.levelno, "")
        count = self._counts.setdefault(key, _Count(now))
        if now - count.since >= self._limit.per_s:
            if count.unsaid:
                record.unsaid = count.unsaid
            count.since, count.said, count.unsaid = now, 0, 0
        if count.said < (self._limit.warnings if loud else self._limit.notices):
            count.said += 1
            return True
        count.unsaid += 1
        self.num_suppressed += 1
        return False


def _tame(value: Any) -> Any:
    """Return a value as it may stand in a log."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, np.ndarray):
        return f"<array {value.shape}>"
    if isinstance(value, Mapping):
        return {str(key): _tame(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_tame(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | BaseException):
        return value
    return _one_line(str(value))


def _one_line(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return shown if len(shown) <= TEXT_MAX else f"{shown[:TEXT_MAX]} .. ({len(shown)} characters)"


def _event(record: logging.LogRecord) -> str:
    args = record.args
    if args:
        tame: Any = _tame(args) if isinstance(args, Mapping) else tuple(_tame(value) for value in args)
        try:
            text = str(record.msg) % tame
        except (TypeError, ValueError):  # a mistake of ours in a log call must not cost the event
            text = f"{record.msg} {tame!r}"
    else:
        text = str(_tame(record.msg))
    unsaid = getattr(record, "unsaid", 0)
    return _one_line(text) + (f" ({unsaid} more like this were not written)" if unsaid else "")


def _at(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")


class HumanFormatter(logging.Formatter):
    """Time, level and event on one line, which says what the fields hold; a traceback behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{_at(record)} {record.levelname:<7} {_event(record)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {"at": _at(record), "level": record.levelname, "logger": record.name, "event": _event(record)}
        if fields := getattr(record, "fields", None):
            said["fields"] = _tame(fields)
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def configure_logs(
    log_format: LogFormat,
    *,
    level: str = "INFO",
    stream: TextIO | None = None,
    limit: RepeatLimit | None = None,
    now: Callable[[], float] = time.monotonic,
) -> RepeatFilter:
    """Send what our loggers say to stderr; calling it again replaces what was set up before.

    Args:
        log_format: "human" or "json".
        level: least level that is written.
        stream: instead of stderr.
        limit: how often one thing may be said.
        now: clock of the limit, in seconds.

    Returns:
        What counts the records that were not written.

    Raises:
        ConfigError: an unknown format or level.
    """
    formatters: dict[str, logging.Formatter] = {"human": HumanFormatter(), "json": JsonFormatter()}
    if log_format not in formatters:
        raise ConfigError(f"log format must be one of {', '.join(formatters)}, got {log_format!r}")
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"log level must be one of DEBUG, INFO, WARNING, ERROR, got {level!r}")
    repeats = RepeatFilter(limit, now)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatters[log_format])
    handler.addFilter(repeats)
    for name in _OWN:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    return repeats
