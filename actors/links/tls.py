"""Mutual TLS 1.3 inside a federation: an authority of its own, Ed25519 keys, and the peer's key handed up to be pinned.

Each side shows a certificate of the federation's authority and both verify it, so a stranger is refused before a
frame of ours is read. Which key may be which node is not the certificate's to say but the list's: `secure` returns
the key that was proven, and `judge` compares. Host names mean nothing here. No tickets: a resumed session would not
look at the certificate again. Validity is looked at by the wall clock, at start and at every handshake: a link that is
up outlives its certificate, until it is dialed again.

Trusted: the authority's key, for who may knock; the list, for who is who; the wall clock, for what has expired.
Revoking is taking a key off the list.
"""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import anyio.abc
import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.errors import BadSetting
from actors.links.session import LinkRefused, Refusal
from actors.links.tls_stream import TlsStream

_HAS_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return the key as unencrypted PKCS #8 PEM; whoever writes it to a file sees that only its owner can read it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(
    key: Ed25519PrivateKey, federation: str, *, not_before: dt.datetime, not_after: dt.datetime
) -> bytes:
    """Return the federation's authority, a certificate that signs itself and nothing but nodes, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, federation)])
    builder = (
        _certificate(name, name, key.public_key(), not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def sign_node(
    authority_key: Ed25519PrivateKey,
    authority_pem: bytes,
    node: str,
    node_key: bytes,
    *,
    not_before: dt.datetime,
    not_after: dt.datetime,
) -> bytes:
    """Return a node's certificate as PEM; of the node only its public key is needed, its private one stays there.

    Args:
        authority_key: the authority's private key.
        authority_pem: its certificate.
        node: the node's name.
        node_key: the 32 bytes of its Ed25519 public key.
        not_before: aware, start of validity.
        not_after: aware, end of validity.
    """
    public = Ed25519PublicKey.from_public_bytes(node_key)
    issuer = x509.load_pem_x509_certificate(authority_pem).subject
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node[:64])])
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = (
        _certificate(subject, issuer, public, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(both, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    return builder.sign(authority_key, None).public_bytes(Encoding.PEM)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    not_before: dt.datetime,
    not_after: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificate_key(der: bytes) -> bytes:
    """Return the 32 bytes of the Ed25519 key in a certificate.

    Raises:
        LinkRefused: it has another kind of key.
    """
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise LinkRefused(Refusal.WRONG_KEY, "the certificate cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise LinkRefused(Refusal.WRONG_KEY, "the certificate's key is not Ed25519")
    return key.public_bytes_raw()


@attrs.frozen
class Files:
    """PEM files of a node: its certificate, its private key, the federation's authority."""

    certificate: Path
    key: Path
    authority: Path


class MutualTls:
    """Secures streams with TLS 1.3 on which both sides show a certificate of the authority.

    Args:
        files: what this node shows and trusts; read now and not again.
        now: the wall clock, seconds since 1970.

    Attributes:
        key: the 32 bytes of the public key in this node's certificate.
        expires_at: when the certificate or its authority expires, whichever is first, seconds since 1970.

    Raises:
        BadSetting: a file cannot be read, the key is not the certificate's, the certificate is not of the authority, or
            one of them has expired or is not valid yet.
    """

    loopback_only = False

    def __init__(self, files: Files, *, now: Callable[[], float] = time.time) -> None:
        certificate, *_ = _read(files.certificate, "certificate")
        authority = _issuer(certificate, files)
        _check_validity(authority, files.authority, "authority", now())
        _check_validity(certificate, files.certificate, "certificate", now())
        try:
            self.key = certificate_key(certificate.public_bytes(Encoding.DER))
        except LinkRefused as error:
            raise BadSetting(f"certificate: {files.certificate}: expected an Ed25519 key") from error
        self.expires_at = min(one.not_valid_after_utc.timestamp() for one in (certificate, authority))
        self._server = _context(ssl.PROTOCOL_TLS_SERVER, files)
        self._server.num_tickets = 0
        self._client = _context(ssl.PROTOCOL_TLS_CLIENT, files)

    async def secure(self, stream: anyio.abc.ByteStream, *, dialing: bool) -> tuple[anyio.abc.ByteStream, bytes | None]:
        """Shake hands and return the stream inside, and the peer's proven public key.

        Raises:
            LinkRefused: the peer speaks no TLS 1.3, or its certificate does not verify. A dialer whose own is refused
                learns it later, at its first `receive`: an `ssl.SSLError`.
        """
        inside = TlsStream(stream, self._client if dialing else self._server, server_side=not dialing)
        try:
            await inside.handshake()
        except ssl.SSLError as error:
            raise LinkRefused(tls_refusal(error), error.reason or "") from error
        return inside, certificate_key(inside.peer_certificate())


def _read(path: Path, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise BadSetting(f"{what}: {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadSetting(f"{what}: {path}: expected certificates in PEM") from error


def _issuer(certificate: x509.Certificate, files: Files) -> x509.Certificate:
    """Return who signed the certificate; while an authority is replaced, the file holds the old one and the new one."""
    for authority in _read(files.authority, "authority"):
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, TypeError, ValueError):
            continue
        return authority
    raise BadSetting(f"certificate: {files.certificate} is not signed by the authority in {files.authority}")


def _check_validity(certificate: x509.Certificate, path: Path, what: str, now: float) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end.timestamp():
        raise BadSetting(f"{what}: {path} was valid until {end:%Y-%m-%d %H:%M:%S} UTC; get a new one signed")
    if now < begin.timestamp():
        raise BadSetting(
            f"{what}: {path} is not valid until {begin:%Y-%m-%d %H:%M:%S} UTC; look at this machine's clock"
        )


def tls_refusal(error: ssl.SSLError) -> Refusal:
    """Return which refusal an error of TLS is; an alert of the peer says what it thinks of our certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refusal.EXPIRED if error.verify_code == _HAS_EXPIRED else Refusal.UNTRUSTED
    reason = error.reason or ""
    if "CERTIFICATE_EXPIRED" in reason:
        return Refusal.EXPIRED
    certificate = "CERTIFICATE" in reason or "UNKNOWN_CA" in reason
    return Refusal.UNTRUSTED if certificate else Refusal.NOT_TLS


def _context(protocol: int, files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        # An empty password, or OpenSSL would ask the terminal for the one of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        mismatch = isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH"
        wrong = (
            f"it is not the key of {files.certificate}" if mismatch else f"expected an unencrypted key in PEM: {error}"
        )
        raise BadSetting(f"key: {files.key}: {wrong}") from error
    context.load_verify_locations(files.authority)
    return context
