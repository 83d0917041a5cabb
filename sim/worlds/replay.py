"""Run a capsule again and say where the run leaves the path of the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import attrs

from scarcity.errors import ConfigError
from sim.worlds.capsule import Capsule
from sim.worlds.checkers import Checker
from sim.worlds.result import SimResult


@attrs.frozen
class Difference:
    """The first event that is another one.

    Attributes:
        number: of the event, from 1.
        was: its line in the trace file; empty: that one has ended.
        now: its line in this run; empty: the run has ended.
    """

    number: int
    was: str
    now: str


class Against:
    """A trace file that a run is compared with while it runs.

    Args:
        path: the file, one JSON object a line.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._count = 0
        self.difference: Difference | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(f"--against {self._path}: cannot be read: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, line: str) -> None:
        """Compare the next event."""
        self._count += 1
        if self.difference is None and (was := self._next()) != line:
            self.difference = Difference(self._count, was, line)

    def end(self) -> None:
        """Compare the end."""
        if self.difference is None and (was := self._next()):
            self.difference = Difference(self._count + 1, was, "")

    def _next(self) -> str:
        assert self._file is not None, "inside of its context"
        return self._file.readline().rstrip("\n")


@attrs.frozen
class Replayed:
    """What came of a replay.

    Attributes:
        result: of this run.
        same: whether the trace hash is the capsule's.
        difference: the first event that is another one, where a trace file says so.
    """

    result: SimResult
    same: bool
    difference: Difference | None


def replay(
    capsule: Capsule,
    against: Path | None = None,
    watch: Iterable[Checker] = (),
    sink: Callable[[str], object] | None = None,
) -> Replayed:
    """Run a capsule again.

    Args:
        capsule: the run.
        against: trace file of the first run; None: only the hashes are compared.
        watch: beside the checkers.
        sink: takes each line of this run's trace.

    Raises:
        ConfigError: the trace file cannot be read or is another run's, or the plan names a group without members.
    """
    if against is None:
        result = capsule.run(watch, sink)
        return Replayed(result, result.trace_hash == capsule.trace_hash, None)
    with Against(against) as trace:
        result = capsule.run(watch, tee(trace.take, sink))
        trace.end()
    same, differs = result.trace_hash == capsule.trace_hash, trace.difference
    if same and differs is not None:
        raise ConfigError(
            f"--against {against}: is no trace of this run, whose hash is the capsule's {capsule.trace_hash}: event "
            f"{differs.number} there is {differs.was[:200] or 'the end'}, here {differs.now[:200] or 'the end'}"
        )
    return Replayed(result, same, differs)


def tee(*sinks: Callable[[str], object] | None) -> Callable[[str], object] | None:
    """Return a sink that hands each line to all of these; None when there is none."""
    asked = [sink for sink in sinks if sink is not None]
    if len(asked) <= 1:
        return asked[0] if asked else None

    def take(line: str) -> None:
        for sink in asked:
            sink(line)

    return take
