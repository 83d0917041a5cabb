"""One data source, one ledger: what a host's files say of it, before anything starts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from scarcity.cli.init import init
from scarcity.cli.keys import keys
from scarcity.errors import ConfigError
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.deployment import Deployment, open_deployment
from scarcity.node.setup.keys import read_private_key
from tests.nodes_world import Daemon, Federation, Host, command, found

SEATS = ("--client=a0:a", "--client=a1:a", "--basket=a")


@pytest.fixture
def made(tmp_path: Path) -> Federation:
    site = Host("site", (("a0", "a"), ("a1", "a")), ("a",))
    return found(tmp_path, [Host("hub", coordinator=True), site], security="plaintext")


def rotate(made: Federation, old: str, new: str, *more: str) -> None:
    """Make new keys of the host in a folder, and have the operator sign them."""
    site, operator = made.daemons["site"], made.operator
    place = ("--keep", site.folder / old, "--out", site.folder / new)
    command(keys, "node", "site", "--address", site.address, *SEATS, *more, *place)
    request = site.folder / new / "request.json"
    command(keys, "roster", "rotate", operator / "roster.json", request, "--federation-dir", operator / "keys")


def opened(made: Federation, folder: str) -> Deployment:
    site: Daemon = made.daemons["site"]
    shutil.copy(made.operator / "roster.json", site.folder / "roster.json")
    own = ("--federation", site.folder / "federation.toml", "--roster", site.folder / "roster.json")
    place = ("--listen", site.address, "--security", "plaintext", "--time", "day", "--force", "--out", site.config)
    command(init, "node", "site", "--keys", site.folder / folder, *own, *place)
    return open_deployment(read_node_config(site.config), time.time())


def test_a_renewed_member_goes_on_with_its_first_ledger(made: Federation) -> None:
    first = opened(made, "keys").ledger_keys
    rotate(made, "keys", "keys2", "--renew-members")
    rotate(made, "keys2", "keys3", "--renew-members")
    assert opened(made, "keys3").ledger_keys == first


def test_a_first_key_under_a_second_name_is_refused(made: Federation) -> None:
    rotate(made, "keys", "keys2", "--renew-members")
    members = made.daemons["site"].folder / "keys2" / "members"
    shutil.copy(made.daemons["site"].folder / "keys" / "members" / "a0.key", members / "b0.key")
    with pytest.raises(ConfigError, match="'b0' has the key that was 'a0''s"):
        rotate(made, "keys2", "keys3", "--client=b0:a")


def test_the_file_that_names_the_ledger_cannot_be_taken_away_or_altered(made: Federation) -> None:
    rotate(made, "keys", "keys2", "--renew-members")
    rotate(made, "keys2", "keys3", "--renew-members")
    site = made.daemons["site"].folder
    path = site / "keys3" / "members" / "a0.ledger"
    second = read_private_key(site / "keys2" / "members" / "a0.key").verify_key.encode()
    whole = path.read_text()
    for other in (None, second.hex(), "00" * 32):
        path.unlink() if other is None else path.write_text(other)
        with pytest.raises(ConfigError, match=f"a0.ledger: .*first key; expected {whole.strip()}"):
            opened(made, "keys3")
    path.write_text(whole)
    opened(made, "keys3")


def test_two_members_with_one_ledger_are_refused(made: Federation) -> None:
    members = made.daemons["site"].folder / "keys" / "members"
    own = read_private_key(members / "a1.key").verify_key.encode()
    (members / "a0.ledger").write_text(own.hex())
    with pytest.raises(ConfigError, match=r"a[01]\.ledger: members 'a[01]' and 'a[01]' have one ledger"):
        opened(made, "keys")
    for name in ("a0", "a1"):
        (members / f"{name}.ledger").write_text("11" * 32)
    with pytest.raises(ConfigError, match=r"a1\.ledger: members 'a1' and 'a0' have one ledger"):
        opened(made, "keys")
