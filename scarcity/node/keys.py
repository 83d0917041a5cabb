"""Private keys as files: PEM that only its owner can read, in a folder that only its owner can enter.

A key is never written over another one: a lost member key is a lost voice, and a new one a second budget for the same
data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from nacl.signing import SigningKey

from actors.links.tls import private_pem
from scarcity.errors import ConfigError
from scarcity.node.fields import read_bounded

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
    """Write a file that is not there yet, whole; it is on the disk when this returns.

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
