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

from actors.links import Files, MutualTls, Plaintext
from actors.links.security import Security
from scarcity.errors import ConfigError
from scarcity.federation.roster import COORDINATOR, Roster, basket_id
from scarcity.federation.transport import Reach, refuse_unsafe
from scarcity.node.config import NodeConfig
from scarcity.node.directory import Directory, SignedDirectory, read_directory
from scarcity.node.keys import read_private_key


@attrs.frozen
class Deployment:
    """A node's config with the files that it names.

    Attributes:
        config: the node's own settings and the federation's.
        signed: the directory in force, with the operator's signatures.
        link_key: the node's private key, for links and the outbox.
        member_keys: id -> private key, of the members that this node hosts.
    """

    config: NodeConfig
    signed: SignedDirectory
    link_key: SigningKey = attrs.field(repr=False)
    member_keys: Mapping[str, SigningKey] = attrs.field(repr=False)

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
    member_keys = {member: read_private_key(path) for member, path in _key_paths(config).items()}
    require_seated(config, signed.directory, link_key, member_keys)
    return Deployment(config, signed, link_key, member_keys)


def require_seated(
    config: NodeConfig, directory: Directory, link_key: SigningKey, member_keys: Mapping[str, SigningKey]
) -> None:
    """Raise ConfigError unless a directory places this node, its key and its members as the node has them."""
    entry = next((node for node in directory.nodes if node.name == config.name), None)
    if entry is None:
        raise ConfigError(f"{config.roster}: node {config.name!r} is not on the directory of epoch {directory.epoch}")
    if entry.key != link_key.verify_key.encode():
        raise ConfigError(f"{config.roster}: node {config.name!r} has another key there than in {config.key}")
    if set(entry.members) != set(member_keys):
        raise ConfigError(
            f"{config.path}: it hosts {_names(member_keys)}, the directory of epoch {directory.epoch} places "
            f"{_names(entry.members)} on {config.name!r}"
        )
    for member, key in member_keys.items():
        if directory.roster.member(member).public_key != key.verify_key.encode():
            raise ConfigError(f"{config.roster}: member {member!r} has another key there than in this node's key file")


def _names(members: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(sorted(members)) or "nobody"


def _key_paths(config: NodeConfig) -> dict[str, Path]:
    """Return the key file of each member that the config hosts."""
    paths = {seat.id: seat.key for seat in config.clients}
    paths |= {basket_id(seat.domain): seat.key for seat in config.baskets}
    if config.coordinator_key is not None:
        paths[COORDINATOR] = config.coordinator_key
    return paths
