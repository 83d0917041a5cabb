"""What a budget buys, before any of it is spent: the noise of a round that has not been opened.

No formula of its own: settings, noise, shares, aggregates and the model are made by the functions that a round calls,
of contributions that are zero, so that all that is left in the model is noise. Everybody is assumed to be there; where
shares of noise are sized for a quorum, a full basket therefore carries more noise than the budget asks for. Where
contributions are seen one by one the plan is that of the plain mean: the default robust rule was 3 to 5 % worse.

Pure: nothing is drawn, charged or sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import numpy as np

from scarcity.errors import ConfigError
from scarcity.federation.aggregator import Average
from scarcity.federation.assembly import round_settings, round_terms
from scarcity.federation.layers import Contributed, aggregate_contributions, aggregate_of_sum, model_of_sum
from scarcity.federation.packets import Aggregate, BasketReport, RoundConfig, RoundSettings, TrustMode, Unit
from scarcity.federation.privacy_guard import (
    MAX_DIMENSION,
    Layout,
    PrivacyParams,
    default_layout,
    event_of,
    noise_share,
    open_filter,
    relation_of,
)
from scarcity.federation.secure_aggregation.config import MAX_PARTICIPANTS
from scarcity.federation.sums import min_survivors, noise_share_std

_MAX_CLIENTS: Final = 1_000_000
_MAX_EPSILON: Final = 1e6  # as a swarm: beyond it there is no privacy to plan
_NOTHING: Final = np.zeros(1, dtype=np.int64)


class Found(Protocol):
    """What a fit of the model could find (`scarcity.engine.power.Power`)."""

    @property
    def se(self) -> float:
        """The largest standard error of an effect, in deviations per deviation."""

    @property
    def smallest_effect(self) -> float:
        """The smallest effect that is more likely found than not."""


def _int_in(low: int, high: int) -> Any:
    def check(_instance: Any, field: attrs.Attribute[int], value: int) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{field.name} must be a whole number from {low} to {high}, got {value!r}")

    return check


def _clients(_instance: Any, _field: attrs.Attribute[int], value: int) -> None:
    if value == 1:
        raise ConfigError(
            "clients is 1: a federation of one has nobody to learn from or hide among; plan for two or more"
        )
    _int_in(2, _MAX_CLIENTS)(_instance, _field, value)


def _epsilon(_instance: Any, _field: attrs.Attribute[float], value: float) -> None:
    if not 0 < value <= _MAX_EPSILON:
        raise ConfigError(
            f"epsilon must lie in (0, {_MAX_EPSILON:g}], got {value!r}: a budget of zero releases nothing"
        )


def _delta(_instance: Any, _field: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"delta must lie strictly between 0 and 1, got {value!r}; 1e-6 is usual")


@attrs.frozen(kw_only=True)
class Question:
    """What is asked.

    Attributes:
        clients: N, spread evenly over the baskets.
        baskets: domains.
        dimension: d, numbers in a contribution.
        weight: what one client's contribution weighs: its usable rows (unit record), else 1.
        epsilon: budget of each client for life.
        delta: the budget's delta.
        rounds: releases that the budget has to last for (unit client).
        unit: privacy unit.
        quorum: share of a basket without which there is no sum; it sizes the shares of noise.
        max_colluders: members of a sum whose noise the others do not count on (mode distributed).
        clip_norm: L2 bound of a client's vector (unit client).

    Raises:
        ConfigError: a field is out of range; the message says how to go on.
    """

    clients: int = attrs.field(validator=_clients)
    baskets: int = attrs.field(default=1, validator=_int_in(1, _MAX_CLIENTS))
    dimension: int = attrs.field(validator=_int_in(1, MAX_DIMENSION))
    weight: int = attrs.field(default=1, validator=_int_in(1, 1 << 31))
    epsilon: float = attrs.field(default=1.0, validator=_epsilon)
    delta: float = attrs.field(default=1e-6, validator=_delta)
    rounds: int = attrs.field(default=1, validator=_int_in(1, 1_000_000))
    unit: Unit = Unit.CLIENT
    quorum: float = RoundSettings().quorum
    max_colluders: int = attrs.field(default=0, validator=_int_in(0, MAX_PARTICIPANTS))
    clip_norm: float = 1.0

    def __attrs_post_init__(self) -> None:
        if self.baskets > self.clients:
            raise ConfigError(f"baskets must be at most clients, got {self.baskets} for {self.clients} clients")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Members of each basket."""
        small, larger = divmod(self.clients, self.baskets)
        return tuple(small + (i < larger) for i in range(self.baskets))

    @property
    def budget(self) -> PrivacyParams:
        """The budget as promised."""
        return PrivacyParams(epsilon=self.epsilon, delta=self.delta)

    def settings(self, mode: str) -> RoundSettings:
        """Return the settings of the round that is planned."""
        colluders = self.max_colluders if mode == TrustMode.DISTRIBUTED.value else 0
        given = {"unit": self.unit, "quorum": self.quorum, "clip_norm": self.clip_norm, "max_colluders": colluders}
        return round_settings({"mode": mode, "rule": "average", **given})


@attrs.frozen
class ModePlan:
    """What one trust mode makes of the budget. Sizes are relative to the bound of a contribution.

    The bound is clip_norm (unit client), or the largest square of a row's norm (unit record), per unit of weight.

    Attributes:
        mode: trust mode.
        noised_by: who adds the noise.
        relation: neighbouring relation that is promised.
        client_sigma: noise that one client adds to each number of its contribution.
        releases: how many such releases the budget admits of one client (unit client) or of one row (unit record).
        noise_sd: standard deviation of the noise in each number of the model, a mean.
        error: expected L2 norm of the noise in the model.
        noise_std: the same noise in a number of the SUM over all contributions, in the contributions' own units, as a
            `Model` states it.
        found: what a fit of the model could find; None for vectors of which nothing is known.
        nothing: why the budget buys nothing here; empty where it buys something.
    """

    mode: str
    noised_by: str
    relation: str
    client_sigma: float
    releases: int
    noise_sd: float
    error: float
    noise_std: float
    found: Found | None = None
    nothing: str = ""


@attrs.frozen
class NoPlan:
    """A trust mode that these clients cannot have, and why."""

    mode: str
    reason: str


def _seen_singly(config: RoundConfig, size: int, weight: int) -> Aggregate:
    contributions = {f"{i:07d}": Contributed(_NOTHING, weight) for i in range(size)}
    return aggregate_contributions(Average(), contributions, config.noise.sigma)


def _summed(config: RoundConfig, size: int, weight: int) -> Aggregate:
    """As `BasketCore` reports a sum that all its members are in."""
    share = noise_share_std(config, min_survivors(config.settings, size))
    return aggregate_of_sum(_NOTHING, {f"{i:07d}": weight for i in range(size)}, size * share**2)


def _whole(config: RoundConfig, _layout: Layout, _size: int) -> float:
    return config.noise.sigma


def _share(config: RoundConfig, layout: Layout, size: int) -> float:
    needed = min_survivors(config.settings, size)
    return noise_share(config.noise.sigma, layout, needed, config.settings.max_colluders)


@attrs.frozen
class _Way:
    """How a trust mode noises: who does it, what a basket of a size reports, and what one of its clients adds."""

    noised_by: str
    report: Callable[[RoundConfig, int, int], Aggregate]
    client_sigma: Callable[[RoundConfig, Layout, int], float]


# A trust mode is a row. Mode none has no noise to plan.
WAYS: Mapping[str, _Way] = {
    TrustMode.LOCAL.value: _Way("each client", _seen_singly, _whole),
    TrustMode.DISTRIBUTED.value: _Way("clients' shares", _summed, _share),
    TrustMode.CENTRAL.value: _Way("coordinator", _seen_singly, _whole),
}
MODES: Final = tuple(WAYS)


def plan_mode(
    question: Question, mode: str, layout: Layout | None = None, find: Callable[[float], Found] | None = None
) -> ModePlan:
    """Return what the budget buys in one trust mode.

    Args:
        question: clients and budget.
        mode: one of `MODES`.
        layout: of the vectors; None: plain arrays of question.dimension numbers, of unit client.
        find: noise in a number of the sum, in the vectors' own units -> what a fit could find.

    Raises:
        ConfigError: an unknown mode, or one that these clients cannot have.
    """
    if mode not in WAYS:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    way, settings = WAYS[mode], question.settings(mode)
    layout = layout or _array_layout(question, settings)
    _refuse_sizes(settings, question)
    config = _config(question, settings, layout)
    model = model_of_sum(_NOTHING, _reports(way, config, question), config=config, round_id=1)
    # The bound of a contribution in lattice steps and in units of the model: a row's products are bounded by the square
    # of its norm, and stay in lattice units.
    record = question.unit is Unit.RECORD
    steps = float(layout.steps) ** (2 if record else 1)
    noise_sd = model.noise_std / model.weight / (steps if record else question.clip_norm)
    plan = ModePlan(
        mode=mode,
        noised_by=way.noised_by,
        relation=relation_of(settings).value,
        client_sigma=way.client_sigma(config, layout, min(question.sizes)) / steps,
        releases=_releases(question, settings, config),
        noise_sd=noise_sd,
        error=noise_sd * float(np.linalg.norm(layout.noise_scales)),
        noise_std=model.noise_std,
        found=None if find is None else find(model.noise_std),
    )
    return attrs.evolve(plan, nothing=_why_nothing(plan, question.unit))


def plan_modes(
    question: Question, layout: Layout | None = None, find: Callable[[float], Found] | None = None
) -> list[ModePlan | NoPlan]:
    """Return the plans of all trust modes, side by side; a mode that these clients cannot have says why.

    Raises:
        ConfigError: no mode is possible.
    """
    plans: list[ModePlan | NoPlan] = []
    for mode in MODES:
        try:
            plans.append(plan_mode(question, mode, layout, find))
        except ConfigError as error:
            plans.append(NoPlan(mode, str(error)))
    if all(isinstance(plan, NoPlan) for plan in plans):
        raise ConfigError(next(plan.reason for plan in plans if isinstance(plan, NoPlan)))
    return plans


def cautions(question: Question) -> list[str]:
    """Return what is true of the question in every mode and that its asker may not want."""
    said = []
    things, word = (
        (question.weight, "rows of a client") if question.unit is Unit.RECORD else (question.clients, "clients")
    )
    if question.delta * things >= 1:
        said.append(
            f"delta {question.delta:g} times {things} {word} is {question.delta * things:g}: to show one of them whole "
            f"would be within the budget; take delta well below {1 / things:.0e}"
        )
    return said


def _array_layout(question: Question, settings: RoundSettings) -> Layout:
    if question.unit is Unit.RECORD:
        raise ConfigError("unit record needs to know what a record can change: give a schema with public scales")
    return default_layout(settings, question.dimension)


def _config(question: Question, settings: RoundSettings, layout: Layout) -> RoundConfig:
    """Return the config with which the coordinator would open the round, but for its roster."""
    terms = round_terms(settings, layout, question.budget, question.rounds, max(question.sizes))
    return RoundConfig(
        settings=settings,
        noise=terms.noise,
        schema_hash=layout.schema_hash,
        dimension=layout.dimension,
        roster_root=b"",
        model_hash=b"",
        layer2_noise=terms.layer2_noise,
    )


def _refuse_sizes(settings: RoundSettings, question: Question) -> None:
    """Raise ConfigError for baskets that would not be expected, or could not sum."""
    least, most = min(question.sizes), max(question.sizes)
    if least < settings.min_clients:
        raise ConfigError(
            f"a basket has {least} clients, mode {settings.mode.value} needs {settings.min_clients} in each: plan for "
            "more clients or fewer baskets"
        )
    if question.baskets < settings.min_baskets:
        raise ConfigError(
            f"mode {settings.mode.value} needs {settings.min_baskets} baskets or more, got {question.baskets}: plan "
            "for more baskets"
        )
    if settings.mode is TrustMode.DISTRIBUTED and most > MAX_PARTICIPANTS:
        raise ConfigError(
            f"a basket of {most} clients is too large for a secure sum: at most {MAX_PARTICIPANTS} in each"
        )
    if question.baskets > MAX_PARTICIPANTS:
        raise ConfigError(
            f"{question.baskets} baskets are too many for Layer 2's secure sum: at most {MAX_PARTICIPANTS}"
        )


def _reports(way: _Way, config: RoundConfig, question: Question) -> Sequence[BasketReport]:
    by_size = {size: way.report(config, size, question.weight) for size in sorted(set(question.sizes))}
    aggregates = [by_size[size] for size in question.sizes]
    return [BasketReport(a.weight, a.count, a.noise_variance) for a in aggregates]


def _releases(question: Question, settings: RoundSettings, config: RoundConfig) -> int:
    """Return how many rounds a new ledger admits: one more would be refused."""
    ledger = open_filter(settings, question.budget, "plan")
    assert ledger is not None, "a mode that is planned has noise"
    return min(ledger.max_releases(event_of(n)) for n in (config.noise, config.layer2_noise) if n.sigma > 0)


def _why_nothing(plan: ModePlan, unit: Unit) -> str:
    ways_out = "more clients, a larger epsilon"
    if unit is Unit.CLIENT:
        ways_out += ", fewer rounds or fewer numbers"
    if plan.mode == TrustMode.LOCAL.value:
        ways_out += ", or a mode with one noise for many clients"
    if plan.mode == TrustMode.DISTRIBUTED.value:
        ways_out += ", or fewer baskets and a higher quorum"
    if unit is Unit.CLIENT and not plan.error < 1:
        return (
            f"nothing: the model's error is {plan.error:.3g} clip norms, and no mean of clipped vectors is longer than "
            f"one. What helps: {ways_out}"
        )
    if plan.found is not None and not plan.found.smallest_effect < 1:
        size = plan.found.smallest_effect
        what = f"only links of {size:.2g} deviations per deviation" if math.isfinite(size) else "no link at all"
        return f"nothing: {what} would be found, and real ones are below 1. What helps: {ways_out}"
    return ""
