"""Time one secure sum of n participants against the raw primitives it cannot do without; prints one JSON line.

Everything runs in one process and one thread, every message through its canonical bytes. A client's time is the mean
over the survivors, of the second round of an epoch (`client_first_round_ms` has the channel keys of the epoch in it).
The bare figures time the primitives alone, in the same run: the mask generator with its additions, X25519, boxes,
signatures, the hash of the masked vector that they cover, and the share product.

    OMP_NUM_THREADS=1 python scripts/bench/secure_aggregation.py [--n 100] [--d 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable

import nacl.bindings as sodium
import numpy as np
from nacl.signing import SigningKey

from scarcity.federation.secure_aggregation import (
    EpochKeys,
    Outgoing,
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
from scarcity.federation.secure_aggregation.channel import seal, unseal
from scarcity.federation.secure_aggregation.masks import add_mask, derive
from scarcity.federation.secure_aggregation.messages import Masked
from scarcity.federation.secure_aggregation.shamir import deal

CENTRE = "basket"


def parties(n: int, d: int) -> tuple[dict[str, SigningKey], dict[str, bytes], dict[str, SecureAggClient]]:
    names = [f"c{i:04}" for i in range(n)]
    keys = {name: SigningKey(os.urandom(32)) for name in (*names, CENTRE)}
    roster = {name: key.verify_key.encode() for name, key in keys.items()}
    policy = SecureAggPolicy(
        coordinator=CENTRE, members=frozenset(names), model_hash=bytes(32), dimension=d, clip=1000.0, scale=1.0
    )
    clients = {
        name: SecureAggClient(name, keys[name], roster, "fed", bytes(32), 1, {"s": policy}, os.urandom)
        for name in names
    }
    return keys, roster, clients


def config_of(n: int, d: int, round_id: int, key: SigningKey) -> RoundSumConfig:
    return RoundSumConfig(
        federation="fed",
        scope="s",
        epoch=1,
        round_id=round_id,
        roster_root=bytes(32),
        participants=tuple(f"c{i:04}" for i in range(n)),
        model_hash=bytes(32),
        threshold=threshold_for(n),
        min_survivors=threshold_for(n),
        dimension=d,
        bits=32,
        clip=1000.0,
        scale=1.0,
        coordinator_key=key.verify_key.encode(),
    )


def one_round(
    coordinator: SecureAggCoordinator, clients: dict[str, SecureAggClient], x: np.ndarray, dropped: set[str]
) -> dict[str, float]:
    """Return CPU seconds and bytes of one round in which `dropped` lose their Masked."""
    spent: dict[str, float] = defaultdict(float)
    sizes: dict[str, int] = defaultdict(int)
    now = time.process_time
    began = now()
    queue: deque[tuple[str, bytes]] = deque()

    def queue_down(outputs: list) -> None:
        for output in outputs:
            if isinstance(output, To):
                queue.append((output.recipient, encode(output.message)))

    start = now()
    queue_down(coordinator.open())
    spent["server"] += now() - start
    while coordinator.result is None and coordinator.failed is None:
        if not queue:
            start = now()
            queue_down(coordinator.close_stage())
            spent["server"] += now() - start
            continue
        name, data = queue.popleft()
        sizes["down"] += len(data)
        start = now()
        message, client = decode(data), clients[name]
        fresh = isinstance(message, SumConfigMessage)
        outputs = client.begin(message) + client.provide(x) if fresh else client.receive(message)
        sent = [
            encode(o.message)
            for o in outputs
            if isinstance(o, Outgoing) and not (name in dropped and isinstance(o.message, Masked))
        ]
        spent[name] += now() - start
        for answer in sent:
            sizes["up"] += len(answer)
            start = now()
            queue_down(coordinator.receive(name, decode(answer)))
            spent["server"] += now() - start
    assert coordinator.result is not None, coordinator.failed
    assert (coordinator.result.vector == x * len(coordinator.result.survivors)).all()
    survivors = [spent[name] for name in clients if name not in dropped]
    traffic = (sizes["up"] + sizes["down"]) / (len(clients) * x.size * 4)
    whole = now() - began
    return {
        "client_ms": 1e3 * sum(survivors) / len(survivors),
        "server_ms": 1e3 * spent["server"],
        "round_s": whole,
        "traffic": traffic,
    }


def cost(action: Callable[[], object], repeats: int) -> float:
    """Return CPU milliseconds of one call."""
    action()
    start = time.process_time()
    for _ in range(repeats):
        action()
    return 1e3 * (time.process_time() - start) / repeats


def bare(n: int, d: int, gone: int) -> tuple[float, float]:
    """Return CPU milliseconds of the primitives alone: one client, and the server."""
    total, secret, key = np.zeros(d, dtype=np.uint32), os.urandom(32), SigningKey(os.urandom(32))
    public, box = sodium.crypto_scalarmult_base(secret), seal(secret, bytes(68), bytes(160))
    mask = cost(lambda: add_mask(total, secret, subtract=False), 20)
    exchange = cost(lambda: sodium.crypto_scalarmult(secret, public), 200)
    boxes = cost(lambda: unseal(secret, seal(secret, bytes(68), bytes(160)), bytes(160)), 200)
    sign = cost(lambda: key.sign(box), 200)
    verify = cost(lambda: key.verify_key.verify(key.sign(box)), 200) - sign
    hashed = cost(lambda: derive(total.data, person=b"bench"), 20)
    points, t = tuple(range(1, n + 1)), threshold_for(n)
    dealt = cost(lambda: deal([secret, secret], points, t, os.urandom), 20)
    client = n * mask + (n - 1) * (exchange + boxes) + dealt + hashed + 2 * sign + verify
    server = (n - gone) * (mask + hashed) + gone * (n - gone) * (mask + exchange) + 2 * n * verify
    return client, server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--d", type=int, default=100_000)
    args = parser.parse_args()
    n, d = args.n, args.d
    keys, roster, clients = parties(n, d)
    x = np.arange(d, dtype=np.int64) % 2001 - 1000
    dropped = set(list(clients)[:: max(1, n // (n // 10))][: n // 10]) if n >= 10 else set()
    epoch_keys = EpochKeys()
    rounds = []
    for round_id in (1, 2):
        config = config_of(n, d, round_id, keys[CENTRE])
        coordinator = SecureAggCoordinator(config, keys[CENTRE], roster, epoch_keys=epoch_keys)
        rounds.append(one_round(coordinator, clients, x, dropped))
    bare_client, bare_server = bare(n, d, len(dropped))
    first, second = rounds
    figures = {
        "n": n,
        "d": d,
        "dropped": len(dropped),
        **second,
        "client_first_round_ms": first["client_ms"],
        "bare_client_ms": bare_client,
        "bare_server_ms": bare_server,
        "client_ratio": second["client_ms"] / bare_client,
        "server_ratio": second["server_ms"] / bare_server,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
