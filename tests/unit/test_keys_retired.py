from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from scarcity.errors import ConfigError
from scarcity.federation.roster import Role
from scarcity.node.setup import directory as of_directory
from scarcity.node.setup import succession
from scarcity.node.setup.directory import Directory, RetiredKey, directory_json, parse_directory, sign_directory
from scarcity.node.setup.enrolment import SeatWish
from scarcity.node.setup.request import Request
from tests.keys_world import NOW, OPERATOR, directory, public, remembering, request

LATER = NOW + 5000
H1, H2, H3 = (SeatWish(name, Role.CLIENT, "kenya") for name in ("h1", "h2", "h3"))


def with_key(asked: Request, member_id: str, key: bytes, previous: bytes | None = None) -> Request:
    """The request with another key, and another previous key, for one member."""
    wishes = [
        attrs.evolve(wish, member=attrs.evolve(wish.member, public_key=key), previous_key=previous)
        if wish.member.id == member_id
        else wish
        for wish in asked.wishes
    ]
    return attrs.evolve(asked, wishes=wishes)


def renewed_h1() -> Directory:
    return succession.rotated(directory(), request(link="fresh", renewed=("h1",))[0], LATER)


def rekeyed(asked: Request) -> Request:
    return with_key(asked, "h1", public("new h1"))


def test_a_key_that_was_replaced_is_remembered() -> None:
    after = renewed_h1()
    assert after.retired == (RetiredKey("h1", 2, public("h1"), False),)
    assert succession.renewed(after, LATER).retired == after.retired
    assert (after.first_key("h1"), after.first_key("h2")) == (public("h1"), None)


def test_a_key_that_was_replaced_is_nobodys_again() -> None:
    second_name = with_key(rekeyed(request(link="x", seats=(H1, H2, H3))[0]), "h3", public("h1"))
    with pytest.raises(ConfigError, match="'h3' has the key that was 'h1''s before epoch 2: it was replaced for good"):
        succession.rotated(renewed_h1(), second_name, LATER)
    elsewhere = with_key(request("new", "", (H3,))[0], "h3", public("h1"))
    with pytest.raises(ConfigError, match="replaced for good"):
        succession.joined(renewed_h1(), [elsewhere], LATER)
    at_once = with_key(request(link="x", seats=(H1, H2, H3), renewed=("h1",))[0], "h3", public("h1"))
    with pytest.raises(ConfigError, match="replaced for good"):
        succession.rotated(directory(), at_once, LATER)
    back = with_key(request(link="x")[0], "h1", public("h1"), public("new h1"))
    with pytest.raises(ConfigError, match="replaced for good"):
        succession.rotated(renewed_h1(), back, LATER)
    with pytest.raises(ConfigError, match="node 'new' has the key"):
        succession.joined(renewed_h1(), [attrs.evolve(request("new", "", (H3,))[0], key=public("h1"))], LATER)


@pytest.mark.parametrize("by_node", [False, True])
def test_who_was_revoked_comes_back_with_the_old_key_alone(by_node: bool) -> None:
    gone = (
        succession.without_node(directory(), "spoke", LATER)
        if by_node
        else succession.without_member(directory(), "h1", LATER)
    )
    assert gone.revoked_key("h1") == public("h1")
    silent = with_key(request("new", "", (H1,))[0], "h1", public("k2"))
    with pytest.raises(ConfigError, match="'h1' was revoked, and its old key has not signed"):
        succession.joined(gone, [silent], LATER)
    with pytest.raises(ConfigError, match="no key to replace"):
        succession.joined(gone, [with_key(silent, "h1", public("k2"), public("x"))], LATER)
    with pytest.raises(
        ConfigError, match="'h3' has the key that was 'h1''s before epoch 2: it comes back as 'h1' alone"
    ):
        succession.joined(gone, [with_key(request("new", "", (H3,))[0], "h3", public("h1"))], LATER)
    again = succession.joined(gone, [request("new", "", (H1,))[0]], LATER)
    assert (again.node_of("h1"), again.revoked_key("h1"), again.first_key("h1")) == ("new", None, None)
    signed = succession.joined(gone, [with_key(silent, "h1", public("k2"), public("h1"))], LATER)
    assert (signed.first_key("h1"), signed.revoked_key("h1")) == (public("h1"), None)


def test_rotate_brings_nobody_back_with_another_key() -> None:
    gone = succession.without_member(directory(), "h1", LATER)
    with pytest.raises(ConfigError, match="'h1' was revoked"):
        succession.rotated(gone, rekeyed(request(link="fresh")[0]), LATER)
    assert succession.rotated(gone, request(link="fresh")[0], LATER).node_of("h1") == "spoke"
    signed = succession.rotated(gone, request(link="fresh", renewed=("h1",))[0], LATER)
    assert signed.retired == (RetiredKey("h1", 2, public("h1"), False),)


def test_the_first_key_is_the_first_after_any_detour() -> None:
    twice = with_key(request(link="y")[0], "h1", public("k3"), public("new h1"))
    after = succession.rotated(renewed_h1(), twice, LATER)
    gone = succession.without_member(after, "h1", LATER)
    back = succession.joined(gone, [with_key(request("new", "", (H1,))[0], "h1", public("k4"), public("k3"))], LATER)
    assert [(each.key, each.revoked) for each in back.retired] == [
        (public("h1"), False),
        (public("new h1"), False),
        (public("k3"), False),
    ]
    assert back.first_key("h1") == public("h1")


def test_the_operator_signs_what_is_remembered() -> None:
    whole = remembering()
    assert whole.canonical != attrs.evolve(whole, retired=()).canonical
    values = json.loads(directory_json(sign_directory(whole, OPERATOR)))
    del values["retired"]
    with pytest.raises(ConfigError, match=r"retired: missing"):
        parse_directory(json.dumps(values).encode(), Path("roster.json"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((RetiredKey("h9", 3, public("h9"), True), RetiredKey("h8", 4, public("h9"), True)), "occurs twice"),
        (
            (RetiredKey("h9", 3, public("h9"), True), RetiredKey("h9", 4, public("h8"), True)),
            "on the list all the same",
        ),
        ((RetiredKey("h1", 3, public("x"), True),), "on the list all the same"),
        ((RetiredKey("h9", 1, public("x"), True),), r"an epoch in 2\.\.9"),
        ((RetiredKey("h9", 10, public("x"), True),), r"an epoch in 2\.\.9"),
        ((RetiredKey("h9", 3, b"x", True),), "32 bytes"),
        ((RetiredKey("..", 3, public("x"), True),), "no dot in front"),
    ],
)
def test_a_memory_that_cannot_hold_is_refused(keys: tuple[RetiredKey, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        attrs.evolve(directory(9), retired=keys)


def test_the_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    text = directory_json(sign_directory(remembering(), OPERATOR)).encode()
    monkeypatch.setattr(of_directory, "MAX_RETIRED", 1)
    with pytest.raises(ConfigError, match="retired: expected at most 1, got 2"):
        parse_directory(text, Path("roster.json"))
    with pytest.raises(ConfigError, match="more than 1 retired keys"):
        succession.without_member(renewed_h1(), "h2", LATER)
