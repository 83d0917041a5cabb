"""`scarcity keys`: who is who. Options in, files out; what may follow what is of `scarcity.node.setup.succession`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from scarcity.cli.options import FILE
from scarcity.errors import ConfigError
from scarcity.node.files import require_writable, write_whole
from scarcity.node.setup import enrolment, succession
from scarcity.node.setup import keys as store
from scarcity.node.setup.directory import (
    MAX_SIZE_BYTES,
    Directory,
    SignedDirectory,
    instant,
    parse_directory,
    read_directory,
    sign_directory,
    write_directory,
)
from scarcity.node.setup.fields import read_bounded
from scarcity.node.setup.request import read_request

FOLDER: Final = click.Path(file_okay=False, path_type=Path)
MAX_DAYS: Final = 36_525
_F = TypeVar("_F", bound=Callable[..., None])


@click.group()
def keys() -> None:
    """Make keys, prove them, and say in a signed list who is who and where.

    The operator: `keys federation`, then `keys sign` and `keys roster make` for the requests that hosts send. Each
    host: `keys node`. Private keys stay in the folder in which they are made, mode 600, and are never written over.
    """


@keys.command()
@click.option("--name", required=True, metavar="ID", help="The federation's id.")
@click.option("--out", required=True, type=FOLDER, metavar="DIR", help="Folder for the operator's keys.")
@click.option("--years", type=int, default=10, show_default=True, help="How long the authority is valid.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def federation(*, name: str, out: Path, years: int, as_json: bool) -> None:
    """Make the operator's two keys: one signs rosters, one is the authority that signs certificates.

    Tell every host the operator's public key, and let them compare its fingerprint with you by telephone: whoever can
    put another key into their federation.toml is the operator.

    Status: 0 done, 2 wrong use.
    """
    made = store.make_federation(name, years, time.time(), os.urandom)
    store.write_federation(out, made)
    said = {
        "federation": name,
        "operator_key": made.operator_public_key.hex(),
        "operator_fingerprint": store.fingerprint(made.operator_public_key),
        "authority_fingerprint": store.fingerprint(made.authority_pem),
    }
    _say(said, as_json=as_json)


@keys.command()
@click.argument("name")
@click.option("--address", default="", metavar="HOST:PORT", help="Where others dial it. Default: it only dials out.")
@click.option("--client", "clients", multiple=True, metavar="ID:DOMAIN", help="A client that it hosts; repeat.")
@click.option("--basket", "baskets", multiple=True, metavar="DOMAIN", help="A basket that it hosts; repeat.")
@click.option("--coordinator", is_flag=True, help="It hosts the coordinator.")
@click.option("--out", required=True, type=FOLDER, metavar="DIR", help="Folder for its keys and request.json.")
@click.option("--keep", type=FOLDER, metavar="DIR", help="Folder of this host's old keys: its members keep theirs.")
@click.option("--renew-members", is_flag=True, help="With --keep: new keys for members, signed by their old ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def node(
    *,
    name: str,
    address: str,
    clients: Sequence[str],
    baskets: Sequence[str],
    coordinator: bool,
    out: Path,
    keep: Path | None,
    renew_members: bool,
    as_json: bool,
) -> None:
    """Make the keys of host NAME and of its members, and request.json for the operator.

    One data source has one key and one ledger. To give a host new keys, name its old folder with --keep: members keep
    theirs, or have their old key sign the new one with --renew-members.

    Status: 0 done, 2 wrong use.
    """
    seats = enrolment.seats_of(clients, baskets, coordinator=coordinator)
    if renew_members and keep is None:
        raise ConfigError("--renew-members needs --keep DIR: the old keys have to sign the new ones")
    request = enrolment.enrol(name, address, seats, out, os.urandom, keep=keep, renew_members=renew_members)
    said = {
        "node": name,
        "request": str(out / store.REQUEST),
        "request_fingerprint": store.fingerprint(request.canonical),
        "members": ", ".join(request.entry.members),
    }
    _say(said, as_json=as_json)


@keys.command()
@click.argument("request", type=FILE)
@click.option("--federation-dir", required=True, type=FOLDER, metavar="DIR", help="The operator's folder.")
@click.option("--days", type=int, default=365, show_default=True, help="How long the certificate is valid.")
@click.option("--out", required=True, type=FILE, metavar="CERT", help="File for the certificate, PEM.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def sign(*, request: Path, federation_dir: Path, days: int, out: Path, force: bool) -> None:
    """Sign a certificate for the host that sent REQUEST.

    Compare the fingerprint with the host by telephone before the certificate goes there, with authority.pem beside it.

    Status: 0 done, 2 wrong use.
    """
    require_writable(out, "--out", replace=force)
    asked = read_request(request)
    operator = store.read_federation(federation_dir)
    write_whole(out, store.certificate_of(operator, asked.node, asked.key, days, time.time()), "--out")
    _say({"certificate": str(out), "node": asked.node, "request_fingerprint": store.fingerprint(asked.canonical)})


@keys.group()
def roster() -> None:
    """Make and change the signed list of members and nodes.

    Every change is a new epoch, exactly one higher. The file is replaced at once or not at all.
    """


def _operator(function: _F) -> _F:
    option = click.option("--federation-dir", required=True, type=FOLDER, metavar="DIR", help="The operator's folder.")
    return option(function)


def _successor(function: _F) -> _F:
    """Add what every command has that goes from one epoch to the next."""
    out = click.option("--out", type=FILE, metavar="FILE", help="File of the new epoch. Default: ROSTER itself.")
    days = click.option("--expires-days", type=int, metavar="N", help="Valid so long. Default: as before.")
    return _operator(out(days(click.argument("path", metavar="ROSTER", type=FILE)(function))))


@roster.command()
@click.argument("requests", nargs=-1, required=True, type=FILE, metavar="REQUEST...")
@_operator
@click.option("--out", required=True, type=FILE, metavar="FILE", help="File for the roster; it must not be there yet.")
@click.option("--expires-days", type=int, default=365, show_default=True, help="How long the list is valid.")
def make(*, requests: Sequence[Path], federation_dir: Path, out: Path, expires_days: int) -> None:
    """Make the first roster, epoch 1, of the requests of all hosts.

    Status: 0 done, 2 wrong use.
    """
    require_writable(out, "--out")
    if out.exists():
        raise ConfigError(f"--out {out}: is there already, and epoch 1 comes once; add, rotate or sign goes on from it")
    operator = store.read_federation(federation_dir)
    asked = [read_request(request) for request in requests]
    _write(out, succession.first_directory(operator.federation, asked, _expiry(expires_days)), operator)
    for request in asked:
        click.echo(f"request of {request.node}: {store.fingerprint(request.canonical)}")


@roster.command(name="add")
@_successor
@click.argument("requests", nargs=-1, required=True, type=FILE, metavar="REQUEST...")
def add(*, requests: Sequence[Path], **place: Any) -> None:
    """Add the hosts of REQUESTs, with their members.

    A member that was revoked comes back under its old name and with its old key, or with one that the old one has
    signed (`keys node --keep DIR`): its ledger is that key's.

    Status: 0 done, 2 wrong use.
    """
    asked = [read_request(request) for request in requests]
    _change(lambda directory, expires_at: succession.joined(directory, asked, expires_at), **place)


@roster.command(name="sign")
@_successor
def sign_again(**place: Any) -> None:
    """Sign ROSTER again, as the next epoch: to make it valid for longer.

    Status: 0 done, 2 wrong use.
    """
    _change(succession.renewed, **place)


@roster.command()
@_successor
@click.option("--node", metavar="NAME", help="This host and all its members.")
@click.option("--member", metavar="ID", help="This member.")
def revoke(*, node: str | None, member: str | None, **place: Any) -> None:
    """Take a host or a member off ROSTER.

    Links to a host that is not on the list end as soon as a node reads the new one; what it contributed stays. The list
    remembers the keys of who has left: they are nobody else's for good.

    Status: 0 done, 2 wrong use.
    """
    if (node is None) is (member is None):
        raise ConfigError("name either --node NAME or --member ID")

    def change(directory: Directory, expires_at: float) -> Directory:
        if node is not None:
            return succession.without_node(directory, node, expires_at)
        return succession.without_member(directory, str(member), expires_at)

    _change(change, **place)


@roster.command()
@_successor
@click.argument("request", type=FILE)
def rotate(*, request: Path, **place: Any) -> None:
    """Give the host of REQUEST its new link key, and new members where it names some.

    A member keeps its key, unless its old key has signed the new one (`keys node --keep DIR --renew-members`): one
    data source has one key and one ledger. Whoever could change a key silently could spend a second budget on the same
    data.

    Status: 0 done, 2 wrong use.
    """
    asked = read_request(request)
    _change(lambda directory, expires_at: succession.rotated(directory, asked, expires_at), **place)
    click.echo(f"request of {asked.node}: {store.fingerprint(asked.canonical)}")


@roster.command()
@click.argument("path", metavar="ROSTER", type=FILE)
@click.option("--operator-key", metavar="HEX", help="Check that this operator signed it, and that it is still valid.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(*, path: Path, operator_key: str | None, as_json: bool) -> None:
    """Show who is who and where.

    Status: 0 done, 2 wrong use: with --operator-key also a list that another operator signed, or that has expired.
    """
    signed = _read(path) if operator_key is None else read_directory(path, _key(operator_key), time.time())
    checked = operator_key is not None
    click.echo(_as_json(signed, checked=checked) if as_json else _as_text(signed, checked=checked))


def _read(path: Path) -> SignedDirectory:
    return parse_directory(read_bounded(path, MAX_SIZE_BYTES), path)


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(f"--operator-key: expected 64 hexadecimal digits, got {text[:70]!r}")
    return key


def _expiry(days: int) -> float:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"--expires-days must lie in 1..{MAX_DAYS}, got {days}")
    return float(math.floor(time.time()) + days * 86_400)


def _change(
    change: Callable[[Directory, float], Directory],
    *,
    path: Path,
    federation_dir: Path,
    out: Path | None,
    expires_days: int | None,
) -> None:
    """Read a roster that this operator signed, expired or not, and write what follows it."""
    target = out or path
    require_writable(target, "--out", replace=target == path)
    operator = store.read_federation(federation_dir)
    before = read_directory(path, operator.operator_public_key, -math.inf).directory
    _write(
        target, change(before, before.roster.expires_at if expires_days is None else _expiry(expires_days)), operator
    )


def _write(path: Path, directory: Directory, operator: store.OperatorKeys) -> None:
    write_directory(path, sign_directory(directory, operator.operator_key))
    click.echo(
        f"{path}: epoch {directory.epoch}, {len(directory.roster.members)} members on {len(directory.nodes)} nodes, "
        f"valid until {instant(directory.roster.expires_at)}"
    )
    if alone := succession.without_basket(directory):
        click.echo(f"caution: clients {', '.join(alone)} have no basket now", err=True)
    if directory.roster.expires_at <= time.time():
        click.echo("caution: it has expired already; --expires-days N makes it valid", err=True)


def _say(said: dict[str, str], *, as_json: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    for name, value in said.items():
        click.echo(f"{name.replace('_', ' ')}: {value}")


def _as_json(signed: SignedDirectory, *, checked: bool) -> str:
    directory, expires_at = signed.directory, signed.directory.roster.expires_at
    nodes = [
        {"name": n.name, "key": n.key.hex(), "address": n.address, "members": list(n.members)} for n in directory.nodes
    ]
    said = {
        "federation": directory.federation,
        "epoch": directory.epoch,
        "expires_at": None if math.isinf(expires_at) else expires_at,
        "root": directory.roster.root.hex(),
        "signature_checked": checked,
        "nodes": nodes,
        "members": [
            {"id": m.id, "role": m.role.value, "domain": m.domain, "key": m.public_key.hex()}
            for m in directory.roster.members
        ],
        "retired": [
            {"id": each.id, "epoch": each.epoch, "key": each.key.hex(), "revoked": each.revoked}
            for each in directory.retired
        ],
    }
    return json.dumps(said, indent=2)


def _as_text(signed: SignedDirectory, *, checked: bool) -> str:
    directory = signed.directory
    lines = [
        f"federation {directory.federation}, epoch {directory.epoch}, valid until "
        f"{instant(directory.roster.expires_at)}",
        "signed by this operator" if checked else "signature not checked: give --operator-key",
    ]
    for node in directory.nodes:
        lines.append(f"{node.name}  {node.address or 'dials out'}  key {node.key.hex()[:16]}")
        for name in node.members:
            member = directory.roster.member(name)
            lines.append(f"  {name}  {member.role.value}  {member.domain}  key {member.public_key.hex()[:16]}")
    for each in directory.retired:
        what = "revoked" if each.revoked else "replaced"
        lines.append(f"{each.id}  {what} in epoch {each.epoch}  key {each.key.hex()[:16]}")
    return "\n".join(line.rstrip() for line in lines)
