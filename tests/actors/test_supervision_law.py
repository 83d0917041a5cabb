"""The law of restarts, without any actor: what it admits, how long it waits, what settings it refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors import Restart
from actors.errors import BadSetting
from actors.supervision import RestartLaw

settings = st.builds(
    Restart,
    kind=st.sampled_from(["transient", "permanent"]),
    max_restarts=st.integers(1, 6),
    within_s=st.sampled_from([0.5, 1.0, 10.0, 30.0]),
    backoff_s=st.sampled_from([0.001, 0.1, 1.0]),
    backoff_max_s=st.sampled_from([1.0, 8.0, 40.0]),
    jitter=st.sampled_from([0.0, 0.5, 1.0]),
)
shares = st.floats(0, 1, exclude_max=True)


def most_in_a_window(instants: list[float], within_s: float) -> int:
    """The obvious count: for each instant, those in the half-open window that ends with it."""
    return max((sum(end - within_s < at <= end for at in instants) for end in instants), default=0)


class Law(RuleBasedStateMachine):
    """Fail at any moment, let the restart begin in time or late, and look at the instants at which they began."""

    def __init__(self) -> None:
        super().__init__()
        self.law: RestartLaw | None = None
        self.now = 0.0
        self.began: list[float] = []
        self.down = False

    @precondition(lambda self: self.law is None or self.down)
    @rule(setting=settings)
    def spawn(self, setting: Restart) -> None:
        self.law, self.began, self.down = RestartLaw(setting), [], False

    @precondition(lambda self: self.law is not None and not self.down)
    @rule(alive_s=st.floats(0, 20), share=shares, late_s=st.sampled_from([0.0, 0.0, 0.01, 5.0]))
    def fail(self, alive_s: float, share: float, late_s: float) -> None:
        assert self.law is not None
        self.now += alive_s
        pause_s = self.law.plan(self.now, lambda: share)
        if pause_s is None:
            self.down = True
            return
        assert 0 <= pause_s <= self.law.setting.backoff_max_s
        self.now += pause_s + late_s
        self.law.began(self.now)
        self.began.append(self.now)

    @invariant()
    def never_too_many_within_the_window(self) -> None:
        if self.law is not None:
            setting = self.law.setting
            assert most_in_a_window(self.began, setting.within_s) <= setting.max_restarts
            if self.down:
                assert len(self.began) >= setting.max_restarts


TestLaw = Law.TestCase


@given(setting=settings, share=shares)
def test_failures_in_a_row_are_survived_exactly_as_often_as_the_setting_says_or_their_pauses_spread_them(
    setting: Restart, share: float
) -> None:
    law, now, began = RestartLaw(setting), 0.0, []
    for _ in range(50):
        pause_s = law.plan(now, lambda: share)
        if pause_s is None:
            assert len([at for at in began if at > now - setting.within_s]) == setting.max_restarts
            break
        now += pause_s
        law.began(now)
        began.append(now)
    assert most_in_a_window(began, setting.within_s) <= setting.max_restarts


def test_pauses_double_up_to_their_bound_and_start_anew_when_the_window_is_empty() -> None:
    law = RestartLaw(Restart(max_restarts=6, within_s=60, backoff_s=0.5, backoff_max_s=4, jitter=0))
    now, pauses = 0.0, []
    while (pause_s := law.plan(now, lambda: 0.9)) is not None:
        pauses.append(pause_s)
        now += pause_s
        law.began(now)
    assert pauses == [0.5, 1, 2, 4, 4, 4]
    assert law.plan(now + 60, lambda: 0.0) == 0.5


def test_jitter_takes_off_a_share_and_adds_nothing() -> None:
    law = RestartLaw(Restart(backoff_s=1.0, jitter=0.5))
    pauses = [law.plan(0.0, lambda share=share: share) for share in (0.0, 0.5, 0.999)]
    assert pauses == pytest.approx([1.0, 0.75, 0.5005])
    assert all(later < earlier for earlier, later in pairwise(pauses))


def test_very_many_restarts_overflow_nothing() -> None:
    law = RestartLaw(Restart(max_restarts=5000, within_s=1e9, backoff_s=1e-3, backoff_max_s=2.0, jitter=0))
    for number in range(5000):
        law.began(float(number))
    assert law.plan(5000.0, lambda: 0.0) is None
    assert law.plan(4.9e9, lambda: 0.0) == 1e-3


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"kind": "always"}, "kind"),
        ({"max_restarts": 0}, "max_restarts"),
        ({"max_restarts": True}, "max_restarts"),
        ({"max_restarts": 2.0}, "max_restarts"),
        ({"within_s": 0}, "within_s"),
        ({"within_s": float("inf")}, "within_s"),
        ({"backoff_s": -1}, "backoff_s"),
        ({"backoff_s": 5.0, "backoff_max_s": 1.0}, "backoff_max_s"),
        ({"jitter": 1.5}, "jitter"),
        ({"jitter": float("nan")}, "jitter"),
    ],
)
def test_a_bad_setting_is_refused_by_name(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(BadSetting, match=field):
        Restart(**arguments)  # type: ignore[arg-type]  # wrong on purpose
