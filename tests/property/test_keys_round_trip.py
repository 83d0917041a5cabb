"""What is written is read as it was: directories, requests, and both config files."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id
from scarcity.node.setup.config import (
    FEDERATION_TABLES,
    SETTINGS_KEYS,
    read_federation_file,
    read_node_config,
)
from scarcity.node.setup.config_text import federation_text, node_text
from scarcity.node.setup.directory import (
    Directory,
    NodeEntry,
    RetiredKey,
    directory_json,
    parse_directory,
    sign_directory,
    verify_directory,
)
from scarcity.node.setup.enrolment import SeatWish
from scarcity.node.setup.request import parse_request
from tests.keys_world import OPERATOR, OPERATOR_KEY, SCHEMA, federation_toml, public, request

PLACE = Path("file")
SEGMENTS = st.from_regex(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,12}", fullmatch=True).filter(
    lambda name: name != COORDINATOR
)
FEDERATIONS = st.text(min_size=1, max_size=30).filter(lambda name: name.isprintable() and name.isascii())
ADDRESSES = st.sampled_from(["", "a.example:1", "[::1]:7400", "10.0.0.1:65535"])


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    domains = draw(st.lists(SEGMENTS, max_size=3, unique=True))
    clients = draw(st.lists(SEGMENTS, max_size=5, unique=True))
    members = [Member(COORDINATOR, Role.COORDINATOR, "", public(COORDINATOR))]
    members += [Member(basket_id(d), Role.BASKET, d, public(basket_id(d))) for d in domains]
    members += [Member(c, Role.CLIENT, draw(st.sampled_from(domains or ["d"])), public(c)) for c in clients]
    names = draw(st.lists(SEGMENTS, min_size=1, max_size=3, unique=True))
    where = {member.id: draw(st.sampled_from(names)) for member in members}
    nodes = [
        NodeEntry(name, public(f"node {name}"), draw(ADDRESSES), tuple(m for m in where if where[m] == name))
        for name in names
    ]
    expires_at = draw(st.floats(0, 1e12) | st.just(math.inf))
    epoch = draw(st.integers(1, 2**53))
    left = draw(st.lists(st.tuples(SEGMENTS, st.booleans()), max_size=4, unique_by=lambda pair: pair[0]))
    retired = [
        RetiredKey(name, draw(st.integers(2, epoch)), public(f"old {name}"), revoked and name not in where)
        for name, revoked in left
        if epoch > 1
    ]
    roster = Roster(draw(FEDERATIONS), epoch, tuple(members), expires_at)
    return Directory(roster, tuple(nodes), tuple(retired))


@given(directories())
def test_a_directory_goes_round(directory: Directory) -> None:
    signed = sign_directory(directory, OPERATOR)
    read = parse_directory(directory_json(signed).encode(), PLACE)
    assert read == signed
    assert read.directory.canonical == directory.canonical
    assert verify_directory(read, OPERATOR_KEY)


@given(st.lists(SEGMENTS, min_size=1, max_size=4, unique=True), ADDRESSES, st.data())
def test_a_request_goes_round(clients: list[str], address: str, data: st.DataObject) -> None:
    renewed = tuple(data.draw(st.lists(st.sampled_from(clients), unique=True)))
    seats = tuple(SeatWish(name, Role.CLIENT, "kenya") for name in clients)
    asked, text = request("host", address, seats, renewed=renewed)
    assert parse_request(text.encode(), PLACE) == asked


NUMBERS = st.floats(1e-6, 1e9)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["local", "distributed", "central"]),
        "unit": st.sampled_from(["record", "client"]),
        "quorum": st.floats(0.1, 1),
        "byzantine_share": st.floats(0, 0.49),
        "clip_norm": NUMBERS,
        "gossip_fanout": st.integers(1, 1000),
        "stage_s": NUMBERS,
        "half_life_rounds": NUMBERS | st.just(math.inf),
        "max_rows": st.integers(1, 10**6),
    },
)


@given(FEDERATIONS, NUMBERS, st.floats(1e-12, 0.9), st.integers(1, 10**6), SETTINGS)
def test_a_written_federation_file_says_what_it_was_given(
    name: str, epsilon: float, delta: float, rounds: int, settings: dict[str, object]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "federation.toml"
        (path.parent / "schema.toml").write_text(SCHEMA)
        top = {"federation": name, "operator_key": OPERATOR_KEY.hex(), "schema": "schema.toml"}
        budget = {"epsilon": epsilon, "delta": delta, "planned_rounds": rounds}
        path.write_text(federation_text(path, top, budget, {"rounds": rounds, "gather_s": epsilon}, settings))
        read = read_federation_file(path)
    assert (read.federation, read.operator_key, read.budget.epsilon, read.budget.delta) == (
        name,
        OPERATOR_KEY,
        epsilon,
        delta,
    )
    assert (read.rounds, read.planned_rounds, read.gather_s, read.interval_s) == (rounds, rounds, epsilon, 60.0)
    for key in SETTINGS_KEYS:
        value = getattr(read.settings, key.name)
        if key.name in settings:
            assert getattr(value, "value", value) == settings[key.name]


@given(st.lists(SEGMENTS, min_size=1, max_size=4, unique=True), st.text(min_size=1, max_size=20), st.booleans())
def test_a_written_node_config_seats_whom_the_request_names(clients: list[str], column: str, shared: bool) -> None:
    time = column if column.isprintable() else "date"
    seats = [SeatWish(name, Role.CLIENT, "kenya") for name in clients]
    if shared:
        seats += [SeatWish(COORDINATOR, Role.COORDINATOR, ""), SeatWish(basket_id("kenya"), Role.BASKET, "kenya")]
    asked = request("host", "", tuple(seats))[0]
    with tempfile.TemporaryDirectory() as folder:
        federation_toml(Path(folder))
        path = Path(folder) / "node.toml"
        top = {"federation": "federation.toml", "roster": "roster.json", "listen": "[::1]:0"}
        text = node_text(path, asked, path.parent / "keys", top, sources={clients[0]: "a 'b'.csv"}, time=time)
        path.write_text(text)
        read = read_node_config(path)
    assert [seat.id for seat in read.clients] == sorted(clients)
    assert {seat.time for seat in read.clients} == {time}
    assert read.listen == ("::1", 0)
    assert (read.coordinator_key is not None, len(read.baskets)) == (shared, int(shared))
    assert {seat.source.name for seat in read.clients if seat.id == clients[0]} == {"a 'b'.csv"}


def test_every_key_of_a_written_file_has_its_line_of_comment(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA)
    top = {"federation": "f", "operator_key": OPERATOR_KEY.hex(), "schema": "schema.toml"}
    text = federation_text(tmp_path / "f.toml", top, {"epsilon": 1.0, "delta": 1e-6}, {"rounds": 1}, {})
    lines = text.splitlines()
    for key in (key for keys in FEDERATION_TABLES.values() for key in keys):
        at = next(i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key.name} ="))
        assert lines[at - 1] == f"# {key.meaning} Allowed: {key.kind.expected}."
