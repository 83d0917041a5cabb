"""Fault plans as files: TOML for people, JSON for machines; both hold two lists of tables, `network` and `faults`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

from scarcity.errors import ConfigError
from sim.faults.plan import FaultPlan

MAX_SIZE_BYTES: Final = 1 << 20  # a plan of a thousand faults is a tenth of it


def read_plan(path: Path) -> FaultPlan:
    """Return the plan of a file; its ending, `.toml` or `.json`, says which form it has.

    Raises:
        ConfigError: the file cannot be read, is too large, or is no plan; the message names the file and the key.
    """
    readers = {".toml": _read_toml, ".json": _read_json}
    if path.suffix not in readers:
        raise ConfigError(f"{path}: its ending is {path.suffix!r}; allowed: {', '.join(readers)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_SIZE_BYTES:
        raise ConfigError(f"{path}: it is larger than the {MAX_SIZE_BYTES} bytes that a plan may have")
    try:
        return FaultPlan.from_dict(readers[path.suffix](data))
    except (ConfigError, ValueError, RecursionError) as error:  # UnicodeDecodeError and both parsers' are ValueErrors
        raise ConfigError(f"{path}: {error}") from None


def _read_toml(data: bytes) -> dict[str, Any]:
    return tomllib.loads(data.decode())


def _read_json(data: bytes) -> dict[str, Any]:
    named = json.loads(data)
    if not isinstance(named, dict):
        raise ConfigError("it holds no object; allowed: an object with the keys network and faults")
    return named


def plan_toml(plan: FaultPlan) -> str:
    """Return a plan as TOML, which `read_plan` reads back as the same plan."""
    tables = [
        f"[[{section}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for section, entries in plan.to_dict().items()
        for table in entries
    ]
    return "\n".join(tables)


def plan_json(plan: FaultPlan) -> str:
    """Return a plan as JSON, which `read_plan` reads back as the same plan."""
    return json.dumps(plan.to_dict(), indent=1, allow_nan=False) + "\n"


def _toml(value: object) -> str:
    # JSON's texts, booleans, whole numbers and lists are TOML's too, where texts are printable, as all in a plan are;
    # characters beyond ASCII stay as they are, for JSON writes those above U+FFFF as surrogates, which TOML refuses.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
