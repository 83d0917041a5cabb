"""Data with a known answer: parties whose rows follow one VAR(2) with links that we chose."""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np

from scarcity.engine import Schema, Variable
from scarcity.engine.arrays import FloatArray
from scarcity.errors import ConfigError
from scarcity.node.data.source import Party, Source
from sim.chance import Chance

NUM_VARIABLES: Final = 5
NUM_DOMAINS: Final = 3
LAGS: Final = 2
LEARN_ROWS: Final = 400
HELD_OUT_ROWS: Final = 100
_WARM_UP_ROWS: Final = 50  # the start value's share is below .5^50 by then
_OWN: Final = 0.4  # a variable's own past, lag 1
_LINK: Final = 0.25  # of each link, either sign
# Four links and own lags of .4: the companion radius stays below .95 for every draw (a test looks at 50 seeds).
_NUM_LINKS: Final = 4


@attrs.frozen
class Link:
    """One true link: `coefficient` of source's value `lag` rows before, in target's equation."""

    source: str
    target: str
    lag: int
    coefficient: float


def true_links(seed: int) -> tuple[Link, ...]:
    """Return the cross links of a seed's world, sorted as relations are."""
    rng = Chance(seed).generator("truth", "links")
    pairs = [(a, b) for a in range(NUM_VARIABLES) for b in range(NUM_VARIABLES) if a != b]
    chosen = rng.choice(len(pairs), _NUM_LINKS, replace=False)
    links = [
        Link(f"x{a}", f"x{b}", int(rng.integers(1, LAGS + 1)), _LINK * float(rng.choice((-1.0, 1.0))))
        for a, b in (pairs[int(index)] for index in chosen)
    ]
    return tuple(sorted(links, key=lambda link: (link.target, link.source, link.lag)))


def coefficients(links: tuple[Link, ...]) -> FloatArray:
    """Return shape (LAGS, p, p), [lag - 1, target, source], own lags included."""
    matrix = np.zeros((LAGS, NUM_VARIABLES, NUM_VARIABLES))
    matrix[0] = _OWN * np.eye(NUM_VARIABLES)
    for link in links:
        matrix[link.lag - 1, int(link.target[1:]), int(link.source[1:])] = link.coefficient
    return matrix


def synthetic(num_parties: int, seed: int) -> Source:
    """Return `num_parties` parties in three domains, each with a level of its own and the same links.

    Raises:
        ConfigError: fewer parties than domains.
    """
    if num_parties < NUM_DOMAINS:
        raise ConfigError(f"synthetic: need at least {NUM_DOMAINS} parties, one a domain, got {num_parties}")
    matrix = coefficients(true_links(seed))
    parties = tuple(_party(index, matrix, Chance(seed)) for index in range(num_parties))
    schema = Schema([Variable(f"x{i}", scale=1.0) for i in range(NUM_VARIABLES)], lags=LAGS)
    return Source(schema, parties, f"{num_parties} synthetic parties of one VAR({LAGS}) with {_NUM_LINKS} links")


def _party(index: int, matrix: FloatArray, chance: Chance) -> Party:
    name = f"party-{index:04d}"
    rng = chance.generator("truth", name)
    total = _WARM_UP_ROWS + LEARN_ROWS + HELD_OUT_ROWS
    shocks = rng.standard_normal((total, NUM_VARIABLES))
    values = np.zeros((total, NUM_VARIABLES))
    for t in range(total):
        past = sum(matrix[k] @ values[t - k - 1] for k in range(min(LAGS, t)))
        values[t] = past + shocks[t]
    rows = values[_WARM_UP_ROWS:] + 3 * rng.standard_normal(NUM_VARIABLES)
    times = np.arange(len(rows), dtype=np.int64)
    return Party(
        id=name,
        domain=f"domain-{index % NUM_DOMAINS}",
        times=times[:LEARN_ROWS],
        rows=rows[:LEARN_ROWS],
        held_out_times=times[LEARN_ROWS:],
        held_out=rows[LEARN_ROWS:],
    )
