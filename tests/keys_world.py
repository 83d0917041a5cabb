"""A federation of two hosts for tests of keys and configs: keys from a counter, a clock that stands still."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs
from nacl.signing import SigningKey

from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id
from scarcity.node.setup.directory import Directory, NodeEntry, RetiredKey
from scarcity.node.setup.enrolment import SeatWish
from scarcity.node.setup.request import Request, Wish, make_request

NOW = 1_800_000_000.0
SCHEMA = """\
lags = 1
horizon = 2
[[variables]]
name = "x"
scale = 1.0
[[variables]]
name = "y"
scale = 2.0
"""


def entropy(name: str) -> Callable[[int], bytes]:
    """Keys that are the same in every run."""
    drawn = [0]

    def draw(size_bytes: int) -> bytes:
        drawn[0] += 1
        return hashlib.blake2b(f"{name} {drawn[0]}".encode(), digest_size=size_bytes).digest()

    return draw


def key_of(name: str) -> SigningKey:
    return SigningKey(entropy(name)(32))


def public(name: str) -> bytes:
    return key_of(name).verify_key.encode()


OPERATOR = key_of("operator")
OPERATOR_KEY = OPERATOR.verify_key.encode()


def directory(epoch: int = 1, expires_at: float = NOW + 1000) -> Directory:
    """The coordinator and a basket on `hub`, two clients on `spoke`, which only dials out."""
    members = (
        Member(COORDINATOR, Role.COORDINATOR, "", public(COORDINATOR)),
        Member(basket_id("kenya"), Role.BASKET, "kenya", public(basket_id("kenya"))),
        Member("h1", Role.CLIENT, "kenya", public("h1")),
        Member("h2", Role.CLIENT, "kenya", public("h2")),
    )
    nodes = (
        NodeEntry("spoke", public("node spoke"), "", ("h2", "h1")),
        NodeEntry("hub", public("node hub"), "hub.example:7400", (basket_id("kenya"), COORDINATOR)),
    )
    return Directory(Roster("kenya-health", epoch, members, expires_at), nodes)


def remembering(epoch: int = 9) -> Directory:
    """The same list, which remembers a key that `h1` has left and one with which `h9` was revoked."""
    keys = (RetiredKey("h1", 3, public("old h1"), False), RetiredKey("h9", 5, public("h9"), True))
    return attrs.evolve(directory(epoch), retired=keys)


def request(
    node: str = "spoke",
    address: str = "",
    seats: tuple[SeatWish, ...] = (SeatWish("h1", Role.CLIENT, "kenya"), SeatWish("h2", Role.CLIENT, "kenya")),
    *,
    link: str = "",
    renewed: tuple[str, ...] = (),
) -> tuple[Request, str]:
    """A request and its file's text; members in `renewed` have a new key, for which the old one signs."""
    keys = {seat.id: key_of(f"new {seat.id}" if seat.id in renewed else seat.id) for seat in seats}
    wishes = tuple(
        Wish(
            Member(seat.id, seat.role, seat.domain, keys[seat.id].verify_key.encode()),
            public(seat.id) if seat.id in renewed else None,
        )
        for seat in seats
    )
    node_key = key_of(link or f"node {node}")
    asked = Request(node, node_key.verify_key.encode(), address, wishes)
    return asked, make_request(asked, node_key, keys, {name: key_of(name) for name in renewed})


def federation_toml(folder: Path, extra: str = "", **changes: str) -> Path:
    """Write a small federation.toml and its schema; `changes` replaces values, "" leaves a key out."""
    (folder / "schema.toml").write_text(SCHEMA)
    values = {
        "federation": '"kenya-health"',
        "operator_key": f'"{OPERATOR_KEY.hex()}"',
        "schema": '"schema.toml"',
        "epsilon": "1.0",
        "delta": "1e-6",
        "rounds": "3",
    } | changes
    line = {name: f"{name} = {value}\n" if value else "" for name, value in values.items()}
    text = (
        f"# agreed\n{line['federation']}{line['operator_key']}{line['schema']}\n"
        f"[budget]\n{line['epsilon']}{line['delta']}\n[rounds]\n{line['rounds']}\n{extra}"
    )
    path = folder / "federation.toml"
    path.write_text(text)
    return path
