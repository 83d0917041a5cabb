"""The table of what no participant accepts: one row, one refusal, and the boundary beside it."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from scarcity.errors import ConfigError
from scarcity.federation.secure_aggregation import (
    DpTerms,
    Mechanism,
    Reason,
    RoundSumConfig,
    SecureAggPolicy,
    SumConfigMessage,
    noise_tail,
    share_sigma,
    threshold_for,
)
from scarcity.federation.secure_aggregation.messages import Withdrawn
from tests.secure_aggregation_world import CENTRE, SCOPE, World, hash_of, key_of, messages_of, signed

WORLD = World(7)
NOISE = DpTerms(Mechanism.GAUSSIAN, mu=0.5, sigma_low=100.0, sigma_high=100.0)


def answer(config: RoundSumConfig, policy: SecureAggPolicy | None = None, **changes: Any) -> list[Any]:
    return WORLD.client("c00", policy=policy, **changes).begin(signed(config))


def test_a_config_as_pinned_is_accepted() -> None:
    assert messages_of(answer(WORLD.config()))
    assert messages_of(answer(WORLD.config(dp=NOISE), WORLD.policy(dp=NOISE)))


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("UNSUPPORTED", {"suite": 2}),
        ("UNSUPPORTED", {"graph": "harary"}),
        ("WEAK_CONFIG", {"threshold": 1, "min_survivors": 5}),
        ("WEAK_CONFIG", {"threshold": 4, "min_survivors": 5}),
        ("WEAK_CONFIG", {"threshold": 8, "min_survivors": 8}),
        ("WEAK_CONFIG", {"min_survivors": 4}),
        ("WEAK_CONFIG", {"min_survivors": 8}),
        ("WEAK_CONFIG", {"model_hash": hash_of("another model")}),
        ("WEAK_CONFIG", {"dimension": 4}),
        ("WEAK_CONFIG", {"clip": 99.0}),
        ("WEAK_CONFIG", {"scale": 2.0}),
        ("WEAK_CONFIG", {"w_max": 2}),
        ("WEAK_CONFIG", {"participants": ("c00", "c01")}),
        ("WEAK_CONFIG", {"dp": NOISE}),
        ("BAD_MEMBERS", {"participants": ("c00", "c01", "c02", "stranger")}),
        ("BAD_MEMBERS", {"participants": ("c00", "c01", "c02", "nobody")}),
    ],
)
def test_a_weaker_config_is_refused_and_its_coordinator_hears_why(reason: str, changes: dict[str, Any]) -> None:
    refused, outgoing = answer(WORLD.config(**changes))
    assert refused.reason is Reason[reason]
    assert refused.detail
    assert isinstance(outgoing.message, Withdrawn)
    assert outgoing.message.reason == reason


@pytest.mark.parametrize(
    "dp",
    [
        DpTerms(),
        attrs.evolve(NOISE, mu=0.6),
        attrs.evolve(NOISE, sigma_low=99.0),
    ],
    ids=["none", "larger mu", "less noise"],
)
def test_weaker_noise_than_pinned_is_refused(dp: DpTerms) -> None:
    assert answer(WORLD.config(dp=dp), WORLD.policy(dp=NOISE))[0].reason is Reason.WEAK_CONFIG


def test_stronger_noise_than_pinned_is_accepted() -> None:
    stronger = DpTerms(Mechanism.GAUSSIAN, 0.25, 200.0, 200.0)
    assert messages_of(answer(WORLD.config(dp=stronger), WORLD.policy(dp=NOISE)))


@pytest.mark.parametrize(("changes"), [{"n_min": 8}, {"min_survivors": 6}, {"members": frozenset({"c00", "c01"})}])
def test_a_stricter_policy_refuses_what_another_accepts(changes: dict[str, Any]) -> None:
    assert messages_of(answer(WORLD.config())) != []
    assert answer(WORLD.config(), WORLD.policy(**changes))[0].reason in (Reason.WEAK_CONFIG, Reason.BAD_MEMBERS)


def test_shares_of_noise_below_eight_steps_are_refused_and_the_boundary_is_exact() -> None:
    for sigma, taken in ((8 * math.sqrt(5), True), (8 * math.sqrt(5) * 0.999, False)):
        dp = DpTerms(Mechanism.GAUSSIAN, 1.0, sigma, sigma)
        outputs = answer(WORLD.config(dp=dp), WORLD.policy(dp=dp))
        assert (outputs[0].__class__.__name__ == "Mark") is taken


def test_the_share_of_noise_is_sized_by_the_pinned_colluders() -> None:
    dp = DpTerms(Mechanism.GAUSSIAN, 1.0, 17.0, 17.0)  # 17 / sqrt(5) < 8 <= 17 / sqrt(4)
    assert answer(WORLD.config(dp=dp), WORLD.policy(dp=dp))[0].reason is Reason.WEAK_CONFIG
    assert messages_of(answer(WORLD.config(dp=dp), WORLD.policy(dp=dp, n_min=4, max_colluders=1)))


@pytest.mark.parametrize("bits", [32, 64])
def test_overflow_is_refused_and_its_boundary_is_exact(bits: int) -> None:
    largest = (2 ** (bits - 1) - 1) // 7  # 2 * 7 * bound < 2^bits
    for bound, taken in ((largest, True), (largest + 1, False)):
        terms = {"clip": 1.0, "scale": 1.0, "w_max": min(bound, 2**53), "bits": bits}
        if bits == 64:
            terms |= {"clip": float(2**10), "w_max": bound // 2**10 + (not taken)}
        outputs = answer(WORLD.config(**terms), WORLD.policy(**{k: v for k, v in terms.items() if k != "bits"}))
        assert (outputs[0].__class__.__name__ == "Mark") is taken
        if not taken:
            assert outputs[0].reason is Reason.OVERFLOW


def test_noise_counts_towards_overflow() -> None:
    terms = {"clip": 1.0, "scale": 1.0, "w_max": (2**31 - 1) // 7}
    dp = DpTerms(Mechanism.GAUSSIAN, 1.0, 100.0, 100.0)
    assert answer(WORLD.config(bits=32, dp=dp, **terms), WORLD.policy(dp=dp, **terms))[0].reason is Reason.OVERFLOW
    terms["w_max"] -= noise_tail(WORLD.config(dp=dp), 0)
    assert messages_of(answer(WORLD.config(bits=32, dp=dp, **terms), WORLD.policy(dp=dp, **terms)))


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("WRONG_FEDERATION", {"federation": "other"}),
        ("WRONG_FEDERATION", {"epoch": 2}),
        ("WRONG_FEDERATION", {"roster_root": hash_of("another roster")}),
        ("BAD_MEMBERS", {"participants": ("c01", "c02", "c03")}),
        ("NO_POLICY", {"scope": "basket/other"}),
    ],
)
def test_a_config_of_another_place_is_refused_in_silence(reason: str, changes: dict[str, Any]) -> None:
    (refused,) = answer(WORLD.config(**changes))
    assert refused.reason is Reason[reason]


def test_only_the_pinned_coordinator_may_open_a_sum() -> None:
    other = WORLD.config(coordinator_key=key_of("basket/b").verify_key.encode())
    client = WORLD.client("c00")
    assert client.begin(signed(other, "basket/b"))[0].reason is Reason.BAD_SIGNATURE
    assert client.begin(signed(WORLD.config(), "basket/b"))[0].reason is Reason.BAD_SIGNATURE
    assert client.begin(SumConfigMessage(WORLD.config(), bytes(64)))[0].reason is Reason.BAD_SIGNATURE
    assert client.begin(signed(WORLD.config(), CENTRE))[0].__class__.__name__ == "Mark"


@pytest.mark.parametrize(
    "changes",
    [
        {"participants": ()},
        {"participants": ("c01", "c00")},
        {"participants": ("c00", "c00")},
        {"bits": 16},
        {"clip": 0.0},
        {"clip": math.inf},
        {"scale": -1.0},
        {"w_max": 0},
        {"dimension": 0},
        {"dimension": 10**6 + 1},
        {"attempt": 2**32 - 1},
        {"round_id": -1},
        {"model_hash": b"short"},
        {"coordinator_key": b""},
        {"stage_s": 0.0},
        {"scale": 1e308, "clip": 1e308},
        {"scale": 2.0**62, "clip": 1.5},
    ],
)
def test_a_config_that_means_nothing_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WORLD.config(**changes)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("harary", {"graph": "harary"}),
        ("max_colluders", {"n_min": 3, "max_colluders": 1}),
        ("without noise", {"n_min": 2}),
    ],
)
def test_a_policy_that_protects_nobody_cannot_be_pinned(match: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=match):
        WORLD.policy(**changes)


@pytest.mark.parametrize(
    "terms",
    [
        (Mechanism.GAUSSIAN, 0.0, 1.0, 1.0),
        (Mechanism.GAUSSIAN, 1.0, 2.0, 1.0),
        (Mechanism.NONE, 1.0, 0.0, 0.0),
        (Mechanism.GAUSSIAN, 1.0, 1.0, 1e308),
    ],
)
def test_noise_terms_without_noise_are_refused(terms: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        DpTerms(*terms)


def test_released_inputs_need_no_company() -> None:
    alone = World(1, released=True)
    assert messages_of(alone.client("c00").begin(signed(alone.config())))


def test_the_threshold_leaves_no_room_for_two_quorums_that_honest_members_do_not_share() -> None:
    for n in range(3, 2001):
        t, colluders = threshold_for(n), (n - 1) // 3
        assert n >= t > 2 * colluders
        assert 2 * t - colluders > n


@pytest.mark.parametrize(("m", "c"), [(1, 0), (3, 0), (7, 2), (70, 10), (67, 33)])
def test_any_legal_survivors_carry_at_least_the_noise_of_the_sum(m: int, c: int) -> None:
    share = share_sigma(100.0, m, c)
    for survivors in range(m, 2 * m):
        assert (survivors - c) * share**2 >= 100.0**2 * (1 - 1e-12)


def test_a_policy_may_be_found_by_a_function() -> None:
    client = WORLD.client("c00", policies=lambda scope: WORLD.policy() if scope == SCOPE else None)
    assert messages_of(client.begin(signed(WORLD.config())))
