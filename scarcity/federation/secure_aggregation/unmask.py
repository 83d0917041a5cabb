"""The coordinator's arithmetic: secrets back from shares, masks off the sum.

Every reconstructed secret is checked against what its owner advertised, so a tampered share gives its holder's name or
no sum at all, never a wrong sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.federation.secure_aggregation.masks import (
    Secret,
    add_mask,
    commitment_of,
    exchange,
    pair_seed,
    public_of,
    self_seed,
)
from scarcity.federation.secure_aggregation.shamir import Limbs, interpolate, secret_of


@attrs.frozen
class Recovered:
    """Secrets by owner, and the holders whose shares did not fit."""

    secrets: dict[int, bytes]
    culprits: frozenset[int]


def recover(
    shares: dict[int, dict[int, Limbs]], threshold: int, holds: Callable[[int, bytes], bool]
) -> Recovered | int:
    """Return every owner's secret.

    Args:
        shares: owner -> holder -> limbs (16,). Every owner has at least `threshold` holders.
        threshold: t.
        holds: says whether a secret is the one that its owner advertised.

    Returns:
        The secrets and the culprits; or the first owner whose secret could not be recovered.
    """
    secrets, culprits = {}, set()
    by_holders: dict[tuple[int, ...], list[int]] = {}
    for owner in sorted(shares):
        by_holders.setdefault(tuple(sorted(shares[owner])), []).append(owner)
    for holders, owners in by_holders.items():
        table = np.stack([[shares[owner][holder] for owner in owners] for holder in holders])
        base, extra = holders[:threshold], holders[threshold:]
        values = _interpolate(table[:threshold], base, extra)
        for index, owner in enumerate(owners):
            secret = secret_of(values[0, index])
            if secret is not None and holds(owner, secret):
                wrong = (values[1:, index] != table[threshold:, index]).any(axis=-1)
                secrets[owner] = secret
                culprits |= {holder for holder, bad in zip(extra, wrong, strict=True) if bad}
                continue
            found = _leave_one_out(table[:, index], holders, threshold, partial(holds, owner))
            if found is None:
                return owner
            secrets[owner] = found[0]
            culprits |= found[1]
    return Recovered(secrets, frozenset(culprits))


def _interpolate(table: Limbs, base: Sequence[int], extra: Sequence[int]) -> Limbs:
    """Return the values at 0 and at the extra holders, shape (1 + extra, owners, 16); holder i stands at 1 + i."""
    points, targets = tuple(1 + i for i in base), (0, *(1 + i for i in extra))
    return interpolate(table.reshape(len(base), -1), points, targets).reshape(len(targets), *table.shape[1:])


def _leave_one_out(
    table: Limbs, holders: Sequence[int], threshold: int, holds: Callable[[bytes], bool]
) -> tuple[bytes, set[int]] | None:
    """Return the secret that fits when one of the first t holders is left out, and all whose shares do not fit it."""
    if len(holders) <= threshold:
        return None
    for left_out in range(threshold):
        base = [index for index in range(threshold + 1) if index != left_out]
        rest = [index for index in range(len(holders)) if index not in base]
        values = _interpolate(
            table[base][:, None], [holders[index] for index in base], [holders[index] for index in rest]
        )[:, 0]
        secret = secret_of(values[0])
        if secret is not None and holds(secret):
            wrong = (values[1:] != table[rest]).any(axis=-1)
            return secret, {holders[index] for index, bad in zip(rest, wrong, strict=True) if bad}
    return None


@attrs.frozen
class Advertised:
    """What the members of U1 have advertised, by position."""

    ctx: bytes
    u1: bytes
    mask_keys: dict[int, bytes]
    commitments: dict[int, bytes]


def secret_holds(advertised: Advertised, survivors: frozenset[int], owner: int, secret: bytes) -> bool:
    """Say whether a survivor's seed fits its commitment, or a dropout's mask key its public key."""
    if owner in survivors:
        return commitment_of(secret) == advertised.commitments[owner]
    return public_of(Secret("MaskKey", secret)) == advertised.mask_keys[owner]


def unmask(
    total: NDArray[Any], advertised: Advertised, survivors: frozenset[int], secrets: dict[int, bytes]
) -> int | None:
    """Take all masks off the sum of the survivors' masked inputs, in place.

    Args:
        total: shape (d,), ring words.
        advertised: keys of U1.
        survivors: U3.
        secrets: a seed for every survivor, a mask key for every member of U2 that dropped out.

    Returns:
        None, or a survivor whose mask key gives no shared secret (it cannot have masked with it).
    """
    ctx, u1 = advertised.ctx, advertised.u1
    for owner, secret in sorted(secrets.items()):
        if owner in survivors:
            add_mask(total, self_seed(ctx, secret), subtract=True)
            continue
        mask_secret = Secret("MaskKey", secret)
        for survivor in sorted(survivors):
            shared = exchange(mask_secret, advertised.mask_keys[survivor])
            if shared is None:
                return survivor
            # The survivor's mask with the dropout was added where its position is the lower one: take it off again.
            add_mask(total, pair_seed(shared, ctx, u1, survivor, owner), subtract=survivor < owner)
    return None
