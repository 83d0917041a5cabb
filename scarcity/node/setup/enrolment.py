"""A host makes its keys, or takes over old ones, and asks the operator for a place: keys and request in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from nacl.signing import SigningKey

from scarcity.errors import ConfigError
from scarcity.federation.roster import COORDINATOR, Member, Role, basket_id
from scarcity.node.setup.config import SEGMENT
from scarcity.node.setup.directory import parse_address
from scarcity.node.setup.keys import Entropy, make_key, member_key_path, read_ledger_key, read_private_key, write_node
from scarcity.node.setup.request import Request, Wish, make_request


@attrs.frozen
class SeatWish:
    """A member that a host wants to be: id, role and domain, without a key."""

    id: str
    role: Role
    domain: str


def seats_of(clients: Sequence[str], baskets: Sequence[str], *, coordinator: bool) -> list[SeatWish]:
    """Return the members of a host.

    Args:
        clients: each `ID:DOMAIN`.
        baskets: domains.
        coordinator: whether the host has the coordinator.

    Raises:
        ConfigError: a client in another form, or a name that cannot be.
    """
    seats = []
    for client in clients:
        name, colon, domain = client.partition(":")
        if not (name and colon and domain):
            raise ConfigError(f"--client: expected ID:DOMAIN, got {client[:60]!r}")
        require_segment("--client", name)
        require_segment("--client", domain)
        seats.append(SeatWish(name, Role.CLIENT, domain))
    for domain in baskets:
        require_segment("--basket", domain)
    seats += [SeatWish(basket_id(domain), Role.BASKET, domain) for domain in baskets]
    return [*seats, SeatWish(COORDINATOR, Role.COORDINATOR, "")] if coordinator else seats


def require_segment(what: str, name: str) -> None:
    """Raise ConfigError, beginning with what it is, unless the name can be that of a node, a client or a domain."""
    try:
        SEGMENT.read(name)
    except (ValueError, ConfigError):
        raise ConfigError(f"{what}: expected {SEGMENT.expected}, got {name[:60]!r}") from None


def enrol(
    node: str,
    address: str,
    seats: Sequence[SeatWish],
    folder: Path,
    entropy: Entropy,
    *,
    keep: Path | None = None,
    renew_members: bool = False,
) -> Request:
    """Make a host's folder and return the request in it.

    Args:
        node: its name.
        address: `HOST:PORT`, empty when it only dials out.
        seats: its members.
        folder: where keys and request go.
        entropy: source of new keys.
        keep: folder of the host's old keys; a member that has one there keeps it.
        renew_members: such a member gets a new key instead, for which the old one signs.

    Raises:
        ConfigError: names or members that cannot be, a folder that is in use, or old keys that cannot be read.
    """
    require_segment("NAME", node)
    if address:
        try:
            parse_address(address)
        except ConfigError as error:
            raise ConfigError(f"--address: {error}") from None
    old = {} if keep is None else _old_keys(keep, seats)
    previous = old if renew_members else {}
    node_key = make_key(entropy)
    keys = {seat.id: make_key(entropy) if renew_members else old.get(seat.id) or make_key(entropy) for seat in seats}
    wishes = []
    for seat in seats:
        member = Member(seat.id, seat.role, seat.domain, keys[seat.id].verify_key.encode())
        leaves = previous[seat.id].verify_key.encode() if seat.id in previous else None
        wishes.append(Wish(member, leaves))
    request = Request(node, node_key.verify_key.encode(), address, tuple(wishes))
    text = make_request(request, node_key, keys, previous)
    write_node(folder, node_key, keys, text.encode(), {} if keep is None else _ledger_keys(keep, old, keys))
    return request


def _ledger_keys(keep: Path, old: Mapping[str, SigningKey], new: Mapping[str, SigningKey]) -> dict[str, bytes]:
    """Return the key that owns each ledger which went on before, or goes on now, under another one."""
    first = {name: read_ledger_key(member_key_path(keep, name), key) for name, key in old.items()}
    return {name: key for name, key in first.items() if key != new[name].verify_key.encode()}


def _old_keys(folder: Path, seats: Sequence[SeatWish]) -> dict[str, SigningKey]:
    """Return the keys that a folder has of these members; ConfigError when it has none: it is another folder."""
    paths = {seat.id: member_key_path(folder, seat.id) for seat in seats}
    old = {name: read_private_key(path) for name, path in paths.items() if path.exists()}
    if not old:
        raise ConfigError(f"--keep {folder}: it has no key of {', '.join(paths) or 'any member'}")
    return old
