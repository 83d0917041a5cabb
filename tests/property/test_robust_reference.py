"""Each fast rule beside its dumb twin: the obvious lines, with distances of pairs and Python's own sort."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scarcity.robust import NNM, Bulyan, FloatArray, Krum, Median, MultiKrum, Pipeline, TrMean
from scarcity.robust.coordinate import BLOCK_BYTES, sort_columns, sorting_network
from scarcity.robust.distance import GRAM_COLUMNS, Neighbours, gram_matrix, squared_distances

#: The same examples every time: near ties of random rows must not make a red build by chance.
few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, f: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4 * f + 3 + rng.integers(0, 6), rng.integers(2, 9)))


def slow_scores(rows: FloatArray, count: int) -> list[float]:
    return [sum(sorted(float(np.sum((x - y) ** 2)) for y in rows)[1 : count + 1]) for x in rows]


def slow_mixing(rows: FloatArray, f: int, weights: FloatArray | None = None) -> FloatArray:
    mixed = []
    for x in rows:
        nearest = sorted(range(len(rows)), key=lambda j: float(np.sum((x - rows[j]) ** 2)))
        kept = nearest[: len(rows) - f]
        mixed.append(np.average(rows[kept], axis=0, weights=None if weights is None else weights[kept]))
    return np.array(mixed)


def slow_trimmed_mean(rows: FloatArray, f: int, weights: FloatArray) -> list[float]:
    means = []
    for column in rows.T:
        kept = sorted(zip(column, weights, strict=True))[f : len(column) - f]
        means.append(sum(x * w for x, w in kept) / sum(w for _, w in kept))
    return means


def slow_bulyan(rows: FloatArray, f: int, weights: FloatArray) -> list[float]:
    n, left, chosen = len(rows), list(range(len(rows))), []
    first = slow_scores(rows, n - f - 2)
    while len(chosen) < n - 2 * f:
        scores = slow_scores(rows[left], max(1, len(left) - f - 2))
        chosen.append(left.pop(min(range(len(left)), key=lambda i: (round(scores[i], 9), first[left[i]]))))
    means = []
    for column in rows[chosen].T:
        nearest = np.argsort(np.abs(column - np.median(column)))[: n - 4 * f]
        means.append(float(np.average(column[nearest], weights=weights[chosen][nearest])))
    return means


@few
@given(seed=seeds, f=st.integers(1, 3), neighbours=st.sampled_from(["blanchard", "allouah"]))
def test_krum_and_multikrum_equal_their_twins(seed: int, f: int, neighbours: Neighbours) -> None:
    rows = drawn(seed, f)
    scores = slow_scores(rows, len(rows) - f - (2 if neighbours == "blanchard" else 1))
    result = Krum(f, neighbours=neighbours).aggregate(rows)
    np.testing.assert_allclose(result.scores, scores, rtol=1e-9)
    np.testing.assert_array_equal(result.vector, rows[np.argmin(scores)])
    best = np.argsort(scores)[: len(rows) - f]
    np.testing.assert_allclose(MultiKrum(f, neighbours=neighbours)(rows), rows[best].mean(axis=0), atol=1e-12)
    gram = gram_matrix(rows)
    np.testing.assert_array_equal(Krum(f, neighbours=neighbours).weights_from_gram(gram), result.weights)
    np.testing.assert_allclose(MultiKrum(f, neighbours=neighbours).weights_from_gram(gram).sum(), 1.0)


@few
@given(seed=seeds, f=st.integers(0, 3))
def test_nnm_and_the_default_rule_equal_their_twins(seed: int, f: int) -> None:
    rows = drawn(seed, f)
    mixed = slow_mixing(rows, f)
    np.testing.assert_allclose(NNM(f)(rows), mixed, atol=1e-12)
    expected = slow_trimmed_mean(mixed, f, np.ones(len(rows)))
    np.testing.assert_allclose(Pipeline([NNM(f)], TrMean(f))(rows), expected, atol=1e-12)
    weights = np.random.default_rng(seed).uniform(0.7, 1.0, len(rows))
    expected = slow_trimmed_mean(slow_mixing(rows, f, weights), f, np.ones(len(rows)))
    np.testing.assert_allclose(Pipeline([NNM(f)], TrMean(f)).aggregate(rows, weights).vector, expected, atol=1e-12)
    if len(rows) >= 2 * f + 3:
        remixed = slow_mixing(mixed, f)
        np.testing.assert_allclose(Pipeline([NNM(f), NNM(f)], MultiKrum(0))(rows), remixed.mean(axis=0), atol=1e-9)


@few
@given(seed=seeds, f=st.integers(0, 3), extra=st.sampled_from([0, 40]))
def test_the_trimmed_mean_equals_its_twin_with_and_without_weights(seed: int, f: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    rows = drawn(seed + 1, f)
    rows = np.vstack([rows, rng.standard_normal((extra, rows.shape[1]))])
    np.testing.assert_allclose(TrMean(f)(rows), slow_trimmed_mean(rows, f, np.ones(len(rows))), atol=1e-12)
    weights = rng.uniform(0.6, 1.0, len(rows))
    vector = TrMean(f).aggregate(rows, weights).vector
    np.testing.assert_allclose(vector, slow_trimmed_mean(rows, f, weights), atol=1e-12)
    np.testing.assert_allclose(Median(f)(rows), np.median(rows, axis=0), atol=1e-12)


@few
@given(seed=seeds, f=st.integers(1, 2))
def test_bulyan_equals_its_twin(seed: int, f: int) -> None:
    rows = drawn(seed, f)
    weights = np.random.default_rng(seed).uniform(0.8, 1.0, len(rows))
    np.testing.assert_allclose(Bulyan(f)(rows), slow_bulyan(rows, f, np.ones(len(rows))), atol=1e-9)
    np.testing.assert_allclose(Bulyan(f).aggregate(rows, weights).vector, slow_bulyan(rows, f, weights), atol=1e-9)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_sorting_network_sorts_every_input_of_zeros_and_ones(n: int) -> None:
    # By the zero-one principle (Knuth vol. 3, 5.3.4, theorem Z) this proves it for every input of n values.
    block = np.array(list(itertools.product([0.0, 1.0], repeat=n))).T
    np.testing.assert_array_equal(sort_columns(block), np.sort(block, axis=0))


@pytest.mark.parametrize("n", [11, 16, 17, 31, 32, 33, 50])
def test_columns_are_sorted_below_and_above_the_network(n: int) -> None:
    block = np.random.default_rng(n).integers(0, 9, (n, 500)).astype(np.float32)
    np.testing.assert_array_equal(sort_columns(block), np.sort(block, axis=0))
    assert all(low < high < n for low, high in sorting_network(n))


@pytest.mark.parametrize("n", [9, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_coordinate_rule_gives_the_same_bits_whatever_the_blocks(n: int, weighted: bool) -> None:
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((n, BLOCK_BYTES // (8 * n) + 70))
    weights = rng.uniform(0.7, 1.0, n) if weighted else None
    whole = TrMean(2).aggregate(rows, weights).vector
    for start, stop in ((0, 1), (5, 900), (rows.shape[1] - 75, rows.shape[1])):
        part = TrMean(2).aggregate(rows[:, start:stop], weights).vector
        assert part.tobytes() == whole[start:stop].tobytes()


def test_squared_distances_are_never_negative_and_zero_to_oneself() -> None:
    rows = 1e6 + np.random.default_rng(3).standard_normal((40, 37))
    rows[20:] = rows[:20] + 1e-7
    distances = squared_distances(gram_matrix(rows))
    assert np.all(distances >= 0.0)
    assert np.all(np.diagonal(distances) == 0.0)
    exact = ((rows[:, None] - rows[None, :]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, exact, atol=0.1)  # What an offset of 1e6 costs without a reference.


def test_the_gram_matrix_in_blocks_equals_the_product() -> None:
    rows = np.random.default_rng(2).standard_normal((5, 2 * GRAM_COLUMNS + 3))
    reference = rows[0] + 1.0
    np.testing.assert_allclose(gram_matrix(rows, reference), (rows - reference) @ (rows - reference).T, atol=1e-9)
    narrow = rows.astype(np.float32)
    np.testing.assert_allclose(gram_matrix(narrow), narrow.astype(float) @ narrow.astype(float).T, atol=1e-9)
