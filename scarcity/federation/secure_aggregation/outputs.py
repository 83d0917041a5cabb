"""What the two state machines of SSA-1 hand back, and the states they can be in.

A machine never raises for what a peer can send: it returns `Refused`. A driver carries a list of outputs out in order;
`Mark` must be durable before the next output of the list leaves.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.federation.secure_aggregation.messages import FromClient, FromCoordinator
from scarcity.federation.secure_aggregation.reasons import Refused

# The attempt of a mark whose round can have no further attempt: its input may have been summed.
SPENT: Final = 2**32 - 1


class ClientState(enum.Enum):
    """Where a participant stands; each state names what it waits for."""

    IDLE = "waits for a config"
    ADVERTISED = "waits for the members' keys"
    SHARED = "waits for the boxes"
    READY = "waits for its own input"
    MASKED = "waits for the survivors"
    CONFIRMED = "waits for the confirmations"
    REVEALED = "done and wiped"
    ABORTED = "given up and wiped"


class CoordinatorState(enum.Enum):
    """Where a coordinator stands; the middle five name the message it collects."""

    NEW = "not open"
    ADVERTISE = "advertise"
    SHARES = "shares"
    MASKED = "masked"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    DONE = "done"
    FAILED = "failed"


@attrs.frozen
class Mark:
    """The high-water mark of a scope. Make it durable before the next output leaves.

    `attempt` is `SPENT` once the round's input has been sent, so that no other sum of the round can contain it again.
    """

    scope: str
    epoch: int
    round_id: int
    attempt: int


@attrs.frozen
class Outgoing:
    """Send this to the coordinator of the sum."""

    message: FromClient


@attrs.frozen
class To:
    """Send this to the member `recipient`."""

    recipient: str
    message: FromCoordinator


@attrs.frozen
class SumResult:
    """What a secure sum gives.

    Attributes:
        vector: shape (d,), int64; the sum over `survivors` of their inputs, two's complement of the ring.
        survivors: ids whose inputs are in the sum, sorted.
        culprits: ids whose revealed shares did not fit and were left out, sorted. A holder is named although its dealer
            may be the liar: the shares of this protocol cannot tell them apart.
    """

    vector: NDArray[np.int64] = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    survivors: tuple[str, ...]
    culprits: tuple[str, ...] = ()


Output = Mark | Outgoing | Refused
