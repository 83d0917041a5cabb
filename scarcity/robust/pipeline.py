"""Rules made of rules: pre-aggregators before a rule, Bulyan, and a rule from its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import ClassVar, Final

import attrs
import numpy as np
import numpy.typing as npt

from scarcity.errors import ConfigError
from scarcity.robust.coordinate import (
    Average,
    Median,
    TrMean,
    column_blocks,
    sort_columns,
    sort_columns_with_weights,
    sum_rows,
)
from scarcity.robust.distance import Krum, MultiKrum, krum_scores, measure, squared_distances
from scarcity.robust.preaggregate import NNM, PreAggregator
from scarcity.robust.rule import (
    AggregationResult,
    FloatArray,
    Rows,
    Rule,
    Stack,
    Vectors,
    check_f,
    make_result,
    read_stack,
)


def _in_order(steps: Iterable[PreAggregator]) -> tuple[PreAggregator, ...]:
    return tuple(steps)


@attrs.frozen
class Pipeline:
    """Pre-aggregators, in order, before a rule: `Pipeline([NNM(f)], TrMean(f))`.

    Attributes:
        steps: the pre-aggregators.
        rule: the rule on what they make of the rows.

    It holds as many liars as its weakest part. The weights of its result are those of the rows as given, the mixing
    undone; the scores are the last rule's, on the mixed rows.
    """

    steps: tuple[PreAggregator, ...] = attrs.field(converter=_in_order)
    rule: Rule
    sees_inputs: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The parts' names, in order."""
        return "+".join([*(step.name for step in self.steps), self.rule.name])

    @property
    def f(self) -> int:
        """Number of rows that may lie: the least of the parts'."""
        return min([*(step.f for step in self.steps), self.rule.f])

    @property
    def min_inputs(self) -> int:
        """Least number of inputs: the most that a part needs."""
        return max([*(step.min_inputs for step in self.steps), self.rule.min_inputs])

    @property
    def mass_factor(self) -> int:
        """See `Rule.mass_factor`."""
        return max([*(step.mass_factor for step in self.steps), self.rule.mass_factor])

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the aggregate (d,) of vectors (n, d)."""
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return the rule's aggregate of the mixed rows; see `Rule.aggregate`."""
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return the rule's aggregate of a stack after the steps."""
        for step in self.steps:
            stack = step.mix(stack)
        return attrs.evolve(self.rule.reduce(stack), rule=self.name, f=self.f)


@attrs.frozen
class Bulyan:
    """The mean, coordinate by coordinate, of the values near the median of rows chosen by Krum.

    Krum chooses n − 2 f rows, one after the other; n − 4 f of their values are averaged, those nearest to their median.

    Attributes:
        f: number of rows that may lie; needs n >= 4 f + 3.

    Weights weigh the values of the last mean, and the f heaviest rows must hold less than a quarter of the weight.
    Ties go to the row of lesser score among all rows, then to the lowest row; in the second stage to the lower values.
    Weak on heterogeneous data.
    Cost: the Gram matrix, O(n³ log n) for the choice, one sort of each column.
    Source: El Mhamdi et al., ICML 2018. The last choices are made among 2 f + 1 rows, where n − f − 2 neighbours can be
    none at f = 1; we count at least one, because a sum over none would pick the lowest row whatever it says.
    """

    f: int = attrs.field(default=0, validator=check_f)
    name: ClassVar[str] = "bulyan"
    mass_factor: ClassVar[int] = 4
    sees_inputs: ClassVar[bool] = True

    @property
    def min_inputs(self) -> int:
        """Least number of inputs."""
        return 4 * self.f + 3

    def selection_from_gram(self, gram: FloatArray) -> tuple[list[int], FloatArray]:
        """Return the chosen rows in the order of choice, and the Krum scores (n,) of the first choice."""
        distances = squared_distances(gram)
        n = distances.shape[0]
        left = np.arange(n)
        chosen: list[int] = []
        first = krum_scores(distances, max(1, n - self.f - 2))
        while len(chosen) < n - 2 * self.f:
            scores = krum_scores(distances[np.ix_(left, left)], max(1, left.size - self.f - 2))
            # With one neighbour left to count, the two nearest rows tie always; the first score decides, so that the
            # choice depends on the rows and not on their order.
            best = int(np.lexsort((first[left], scores))[0])
            chosen.append(int(left[best]))
            left = np.delete(left, best)
        return chosen, first

    def __call__(self, vectors: Vectors) -> FloatArray:
        """Return the aggregate (d,) of vectors (n, d)."""
        return self.aggregate(vectors).vector

    def aggregate(
        self, vectors: Vectors, weights: npt.ArrayLike | None = None, reference: npt.ArrayLike | None = None
    ) -> AggregationResult:
        """Return Bulyan's aggregate; see `Rule.aggregate`."""
        return self.reduce(read_stack(self, vectors, weights, reference))

    def reduce(self, stack: Stack) -> AggregationResult:
        """Return Bulyan's aggregate of a stack."""
        stack = measure(stack)
        assert stack.gram is not None
        chosen, scores = self.selection_from_gram(stack.gram)
        rows = np.sort(chosen)
        vector = np.empty(stack.rows.shape[1])
        for start, stop, block in column_blocks(stack):
            vector[start:stop] = self._near_median(block[rows], stack.weights[rows] if stack.is_weighted else None)
        weights = np.zeros(stack.n)
        weights[rows] = stack.weights[rows]
        return make_result(self, stack, vector, weights / weights.sum(), scores)

    def _near_median(self, block: Rows, weights: FloatArray | None) -> FloatArray:
        """Return of each column of a block (m, b) the mean of the m − 2 f values nearest to its median: shape (b,)."""
        m = block.shape[0]
        size = m - 2 * self.f
        if weights is None:
            ordered, beside = sort_columns(block), None
        else:
            ordered, beside = sort_columns_with_weights(block, weights)
        median = 0.5 * (ordered[(m - 1) // 2].astype(np.float64) + ordered[m // 2])
        # The nearest values are neighbours in order: of all windows of `size`, the one whose farther end is nearest.
        ends = [np.maximum(median - ordered[j], ordered[j + size - 1] - median) for j in range(2 * self.f + 1)]
        index = np.argmin(ends, axis=0) + np.arange(size)[:, None]
        near = np.take_along_axis(ordered, index, axis=0)
        if beside is None:
            return np.asarray(sum_rows(near) / size)
        shares = np.take_along_axis(beside, index, axis=0)
        return np.asarray(sum_rows(near * shares) / sum_rows(shares))


def _nnm_trmean(f: int) -> Rule:
    return Pipeline((NNM(f),), TrMean(f))


#: Rules by name. The laws in the tests run over all of them.
RULES: Final[Mapping[str, Callable[[int], Rule]]] = MappingProxyType(
    {
        "average": lambda _: Average(),  # It holds no liar, whatever f says.
        "bulyan": Bulyan,
        "krum": Krum,
        "median": Median,
        "multikrum": MultiKrum,
        "nnm+trmean": _nnm_trmean,
        "trmean": TrMean,
    }
)

#: First or second at every heterogeneity measured, among the rules above.
DEFAULT_RULE: Final = "nnm+trmean"


MakeRule = Callable[[int], Rule]
# Settings name their rule, for names travel and code does not: what a name means besides is known to this context only.
_OWN: ContextVar[Mapping[str, MakeRule]] = ContextVar("own rules", default=MappingProxyType({}))


@contextmanager
def own_rules(rules: Mapping[str, MakeRule]) -> Iterator[None]:
    """Let names mean rules of one's own inside of this context, for whoever tries one out in a single process.

    A federation of several processes has the rules of `RULES` and no others.

    Args:
        rules: name -> f -> the rule; a name of `RULES` keeps its meaning.
    """
    token = _OWN.set(rules)
    try:
        yield
    finally:
        _OWN.reset(token)


def is_rule(name: str) -> bool:
    """Say whether `make_rule` knows a name."""
    return name in RULES or name in _OWN.get()


def make_rule(name: str, f: int) -> Rule:
    """Return the rule of this name that holds f liars.

    Raises:
        ConfigError: no rule has this name, or f is negative.
        TypeError: f is not an int.
    """
    try:
        factory = RULES[name] if name in RULES else _OWN.get()[name]
    except KeyError:
        raise ConfigError(f"unknown aggregation rule {name!r}; known: {', '.join(sorted(RULES))}") from None
    return factory(TrMean(f).f)  # Also the mean refuses a bad f.
