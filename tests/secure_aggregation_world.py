"""Parties of one secure sum, all keys functions of their names, and a driver that lets a test stand between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import numpy as np
from nacl.signing import SigningKey

from scarcity.federation.secure_aggregation import (
    CoordinatorState,
    Mark,
    Outgoing,
    Refused,
    RoundSumConfig,
    SecureAggClient,
    SecureAggCoordinator,
    SecureAggPolicy,
    SumConfigMessage,
    To,
    decode,
    encode,
    threshold_for,
)
from scarcity.federation.secure_aggregation.channel import sign

SCOPE = "basket/a"
CENTRE = "basket/a"


def entropy(label: str) -> Callable[[int], bytes]:
    """Return a stream of bytes that depends on the label alone."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{label}/{count}".encode()).digest(size)

    return draw


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.blake2b(name.encode(), digest_size=32).digest())


def hash_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


@attrs.define
class World:
    """n clients of one basket, and the basket."""

    n: int
    d: int = 3
    bits: int = 64
    released: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"c{i:02}" for i in range(self.n))

    @property
    def roster(self) -> dict[str, bytes]:
        return {name: key_of(name).verify_key.encode() for name in (*self.names, CENTRE, "basket/b", "stranger")}

    def config(self, **changes: Any) -> RoundSumConfig:
        names = changes.get("participants", self.names)
        t = changes.get("threshold", threshold_for(len(names)))
        terms: dict[str, Any] = {
            "federation": "fed",
            "scope": SCOPE,
            "epoch": 1,
            "round_id": 1,
            "roster_root": hash_of("roster"),
            "participants": names,
            "model_hash": hash_of("model"),
            "threshold": t,
            "min_survivors": t,
            "dimension": self.d,
            "bits": self.bits,
            "clip": 100.0,
            "scale": 1.0,
            "coordinator_key": key_of(CENTRE).verify_key.encode(),
        }
        return RoundSumConfig(**{**terms, **changes})

    def policy(self, **changes: Any) -> SecureAggPolicy:
        terms: dict[str, Any] = {
            "coordinator": CENTRE,
            "members": frozenset(self.names),
            "model_hash": hash_of("model"),
            "dimension": self.d,
            "clip": 100.0,
            "scale": 1.0,
            "n_min": 1 if self.released else 3,
            "inputs_released": self.released,
        }
        return SecureAggPolicy(**{**terms, **changes})

    def client(self, name: str, *, policy: SecureAggPolicy | None = None, **changes: Any) -> SecureAggClient:
        terms: dict[str, Any] = {
            "own_id": name,
            "signing_key": key_of(name),
            "roster": self.roster,
            "federation": "fed",
            "roster_root": hash_of("roster"),
            "epoch": 1,
            "policies": {SCOPE: policy or self.policy()},
            "entropy": entropy(name),
        }
        return SecureAggClient(**{**terms, **changes})

    def clients(self, **changes: Any) -> dict[str, SecureAggClient]:
        return {name: self.client(name, **changes) for name in self.names}

    def coordinator(self, config: RoundSumConfig | None = None) -> SecureAggCoordinator:
        return SecureAggCoordinator(config or self.config(), key_of(CENTRE), self.roster)

    def inputs(self) -> dict[str, np.ndarray]:
        """Return integers that differ between clients and take both signs."""
        return {name: np.arange(self.d, dtype=np.int64) * 7 - 20 * (i % 3) + i for i, name in enumerate(self.names)}


def signed(config: RoundSumConfig, signer: str = CENTRE) -> SumConfigMessage:
    return SumConfigMessage(config, sign(key_of(signer), b"ssa1.config", config.canonical))


def _pass(_name: str, message: Any) -> list[Any]:
    return [message]


@attrs.define
class Log:
    """What happened: messages by sender and kind, refusals by who refused ("" is the coordinator)."""

    up: list[tuple[str, Any]] = attrs.field(factory=list)
    down: list[tuple[str, Any]] = attrs.field(factory=list)
    outputs: list[tuple[str, Any]] = attrs.field(factory=list)

    def refusals(self, name: str) -> list[Refused]:
        return [output for who, output in self.outputs if who == name and isinstance(output, Refused)]

    def reasons(self, name: str) -> list[str]:
        return [refused.reason.name for refused in self.refusals(name)]

    def sent(self, kind: type, name: str | None = None) -> list[Any]:
        return [m for who, m in self.up if isinstance(m, kind) and name in (None, who)]

    def got(self, kind: type, name: str) -> Any:
        return next(m for who, m in self.down if isinstance(m, kind) and who == name)


def tell(client: SecureAggClient, message: Any) -> list[Any]:
    """Give a message to a client the way its role core does."""
    return client.begin(message) if isinstance(message, SumConfigMessage) else client.receive(message)


Hook = Callable[[str, Any], list[Any]]


@attrs.define
class _Carrier:
    """Messages in flight and where they go."""

    coordinator: SecureAggCoordinator
    clients: Mapping[str, SecureAggClient]
    inputs: Mapping[str, np.ndarray]
    up: Hook
    down: Hook
    log: Log = attrs.field(factory=Log)
    flying: list[tuple[str, str, Any]] = attrs.field(factory=list)

    def from_coordinator(self, outputs: Any) -> None:
        for output in outputs:
            self.log.outputs.append(("", output))
            if isinstance(output, To):
                name = output.recipient
                self.flying.extend((name, "down", message) for message in self.down(name, output.message))

    def from_client(self, name: str, outputs: Any) -> None:
        for output in outputs:
            self.log.outputs.append((name, output))
            if isinstance(output, Outgoing):
                self.flying.extend((name, "up", message) for message in self.up(name, output.message))

    def deliver(self, name: str, way: str, message: Any) -> None:
        message = decode(encode(message))
        if way == "up":
            self.log.up.append((name, message))
            self.from_coordinator(self.coordinator.receive(name, message))
            return
        self.log.down.append((name, message))
        if name in self.clients:
            outputs = tell(self.clients[name], message)
            self.from_client(name, outputs)
            if isinstance(message, SumConfigMessage) and isinstance(outputs[0], Mark) and name in self.inputs:
                self.from_client(name, self.clients[name].provide(self.inputs[name]))


def play(
    coordinator: SecureAggCoordinator,
    clients: Mapping[str, SecureAggClient],
    inputs: Mapping[str, np.ndarray],
    *,
    up: Hook = _pass,
    down: Hook = _pass,
    pick: Callable[[int], int] = lambda _size: 0,
    stop: CoordinatorState | None = None,
) -> Log:
    """Carry messages, as bytes, until the sum is over or the coordinator has reached `stop`.

    `up` and `down` may drop, double or change messages; `pick` chooses which one of those in flight arrives next.
    What is still in flight at `stop` is in `log.down` without having been delivered.
    """
    carrier = _Carrier(coordinator, clients, inputs, up, down)
    carrier.from_coordinator(coordinator.open())
    while coordinator.state is not stop:
        if carrier.flying:
            carrier.deliver(*carrier.flying.pop(pick(len(carrier.flying))))
        elif coordinator.result is None and coordinator.failed is None:
            carrier.from_coordinator(coordinator.close_stage())
        else:
            break
    carrier.log.down.extend((name, message) for name, way, message in carrier.flying if way == "down")
    return carrier.log


def dropping(drop: Mapping[type, Collection[str]]) -> Callable[[str, Any], list[Any]]:
    """Return an `up` that loses the messages of the given kinds of the given members."""
    return lambda name, message: [] if name in drop.get(type(message), ()) else [message]


def plain_sum(inputs: Mapping[str, np.ndarray], names: Collection[str]) -> np.ndarray:
    return np.sum([inputs[name] for name in sorted(names)], axis=0)


def messages_of(outputs: Any) -> list[Any]:
    return [output.message for output in outputs if isinstance(output, Outgoing)]
