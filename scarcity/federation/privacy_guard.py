"""The only door to noise: what leaves a client in each trust mode, and what it costs.

Re-exports the public names of `scarcity.privacy`, the address by which the documents know them (`PrivacyAccountant`).
Everything that leaves a client is made here from an `Update` and a live `Reservation`: uncharged data cannot be sent,
and nothing is noised twice, because a reservation can be drawn once. Unit `client`: a vector is clipped to clip_norm
and lies on a lattice of `steps` per clip_norm. Unit `record`: the engine has quantised the rows already; its integers
pass as they are, and the noise is the last thing that is added to exactly the integers that are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import numpy as np

from scarcity.errors import ConfigError, InvalidUpdate, PrivacyBudgetExceeded, SchemaMismatchError
from scarcity.federation.effects import Entry
from scarcity.federation.packets import (
    LAYER2,
    FloatArray,
    IntArray,
    NoiseTerms,
    Release,
    RoundSettings,
    TrustedUpdate,
    TrustMode,
    Unit,
    Unprotected,
    Update,
)
from scarcity.privacy import (
    GaussianEvent,
    LedgerRecord,
    LedgerStore,
    MemoryLedgerStore,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyFilter,
    PrivacyParams,
    PrivacyUnit,
    RecordState,
    Reservation,
    add_noise,
    calibrate_gaussian,
    clip_to_lattice,
    decode_ledger,
    encode_record,
    epsilon_of,
    ledger_budget,
    mu_max,
    noise_share_sigma,
    rounded_gaussian,
)
from scarcity.privacy.mechanisms import SIGMA_MAX, SIGMA_MIN

__all__ = [
    "GaussianEvent",
    "LedgerRecord",
    "LedgerStore",
    "MemoryLedgerStore",
    "NeighboringRelation",
    "PrivacyAccountant",
    "PrivacyFilter",
    "PrivacyParams",
    "PrivacyUnit",
    "Reservation",
    "calibrate_gaussian",
    "epsilon_of",
    "mu_max",
]

LEDGER = "ledger"
# Layer 2 sums [weight, vector], and a secure sum takes 10^6 numbers.
MAX_DIMENSION = 999_999
# The steps that clip_norm is divided into, per root of the dimension: enough that truncation costs less than a
# thousandth of the norm.
_STEPS_PER_ROOT_DIMENSION = 1024
_ROUNDING = 1e-14


@attrs.frozen
class Layout:
    """What a vector that is sent consists of. Public: it follows from the schema alone.

    Attributes:
        schema_hash: names the schema; empty for plain arrays.
        dimension: d.
        steps: K, the lattice steps that the bound (of a vector, or of a row) equals; 0 where there is no lattice.
        sensitivity: L2 sensitivity under ZERO_OUT, in lattice units; 0 in mode none.
        noise_scales: shape (d,), factor on sigma for each coordinate; 0 marks a public count, which gets no noise.
    """

    schema_hash: bytes
    dimension: int
    steps: int
    sensitivity: float
    noise_scales: FloatArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))

    @property
    def least_scale(self) -> float:
        """The smallest factor on sigma among the noised coordinates; 1 where there are none."""
        return float(self.noise_scales[self.noise_scales > 0].min(initial=1.0))


def array_layout(dimension: int, schema_hash: bytes = b"") -> Layout:
    """Return the layout of an array of unit client: one vector, clipped as a whole to K lattice steps."""
    steps = 1 << int(np.ceil(np.log2(_STEPS_PER_ROOT_DIMENSION * np.sqrt(dimension))))
    return Layout(schema_hash, dimension, steps, float(steps), np.ones(dimension))


def clean_layout(dimension: int, schema_hash: bytes = b"") -> Layout:
    """Return the layout of a vector of mode none, which is neither clipped nor noised."""
    return Layout(schema_hash, dimension, 0, 0.0, np.zeros(dimension))


def unprotected_layout(layout: Layout) -> Layout:
    """Return a layout as mode none has it: no noise. Sums of lattice rows stay integers, in lattice units."""
    steps = 0 if layout.noise_scales.all() else layout.steps
    return Layout(layout.schema_hash, layout.dimension, steps, 0.0, np.zeros(layout.dimension))


def default_layout(settings: RoundSettings, dimension: int, schema_hash: bytes = b"") -> Layout:
    """Return the layout of an array of which nothing but its size is known.

    Raises:
        ConfigError: unit record, where only a schema with public scales says what a record can change.
    """
    if settings.mode is TrustMode.NONE:
        return clean_layout(dimension, schema_hash)
    if settings.unit is Unit.RECORD:
        raise ConfigError(
            "unit record needs to know what one record can change: register the client with its FederationClientAgent, "
            "whose engine has a schema with public scales; a plain array has unit client"
        )
    return array_layout(dimension, schema_hash)


def layout_fault(settings: RoundSettings, layout: Layout) -> str:
    """Say why vectors of a layout cannot be protected under these settings, empty if they can.

    Unit client protects one vector that is clipped and noised as a whole: public counts in it would leave in clear,
    scaled by a norm that is not public. Unit record needs to know what one record can change.
    """
    if not 1 <= layout.dimension <= MAX_DIMENSION:
        return f"a vector must have 1 to {MAX_DIMENSION} numbers, not {layout.dimension}"
    if settings.mode is TrustMode.NONE:
        return ""
    if settings.unit is Unit.RECORD:
        bad = bool(layout.noise_scales.all())
        return "unit record needs vectors of the record form: an engine whose schema has public scales" if bad else ""
    if not (layout.noise_scales == 1.0).all() or layout.sensitivity != layout.steps:
        return "unit client needs vectors without public counts: an agent of form 'mean', or unit record for this one"
    return ""


def noise_fault(settings: RoundSettings, noise: NoiseTerms, layer2_noise: NoiseTerms) -> str:
    """Say why a round's noise is not what the settings demand or cannot be drawn, empty if all is well."""
    if settings.mode is TrustMode.NONE:
        return ""
    share = settings.layer2_share
    for terms, wanted in ((noise, share < 1), (layer2_noise, share > 0)):
        if not wanted and terms.sigma != 0:
            return f"these settings have no such noise, got {terms}"
        positive = terms.steps >= 1 and 0 < terms.sensitivity < np.inf and 0 < terms.least_scale <= 1
        drawable = positive and terms.sigma * terms.least_scale >= SIGMA_MIN and terms.sigma <= SIGMA_MAX
        if wanted and not drawable:
            return f"noise must lie in [{SIGMA_MIN:g}, 2^36] lattice steps and its terms be positive, got {terms}"
    return ""


def require_budget(ledger: PrivacyFilter, noises: Mapping[str, NoiseTerms], rows: tuple[int, int] | None) -> None:
    """Refuse a round that the ledger cannot pay, and charge nothing.

    Raises:
        PrivacyBudgetExceeded: the round's events do not fit together.
    """
    events = {layer: event_of(noise) for layer, noise in noises.items() if noise.sigma > 0}
    if not ledger.admits(events.values(), rows):
        raise PrivacyBudgetExceeded(f"{events}, rows={rows}", str(ledger.remaining(rows)), ledger.ledger_id)


def relation_of(settings: RoundSettings) -> NeighboringRelation:
    """Return the neighbouring relation that a trust mode promises.

    A local release hides which of any two vectors a client has; a sum, whose participants are public, hides the vector
    against zero. Records are erased in every mode.
    """
    replaces = settings.mode is TrustMode.LOCAL and settings.unit is Unit.CLIENT
    return NeighboringRelation.REPLACE_ONE if replaces else NeighboringRelation.ZERO_OUT


def open_filter(settings: RoundSettings, budget: PrivacyParams, ledger_id: str) -> PrivacyFilter | None:
    """Return a client's new, empty filter; None in mode none, which promises nothing."""
    if settings.mode is TrustMode.NONE:
        return None
    unit, relation = PrivacyUnit(settings.unit.value), relation_of(settings)
    return PrivacyFilter(ledger_budget(budget), unit=unit, relation=relation, ledger_id=ledger_id)


def open_layer2_filter(settings: RoundSettings, budget: PrivacyParams) -> PrivacyFilter:
    """Return the coordinator's copy of Layer 2's ledger: a record for audit, never the authority.

    Unit record: the coordinator does not see intervals of rows; its rounds stand for them, since each round's rows are
    new ones. The clients' own ledgers see to that.
    """
    unit, relation = PrivacyUnit(settings.unit.value), relation_of(settings)
    return PrivacyFilter(ledger_budget(budget), unit=unit, relation=relation, ledger_id=LAYER2)


def contribution_terms(
    settings: RoundSettings, layout: Layout, budget: PrivacyParams, planned_rounds: int
) -> NoiseTerms:
    """Return the noise that clients add to their contributions, so that the budget lasts for the planned releases.

    Sigma is 0 in modes none (nothing is promised) and central (Layer 2 adds the noise).
    """
    share = 1.0 - settings.layer2_share
    if settings.mode is TrustMode.NONE:
        return NoiseTerms(steps=layout.steps)
    sigma = _sigma(settings, layout.sensitivity, share, budget, planned_rounds) if share > 0 else 0.0
    return NoiseTerms(layout.steps, layout.sensitivity, sigma, layout.least_scale)


def layer2_terms(
    settings: RoundSettings, layout: Layout, budget: PrivacyParams, planned_rounds: int, largest_basket: int
) -> NoiseTerms:
    """Return the noise that the coordinator adds to Layer 2's sum; sigma 0 where the mode has none."""
    share = settings.layer2_share
    if settings.mode is TrustMode.NONE or not share > 0:
        return NoiseTerms()
    sensitivity = layer2_sensitivity(settings, layout, largest_basket)
    sigma = _sigma(settings, sensitivity, share, budget, planned_rounds)
    return NoiseTerms(layout.steps, sensitivity, sigma, layout.least_scale)


def layer2_sensitivity(settings: RoundSettings, layout: Layout, largest_basket: int) -> float:
    """Return what one client can change in Layer 2's sum, L2, in lattice units.

    After the plain average it is what the client contributed. A robust rule may switch its pick, so one client moves
    its basket's mean anywhere within the ball of layer2_clip about the last public model: 2 layer2_clip, times the
    largest weight that a basket can have. Truncating totals to the lattice adds at most a step per coordinate and side.
    """
    rounding = 2.0 * float(np.sqrt(layout.dimension))
    if np.isinf(settings.layer2_clip):
        return layout.sensitivity + rounding
    radius = settings.layer2_clip / settings.clip_norm * layout.steps
    return 2.0 * radius * largest_basket + rounding


def _sigma(
    settings: RoundSettings, sensitivity: float, share: float, budget: PrivacyParams, planned_rounds: int
) -> float:
    """Return sigma for a share of the budget.

    Unit client: every round is a release of the same client, so the budget is shared by `planned_rounds`. Unit record:
    each record is in one release only, whatever the number of rounds.
    """
    releases = planned_rounds if settings.unit is Unit.CLIENT else 1
    factor = 2.0 if relation_of(settings) is NeighboringRelation.REPLACE_ONE else 1.0
    sigma = calibrate_gaussian(ledger_budget(budget), releases, factor * sensitivity)
    # Two shares of a budget must not exceed it by their rounding.
    return sigma if share == 1.0 else float(sigma / np.sqrt(share)) * (1 + _ROUNDING)


def event_of(noise: NoiseTerms) -> GaussianEvent:
    """Return the privacy event of one contribution under these terms."""
    return GaussianEvent(sigma=noise.sigma, sensitivity=noise.sensitivity)


def reserve_round(
    ledger: PrivacyFilter, noises: Mapping[str, NoiseTerms], release_id: str, rows: tuple[int, int] | None
) -> tuple[dict[str, Reservation], list[Entry]]:
    """Charge all events of a round, or none.

    Args:
        ledger: the client's.
        noises: layer -> its noise; a layer without noise costs nothing.
        release_id: names the contribution.
        rows: interval that it depends on.

    Returns:
        Layer -> its reservation, and the records to be made durable, in order.

    Raises:
        PrivacyBudgetExceeded: they do not fit together; nothing is charged.
    """
    require_budget(ledger, noises, rows)
    events = {layer: event_of(noise) for layer, noise in noises.items() if noise.sigma > 0}
    reserved = {layer: ledger.reserve(event, f"{release_id}/{layer}", layer, rows) for layer, event in events.items()}
    entries = [ledger_entry(record) for _, record in reserved.values()]
    return {layer: reservation for layer, (reservation, _) in reserved.items()}, entries


def ledger_entry(record: LedgerRecord) -> Entry:
    """Return a ledger's record as an entry of the role's journal."""
    return Entry(LEDGER, record.ledger_id, encode_record(record))


def replay_ledger(ledger: PrivacyFilter, payloads: list[bytes]) -> None:
    """Feed a new filter what the journal holds of its ledger."""
    ledger.replay(decode_ledger(payloads))


def ledger_rows_end(payloads: list[bytes]) -> int:
    """Return the end of the rows that a ledger has charged and not given back, 0 when there are none.

    Raises:
        LedgerCorrupt: the ledger is damaged.
    """
    last = {record.release_id: record for record in decode_ledger(payloads)}
    spent = (record.rows[1] for record in last.values() if record.rows and record.state is not RecordState.VOID)
    return max(spent, default=0)


def release(
    update: Update,
    settings: RoundSettings,
    layout: Layout,
    reservation: Reservation,
    entropy: Callable[[int], bytes],
) -> Release:
    """Clip, put on the lattice and noise an update: what a client of mode local sends, to whomever.

    Raises:
        InvalidUpdate: the vector does not fit the layout; the reservation stays live.
    """
    values = _lattice(update, settings, layout)
    return Release(layout.schema_hash, _noised(values, 1.0, layout, reservation, entropy), update.weight)


def masked_input(
    update: Update,
    settings: RoundSettings,
    layout: Layout,
    reservation: Reservation,
    entropy: Callable[[int], bytes],
    *,
    min_survivors: int,
) -> IntArray:
    """Return what a client of mode distributed puts under its masks: its integers with its share of the noise.

    Any `min_survivors` of these, of which `max_colluders` may be known to the receiver, carry the whole noise.

    Raises:
        InvalidUpdate: the vector does not fit the layout; the reservation stays live.
        ConfigError: the share would be too small to sum up to a Gaussian; the reservation stays live.
    """
    values = _lattice(update, settings, layout)
    share = noise_share(reservation.event.sigma, layout, min_survivors, settings.max_colluders)
    return _noised(values, share / reservation.event.sigma, layout, reservation, entropy)


def noise_share(sigma: float, layout: Layout, min_survivors: int, max_colluders: int) -> float:
    """Return the standard deviation of one client's share on a unit-scale coordinate."""
    noise_share_sigma(sigma * layout.least_scale, min_survivors, max_colluders)  # refuses what is too small
    return float(noise_share_sigma(sigma, min_survivors, max_colluders))


def trusted_update(update: Update, settings: RoundSettings, layout: Layout) -> TrustedUpdate:
    """Clip an update and put it on the lattice: what a client of mode central shows its own basket. It has no noise.

    Raises:
        InvalidUpdate: the vector does not fit the layout.
    """
    return TrustedUpdate(layout.schema_hash, _lattice(update, settings, layout), update.weight)


def noised_sum(
    total: IntArray, noise: NoiseTerms, layout: Layout, reservation: Reservation, entropy: Callable[[int], bytes]
) -> IntArray:
    """Return Layer 2's sum with the coordinator's noise on it, shape (d,), int64 lattice units."""
    assert reservation.event == event_of(noise), "what was charged is what is drawn"
    return _noised(total, 1.0, layout, reservation, entropy)


def unprotected(update: Update, layout: Layout) -> Unprotected:
    """Return a clean vector as mode none sends it."""
    return Unprotected(layout.schema_hash, np.asarray(update.vector, dtype=np.float64), update.weight)


def check_update(update: Update, settings: RoundSettings, layout: Layout) -> None:
    """Refuse an update that could not be released, before anything is charged for it.

    Raises:
        SchemaMismatchError: the round was opened for another schema or dimension.
        InvalidUpdate: a weight, dtype or value that the round does not let a contribution have.
    """
    if update.vector.size != layout.dimension or update.schema_hash != layout.schema_hash:
        raise SchemaMismatchError(
            f"update of {update.client_id}: {update.vector.size} numbers under schema "
            f"{update.schema_hash.hex()[:12] or '(none)'}; the round has {layout.dimension} under "
            f"{layout.schema_hash.hex()[:12] or '(none)'}"
        )

    if settings.mode is not TrustMode.NONE:
        _lattice(update, settings, layout)
    elif update.weight > settings.max_rows:
        raise InvalidUpdate(f"update of {update.client_id}: weight {update.weight}, max_rows is {settings.max_rows}")


def _lattice(update: Update, settings: RoundSettings, layout: Layout) -> IntArray:
    if settings.unit is Unit.CLIENT:
        if update.weight != 1:
            raise InvalidUpdate(f"update of {update.client_id}: unit client has weight 1, got {update.weight}")
        return clip_to_lattice(np.asarray(update.vector, dtype=np.float64), settings.clip_norm, layout.steps)
    if update.vector.dtype != np.int64:
        raise InvalidUpdate(f"update of {update.client_id}: unit record sends int64 sums, got {update.vector.dtype}")
    if update.weight > settings.max_rows:
        raise InvalidUpdate(f"update of {update.client_id}: weight {update.weight}, max_rows is {settings.max_rows}")
    # A product of two coordinates of a row is at most K^2: what is larger is no sum over that many rows.
    bound = update.weight * layout.steps**2
    if int(update.vector.max()) > bound or int(update.vector.min()) < -bound:
        raise InvalidUpdate(f"update of {update.client_id}: a value is beyond weight * K^2 = {bound}")
    return update.vector.astype(np.int64)


def _noised(
    values: IntArray, scale: float, layout: Layout, reservation: Reservation, entropy: Callable[[int], bytes]
) -> IntArray:
    sigma = layout.noise_scales * (reservation.event.sigma * scale)
    noise = rounded_gaussian(sigma, layout.dimension, reservation, entropy, public=layout.noise_scales == 0)
    return add_noise(values, noise)
