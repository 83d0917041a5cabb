"""Who is who and where: the operator-signed list of one epoch's members and of the nodes that host them.

The roster says which key speaks for which member; the directory adds which node may carry that member's messages, and
which key a link to that node must prove. The operator signs both: the roster alone, because that is what travels in a
`RosterNotice`, and the directory, whose bytes contain the roster's. `roster.json` is the same in readable JSON; what is
signed are canonical bytes, so spaces and the order of keys in the file mean nothing.

The directory also remembers the keys that members have left: one data source has one key and one ledger, so a key that
was replaced is nobody's for ever, and who was revoked comes back under the old name and with the old key's word.

Trusted: the operator's key, known out of band. Not defended against: an operator who signs two directories of one
epoch (the daemon takes only a newer epoch, so who has seen one never takes the other).
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import attrs
import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from actors.address import Address
from actors.errors import BadSetting
from scarcity.errors import ConfigError, FederationError, ProtocolError, UnknownClientError
from scarcity.federation.roster import (
    COORDINATOR,
    Member,
    Role,
    Roster,
    basket_id,
    require_name,
    sign_roster,
    verify_roster,
)
from scarcity.node.files import write_whole
from scarcity.node.setup.fields import (
    Fields,
    Key,
    Kind,
    checked_by,
    choice,
    hexadecimal,
    in_file,
    of_type,
    parse_json,
    read_bounded,
    real,
    text,
    whole,
)

_LABEL: Final = b"scarcity.directory"
FORMAT: Final = "scarcity-roster-1"
# The roster inside must fit a frame of a link (4 MiB); some 20,000 members do.
MAX_SIZE_BYTES: Final = 4 << 20
MAX_EPOCH: Final = 2**53  # beyond it other readers of JSON would round
MAX_RETIRED: Final = 10_000  # 1.7 MB of the file; none may be forgotten, so a federation that needs more is a new one


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def require_path(node: str, member_id: str) -> None:
    """Raise ConfigError unless the names can be those of a node and of an actor on it.

    A segment with a dot in front is refused too: where names become those of files it hides, or leads upwards.
    """
    if any(segment.startswith(".") for segment in (node, *member_id.split("/"))):
        raise ConfigError(f"node {node[:40]!r}, member {member_id[:40]!r}: expected no dot in front")
    try:
        Address(node, member_id)
    except BadSetting as error:
        raise ConfigError(f"node {node[:40]!r}, member {member_id[:40]!r}: {error}") from None


def parse_address(address: str, *, least_port: int = 1) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 address stands in brackets.

    Raises:
        ConfigError: it has another form.
    """
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    sound = bare.isascii() and bare.isprintable() and not set(bare) & set(" /[]@,") and len(bare) <= 253
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not (
        colon and bare and sound and digits and least_port <= int(port) <= 65535 and (":" in bare) == (bare != host)
    ):
        raise ConfigError(f"expected HOST:PORT, got {address[:60]!r}")
    return bare, int(port)


@attrs.frozen
class NodeEntry:
    """One host.

    Attributes:
        name: one segment of letters, digits, `_`, `.` and `-`.
        key: 32 bytes, the Ed25519 key that its links prove and that signs its outbox. No member's key.
        address: `HOST:PORT` where it is dialled, empty when it only dials out.
        members: ids that it hosts, sorted.
    """

    name: str
    key: bytes
    address: str
    members: tuple[str, ...] = attrs.field(converter=_sorted_names)

    def __attrs_post_init__(self) -> None:
        require_path(self.name, COORDINATOR)
        if len(self.key) != 32:
            raise ConfigError(f"node {self.name}: an Ed25519 public key has 32 bytes, got {len(self.key)}")
        if self.address:
            parse_address(self.address)


@attrs.frozen(order=True)
class RetiredKey:
    """A key that a member has left.

    Attributes:
        id: the member.
        epoch: the first one in which it was not the member's.
        key: 32 bytes, public.
        revoked: the member was revoked with it and may come back with it; False: another key has replaced it.
    """

    id: str
    epoch: int
    key: bytes
    revoked: bool


def _sorted_retired(keys: Iterable[RetiredKey]) -> tuple[RetiredKey, ...]:
    return tuple(sorted(keys))


def _sorted_nodes(nodes: Iterable[NodeEntry]) -> tuple[NodeEntry, ...]:
    return tuple(sorted(nodes, key=lambda node: node.name))


@attrs.frozen(slots=False)
class Directory:
    """All members and nodes of one epoch; every member is on exactly one node.

    Attributes:
        roster: the members.
        nodes: the hosts, sorted by name.
        retired: what members have left, sorted by id and epoch; at most `MAX_RETIRED`.

    Raises:
        ConfigError: a name that cannot be an address, a node or key twice, a member on no node or on several, or a key
            that is retired.
    """

    roster: Roster
    nodes: tuple[NodeEntry, ...] = attrs.field(converter=_sorted_nodes)
    retired: tuple[RetiredKey, ...] = attrs.field(default=(), converter=_sorted_retired)

    def __attrs_post_init__(self) -> None:
        require_name("federation", self.federation)
        if type(self.epoch) is not int or not 1 <= self.epoch <= MAX_EPOCH:
            raise ConfigError(f"epoch must lie in 1..{MAX_EPOCH}, got {self.epoch!r}")
        for member in self.roster.members:
            require_member(member)
        names, keys = Counter(n.name for n in self.nodes), Counter(n.key for n in self.nodes)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ConfigError(f"node {twice[0]!r} occurs {names[twice[0]]} times")
        if shared := [n.name for n in self.nodes if keys[n.key] > 1]:
            raise ConfigError(f"nodes {', '.join(shared)} share one link key")
        voices = {member.public_key: member.id for member in self.roster.members}
        if both := [n for n in self.nodes if n.key in voices]:
            raise ConfigError(
                f"node {both[0].name!r} has the key of member {voices[both[0].key]!r}: links need their own"
            )
        hosted = Counter(member for node in self.nodes for member in node.members)
        if strangers := sorted(set(hosted) - set(self.roster.keys)):
            raise ConfigError(f"node {self._first_host(strangers[0])!r} hosts {strangers[0]!r}, who is not a member")
        if homeless := [m.id for m in self.roster.members if hosted[m.id] != 1]:
            raise ConfigError(f"member {homeless[0]!r} is on {hosted[homeless[0]]} nodes: it must be on exactly one")
        self._require_retired()

    def _require_retired(self) -> None:
        """Raise ConfigError unless the retired keys are nobody's, and revoked members not here."""
        if len(self.retired) > MAX_RETIRED:
            raise ConfigError(f"more than {MAX_RETIRED} retired keys, none of which may be forgotten: found anew")
        left: dict[bytes, RetiredKey] = {}
        revoked: set[str] = set()
        for each in self.retired:
            require_path("node", each.id)
            if len(each.key) != 32 or type(each.epoch) is not int or not 2 <= each.epoch <= self.epoch:
                raise ConfigError(f"retired key of {each.id!r}: expected 32 bytes and an epoch in 2..{self.epoch}")
            if each.key in left:
                raise ConfigError(f"retired key of {each.id!r}: it occurs twice")
            if each.revoked and (each.id in revoked or each.id in self.roster):
                raise ConfigError(f"member {each.id!r} is revoked, and on the list all the same")
            left[each.key] = each
            if each.revoked:
                revoked.add(each.id)
        held = [(f"member {m.id!r}", m.public_key) for m in self.roster.members]
        for who, key in [*held, *((f"node {n.name!r}", n.key) for n in self.nodes)]:
            if key in left:
                known = left[key]
                how = f"it comes back as {known.id!r} alone" if known.revoked else "it was replaced for good"
                raise ConfigError(
                    f"{who} has the key that was {known.id!r}'s before epoch {known.epoch}: {how}; one data source has "
                    "one key and one ledger"
                )

    def _first_host(self, member_id: str) -> str:
        return next(node.name for node in self.nodes if member_id in node.members)

    @property
    def epoch(self) -> int:
        """Number of this list; a newer one replaces it."""
        return self.roster.epoch

    @property
    def federation(self) -> str:
        """The federation's id."""
        return self.roster.federation

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that the operator signs, after a label of their own."""
        rows = [[node.name, node.key, node.address, list(node.members)] for node in self.nodes]
        retired = [[each.id, each.epoch, each.key, each.revoked] for each in self.retired]
        return bytes(msgpack.packb([self.roster.canonical, rows, retired]))

    @cached_property
    def _by_name(self) -> dict[str, NodeEntry]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _hosts(self) -> dict[str, str]:
        return {member: node.name for node in self.nodes for member in node.members}

    def node_of(self, member_id: str) -> str:
        """Return the node that hosts a member; UnknownClientError when nobody has that id."""
        if member_id not in self._hosts:
            raise UnknownClientError(f"{member_id!r} is not on the directory of epoch {self.epoch}")
        return self._hosts[member_id]

    def first_key(self, member_id: str) -> bytes | None:
        """Return the first key that a member had, which owns its ledger; None when it never had another."""
        return next((each.key for each in self.retired if each.id == member_id), None)

    def revoked_key(self, member_id: str) -> bytes | None:
        """Return the key with which a member was revoked; None when it was not, or is back."""
        return next((each.key for each in self.retired if each.id == member_id and each.revoked), None)

    def hosts(self, node: str, member_id: str) -> bool:
        """Say whether a member is on a node; False for names that nobody has."""
        return self._hosts.get(member_id) == node

    def peers(self) -> dict[str, bytes]:
        """Return the link key of every node."""
        return {node.name: node.key for node in self.nodes}

    def entry(self, node: str) -> NodeEntry:
        """Return a node by name; UnknownClientError when there is none."""
        if node not in self._by_name:
            raise UnknownClientError(f"node {node!r} is not on the directory of epoch {self.epoch}")
        return self._by_name[node]


def require_member(member: Member) -> None:
    """Raise ConfigError unless an id can be an actor's path, and is the one that the role's messages are sent to."""
    require_path("node", member.id)
    if member.role is Role.COORDINATOR:
        expected = COORDINATOR
    else:
        expected = basket_id(member.domain) if member.role is Role.BASKET else member.id
        require_path(member.domain, basket_id(member.domain))
    if member.id != expected:
        raise ConfigError(f"member {member.id!r} is a {member.role.value}: its id must be {expected!r}")


@attrs.frozen
class SignedDirectory:
    """A directory with the operator's word for it.

    Attributes:
        directory: who is who, and where.
        roster_signature: 64 bytes over the roster, as a `RosterNotice` carries it.
        signature: 64 bytes over the directory.
    """

    directory: Directory
    roster_signature: bytes
    signature: bytes


def sign_directory(directory: Directory, operator_key: SigningKey) -> SignedDirectory:
    """Return the directory with the operator's signatures."""
    signature = operator_key.sign(_LABEL + directory.canonical).signature
    return SignedDirectory(directory, sign_roster(directory.roster, operator_key), signature)


def verify_directory(signed: SignedDirectory, operator_public_key: bytes) -> bool:
    """Say whether the operator signed the directory, and the roster in it."""
    try:
        verify_roster(signed.directory.roster.canonical, signed.roster_signature, operator_public_key)
        VerifyKey(operator_public_key).verify(_LABEL + signed.directory.canonical, signed.signature)
    except (ProtocolError, BadSignatureError, ValueError):
        return False
    return True


# The file.


def _checked(check: Any, value: str) -> str:
    check(value)
    return value


FEDERATION: Final = checked_by(
    lambda v: _checked(lambda name: require_name("federation", name), v), "text of 1 to 128 printable bytes"
)
_NAME: Final = checked_by(lambda v: _checked(lambda n: require_path(n, COORDINATOR), v), "letters, digits, _ . -")
_ADDRESS: Final = checked_by(
    lambda v: v and _checked(parse_address, v), "HOST:PORT, or nothing for a node that only dials out"
)
_ID: Final = checked_by(lambda v: _checked(lambda n: require_path("node", n), v), "letters, digits, _ . - and /")
_INSTANT: Final = real("seconds", lambda v: 0 <= v < math.inf)
_TOP: Final = (
    Key("format", choice(FORMAT), "what this file is"),
    Key("federation", FEDERATION, "the federation's id"),
    Key("epoch", whole(1, MAX_EPOCH), "number of this list; a newer one replaces it"),
    Key(
        "expires_at",
        Kind("seconds since 1970, or null for never", lambda v: math.inf if v is None else _INSTANT.read(v)),
        "when the list stops being valid",
    ),
    Key("roster_signature", hexadecimal(64), "the operator's signature over the members"),
    Key("signature", hexadecimal(64), "the operator's signature over members and nodes"),
)
NODE_KEYS: Final = (
    Key("name", _NAME, "the node"),
    Key("key", hexadecimal(32), "its link key"),
    Key("address", _ADDRESS, "where it is dialled"),
)
MEMBER_KEYS: Final = (
    Key("id", _ID, "the member"),
    Key("role", choice(*(role.value for role in Role)), "what it does"),
    Key("domain", text("a domain, empty for the coordinator", least=0, most=128), "its basket's"),
    Key("key", hexadecimal(32), "the key that signs its packets"),
)
RETIRED_KEYS: Final = (
    Key("id", _ID, "the member that has left it"),
    Key("epoch", whole(2, MAX_EPOCH), "the first one in which it was not the member's"),
    Key("key", hexadecimal(32), "the key"),
    Key("revoked", Kind("true or false", lambda v: of_type(bool, v)), "whether the member was revoked with it"),
)


def directory_json(signed: SignedDirectory) -> str:
    """Return a signed directory as the text of `roster.json`."""
    directory = signed.directory
    expires_at = directory.roster.expires_at
    members = {member.id: member for member in directory.roster.members}

    def row(member: Member) -> dict[str, str]:
        return {"id": member.id, "role": member.role.value, "domain": member.domain, "key": member.public_key.hex()}

    said = {
        "format": FORMAT,
        "federation": directory.federation,
        "epoch": directory.epoch,
        "expires_at": None if math.isinf(expires_at) else expires_at,
        "nodes": [
            {
                "name": node.name,
                "key": node.key.hex(),
                "address": node.address,
                "members": [row(members[name]) for name in node.members],
            }
            for node in directory.nodes
        ],
        "retired": [
            {"id": each.id, "epoch": each.epoch, "key": each.key.hex(), "revoked": each.revoked}
            for each in directory.retired
        ],
        "roster_signature": signed.roster_signature.hex(),
        "signature": signed.signature.hex(),
    }
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_directory(data: bytes, path: Path) -> SignedDirectory:
    """Return what the bytes of a `roster.json` say; nobody's word is checked yet.

    Args:
        data: the file's bytes.
        path: the file, for messages.

    Raises:
        ConfigError: another form, or a list that cannot hold; the field is named.
    """
    top = Fields(parse_json(data, path), (), in_file(path), [*(key.name for key in _TOP), "nodes", "retired"])
    values = top.all(_TOP)
    if "retired" not in top:  # a list that remembers nothing says so
        top.refuse("retired", "missing; expected a list of groups")
    rows = top.groups("retired", [key.name for key in RETIRED_KEYS])
    if len(rows) > MAX_RETIRED:
        top.refuse("retired", f"expected at most {MAX_RETIRED}, got {len(rows)}")
    retired = [RetiredKey(**row.all(RETIRED_KEYS)) for row in rows]
    members: list[Member] = []
    nodes: list[NodeEntry] = []
    try:
        for fields in top.groups("nodes", [*(key.name for key in NODE_KEYS), "members"]):
            inside = [each.all(MEMBER_KEYS) for each in fields.groups("members", [key.name for key in MEMBER_KEYS])]
            nodes.append(NodeEntry(**fields.all(NODE_KEYS), members=tuple(member["id"] for member in inside)))
            members += [Member(m["id"], Role(m["role"]), m["domain"], m["key"]) for m in inside]
        roster = Roster(values["federation"], values["epoch"], tuple(members), values["expires_at"])
        directory = Directory(roster, tuple(nodes), tuple(retired))
    except FederationError as error:
        words = str(error)
        raise ConfigError(words if words.startswith(str(path)) else f"{path}: nodes: {words}") from None
    return SignedDirectory(directory, values["roster_signature"], values["signature"])


def read_directory(path: Path, operator_public_key: bytes, now: float) -> SignedDirectory:
    """Return the directory of a file, if the operator signed it and it is still valid.

    Args:
        path: `roster.json`.
        operator_public_key: 32 bytes, known out of band.
        now: seconds since 1970.

    Raises:
        ConfigError: no such file, another form, not signed by this operator, or expired.
    """
    signed = parse_directory(read_bounded(path, MAX_SIZE_BYTES), path)
    if not verify_directory(signed, operator_public_key):
        raise ConfigError(
            f"{path}: signature: not the operator's; the key that is pinned begins {operator_public_key[:8].hex()}. "
            "Either the file was altered or another operator made it"
        )
    expires_at = signed.directory.roster.expires_at
    if not now < expires_at:
        raise ConfigError(
            f"{path}: expires_at: epoch {signed.directory.epoch} expired on {instant(expires_at)}; ask the operator "
            "for a newer one"
        )
    return signed


def write_directory(path: Path, signed: SignedDirectory) -> None:
    """Write `roster.json`, whole or not at all; ConfigError when it cannot be written, or nobody would read it."""
    data = directory_json(signed).encode()
    if len(data) > MAX_SIZE_BYTES:
        raise ConfigError(f"{path}: the roster would have {len(data)} bytes, at most {MAX_SIZE_BYTES} are read")
    write_whole(path, data, "roster")


def instant(at: float) -> str:
    """Return seconds since 1970 as a date and time in UTC, for people; `never` for infinity."""
    if math.isinf(at):
        return "never"
    try:
        return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {at:.0f}"
