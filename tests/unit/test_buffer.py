"""Late contributions count once, in the next round, with less weight."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.errors import ConfigError
from scarcity.federation.buffer import Added, BufferEntry, UpdateBuffer


def buffer(max_staleness: int = 2, half_life_rounds: float = 1.0, capacity: int = 100) -> UpdateBuffer[str]:
    return UpdateBuffer(max_staleness, half_life_rounds, capacity)


def test_a_round_takes_its_entries_sorted_by_client() -> None:
    held = buffer()
    for name in ("c", "a", "b"):
        assert held.add(name, 5, f"{name}5") is Added.STORED
    assert held.senders(5) == ("a", "b", "c")
    assert held.close(5) == tuple(BufferEntry(name, 5, f"{name}5", 1.0) for name in "abc")
    assert len(held) == 0


def test_a_late_entry_counts_in_the_next_round_with_half_the_weight() -> None:
    held = buffer()
    held.close(5)
    assert held.add("a", 5, "late") is Added.LATE
    assert held.close(6) == (BufferEntry("a", 5, "late", 0.5),)


def test_a_late_entry_gives_way_to_a_newer_one_of_its_sender() -> None:
    held = buffer()
    held.close(5)
    held.add("a", 5, "late")
    held.add("a", 6, "new")
    assert held.close(6) == (BufferEntry("a", 6, "new", 1.0),)
    assert held.add("a", 5, "late") is Added.SUPERSEDED


def test_nothing_counts_twice() -> None:
    held = buffer()
    held.add("a", 5, "x")
    held.close(5)
    assert held.add("a", 5, "x") is Added.SUPERSEDED
    assert held.close(6) == ()


def test_one_client_has_one_entry_a_round() -> None:
    held = buffer()
    held.add("a", 5, "x")
    assert held.add("a", 5, "y") is Added.OCCUPIED
    assert held.close(5)[0].item == "x"


def test_entries_older_than_the_staleness_are_worthless() -> None:
    held = buffer(max_staleness=2)
    held.close(5)
    assert held.add("a", 3, "x") is Added.TOO_OLD
    assert held.add("a", 4, "x") is Added.LATE
    assert held.close(6)[0].age_weight == 0.25
    fresh_only = buffer(max_staleness=0)
    fresh_only.close(5)
    assert fresh_only.add("a", 5, "x") is Added.TOO_OLD


def test_an_entry_of_a_coming_round_waits_for_it() -> None:
    held = buffer()
    held.add("a", 6, "x")
    assert held.close(5) == ()
    assert held.close(6) == (BufferEntry("a", 6, "x", 1.0),)


def test_an_infinite_half_life_ignores_age() -> None:
    held = buffer(half_life_rounds=math.inf)
    held.close(5)
    held.add("a", 4, "x")
    assert held.close(6)[0].age_weight == 1.0


def test_the_capacity_holds_and_its_hits_are_counted() -> None:
    held = buffer(capacity=2)
    assert [held.add(name, 1, name) for name in "abc"] == [Added.STORED, Added.STORED, Added.FULL]
    assert held.counts[Added.FULL] == 1
    assert held.senders(1) == ("a", "b")


def test_a_client_that_left_or_an_entry_that_was_disproved_is_dropped() -> None:
    held = buffer()
    for round_id in (5, 6):
        for name in "ab":
            held.add(name, round_id, name)
    assert held.drop_client("a") == 2
    assert held.remove("b", 5)
    assert not held.remove("b", 5)
    assert held.close(5) == ()
    assert [entry.client_id for entry in held.close(6)] == ["b"]


@pytest.mark.parametrize(
    ("staleness", "half_life", "capacity"), [(-1, 1.0, 1), (1, 0.0, 1), (1, math.nan, 1), (1, 1.0, 0)]
)
def test_settings_out_of_range_are_refused(staleness: int, half_life: float, capacity: int) -> None:
    with pytest.raises(ConfigError):
        UpdateBuffer(staleness, half_life, capacity)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 9)) | st.just(None),
    max_size=60,
)


@given(OPERATIONS, st.integers(0, 3), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_buffer_agrees_with_the_obvious_account_of_all_that_came(
    operations: list[tuple[str, int] | None], max_staleness: int, half_life: float
) -> None:
    held = buffer(max_staleness, half_life)
    came: dict[str, set[int]] = defaultdict(set)
    used: dict[str, int] = {}
    round_id = 0
    for operation in operations:
        if operation is not None:
            held.add(*operation, f"{operation}")
            came[operation[0]].add(operation[1])
            continue
        expected = []
        for name in sorted(came):
            usable = [r for r in came[name] if round_id - max_staleness <= r <= round_id and r > used.get(name, -1)]
            if usable:
                used[name] = max(usable)
                expected.append((name, max(usable), 0.5 ** ((round_id - max(usable)) / half_life)))
        assert [(e.client_id, e.round_id, pytest.approx(e.age_weight)) for e in held.close(round_id)] == expected
        round_id += 1
