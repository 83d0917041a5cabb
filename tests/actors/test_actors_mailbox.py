"""Mailboxes: the bound, the policies, the order, the counts."""

from __future__ import annotations

from collections import deque

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import ActorStopped, BadSetting, MailboxFull
from actors.mailbox import Activity, Envelope, Inbox, Mailbox, Overflow


def envelope(message: object) -> Envelope:
    return Envelope(message, None, None, None)


def drain(inbox: Inbox) -> list[object]:
    taken = []
    while (found := inbox.take()) is not None:
        taken.append(found.message)
    return taken


def fill(setting: Mailbox, messages: list[int]) -> tuple[Inbox, int]:
    inbox, refused = Inbox(setting, Activity()), 0
    for message in messages:
        try:
            inbox.offer(envelope(message))
        except MailboxFull:
            refused += 1
    return inbox, refused


@pytest.mark.parametrize(
    ("overflow", "kept", "refused"),
    [("reject", [1, 2], 1), ("block", [1, 2], 1), ("drop_oldest", [2, 3], 0), ("drop_newest", [1, 2], 0)],
)
def test_a_full_mailbox_does_what_its_policy_says(overflow: Overflow, kept: list[int], refused: int) -> None:
    inbox, got = fill(Mailbox(2, overflow), [1, 2, 3])
    statistics = inbox.statistics()
    assert (drain(inbox), got) == (kept, refused)
    assert (statistics.rejected, statistics.dropped) == (refused, 1 - refused)
    assert statistics.high_water == 2


def test_conflation_keeps_the_newest_of_a_key_and_never_lets_it_overtake() -> None:
    inbox, refused = fill(Mailbox(2, "conflate", key=lambda message, _: message % 10), [1, 2, 11, 3])
    assert drain(inbox) == [2, 11]
    assert refused == 1
    assert inbox.statistics().conflated == 1


@given(
    policy=st.sampled_from(["reject", "drop_oldest", "drop_newest"]),
    capacity=st.integers(1, 4),
    steps=st.lists(st.booleans(), max_size=60),
)
def test_a_mailbox_equals_an_obvious_list_with_a_bound(policy: Overflow, capacity: int, steps: list[bool]) -> None:
    inbox, twin, got, expected = Inbox(Mailbox(capacity, policy), Activity()), deque[int](), [], []
    for number, put in enumerate(steps):
        if not put:
            found = inbox.take()
            got.append(None if found is None else found.message)
            expected.append(twin.popleft() if twin else None)
            continue
        if len(twin) < capacity:
            twin.append(number)
        elif policy == "drop_oldest":
            twin.popleft()
            twin.append(number)
        try:
            inbox.offer(envelope(number))
        except MailboxFull:
            assert policy == "reject"
    assert got == expected
    assert drain(inbox) == list(twin)
    statistics = inbox.statistics()
    refused = statistics.rejected + (statistics.dropped if policy == "drop_newest" else 0)
    assert statistics.accepted + refused == sum(steps)
    assert statistics.high_water <= capacity


def test_the_control_lane_is_drained_first() -> None:
    inbox, _ = fill(Mailbox(2), [1, 2])
    inbox.control(envelope("down"))
    assert drain(inbox) == ["down", 1, 2]


@pytest.mark.anyio
async def test_those_who_wait_get_room_in_their_order_and_nobody_overtakes() -> None:
    inbox, _ = fill(Mailbox(1), [0])
    for number in (1, 2):
        inbox.enlist(envelope(number), anyio.Event())
    assert inbox.take() == envelope(0)
    with pytest.raises(MailboxFull):
        inbox.offer(envelope(3))
    assert drain(inbox) == [1, 2]


@pytest.mark.anyio
async def test_a_closed_mailbox_refuses_those_in_line_and_keeps_what_it_has() -> None:
    inbox, _ = fill(Mailbox(1), [0])
    waiting = inbox.enlist(envelope(1), anyio.Event())
    inbox.close()
    assert waiting.refused
    with pytest.raises(ActorStopped):
        inbox.offer(envelope(2))
    assert drain(inbox) == [0]


@pytest.mark.anyio
async def test_a_parked_receiver_is_idle_until_something_comes() -> None:
    activity = Activity()
    inbox = Inbox(Mailbox(1), activity)
    activity.begin()
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.park)
        await activity.wait_idle()
        inbox.offer(envelope(1))
        assert activity.num_active == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"overflow": "grow"}, "overflow"),
        ({"overflow": "conflate"}, "key"),
        ({"key": lambda message, sender: message}, "key"),
    ],
)
def test_a_bad_setting_is_refused_by_name(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(BadSetting, match=field):
        Mailbox(**arguments)  # type: ignore[arg-type]  # wrong on purpose
