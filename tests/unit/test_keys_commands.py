from __future__ import annotations

import datetime as dt
import json
import math
import stat
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.links import Files, MutualTls
from actors.links.tls import certificate_key
from scarcity.cli import main as cli
from scarcity.errors import ConfigError
from scarcity.node.setup.config import read_federation_file, read_node_config
from scarcity.node.setup.directory import SignedDirectory, read_directory
from scarcity.node.setup.keys import read_private_key
from tests.keys_world import SCHEMA

ROOT = Path(__file__).parents[2]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.GROUP]
Shown = pytest.CaptureFixture[str]
CLIENTS = ("--client", "h1:kenya", "--client", "h2:kenya")


@pytest.fixture(autouse=True)
def _declared_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, value, cli.GROUP) for name, value in POINTS.items()}
    monkeypatch.setattr(cli, "entry_points", lambda: points)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scarcity(*arguments: object) -> int:
    return cli.run(cli.scarcity, [str(argument) for argument in arguments])


def roster(*arguments: object) -> int:
    return scarcity("keys", "roster", *arguments)


@pytest.fixture
def operator(capsys: Shown) -> bytes:
    """The operator's folder `op`, hosts `hub` and `spoke`, and a roster of epoch 1; the operator's public key."""
    assert scarcity("keys", "federation", "--name", "kenya-health", "--out", "op", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    hub = ("--address", "hub.example:7400", "--basket", "kenya", "--coordinator")
    assert scarcity("keys", "node", "hub", *hub, "--out", "hub") == 0
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke") == 0
    assert roster("make", "hub/request.json", "spoke/request.json", "--federation-dir", "op", "--out", "r.json") == 0
    capsys.readouterr()
    return bytes.fromhex(said["operator_key"])


def read(operator: bytes, path: str = "r.json") -> SignedDirectory:
    return read_directory(Path(path), operator, dt.datetime.now(dt.UTC).timestamp())


def one_line(capsys: Shown) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert "Traceback" not in line
    return line


def test_private_files_are_for_their_owner_alone(operator: bytes) -> None:
    files = {path for folder in ("op", "hub", "spoke") for path in Path(folder).rglob("*")}
    keys = {path.as_posix() for path in files if path.suffix == ".key"}
    assert keys == {
        "op/operator.key",
        "op/authority.key",
        "hub/node.key",
        "hub/members/coordinator.key",
        "hub/members/basket/kenya.key",
        "spoke/node.key",
        "spoke/members/h1.key",
        "spoke/members/h2.key",
    }
    for path in [*files, Path("op"), Path("hub"), Path("spoke")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600 if path.suffix == ".key" else mode), path
    assert read_private_key(Path("op/operator.key")).verify_key.encode() == operator


def test_the_roster_holds_the_keys_of_the_hosts(operator: bytes) -> None:
    directory = read(operator).directory
    assert (directory.federation, directory.epoch) == ("kenya-health", 1)
    for node, members in (("hub", ("basket/kenya", "coordinator")), ("spoke", ("h1", "h2"))):
        entry = directory.entry(node)
        assert entry.members == members
        assert entry.key == read_private_key(Path(node) / "node.key").verify_key.encode()
        for member in members:
            key = read_private_key(Path(node) / "members" / f"{member}.key").verify_key.encode()
            assert directory.roster.member(member).public_key == key


def test_nothing_is_written_over(operator: bytes, capsys: Shown) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert scarcity("keys", "federation", "--name", "x", "--out", "op") == 2
    assert "op/operator.key: is there already and is never written over" in one_line(capsys)
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke") == 2
    assert "never written over" in one_line(capsys)
    assert roster("make", "hub/request.json", "--federation-dir", "op", "--out", "r.json") == 2
    assert "epoch 1 comes once" in one_line(capsys)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_certificate_serves_a_link_and_carries_the_nodes_key(operator: bytes, capsys: Shown) -> None:
    sign = ("keys", "sign", "spoke/request.json", "--federation-dir", "op", "--out", "spoke/node.pem")
    assert scarcity(*sign, "--days", 30) == 0
    MutualTls(Files(Path("spoke/node.pem"), Path("spoke/node.key"), Path("op/authority.pem")))
    certificate = x509.load_pem_x509_certificate(Path("spoke/node.pem").read_bytes())
    assert certificate_key(certificate.public_bytes(Encoding.DER)) == read(operator).directory.entry("spoke").key
    assert 30 <= (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 31
    capsys.readouterr()
    assert scarcity(*sign) == 2
    assert "--force replaces it" in one_line(capsys)
    assert scarcity(*sign, "--force") == 0
    capsys.readouterr()
    for days in (0, 36_600):
        assert scarcity(*sign, "--force", "--days", days) == 2
        assert "days must lie in 1..3652" in one_line(capsys)


def test_sign_makes_the_next_epoch_and_longer_validity(operator: bytes) -> None:
    before = read(operator).directory
    assert roster("sign", "r.json", "--federation-dir", "op") == 0
    after = read(operator).directory
    assert (after.epoch, after.roster.expires_at, after.nodes) == (2, before.roster.expires_at, before.nodes)
    assert roster("sign", "r.json", "--federation-dir", "op", "--expires-days", 1000, "--out", "s.json") == 0
    assert read(operator, "s.json").directory.epoch == 3
    assert read(operator, "s.json").directory.roster.expires_at > after.roster.expires_at + 600 * 86_400
    assert read(operator).directory == after


def test_revoke_takes_members_and_hosts_off(operator: bytes, capsys: Shown) -> None:
    assert roster("revoke", "r.json", "--member", "h1", "--federation-dir", "op") == 0
    assert read(operator).directory.entry("spoke").members == ("h2",)
    assert roster("revoke", "r.json", "--node", "spoke", "--federation-dir", "op") == 0
    assert set(read(operator).directory.peers()) == {"hub"}
    assert read(operator).directory.epoch == 3
    capsys.readouterr()
    for wrong, words in (
        ((), "either --node NAME or --member ID"),
        (("--node", "hub", "--member", "h2"), "either --node NAME or --member ID"),
        (("--node", "hub"), "is the coordinator"),
        (("--member", "h1"), "'h1' is not on"),
    ):
        assert roster("revoke", "r.json", *wrong, "--federation-dir", "op") == 2
        assert words in one_line(capsys)
    assert read(operator).directory.epoch == 3


def test_revoking_a_basket_says_who_is_left_without_one(operator: bytes, capsys: Shown) -> None:
    assert roster("revoke", "r.json", "--member", "basket/kenya", "--federation-dir", "op") == 0
    assert "caution: clients h1, h2 have no basket now" in capsys.readouterr().err


def test_rotate_keeps_members_keys_or_has_the_old_ones_word(operator: bytes, capsys: Shown) -> None:
    before = read(operator).directory
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke2", "--keep", "spoke") == 0
    assert roster("rotate", "r.json", "spoke2/request.json", "--federation-dir", "op") == 0
    after = read(operator).directory
    assert after.entry("spoke").key != before.entry("spoke").key
    assert after.roster.members == before.roster.members
    renew = ("--keep", "spoke2", "--renew-members")
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke3", *renew) == 0
    assert roster("rotate", "r.json", "spoke3/request.json", "--federation-dir", "op") == 0
    renewed = read(operator).directory
    assert renewed.roster.member("h1").public_key != before.roster.member("h1").public_key
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke4") == 0
    capsys.readouterr()
    assert roster("rotate", "r.json", "spoke4/request.json", "--federation-dir", "op") == 2
    assert "one data source has one key and one ledger" in one_line(capsys)
    assert read(operator).directory == renewed
    assert renewed.epoch == 3
    assert roster("show", "r.json") == 0
    assert "h1  replaced in epoch 3  key" in capsys.readouterr().out


def test_who_was_revoked_comes_back_with_the_old_key_alone(operator: bytes, capsys: Shown) -> None:
    assert roster("revoke", "r.json", "--member", "h1", "--federation-dir", "op") == 0
    Path("spoke/members/h1.key").rename("h1.key")
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke2", "--keep", "spoke") == 0
    capsys.readouterr()
    assert roster("rotate", "r.json", "spoke2/request.json", "--federation-dir", "op") == 2
    assert "'h1' was revoked, and its old key has not signed" in one_line(capsys)
    Path("h1.key").rename("spoke/members/h1.key")
    assert scarcity("keys", "node", "spoke", *CLIENTS, "--out", "spoke3", "--keep", "spoke") == 0
    assert roster("rotate", "r.json", "spoke3/request.json", "--federation-dir", "op") == 0
    assert read(operator).directory.retired == ()
    capsys.readouterr()
    assert roster("show", "r.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["retired"] == []


def test_add_brings_a_new_host(operator: bytes, capsys: Shown) -> None:
    assert scarcity("keys", "node", "spoke2", "--client", "h3:kenya", "--out", "spoke2") == 0
    assert roster("add", "r.json", "spoke2/request.json", "--federation-dir", "op") == 0
    assert read(operator).directory.node_of("h3") == "spoke2"
    capsys.readouterr()
    assert roster("add", "r.json", "spoke2/request.json", "--federation-dir", "op") == 2
    assert "on the roster already" in one_line(capsys)


def test_another_operator_cannot_go_on_from_a_roster(operator: bytes, capsys: Shown) -> None:
    assert scarcity("keys", "federation", "--name", "kenya-health", "--out", "evil") == 0
    capsys.readouterr()
    assert roster("sign", "r.json", "--federation-dir", "evil") == 2
    assert "r.json: signature: not the operator's" in one_line(capsys)
    Path("op/authority.pem").write_bytes(Path("evil/authority.pem").read_bytes())
    assert roster("sign", "r.json", "--federation-dir", "op") == 2
    assert "is not the certificate of" in one_line(capsys)


def test_show_says_whether_the_signature_was_checked(operator: bytes, capsys: Shown) -> None:
    assert roster("show", "r.json") == 0
    text = capsys.readouterr().out
    assert "signature not checked" in text
    assert "spoke  dials out" in text
    assert roster("show", "r.json", "--json", "--operator-key", operator.hex()) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["signature_checked"] is True
    assert [member["id"] for member in said["members"]] == ["basket/kenya", "coordinator", "h1", "h2"]
    for key in ("00" * 32, "xyz", ""):
        assert roster("show", "r.json", "--operator-key", key) == 2
        assert one_line(capsys)


def test_fingerprints_are_those_that_the_other_side_sees(operator: bytes, capsys: Shown) -> None:
    assert scarcity("keys", "node", "n", "--client", "h9:kenya", "--out", "n", "--json") == 0
    fingerprint = json.loads(capsys.readouterr().out)["request_fingerprint"]
    assert scarcity("keys", "sign", "n/request.json", "--federation-dir", "op", "--out", "n/node.pem") == 0
    assert f"request fingerprint: {fingerprint}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("federation", "--name", "", "--out", "x"), "federation must be text"),
        (("federation", "--name", "f" * 65, "--out", "x"), "at most 64 characters"),
        (("federation", "--name", "f", "--out", "x", "--years", 0), "years must lie in 1..50"),
        (("node", "n", "--out", "x"), "asks for no member"),
        (("node", "n", "--client", "h1", "--out", "x"), "expected ID:DOMAIN, got 'h1'"),
        (("node", "n", "--client", "a b:c", "--out", "x"), "--client: expected letters, digits"),
        (("node", "n", "--client", "../../h:c", "--out", "x"), "--client: expected letters, digits"),
        (("node", "n", "--client", "..:c", "--out", "x"), "no dot in front"),
        (("node", "n", "--basket", "../c", "--out", "x"), "no dot in front"),
        (("node", "n", "--client", "h:c", "--client", "h:c", "--out", "x"), "occurs twice"),
        (("node", "n/m", "--client", "h:c", "--out", "x"), "expected letters"),
        (("node", "n", "--client", "h:c", "--address", "nowhere", "--out", "x"), "--address: expected HOST:PORT"),
        (("node", "n n", "--basket", "c", "--out", "x"), "scarcity: NAME: expected letters, digits"),
        (("node", "n", "--client", "h:c:d", "--out", "x"), "scarcity: --client: expected letters, digits"),
        (("node", "n", "--client", "a/b:c", "--out", "x"), "scarcity: --client: expected letters, digits"),
        (("node", "n", "--basket", ".c", "--out", "x"), "scarcity: --basket: expected letters, digits"),
        (("node", "n", "--client", "h:c", "--renew-members", "--out", "x"), "needs --keep"),
        (("node", "n", "--client", "h:c", "--keep", "none", "--out", "x"), "has no key of h"),
        (("sign", "none.json", "--federation-dir", "op", "--out", "x"), "none.json: cannot be read"),
        (("roster", "show", "none.json"), "none.json: cannot be read"),
        (("roster", "show", "."), "cannot be read"),
    ],
)
def test_nonsense_gets_one_line_and_leaves_nothing(arguments: tuple[object, ...], words: str, capsys: Shown) -> None:
    assert scarcity("keys", *arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err or "Invalid value" in shown.err
    assert shown.out == ""
    assert not Path("x").exists()


def test_a_key_file_that_others_can_read_or_that_is_no_key_is_refused(operator: bytes, tmp_path: Path) -> None:
    path = tmp_path / "spoke" / "node.key"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read this private key; expected mode 600"):
        read_private_key(path)
    path.chmod(0o600)
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="expected a private key, Ed25519"):
        read_private_key(path)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - refused for its kind
    path.write_bytes(rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigError, match="expected an Ed25519 key, got"):
        read_private_key(path)


def test_a_folder_that_others_can_enter_takes_no_keys(capsys: Shown) -> None:
    Path("open").mkdir()
    Path("open").chmod(0o755)
    assert scarcity("keys", "node", "n", "--client", "h:c", "--out", "open") == 2
    assert "others can enter this folder; expected mode 700" in one_line(capsys)


# init


def init_federation(operator: bytes, *more: object) -> int:
    Path("schema.toml").write_text(SCHEMA)
    keys = ("--name", "kenya-health", "--operator-key", operator.hex(), "--schema", "schema.toml")
    terms = ("--mode", "distributed", "--unit", "record", "--epsilon", 1, "--delta", 1e-6, "--rounds", 3)
    return scarcity("init", "federation", *keys, *terms, "--out", "federation.toml", *more)


def init_node(*more: object) -> int:
    files = ("--keys", "spoke", "--federation", "federation.toml", "--roster", "r.json", "--out", "spoke.toml")
    return scarcity("init", "node", "spoke", *files, "--listen", "127.0.0.1:7401", *more)


def test_init_writes_what_a_node_reads(operator: bytes, capsys: Shown) -> None:
    assert init_federation(operator, "--set", "stage_s=2", "--set", "gossip_fanout=5") == 0
    agreed = read_federation_file(Path("federation.toml"))
    assert f"digest {agreed.digest.hex()}" in capsys.readouterr().out
    assert (agreed.operator_key, agreed.planned_rounds) == (operator, 3)
    assert (agreed.settings.stage_s, agreed.settings.gossip_fanout) == (2.0, 5)
    assert init_node("--source", "h1=data/one.csv", "--time", "day") == 0
    config = read_node_config(Path("spoke.toml"))
    assert (config.name, config.listen, config.federation) == ("spoke", ("127.0.0.1", 7401), agreed)
    assert [(seat.id, seat.source.as_posix(), seat.time) for seat in config.clients] == [
        ("h1", "data/one.csv", "day"),
        ("h2", "h2.csv", "day"),
    ]
    directory = read_directory(config.roster, agreed.operator_key, -math.inf).directory
    assert read_private_key(config.key).verify_key.encode() == directory.entry("spoke").key
    for seat in config.clients:
        assert read_private_key(seat.key).verify_key.encode() == directory.roster.member(seat.id).public_key
    assert config.certificate == Path("spoke/node.pem")


def test_init_replaces_nothing_without_force(operator: bytes, capsys: Shown) -> None:
    assert init_federation(operator) == 0
    assert init_node() == 0
    before = [Path(name).read_bytes() for name in ("federation.toml", "spoke.toml")]
    capsys.readouterr()
    assert init_federation(operator, "--set", "stage_s=3") == 2
    assert "--force replaces it" in one_line(capsys)
    assert init_node("--time", "day") == 2
    assert "--force replaces it" in one_line(capsys)
    assert [Path(name).read_bytes() for name in ("federation.toml", "spoke.toml")] == before
    assert init_federation(operator, "--set", "stage_s=3", "--force") == 0
    assert init_node("--time", "day", "--force") == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--mode", "public"), "mode: expected one of local, distributed"),
        (("--epsilon", 0), "epsilon: expected a positive number, got 0.0"),
        (("--epsilon", "nan"), "epsilon: expected a positive number, got nan"),
        (("--operator-key", "00"), "operator_key: expected 64 lower-case"),
        (("--schema", "none.toml"), "No such file"),
        (("--set", "rule=median"), "rule must be 'average'"),
        (("--set", "kworum=1"), "'kworum': unknown; expected one of"),
        (("--set", "quorum"), "expected KEY=VALUE"),
        (("--set", "quorum=[["), "quorum: expected a share"),
        (("--out", "no/folder.toml"), "cannot write into no"),
    ],
)
def test_init_federation_refuses_what_a_node_would(
    more: tuple[object, ...], words: str, operator: bytes, capsys: Shown
) -> None:
    assert init_federation(operator, *more) == 2
    assert words in one_line(capsys)
    assert not Path("federation.toml").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--listen", "here"), "listen: expected HOST:PORT"),
        (("--security", "plaintext", "--listen", "10.0.0.1:1"), "expected mtls"),
        (("--source", "h3=x.csv"), "client 'h3' is not on node 'spoke'"),
        (("--source", "h1"), "expected ID=CSV"),
        (("--keys", "hub"), "these are the keys of node 'hub'"),
        (("--keys", "nowhere"), "request.json: cannot be read"),
        (("--federation", "none.toml"), "none.toml: cannot be read"),
    ],
)
def test_init_node_refuses_what_a_node_would(
    more: tuple[object, ...], words: str, operator: bytes, capsys: Shown
) -> None:
    assert init_federation(operator) == 0
    capsys.readouterr()
    assert init_node(*more) == 2
    assert words in one_line(capsys)
    assert not Path("spoke.toml").exists()
