"""Write `federation.toml` and `node.toml`: every key with one line that says what it is and what is allowed.

What is written is read back before it is handed out, so a file that `scarcity init` makes is one that a node takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scarcity.errors import ConfigError
from scarcity.federation.roster import Role
from scarcity.node.setup.config import (
    BASKET_KEYS,
    BUDGET_KEYS,
    CLIENT_KEYS,
    COORDINATOR_KEYS,
    FEDERATION_KEYS,
    NODE_KEYS,
    ROUND_KEYS,
    SETTINGS_KEYS,
    parse_federation_file,
    parse_node_config,
)
from scarcity.node.setup.fields import Key, Required, shown
from scarcity.node.setup.keys import AUTHORITY, NODE_CERTIFICATE, NODE_KEY, member_key_path
from scarcity.node.setup.request import Request

Values = Mapping[str, object]
_FEDERATION_HEAD: Final = "# What all parties agreed on: the same file on every host; compare its digest.\n"
_NODE_HEAD: Final = "# One host of a federation. Paths are from the folder of this file.\n"


def federation_text(path: Path, top: Values, budget: Values, rounds: Values, settings: Values) -> str:
    """Return the text of a `federation.toml`.

    Args:
        path: where it will be; the schema is looked for from there.
        top: values of the keys outside tables, as they are written.
        budget: of `[budget]`.
        rounds: of `[rounds]`.
        settings: of `[settings]`, those that are not to have their defaults.

    Raises:
        ConfigError: it would not be taken.
    """
    parts = [_FEDERATION_HEAD + _table("", FEDERATION_KEYS, top)]
    parts += [_table("[budget]", BUDGET_KEYS, budget), _table("[rounds]", ROUND_KEYS, rounds)]
    parts.append(_table("[settings]", SETTINGS_KEYS, settings))
    text = "\n".join(parts)
    parse_federation_file(text.encode(), path)
    return text


def node_text(path: Path, request: Request, keys: Path, top: Values, *, sources: Mapping[str, str], time: str) -> str:
    """Return the text of a `node.toml` for a host's folder of keys.

    Args:
        path: where it will be.
        request: what the host asked for, with whom it hosts.
        keys: the folder.
        top: values of the keys outside tables, but for name, key, certificate and authority.
        sources: client id -> CSV; a client that is left out gets `<id>.csv`.
        time: column that orders the rows.

    Raises:
        ConfigError: it would not be taken, or a source of a client that is not here.
    """
    here = path.parent
    clients = [wish.member for wish in request.wishes if wish.member.role is Role.CLIENT]
    if strangers := sorted(set(sources) - {client.id for client in clients}):
        raise ConfigError(f"client {strangers[0]!r} is not on node {request.node!r}")
    given = {
        "name": request.node,
        "key": beside(here, keys / NODE_KEY),
        "certificate": beside(here, keys / NODE_CERTIFICATE),
        "authority": beside(here, keys / AUTHORITY),
    }
    parts = [_NODE_HEAD + _table("", NODE_KEYS, given | dict(top))]
    for client in clients:
        key = beside(here, member_key_path(keys, client.id))
        seat = {"id": client.id, "key": key, "source": sources.get(client.id, f"{client.id}.csv"), "time": time}
        parts.append(_table("[[client]]", CLIENT_KEYS, seat))
    for member in (wish.member for wish in request.wishes):
        key = beside(here, member_key_path(keys, member.id))
        if member.role is Role.BASKET:
            parts.append(_table("[[basket]]", BASKET_KEYS, {"domain": member.domain, "key": key}))
        elif member.role is Role.COORDINATOR:
            parts.append(_table("[coordinator]", COORDINATOR_KEYS, {"key": key}))
    text = "\n".join(parts)
    parse_node_config(text.encode(), path)
    return text


def beside(folder: Path, path: Path) -> str:
    """Return a path as it is written in a file of a folder: short when it lies below, absolute when it does not."""
    there, here = path.absolute(), folder.absolute()
    return str(there.relative_to(here) if there.is_relative_to(here) else there)


def _table(header: str, keys: Sequence[Key[Any]], values: Values) -> str:
    lines = [header] if header else []
    known = {key.name for key in keys}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{header} {unknown[0][:60]!r}: unknown; expected one of {', '.join(sorted(known))}")
    for key in keys:
        lines.append(f"# {key.meaning} Allowed: {key.kind.expected}.")
        value = values.get(key.name, None if isinstance(key.default, Required) else key.default)
        if value is None:
            lines.append(f"# {key.name} =")
        else:
            lines.append(f"{key.name} = {_written(key, value)}")
    return "\n".join(lines) + "\n"


def _written(key: Key[Any], value: object) -> str:
    """Return a value in TOML, if it is allowed: a text that cannot be written would not be read either."""
    plain = list(value) if isinstance(value, tuple) else value
    try:
        key.kind.read(plain)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(f"{key.name}: expected {key.kind.expected}, got {shown(plain)}") from None
    if isinstance(plain, str | list):
        # JSON's texts and lists of texts are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(plain)
