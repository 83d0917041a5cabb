"""Clip to an integer lattice and add rounded Gaussian noise from a CSPRNG.

Float noise on float values leaks (Mironov 2012), so an update is clipped to C = K gamma, truncated toward zero to the
lattice of spacing gamma and checked in exact integers: sum v^2 <= K^2. Adding round(G) to an integer v is round(v + G),
post-processing of the ideal Gaussian mechanism. From `clip_to_lattice` on everything is int64.

The sampler is not ideal: 53-bit uniforms end at 8.57 sigma and leave a grain. `SAMPLER_DELTA_SHARE` of the promised
delta pays for that. It is subtracted in one place, `ledger_budget`, when a promise becomes the budget of a ledger;
calibration, filter and `spent` then speak of the ideal Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from nacl.utils import randombytes_deterministic
from numpy.typing import NDArray

from scarcity.errors import ConfigError, InvalidUpdate, LocalError
from scarcity.privacy.accountant import Reservation
from scarcity.privacy.events import PrivacyParams

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Entropy = Callable[[int], bytes]

SAMPLER_DELTA_SHARE = 0.01
# K below 1024 sqrt(d) loses more than a thousandth of the norm to truncation; above 2^40 the exact check would need
# more than two 20-bit limbs, and v + noise could leave int64.
STEPS_PER_ROOT_DIMENSION = 1024
STEPS_MAX = 1 << 40
# Above 2^36 the grain of two 53-bit uniforms is no longer small beside the lattice; below 1 rounding is no longer small
# beside the noise.
SIGMA_MIN = 1.0
SIGMA_MAX = float(1 << 36)
# Below it a sum of rounded shares is measurably worse than the ideal Gaussian (at .35 by tens of per cent).
SHARE_SIGMA_MIN = 8.0

_LIMB_BITS = 20
_CHUNK = 1 << 22  # 2^22 products of at most 2^40 stay below 2^63
_SEED_BYTES = 32
_INT64_MAX = (1 << 63) - 1


def ledger_budget(promised: PrivacyParams) -> PrivacyParams:
    """Return the budget for a ledger under which `promised` holds with the real sampler.

    The part of delta that is taken off, `SAMPLER_DELTA_SHARE`, pays for the distance between the sampler and the ideal
    Gaussian over the life of the ledger (docs/privacy.md bounds it).
    """
    return PrivacyParams(epsilon=promised.epsilon, delta=promised.delta * (1.0 - SAMPLER_DELTA_SHARE))


def squared_norm(values: IntArray) -> int:
    """Return the exact sum of squares of integers of magnitude up to 2^40."""
    total = 0
    for start in range(0, len(values), _CHUNK):
        part = np.abs(values[start : start + _CHUNK])
        high, low = part >> _LIMB_BITS, part & ((1 << _LIMB_BITS) - 1)
        total += (int(high @ high) << (2 * _LIMB_BITS)) + (int(high @ low) << (_LIMB_BITS + 1)) + int(low @ low)
    return total


def _check_steps(steps: int, dimension: int) -> None:
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"steps must be an integer >= 1, got {steps!r}")
    if not STEPS_PER_ROOT_DIMENSION**2 * dimension <= steps * steps <= STEPS_MAX**2:
        low = STEPS_PER_ROOT_DIMENSION * math.sqrt(dimension)
        raise ConfigError(f"steps must lie in [1024 sqrt(d), 2^40] = [{low:.0f}, {STEPS_MAX}], got {steps}")


def _check_vector(x: object) -> FloatArray:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise InvalidUpdate(f"an update must be a float64 array, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 1 or not x.size:
        raise InvalidUpdate(f"an update must be a vector of shape (d,) with d >= 1, got shape {x.shape}")
    finite = np.isfinite(x)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise InvalidUpdate(f"value {first} of the update is {x[first]}; {int((~finite).sum())} are not finite")
    return x.astype(np.float64)


def clip_to_lattice(x: FloatArray, clip_norm: float, steps: int) -> IntArray:
    """Clip to L2 norm `clip_norm` and truncate toward zero to multiples of gamma = clip_norm / steps.

    Args:
        x: shape (d,), float64 (narrower floats are widened), finite.
        clip_norm: C, public and fixed, in the unit of x; finite, > 0.
        steps: K, 1024 sqrt(d) <= K <= 2^40.

    Returns:
        shape (d,), int64, in units of gamma, with sum v^2 <= K^2 exactly.

    Raises:
        InvalidUpdate: wrong dtype or shape, or a value that is not finite (checked before clipping).
        ConfigError: clip_norm or steps out of range.

    Unit of privacy: client. Sensitivity of the result: K under ZERO_OUT, 2 K under REPLACE_ONE.
    """
    vector = _check_vector(x)
    _check_steps(steps, vector.size)
    if not 0.0 < clip_norm < math.inf:
        raise ConfigError(f"clip_norm must be finite and > 0, got {clip_norm!r}")
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        return np.zeros(vector.size, dtype=np.int64)
    # Scaled by the largest magnitude first: squares of 1e200 would overflow, of 1e-200 vanish.
    direction = vector / largest
    norm = math.sqrt(float(direction @ direction))
    inside = largest / clip_norm * norm <= 1.0
    scaled = vector / clip_norm * steps if inside else direction * (steps / norm)
    values = np.trunc(scaled).astype(np.int64)
    if squared_norm(values) > steps * steps:
        # Rounding can carry a vector on the sphere one ulp outside; this takes it back by far more than that.
        values = np.trunc(scaled * (1.0 - 2.0**-40)).astype(np.int64)
    assert squared_norm(values) <= steps * steps, "clipping left the ball"
    return values


def _check_sigma(sigma: float | FloatArray, dimension: int, public: BoolArray | None) -> FloatArray:
    """Return sigma per coordinate, zero exactly where the coordinate is declared public."""
    if type(dimension) is not int or dimension < 1:
        raise LocalError(f"dimension must be an integer >= 1, got {dimension!r}")
    mask = np.zeros(dimension, dtype=np.bool_) if public is None else np.asarray(public)
    if mask.dtype != np.bool_ or mask.shape != (dimension,):
        raise LocalError(f"public must be a bool mask of shape ({dimension},), got {mask.dtype} {mask.shape}")
    given = np.asarray(sigma, dtype=np.float64)
    if given.ndim == 0:
        given = np.where(mask, 0.0, given)
    if given.shape != (dimension,):
        raise LocalError(f"sigma must be a number or of shape ({dimension},), got shape {given.shape}")
    wrong = np.where(mask, given != 0.0, ~((given >= SIGMA_MIN) & (given <= SIGMA_MAX)))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise LocalError(
            f"sigma[{first}] = {given[first]!r}: 1 <= sigma <= 2^36 lattice units where noise is added, "
            f"exactly 0 where the coordinate is public ({int(wrong.sum())} are wrong)"
        )
    return given


def _standard_normals(count: int, seed: bytes) -> FloatArray:
    """Return `count` normals, each by Box-Muller from two 53-bit uniforms of the ChaCha20 stream of `seed`.

    The sine of a pair is thrown away: near the origin the two would lie on visible circles, one alone has no such
    grain.
    """
    words = np.frombuffer(randombytes_deterministic(16 * count, seed), dtype="<u8").reshape(2, count) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[0].astype(np.float64) + 1.0) * 2.0**-53))  # (0, 1]: the logarithm is finite
    result: FloatArray = radius * np.cos(words[1].astype(np.float64) * (2.0 * math.pi * 2.0**-53))
    return result


def rounded_gaussian(
    sigma: float | FloatArray,
    dimension: int,
    reservation: Reservation,
    entropy: Entropy,
    *,
    public: BoolArray | None = None,
) -> IntArray:
    """Draw the noise of one release: round(N(0, sigma^2)) per coordinate, independent.

    Args:
        sigma: standard deviation in lattice units, a number or shape (d,); 1 <= sigma <= 2^36 where noise is added. The
            caller derives it from `reservation.event`: what was charged must be what is drawn.
        dimension: d.
        reservation: live; this call uses it up, whatever happens after the arguments are checked.
        entropy: source of secret bytes (os.urandom); asked once for a 32-byte ChaCha20 key.
        public: mask of shape (d,) of coordinates that the schema declares public; they get no noise and need sigma 0.

    Returns:
        shape (d,), int64, in lattice units; variance sigma^2 + 1/12.

    Raises:
        LocalError: bad sigma, mask or dimension (the reservation stays live), or a reservation that is not live.

    Cost: 16 bytes of ChaCha20, a logarithm and a cosine per coordinate.
    Source: Box & Muller 1958.
    """
    scale = _check_sigma(sigma, dimension, public)
    reservation.mark_drawn()
    seed = entropy(_SEED_BYTES)
    if len(seed) != _SEED_BYTES:
        raise LocalError(f"entropy returned {len(seed)} bytes, expected {_SEED_BYTES}; the reservation is used up")
    return np.rint(_standard_normals(dimension, seed) * scale).astype(np.int64)


def add_noise(values: IntArray, noise: IntArray) -> IntArray:
    """Return values + noise, both shape (d,) int64 on the same lattice, or refuse when the sum could leave int64.

    The check uses the public bound max |values| + max |noise|, in exact integers.

    Raises:
        LocalError: another dtype or shape, or an overflow.
    """
    if values.dtype != np.int64 or noise.dtype != np.int64 or values.shape != noise.shape:
        raise LocalError(
            f"values and noise must be int64 of one shape, got {values.dtype} {values.shape}, {noise.dtype}"
        )
    reach = sum(max(int(part.max(initial=0)), -int(part.min(initial=0))) for part in (values, noise))
    if reach > _INT64_MAX:
        raise LocalError(f"values plus noise reach {reach}, beyond int64")
    return values + noise


def noise_share_sigma(sigma: float | FloatArray, min_survivors: int, max_colluders: int) -> FloatArray:
    """Return the noise of one client's share: any min_survivors of them, max_colluders known, still carry sigma.

    Args:
        sigma: target for the sum in lattice units, a number or shape (d,); 0 marks public coordinates.
        min_survivors: smallest set of clients whose sum is ever opened.
        max_colluders: how many of them may tell the receiver their share; less than min_survivors.

    Returns:
        sigma / sqrt(min_survivors - max_colluders), shape () or (d,), rounded up.

    Raises:
        ConfigError: nobody honest is left, or a share falls below 8 lattice units (or above 2^36), where sums of
        rounded
            shares are no longer as good as the ideal Gaussian. A finer lattice (larger steps) helps.
    """
    honest = min_survivors - max_colluders
    if honest < 1 or max_colluders < 0:
        raise ConfigError(f"min_survivors {min_survivors} must exceed max_colluders {max_colluders} >= 0")
    target = np.asarray(sigma, dtype=np.float64)
    share: FloatArray = np.where(target == 0.0, 0.0, np.nextafter(target / math.sqrt(honest), math.inf))
    noised = share[target != 0.0]
    if not noised.size or not ((noised >= SHARE_SIGMA_MIN) & (noised <= SIGMA_MAX)).all():
        low = float(noised.min()) if noised.size else 0.0
        raise ConfigError(f"a noise share must lie in [{SHARE_SIGMA_MIN:.0f}, 2^36] lattice units, smallest is {low!r}")
    return share
