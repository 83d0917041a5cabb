"""What a liar sends instead of its update. Attacks are looked up by name.

An attack gets the honest update of its own client and returns the forged one. Counts are public and everybody checks
them, so a liar that wants to be heard leaves the leading `num_public` coordinates as they are. Norms are kept too: a
forged vector that is longer than an honest one would be clipped and noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.packets import Update

Attack = Callable[[Update, int], Update]


def sign_flip(update: Update, num_public: int = 0) -> Update:
    """Return the update with every coordinate behind the public ones negated.

    Args:
        update: the honest one.
        num_public: leading coordinates that others can check.

    Source: Li et al., AAAI 2019 (RSA), the sign-flipping attack with magnitude 1.
    """
    vector = -update.vector
    vector[:num_public] = update.vector[:num_public]
    return attrs.evolve(update, vector=vector)


# Name of a byzantine behaviour -> its own strength, which a plan may change.
BEHAVIOURS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "sign-flip": 1.0,
        "label-flip": 1.0,
        "ipm": 1.0,
        "alie": 1.0,
        "mimic": 1.0,
        "gaussian": 1.0,
        "min-max": 1.0,
        "min-sum": 1.0,
        "on-off": 2.0,
        "noiseless": 1.0,
        "non-finite": 1.0,
        "equivocate": 1.0,
        "dissensus": 1.0,
        "replay": 1.0,
        "stale": 1.0,
        "garbage": 1.0,
    }
)
ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType({"sign-flip": sign_flip})


def attack_named(name: str) -> Attack:
    """Return the attack of a name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    if name not in ATTACKS:
        raise ConfigError(f"attack {name!r} is unknown; known are {', '.join(sorted(ATTACKS))}")
    return ATTACKS[name]
