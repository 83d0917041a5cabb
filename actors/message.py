"""What can be said: frozen attrs classes under a registered name, and what the runtime itself says.

The name, not the Python path, is what a wire would carry; so it is unique in a process. In process a message is passed
by reference, and being frozen is what makes that safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar, dataclass_transform

import attrs

from actors.address import ActorRef
from actors.errors import BadSetting

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_registry: dict[str, type] = {}
registry: Mapping[str, type] = MappingProxyType(_registry)
"""The messages of this process by name; read only."""


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(name: str) -> Callable[[type[T]], type[T]]:
    """Make the class a frozen attrs class and register it under `name` (lower case, parts joined by dots).

    Raises:
        BadSetting: the name is malformed, or another class has it.
    """
    if not _NAME.fullmatch(name):
        raise BadSetting(f"message name: expected lower case parts joined by dots, got {name!r}")

    def register(cls: type[T]) -> type[T]:
        known = _registry.get(name)
        # A reloaded module defines the same class again; anything else is a clash that a wire could not tell apart.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BadSetting(f"message name {name!r} belongs to {known.__module__}.{known.__qualname__}")
        frozen = attrs.frozen(cls)
        _registry[name] = frozen
        return frozen

    return register


def is_message(cls: type) -> bool:
    """Return whether the class was made by `@message`."""
    return cls in _registry.values()


@message("actors.down")
class Down:
    """An actor that was monitored is gone; it comes exactly once for each monitored reference.

    Attributes:
        ref: who is gone.
        reason: `stopped`, `unknown` (nobody lived there), or `failed: ` and the error.
    """

    ref: ActorRef
    reason: str
