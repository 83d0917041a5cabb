from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from scarcity.errors import ConfigError, UnknownClientError
from scarcity.federation.roster import COORDINATOR, Role, basket_id
from scarcity.node.setup import succession
from scarcity.node.setup.directory import Directory
from scarcity.node.setup.enrolment import SeatWish
from tests.keys_world import NOW, directory, public, request

LATER = NOW + 5000
HUB = (SeatWish(COORDINATOR, Role.COORDINATOR, ""), SeatWish(basket_id("kenya"), Role.BASKET, "kenya"))
H1, H2, H3 = (SeatWish(name, Role.CLIENT, "kenya") for name in ("h1", "h2", "h3"))


def test_the_first_list_is_of_all_requests() -> None:
    asked = [request("hub", "hub.example:7400", HUB)[0], request()[0]]
    assert succession.first_directory("kenya-health", asked, NOW + 1000) == directory()


def test_a_client_without_a_basket_is_no_first_list() -> None:
    lost = request("x", "", (SeatWish("t1", Role.CLIENT, "togo"),))[0]
    with pytest.raises(ConfigError, match="t1 have no basket"):
        succession.first_directory("k", [request("hub", "", HUB)[0], lost], LATER)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: succession.renewed(d, LATER),
        lambda d: succession.joined(d, [request("new", "", (H3,))[0]], LATER),
        lambda d: succession.without_node(d, "spoke", LATER),
        lambda d: succession.without_member(d, "h1", LATER),
        lambda d: succession.rotated(d, request(link="fresh")[0], LATER),
    ],
)
def test_every_change_is_one_epoch_later(
    change: Callable[
        [
            Directory,
        ],
        Directory,
    ],
) -> None:
    after = change(directory(epoch=7))
    assert (after.epoch, after.roster.expires_at, after.federation) == (8, LATER, "kenya-health")
    assert after.entry("hub") == directory().entry("hub")


def test_a_revoked_member_is_gone_and_a_host_with_nobody_too() -> None:
    after = succession.without_member(directory(), "h1", LATER)
    assert after.entry("spoke").members == ("h2",)
    assert "h1" not in after.roster
    assert set(succession.without_member(after, "h2", LATER).peers()) == {"hub"}
    assert succession.without_node(directory(), "spoke", LATER).roster.keys.keys() == {COORDINATOR, basket_id("kenya")}


def test_the_coordinator_cannot_be_revoked_and_a_basket_can() -> None:
    for change in (
        lambda: succession.without_node(directory(), "hub", LATER),
        lambda: succession.without_member(directory(), COORDINATOR, LATER),
    ):
        with pytest.raises(ConfigError, match="rotate gives it new keys"):
            change()
    after = succession.without_member(directory(), basket_id("kenya"), LATER)
    assert succession.without_basket(after) == ["h1", "h2"]


def test_who_is_not_there_cannot_be_changed() -> None:
    for change in (
        lambda: succession.without_node(directory(), "who", LATER),
        lambda: succession.without_member(directory(), "who", LATER),
        lambda: succession.rotated(directory(), request("who")[0], LATER),
    ):
        with pytest.raises(UnknownClientError, match="who"):
            change()


def test_rotate_changes_the_link_key_and_keeps_members_keys() -> None:
    after = succession.rotated(directory(), request(link="fresh", address="s.example:1")[0], LATER)
    assert after.entry("spoke").key == public("fresh")
    assert after.entry("spoke").address == "s.example:1"
    assert after.roster.members == directory().roster.members


def test_a_new_member_key_needs_the_old_ones_word() -> None:
    after = succession.rotated(directory(), request(link="fresh", renewed=("h1",))[0], LATER)
    assert after.roster.member("h1").public_key == public("new h1")
    asked = request(link="fresh", renewed=("h1",))[0]
    silent = attrs.evolve(asked, wishes=tuple(attrs.evolve(wish, previous_key=None) for wish in asked.wishes))
    with pytest.raises(ConfigError, match="one data source has one key and one ledger"):
        succession.rotated(directory(), silent, LATER)
    other = attrs.evolve(asked, wishes=tuple(attrs.evolve(wish, previous_key=public("x")) for wish in asked.wishes))
    with pytest.raises(ConfigError, match="one data source has one key and one ledger"):
        succession.rotated(directory(), other, LATER)
    same = request(link="fresh")[0]
    odd = attrs.evolve(same, wishes=tuple(attrs.evolve(wish, previous_key=public("x")) for wish in same.wishes))
    with pytest.raises(ConfigError, match="not its key on the roster"):
        succession.rotated(directory(), odd, LATER)


def test_rotate_takes_new_members_and_no_others() -> None:
    after = succession.rotated(directory(), request(seats=(H1, H2, H3))[0], LATER)
    assert after.entry("spoke").members == ("h1", "h2", "h3")
    with pytest.raises(ConfigError, match="leaves out member 'h2'"):
        succession.rotated(directory(), request(seats=(H1,))[0], LATER)
    with pytest.raises(ConfigError, match="is on node 'hub' already"):
        succession.rotated(directory(), request(seats=(H1, H2, HUB[1]))[0], LATER)
    with pytest.raises(ConfigError, match="no key to replace"):
        succession.rotated(directory(), request(seats=(H1, H2, H3), renewed=("h3",))[0], LATER)
    moved = (SeatWish("h1", Role.CLIENT, "togo"), H2)
    with pytest.raises(ConfigError, match="cannot become client of 'togo'"):
        succession.rotated(directory(), request(seats=moved)[0], LATER)


def test_who_is_there_cannot_join_again() -> None:
    with pytest.raises(ConfigError, match="on the roster already"):
        succession.joined(directory(), [request()[0]], LATER)
    with pytest.raises(ConfigError, match="on node 'spoke' already"):
        succession.joined(directory(), [request("new", "", (H1,))[0]], LATER)
    with pytest.raises(ConfigError, match="rotate does that"):
        succession.joined(directory(), [request("new", "", (H3,), renewed=("h3",))[0]], LATER)
    with pytest.raises(ConfigError, match="rotate does that"):
        succession.first_directory("k", [request("new", "", (H3,), renewed=("h3",))[0]], LATER)


def test_a_key_that_is_anothers_cannot_join() -> None:
    asked = request("new", "", (H3,))[0]
    stolen = attrs.evolve(asked, key=public("node hub"))
    with pytest.raises(ConfigError, match="share one link key"):
        succession.joined(directory(), [stolen], LATER)
