"""A whole secure sum in one call, in one process: for tests, examples and benchmarks.

Every message is encoded and decoded on its way, so what runs is what travels. Keys are made from `entropy` on the
spot; the parties trust no one here, because there is no one else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import attrs
import numpy as np
from nacl.signing import SigningKey
from numpy.typing import ArrayLike, NDArray

from scarcity.errors import ConfigError, InsufficientInputs, ProtocolError, ThresholdError
from scarcity.federation.secure_aggregation.client import SecureAggClient
from scarcity.federation.secure_aggregation.config import RoundSumConfig, SecureAggPolicy, threshold_for
from scarcity.federation.secure_aggregation.coordinator import SecureAggCoordinator
from scarcity.federation.secure_aggregation.masks import derive
from scarcity.federation.secure_aggregation.messages import (
    Advertise,
    Confirm,
    FromClient,
    Masked,
    Reveal,
    Shares,
    SumConfigMessage,
    decode,
    encode,
)
from scarcity.federation.secure_aggregation.outputs import Outgoing, Output, SumResult, To
from scarcity.federation.secure_aggregation.reasons import Reason, Refused
from scarcity.federation.secure_aggregation.ring import dequantise, quantise

STAGES: Final[dict[type, str]] = {
    Advertise: "advertise",
    Shares: "shares",
    Masked: "masked",
    Confirm: "confirm",
    Reveal: "reveal",
}
_SCOPE: Final = "in-process"
_COORDINATOR: Final = "coordinator of the sum"


@attrs.frozen
class SecureAggConfig:
    """Terms of a sum in one process.

    Attributes:
        dimension: length of every input.
        clip: bound of each coordinate; values outside are clipped.
        scale: lattice steps in 1.0; rounding costs less than n / scale.
        bits: the ring's words. 64 with 2^36 keeps ten decimal digits; 32 with 2^24 is wrong by 7e-7.
        min_survivors: inputs without which nothing is opened; None for the threshold floor(2n/3) + 1.
    """

    dimension: int
    clip: float
    scale: float = 2.0**36
    bits: int = 64
    min_survivors: int | None = None


@attrs.frozen
class SecureAggResult:
    """The sum over `survivors`, and the bytes that travelled.

    Attributes:
        sum: shape (d,), float64.
        survivors: ids whose inputs are in the sum, sorted.
        culprits: ids whose revealed shares did not fit.
        bytes_up: from all clients to the coordinator.
        bytes_down: from the coordinator to all clients.
    """

    sum: NDArray[np.float64] = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    survivors: tuple[str, ...]
    culprits: tuple[str, ...]
    bytes_up: int
    bytes_down: int


def run_secure_aggregation(
    inputs: Mapping[str, ArrayLike],
    config: SecureAggConfig,
    *,
    drop: Mapping[str, Collection[str]] | None = None,
    entropy: Callable[[int], bytes],
) -> SecureAggResult:
    """Sum vectors without showing any of them.

    Args:
        inputs: id -> vector of shape (d,).
        config: dimension, clip and ring.
        drop: stage (advertise, shares, masked, confirm, reveal) -> ids whose message of that stage is lost.
        entropy: `os.urandom`, or a seeded source in tests.

    Returns:
        The sum over those whose masked inputs arrived.

    Raises:
        InvalidUpdate: an input of the wrong shape or dtype, NaN or infinity.
        ConfigError: an unknown stage or id in `drop`, or terms that cannot hold.
        InsufficientInputs: no input.
        ThresholdError: too few are left at some stage; nothing was opened.
        ProtocolError: shares that do not open.
    """
    drop = {} if drop is None else drop
    _check_drop(drop, inputs)
    vectors = {
        name: quantise(vector, dimension=config.dimension, clip=config.clip, scale=config.scale)
        for name, vector in sorted(inputs.items())
    }
    run = _Run(vectors, config, drop, entropy)
    result = run.finish()
    total = dequantise(result.vector, scale=config.scale)
    return SecureAggResult(total, result.survivors, result.culprits, run.bytes_up, run.bytes_down)


def _check_drop(drop: Mapping[str, Collection[str]], inputs: Mapping[str, ArrayLike]) -> None:
    if not inputs:
        raise InsufficientInputs("a sum needs at least one input, got none")
    if unknown := set(drop) - set(STAGES.values()):
        raise ConfigError(f"drop: unknown stage {sorted(unknown)[0]!r}; stages are {list(STAGES.values())}")
    if strangers := {name for names in drop.values() for name in names} - set(inputs):
        raise ConfigError(f"drop: {sorted(strangers)[0]!r} has no input")


class _Run:
    """All parties of one sum and the messages between them."""

    def __init__(
        self,
        vectors: Mapping[str, NDArray[np.int64]],
        terms: SecureAggConfig,
        drop: Mapping[str, Collection[str]],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._vectors = vectors
        self._drop = drop
        self.bytes_up = self.bytes_down = 0
        keys = {name: SigningKey(entropy(32)) for name in (*vectors, _COORDINATOR)}
        roster = {name: key.verify_key.encode() for name, key in keys.items()}
        config = _sum_config(terms, tuple(vectors), roster)
        policy = SecureAggPolicy(
            coordinator=_COORDINATOR,
            members=frozenset(vectors),
            model_hash=config.model_hash,
            dimension=config.dimension,
            clip=config.clip,
            scale=config.scale,
            n_min=1,
            inputs_released=True,  # keys and inputs live for this one call, and n_min is the caller's business
        )
        self._coordinator = SecureAggCoordinator(config, keys[_COORDINATOR], roster)
        place = (config.federation, config.roster_root, config.epoch)
        self._clients = {
            name: SecureAggClient(name, keys[name], roster, *place, {_SCOPE: policy}, entropy) for name in vectors
        }

    def finish(self) -> SumResult:
        """Carry messages until there is a result."""
        self._carry(self._coordinator.open())
        while self._coordinator.result is None and self._coordinator.failed is None:
            self._carry(self._coordinator.close_stage())
        failed = self._coordinator.failed
        if failed is not None:
            kind = ThresholdError if failed.reason is Reason.TOO_FEW else ProtocolError
            raise kind(failed.describe(), peer=failed.peer)
        assert self._coordinator.result is not None
        return self._coordinator.result

    def _carry(self, outputs: list[To] | list[To | Refused]) -> None:
        queue = deque(output for output in outputs if isinstance(output, To))
        while queue:
            to = queue.popleft()
            data = encode(to.message)
            self.bytes_down += len(data)
            for answer in self._answers(to.recipient, data):
                sent = encode(answer)
                self.bytes_up += len(sent)
                replies = self._coordinator.receive(to.recipient, decode(sent))
                queue.extend(reply for reply in replies if isinstance(reply, To))

    def _answers(self, name: str, data: bytes) -> Iterator[FromClient]:
        client, message = self._clients[name], decode(data)
        outputs: list[Output]
        if isinstance(message, SumConfigMessage):
            outputs = client.begin(message) + client.provide(self._vectors[name])
        else:
            outputs = client.receive(message)
        for output in outputs:
            if isinstance(output, Outgoing):
                stage = STAGES.get(type(output.message), "")
                if name not in self._drop.get(stage, ()):
                    yield output.message


def _sum_config(terms: SecureAggConfig, names: tuple[str, ...], roster: Mapping[str, bytes]) -> RoundSumConfig:
    threshold = threshold_for(len(names))
    return RoundSumConfig(
        federation="in-process",
        scope=_SCOPE,
        epoch=0,
        round_id=0,
        roster_root=derive(
            b"".join(name.encode() + key for name, key in sorted(roster.items())), person=b"ssa1.roster"
        ),
        participants=names,
        model_hash=derive(b"", person=b"ssa1.model"),
        threshold=threshold,
        min_survivors=threshold if terms.min_survivors is None else terms.min_survivors,
        dimension=terms.dimension,
        bits=terms.bits,
        clip=terms.clip,
        scale=terms.scale,
        coordinator_key=roster[_COORDINATOR],
    )
