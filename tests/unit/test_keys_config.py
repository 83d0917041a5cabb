from __future__ import annotations

import math
import re
from pathlib import Path

import attrs
import pytest

from scarcity.errors import ConfigError
from scarcity.federation.packets import RoundSettings, TrustMode
from scarcity.node.setup.config import (
    BASKET_KEYS,
    CLIENT_KEYS,
    FEDERATION_TABLES,
    NODE_TABLES,
    SETTINGS_KEYS,
    ClientSeat,
    read_federation_file,
    read_node_config,
)
from tests.keys_world import OPERATOR_KEY, federation_toml

ROOT = Path(__file__).parents[2]
NODE = """\
name = "spoke"   # line 1
federation = "federation.toml"
roster = "roster.json"
listen = "127.0.0.1:7400"
security = "plaintext"
key = "keys/node.key"

[[client]]
id = "h1"
key = "keys/h1.key"
source = "h1.csv"
time = "date"
variables = ["x"]

[[client]]
id = "h2"
key = "keys/h2.key"
source = "/data/h2.csv"
time = "date"

[[basket]]
domain = "kenya"
key = "keys/kenya.key"

[coordinator]
key = "keys/coordinator.key"
"""


def node(folder: Path, text: str = NODE) -> Path:
    federation_toml(folder)
    path = folder / "node.toml"
    path.write_text(text)
    return path


def refused(path: Path, place: str, words: str) -> None:
    """The first words are `<file>:<line>: <key>: `."""
    read = read_node_config if path.name == "node.toml" else read_federation_file
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{place}"), str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_federation_file_is_read(tmp_path: Path) -> None:
    read = read_federation_file(federation_toml(tmp_path, '[settings]\nmode = "distributed"\nclip_norm = 2\n'))
    assert (read.federation, read.operator_key, read.rounds) == ("kenya-health", OPERATOR_KEY, 3)
    assert (read.budget.epsilon, read.budget.delta, read.planned_rounds) == (1.0, 1e-6, 10)
    assert read.schema.names == ("x", "y")
    assert (read.settings.mode, read.settings.rule) == (TrustMode.DISTRIBUTED, "average")
    assert type(read.settings.clip_norm) is float
    assert (read.interval_s, read.gather_s) == (60.0, 30.0)


def test_every_wait_of_a_node_ends(tmp_path: Path) -> None:
    settings = read_federation_file(federation_toml(tmp_path)).settings
    waits = [f.name for f in attrs.fields(RoundSettings) if f.name.endswith("_s")]
    assert len(waits) == 5
    assert all(math.isfinite(getattr(settings, name)) for name in waits)
    refused(
        federation_toml(tmp_path, "[settings]\nstage_s = inf\n"),
        "14: settings.stage_s: expected seconds above 0",
        "inf",
    )


def test_a_node_config_is_read_with_its_paths_resolved(tmp_path: Path) -> None:
    read = read_node_config(node(tmp_path))
    assert (read.name, read.listen, read.security, read.log_format) == (
        "spoke",
        ("127.0.0.1", 7400),
        "plaintext",
        "human",
    )
    assert read.clients == (
        ClientSeat(id="h1", key=tmp_path / "keys/h1.key", source=tmp_path / "h1.csv", time="date", variables=("x",)),
        ClientSeat(id="h2", key=tmp_path / "keys/h2.key", source=Path("/data/h2.csv"), time="date"),
    )
    assert [(seat.domain, seat.key) for seat in read.baskets] == [("kenya", tmp_path / "keys/kenya.key")]
    assert read.coordinator_key == tmp_path / "keys/coordinator.key"
    assert read.roster == tmp_path / "roster.json"
    assert read.data_dir == tmp_path / "data"
    assert (read.certificate, read.authority) == (None, None)
    assert read.federation == read_federation_file(tmp_path / "federation.toml")


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ('name = "spoke"', "", "1: name: ", "missing; expected letters"),
        ('name = "spoke"', "name = 3", "1: name: ", "got 3"),
        ('name = "spoke"', "name = true", "1: name: ", "got true"),
        ('name = "spoke"', 'name = "a/b"', "1: name: ", "got 'a/b'"),
        ('name = "spoke"', 'name = "coordinator"', "1: name: ", "expected letters"),
        ('listen = "127', 'listen = "x y127', "4: listen: ", "expected HOST:PORT"),
        ('listen = "127.0.0.1:7400"', 'listen = "127.0.0.1:70000"', "4: listen: ", "expected HOST:PORT"),
        ('listen = "127.0.0.1:7400"', 'listen = "10.0.0.1:7400"', "5: security: ", "expected mtls"),
        ('listen = "127.0.0.1:7400"', 'listen = "0.0.0.0:7400"', "5: security: ", "expected mtls"),
        ('security = "plaintext"', 'security = "none"', "5: security: ", "expected one of mtls, plaintext"),
        ('security = "plaintext"', "", "1: certificate: ", "security is mtls"),
        ('id = "h2"', 'id = "h1"', "16: client[1].id: ", "expected each client once"),
        ('id = "h2"', 'id = "../h"', "16: client[1].id: ", "expected letters"),
        ('time = "date"\n\n', "tyme = 'date'\n\n", "19: client[1].tyme: ", "unknown; expected one of id, key, source"),
        ('variables = ["x"]', 'variables = ["x", 3]', "13: client[0].variables: ", "a list of names"),
        ('variables = ["x"]', 'variables = "x"', "13: client[0].variables: ", "a list of names"),
        ('[[basket]]\ndomain = "kenya"', "[[basket]]", "21: basket[0].domain: ", "missing"),
        ("[coordinator]\nkey", "[coordinator]\nquay", "26: coordinator.quay: ", "unknown; expected one of key"),
        ("[coordinator]", "[[coordinator]]", "25: coordinator: ", "expected a group of key"),
        ("[[basket]]", "[basket]", "21: basket: ", "expected a list of groups"),
        ("[coordinator]", "[koordinator]", "25: koordinator: ", "unknown; expected one of name"),
        ('name = "spoke"', 'name = "spoke', "1: not TOML", ""),
        ("[coordinator]", "[coordinator", "25: not TOML", ""),
        ('federation = "federation.toml"', 'federation = "none.toml"', "2: federation: ", "none.toml: cannot be read"),
    ],
)
def test_an_error_names_file_line_key_and_what_is_allowed(
    old: str, new: str, place: str, words: str, tmp_path: Path
) -> None:
    assert old in NODE
    before, _, after = NODE.rpartition(old)
    refused(node(tmp_path, f"{before}{new}{after}"), place, words)


def test_a_node_that_hosts_nobody_is_refused(tmp_path: Path) -> None:
    refused(node(tmp_path, NODE.partition("[[client]]")[0]), "1", "hosts nobody")


def test_a_private_key_that_was_pasted_is_not_shown(tmp_path: Path) -> None:
    path = node(tmp_path, NODE.replace('"keys/node.key"', '"""-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n"""'))
    refused(path, "6: key: ", "got a private key, where its path belongs")
    with pytest.raises(ConfigError) as caught:
        read_node_config(path)
    assert "MC4CAQ" not in str(caught.value)


def test_one_file_of_rows_is_one_clients(tmp_path: Path) -> None:
    (tmp_path / "again.csv").symlink_to("h1.csv")
    for same in ("h1.csv", "./h1.csv", "again.csv", str(tmp_path / "h1.csv")):
        text = NODE.replace('"/data/h2.csv"', f'"{same}"')
        with pytest.raises(ConfigError, match=r"node\.toml:18: client\[1\]\.source: expected each client's own file"):
            read_node_config(node(tmp_path, text))


def test_a_basket_twice_is_refused(tmp_path: Path) -> None:
    refused(node(tmp_path, NODE + '[[basket]]\ndomain = "kenya"\nkey = "k"\n'), "28: basket[1].domain", "once")


@pytest.mark.parametrize(
    ("extra", "changes", "place", "words"),
    [
        ("", {"federation": ""}, "1: federation: ", "missing"),
        ("", {"federation": '""'}, "2: federation: ", "printable"),
        ("", {"operator_key": '"00"'}, "3: operator_key: ", "64 lower-case hexadecimal digits"),
        ("", {"operator_key": f'"{OPERATOR_KEY.hex().upper()}"'}, "3: operator_key: ", "lower-case"),
        ("", {"schema": '"no.toml"'}, "4: schema: ", "No such file"),
        ("", {"epsilon": "0"}, "7: budget.epsilon: ", "a positive number, got 0"),
        ("", {"epsilon": "nan"}, "7: budget.epsilon: ", "a positive number, got nan"),
        ("", {"epsilon": "true"}, "7: budget.epsilon: ", "got true"),
        ("", {"delta": "1"}, "8: budget.delta: ", "in (0, 1)"),
        ("", {"rounds": "0"}, "11: rounds.rounds: ", "1..1000000000"),
        ("", {"rounds": "1.0"}, "11: rounds.rounds: ", "whole number"),
        ('[settings]\nmode = "public"\n', {}, "14: settings.mode: ", "one of local, distributed, central, none"),
        ("[settings]\nquorum = 2\n", {}, "14: settings.quorum: ", "(0, 1]"),
        ("[settings]\nkworum = 1\n", {}, "14: settings.kworum: ", "unknown; expected one of mode, unit"),
        ('[settings]\nmode = "distributed"\nrule = "median"\n', {}, "15: settings.rule: ", "must be 'average'"),
        (
            '[settings]\ncentral_share = 0.5\nmode = "local"\n',
            {},
            "13: settings: ",
            "set layer2_clip",
        ),
        ("[settings]\nmax_colluders = 1\n", {}, "14: settings.max_colluders: ", "must be 0 elsewhere"),
    ],
)
def test_what_cannot_hold_is_laid_at_a_line(
    extra: str, changes: dict[str, str], place: str, words: str, tmp_path: Path
) -> None:
    refused(federation_toml(tmp_path, extra, **changes), place, words)


def test_bytes_that_are_no_text_and_files_without_end_are_refused(tmp_path: Path) -> None:
    path = node(tmp_path)
    path.write_bytes(b'name = "x"\nroster = "\xff"\n')
    refused(path, "2: expected UTF-8 text", "")
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        read_node_config(path)
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="not TOML"):
        read_node_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_node_config(tmp_path)


def test_the_digest_is_of_what_is_said_and_not_of_how(tmp_path: Path) -> None:
    path = federation_toml(tmp_path)
    digest = read_federation_file(path).digest
    path.write_text("# another comment\n" + path.read_text().replace("epsilon = 1.0", "epsilon = 1"))
    assert read_federation_file(path).digest == digest
    others = [{"epsilon": "2"}, {"delta": "1e-7"}, {"rounds": "4"}, {"federation": '"x"'}]
    others.append({"operator_key": f'"{"0" * 64}"'})
    digests = {read_federation_file(federation_toml(tmp_path, **change)).digest for change in others}
    digests.add(read_federation_file(federation_toml(tmp_path, "[settings]\nclose_s = 9\n")).digest)
    federation_toml(tmp_path)
    (tmp_path / "schema.toml").write_text((tmp_path / "schema.toml").read_text().replace("2.0", "3.0"))
    digests.add(read_federation_file(path).digest)
    assert len(digests | {digest}) == len(others) + 3


def test_the_keys_of_settings_are_those_of_the_round_with_its_defaults() -> None:
    by_name = {field.name: field.default for field in attrs.fields(RoundSettings)}
    assert [key.name for key in SETTINGS_KEYS] == list(by_name)
    for key in SETTINGS_KEYS:
        if key.default is not None and not key.name.endswith("_s"):
            assert key.default == getattr(by_name[key.name], "value", by_name[key.name]), key.name


def test_the_keys_of_seats_are_their_fields() -> None:
    assert [key.name for key in CLIENT_KEYS] == [field.name for field in attrs.fields(ClientSeat)]
    assert [key.name for key in BASKET_KEYS] == ["domain", "key"]


def test_the_reference_page_has_every_key_with_what_is_allowed() -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    tables = [*FEDERATION_TABLES.values(), *NODE_TABLES.values()]
    expected = [
        (key.name, key.meaning, key.kind.expected, default_words(key.default)) for table in tables for key in table
    ]
    assert rows == expected


def default_words(default: object) -> str:
    if default is None:
        return "left out"
    if type(default).__name__ == "Required":
        return "required"
    return "none" if default == () else f"`{default}`"
