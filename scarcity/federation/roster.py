"""Who is who: ids, roles, domains and public keys, signed by the federation's operator.

The roster is the only source of keys. Its root (BLAKE2b of the canonical bytes) stands in every round's config and in
every secure sum, so two parties with different rosters cannot complete a round together. Joining or leaving makes a new
epoch.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Final

import attrs
import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from scarcity.errors import ConfigError, DuplicateClientError, ProtocolError, UnknownClientError

COORDINATOR: Final = "coordinator"
_LABEL: Final = b"scarcity.roster"
_MAX_ID_BYTES: Final = 128


class Role(enum.Enum):
    """What a member does."""

    CLIENT = "client"
    BASKET = "basket"
    COORDINATOR = "coordinator"


def require_name(field: str, name: object) -> None:
    """Raise ConfigError unless a name can be that of a member, a domain or a federation."""
    if (
        not isinstance(name, str)
        or not 0 < len(name.encode(errors="replace")) <= _MAX_ID_BYTES
        or not name.isprintable()
    ):
        raise ConfigError(f"{field} must be text of 1 to {_MAX_ID_BYTES} printable bytes, got {str(name)[:40]!r}")


def basket_id(domain_id: str) -> str:
    """Return the member id of a domain's basket. Clients cannot take it: their ids hold no slash."""
    return f"basket/{domain_id}"


@attrs.frozen
class Member:
    """One party. `domain` is the basket it belongs to (or is), empty for the coordinator."""

    id: str
    role: Role
    domain: str
    public_key: bytes

    def __attrs_post_init__(self) -> None:
        if not self.id or len(self.id.encode()) > _MAX_ID_BYTES or not self.id.isprintable():
            raise ConfigError(f"a member's id must be 1 to {_MAX_ID_BYTES} printable bytes, got {self.id[:40]!r}")
        if self.role is Role.CLIENT and ("/" in self.id or self.id == COORDINATOR):
            raise ConfigError(f"client id {self.id!r}: ids with a slash and {COORDINATOR!r} are taken by roles")
        if len(self.public_key) != 32:
            raise ConfigError(f"member {self.id}: an Ed25519 public key has 32 bytes, got {len(self.public_key)}")


def _sorted_members(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.id))


@attrs.frozen(slots=False)
class Roster:
    """All members of one epoch, sorted by id.

    Raises:
        DuplicateClientError: an id occurs twice.
        ConfigError: two members share a key (a key has one ledger and one voice), or no single coordinator.
    """

    federation: str
    epoch: int
    members: tuple[Member, ...] = attrs.field(converter=_sorted_members)
    expires_at: float = attrs.field(default=math.inf, converter=float)

    def __attrs_post_init__(self) -> None:
        ids, keys = Counter(m.id for m in self.members), Counter(m.public_key for m in self.members)
        if twice := [name for name, count in ids.items() if count > 1]:
            raise DuplicateClientError(f"roster: id {twice[0]!r} occurs {ids[twice[0]]} times")
        if shared := [m.id for m in self.members if keys[m.public_key] > 1]:
            raise ConfigError(f"roster: members {shared} share one public key")
        if sum(m.role is Role.COORDINATOR for m in self.members) != 1:
            raise ConfigError("roster: exactly one member must be the coordinator")

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that the operator signs."""
        rows = [[m.id, m.role.value, m.domain, m.public_key] for m in self.members]
        return bytes(msgpack.packb([self.federation, self.epoch, self.expires_at, rows]))

    @cached_property
    def root(self) -> bytes:
        """32-byte digest that names this roster."""
        return hashlib.blake2b(self.canonical, digest_size=32, person=_LABEL).digest()

    @cached_property
    def _by_id(self) -> dict[str, Member]:
        return {member.id: member for member in self.members}

    @cached_property
    def keys(self) -> dict[str, bytes]:
        """Id -> Ed25519 public key."""
        return {member.id: member.public_key for member in self.members}

    @cached_property
    def baskets(self) -> tuple[Member, ...]:
        """The members that are baskets, sorted by id."""
        return tuple(member for member in self.members if member.role is Role.BASKET)

    @cached_property
    def _clients_by_domain(self) -> dict[str, tuple[Member, ...]]:
        clients = [member for member in self.members if member.role is Role.CLIENT]
        return {d: tuple(m for m in clients if m.domain == d) for d in {m.domain for m in clients}}

    def __contains__(self, member_id: object) -> bool:
        return member_id in self._by_id

    def member(self, member_id: str) -> Member:
        """Return a member by id; UnknownClientError when there is none."""
        if member_id not in self._by_id:
            raise UnknownClientError(f"{member_id!r} is not on the roster of epoch {self.epoch}")
        return self._by_id[member_id]

    def clients_of(self, domain_id: str) -> tuple[Member, ...]:
        """Return the clients of one basket, sorted by id."""
        return self._clients_by_domain.get(domain_id, ())


def _parse_member(name: object, role: object, domain: object, key: object) -> Member:
    # Text of 32 letters is as long as a key, and a member's text field of another type would fail far from here.
    if not (isinstance(name, str) and isinstance(role, str) and isinstance(domain, str) and isinstance(key, bytes)):
        raise ProtocolError("not a roster: a member's field is of the wrong type")
    return Member(name, Role(role), domain, key)


def largest_basket(roster: Roster) -> int:
    """Return the number of clients of the largest basket: the most weight that one basket can have (unit client)."""
    return max((len(roster.clients_of(basket.domain)) for basket in roster.baskets), default=0)


def parse_roster(canonical: bytes) -> Roster:
    """Return the roster of canonical bytes.

    Raises:
        ProtocolError: the bytes are not the canonical form of a sound roster.
    """
    try:
        federation, epoch, expires_at, rows = msgpack.unpackb(canonical, max_map_len=0, max_ext_len=0)
        if (type(federation), type(epoch), type(expires_at)) != (str, int, float) or math.isnan(expires_at):
            raise ProtocolError("not a roster: federation, epoch or expiry of the wrong type")
        members = tuple(_parse_member(*row) for row in rows)
        roster = Roster(federation, epoch, members, expires_at)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a roster: {error}") from None
    if roster.canonical != canonical:
        raise ProtocolError("not the canonical form of a roster")
    return roster


def sign_roster(roster: Roster, operator_key: SigningKey) -> bytes:
    """Return the operator's signature over the roster."""
    return operator_key.sign(_LABEL + roster.canonical).signature


def verify_roster(canonical: bytes, signature: bytes, operator_public_key: bytes) -> Roster:
    """Return the roster if the operator signed it; ProtocolError otherwise."""
    try:
        VerifyKey(operator_public_key).verify(_LABEL + canonical, signature)
    except (BadSignatureError, ValueError):
        raise ProtocolError("the roster does not carry the operator's signature") from None
    return parse_roster(canonical)
