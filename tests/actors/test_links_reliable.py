"""The reliable channel: once only and in order, whatever a link within one life of both processes does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.errors import BadFrame, BadSetting
from actors.links.reliable import Message, ReliableConfig, ReliableReceiver, ReliableSender, held_bytes

CONFIG = ReliableConfig(window=4, resend_s=1.0, resend_s_max=8.0)


def text(number: int) -> Message:
    return (1, number.to_bytes(4), b"")


def number_of(message: Message) -> int:
    return int.from_bytes(message[1])


class Channel(RuleBasedStateMachine):
    """A sender and a receiver with a network in between that loses, repeats and reorders both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self.receiver = ReliableSender(CONFIG), ReliableReceiver(CONFIG)
        self.now = 0.0
        self.offered = 0
        self.flying: list[tuple[int, Message]] = []
        self.acks: list[tuple[int, int]] = []
        self.delivered: list[int] = []

    @rule(count=st.integers(1, 6))
    def offer(self, count: int) -> None:
        for _ in range(count):
            self.sender.offer(text(self.offered))
            self.offered += 1

    @rule()
    def send(self) -> None:
        self.flying += self.sender.due(self.now)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.flying:
            index = data.draw(st.integers(0, len(self.flying) - 1))  # any of them: reordered
            if data.draw(st.booleans()):
                number, message = self.flying.pop(index)
            else:
                number, message = self.flying[index]  # and it comes again
            if self.receiver.receive(number):
                self.delivered.append(number_of(message))
            self.acks.append(self.receiver.ack())

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        if self.acks:
            index = data.draw(st.integers(0, len(self.acks) - 1))
            self.sender.acked(*(self.acks.pop(index) if data.draw(st.booleans()) else self.acks[index]), self.now)

    @rule()
    def lose(self) -> None:
        self.flying, self.acks = self.flying[1:], self.acks[1:]

    @rule(seconds=st.floats(0.1, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.sender.tick(self.now)

    @rule()
    def reconnect(self) -> None:
        self.flying, self.acks = [], [self.receiver.ack()]
        self.sender.rewind()

    @invariant()
    def once_and_in_order(self) -> None:
        assert self.delivered == list(range(len(self.delivered)))
        assert self.sender.held == sum(held_bytes(text(n)) for n in range(len(self.sender)))
        assert len(self.sender) + len(self.delivered) >= self.offered

    def teardown(self) -> None:
        for _ in range(4 * self.offered + 4):  # the network heals: everything arrives in bounded time
            self.now += 10.0
            self.sender.tick(self.now)
            for number, message in self.sender.due(self.now):
                if self.receiver.receive(number):
                    self.delivered.append(number_of(message))
                self.sender.acked(*self.receiver.ack(), self.now)
        assert self.delivered == list(range(self.offered))
        assert len(self.sender) == self.sender.held == 0


TestChannel = Channel.TestCase
TestChannel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def sent(sender: ReliableSender, now: float = 0.0) -> list[int]:
    return [number for number, _ in sender.due(now)]


def filled(count: int) -> ReliableSender:
    sender = ReliableSender(CONFIG)
    for number in range(count):
        sender.offer(text(number))
    return sender


def test_one_message_probes_and_the_answer_opens_the_window() -> None:
    sender = filled(10)
    assert sent(sender) == [1]
    sender.acked(1, 4, 0.0)
    assert sent(sender) == [2, 3, 4, 5]
    assert sent(sender) == []


def test_the_receiver_says_how_much_it_takes() -> None:
    sender = filled(10)
    sent(sender)
    sender.acked(1, 2, 0.0)
    assert sent(sender) == [2, 3]
    sender.acked(3, 0, 0.0)  # nothing at all would leave nobody to say when it is over
    assert sent(sender) == [4]


def test_all_on_the_way_is_sent_again_after_the_timeout_which_doubles_and_progress_sets_back() -> None:
    sender = filled(3)
    sent(sender)
    sender.acked(1, 4, 0.0)
    assert sent(sender) == [2, 3]
    assert not sender.tick(0.99)
    assert sender.tick(1.0)
    assert sent(sender, 1.0) == [2, 3]
    assert not sender.tick(2.99)
    assert sender.tick(3.0)
    assert sent(sender, 3.0) == [2, 3]
    assert sender.num_resent == 4
    sender.acked(2, 4, 4.0)
    assert sender.tick(5.0)
    sender.acked(3, 4, 5.0)
    assert not sender.tick(1e9)


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    sender = filled(3)
    with pytest.raises(BadFrame):
        sender.acked(1, 4, 0.0)
    sent(sender)
    with pytest.raises(BadFrame):
        sender.acked(2, 4, 0.0)


def test_a_new_process_of_the_peer_gets_only_what_was_never_sent() -> None:
    sender = filled(6)
    sent(sender)
    sender.acked(1, 2, 0.0)
    assert sent(sender) == [2, 3]
    assert sender.restart() == 2  # 2 and 3 may have been handled
    assert [(number, number_of(message)) for number, message in sender.due(0.0)] == [(1, 3)]


def test_what_was_sent_once_counts_as_sent_after_going_back() -> None:
    sender = filled(2)
    sent(sender)
    sender.rewind()
    assert sender.restart() == 1


def test_a_duplicate_and_an_early_message_are_dropped_and_counted_and_one_beyond_the_window_is_refused() -> None:
    receiver = ReliableReceiver(CONFIG)
    assert [receiver.receive(number) for number in (1, 1, 3, 2, 3)] == [True, False, False, True, True]
    assert (receiver.num_duplicates, receiver.num_early) == (1, 1)
    with pytest.raises(BadFrame):
        receiver.receive(8)


@given(st.integers(0, 2**64 - 1))
def test_any_number_is_taken_dropped_or_a_bad_frame(number: int) -> None:
    receiver = ReliableReceiver(CONFIG)
    if number > 4:
        with pytest.raises(BadFrame):
            receiver.receive(number)
    else:
        assert receiver.receive(number) is (number == 1)


@pytest.mark.parametrize(
    "bad", [{"window": 0}, {"window": 1.5}, {"resend_s": 0.0}, {"resend_s": 9.0, "resend_s_max": 8.0}]
)
def test_a_bad_setting_is_named(bad: dict[str, float]) -> None:
    with pytest.raises(BadSetting, match=next(iter(bad)).split("_max")[0]):
        ReliableConfig(**bad)  # type: ignore[arg-type]  # wrong on purpose
