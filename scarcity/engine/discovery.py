"""From moments to relations: the same code on local, basket and global statistics."""

from __future__ import annotations

import numpy as np

from scarcity.engine.moments import Moments
from scarcity.engine.relation import Relation
from scarcity.engine.significance import accept_false_discovery, effect_p_values
from scarcity.engine.var import VarFit, fit_var
from scarcity.errors import ConfigError


def discover(
    moments: Moments,
    method: str = "var",
    alpha: float = 0.05,
    min_effect: float = 0.02,
    *,
    multiplicity: str = "bh",
) -> list[Relation]:
    """Return the links that the moments support.

    Args:
        moments: of one party, a basket or the federation.
        method: "var".
        alpha: false discovery rate over ALL tests (every pair, every lag, own lags too): they are one family.
        min_effect: smallest effect of interest, in deviations per deviation; H0 is |effect| <= min_effect.
        multiplicity: "bh" or "by" (scarcity.engine.significance).

    Returns:
        relations sorted by targets, sources and lag.

    Raises:
        ConfigError: unknown method, or a setting out of range.
        InsufficientInputs: not more rows than parameters.
    """
    if method != "var":
        raise ConfigError(f"method must be 'var', got {method!r}")
    return relations_of(fit_var(moments), alpha, min_effect, multiplicity=multiplicity)


def relations_of(
    fit: VarFit, alpha: float = 0.05, min_effect: float = 0.02, *, multiplicity: str = "bh"
) -> list[Relation]:
    """Return the links of a fit; arguments and errors as `discover`."""
    effects, se = fit.standardised()
    p_values = effect_p_values(effects, se, fit.df, min_effect)
    accepted = accept_false_discovery(p_values, alpha, multiplicity)
    found = [
        Relation(
            kind="persistent" if target == source else "lagged",
            sources=(fit.names[source],),
            targets=(fit.names[target],),
            lag=lag + 1,
            effect=float(effects[lag, target, source]),
            se=float(se[lag, target, source]),
            p=float(p_values[lag, target, source]),
        )
        for lag, target, source in (tuple(map(int, index)) for index in np.argwhere(accepted))
    ]
    return sorted(found, key=lambda relation: (relation.targets, relation.sources, relation.lag))
