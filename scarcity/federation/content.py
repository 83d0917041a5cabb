"""What a body may hold: vectors, weights and norms within what a round lets them be.

All of it is a function of the body and of public terms. Trusts nobody: a lie within the bounds is the rules' business.
"""

from __future__ import annotations

import math
from typing import Final

import attrs
import numpy as np

from scarcity.federation.layers import model_fault
from scarcity.federation.packets import (
    BasketReport,
    Body,
    Contribution,
    Model,
    Ready,
    Release,
    RoundConfig,
    TrustedUpdate,
    TrustMode,
    Unit,
)
from scarcity.federation.refusals import Code, Fault

_MAX_INT: Final = 2**63 - 1
_NOISE_TAIL_SIGMAS: Final = 10.0  # a Gaussian leaves ten sigma with probability 1.5e-23
_VARIANCE_MAX: Final = 2.0**150  # far above any noise that can be drawn, and far below what overflows a float's sums
_WEIGHT_MIN: Final = 1e-6  # age weights of late contributions make weights small, but not this small
_NORM_TAIL: Final = 7.0  # P(noise norm > sigma (sqrt(d) + 7)) <= exp(-49 / 2) = 2.3e-11 (Laurent and Massart 2000)


@attrs.frozen(kw_only=True)
class Expected:
    """What the open round lets a packet be.

    Attributes:
        round_id: the open round.
        mode: trust mode; it decides which contributions exist.
        dimension: length d of every vector.
        schema_hash: schema of every vector.
        max_weight: largest weight one client may claim: 1 for unit client, for unit record the most rows of a round.
        norm_bound: largest L2 norm of a contribution, in lattice units; infinity where no bound is public.
        unit_bound: largest absolute coordinate per unit of weight, before noise; infinity where no bound is public.
        noise_tail: what noise can add to a coordinate.
    """

    round_id: int
    mode: TrustMode
    dimension: int
    schema_hash: bytes
    max_weight: int = 1
    norm_bound: float = math.inf
    unit_bound: float = math.inf
    noise_tail: float = 0.0


def expected_in(round_id: int, config: RoundConfig, *, max_rows: int) -> Expected:
    """Return what a round's config lets packets be.

    A clean vector of unit client has at most `steps` lattice units. A release is that plus Gaussian noise; its norm has
    a public bound that an honest client exceeds with probability below 3e-11. Unit record scales its coordinates
    differently and mode none does not clip: no bound there.

    Args:
        round_id: the round.
        config: its config.
        max_rows: most rows that one client may claim in a round (unit record, mode none).
    """
    settings, noise, d = config.settings, config.noise, config.dimension
    client_unit = settings.unit is Unit.CLIENT
    bound = math.inf
    if client_unit and settings.mode is TrustMode.LOCAL:
        bound = noise.steps + noise.sigma * (math.sqrt(d) + _NORM_TAIL) + math.sqrt(d)
    elif client_unit and settings.mode is TrustMode.CENTRAL:
        bound = noise.steps
    return Expected(
        round_id=round_id,
        mode=settings.mode,
        dimension=d,
        schema_hash=config.schema_hash,
        max_weight=1 if client_unit and settings.mode is not TrustMode.NONE else max_rows,
        norm_bound=bound,
        # A row's products are at most K^2; unit client is bounded by its norm.
        unit_bound=math.inf if client_unit or settings.mode is TrustMode.NONE else float(noise.steps) ** 2,
        noise_tail=_NOISE_TAIL_SIGMAS * noise.sigma,
    )


def norm_of(vector: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> float:
    """Return the L2 norm in float64, without overflow inside; shape (d,), finite values."""
    values = np.abs(np.asarray(vector, dtype=np.float64))
    largest = float(values.max(initial=0.0))
    if largest in (0.0, math.inf):
        return largest
    scaled = values / largest
    return largest * math.sqrt(float(scaled @ scaled))


def check_body(body: Body, expected: Expected | None) -> Fault | None:
    """Return what is wrong with the content of a body, None if nothing is or nothing can be checked.

    Without an open round vectors must still be finite, of one dimension and of their kind's dtype.

    Cost: O(d).
    """
    if isinstance(body, BasketReport):
        most = body.count * (_MAX_INT if expected is None else expected.max_weight)
        sound = body.count >= 1 and _WEIGHT_MIN <= body.weight <= most and 0 <= body.noise_variance <= _VARIANCE_MAX
        words = f"report of count {body.count}, weight {body.weight}, noise variance {body.noise_variance}"
        return None if sound else (Code.RANGE, words)
    if isinstance(body, Ready):
        return _check_weight(body.weight, expected)
    if not isinstance(body, Contribution | Model):
        return None
    if expected is not None and body.schema_hash != expected.schema_hash:
        return (Code.SCHEMA, f"schema {body.schema_hash.hex()[:12]}, not {expected.schema_hash.hex()[:12]}")
    if fault := _check_vector(body, expected):
        return fault
    if isinstance(body, Model):
        return (Code.RANGE, words) if (words := model_fault(body)) else None
    bound = math.inf if expected is None else expected.norm_bound
    if bound < math.inf and not (norm := norm_of(body.vector)) <= bound:
        return (Code.NORM, f"norm {norm:.6g} is above {bound:.6g}")
    return _check_weight(body.weight, expected) or _check_range(body, expected)


def _check_range(body: Contribution, expected: Expected | None) -> Fault | None:
    """Return that a coordinate is larger than so many rows and their noise can make it."""
    if expected is None or math.isinf(expected.unit_bound):
        return None
    # Not abs: the smallest int64 is its own.
    largest = max(float(body.vector.max()), -float(body.vector.min()))
    bound = body.weight * expected.unit_bound + expected.noise_tail
    return None if largest <= bound else (Code.NORM, f"a coordinate of {largest:.6g} is above {bound:.6g}")


def _check_vector(body: Contribution | Model, expected: Expected | None) -> Fault | None:
    vector, dtype = body.vector, np.int64 if isinstance(body, Release | TrustedUpdate) else np.float64
    shape = vector.shape[:1] if expected is None else (expected.dimension,)
    if vector.dtype != dtype or vector.ndim != 1 or vector.shape != shape or vector.size == 0:
        return (Code.SHAPE, f"{vector.dtype} of shape {vector.shape}, not {np.dtype(dtype)} of shape {shape}")
    if not np.isfinite(vector).all():
        return (Code.NOT_FINITE, f"vector[{int(np.flatnonzero(~np.isfinite(vector))[0])}] is not finite")
    return None


def _check_weight(weight: int, expected: Expected | None) -> Fault | None:
    largest = _MAX_INT if expected is None else expected.max_weight
    if type(weight) is int and 1 <= weight <= largest:
        return None
    return (Code.RANGE, f"weight {weight}, allowed are 1 to {largest}")
