"""Read a schema from a file, for every command that takes one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from scarcity.engine.schema import Schema
from scarcity.errors import ConfigError


def read_schema(path: Path) -> Schema:
    """Return the schema of a TOML or JSON file: lags, horizon, and variables with name, kind, unit, scale.

    Raises:
        ConfigError: no such file, neither TOML nor JSON, an unknown key, or a field out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields: dict[str, Any] = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        return Schema.from_dict(fields)
    except OSError as error:
        raise ConfigError(f"schema {path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"schema {path}: {error}") from None
    except (ValueError, RecursionError) as error:  # of json, tomllib, of bytes that are no text, of a nest of brackets
        raise ConfigError(f"schema {path}: not TOML or JSON: {error}") from None
