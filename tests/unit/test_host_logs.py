"""What a daemon writes to stderr: its form, what it never holds, and how much of it there can be."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from scarcity.errors import ConfigError
from scarcity.node.watch.logs import RepeatFilter, RepeatLimit, configure_logs

LOG = logging.getLogger("scarcity.node")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("scarcity", "actors")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def configured(log_format: Any = "json", **settings: Any) -> tuple[io.StringIO, RepeatFilter]:
    stream = io.StringIO()
    return stream, configure_logs(log_format, stream=stream, **settings)


def test_a_json_line_has_at_level_logger_event_and_fields() -> None:
    stream, _ = configured()
    LOG.info("%s: round %d", "basket/a", 3, extra={"fields": {"round": 3, "members": ("x", "y")}})
    said = json.loads(stream.getvalue())
    assert said.pop("at").endswith("+00:00")
    assert said == {
        "level": "INFO",
        "logger": "scarcity.node",
        "event": "basket/a: round 3",
        "fields": {"round": 3, "members": ["x", "y"]},
    }


def test_a_line_for_people_has_all_on_one_line() -> None:
    stream, _ = configured("human")
    LOG.warning("no link", extra={"fields": {"node": "beta"}})
    assert stream.getvalue().split(" ", 1)[1] == "WARNING no link\n"


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_no_bytes_and_no_array_are_written_out(log_format: str) -> None:
    stream, _ = configured(log_format)
    secret, vector = b"\x07" * 32, np.full(3, 1234.5)
    LOG.info("key %s of %s", secret, vector, extra={"fields": {"k": secret, "inner": {"v": [vector]}}})
    LOG.info(secret)
    text = stream.getvalue()
    assert "1234" not in text
    assert "x07" not in text
    assert text.count("<32 bytes>") == (3 if log_format == "json" else 2)
    assert "<array (3,)>" in text


def test_what_a_peer_says_is_one_line_and_no_longer_than_its_bound() -> None:
    stream, _ = configured("human")
    LOG.info("%s", "no\n2026-01-01 INFO all is well\x1b[2J")
    LOG.info("%s", "x" * 10_000)
    first, second = stream.getvalue().splitlines()
    assert "\\n2026" in first
    assert "\x1b" not in first
    assert len(second) < 2100


def test_a_wrong_log_call_costs_no_event_and_a_traceback_is_kept() -> None:
    stream, _ = configured()
    LOG.info("%d of %d", "x")
    LOG.error("failed", exc_info=ZeroDivisionError("no"))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert "%d of %d" in first["event"]
    assert "ZeroDivisionError" in second["traceback"]


def test_a_hostile_peer_gets_so_many_lines_a_minute_and_the_rest_is_counted() -> None:
    clock = Clock()
    stream, repeats = configured(limit=RepeatLimit(warnings=3), now=clock)
    for number in range(1000):
        LOG.warning("%s refuses %s: %s", "basket/a", f"evil{number}", "nonsense")
    LOG.info("round %d", 1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert repeats.num_suppressed == 997
    clock.now = 60.0
    LOG.warning("%s refuses %s: %s", "basket/a", "evil", "nonsense")
    last = json.loads(stream.getvalue().splitlines()[-1])["event"]
    assert last == "basket/a refuses evil: nonsense (997 more like this were not written)"


def test_messages_without_end_share_one_count() -> None:
    stream, repeats = configured(limit=RepeatLimit(warnings=2, messages=4), now=Clock())
    for number in range(100):
        LOG.warning(f"made up {number}")
    assert len(stream.getvalue().splitlines()) == 6
    assert repeats.num_suppressed == 94


def test_it_is_set_up_once_and_nonsense_is_refused() -> None:
    configured()
    stream, _ = configured(level="WARNING")
    LOG.info("quiet")
    LOG.warning("loud")
    assert len(stream.getvalue().splitlines()) == 1
    for settings in ({"log_format": "xml"}, {"level": "LOUD"}):
        with pytest.raises(ConfigError, match="must be one of"):
            configured(**settings)
    with pytest.raises(ConfigError, match="warnings must be positive"):
        RepeatLimit(warnings=0)
