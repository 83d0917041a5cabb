from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.errors import ConfigError
from scarcity.federation.effects import EntropySource
from scarcity.federation.packets import Update
from sim.chance import Chance, ReproducibleEntropy, reproducible_entropy
from sim.faults.attacks import ATTACKS, attack_named

LABELS = st.lists(st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=5)), max_size=4)


@given(st.integers(), LABELS)
def test_a_draw_depends_on_seed_and_labels_alone(seed: int, labels: list[str | int | bytes]) -> None:
    first = Chance(seed).uniform(*labels)
    Chance(seed).uniform("something", "else")
    assert Chance(seed).uniform(*labels) == first
    assert 0 <= first < 1


@given(LABELS, LABELS)
def test_different_labels_give_different_bytes(one: list[str | int | bytes], two: list[str | int | bytes]) -> None:
    same = [(type(x), x) for x in one] == [(type(x), x) for x in two]
    assert (Chance(1).bytes(16, *one) == Chance(1).bytes(16, *two)) == same


def test_labels_are_delimited() -> None:
    assert Chance(0).bytes(8, "a", "bc") != Chance(0).bytes(8, "ab", "c")
    assert Chance(0).bytes(8, "1") != Chance(0).bytes(8, 1)


def test_uniform_draws_fill_the_unit_interval() -> None:
    draws = np.array([Chance(3).uniform("n", i) for i in range(4000)])
    # The Kolmogorov-Smirnov distance exceeds 2.7 / sqrt(n) with probability 1e-6; the seed is fixed.
    assert np.abs(np.sort(draws) - (np.arange(4000) + 0.5) / 4000).max() < 2.7 / np.sqrt(4000)


def test_generators_of_two_labels_are_different_and_repeatable() -> None:
    assert Chance(1).generator("a").normal() == Chance(1).generator("a").normal()
    assert Chance(1).generator("a").normal() != Chance(1).generator("b").normal()


def test_chance_has_golden_values() -> None:
    assert Chance(7).bytes(8, "client", 3).hex() == "5b6bf5d211b1495f"
    assert ReproducibleEntropy(7)(("a", "basket/x", 1, 2, 0, "noise"))(8).hex() == "4df97bc832be190f"


@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_stream_is_the_same_however_it_is_cut(sizes: list[int]) -> None:
    label = ("a", "basket/x", 0, 1, 0, "noise")
    read, whole = reproducible_entropy(5)(label), reproducible_entropy(5)(label)
    assert b"".join(read(size) for size in sizes) == whole(sum(sizes))


def test_every_part_of_the_entropy_label_counts() -> None:
    base = ("a", "basket/x", 0, 1, 0, "noise")
    others = [("b", *base[1:]), (base[0], "layer2", *base[2:]), (*base[:2], 1, *base[3:]), (*base[:5], "mask")]
    source: EntropySource = reproducible_entropy(5)
    streams = {source(label)(16) for label in [base, *others]} | {reproducible_entropy(6)(base)(16)}
    assert len(streams) == 6


def test_reproducible_entropy_says_so() -> None:
    assert reproducible_entropy(1).reproducible
    assert "Reproducible" in repr(reproducible_entropy(1))


def test_sign_flip_negates_all_but_what_everyone_can_check() -> None:
    update = Update("a", 1, b"", np.array([10, 9, 3, -4]), weight=10)
    forged = attack_named("sign-flip")(update, 2)
    assert forged.vector.tolist() == [10, 9, -3, 4]
    assert (forged.client_id, forged.weight) == ("a", 10)
    assert update.vector.tolist() == [10, 9, 3, -4]


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_keeps_length_type_and_norm(name: str) -> None:
    update = Update("a", 1, b"", np.array([1.0, -2.0, 2.0]))
    forged = attack_named(name)(update, 0)
    assert forged.vector.dtype == update.vector.dtype
    assert np.linalg.norm(forged.vector) == np.linalg.norm(update.vector)


def test_an_unknown_attack_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'bribe' is unknown; known are sign-flip"):
        attack_named("bribe")
