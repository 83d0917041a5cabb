"""What a client accepts: every reason not to contribute under a round's config.

The config is the coordinator's word. The client holds it against its own settings, roster and layout; sensitivity,
lattice and clipping are the client's own figures, and a config that states others is declined. How much noise is enough
is not asked here: the ledger charges what the stated noise costs, and refuses when the budget does not reach.
"""

from __future__ import annotations

from scarcity.errors import LocalError
from scarcity.federation.aggregator import byzantine_count, make_rule
from scarcity.federation.packets import RoundConfig, RoundSettings, TrustMode
from scarcity.federation.privacy_guard import (
    Layout,
    default_layout,
    layer2_sensitivity,
    layout_fault,
    noise_fault,
    unprotected_layout,
)
from scarcity.federation.roster import Roster, largest_basket


def layout_under(config: RoundConfig, settings: RoundSettings, own: Layout | None) -> Layout:
    """Return the layout of a client's vectors in a round: its own, or that of a plain array.

    Raises:
        ConfigError: unit record, and the client has no layout of its own.
    """
    if own is None:
        return default_layout(settings, config.dimension, config.schema_hash)
    return unprotected_layout(own) if settings.mode is TrustMode.NONE else own


def refusal(config: RoundConfig, settings: RoundSettings, roster: Roster, domain: str, own: Layout | None) -> str:
    """Say why a client would not contribute under a config, empty if it would.

    Args:
        config: the round's.
        settings: the rules that the client accepts.
        roster: the roster that the client holds.
        domain: the client's basket.
        own: the layout of the client's vectors; None: a plain array.
    """
    if config.settings != settings:
        return f"the round's settings differ from this client's in {settings.differences(config.settings)}"
    if config.roster_root != roster.root:
        return f"the round runs under another roster than epoch {roster.epoch}"
    if len(roster.clients_of(domain)) < settings.min_clients:
        return f"basket {domain} has fewer than min_clients={settings.min_clients} members"
    if fault := rule_fault(settings, len(roster.clients_of(domain))):
        return fault
    try:
        layout = layout_under(config, settings, own)
    except LocalError as error:
        return str(error)
    return (
        layout_fault(settings, layout)
        or noise_fault(settings, config.noise, config.layer2_noise)
        or _layout_refusal(config, layout)
        or _layer2_refusal(config, settings, roster, layout)
    )


def rule_fault(settings: RoundSettings, members: int) -> str:
    """Say that a basket of so many members could never satisfy the rule, empty if it can.

    Asked before anything is charged: a round that cannot close costs a budget for nothing.
    """
    if settings.mode is TrustMode.DISTRIBUTED:
        return ""
    need = make_rule(settings.rule, byzantine_count(settings.byzantine_share, members)).min_inputs
    return (
        "" if need <= members else f"rule {settings.rule} needs {need} contributions, the basket has {members} members"
    )


def _layout_refusal(config: RoundConfig, layout: Layout) -> str:
    if (config.schema_hash, config.dimension) != (layout.schema_hash, layout.dimension):
        return f"the round is of another schema, or of {config.dimension} numbers instead of {layout.dimension}"
    ours = (layout.steps, layout.sensitivity, layout.least_scale)
    if (config.noise.steps, config.noise.sensitivity, config.noise.least_scale) != ours:
        return f"the round's lattice or sensitivity {config.noise} is not this client's"
    return ""


def _layer2_refusal(config: RoundConfig, settings: RoundSettings, roster: Roster, layout: Layout) -> str:
    if settings.mode is TrustMode.NONE or settings.layer2_share == 0:
        return ""
    ours = layer2_sensitivity(settings, layout, largest_basket(roster))
    theirs = config.layer2_noise.sensitivity
    return "" if theirs == ours else f"Layer 2's sensitivity is {ours!r} by this client's sums, not {theirs!r}"
