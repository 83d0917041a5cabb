"""From one directory to the next: every change is a new epoch, exactly one higher, and keeps whoever it does not name.

All functions are pure and return an unsigned directory. What could give a data source a second key without the first
one's word is refused: one data source has one key and one ledger. Therefore the key of whoever leaves, or gets
another key, is remembered for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.roster import Member, Role, Roster
from scarcity.node.setup.directory import Directory, NodeEntry, RetiredKey
from scarcity.node.setup.request import Request, Wish


def first_directory(federation: str, requests: Sequence[Request], expires_at: float) -> Directory:
    """Return the directory of epoch 1.

    Args:
        federation: its id.
        requests: of all hosts.
        expires_at: seconds since 1970.

    Raises:
        ConfigError: names or keys twice, no coordinator, a key that replaces another, or a client without a basket.
    """
    for request in requests:
        _require_no_previous(request)
    members = [wish.member for request in requests for wish in request.wishes]
    directory = Directory(
        Roster(federation, 1, tuple(members), expires_at), tuple(request.entry for request in requests)
    )
    if alone := without_basket(directory):
        raise ConfigError(f"clients {', '.join(alone)} have no basket: no request brings the basket of their domain")
    return directory


def without_basket(directory: Directory) -> list[str]:
    """Return the clients whose domain has no basket: nothing that they contribute would be taken."""
    domains = {basket.domain for basket in directory.roster.baskets}
    return [m.id for m in directory.roster.members if m.role is Role.CLIENT and m.domain not in domains]


def renewed(directory: Directory, expires_at: float) -> Directory:
    """Return the same list as the next epoch."""
    return _next(directory, directory.roster.members, directory.nodes, expires_at)


def joined(directory: Directory, requests: Sequence[Request], expires_at: float) -> Directory:
    """Return the list with new hosts and their members.

    Raises:
        ConfigError: one of them is on it already, or was revoked and comes back without its old key's word.
    """
    for request in requests:
        if request.node in directory.peers():
            raise ConfigError(f"node {request.node!r} is on the roster already: rotate changes it")
        for wish in request.wishes:
            _require_new(directory, wish, request.node)
    members = [*directory.roster.members, *(wish.member for request in requests for wish in request.wishes)]
    return _next(directory, members, [*directory.nodes, *(request.entry for request in requests)], expires_at)


def without_node(directory: Directory, node: str, expires_at: float) -> Directory:
    """Return the list without a host and all its members; UnknownClientError when there is none of that name."""
    gone = set(directory.entry(node).members)
    members = [member for member in directory.roster.members if member.id not in gone]
    _require_coordinator(members, f"node {node!r}")
    return _next(directory, members, [each for each in directory.nodes if each.name != node], expires_at)


def without_member(directory: Directory, member_id: str, expires_at: float) -> Directory:
    """Return the list without a member, and without its host when that hosts nobody else.

    Raises:
        UnknownClientError: there is no such member.
        ConfigError: it is the coordinator.
    """
    host = directory.entry(directory.node_of(member_id))
    members = [member for member in directory.roster.members if member.id != member_id]
    _require_coordinator(members, f"member {member_id!r}")
    others = [node for node in directory.nodes if node.name != host.name]
    left = tuple(name for name in host.members if name != member_id)
    nodes = [*others, NodeEntry(host.name, host.key, host.address, left)] if left else others
    return _next(directory, members, nodes, expires_at)


def rotated(directory: Directory, request: Request, expires_at: float) -> Directory:
    """Return the list with a host's new link key and address, and with what its request says of its members.

    Members may be new, or come back; one that stays keeps its key, or has a new one for which the old one has signed.

    Raises:
        UnknownClientError: no such node.
        ConfigError: a member of another node, a member left out, or a key that the old one does not vouch for.
    """
    host = directory.entry(request.node)
    if missing := sorted(set(host.members) - set(request.entry.members)):
        raise ConfigError(
            f"the request of node {host.name!r} leaves out member {missing[0]!r}: revoke it first, if that is meant"
        )
    for wish in request.wishes:
        if wish.member.id in host.members:
            _require_succession(directory.roster.member(wish.member.id), wish.member, wish.previous_key)
        else:
            _require_new(directory, wish, host.name)
    others = [member for member in directory.roster.members if member.id not in host.members]
    nodes = [node for node in directory.nodes if node.name != host.name]
    members = [*others, *(wish.member for wish in request.wishes)]
    return _next(directory, members, [*nodes, request.entry], expires_at)


def _next(directory: Directory, members: Iterable[Member], nodes: Iterable[NodeEntry], expires_at: float) -> Directory:
    roster = Roster(directory.federation, directory.epoch + 1, tuple(members), expires_at)
    return Directory(roster, tuple(nodes), tuple(_retired(directory, roster)))


def _retired(before: Directory, after: Roster) -> Iterable[RetiredKey]:
    """Yield what is remembered of the keys that members have left, with those that they leave now."""
    for each in before.retired:
        if each.revoked and each.id in after:
            if after.member(each.id).public_key != each.key:
                yield attrs.evolve(each, revoked=False)  # it came back with another key, so this one never does
        else:
            yield each
    for member in before.roster.members:
        if member.id not in after or after.member(member.id).public_key != member.public_key:
            yield RetiredKey(member.id, after.epoch, member.public_key, member.id not in after)


def _require_no_previous(request: Request) -> None:
    for wish in request.wishes:
        if wish.previous_key is not None:
            raise ConfigError(f"member {wish.member.id!r} of node {request.node!r} replaces a key: rotate does that")


def _require_new(directory: Directory, wish: Wish, node: str) -> None:
    """Raise ConfigError unless a member is not on the list, and was not, or has the word of the key that it left."""
    member, left = wish.member, directory.revoked_key(wish.member.id)
    if member.id in directory.roster:
        raise ConfigError(
            f"member {member.id!r} of node {node!r} is on node {directory.node_of(member.id)!r} already; one data "
            "source has one key and one ledger"
        )
    if wish.previous_key not in (None, left):
        raise ConfigError(
            f"member {member.id!r} of node {node!r} is not on the roster: it has no key to replace; for one that is, "
            "rotate does that"
        )
    if left is not None and left not in (member.public_key, wish.previous_key):
        raise ConfigError(
            f"member {member.id!r} was revoked, and its old key has not signed the one that it has now; one data "
            "source has one key and one ledger: make the request with --keep and the old folder"
        )


def _require_succession(old: Member, new: Member, previous_key: bytes | None) -> None:
    if (old.role, old.domain) != (new.role, new.domain):
        raise ConfigError(
            f"member {old.id!r} is {old.role.value} of domain {old.domain!r} and cannot become {new.role.value} of "
            f"{new.domain!r}"
        )
    if new.public_key != old.public_key and previous_key != old.public_key:
        raise ConfigError(
            f"member {old.id!r} has a new key for which its old one has not signed; one data source has one key and "
            "one ledger: make the request with --keep and the old folder"
        )
    if previous_key is not None and previous_key != old.public_key:
        raise ConfigError(f"member {old.id!r} replaces a key that is not its key on the roster")


def _require_coordinator(members: Iterable[Member], gone: str) -> None:
    if not any(member.role is Role.COORDINATOR for member in members):
        raise ConfigError(f"{gone} is the coordinator, without which there is no round: rotate gives it new keys")
