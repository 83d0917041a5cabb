"""The two files a node is started with: what all parties agreed on, and what is this host's alone.

`federation.toml` is the same on every host (compare digests): the rules of a round, the budget, the schema, and the
operator's public key, which is the root of all trust and therefore comes with the agreement, never over a link.
`node.toml` is one host's: where it listens, its keys, and whom it hosts. Each key is declared once, in a table that the
reader, `scarcity init` and the reference page share. Every error names file, line, key and what is allowed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgpack

from scarcity.engine import Schema
from scarcity.engine.schema_file import read_schema
from scarcity.errors import ConfigError
from scarcity.federation.aggregator import RULES
from scarcity.federation.assembly import round_settings
from scarcity.federation.packets import RoundSettings, TrustMode, Unit
from scarcity.federation.privacy_guard import PrivacyParams
from scarcity.federation.roster import COORDINATOR, basket_id
from scarcity.node.setup.directory import FEDERATION, parse_address, require_path
from scarcity.node.setup.fields import (
    Fields,
    Key,
    Location,
    checked_by,
    choice,
    dotted,
    hexadecimal,
    list_of,
    optional,
    read_bounded,
    real,
    text,
    whole,
)
from scarcity.node.setup.toml_lines import key_lines, line_of

MAX_SIZE_BYTES: Final = 1 << 20  # a config of thousands of seats is a tenth of it
_MOST: Final = 1_000_000_000


# Every wait of a node ends, so none is infinite.
_SECONDS: Final = real("seconds above 0, not inf", lambda v: 0 < v < math.inf)
_PAUSE: Final = real("seconds, 0 or more, not inf", lambda v: 0 <= v < math.inf)


def _segment(name: str) -> str:
    require_path(name, name)
    if name == COORDINATOR:
        raise ValueError
    return name


SEGMENT: Final = checked_by(_segment, f"letters, digits, _ . -, not {COORDINATOR!r} and no dot in front")
PATH: Final = text("a path, from the folder of this file")
COLUMN: Final = text("the name of a column", most=1000)
_SHARE: Final = real("a share in [0, 1]", lambda v: 0 <= v <= 1)

FEDERATION_KEYS: Final = (
    Key("federation", FEDERATION, "The federation's id, as on its roster."),
    Key("operator_key", hexadecimal(32), "Public key of the operator, who signs rosters; compare it by telephone."),
    Key("schema", PATH, "The file that says what is measured: variables, units, public scales."),
)
BUDGET_KEYS: Final = (
    Key("epsilon", real("a positive number", lambda v: 0 < v < math.inf), "Budget of each client, for life."),
    Key("delta", real("a number in (0, 1)", lambda v: 0 < v < 1), "Budget of each client, for life."),
    Key("planned_rounds", whole(1, _MOST), "Rounds that the budget has to last for (unit client).", 10),
)
ROUND_KEYS: Final = (
    Key("rounds", whole(1, _MOST), "Rounds that the coordinator opens in all, before a restart too."),
    Key("interval_s", _PAUSE, "Pause between the end of a round and the opening of the next.", 60.0),
    Key("gather_s", _PAUSE, "How long the first round waits for every basket to come up.", 30.0),
)
# Durations have defaults here that the facade's do not: nobody sits beside a node to close a stage by hand.
SETTINGS_KEYS: Final = (
    Key("mode", choice(*(m.value for m in TrustMode)), "Trust mode: who sees what, and who adds the noise.", "local"),
    Key("unit", choice(*(u.value for u in Unit)), "What the budget hides: one record, or all of a client.", "client"),
    Key(
        "rule",
        optional(choice(*RULES)),
        "Rule of a basket; left out: robust in mode local, else average.",
        None,
    ),
    Key("byzantine_share", real("a share in [0, 0.5)", lambda v: 0 <= v < 0.5), "Members that may lie.", 0.2),
    Key("quorum", real("a share in (0, 1]", lambda v: 0 < v <= 1), "Members without which a basket is absent.", 0.7),
    Key(
        "min_clients",
        optional(whole(1, _MOST)),
        "Fewer members make no basket; left out: by the mode.",
        None,
    ),
    Key("min_baskets", optional(whole(1, _MOST)), "Fewer baskets make no model; left out: by the mode.", None),
    Key("max_colluders", whole(0, _MOST), "Members who may tell each other their noise (mode distributed).", 0),
    Key("clip_norm", real("a positive number", lambda v: 0 < v < math.inf), "Bound of a vector (unit client).", 1.0),
    Key("gossip_fanout", whole(1, _MOST), "Peers of one push or pull.", 3),
    Key("gossip_s", _SECONDS, "Period of push and pull.", 5.0),
    Key("ready_s", _SECONDS, "How long a basket waits to hear who takes part.", 10.0),
    Key("close_s", _SECONDS, "After it a quorum is enough.", 20.0),
    Key("deadline_s", _SECONDS, "After it a basket without quorum is absent.", 60.0),
    Key("stage_s", _SECONDS, "How long each stage of a secure sum may take.", 20.0),
    Key("max_rows", whole(1, _MOST), "Most rows that a client may claim in a round.", 100_000),
    Key("central_share", _SHARE, "Part of the budget that buys noise on the last sum; 1 in mode central anyway.", 0.0),
    Key(
        "layer2_clip",
        real("a positive number, or inf for none", lambda v: v > 0),
        "Bound on a basket's mean, about the last model.",
        math.inf,
    ),
    Key("max_staleness", whole(0, _MOST), "Rounds after which a late contribution is worthless.", 2),
    Key(
        "half_life_rounds",
        real("a positive number, or inf", lambda v: v > 0),
        "Rounds in which a late contribution's weight halves.",
        1.0,
    ),
)
NODE_KEYS: Final = (
    Key("name", SEGMENT, "The node's name, as on the roster."),
    Key("federation", PATH, "federation.toml, which all parties agreed on."),
    Key("roster", PATH, "roster.json, which the operator signed; a newer one put there is taken up."),
    Key(
        "listen",
        checked_by(lambda v: parse_address(v, least_port=0), "HOST:PORT, an IPv6 address in brackets"),
        "Where it listens; port 0: any that is free.",
    ),
    Key("data_dir", PATH, "Folder of what must survive a crash: journal, outbox, model.", "data"),
    Key("security", choice("mtls", "plaintext"), "mtls, or plaintext between nodes of one machine.", "mtls"),
    Key("key", PATH, "Private key of the node: for its links and its outbox."),
    Key("certificate", optional(PATH), "Its certificate, from the operator; needed for mtls.", None),
    Key("authority", optional(PATH), "Certificate of the federation's authority; needed for mtls.", None),
    Key("log_format", choice("human", "json"), "Log lines for people or for machines.", "human"),
)
CLIENT_KEYS: Final = (
    Key("id", SEGMENT, "The client's id, as on the roster."),
    Key("key", PATH, "Its private key."),
    Key("source", PATH, "CSV of this one party's rows, no other client's; new rows at its end are read too."),
    Key("time", COLUMN, "Column of ISO dates or whole numbers, which orders the rows."),
    Key("variables", list_of(COLUMN, "a list of names of columns"), "Its columns; left out: the schema's.", ()),
)
BASKET_KEYS: Final = (
    Key("domain", SEGMENT, "The domain whose basket this is."),
    Key("key", PATH, "Its private key."),
)
COORDINATOR_KEYS: Final = (Key("key", PATH, "Its private key; only the coordinator's host has this table."),)
# Table of a file -> its keys, in the order in which they are written and documented; "" is the top.
FEDERATION_TABLES: Final = {
    "": FEDERATION_KEYS,
    "budget": BUDGET_KEYS,
    "rounds": ROUND_KEYS,
    "settings": SETTINGS_KEYS,
}
NODE_TABLES: Final = {"": NODE_KEYS, "client": CLIENT_KEYS, "basket": BASKET_KEYS, "coordinator": COORDINATOR_KEYS}


@attrs.frozen(kw_only=True, slots=False)
class FederationFile:
    """What all parties agreed on.

    Attributes:
        path: the file.
        federation: the federation's id.
        operator_key: 32 bytes, public.
        settings: the rules of every round.
        budget: (epsilon, delta) of each client, for life.
        planned_rounds: rounds that it has to last for (unit client).
        schema: what is measured.
        rounds: how many rounds the coordinator opens in all, before a restart too.
        interval_s: pause between the end of a round and the opening of the next.
        gather_s: how long the first round waits for every basket to come up.
    """

    path: Path
    federation: str
    operator_key: bytes
    settings: RoundSettings
    budget: PrivacyParams
    planned_rounds: int
    schema: Schema
    rounds: int
    interval_s: float
    gather_s: float

    @cached_property
    def digest(self) -> bytes:
        """BLAKE2b-256 of all values but the path: two hosts with one digest agreed on the same.

        Comments, order and how a number is written do not count.
        """
        settings = [
            [field.name, getattr(value, "value", value)]
            for field in attrs.fields(RoundSettings)
            for value in [getattr(self.settings, field.name)]
        ]
        budget = [self.budget.epsilon, self.budget.delta, self.planned_rounds]
        rounds = [self.rounds, self.interval_s, self.gather_s]
        said = [self.federation, self.operator_key, settings, budget, self.schema.hash, rounds]
        return hashlib.blake2b(msgpack.packb(said), digest_size=32, person=b"scarcity.agreed").digest()


@attrs.frozen(kw_only=True)
class ClientSeat:
    """A client on this node.

    Attributes:
        id: its id on the roster.
        key: file of its private key.
        source: CSV of its rows.
        time: column that orders them.
        variables: columns, empty for the schema's.
    """

    id: str
    key: Path
    source: Path
    time: str
    variables: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class BasketSeat:
    """A basket on this node: its domain, and the file of its private key."""

    domain: str
    key: Path


@attrs.frozen(kw_only=True)
class NodeConfig:
    """One host's settings; all paths are resolved against the file's folder.

    Attributes:
        path: the file.
        name: the node's name.
        listen: host and port.
        data_dir: folder of what survives a crash.
        security: mtls, or plaintext on a loopback address.
        certificate: of the node; None only without mtls.
        key: file of the node's private key, for links and outbox.
        authority: certificate of the federation's authority; None only without mtls.
        roster: file of the signed directory.
        federation: what was agreed on.
        log_format: for people or machines.
        clients: clients on this node.
        baskets: baskets on this node.
        coordinator_key: file of the coordinator's private key, None when it is elsewhere.
    """

    path: Path
    name: str
    listen: tuple[str, int]
    data_dir: Path
    security: Literal["mtls", "plaintext"]
    certificate: Path | None
    key: Path
    authority: Path | None
    roster: Path
    federation: FederationFile
    log_format: Literal["human", "json"]
    clients: tuple[ClientSeat, ...]
    baskets: tuple[BasketSeat, ...]
    coordinator_key: Path | None


def names_of(keys: Iterable[Key[Any]], *more: str) -> list[str]:
    """Return the names of keys, and of the tables that may stand beside them."""
    return [*(key.name for key in keys), *more]


def read_federation_file(path: Path) -> FederationFile:
    """Return what a `federation.toml` says.

    Raises:
        ConfigError: `<file>:<line>: <key>: ...` for the first thing that is not allowed.
    """
    return parse_federation_file(read_bounded(path, MAX_SIZE_BYTES), path)


def parse_federation_file(data: bytes, path: Path) -> FederationFile:
    """Return what the bytes of a `federation.toml` say; errors as in `read_federation_file`."""
    top = _parse_toml(data, path, names_of(FEDERATION_KEYS, "budget", "rounds", "settings"))
    said = top.all(FEDERATION_KEYS)
    budget = top.group("budget", names_of(BUDGET_KEYS)).all(BUDGET_KEYS)
    rounds = top.group("rounds", names_of(ROUND_KEYS)).all(ROUND_KEYS)
    settings = _settings(top.group("settings", names_of(SETTINGS_KEYS)))
    try:
        schema = read_schema(path.parent / said["schema"])
    except ConfigError as error:
        top.refuse("schema", str(error))
    return FederationFile(
        path=path,
        federation=said["federation"],
        operator_key=said["operator_key"],
        settings=settings,
        budget=PrivacyParams(budget["epsilon"], budget["delta"]),
        planned_rounds=budget["planned_rounds"],
        schema=schema,
        **rounds,
    )


def _settings(fields: Fields) -> RoundSettings:
    """Return a round's settings; what cannot hold together is laid at the key that the reason names."""
    given = {name: value for name, value in fields.all(SETTINGS_KEYS).items() if value is not None}
    try:
        return round_settings(given)
    except ConfigError as error:
        named = [name for name in re.findall(r"\w+", str(error)) if name in given]
        fields.refuse(next((name for name in named if name in fields), ""), str(error))


def read_node_config(path: Path) -> NodeConfig:
    """Return what a `node.toml` says, and the `federation.toml` that it names.

    Raises:
        ConfigError: `<file>:<line>: <key>: ...` for the first thing that is not allowed.
    """
    return parse_node_config(read_bounded(path, MAX_SIZE_BYTES), path)


def parse_node_config(data: bytes, path: Path) -> NodeConfig:
    """Return what the bytes of a `node.toml` say; errors as in `read_node_config`."""
    top = _parse_toml(data, path, names_of(NODE_KEYS, "client", "basket", "coordinator"))
    said = top.all(NODE_KEYS)
    _require_carrier(top, said)
    folder = path.parent
    try:
        federation = read_federation_file(folder / said["federation"])
    except ConfigError as error:
        # The other file's own place comes last, where an editor looks for what to mend.
        top.refuse("federation", str(error))
    coordinator = None
    if "coordinator" in top:
        coordinator = folder / top.group("coordinator", names_of(COORDINATOR_KEYS)).get(COORDINATOR_KEYS[0])
    clients, baskets = _clients(top, folder), _baskets(top, folder)
    if not (clients or baskets or coordinator):
        top.refuse("", "hosts nobody; expected [[client]], [[basket]] or [coordinator]")
    paths = {name: None if said[name] is None else folder / said[name] for name in ("certificate", "authority")}
    return NodeConfig(
        path=path,
        name=said["name"],
        listen=said["listen"],
        data_dir=folder / said["data_dir"],
        security=said["security"],
        key=folder / said["key"],
        roster=folder / said["roster"],
        federation=federation,
        log_format=said["log_format"],
        clients=clients,
        baskets=baskets,
        coordinator_key=coordinator,
        **paths,
    )


def _require_carrier(top: Fields, said: dict[str, Any]) -> None:
    if said["security"] == "mtls":
        for name in ("certificate", "authority"):
            if said[name] is None:
                top.refuse(name, "missing; expected a path, because security is mtls")
    elif not _is_loopback(said["listen"][0]):
        top.refuse("security", f"expected mtls, because listen {said['listen'][0]} is no loopback address")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _clients(top: Fields, folder: Path) -> tuple[ClientSeat, ...]:
    seats: dict[str, ClientSeat] = {}
    sources: dict[str, str] = {}  # where links lead, two names of one file are one file
    for fields in top.groups("client", names_of(CLIENT_KEYS)):
        said = fields.all(CLIENT_KEYS)
        if said["id"] in seats:
            fields.refuse("id", f"expected each client once, got {said['id']!r} twice")
        source = os.path.realpath(folder / said["source"])
        if source in sources:
            fields.refuse("source", f"expected each client's own file, got that of {sources[source]!r} again: {source}")
        sources[source] = said["id"]
        seats[said["id"]] = ClientSeat(
            **said | {"key": folder / said["key"], "source": folder / said["source"]},
        )
    return tuple(seats.values())


def _baskets(top: Fields, folder: Path) -> tuple[BasketSeat, ...]:
    seats: dict[str, BasketSeat] = {}
    for fields in top.groups("basket", names_of(BASKET_KEYS)):
        said = fields.all(BASKET_KEYS)
        if said["domain"] in seats:
            fields.refuse("domain", f"expected each basket once, got {basket_id(said['domain'])!r} twice")
        seats[said["domain"]] = BasketSeat(domain=said["domain"], key=folder / said["key"])
    return tuple(seats.values())


def _parse_toml(data: bytes, path: Path, known: list[str]) -> Fields:
    """Return the top of a TOML file, whose errors name lines."""
    try:
        words = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: expected UTF-8 text") from None
    try:
        values = tomllib.loads(words)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else words.count("\n") + 1
        raise ConfigError(f"{path}:{line}: not TOML: {error}") from None
    except (RecursionError, ValueError) as error:  # a nest of brackets, a number of too many digits
        raise ConfigError(f"{path}:1: not TOML: {error}") from None
    lines = key_lines(words)

    def where(at: Location) -> str:
        place = f"{path}:{line_of(lines, at)}"
        return f"{place}: {dotted(at)}" if at else place

    return Fields(values, (), where, known)
