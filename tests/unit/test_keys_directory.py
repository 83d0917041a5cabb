from __future__ import annotations

import json
import math
from pathlib import Path

import attrs
import pytest

from scarcity.errors import ConfigError, UnknownClientError
from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, verify_roster
from scarcity.node.setup.directory import (
    Directory,
    NodeEntry,
    directory_json,
    parse_address,
    read_directory,
    sign_directory,
    write_directory,
)
from tests.keys_world import NOW, OPERATOR, OPERATOR_KEY, directory, public


def changed(**changes: object) -> Directory:
    return attrs.evolve(directory(), **changes)


def with_members(*more: Member) -> Directory:
    before = directory()
    roster = attrs.evolve(before.roster, members=(*before.roster.members, *more))
    hub = attrs.evolve(before.entry("hub"), members=(*before.entry("hub").members, *(m.id for m in more)))
    return Directory(roster, (hub, before.entry("spoke")))


def test_a_written_directory_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    write_directory(path, sign_directory(directory(), OPERATOR))
    read = read_directory(path, OPERATOR_KEY, NOW)
    assert read.directory == directory()
    assert verify_roster(read.directory.roster.canonical, read.roster_signature, OPERATOR_KEY) == directory().roster


def test_a_directory_says_who_is_where() -> None:
    here = directory()
    assert here.node_of("h1") == "spoke"
    assert here.hosts("spoke", "h1")
    assert not here.hosts("hub", "h1")
    assert not here.hosts("nobody", "nobody")
    assert here.peers() == {"hub": public("node hub"), "spoke": public("node spoke")}
    assert here.entry("spoke").members == ("h1", "h2")
    assert (here.epoch, here.federation) == (1, "kenya-health")
    for ask in (here.node_of, here.entry):
        with pytest.raises(UnknownClientError, match="nobody"):
            ask("nobody")


def test_a_directory_that_never_expires_goes_round(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    write_directory(path, sign_directory(directory(expires_at=math.inf), OPERATOR))
    assert json.loads(path.read_text())["expires_at"] is None
    assert read_directory(path, OPERATOR_KEY, 1e18).directory.roster.expires_at == math.inf


def test_an_expired_directory_says_since_when(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    write_directory(path, sign_directory(directory(), OPERATOR))
    for now in (NOW + 1000, math.nan):
        with pytest.raises(ConfigError, match=r"expires_at: epoch 1 expired on 2027-01-15"):
            read_directory(path, OPERATOR_KEY, now)


def test_another_operator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    write_directory(path, sign_directory(directory(), OPERATOR))
    for key in (public("someone"), b"", b"short", bytes(32)):
        with pytest.raises(ConfigError, match=r"roster\.json: signature: not the operator's"):
            read_directory(path, key, NOW)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: changed(nodes=directory().nodes[:1]), "'h1' is on 0 nodes"),
        (lambda: changed(nodes=(*directory().nodes, directory().nodes[0])), "'hub' occurs 2 times"),
        (lambda: changed(nodes=(*directory().nodes, NodeEntry("x", public("x"), "", ("h1",)))), "'h1' is on 2 nodes"),
        (lambda: changed(nodes=(*directory().nodes, NodeEntry("x", public("h1"), "", ()))), "the key of member 'h1'"),
        (lambda: changed(nodes=(*directory().nodes, NodeEntry("x", public("node hub"), "", ()))), "share one link key"),
        (lambda: changed(nodes=(*directory().nodes, NodeEntry("x", public("x"), "", ("who",)))), "'who', who is not"),
        (lambda: with_members(Member("a b", Role.CLIENT, "kenya", public("a"))), "expected segments"),
        (lambda: with_members(Member("..", Role.CLIENT, "kenya", public("a"))), "no dot in front"),
        (lambda: with_members(Member("a", Role.CLIENT, "ke nya", public("a"))), "expected letters"),
        (lambda: with_members(Member("a", Role.CLIENT, "ke/nya", public("a"))), "expected letters"),
        (lambda: with_members(Member("a", Role.BASKET, "togo", public("a"))), "its id must be 'basket/togo'"),
        (lambda: NodeEntry("a/b", public("a"), "", ()), "expected letters"),
        (lambda: NodeEntry("a", b"short", "", ()), "32 bytes"),
        (lambda: NodeEntry("a", public("a"), "nowhere", ()), "HOST:PORT"),
        (lambda: directory(epoch=0), "epoch must lie"),
        (lambda: directory(epoch=2**60), "epoch must lie"),
    ],
)
def test_a_list_that_cannot_hold_is_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_coordinator_of_another_name_is_refused() -> None:
    boss = Member("boss", Role.COORDINATOR, "", public("boss"))
    with pytest.raises(ConfigError, match=f"must be '{COORDINATOR}'"):
        Directory(Roster("f", 1, (boss,)), (NodeEntry("n", public("n"), "", ("boss",)),))


@pytest.mark.parametrize(
    ("address", "expected"), [("a.example:1", ("a.example", 1)), ("[::1]:65535", ("::1", 65535)), ("10.0.0.1:80", None)]
)
def test_addresses_are_read(address: str, expected: tuple[str, int] | None) -> None:
    assert parse_address(address) == (expected or ("10.0.0.1", 80))


@pytest.mark.parametrize(
    "address",
    ["", ":", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:1_0", "a:٣", "::1:80", "[a]:1", "[]:1", "a b:1", "a/b:1"],
)
def test_nonsense_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(address)


def test_spaces_and_order_in_the_file_mean_nothing(tmp_path: Path) -> None:
    values = json.loads(directory_json(sign_directory(directory(), OPERATOR)))
    values["nodes"].reverse()
    path = tmp_path / "roster.json"
    path.write_text(json.dumps(dict(reversed(values.items()))))
    assert read_directory(path, OPERATOR_KEY, NOW).directory == directory()
