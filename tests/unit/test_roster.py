"""The roster says who is who; only the operator's signature makes one."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.errors import ConfigError, DuplicateClientError, ProtocolError, UnknownClientError
from scarcity.federation.roster import (
    COORDINATOR,
    Member,
    Role,
    Roster,
    basket_id,
    parse_roster,
    sign_roster,
    verify_roster,
)

OPERATOR = SigningKey(b"o" * 32)
MEMBERS = (
    Member(COORDINATOR, Role.COORDINATOR, "", b"0" * 32),
    Member(basket_id("health"), Role.BASKET, "health", b"1" * 32),
    Member("hospital_2", Role.CLIENT, "health", b"2" * 32),
    Member("hospital_1", Role.CLIENT, "health", b"3" * 32),
    Member("bank_1", Role.CLIENT, "finance", b"4" * 32),
)
ROSTER = Roster("fed", 1, MEMBERS)


def test_the_order_in_which_members_are_given_does_not_matter() -> None:
    other = Roster("fed", 1, MEMBERS[::-1])
    assert other == ROSTER
    assert other.root == ROSTER.root


def test_members_are_found_by_id_and_by_domain() -> None:
    assert ROSTER.member("bank_1").domain == "finance"
    assert [member.id for member in ROSTER.clients_of("health")] == ["hospital_1", "hospital_2"]
    assert ROSTER.clients_of("nowhere") == ()
    assert [member.id for member in ROSTER.baskets] == ["basket/health"]
    assert "bank_1" in ROSTER
    assert "bank_2" not in ROSTER
    with pytest.raises(UnknownClientError, match="bank_2"):
        ROSTER.member("bank_2")


def test_the_signed_bytes_give_the_same_roster_back() -> None:
    assert verify_roster(ROSTER.canonical, sign_roster(ROSTER, OPERATOR), bytes(OPERATOR.verify_key)) == ROSTER
    finite = Roster("fed", 1, MEMBERS, expires_at=10)
    assert parse_roster(finite.canonical) == finite


def test_every_change_changes_the_root() -> None:
    others = [
        Roster("fed2", 1, MEMBERS),
        Roster("fed", 2, MEMBERS),
        Roster("fed", 1, MEMBERS[:-1]),
        Roster("fed", 1, MEMBERS, expires_at=5.0),
    ]
    assert len({roster.root for roster in [ROSTER, *others]}) == 5


def test_two_members_cannot_share_an_id_or_a_key() -> None:
    with pytest.raises(DuplicateClientError, match="bank_1"):
        Roster("fed", 1, (*MEMBERS, Member("bank_1", Role.CLIENT, "health", b"9" * 32)))
    with pytest.raises(ConfigError, match="share one public key"):
        Roster("fed", 1, (*MEMBERS, Member("bank_9", Role.CLIENT, "health", b"4" * 32)))


def test_a_roster_has_exactly_one_coordinator() -> None:
    with pytest.raises(ConfigError, match="coordinator"):
        Roster("fed", 1, MEMBERS[1:])
    with pytest.raises(ConfigError, match="coordinator"):
        Roster("fed", 1, (*MEMBERS, Member("second", Role.COORDINATOR, "", b"9" * 32)))


@pytest.mark.parametrize("name", ["", "a/b", COORDINATOR, "x" * 129, "line\nbreak", "basket/health", "é" * 65])
def test_a_client_cannot_take_an_id_of_another_form_or_role(name: str) -> None:
    with pytest.raises(ConfigError):
        Member(name, Role.CLIENT, "health", b"9" * 32)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Member("bank_9", Role.CLIENT, "finance", b"9" * 31)


def test_a_signature_by_somebody_else_or_over_something_else_is_refused() -> None:
    signature = sign_roster(ROSTER, OPERATOR)
    stranger = SigningKey(b"s" * 32)
    for canonical, signed in (
        (ROSTER.canonical, sign_roster(ROSTER, stranger)),
        (Roster("fed", 2, MEMBERS).canonical, signature),
        (ROSTER.canonical, b""),
        (ROSTER.canonical, OPERATOR.sign(ROSTER.canonical).signature),
    ):
        with pytest.raises(ProtocolError, match="signature"):
            verify_roster(canonical, signed, bytes(OPERATOR.verify_key))


ROW = ["bank_1", "client", "finance", b"4" * 32]
HEAD = [COORDINATOR, "coordinator", "", b"0" * 32]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["fed", 1, 5.0],
        ["fed", 1, 5.0, [ROW]],  # no coordinator
        ["fed", 1, 5.0, [HEAD, ROW]],  # not sorted
        ["fed", True, 5.0, [ROW, HEAD]],
        ["fed", 1, 5, [ROW, HEAD]],
        ["fed", 1, float("nan"), [ROW, HEAD]],
        [7, 1, 5.0, [ROW, HEAD]],
        ["fed", 1, 5.0, [["bank_1", "client", "finance", "4" * 32], HEAD]],
        ["fed", 1, 5.0, [["bank_1", "client", 7, b"4" * 32], HEAD]],
        ["fed", 1, 5.0, [["bank_1", "king", "finance", b"4" * 32], HEAD]],
        ["fed", 1, 5.0, [["bank_1", [], "finance", b"4" * 32], HEAD]],
        ["fed", 1, 5.0, [[7, "client", "finance", b"4" * 32], HEAD]],
        ["fed", 1, 5.0, [ROW[:3], HEAD]],
        ["fed", 1, 5.0, 7],
    ],
)
def test_what_is_not_a_sound_roster_is_refused_with_one_error(value: Any) -> None:
    assert parse_roster(msgpack.packb(["fed", 1, 5.0, [ROW, HEAD]])).epoch == 1
    with pytest.raises(ProtocolError):
        parse_roster(msgpack.packb(value))


@given(st.binary(max_size=60) | st.integers(0, len(ROSTER.canonical) - 1).map(lambda size: ROSTER.canonical[:size]))
def test_random_and_cut_bytes_raise_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_roster(data)


@pytest.mark.parametrize("depth", [100, 1000, 1020, 5000])
def test_deep_nesting_raises_protocol_error(depth: int) -> None:
    with pytest.raises(ProtocolError):
        parse_roster(b"\x94\xa3fed\x01\xcb" + b"\x00" * 8 + b"\x91\x94\xa1a" + b"\x91" * depth + b"\x90\xa0\xa0")
