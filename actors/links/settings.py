"""Who a node is, whom it knows, and how patiently it dials."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from actors.address import Address
from actors.clock import check_seconds
from actors.errors import BadSetting
from actors.links.reliable import ReliableConfig
from actors.links.session import KEY_BYTES, Limits


@attrs.frozen
class Backoff:
    """How long to wait before dialing again: random between nothing and a bound that doubles.

    Attributes:
        first_s: the first bound; a peer that restarts is back within it.
        most_s: the last bound; a peer that is down for a day costs one connect in five seconds.
        stable_s: a link that lived this long sets the bound back; so a peer that accepts and drops is left alone.
    """

    first_s: float = 0.05
    most_s: float = 10.0
    stable_s: float = 5.0

    def __attrs_post_init__(self) -> None:
        check_seconds("first_s", self.first_s)
        check_seconds("stable_s", self.stable_s)
        if not self.first_s <= self.most_s:
            raise BadSetting(f"most_s: expected at least first_s = {self.first_s}, got {self.most_s!r}")

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Return the seconds before attempt 1, 2, ..."""
        return rng.uniform(0.0, min(self.most_s, self.first_s * 2.0 ** min(attempt, 32)))


def check_peers(node: str, key: bytes, peers: Mapping[str, bytes]) -> None:
    """See that every name can be a node's, every key is one, and the list has no other key for this node.

    Raises:
        BadSetting: it names the entry.
    """
    for name, one in ((node, key), *peers.items()):
        Address(name, "x")  # refuses a bad name
        if len(one) != KEY_BYTES:
            raise BadSetting(f"peers: expected {KEY_BYTES} bytes of public key for {name}, got {len(one)}")
    if peers.get(node, key) != key:
        raise BadSetting(f"key: the list has another key for {node}, so no peer would take this one")


@attrs.frozen
class TcpConfig:
    """Who this node is and whom it knows.

    Attributes:
        node: this node's name.
        federation: the federation's id.
        key: this node's Ed25519 public key, 32 bytes.
        peers: node name to public key: who may link, and with which key; `TcpTransport.set_peers` changes it. This
            node may be on it, with its own key.
        host: address to listen on, an IP address.
        port: to listen on, 0 for any that is free.
        limits: what a peer may cost.
        reliable: bounds of the reliable channel.
        backoff: of the dialer.
    """

    node: str
    federation: str
    key: bytes
    peers: Mapping[str, bytes] = attrs.field(converter=dict)
    host: str = "127.0.0.1"
    port: int = 0
    limits: Limits = attrs.field(factory=Limits)
    reliable: ReliableConfig = attrs.field(factory=ReliableConfig)
    backoff: Backoff = attrs.field(factory=Backoff)

    def __attrs_post_init__(self) -> None:
        check_peers(self.node, self.key, self.peers)
        if not 1 <= len(self.federation.encode()) <= 255:
            raise BadSetting(f"federation: expected 1 to 255 bytes of UTF-8, got {self.federation!r}")
        if not 0 <= self.port <= 65535:
            raise BadSetting(f"port: expected 0 to 65535, got {self.port!r}")
