"""Private keys as files: PEM that only its owner can read, in a folder that only its owner can enter.

A key is never written over another one: a lost member key is a lost voice, and a new one a second budget for the same
data.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from nacl.signing import SigningKey

from actors.links.tls import make_authority, private_pem, sign_node
from scarcity.errors import ConfigError
from scarcity.federation.roster import require_name
from scarcity.node.setup.fields import read_bounded

MAX_SIZE_BYTES: Final = 64 << 10  # a PEM key has some 120 bytes, a certificate some 600
Entropy = Callable[[int], bytes]


def make_key(entropy: Entropy) -> SigningKey:
    """Return a new Ed25519 key."""
    return SigningKey(entropy(32))


def as_ed25519(key: SigningKey) -> Ed25519PrivateKey:
    """Return the same key as certificates want it."""
    return Ed25519PrivateKey.from_private_bytes(key.encode())


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, and those above it that are not there.

    Raises:
        ConfigError: it cannot be made, or is there and others can enter it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        mode = path.stat().st_mode & 0o077
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from None
    if mode:
        raise ConfigError(f"{path}: others can enter this folder; expected mode 700: chmod 700 {path}")


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that is not there yet, whole; its bytes are on the disk when this returns.

    Args:
        path: where.
        data: what.
        mode: who may read it; it holds from the first byte on.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already and is never written over; name another folder") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key must not stand in the way of the next attempt
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def write_private_key(path: Path, key: SigningKey) -> None:
    """Write a private key as PEM, mode 600; ConfigError when a file is there already."""
    write_new(path, private_pem(as_ed25519(key)), mode=0o600)


def read_private_key(path: Path) -> SigningKey:
    """Return the Ed25519 key of a PEM file.

    Raises:
        ConfigError: no such file, another kind of key, or a file that others than its owner can read.
    """
    data = read_bounded(path, MAX_SIZE_BYTES)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others can read this private key; expected mode 600: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: expected a private key, Ed25519, PEM without password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 key, got {type(key).__name__.removesuffix('PrivateKey')}")
    return SigningKey(key.private_bytes_raw())


# The operator's folder.

OPERATOR_KEY: Final = "operator.key"
AUTHORITY_KEY: Final = "authority.key"
AUTHORITY: Final = "authority.pem"
MAX_NAME: Final = 64  # characters of a name in a certificate (RFC 5280, ub-common-name)
MAX_YEARS: Final = 50
# A certificate is valid from a day ago on: clocks of hosts need not agree to the hour.
_BACKDATED: Final = dt.timedelta(days=1)


@attrs.frozen
class OperatorKeys:
    """What the operator of a federation holds.

    Attributes:
        federation: its id.
        operator_key: signs rosters.
        authority_key: signs certificates.
        authority_pem: the authority's certificate, public.
    """

    federation: str
    operator_key: SigningKey = attrs.field(repr=False)
    authority_key: SigningKey = attrs.field(repr=False)
    authority_pem: bytes = attrs.field(repr=False)

    @property
    def operator_public_key(self) -> bytes:
        """32 bytes, which every host pins in its federation.toml."""
        return self.operator_key.verify_key.encode()


def make_federation(federation: str, years: int, now: float, entropy: Entropy) -> OperatorKeys:
    """Return new keys of an operator.

    Args:
        federation: its id.
        years: how long the authority is valid.
        now: seconds since 1970.
        entropy: source of the keys.

    Raises:
        ConfigError: a name that cannot stand in a certificate, or years out of range.
    """
    require_name("federation", federation)
    if len(federation) > MAX_NAME:
        raise ConfigError(f"federation must have at most {MAX_NAME} characters, got {len(federation)}")
    if not 1 <= years <= MAX_YEARS:
        raise ConfigError(f"years must lie in 1..{MAX_YEARS}, got {years}")
    operator_key, authority_key = make_key(entropy), make_key(entropy)
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    pem = make_authority(
        as_ed25519(authority_key),
        federation,
        not_before=start - _BACKDATED,
        not_after=start + dt.timedelta(days=365.25 * years),
    )
    return OperatorKeys(federation, operator_key, authority_key, pem)


def write_federation(folder: Path, keys: OperatorKeys) -> None:
    """Write the operator's folder; ConfigError when there is one already."""
    make_private_folder(folder)
    write_private_key(folder / OPERATOR_KEY, keys.operator_key)
    write_private_key(folder / AUTHORITY_KEY, keys.authority_key)
    write_new(folder / AUTHORITY, keys.authority_pem)


def read_federation(folder: Path) -> OperatorKeys:
    """Return what the operator's folder holds.

    Raises:
        ConfigError: a file is missing or of another kind, or the certificate is not the authority's.
    """
    operator_key = read_private_key(folder / OPERATOR_KEY)
    authority_key = read_private_key(folder / AUTHORITY_KEY)
    path = folder / AUTHORITY
    pem = read_bounded(path, MAX_SIZE_BYTES)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: expected the certificate of an authority, PEM") from None
    if not isinstance(key, Ed25519PublicKey) or key.public_bytes_raw() != authority_key.verify_key.encode():
        raise ConfigError(f"{path}: it is not the certificate of {folder / AUTHORITY_KEY}")
    return OperatorKeys(str(name.value), operator_key, authority_key, pem)


def certificate_of(keys: OperatorKeys, node: str, node_key: bytes, days: int, now: float) -> bytes:
    """Return a node's certificate as PEM.

    Args:
        keys: the operator's.
        node: the node's name.
        node_key: 32 bytes, its public link key.
        days: how long it is valid.
        now: seconds since 1970.

    Raises:
        ConfigError: longer than the authority itself, or a key that is no key.
    """
    authority = x509.load_pem_x509_certificate(keys.authority_pem)
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    left = (authority.not_valid_after_utc - start).days
    if not 1 <= days <= left:
        raise ConfigError(f"days must lie in 1..{left}, where the authority of {keys.federation!r} ends, got {days}")
    try:
        return sign_node(
            as_ed25519(keys.authority_key),
            keys.authority_pem,
            node,
            node_key,
            not_before=start - _BACKDATED,
            not_after=start + dt.timedelta(days=days),
        )
    except ValueError:
        raise ConfigError(f"node {node!r}: its link key is no Ed25519 key") from None


def fingerprint(data: bytes) -> str:
    """Return 128 bits that stand for some bytes, in groups of four digits, to be read out by telephone."""
    digits = hashlib.blake2b(data, digest_size=16, person=b"scarcity.finger").hexdigest()
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


# A host's folder.

NODE_KEY: Final = "node.key"
NODE_CERTIFICATE: Final = "node.pem"
REQUEST: Final = "request.json"


def member_key_path(folder: Path, member_id: str) -> Path:
    """Return where a host's folder keeps the key of a member."""
    return folder / "members" / f"{member_id}.key"


def ledger_key_path(key_path: Path) -> Path:
    """Return where it stands which key owns the ledger of a member that has got a new key."""
    return key_path.with_suffix(".ledger")


def read_ledger_key(key_path: Path, key: SigningKey) -> bytes:
    """Return the public key, 32 bytes, that a member's data source had first: the ledger is that key's.

    Args:
        key_path: file of the member's private key.
        key: what is in it.

    Raises:
        ConfigError: the file beside the key cannot be read, or holds no key.
    """
    path = ledger_key_path(key_path)
    if not path.exists():
        return key.verify_key.encode()
    try:
        first = bytes.fromhex(read_bounded(path, MAX_SIZE_BYTES).decode("ascii").strip())
    except ValueError:
        first = b""
    if len(first) != 32:
        raise ConfigError(f"{path}: expected the 64 hexadecimal digits of a public key")
    return first


def write_node(
    folder: Path,
    node_key: SigningKey,
    member_keys: Mapping[str, SigningKey],
    request: bytes,
    ledger_keys: Mapping[str, bytes],
) -> None:
    """Write a host's folder: its keys and the request to the operator.

    Args:
        folder: it must not be another host's.
        node_key: the link key.
        member_keys: by member id.
        request: bytes of the request's file.
        ledger_keys: by member id, the key that owns the ledger, of those members whose own key is another by now.

    Raises:
        ConfigError: a file of it is there already, or it cannot be written.
    """
    make_private_folder(folder)
    write_private_key(folder / NODE_KEY, node_key)
    for member_id, key in member_keys.items():
        path = member_key_path(folder, member_id)
        make_private_folder(folder / "members")
        make_private_folder(path.parent)
        write_private_key(path, key)
        if member_id in ledger_keys:
            write_new(ledger_key_path(path), ledger_keys[member_id].hex().encode() + b"\n")
    write_new(folder / REQUEST, request)
