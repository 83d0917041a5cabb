"""Clipping to the lattice, and what may be drawn with which reservation. Seeded entropy: tests only."""

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scarcity.errors import ConfigError, InvalidUpdate, LocalError
from scarcity.privacy import (
    GaussianEvent,
    PrivacyAccountant,
    PrivacyParams,
    Reservation,
    add_noise,
    clip_to_lattice,
    ledger_budget,
    noise_share_sigma,
    rounded_gaussian,
)
from scarcity.privacy.mechanisms import STEPS_MAX, squared_norm


def entropy_of(label: str) -> Callable[[int], bytes]:
    return lambda size: hashlib.blake2b(label.encode(), digest_size=size).digest()


def reservation_of(accountant: PrivacyAccountant | None = None, name: str = "r") -> Reservation:
    accountant = accountant or PrivacyAccountant(PrivacyParams(10.0, 1e-5))
    return accountant.reserve(GaussianEvent(1.0, 1.0), name, "test")


@given(
    x=arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=False, allow_infinity=False)),
    clip_norm=st.floats(1e-6, 1e6),
    bits=st.integers(13, 40),
)
@settings(max_examples=300)
def test_a_clipped_vector_lies_in_the_ball_and_on_the_lattice(x: np.ndarray, clip_norm: float, bits: int) -> None:
    before = x.copy()
    steps = 1 << bits
    v = clip_to_lattice(x, clip_norm, steps)
    assert v.dtype == np.int64
    assert sum(int(value) ** 2 for value in v) <= steps**2
    assert np.array_equal(x, before)
    assert (np.sign(v) * np.sign(x) >= 0).all()


@given(x=arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e3, 1e3)), clip_norm=st.floats(0.1, 1e4))
def test_clipping_agrees_with_the_obvious_version_to_one_step(x: np.ndarray, clip_norm: float) -> None:
    steps = 1 << 20
    obvious = x * min(1.0, clip_norm / max(float(np.linalg.norm(x)), 1e-300)) / clip_norm * steps
    v = clip_to_lattice(x, clip_norm, steps)
    assert (np.abs(v - obvious) <= 1.0 + 1e-6).all()
    assert (np.abs(v) <= np.abs(obvious) + 1e-6).all()


def test_the_clip_bound_itself_is_reached_exactly() -> None:
    assert clip_to_lattice(np.array([0.6, 0.8]), 1.0, 5000).tolist() == [3000, 4000]
    assert clip_to_lattice(np.array([-7.0]), 1.0, STEPS_MAX).tolist() == [-STEPS_MAX]
    assert clip_to_lattice(np.array([1e308, 1e308, 0.0]), 1.0, 1 << 11).tolist() == [1448, 1448, 0]
    assert clip_to_lattice(np.array([5e-324]), 1e-320, 1 << 11).tolist() == [1]


@given(v=arrays(np.int64, st.integers(1, 30), elements=st.integers(-STEPS_MAX, STEPS_MAX)))
def test_the_squared_norm_is_exact(v: np.ndarray) -> None:
    assert squared_norm(v) == sum(int(value) ** 2 for value in v)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([1.0, math.nan]), np.array([math.inf, 0.0]), np.array([-math.inf]), np.array([1, 2]), np.array([True]),
        np.array(["a"]), np.array([1j]), np.array([None]), np.zeros((2, 2)), np.array(1.0), np.array([]), [1.0, 2.0],
    ],
    ids=repr,
)  # fmt: skip
def test_a_bad_update_is_refused_before_clipping(bad: np.ndarray) -> None:
    with pytest.raises(InvalidUpdate):
        clip_to_lattice(bad, 1.0, 4096)


@pytest.mark.parametrize("steps", [1023, 0, -4096, STEPS_MAX + 1, 4096.0, True])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="steps"):
        clip_to_lattice(np.zeros(1), 1.0, steps)


def test_the_smallest_number_of_steps_is_1024_roots_of_the_dimension() -> None:
    clip_to_lattice(np.zeros(4), 1.0, 2048)
    with pytest.raises(ConfigError, match="2048"):
        clip_to_lattice(np.zeros(4), 1.0, 2047)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_clip_norm_is_refused(clip_norm: float) -> None:
    with pytest.raises(ConfigError, match="clip_norm"):
        clip_to_lattice(np.ones(1), clip_norm, 4096)


def test_one_reservation_draws_noise_once() -> None:
    reservation = reservation_of()
    rounded_gaussian(10.0, 3, reservation, entropy_of("a"))
    with pytest.raises(LocalError, match="drawn"):
        rounded_gaussian(10.0, 3, reservation, entropy_of("b"))


@pytest.mark.parametrize("end", ["commit", "void"])
def test_a_closed_reservation_draws_no_noise(end: str) -> None:
    accountant = PrivacyAccountant(PrivacyParams(10.0, 1e-5))
    reservation = reservation_of(accountant)
    getattr(accountant, end)(reservation)
    with pytest.raises(LocalError, match="cannot become drawn"):
        rounded_gaussian(10.0, 3, reservation, entropy_of("a"))


def test_after_drawing_the_reservation_cannot_be_voided() -> None:
    accountant = PrivacyAccountant(PrivacyParams(10.0, 1e-5))
    reservation = reservation_of(accountant)
    rounded_gaussian(10.0, 3, reservation, entropy_of("a"))
    with pytest.raises(LocalError, match="drawn"):
        accountant.void(reservation)


def test_a_failing_entropy_source_uses_the_reservation_up() -> None:
    reservation = reservation_of()
    with pytest.raises(LocalError, match="entropy"):
        rounded_gaussian(10.0, 3, reservation, lambda size: b"short")
    assert not reservation.live


@pytest.mark.parametrize("sigma", [0.0, 0.999, 2.0**36 * 1.001, -5.0, math.nan, math.inf])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_sigma_out_of_range_is_refused_and_nothing_is_drawn(sigma: float, shape: tuple[int, ...]) -> None:
    reservation = reservation_of()
    with pytest.raises(LocalError, match="sigma"):
        rounded_gaussian(np.full(shape, sigma), 3, reservation, entropy_of("a"))
    assert reservation.live


def test_public_coordinates_get_no_noise_and_must_say_so() -> None:
    sigma = np.array([100.0, 0.0, 100.0, 0.0])
    public = sigma == 0.0
    noise = rounded_gaussian(sigma, 4, reservation_of(), entropy_of("a"), public=public)
    assert (noise[public] == 0).all()
    assert (noise[~public] != 0).all()
    assert (rounded_gaussian(100.0, 4, reservation_of(), entropy_of("a"), public=public) == noise).all()
    for wrong in (None, np.array([False, True, False, False]), np.array([False, True, True, True])):
        with pytest.raises(LocalError, match="sigma"):
            rounded_gaussian(sigma, 4, reservation_of(), entropy_of("a"), public=wrong)
    with pytest.raises(LocalError, match="mask"):
        rounded_gaussian(sigma, 4, reservation_of(), entropy_of("a"), public=np.array([0, 1, 0, 1]))


@pytest.mark.parametrize("dimension", [0, -1, 2.0, True])
def test_a_bad_dimension_is_refused(dimension: int) -> None:
    with pytest.raises(LocalError, match="dimension"):
        rounded_gaussian(10.0, dimension, reservation_of(), entropy_of("a"))


def test_noise_depends_on_the_entropy_alone() -> None:
    a, b, c = (rounded_gaussian(1e6, 50, reservation_of(), entropy_of(label)) for label in ("a", "a", "c"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_adding_noise_refuses_to_leave_int64() -> None:
    top = np.array([2**63 - 1, 0])
    assert add_noise(top, np.array([0, 0])).tolist() == top.tolist()
    with pytest.raises(LocalError, match="int64"):
        add_noise(top, np.array([0, 1]))
    with pytest.raises(LocalError, match="int64"):
        add_noise(np.array([-(2**63)]), np.array([0]))
    with pytest.raises(LocalError, match="int64"):
        add_noise(np.array([1.0]), np.array([1]))  # type: ignore[arg-type]  # the point of the test


def test_shares_of_the_smallest_legal_set_still_carry_sigma() -> None:
    share = noise_share_sigma(np.array([100.0, 70.0, 0.0]), min_survivors=19, max_colluders=3)
    assert share[2] == 0.0
    assert (16 * share[:2] ** 2 >= np.array([100.0, 70.0]) ** 2).all()
    assert share[0] == pytest.approx(25.0, rel=1e-12)


@pytest.mark.parametrize(
    ("sigma", "survivors", "colluders", "word"),
    [(31.9, 19, 3, "share"), (100.0, 3, 3, "exceed"), (100.0, 3, -1, "exceed"), (math.nan, 3, 1, "share"),
     (0.0, 3, 1, "share"), (2.0**37, 3, 2, "share")],
)  # fmt: skip
def test_shares_that_could_not_hide_anything_are_refused(
    sigma: float, survivors: int, colluders: int, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        noise_share_sigma(sigma, survivors, colluders)


def test_the_smallest_coordinate_decides_whether_shares_are_wide_enough() -> None:
    noise_share_sigma(np.array([100.0, 8.0]), 2, 1)
    with pytest.raises(ConfigError, match="share"):
        noise_share_sigma(np.array([100.0, 8.0 / math.sqrt(2)]), 2, 1)


def test_the_sampler_takes_its_part_of_delta_once() -> None:
    promised = PrivacyParams(1.0, 1e-5)
    assert ledger_budget(promised).delta == pytest.approx(0.99e-5, rel=1e-12)
    assert ledger_budget(promised).epsilon == 1.0
