"""What a host sends to the operator: the public keys it wants on the roster, each proven.

    host                                             operator
    keys and request.json   --- the file --->        checks every proof, compares the fingerprint out of band
                            <-- certificate, roster

Every key signs the whole request, the link key and each member's own: nobody can put a key that is not theirs on a
roster, or move a member from one request into another. A member that changes its key lets the old one sign too: one
data source has one key and one ledger, so a change that the old key does not vouch for would be a second budget.

Not defended against: a stranger who sends a sound request of their own. The operator knows whom to expect, and hears
the fingerprint from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from scarcity.errors import ConfigError
from scarcity.federation.roster import Member, Role
from scarcity.node.setup.directory import (
    MEMBER_KEYS,
    NODE_KEYS,
    NodeEntry,
    require_member,
)
from scarcity.node.setup.fields import Fields, Key, choice, hexadecimal, in_file, optional, parse_json, read_bounded

_LABEL: Final = b"scarcity.request"
FORMAT: Final = "scarcity-request-1"
MAX_SIZE_BYTES: Final = 1 << 20  # some thousands of members on one host


@attrs.frozen
class Wish:
    """A member that a host asks for.

    Attributes:
        member: id, role, domain and public key.
        previous_key: the public key that it replaces, None for a new or unchanged member.
    """

    member: Member
    previous_key: bytes | None = None


def _sorted_wishes(wishes: Iterable[Wish]) -> tuple[Wish, ...]:
    return tuple(sorted(wishes, key=lambda wish: wish.member.id))


@attrs.frozen
class Request:
    """A host and its members, as they want to stand on the roster.

    Raises:
        ConfigError: nobody to host, names or keys twice, or a name that cannot be an address.
    """

    node: str
    key: bytes
    address: str
    wishes: tuple[Wish, ...] = attrs.field(converter=_sorted_wishes)

    def __attrs_post_init__(self) -> None:
        ids = [wish.member.id for wish in self.wishes]
        NodeEntry(self.node, self.key, self.address, tuple(ids))
        if not ids:
            raise ConfigError(f"node {self.node!r} asks for no member: name a client, a basket or the coordinator")
        for wish in self.wishes:
            require_member(wish.member)
        keys = [self.key, *(wish.member.public_key for wish in self.wishes)]
        if len(set(ids)) < len(ids) or len(set(keys)) < len(keys):
            raise ConfigError(f"node {self.node!r}: a member or key occurs twice; links and members have a key each")

    @property
    def entry(self) -> NodeEntry:
        """The node, as it will stand on the directory."""
        return NodeEntry(self.node, self.key, self.address, tuple(wish.member.id for wish in self.wishes))

    @property
    def canonical(self) -> bytes:
        """The bytes that every key of it signs, after a label of their own."""
        rows = [
            [m.id, m.role.value, m.domain, m.public_key, wish.previous_key or b""]
            for wish in self.wishes
            for m in [wish.member]
        ]
        return bytes(msgpack.packb([self.node, self.key, self.address, rows]))


def make_request(
    request: Request,
    node_key: SigningKey,
    member_keys: Mapping[str, SigningKey],
    previous_keys: Mapping[str, SigningKey],
) -> str:
    """Return the text of a request's file, signed by every key of it.

    Args:
        request: what is asked for.
        node_key: private link key.
        member_keys: private key of each member, by id.
        previous_keys: private key that a member leaves, by id.
    """
    said = _LABEL + request.canonical

    def proof(key: SigningKey) -> str:
        return key.sign(said).signature.hex()

    def row(wish: Wish) -> dict[str, str]:
        member = wish.member
        words = {"id": member.id, "role": member.role.value, "domain": member.domain, "key": member.public_key.hex()}
        words["signature"] = proof(member_keys[member.id])
        if wish.previous_key is not None:
            words |= {
                "previous_key": wish.previous_key.hex(),
                "previous_signature": proof(previous_keys[member.id]),
            }
        return words

    values = {
        "format": FORMAT,
        "name": request.node,
        "key": request.key.hex(),
        "address": request.address,
        "members": [row(wish) for wish in request.wishes],
        "signature": proof(node_key),
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


_FORMAT: Final = Key("format", choice(FORMAT), "what this file is")
_PROOF: Final = Key("signature", hexadecimal(64), "the key's signature over the request")
_OLD_KEY: Final = Key("previous_key", optional(hexadecimal(32)), "the key that this one replaces", None)
_OLD_PROOF: Final = Key("previous_signature", optional(hexadecimal(64)), "that key's signature", None)


def parse_request(data: bytes, path: Path) -> Request:
    """Return the request of a file's bytes, if every key of it has signed it.

    Args:
        data: the file's bytes.
        path: the file, for messages.

    Raises:
        ConfigError: another form, or a signature that is not its key's; the field is named.
    """
    member_names = [key.name for key in (*MEMBER_KEYS, _PROOF, _OLD_KEY, _OLD_PROOF)]
    names = ["format", *(key.name for key in NODE_KEYS), "members", "signature"]
    top = Fields(parse_json(data, path), (), in_file(path), names)
    top.get(_FORMAT)
    said, rows = top.all(NODE_KEYS), top.groups("members", member_names)
    members = [row.all((*MEMBER_KEYS, _PROOF, _OLD_KEY, _OLD_PROOF)) for row in rows]
    signature = top.get(_PROOF)
    try:
        wishes = [Wish(_member(each), each["previous_key"]) for each in members]
        request = Request(said["name"], said["key"], said["address"], tuple(wishes))
    except ConfigError as error:
        top.refuse("members", str(error))
    if not _signed(request, said["key"], signature):
        top.refuse("signature", "it is not the link key's over this request")
    for row, each in zip(rows, members, strict=True):
        if not _signed(request, each["key"], each["signature"]):
            row.refuse("signature", f"it is not that of {each['id']!r} over this request")
        old_key, old_signature = each["previous_key"], each["previous_signature"]
        if (old_key is None) != (old_signature is None):
            row.refuse("previous_key", "expected together with previous_signature")
        if old_key is not None and not _signed(request, old_key, old_signature):
            row.refuse("previous_signature", f"it is not that of the old key of {each['id']!r} over this request")
    return request


def _member(values: dict[str, Any]) -> Member:
    return Member(values["id"], Role(values["role"]), values["domain"], values["key"])


def _signed(request: Request, key: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(_LABEL + request.canonical, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def read_request(path: Path) -> Request:
    """Return the request of a file; ConfigError, with the field, when it is not sound."""
    return parse_request(read_bounded(path, MAX_SIZE_BYTES), path)
