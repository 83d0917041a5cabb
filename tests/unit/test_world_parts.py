"""The simulator's parts: the disk that tears, the trace and its hash, the world as data."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import sim
from scarcity.errors import CodecError, ConfigError
from scarcity.federation.codec import encode_packet
from scarcity.federation.effects import Entry, Reject
from scarcity.federation.packets import Declined
from scarcity.federation.privacy_guard import LEDGER
from scarcity.federation.reader import PlainReader
from scarcity.federation.recovery import RECEIPT
from sim.faults.plan import Churn
from sim.worlds.book import Book
from sim.worlds.built import WorldConfig, build
from sim.worlds.disk import Disk
from sim.worlds.reading import SharedReader
from sim.worlds.trace import Trace, TraceEvent
from sim.worlds.world import World


def entry(number: int, kind: str = "model") -> Entry:
    return Entry(kind, str(number), bytes([number]))


def test_a_record_is_durable_once_append_returns() -> None:
    disk = Disk()
    disk.append(entry(1))
    disk.crash(torn=True)
    assert disk.journal() == {"model": [b"\x01"]}


def test_a_torn_crash_loses_the_record_in_hand_and_no_other() -> None:
    disk = Disk()
    disk.append(entry(1))
    disk.begin(entry(2))
    disk.crash(torn=True)
    assert disk.journal() == {"model": [b"\x01"]}
    assert disk.num_torn == 1
    disk.append(entry(3))
    assert disk.journal() == {"model": [b"\x01", b"\x03"]}


def test_a_crash_that_is_not_torn_keeps_the_record_in_hand() -> None:
    disk = Disk()
    disk.begin(entry(2))
    disk.crash(torn=False)
    assert disk.journal() == {"model": [b"\x02"]}


def test_a_disk_forgets_old_records_but_none_of_the_ledger() -> None:
    disk = Disk(keep=3)
    for number in range(10):
        disk.append(entry(number))
        disk.append(entry(number, LEDGER))
    assert [held.key for held in disk.entries("model")] == ["7", "8", "9"]
    assert len(disk.entries(LEDGER)) == 10


def test_a_baskets_disk_keeps_as_many_rounds_of_its_senders_as_of_its_own_records() -> None:
    disk = Disk(keep=2, senders=3)
    for number in range(10):
        disk.append(entry(number))
        disk.append(entry(number, RECEIPT))
    assert [held.key for held in disk.entries("model")] == ["8", "9"]
    assert [held.key for held in disk.entries(RECEIPT)] == ["4", "5", "6", "7", "8", "9"]


def test_a_trace_hashes_every_field_of_every_event() -> None:
    event = (1.5, "deliver", "a", "b", "model")
    hashes = set()
    for place in range(5):
        changed = list(event)
        changed[place] = 2.5 if place == 0 else "other"
        trace = Trace()
        trace.note(*changed)  # type: ignore[arg-type]  # a list of the five fields
        hashes.add(trace.hash)
    assert len(hashes) == 5


def test_a_trace_hash_depends_on_the_order_and_not_on_when_it_is_asked_for() -> None:
    one, other, back = Trace(), Trace(), Trace()
    for number in range(2000):
        one.note(float(number), "fire", "a")
        other.note(float(number), "fire", "a")
        back.note(float(1999 - number), "fire", "a")
        _ = other.hash
    assert one.hash == other.hash != back.hash
    assert one.num_events == 2000


def test_refusals_are_counted_by_kind_and_not_by_round() -> None:
    book = Book(build(WorldConfig(clients=4)), (), None)
    for number in range(9):
        book.said(0.0, "c0000", Reject("c0001", f"round {number} is not after round {number + 1}"))
        book.said(0.0, "c0000", Reject("c0001", f"stale: round {number}"))
    over: Any = SimpleNamespace(now=0.0)  # all that is looked at when nobody checks
    assert book.close(over).refusals == {"round # is not after round #": 9, "stale": 9}


def test_a_trace_file_has_one_json_object_a_line() -> None:
    lines: list[str] = []
    Trace(lines.append).note(0.5, "lose", "a", "b", "config")
    assert json.loads(lines[0]) == {"at": 0.5, "kind": "lose", "member": "a", "peer": "b", "what": "config"}
    assert TraceEvent.from_json(lines[0]) == TraceEvent(0.5, "lose", "a", "b", "config")


def test_a_new_model_is_demanded_where_there_is_time_for_it() -> None:
    calm, rough = World().clients(6, baskets=2), World().clients(6, baskets=2).faults(Churn(per_minute=6, down_s=1))
    for world, enough_s in ((calm, 16.0), (rough, 52.0)):
        assert world.config_for(enough_s).demands_model
        assert not world.config_for(enough_s - 1.0).demands_model
    assert not calm.config_for(60.0).heals
    assert rough.config_for(60.0).heals
    assert rough.config_for(60.0).heal_s == rough.config.healing_s


def test_a_world_is_json() -> None:
    config = World(seed=3).clients(9, baskets=3).settings(mode="distributed", quorum=0.5, until_s=9.0).config
    assert WorldConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"clients": 0}, "clients must be positive"),
        ({"clients": 10**11}, "clients must be at most 10000"),
        ({"baskets": 9}, "baskets must be at most clients"),
        ({"dimension": 1}, "dimension must be at least 2"),
        ({"executor": "fast"}, "executor must be one of heap, loop, got 'fast'"),
        ({"heal_s": 99.0}, "heal_s must be at most until_s"),
        ({"mode": "secret"}, "mode must be one of local, distributed, central, none"),
        ({"settings": {"qorum": 1.0}}, "unknown setting 'qorum'"),
        ({"sed": 1}, "unknown field 'sed' of a world; known are seed, clients"),
        ({"clients": "many"}, "world"),
    ],
)
def test_a_world_that_cannot_be_is_refused_by_name(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WorldConfig.from_dict(values)


def test_a_world_of_ten_clients_in_three_baskets_seats_them_in_turn() -> None:
    world = World().clients(10, baskets=3)
    assert world.baskets == ("basket-0", "basket-1", "basket-2")
    assert [domain for _, domain in sorted(world.config.seats.items())][:4] == [
        "basket-0",
        "basket-1",
        "basket-2",
        "basket-0",
    ]


def test_a_shared_reader_reads_as_a_plain_one_does_whatever_it_has_read_before() -> None:
    world = build(WorldConfig(clients=4))
    shared, plain = SharedReader(4, 1), PlainReader()
    key, other_key = (world.seats.keys[name].verify_key.encode() for name in ("c0000", "c0001"))
    sound = world.seats.identity("c0000").say("basket/basket-0", 1, Declined("no"))
    forged = attrs.evolve(sound, body=Declined("yes"))
    for _ in range(2):
        for packet in (sound, forged):
            encoded = encode_packet(packet)
            assert shared.item(encoded).packet == plain.item(encoded).packet == packet
            assert shared.item_of(packet).encoded == plain.item_of(packet).encoded == encoded
            for public_key in (key, other_key):
                item = shared.item(encoded)
                assert shared.holds(item.packet, public_key) == plain.holds(packet, public_key)
                assert shared.item_holds(item, public_key) == plain.item_holds(item, public_key)
        with pytest.raises(CodecError):
            shared.item(b"nothing")


def test_what_a_member_has_signed_holds_for_its_own_key_and_for_no_other() -> None:
    world = build(WorldConfig(clients=4))
    own, other = world.seats.keys["c0000"], world.seats.keys["c0001"]
    shared = SharedReader(4, 1)
    packet = world.seats.identity("c0000").say("basket/basket-0", 1, Declined("no"))
    shared.signed(packet, own)
    assert shared.holds(packet, own.verify_key.encode())
    assert not shared.holds(packet, other.verify_key.encode())
    # Another packet is another one, however alike.
    assert not shared.holds(attrs.evolve(packet, signature=bytes(64)), own.verify_key.encode())


def test_the_public_names_are_where_the_package_says() -> None:
    assert set(sim.__all__) >= {"Churn", "Latency", "Loss", "Partition", "World", "SimResult", "WorldConfig"}
    for name in sim.__all__:
        assert getattr(sim, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Storm'"):
        _ = sim.Storm
