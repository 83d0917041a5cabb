"""Hello, the gate, who wins of two links, and one peer's link as a pure machine."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import BadFrame, BadSetting, LinkFull
from actors.links.frame import encode_frame, split_frame
from actors.links.link import PeerLink
from actors.links.reliable import ReliableConfig
from actors.links.session import (
    HELLO,
    WELCOME,
    Gate,
    Hello,
    Limits,
    LinkRefused,
    Refusal,
    TokenBucket,
    decode_hello,
    encode_refuse,
    judge,
    keep_old,
)

KEYS = {"a": b"a" * 32, "b": b"b" * 32}


def hello(node: str, **other: object) -> Hello:
    values = {
        "federation": "fed",
        "node": node,
        "to": "ab".replace(node, ""),
        "incarnation": b"i" * 16,
        "key": node.encode() * 32,
        "first": 100,
    }
    return Hello(**(values | other))  # type: ignore[arg-type]  # the values fit, or are wrong on purpose


hellos = st.builds(
    Hello,
    federation=st.text(min_size=1, max_size=60),
    node=st.text(min_size=1, max_size=60),
    to=st.text(min_size=1, max_size=60),
    incarnation=st.binary(min_size=16, max_size=16),
    key=st.binary(min_size=32, max_size=32),
    first=st.integers(0, 2**48 - 1),
)


def first_frame(wire: bytes) -> tuple[int, bytes, bytes | memoryview]:
    split = split_frame(wire, 4096)
    assert split is not None
    assert split[1] == b""
    return split[0]


@given(hellos, st.sampled_from([HELLO, WELCOME]))
def test_a_hello_comes_back_as_it_was(said: Hello, kind: int) -> None:
    assert decode_hello(first_frame(said.encode(kind)), kind) == said


@given(hellos, st.data())
def test_a_hello_that_is_cut_or_bent_is_refused_or_another_hello(said: Hello, data: st.DataObject) -> None:
    _, header, _ = first_frame(said.encode(HELLO))
    bent = bytearray(header)
    bent[data.draw(st.integers(0, len(bent) - 1))] ^= data.draw(st.integers(1, 255))
    for raw in (bytes(bent), header[: data.draw(st.integers(0, len(header) - 1))], header + b"x"):
        with contextlib.suppress(BadFrame, LinkRefused):
            assert decode_hello((HELLO, raw, b""), HELLO) != said


def test_the_longest_hello_fits_before_welcome() -> None:
    assert len(hello("n" * 255, to="t" * 255, federation="f" * 255, key=bytes(32)).encode(HELLO)) < 900


def test_another_version_is_told_from_garbage_whatever_follows() -> None:
    with pytest.raises(LinkRefused) as refused:
        decode_hello((HELLO, b"SCFL\x09\x00what comes later", b""), HELLO)
    assert refused.value.reason is Refusal.WRONG_VERSION
    with pytest.raises(BadFrame):
        decode_hello((HELLO, b"HTTP\x01\x00", b""), HELLO)


@pytest.mark.parametrize("reason", list(Refusal))
def test_every_reason_travels(reason: Refusal) -> None:
    with pytest.raises(LinkRefused) as refused:
        decode_hello(first_frame(encode_refuse(reason)), WELCOME)
    assert refused.value.reason is reason


def test_an_unknown_reason_is_still_a_refusal() -> None:
    for header in (b"\xff", b""):
        with pytest.raises(LinkRefused) as refused:
            decode_hello((3, header, b""), WELCOME)
        assert refused.value.reason is Refusal.OTHER


@pytest.mark.parametrize(
    ("said", "proven", "expected", "verdict"),
    [
        (hello("b"), None, None, None),
        (hello("b"), KEYS["b"], "b", None),
        (hello("b", federation="other"), None, None, Refusal.WRONG_FEDERATION),
        (hello("b", to="c"), None, None, Refusal.NOT_EXPECTED),
        (hello("x", to="a"), None, None, Refusal.UNKNOWN_NODE),
        (hello("a"), None, None, Refusal.UNKNOWN_NODE),
        (hello("b", key=KEYS["a"]), None, None, Refusal.WRONG_KEY),
        (hello("b"), KEYS["a"], None, Refusal.WRONG_KEY),
        (hello("b"), KEYS["b"], "c", Refusal.NOT_EXPECTED),
    ],
)
def test_a_hello_is_judged(said: Hello, proven: bytes | None, expected: str | None, verdict: Refusal | None) -> None:
    assert judge(said, hello("a"), KEYS, proven_key=proven, expected=expected) is verdict


@given(st.booleans(), st.booleans(), st.sampled_from([("a", "b"), ("b", "a")]))
def test_both_ends_agree_which_of_two_links_stays(one: bool, other: bool, ends: tuple[str, str]) -> None:
    me, peer = ends
    here = keep_old(me, peer, old_dialed=one, new_dialed=other, same_process=True)
    there = keep_old(peer, me, old_dialed=not one, new_dialed=not other, same_process=True)
    assert here == there
    if one != other:  # seen in the other order, the other is the old one, and the same link stays
        assert keep_old(me, peer, old_dialed=other, new_dialed=one, same_process=True) is not here
    assert not keep_old(me, peer, old_dialed=one, new_dialed=other, same_process=False)


def test_the_gate_counts_in_all_and_by_address() -> None:
    gate = Gate(Limits(half_open_max=3, half_open_per_address_max=2))
    assert [gate.enter(who) for who in "xxx"] == [None, None, Refusal.HALF_OPEN_ADDRESS]
    assert gate.enter("y") is None
    assert gate.enter("z") is Refusal.HALF_OPEN
    gate.leave("x")
    assert gate.enter("z") is None
    for who in "xyz":
        gate.leave(who)
    assert gate.num_open == 0
    assert not gate._by_address


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), max_size=30))
def test_who_waits_as_told_never_spends_more_than_burst_and_rate(steps: list[tuple[float, float]]) -> None:
    rate, burst, now, spent = 10.0, 20.0, 0.0, 0.0
    bucket = TokenBucket(rate, burst, 0.0)
    for pause, cost in steps:
        now += pause
        wait = bucket.spend(cost, now)
        spent += cost
        now += wait
        assert spent <= burst + rate * now + 1e-6


@pytest.mark.parametrize(
    "bad",
    [
        {"hello_s": 0.0},
        {"half_open_max": 0},
        {"hello_bytes_max": 100},
        {"frame_bytes_max": 1000},
        {"budget_out_bytes": 5},
        {"budget_in_bytes": 4 * 1024 * 1024},
        {"tokens_per_s": float("nan")},
    ],
)
def test_a_bad_limit_is_named(bad: dict[str, float]) -> None:
    with pytest.raises(BadSetting, match=next(iter(bad))):
        Limits(**bad)  # type: ignore[arg-type]  # wrong on purpose


def linked(limits: Limits | None = None, window: int = 8) -> tuple[PeerLink, PeerLink]:
    """Two ends of a link that is up at 0 s."""
    limits, reliable = limits or Limits(), ReliableConfig(window=window)
    at_a, at_b = PeerLink("b", limits, reliable), PeerLink("a", limits, reliable)
    at_a.open(hello("b", first=7), hello("a"), 0.0)
    at_b.open(hello("a"), hello("b", first=7), 0.0)
    return at_a, at_b


def wire(link: PeerLink, now: float = 0.0) -> bytes:
    data = b""
    while pieces := link.take(now):
        data += b"".join(pieces)
        link.sent()
    return data


def test_a_message_crosses_and_its_budget_comes_back_when_it_is_sent() -> None:
    a, b = linked()
    a.send(5, b"head", b"blob", reliable=False)
    assert a.statistics().held_bytes == 72
    assert b.receive(wire(a), 0.0) == ([(5, b"head", b"blob")], 0.0)
    assert a.statistics().held_bytes == 0
    assert b.fault is None


def test_a_frame_that_comes_again_or_out_of_turn_ends_the_link() -> None:
    a, b = linked()
    wire(a)
    a.send(5, b"one", b"", reliable=False)
    one = wire(a)
    a.send(5, b"two", b"", reliable=False)
    two = wire(a)
    _, other = linked()
    assert other.receive(two, 0.0) == ([], 0.0)  # a gap
    assert other.fault is Refusal.REPLAYED
    b = linked()[1]
    b.receive(wire(linked()[0]), 0.0)
    messages, _ = b.receive(one + one + two, 0.0)
    assert messages == [(5, b"one", b"")]
    assert b.fault is Refusal.REPLAYED


def test_what_was_recorded_on_one_link_is_refused_on_another() -> None:
    a, _ = linked()
    a.send(5, b"one", b"", reliable=False)
    recorded = wire(a)
    b = PeerLink("a", Limits(), ReliableConfig())
    b.open(hello("a"), hello("b", first=8), 0.0)
    assert b.receive(recorded, 0.0)[0] == []
    assert b.fault is Refusal.REPLAYED


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(0x41, b"short"),
        encode_frame(0xC1, (7).to_bytes(8, "little")),
        encode_frame(0xC1, (7).to_bytes(8, "little") + (0).to_bytes(7, "little")),
        encode_frame(0xC1, (7).to_bytes(8, "little") + (9).to_bytes(8, "little")),  # beyond the window
        encode_frame(4, (7).to_bytes(8, "little")),
        encode_frame(4, (7).to_bytes(8, "little") + bytes([5]) + bytes(11)),  # acknowledges what was not sent
        encode_frame(1, (7).to_bytes(8, "little")),  # Hello again
        encode_frame(0x80, (7).to_bytes(8, "little")),
        encode_frame(0, (7).to_bytes(8, "little")),
        b"\xff" * 9,
    ],
)
def test_a_frame_without_meaning_ends_the_link(frame: bytes) -> None:
    _, b = linked()
    assert b.receive(frame, 0.0)[0] == []
    assert b.fault is Refusal.BAD_FRAME


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_garbage_never_raises(chunks: list[bytes]) -> None:
    _, b = linked()
    for chunk in chunks:
        b.receive(chunk, 0.0)


def test_a_frame_must_end_in_time_however_it_dribbles() -> None:
    a, b = linked()
    a.send(5, b"head", bytes(100), reliable=False)
    data = wire(a)
    for now, at in enumerate(range(len(data) - 11, len(data) - 1)):
        b.receive(data[:at] if now == 0 else data[at - 1 : at], float(now))
    b.tick(10.0)
    assert b.fault is None
    b.tick(10.1)
    assert b.fault is Refusal.FRAME_LATE


def test_silence_is_broken_by_pings_and_ends_the_link_without_them() -> None:
    a, b = linked()
    b.receive(wire(a), 0.0)
    for now in (6.0, 12.0, 18.0):
        a.tick(now)
        data = wire(a, now)
        assert data
        b.receive(data, now)
        b.tick(now)
        assert b.fault is None
    b.tick(33.1)
    assert b.fault is Refusal.SILENT


def test_the_budget_holds_for_both_kinds_together_and_for_empty_messages() -> None:
    a, _ = linked(Limits(budget_out_bytes=4 * 1024 * 1024))
    for reliable in (False, True):
        for _ in range(16 * 1024):
            a.send(1, b"", b"x" * 64, reliable=reliable)
    with pytest.raises(LinkFull):
        a.send(1, b"", b"", reliable=False)
    assert a.statistics().num_full == 1
    for at_once in a.take(0.0):
        assert len(at_once) < 66_000


def test_a_window_full_of_reliable_messages_does_not_hold_up_the_rest() -> None:
    a, b = linked(window=2)
    for number in range(5):
        a.send(1, bytes([number]), b"", reliable=True)
        a.send(2, bytes([number]), b"", reliable=False)
    messages, _ = b.receive(wire(a), 0.0)
    assert [header[0] for kind, header, _ in messages if kind == 2] == [0, 1, 2, 3, 4]
    assert [header[0] for kind, header, _ in messages if kind == 1] == [0]
    while a.statistics().held_bytes:
        a.receive(wire(b), 0.0)
        messages += b.receive(wire(a), 0.0)[0]
    assert [header[0] for kind, header, _ in messages if kind == 1] == [0, 1, 2, 3, 4]


def test_a_new_link_goes_on_where_the_old_one_broke() -> None:
    a, b = linked()
    a.send(1, b"first", b"", reliable=True)
    delivered = b.receive(wire(a), 0.0)[0]
    a.send(1, b"second", b"", reliable=True)
    for end in (a, b):
        end.close("broken")  # the acknowledgement never came
    a.open(hello("b", first=70), hello("a"), 1.0)
    b.open(hello("a"), hello("b", first=70), 1.0)
    for _ in range(3):
        delivered += b.receive(wire(a, 1.0), 1.0)[0]
        a.receive(wire(b, 1.0), 1.0)
    assert [header for _, header, _ in delivered] == [b"first", b"second"]
    assert b.statistics().num_duplicates == 1
    assert a.idle


def test_a_new_process_of_the_peer_starts_at_one_and_what_may_have_been_handled_is_given_up() -> None:
    a, b = linked()
    a.send(1, b"first", b"", reliable=True)
    b.receive(wire(a), 0.0)
    a.send(1, b"second", b"", reliable=True)
    a.close("it died")
    fresh = PeerLink("a", Limits(), ReliableConfig())
    a.open(hello("b", incarnation=b"j" * 16, first=70), hello("a"), 1.0)
    fresh.open(hello("a"), hello("b", incarnation=b"j" * 16, first=70), 1.0)
    assert [header for _, header, _ in fresh.receive(wire(a, 1.0), 1.0)[0]] == [b"second"]
    assert a.statistics().num_given_up == 1


def test_a_peer_that_is_too_fast_is_slowed_down() -> None:
    a, b = linked(attrs.evolve(Limits(), tokens_per_s=100.0, tokens_burst=10.0))
    b.receive(wire(a), 0.0)
    for _ in range(60):
        a.send(1, b"", b"", reliable=False)
    messages, wait_s = b.receive(wire(a), 0.0)
    assert len(messages) == 60
    assert wait_s == pytest.approx(0.5, abs=0.1)
    assert b.statistics().num_throttled == 1


def test_goodbye_comes_last() -> None:
    a, b = linked()
    a.leave()
    a.send(1, b"last", b"", reliable=True)
    assert [header for _, header, _ in b.receive(wire(a), 0.0)[0]] == [b"last"]
    assert b.fault is None
    a.receive(wire(b), 0.0)
    b.receive(wire(a), 0.0)
    assert b.fault is Refusal.CLOSED
