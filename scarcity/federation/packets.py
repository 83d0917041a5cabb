"""What is said in the federation: the closed set of packets, as frozen values.

A packet is a header (who says it, in which federation, epoch, scope and round), a body of one class from `KINDS`, and a
signature. The signature covers (federation, epoch, scope, round, kind, sender, digest of the body), so a body cannot be
moved to another round or scope. Bodies of `SIGNED` kinds travel further than one hop or prove something and must carry
one; the rest rests on the link, which authenticates its peer.

Not here: how packets become bytes (`codec`), who may say what when (the role cores), what is checked (`validator`).
"""

from __future__ import annotations

import enum
import hashlib
import math
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.errors import ConfigError, InvalidUpdate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LAYER2: Final = "layer2"
MAX_REASON: Final = 500  # characters of a reason: it is for people and travels in clear
_same_array = attrs.cmp_using(eq=np.array_equal)


class TrustMode(enum.Enum):
    """Who is trusted with a client's clean vector."""

    LOCAL = "local"
    DISTRIBUTED = "distributed"
    CENTRAL = "central"
    NONE = "none"


class Unit(enum.Enum):
    """Whose presence the budget hides: a whole client, or one record of it."""

    CLIENT = "client"
    RECORD = "record"


def basket_scope(domain_id: str) -> str:
    """Return the scope of what is said inside one basket."""
    return f"basket/{domain_id}"


def digest_of(data: bytes) -> bytes:
    """Return the 32-byte digest by which packets refer to bytes."""
    return hashlib.blake2b(data, digest_size=32, person=b"scarcity.digest").digest()


# The values that travel inside cores, before privacy.


@attrs.frozen
class Update:
    """What a client contributes, before privacy. It never leaves the client.

    Attributes:
        client_id: the contributor.
        round_id: the round it is meant for, None for the open one.
        schema_hash: hash of the schema it was made under; empty for a plain array.
        vector: shape (d,). Unit record: int64 SUM over rows; unit client: float64 as given; mode none: float64.
        weight: number of rows (unit record, mode none) or 1 (unit client). Public, sent in clear.
        rows: interval [a, b) of the client's rows that the vector depends on; None for unit client.
    """

    client_id: str
    round_id: int | None
    schema_hash: bytes
    vector: FloatArray | IntArray = attrs.field(eq=_same_array)
    weight: int = 1
    rows: tuple[int, int] | None = None

    def __attrs_post_init__(self) -> None:
        if getattr(self.vector, "ndim", None) != 1 or self.vector.size == 0:
            raise InvalidUpdate(f"update of {self.client_id}: vector must be a non-empty array of one dimension")
        if self.vector.dtype not in (np.float64, np.int64):
            raise InvalidUpdate(f"update of {self.client_id}: vector must be float64 or int64, not {self.vector.dtype}")
        if not np.isfinite(self.vector).all():
            at = int(np.flatnonzero(~np.isfinite(self.vector))[0])
            raise InvalidUpdate(f"update of {self.client_id}: vector[{at}] is {self.vector[at]}")
        if type(self.weight) is not int or self.weight < 1:
            raise InvalidUpdate(f"update of {self.client_id}: weight must be a positive int, not {self.weight!r}")


@attrs.frozen
class Aggregate:
    """What a basket makes of its members' contributions, in the units of the contributions.

    Attributes:
        total: shape (d,); the weighted SUM. int64 out of a secure sum, float64 out of a rule (its mean times weight).
        weight: sum of the members' weights.
        count: number of members in it.
        rule: name of the rule.
        noise_variance: variance of the noise in a unit-scale coordinate of `total`.
    """

    total: FloatArray | IntArray = attrs.field(eq=_same_array)
    weight: float
    count: int
    rule: str
    noise_variance: float

    @property
    def mean(self) -> FloatArray:
        """The weighted mean, shape (d,)."""
        return np.asarray(self.total, dtype=np.float64) / self.weight


# Bodies.


def _duration(_instance: Any, field: attrs.Attribute[float], value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be a positive number of seconds (inf: never), got {value!r}")


def _positive(_instance: Any, field: attrs.Attribute[float], value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{field.name} must be a positive number, got {value!r}")


def _share(_instance: Any, field: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{field.name} must be a share in [0, 1], got {value!r}")


def _at_least(low: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[int], value: int) -> None:
        if type(value) is not int or value < low:
            raise ConfigError(f"{field.name} must be an int of at least {low}, got {value!r}")

    return check


@attrs.frozen(kw_only=True)
class RoundSettings:
    """The rules of every round, agreed before the first one. A client refuses a round under other rules.

    Durations count from the moment at which a party learns of the round; they are never instants, so clocks need not
    agree. Infinite durations (the facade's) mean that only `close_stage` ends a wait.

    Attributes:
        mode: trust mode.
        unit: privacy unit.
        rule: Layer 1's rule where contributions are seen one by one.
        byzantine_share: f = floor(share * members). More costs accuracy (f rows are cut off at both ends), less breaks
            under more liars than f.
        quorum: share of a basket's expected members without which it is Absent. It also sizes the shares of noise:
            lower tolerates more dropouts and adds more noise when all are there (1 / quorum in variance).
        min_clients: a basket with fewer members is not expected.
        min_baskets: fewer baskets make no model.
        max_colluders: members of a sum whose shares of noise the others do not count on.
        clip_norm: L2 bound of a client's vector (unit client).
        gossip_fanout: peers K of one push or pull.
        gossip_s: period of push and of pull.
        ready_s: how long a basket waits to hear who takes part.
        close_s: after it, a quorum is enough.
        deadline_s: after it, a basket without quorum is Absent.
        stage_s: how long each stage of a secure sum may take.
        max_rows: most rows that one client may claim in a round; it bounds what a lie about one's weight can do.
        central_share: part of the budget (of mu squared) that buys noise on Layer 2's sum; all of it in mode central,
            none by default elsewhere: on top of noised inputs it costs accuracy and buys nothing against the baskets.
        layer2_clip: bound on how far a basket's mean may lie from the last public model, in units of the vectors (unit
            client). Needed for Layer 2 noise after a robust rule: one client can move such a mean anywhere within it.
        max_staleness: rounds after which a late contribution is worthless.
        half_life_rounds: a late contribution's weight halves with every so many rounds.
    """

    mode: TrustMode = TrustMode.LOCAL
    unit: Unit = Unit.CLIENT
    rule: str = "nnm+trmean"
    byzantine_share: float = attrs.field(default=0.2, validator=_share)
    quorum: float = attrs.field(default=0.7, validator=_share)
    min_clients: int = attrs.field(default=2, validator=_at_least(1))
    min_baskets: int = attrs.field(default=1, validator=_at_least(1))
    max_colluders: int = attrs.field(default=0, validator=_at_least(0))
    clip_norm: float = attrs.field(default=1.0)
    gossip_fanout: int = attrs.field(default=3, validator=_at_least(1))
    gossip_s: float = attrs.field(default=1.0, validator=_duration)
    ready_s: float = attrs.field(default=math.inf, validator=_duration)
    close_s: float = attrs.field(default=math.inf, validator=_duration)
    deadline_s: float = attrs.field(default=math.inf, validator=_duration)
    stage_s: float = attrs.field(default=math.inf, validator=_duration)
    max_rows: int = attrs.field(default=100_000, validator=_at_least(1))
    central_share: float = attrs.field(default=0.0, validator=_share)
    layer2_clip: float = attrs.field(default=math.inf, validator=_positive)
    max_staleness: int = attrs.field(default=2, validator=_at_least(0))
    half_life_rounds: float = attrs.field(default=1.0, validator=_duration)

    @property
    def patience_s(self) -> float:
        """How long the coordinator waits for a basket: its deadline, then up to five stages of its sum."""
        return self.ready_s + self.deadline_s + 6 * self.stage_s

    @property
    def layer2_share(self) -> float:
        """Part of mu squared that buys Layer 2's noise."""
        return 1.0 if self.mode is TrustMode.CENTRAL else self.central_share

    def differences(self, other: RoundSettings) -> str:
        """Return the names of the settings in which another one differs, for people."""
        return ", ".join(f.name for f in attrs.fields(RoundSettings) if getattr(self, f.name) != getattr(other, f.name))

    @clip_norm.validator
    def _check_clip_norm(self, _field: attrs.Attribute[float], value: float) -> None:
        if not (0 < value < math.inf):
            raise ConfigError(f"clip_norm must be a positive finite number, got {value!r}")


@attrs.frozen
class NoiseTerms:
    """The privacy event of one contribution, in lattice units; all zero in mode none.

    Attributes:
        steps: K, the number of lattice steps that clip_norm (or a row's bound) equals.
        sensitivity: L2 sensitivity of what is sent.
        sigma: noise on a unit-scale coordinate of what the observer sees (one release, or a basket's sum).
        least_scale: smallest factor on sigma among the noised coordinates.
    """

    steps: int = 0
    sensitivity: float = 0.0
    sigma: float = 0.0
    least_scale: float = 1.0


@attrs.frozen
class RoundConfig:
    """The coordinator opens a round."""

    settings: RoundSettings
    noise: NoiseTerms  # of one contribution
    schema_hash: bytes
    dimension: int
    roster_root: bytes
    model_hash: bytes  # of the last Model, so that nobody can be shown another history; empty before the first
    layer2_noise: NoiseTerms = NoiseTerms()  # of the sum over baskets; sigma 0 where there is none


@attrs.frozen
class RosterNotice:
    """The operator's signed roster, pushed from the coordinator down."""

    roster: bytes
    signature: bytes


@attrs.frozen
class ModelRequest:
    """Ask one's basket, or the coordinator, for the last Model and the open round's config."""


@attrs.frozen
class Ready:
    """Mode distributed: a client has reserved the round's events and will take part in its basket's sum."""

    weight: int


@attrs.frozen
class Declined:
    """A client will not contribute to this round and says why."""

    reason: str


@attrs.frozen
class Release:
    """Mode local: a client's vector with its own noise on it. Gossip may carry it to anyone."""

    schema_hash: bytes
    vector: IntArray = attrs.field(eq=_same_array)
    weight: int


@attrs.frozen
class TrustedUpdate:
    """Mode central: a client's clean vector on the lattice, for its own basket's eyes only. Gossip never carries it."""

    schema_hash: bytes
    vector: IntArray = attrs.field(eq=_same_array)
    weight: int


@attrs.frozen
class Unprotected:
    """Mode none: a clean vector, for tests and comparison. Only in-process transports carry it."""

    schema_hash: bytes
    vector: FloatArray = attrs.field(eq=_same_array)
    weight: int


@attrs.frozen
class Ack:
    """A basket has made a contribution durable; `digest` is that of the contribution's body."""

    digest: bytes


@attrs.frozen
class SecureSum:
    """A message of the secure sum of the header's scope, in that protocol's own canonical bytes."""

    payload: bytes


@attrs.frozen
class BasketReport:
    """A basket has its aggregate and is ready for Layer 2. All fields are public."""

    weight: float
    count: int
    noise_variance: float


@attrs.frozen
class Absent:
    """A basket does not take part in the round's Layer 2."""

    reason: str
    have: int
    need: int


@attrs.frozen
class Aborted:
    """The coordinator gives a round up."""

    reason: str


@attrs.frozen
class Model:
    """What Layer 2 makes: the weighted mean of the round's contributions.

    Attributes:
        round_id: its round.
        schema_hash: schema of the vector.
        vector: shape (d,), float64, weighted mean. Unit client: in the units of the submitted vectors. Unit record: per
            row, in lattice units (K^2 lattice units are C^2).
        weight: sum of the weights.
        count: clients in it.
        noise_std: standard deviation of the noise in a unit-scale coordinate of vector * weight.
        config_hash: digest of the round's RoundConfig.
    """

    round_id: int
    schema_hash: bytes
    vector: FloatArray = attrs.field(eq=_same_array)
    weight: float
    count: int
    noise_std: float
    config_hash: bytes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return the vector, so that a Model can be used where an array is expected."""
        return np.array(self.vector, dtype=dtype) if copy or dtype else self.vector

    @property
    def identity(self) -> tuple[int, bytes, bytes, float, int]:
        """What "the same model" means between drivers: no signature, key, root or instant in it."""
        return (self.round_id, self.schema_hash, self.vector.tobytes(), self.weight, self.count)


@attrs.frozen
class GossipPush:
    """Signed packets (encoded), pushed to a peer or sent in answer to a pull."""

    items: tuple[bytes, ...]


@attrs.frozen
class GossipPull:
    """A digest of what the sender holds: (kind, round, origins), sorted. The peer answers with what is missing."""

    known: tuple[tuple[str, int, tuple[str, ...]], ...]


Body = (
    RoundConfig
    | RosterNotice
    | ModelRequest
    | Ready
    | Declined
    | Release
    | TrustedUpdate
    | Unprotected
    | Ack
    | SecureSum
    | BasketReport
    | Absent
    | Aborted
    | Model
    | GossipPush
    | GossipPull
)

KINDS: Final[dict[str, type]] = {
    "config": RoundConfig,
    "roster": RosterNotice,
    "model-request": ModelRequest,
    "ready": Ready,
    "declined": Declined,
    "release": Release,
    "trusted-update": TrustedUpdate,
    "unprotected": Unprotected,
    "ack": Ack,
    "secure-sum": SecureSum,
    "basket-report": BasketReport,
    "absent": Absent,
    "aborted": Aborted,
    "model": Model,
    "gossip-push": GossipPush,
    "gossip-pull": GossipPull,
}

# What carries its author's signature. Secure sums sign their own messages, a roster carries the operator's signature,
# and what remains is said to the neighbour on an authenticated link.
SIGNED: Final = frozenset(
    {RoundConfig, Ready, Declined, Release, TrustedUpdate, Unprotected, BasketReport, Absent, Aborted, Model}
)
Contribution = Release | TrustedUpdate | Unprotected
CONTRIBUTIONS: Final = (Release, TrustedUpdate, Unprotected)


@attrs.frozen
class Header:
    """Who says it, and where it belongs."""

    federation: str
    epoch: int
    scope: str
    round_id: int
    sender: str


@attrs.frozen
class Packet:
    """A body with its header and, for `SIGNED` kinds, the sender's Ed25519 signature.

    Attributes:
        known: the body's digest, once somebody has asked `codec.digest_in` for it; arrays of a body never change.
    """

    header: Header
    body: Body
    signature: bytes = b""
    known: list[bytes] = attrs.field(factory=list, init=False, eq=False, repr=False)
