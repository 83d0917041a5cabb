"""The signed config of one secure sum, the policy that a participant has pinned, and every reason to refuse.

The coordinator proposes, the participant compares with what it has pinned and refuses anything weaker. Without that,
a cohort of the colluders and one victim passes every other check, and nothing stops a config without noise.
`ctx`, the digest of the config, stands in every key, box and MAC: members that were given different configs cannot
complete a sum together.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.codec import Codec
from scarcity.federation.secure_aggregation.masks import derive
from scarcity.federation.secure_aggregation.reasons import Reason, Refused

SUITE: Final = 1
COMPLETE: Final = "complete"
# n^2 boxes of 84 bytes pass through the coordinator: 22 MB here. Larger sums want a sparse graph.
MAX_PARTICIPANTS: Final = 512
# A message of the codec holds 16 MiB, twice 10^6 words of 64 bits.
MAX_DIMENSION: Final = 1_000_000
# No figure of a config may be larger: a peer's 1e308 must not overflow our arithmetic.
MAX_STEPS: Final = 2.0**62
# A Gaussian leaves ten sigma with probability 1.5e-23.
NOISE_TAIL_SIGMAS: Final = 10.0
# Below it, sums of rounded Gaussians may exceed the ideal Gaussian's privacy loss (docs/secure-aggregation.md).
MIN_SHARE_SIGMA: Final = 8.0


class Mechanism(enum.Enum):
    """How the participants noise what they send."""

    NONE = "none"
    GAUSSIAN = "gaussian"


@attrs.frozen
class DpTerms:
    """The noise inside the sum, in lattice units.

    Attributes:
        mechanism: gaussian, or none.
        mu: Gaussian-DP parameter that one participant is charged; 0 for none.
        sigma_low: standard deviation in the SUM on the coordinate that has the least noise.
        sigma_high: the same on the coordinate that has the most.
    """

    mechanism: Mechanism = Mechanism.NONE
    mu: float = 0.0
    sigma_low: float = 0.0
    sigma_high: float = 0.0

    def __attrs_post_init__(self) -> None:
        values = (self.mu, self.sigma_low, self.sigma_high)
        if self.mechanism is Mechanism.NONE:
            if any(value != 0 for value in values):
                raise ConfigError("dp none has no mu and no sigma")
        elif not all(0 < value <= MAX_STEPS for value in values) or self.sigma_low > self.sigma_high:
            raise ConfigError(f"dp gaussian needs 0 < mu and 0 < sigma_low <= sigma_high <= 2^62; got {values}")


def threshold_for(n: int) -> int:
    """Return t = floor(2n/3) + 1: with fewer than n/3 colluders no two honest quorums are disjoint."""
    return 2 * n // 3 + 1


def _check(low: int, high: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[int], value: int) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{field.name} must be an int from {low} to {high}, got {value!r}")

    return check


def _hash(_instance: Any, field: attrs.Attribute[bytes], value: bytes) -> None:
    if len(value) != 32:
        raise ConfigError(f"{field.name} must have 32 bytes, got {len(value)}")


def _positive(_instance: Any, field: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{field.name} must be positive and finite, got {value!r}")


@attrs.frozen(kw_only=True, slots=False)
class RoundSumConfig:
    """One secure sum: (scope, epoch, round, attempt), who takes part and under which terms.

    Unit client: a coordinate is at most w_max * ceil(scale * clip). Unit record: clip = scale = K, the steps of a row's
    bound, and w_max the largest number of rows.

    Attributes:
        participants: ids, sorted and unique; a member is its position in here.
        model_hash: hash of what the round starts from; members with another one cannot take part.
        threshold: t, the number of shares that open a secret.
        min_survivors: inputs without which nothing is opened; it also sizes the shares of noise.
        bits: 32 or 64, the ring's words.
        stage_s: how long the coordinator means to wait in each stage; the machines have no clock.
        coordinator_key: Ed25519 public key of the sum's coordinator.
    """

    federation: str
    scope: str
    epoch: int = attrs.field(validator=_check(0, 2**53))
    round_id: int = attrs.field(validator=_check(0, 2**53))
    attempt: int = attrs.field(default=0, validator=_check(0, 2**32 - 2))
    roster_root: bytes = attrs.field(validator=_hash)
    participants: tuple[str, ...]
    model_hash: bytes = attrs.field(validator=_hash)
    threshold: int = attrs.field(validator=_check(1, MAX_PARTICIPANTS))
    min_survivors: int = attrs.field(validator=_check(1, MAX_PARTICIPANTS))
    dimension: int = attrs.field(validator=_check(1, MAX_DIMENSION))
    bits: int = 64
    clip: float = attrs.field(validator=_positive)
    scale: float = attrs.field(validator=_positive)
    w_max: int = attrs.field(default=1, validator=_check(1, 2**53))
    dp: DpTerms = attrs.field(factory=DpTerms)
    stage_s: float = math.inf
    coordinator_key: bytes = attrs.field(validator=_hash)
    graph: str = COMPLETE
    suite: int = SUITE

    def __attrs_post_init__(self) -> None:
        if not self.participants or any(a >= b for a, b in zip(self.participants, self.participants[1:], strict=False)):
            raise ConfigError("participants must be sorted, unique ids, at least one")
        if self.bits not in (32, 64):
            raise ConfigError(f"bits must be 32 or 64, got {self.bits!r}")
        if not self.scale * self.clip <= MAX_STEPS:
            raise ConfigError(f"scale * clip must be at most 2^62 lattice steps, got {self.scale * self.clip!r}")
        if not self.stage_s > 0:
            raise ConfigError(f"stage_s must be positive, got {self.stage_s!r}")

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that the coordinator signs."""
        return _CONFIGS.encode(self)

    @cached_property
    def ctx(self) -> bytes:
        """32-byte digest that names this sum."""
        return derive(self.canonical, person=b"ssa1.ctx")

    @property
    def n(self) -> int:
        """Number of participants."""
        return len(self.participants)

    @property
    def input_bound(self) -> int:
        """Largest absolute value of a coordinate before noise."""
        return self.w_max * math.ceil(self.scale * self.clip)


_CONFIGS: Final[Codec[RoundSumConfig]] = Codec({"sum": RoundSumConfig}, version=1)


@attrs.frozen(kw_only=True)
class SecureAggPolicy:
    """What a participant has pinned for one scope and round. It refuses every config that is weaker.

    Attributes:
        coordinator: roster id of the only party that may open sums of this scope.
        members: ids that may take part (the role and domain of the scope).
        model_hash: hash of the RoundConfig that this party holds.
        dimension: length of what it sends, weight included.
        clip: C, scale: S, w_max: as in the config, where they must be equal: they fix sensitivity and sum.
        dp: the weakest noise it accepts. The noise itself is drawn by the caller, with `share_sigma`.
        n_min: smallest sum it takes part in; at least 3 * max_colluders + 1.
        max_colluders: c_max, participants whose noise it does not count on, in the whole roster.
        min_survivors: smallest number of inputs that it lets the coordinator open.
        inputs_released: what it sends is released already (noised aggregates), so it may be sent again.
        graph: the only graph it accepts.
    """

    coordinator: str
    members: frozenset[str]
    model_hash: bytes = attrs.field(validator=_hash)
    dimension: int = attrs.field(validator=_check(1, MAX_DIMENSION))
    clip: float = attrs.field(validator=_positive)
    scale: float = attrs.field(validator=_positive)
    w_max: int = attrs.field(default=1, validator=_check(1, 2**53))
    dp: DpTerms = attrs.field(factory=DpTerms)
    n_min: int = attrs.field(default=3, validator=_check(1, MAX_PARTICIPANTS))
    max_colluders: int = attrs.field(default=0, validator=_check(0, MAX_PARTICIPANTS))
    min_survivors: int = attrs.field(default=1, validator=_check(1, MAX_PARTICIPANTS))
    inputs_released: bool = False
    graph: str = COMPLETE

    def __attrs_post_init__(self) -> None:
        if self.graph != COMPLETE:
            raise ConfigError(f"graph {self.graph!r}: only {COMPLETE!r} is spoken")
        if self.n_min < 3 * self.max_colluders + 1:
            raise ConfigError(f"n_min must be at least 3 * max_colluders + 1 = {3 * self.max_colluders + 1}")
        if self.dp.mechanism is Mechanism.NONE and not self.inputs_released and self.n_min < 3:
            raise ConfigError(f"inputs without noise need n_min of at least 3, got {self.n_min}")


def share_sigma(sigma: float, min_survivors: int, max_colluders: int) -> float:
    """Return the standard deviation that each participant adds, in the units of `sigma`.

    Any min_survivors of them, up to max_colluders of whom add nothing, carry at least `sigma` together.
    """
    return sigma / math.sqrt(max(1, min_survivors - max_colluders))


def noise_tail(config: RoundSumConfig, max_colluders: int) -> int:
    """Return a bound of one participant's noise in a coordinate, exceeded with probability 1.5e-23."""
    return math.ceil(NOISE_TAIL_SIGMAS * share_sigma(config.dp.sigma_high, config.min_survivors, max_colluders))


def weaknesses(config: RoundSumConfig, *, max_colluders: int = 0) -> Iterator[Refused]:
    """Yield a refusal for all that no party accepts, whatever its policy."""
    n, t, m = config.n, config.threshold, config.min_survivors
    if config.suite != SUITE:
        yield Refused(Reason.UNSUPPORTED, detail=f"suite {config.suite}; spoken is {SUITE}")
    if config.graph != COMPLETE:
        yield Refused(
            Reason.UNSUPPORTED,
            detail=f"graph {config.graph!r}; only {COMPLETE!r} is spoken, where fewer than n/3 may collude",
        )
    if n > MAX_PARTICIPANTS:
        yield Refused(Reason.UNSUPPORTED, detail=f"{n} participants; a complete graph takes at most {MAX_PARTICIPANTS}")
    if not threshold_for(n) <= t <= n:
        yield Refused(Reason.WEAK_CONFIG, detail=f"threshold {t}; {n} participants need {threshold_for(n)} to {n}")
    if not t <= m <= n:
        yield Refused(Reason.WEAK_CONFIG, detail=f"min_survivors {m}; must be from the threshold {t} to {n}")
    tail = noise_tail(config, max_colluders)
    if 2 * n * (config.input_bound + tail) >= 2**config.bits:
        yield Refused(Reason.OVERFLOW, detail=f"2 * {n} * ({config.input_bound} + {tail}) is not below 2^{config.bits}")
    if config.dp.mechanism is Mechanism.GAUSSIAN:
        share = share_sigma(config.dp.sigma_low, m, max_colluders)
        if m <= max_colluders:
            yield Refused(
                Reason.WEAK_CONFIG, detail=f"min_survivors {m} may all be colluders (max_colluders {max_colluders})"
            )
        if share < MIN_SHARE_SIGMA:
            yield Refused(
                Reason.WEAK_CONFIG,
                detail=f"a share of noise of {share:.3g} lattice steps; at least {MIN_SHARE_SIGMA} are needed",
            )


def policy_breaches(config: RoundSumConfig, policy: SecureAggPolicy) -> Iterator[Refused]:
    """Yield a refusal for all in which a config is weaker than the policy, or other."""
    yield from weaknesses(config, max_colluders=policy.max_colluders)
    if strangers := [name for name in config.participants if name not in policy.members]:
        yield Refused(Reason.BAD_MEMBERS, detail=f"{strangers[0]!r} may not take part in scope {config.scope!r}")
    if config.n < policy.n_min:
        yield Refused(Reason.WEAK_CONFIG, detail=f"{config.n} participants; pinned n_min is {policy.n_min}")
    if config.min_survivors < policy.min_survivors:
        yield Refused(
            Reason.WEAK_CONFIG, detail=f"min_survivors {config.min_survivors}; pinned is {policy.min_survivors}"
        )
    for name in ("model_hash", "dimension", "clip", "scale", "w_max", "graph"):
        if getattr(config, name) != getattr(policy, name):
            yield Refused(Reason.WEAK_CONFIG, detail=f"{name} is not the pinned one")
    mine, theirs = policy.dp, config.dp
    if theirs.mechanism is not mine.mechanism:
        yield Refused(Reason.WEAK_CONFIG, detail=f"dp {theirs.mechanism.value}; pinned is {mine.mechanism.value}")
    elif theirs.mu > mine.mu or theirs.sigma_low < mine.sigma_low:
        yield Refused(Reason.WEAK_CONFIG, detail=f"dp {theirs} is weaker than the pinned {mine}")
