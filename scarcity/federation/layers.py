"""The mathematics of the two layers: contributions to an aggregate, aggregates to a model.

Layer 1 applies a rule to contributions that can be seen one by one, or reads the sum that a secure sum has opened.
Layer 2 is always a secure sum over the baskets, so what is here is only how an aggregate enters that sum, [W, total] as
integers, and how a model comes out of it. A total that is a sum of integers enters as it is: nothing is multiplied or
rounded between the noise and the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import attrs
import numpy as np

from scarcity.errors import InvalidUpdate
from scarcity.federation.aggregator import Rule, aggregate_by_sender, byzantine_count, make_rule
from scarcity.federation.codec import body_digest
from scarcity.federation.packets import (
    Aggregate,
    FloatArray,
    IntArray,
    Model,
    Packet,
    Release,
    RoundConfig,
    RoundSettings,
    TrustMode,
    Unit,
    Unprotected,
)

# Bits of Layer 2's fixed point. Clean moments need 36 to keep coefficients within 1e-9 (24 give 7e-7). Aggregates of
# releases are in lattice units already, whose noise alone spans thousands of units: 16 further bits lose nothing.
_CLEAN_BITS = 36
_RELEASED_BITS = 16
# Clean sums of lattice rows are integers near 2^45 already; their mean times the weight is off by less than this.
_LATTICE_BITS = 8
# Half of int64 is the ring's sign; the other half is shared by all baskets of a round.
_RING_BITS = 62


@attrs.frozen
class Contributed:
    """One contribution as Layer 1 sees it.

    Attributes:
        vector: shape (d,), sum over `weight`, in the contribution's own units.
        weight: rows, or 1; positive.
        multiplier: in (0, 1], for age; it scales the weight, never the content.
    """

    vector: FloatArray | IntArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    weight: int
    multiplier: float = 1.0


def aggregate_contributions(rule: Rule, contributions: Mapping[str, Contributed], sigma: float) -> Aggregate:
    """Return a basket's aggregate of contributions that were seen one by one.

    The rule runs over the contributions per unit of weight, in sorted order of sender ids.

    Args:
        rule: the robust rule, n >= its min_inputs.
        contributions: sender id -> contribution, vectors of one shape.
        sigma: noise in a unit-scale coordinate of each contribution; 0 in mode none.

    Returns:
        `total` = the rule's mean times the total weight. The noise variance takes the rule's weights where it has any;
        for coordinate rules, which have none, it is that of the plain mean of as many.

    Raises:
        InsufficientInputs: fewer contributions than the rule needs.
    """
    means = {name: (c.vector / c.weight, c.weight * c.multiplier) for name, c in contributions.items()}
    result = aggregate_by_sender(rule, means)
    weight = float(sum(weight for _, weight in (means[name] for name in sorted(means))))
    shares = result.weights or dict.fromkeys(means, 1 / len(means))
    per_unit = sum((shares[name] * sigma / contributions[name].weight) ** 2 for name in sorted(shares))
    return Aggregate(result.vector * weight, weight, len(means), result.rule, per_unit * weight**2)


def aggregate_of_sum(total: IntArray, weights: Mapping[str, int], noise_variance: float) -> Aggregate:
    """Return a basket's aggregate of an opened secure sum over the members in `weights`."""
    return Aggregate(total, float(sum(weights.values())), len(weights), "average", noise_variance)


def layer2_scale(config: RoundConfig) -> int:
    """Return the lattice steps per unit with which a round's totals enter Layer 2."""
    mode = config.settings.mode
    if mode is TrustMode.DISTRIBUTED:
        return 1  # totals are integers already
    if mode is TrustMode.NONE:
        return 1 << (_LATTICE_BITS if config.noise.steps else _CLEAN_BITS)
    return 1 << _RELEASED_BITS


def layer2_bits(num_baskets: int) -> int:
    """Return b: a basket's coordinates must stay within 2^b so that the sum over all baskets fits the ring."""
    return _RING_BITS - max(0, math.ceil(math.log2(num_baskets)))


def layer2_input(aggregate: Aggregate, scale: int, bits: int) -> IntArray:
    """Return [W, total] as integers, shape (1 + d,), int64.

    Raises:
        InvalidUpdate: a coordinate exceeds the bound, so the ring could overflow.
    """
    raw = np.concatenate([[aggregate.weight], np.asarray(aggregate.total, dtype=np.float64)]) * scale
    if not (np.abs(raw) < 2.0**bits).all():
        at = int(np.argmax(np.abs(raw)))
        raise InvalidUpdate(f"coordinate {at} of the aggregate is {raw[at]:.3g}, beyond Layer 2's bound 2^{bits}")
    scaled: IntArray = np.trunc(raw).astype(np.int64)
    if aggregate.total.dtype == np.int64:
        scaled[1:] = aggregate.total * scale  # exact beyond the 53 bits of a float
    return scaled


def model_of_sum(
    total: IntArray, *, config: RoundConfig, round_id: int, count: int, noise_variance: float, config_hash: bytes
) -> Model:
    """Return the model of an opened Layer 2 sum.

    Args:
        total: shape (1 + d,), int64: the sum of what `layer2_input` gave.
        config: the round's config.
        round_id: the round.
        count: clients in it.
        noise_variance: variance of the noise in a unit-scale coordinate of the sum, in units of the contributions.
        config_hash: digest of the config.
    """
    scale = layer2_scale(config)
    weight = float(total[0]) / scale
    unit = contribution_unit(config)
    mean = np.asarray(total[1:], dtype=np.float64) / scale / weight * unit
    return Model(round_id, config.schema_hash, mean, weight, count, float(np.sqrt(noise_variance)) * unit, config_hash)


def contribution_unit(config: RoundConfig) -> float:
    """Return what one unit of a contribution is in the units of the model.

    Plain arrays are clipped to clip_norm = K lattice steps; records stay in lattice units, which the engine reads.
    """
    clipped = config.settings.mode is not TrustMode.NONE and config.settings.unit is Unit.CLIENT
    if config.noise.steps and clipped:
        return config.settings.clip_norm / config.noise.steps
    return 1.0


def model_belongs(model: Model, round_id: int, config: RoundConfig) -> bool:
    """Say whether a model is the one of this round, or an earlier one that the round's config starts from."""
    if model.round_id == round_id:
        return model.config_hash == body_digest(config)
    return model.round_id < round_id and body_digest(model) == config.model_hash


def view_of(packets: Iterable[Packet], settings: RoundSettings, members: int) -> FloatArray | None:
    """Return a member's view of its basket: the basket's rule over the contributions that gossip has brought.

    Args:
        packets: contributions of one round, at most one a member.
        settings: the round's; its rule and share of liars.
        members: members of the basket on the roster.

    Returns:
        shape (d,), per unit of weight, in units of the contributions; None while they are too few for the rule.
    """
    rule = make_rule(settings.rule, byzantine_count(settings.byzantine_share, members))
    held = {
        packet.header.sender: (packet.body.vector / packet.body.weight, float(packet.body.weight))
        for packet in packets
        if isinstance(packet.body, Release | Unprotected)
    }
    if len(held) < rule.min_inputs:
        return None
    return aggregate_by_sender(rule, held).vector
