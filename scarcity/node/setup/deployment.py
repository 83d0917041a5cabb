"""What one node has to go by, checked before anything starts: its config, the signed directory, its private keys.

Everything that can be wrong is found here and said once, with the file that has to be mended; a node that starts has
keys that are on the directory, hosts exactly the members that the directory places on it, and uses a carrier that its
trust mode allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from nacl.signing import SigningKey

from actors.errors import BadSetting
from actors.links import Files, MutualTls, Plaintext, Security, TcpConfig, TcpTransport
from scarcity.errors import ConfigError
from scarcity.federation.basket import BasketManager
from scarcity.federation.roster import COORDINATOR, Roster, basket_id
from scarcity.federation.transport import Reach, refuse_unsafe
from scarcity.node.data.tail import TailedRows
from scarcity.node.setup.config import NodeConfig
from scarcity.node.setup.directory import Directory, SignedDirectory, read_directory
from scarcity.node.setup.keys import ledger_key_path, read_ledger_key, read_private_key


@attrs.frozen
class Deployment:
    """A node's config with the files that it names.

    Attributes:
        config: the node's own settings and the federation's.
        signed: the directory in force, with the operator's signatures.
        link_key: the node's private key, for links and the outbox.
        member_keys: id -> private key, of the members that this node hosts.
        ledger_keys: id -> public key that owns the member's ledger: the first one that its data source had.
    """

    config: NodeConfig
    signed: SignedDirectory
    link_key: SigningKey = attrs.field(repr=False)
    member_keys: Mapping[str, SigningKey] = attrs.field(repr=False)
    ledger_keys: Mapping[str, bytes]

    @property
    def directory(self) -> Directory:
        """Who is who, and where."""
        return self.signed.directory

    @property
    def roster(self) -> Roster:
        """The members of the epoch."""
        return self.directory.roster

    def security(self) -> Security:
        """Return what is between TCP and our frames.

        Raises:
            BadSetting: a certificate or key does not serve; it says why.
        """
        config = self.config
        if config.security == "plaintext":
            return Plaintext()
        assert config.certificate is not None, "a config for mtls names a certificate"
        assert config.authority is not None, "and an authority"
        return MutualTls(Files(config.certificate, config.key, config.authority))

    def transport(self) -> TcpTransport:
        """Return the node's links, none of which is up yet.

        Raises:
            ConfigError: the certificate, the key or the address to listen on does not serve; it says why.
        """
        config, directory = self.config, self.directory
        host, port = config.listen
        try:
            tcp = TcpConfig(
                node=config.name,
                federation=directory.federation,
                key=directory.entry(config.name).key,
                peers=directory.peers(),
                host=host,
                port=port,
            )
            return TcpTransport(tcp, self.security())
        except BadSetting as error:
            raise ConfigError(f"{config.path}: {error}") from error

    def rows(self) -> dict[str, int]:
        """Read each client's file, as far as it is there, and return client -> rows.

        Raises:
            ConfigError, InvalidRow: a file that does not fit the schema, with line and column.
        """
        schema = self.config.federation.schema
        tails = {seat.id: TailedRows(seat.source, schema, seat.time, seat.variables) for seat in self.config.clients}
        return {name: len(tail.read_new()[1]) for name, tail in tails.items()}


def open_deployment(config: NodeConfig, now: float) -> Deployment:
    """Read what a config names and see that it fits together.

    Args:
        config: the node's settings.
        now: seconds since 1970, for what expires.

    Raises:
        ConfigError: the first thing that does not fit, and the file to mend.
    """
    federation = config.federation
    reach = Reach.LOOPBACK if config.security == "plaintext" else Reach.NETWORK
    refuse_unsafe(reach, federation.settings.mode, reproducible_noise=False)
    signed = read_directory(config.roster, federation.operator_key, now)
    if signed.directory.federation != federation.federation:
        raise ConfigError(
            f"{config.roster}: it is of federation {signed.directory.federation!r}, {federation.path} of "
            f"{federation.federation!r}"
        )
    link_key = read_private_key(config.key)
    paths = _key_paths(config)
    member_keys = {member: read_private_key(path) for member, path in paths.items()}
    ledger_keys = {member: read_ledger_key(path, member_keys[member]) for member, path in paths.items()}
    require_seated(config, signed.directory, link_key, member_keys)
    _require_ledgers(signed.directory, paths, ledger_keys)
    _require_baskets(config, signed.directory)
    return Deployment(config, signed, link_key, member_keys, ledger_keys)


def require_listed(config: NodeConfig, directory: Directory, link_key: SigningKey) -> None:
    """Raise ConfigError unless this node is on a directory, with its key."""
    entry = next((node for node in directory.nodes if node.name == config.name), None)
    if entry is None:
        raise ConfigError(f"{config.roster}: node {config.name!r} is not on the directory of epoch {directory.epoch}")
    if entry.key != link_key.verify_key.encode():
        raise ConfigError(f"{config.roster}: node {config.name!r} has another key there than in {config.key}")


def seated(config: NodeConfig, directory: Directory, member_keys: Mapping[str, SigningKey]) -> frozenset[str]:
    """Return those of this node's members that a directory places here, with their keys."""
    here = (member for member in member_keys if directory.hosts(config.name, member))
    keys = directory.roster.keys
    return frozenset(member for member in here if keys[member] == member_keys[member].verify_key.encode())


def require_seated(
    config: NodeConfig, directory: Directory, link_key: SigningKey, member_keys: Mapping[str, SigningKey]
) -> None:
    """Raise ConfigError unless a directory places this node, its key and its members as the node has them."""
    require_listed(config, directory, link_key)
    placed = directory.entry(config.name).members
    if set(placed) != set(member_keys):
        raise ConfigError(
            f"{config.path}: it hosts {_names(member_keys)}, the directory of epoch {directory.epoch} places "
            f"{_names(placed)} on {config.name!r}: make the two agree"
        )
    if strange := sorted(set(placed) - seated(config, directory, member_keys)):
        raise ConfigError(f"{config.roster}: member {strange[0]!r} has another key there than in this node's key file")


def _require_ledgers(directory: Directory, paths: Mapping[str, Path], ledger_keys: Mapping[str, bytes]) -> None:
    """Raise ConfigError unless each member has a ledger of its own, which is that of its first key.

    The file beside a key is not signed: what the directory remembers of the member's keys goes before it.
    """
    voices = {key: name for name, key in directory.roster.keys.items()}
    owners: dict[bytes, str] = {}
    for member, key in ledger_keys.items():
        path, first = ledger_key_path(paths[member]), directory.first_key(member)
        if first not in (None, key):
            assert first is not None, "None is among what is passed over"
            raise ConfigError(
                f"{path}: the ledger of {member!r} is that of its first key; expected {first.hex()} in it"
            )
        other = owners.get(key) or voices.get(key, member)
        if other != member:
            raise ConfigError(
                f"{path}: members {member!r} and {other!r} have one ledger, key {key.hex()[:16]}..: they are one data "
                "source, and one of them has to go; ask the operator to revoke it"
            )
        owners[key] = member


def _require_baskets(config: NodeConfig, directory: Directory) -> None:
    """Raise ConfigError for a federation in which no round can ever give a model."""
    settings, roster = config.federation.settings, directory.roster
    expected = BasketManager(roster, settings.min_clients).expected
    if len(expected) < settings.min_baskets:
        raise ConfigError(
            f"{config.roster}: a model takes {settings.min_baskets} baskets of at least {settings.min_clients} clients "
            f"({config.federation.path}: mode {settings.mode.value}), the roster has {len(expected)}"
        )


def _names(members: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(sorted(members)) or "nobody"


def _key_paths(config: NodeConfig) -> dict[str, Path]:
    """Return the key file of each member that the config hosts."""
    paths = {seat.id: seat.key for seat in config.clients}
    paths |= {basket_id(seat.domain): seat.key for seat in config.baskets}
    if config.coordinator_key is not None:
        paths[COORDINATOR] = config.coordinator_key
    return paths
