"""From settings and members to cores: the same for every driver.

`Assembly` holds what all cores of one process share (settings, budget, source of entropy, the operator's key where the
process has one) and makes rosters and cores. Combinations of settings that cannot hold together are refused here, when
settings are made, by one table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from nacl.signing import SigningKey

from scarcity.errors import ConfigError
from scarcity.federation.aggregator import DEFAULT_RULE, RULES, is_rule
from scarcity.federation.basket import BasketCore
from scarcity.federation.client import ClientCore, Learner
from scarcity.federation.coordinator import CoordinatorCore, RoundTerms
from scarcity.federation.effects import EntropySource
from scarcity.federation.identity import Identity
from scarcity.federation.packets import RoundSettings, TrustMode, Unit
from scarcity.federation.privacy_guard import (
    LEDGER,
    Layout,
    PrivacyParams,
    contribution_terms,
    layer2_terms,
    layout_fault,
    noise_fault,
    noise_share,
    open_filter,
    open_layer2_filter,
    replay_ledger,
)
from scarcity.federation.recovery import Journal, basket_past, client_past, coordinator_past
from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id, largest_basket, sign_roster
from scarcity.federation.sums import MARK, MIN_CLEAN_BASKETS, marks_of, min_members, min_survivors
from scarcity.federation.validator import ValidatorLimits

_AVERAGE = "average"


def round_settings(values: Mapping[str, Any]) -> RoundSettings:
    """Return settings from plain values, as a config file or keyword arguments give them.

    `mode` (also under the name `layer1`) and `unit` may be text. What is left out has a default that fits the mode: the
    robust rule where contributions are seen one by one, else the average.

    Raises:
        ConfigError: an unknown key (the known ones are listed), a value out of range, or a combination that cannot
            hold.
    """
    given = dict(values)
    if "layer1" in given:
        given["mode"] = given.pop("layer1")
    known = [field.name for field in attrs.fields(RoundSettings)]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}, and layer1 for mode")
    mode = given["mode"] = _choice(TrustMode, "mode", given.get("mode", TrustMode.LOCAL))
    given["unit"] = _choice(Unit, "unit", given.get("unit", Unit.CLIENT))
    given.setdefault("rule", DEFAULT_RULE if mode is TrustMode.LOCAL else _AVERAGE)
    try:
        settings = RoundSettings(**given)
    except TypeError as error:  # a value that cannot even be compared with its bounds
        raise ConfigError(f"settings {given}: {error}") from None
    if mode is TrustMode.DISTRIBUTED and "min_clients" not in given:
        settings = attrs.evolve(settings, min_clients=min_members(settings))
    if mode is TrustMode.CENTRAL and "min_baskets" not in given:
        settings = attrs.evolve(settings, min_baskets=MIN_CLEAN_BASKETS)
    refuse_combinations(settings)
    return settings


def _choice(kind: Any, name: str, value: Any) -> Any:
    try:
        return kind(getattr(value, "value", value))
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise ConfigError(f"{name} must be one of {known}, got {value!r}") from None


# (name, what cannot hold, why): each row is refused when settings are made.
CANNOT_HOLD: tuple[tuple[str, Callable[[RoundSettings], bool], str], ...] = (
    (
        "unknown rule",
        lambda s: not is_rule(s.rule),
        f"rule must be one of {', '.join(RULES)}",
    ),
    (
        "robust rule over masked inputs",
        lambda s: s.mode is TrustMode.DISTRIBUTED and s.rule != _AVERAGE,
        "in mode distributed nobody sees single contributions, so no rule can tell them apart: rule must be 'average'; "
        "use mode local for a robust rule",
    ),
    (
        "robust rule in mode none",
        lambda s: s.mode is TrustMode.NONE and s.rule != _AVERAGE,
        "mode none is the plain pooled fit, for comparison: rule must be 'average'",
    ),
    (
        "sum of too few",
        lambda s: s.mode is TrustMode.DISTRIBUTED and s.min_clients < min_members(s),
        "a basket's sum needs at least three members, and more than three times max_colluders: raise min_clients",
    ),
    (
        "sum of too few baskets",
        lambda s: s.mode is TrustMode.CENTRAL and s.min_baskets < MIN_CLEAN_BASKETS,
        "in mode central baskets bring clean aggregates: below three of them the sum shows each the other's; raise "
        "min_baskets",
    ),
    (
        "Layer 2 noise after a robust rule",
        lambda s: s.layer2_share > 0 and s.rule != _AVERAGE and math.isinf(s.layer2_clip),
        "a robust rule may switch its pick, so one client's share in the mean has no bound: set layer2_clip, or rule "
        "'average'",
    ),
    (
        "layer2_clip of records",
        lambda s: not math.isinf(s.layer2_clip) and s.unit is not Unit.CLIENT,
        "layer2_clip bounds means of vectors (unit client); the record unit's sums have their own bound",
    ),
    (
        "layer2_clip where sums are masked",
        lambda s: not math.isinf(s.layer2_clip) and s.mode in (TrustMode.DISTRIBUTED, TrustMode.NONE),
        "layer2_clip is for modes in which a basket applies a rule: local and central",
    ),
    (
        "no noise left for clients",
        lambda s: s.central_share == 1.0 and s.mode is not TrustMode.CENTRAL,
        "central_share 1 leaves contributions without noise: that is mode central, said aloud",
    ),
    (
        "noise without a promise",
        lambda s: s.central_share > 0 and s.mode is TrustMode.NONE,
        "mode none has no noise: central_share must be 0",
    ),
    (
        "no quorum",
        lambda s: not s.quorum > 0,
        "a quorum of zero would let an empty basket close",
    ),
    (
        "half of them lie",
        lambda s: not s.byzantine_share < 0.5,
        "byzantine_share must be below one half: no rule holds against a majority",
    ),
    (
        "colluders without noise",
        lambda s: s.mode is not TrustMode.DISTRIBUTED and s.max_colluders > 0,
        "only in mode distributed do members rely on each other's noise: max_colluders must be 0 elsewhere",
    ),
)


def refuse_combinations(settings: RoundSettings) -> None:
    """Raise ConfigError, with the reason, for settings that cannot hold together."""
    for name, holds, reason in CANNOT_HOLD:
        if holds(settings):
            raise ConfigError(f"{name}: {reason}")


def refuse_layout(settings: RoundSettings, layout: Layout) -> None:
    """Raise ConfigError for vectors that cannot be protected under these settings."""
    if fault := layout_fault(settings, layout):
        raise ConfigError(fault)


def round_terms(
    settings: RoundSettings, layout: Layout, budget: PrivacyParams, planned_rounds: int, largest: int
) -> RoundTerms:
    """Return what rounds are about, with the noise for which the budget lasts.

    Args:
        settings: the rules of every round.
        layout: of the vectors.
        budget: of each client, for life, as promised.
        planned_rounds: rounds that the budget has to last for (unit client).
        largest: members of the largest basket.

    Raises:
        ConfigError: vectors that cannot be protected, or noise that cannot be drawn or shared.
    """
    refuse_layout(settings, layout)
    noise = contribution_terms(settings, layout, budget, planned_rounds)
    layer2_noise = layer2_terms(settings, layout, budget, planned_rounds, largest)
    if fault := noise_fault(settings, noise, layer2_noise):
        raise ConfigError(f"{budget} for {planned_rounds} rounds: {fault}")
    if settings.mode is TrustMode.DISTRIBUTED:
        # The largest basket has the smallest shares: what cannot be shared is refused here, not in mid-round.
        needed = min_survivors(settings, max(largest, settings.min_clients))
        noise_share(noise.sigma, layout, needed, settings.max_colluders)
    return RoundTerms(noise, layer2_noise, layout)


@attrs.frozen(kw_only=True)
class Assembly:
    """What all cores of one process share.

    Attributes:
        settings: the rules of every round.
        budget: (epsilon, delta) of each client, for life, as promised.
        planned_rounds: rounds that the budget has to last for (unit client).
        entropy: source of keys, noise and schedules.
        federation: the federation's id.
        packets_per_s: what a member takes from each peer; infinity under a logical clock, which stands still.
    """

    settings: RoundSettings
    budget: PrivacyParams
    planned_rounds: int
    entropy: EntropySource
    federation: str
    packets_per_s: float = ValidatorLimits().packets_per_s

    def __attrs_post_init__(self) -> None:
        refuse_combinations(self.settings)  # whoever made them: no core runs under settings that cannot hold

    @property
    def limits(self) -> ValidatorLimits:
        """The bounds of each member's validator."""
        return ValidatorLimits(max_staleness=self.settings.max_staleness, packets_per_s=self.packets_per_s)

    def key_of(self, member_id: str) -> SigningKey:
        """Return a member's identity key, from the entropy source."""
        return SigningKey(self.entropy((member_id, "", 0, 0, 0, "identity"))(32))

    def terms(self, layout: Layout, roster: Roster) -> RoundTerms:
        """Return what rounds are about, with the noise for which the budget lasts."""
        return round_terms(self.settings, layout, self.budget, self.planned_rounds, largest_basket(roster))

    def client(
        self,
        identity: Identity,
        operator_key: bytes,
        *,
        learner: Learner | None = None,
        journal: Journal | None = None,
        ledger_key: bytes | None = None,
    ) -> ClientCore:
        """Return a client's core.

        A learner that reads its rows anew is first told where to go on: `recovery.rows_spent_until(journal)`.

        Args:
            identity: its voice.
            operator_key: public key that signs rosters.
            learner: gives updates and takes models.
            journal: payloads by kind, oldest first, that an earlier run of this client left.
            ledger_key: public key that owns the ledger, where the data source has got another one since; None: its own.

        Raises:
            LedgerCorrupt: the journal is damaged.
            LocalError: its ledger was opened under other terms.
        """
        left = journal or {}
        # The key, not the name, owns a ledger: a second name for one key would be a second budget.
        owner = identity.signing_key.verify_key.encode() if ledger_key is None else ledger_key
        ledger = open_filter(self.settings, self.budget, owner.hex())
        if ledger is not None:
            replay_ledger(ledger, list(left.get(LEDGER, ())))
        return ClientCore(
            identity,
            self.settings,
            ledger=ledger,
            entropy=self.entropy,
            operator_key=operator_key,
            learner=learner,
            limits=self.limits,
            marks=marks_of(left.get(MARK, ())),
            past=client_past(left),
        )

    def basket(self, identity: Identity, operator_key: bytes, *, journal: Journal | None = None) -> BasketCore:
        """Return a basket's core, with the payloads by kind that an earlier run of it left.

        Raises:
            LedgerCorrupt: the journal is damaged.
        """
        left = journal or {}
        return BasketCore(
            identity,
            self.settings,
            entropy=self.entropy,
            operator_key=operator_key,
            limits=self.limits,
            marks=marks_of(left.get(MARK, ())),
            past=basket_past(left, self.settings.max_staleness),
        )

    def coordinator(
        self,
        identity: Identity,
        *,
        terms: RoundTerms | None = None,
        rounds: int = 0,
        interval_s: float = 0.0,
        gather_s: float = 0.0,
        journal: Journal | None = None,
    ) -> CoordinatorCore:
        """Return the coordinator's core; see `CoordinatorCore` for the arguments, `client` for the journal.

        Raises:
            LedgerCorrupt: the journal is damaged.
            LocalError: its ledger was opened under other terms.
        """
        left = journal or {}
        ledger = open_layer2_filter(self.settings, self.budget) if self.settings.layer2_share > 0 else None
        if ledger is not None:
            replay_ledger(ledger, list(left.get(LEDGER, ())))
        return CoordinatorCore(
            identity,
            self.settings,
            ledger=ledger,
            entropy=self.entropy,
            terms=terms,
            rounds=rounds,
            limits=self.limits,
            interval_s=interval_s,
            gather_s=gather_s,
            past=coordinator_past(left),
        )


@attrs.frozen
class Seats:
    """A federation whose members all live in this process: their keys, the roster and the operator's signature.

    Attributes:
        keys: member id -> identity key.
        roster: who is who.
        operator_key: the federation's operator.
    """

    keys: Mapping[str, SigningKey] = attrs.field(repr=False)
    roster: Roster
    operator_key: SigningKey = attrs.field(repr=False)

    @property
    def operator_public_key(self) -> bytes:
        """What members know of the operator, out of band."""
        return self.operator_key.verify_key.encode()

    @property
    def signature(self) -> bytes:
        """The operator's signature over the roster."""
        return sign_roster(self.roster, self.operator_key)

    def identity(self, member_id: str) -> Identity:
        """Return the voice of a member."""
        return Identity(member_id, self.keys[member_id], self.roster)


def seat(assembly: Assembly, clients: Iterable[tuple[str, str]], *, before: Seats | None = None) -> Seats:
    """Make keys and roster for clients given as (id, domain): their baskets and the coordinator come with them.

    Args:
        assembly: what all members share.
        clients: all of them, those of the epoch before too.
        before: the epoch before; who stays keeps its key, and with it its ledger.

    Raises:
        ConfigError: an id that cannot be one.
        DuplicateClientError: an id twice.
    """
    pairs = list(clients)
    baskets = [(basket_id(domain), domain) for domain in sorted({domain for _, domain in pairs})]
    seats = [(name, Role.CLIENT, domain) for name, domain in pairs]
    seats += [(name, Role.BASKET, domain) for name, domain in baskets] + [(COORDINATOR, Role.COORDINATOR, "")]
    held = {} if before is None else dict(before.keys)
    keys = {name: held.get(name) or assembly.key_of(name) for name, _, _ in seats}
    members = tuple(Member(name, role, domain, keys[name].verify_key.encode()) for name, role, domain in seats)
    operator_key = assembly.key_of("operator") if before is None else before.operator_key
    epoch = 1 if before is None else before.roster.epoch + 1
    return Seats(keys, Roster(assembly.federation, epoch, members), operator_key)
