"""When a failed actor starts again, after which pause, and when that has happened too often: the law of restarts.

| `kind` | an error | `ctx.stop()` | `system.stop(ref)`, its parent, the end of the system |
|---|---|---|---|
| `temporary` (default) | down | down | down |
| `transient` | starts again | down | down |
| `permanent` | starts again | starts again | down |

The law is pure: instants and random numbers are arguments. It counts the instants at which restarts began, and at most
`max_restarts` of them lie in any half-open window of `within_s` seconds. A failure whose restart would be one more is
not survived: the actor is down for good, and whoever spawned it from an actor is told. That is the intensity limit of
Erlang/OTP's supervisors. What differs: there is a pause before each restart, it doubles with every restart in the
window, and a random part is taken off, so that actors that failed together do not come back together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, get_args

import attrs

from actors.clock import check_seconds
from actors.errors import BadSetting

RestartKind = Literal["transient", "permanent", "temporary"]

_DOUBLINGS_MAX = 64  # beyond this the pause is above any bound, and the power would overflow one day


@attrs.frozen
class Restart:
    """Whether and how an actor starts again after it has failed.

    Attributes:
        kind: which ends it comes back from, see the module.
        max_restarts: restarts within the window, >= 1; one failure more and it is down for good.
        within_s: length of the window in seconds. The default tolerates a burst and gives up on a lasting fault.
        backoff_s: pause before the first restart of a window; it doubles with each further one.
        backoff_max_s: no pause is longer.
        jitter: share of a pause, 0 to 1, of which a random part is taken off.
    """

    kind: RestartKind = "transient"
    max_restarts: int = 5
    within_s: float = 30.0
    backoff_s: float = 0.1
    backoff_max_s: float = 10.0
    jitter: float = 0.5

    def __attrs_post_init__(self) -> None:
        if self.kind not in get_args(RestartKind):
            raise BadSetting(f"kind: expected one of {', '.join(get_args(RestartKind))}, got {self.kind!r}")
        if type(self.max_restarts) is not int or self.max_restarts < 1:
            raise BadSetting(f"max_restarts: expected an integer >= 1, got {self.max_restarts!r}")
        for name in ("within_s", "backoff_s", "backoff_max_s"):
            check_seconds(name, getattr(self, name))
        if self.backoff_max_s < self.backoff_s:
            raise BadSetting(f"backoff_max_s: expected at least backoff_s ({self.backoff_s}), got {self.backoff_max_s}")
        if not 0 <= self.jitter <= 1:
            raise BadSetting(f"jitter: expected a share from 0 to 1, got {self.jitter!r}")


class RestartLaw:
    """The memory of one actor's restarts, and what follows from it."""

    __slots__ = ("_began_at", "setting")

    def __init__(self, setting: Restart) -> None:
        self.setting = setting
        self._began_at: deque[float] = deque(maxlen=setting.max_restarts)

    def plan(self, now: float, rng: Callable[[], float]) -> float | None:
        """Return the pause before the next restart in seconds, or `None`: it would be one too many.

        Args:
            now: the instant of the failure.
            rng: uniform in [0, 1), drawn once.
        """
        recent = self._since(now)
        longest = min(self.setting.backoff_max_s, math.ldexp(self.setting.backoff_s, min(recent, _DOUBLINGS_MAX)))
        pause_s = longest * (1 - self.setting.jitter * rng())
        # The window is that of the instant at which the restart would begin, not of the failure: only this bounds
        # the restarts themselves, whatever the pauses.
        return pause_s if self._since(now + pause_s) < self.setting.max_restarts else None

    def began(self, now: float) -> None:
        """Count a restart that begins now, at the planned instant or later."""
        self._began_at.append(now)

    def _since(self, now: float) -> int:
        return sum(at > now - self.setting.within_s for at in self._began_at)
