from __future__ import annotations

from hypothesis import settings


def test_a_slow_machine_is_no_failure_and_examples_are_the_same_every_time() -> None:
    assert settings().deadline is None
    assert settings().derandomize
