"""Trust is lost faster than gained, and proofs end it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from scarcity.errors import ConfigError, UnknownClientError
from scarcity.federation.codec import sign_packet
from scarcity.federation.packets import Header, Release
from scarcity.federation.refusals import HARMLESS, Code, Equivocation, reject
from scarcity.federation.trust_scorer import TrustConfig, TrustScorer, lower_bound

KEY = SigningKey(b"a" * 32)
PUBLIC = bytes(KEY.verify_key)


def release(value: int, *, round_id: int = 1, key: SigningKey = KEY, sender: str = "a") -> Equivocation:
    packets = [
        sign_packet(Header("f", 1, "basket/d", round_id, sender), Release(b"", np.array([v]), 1), key)
        for v in (0, value)
    ]
    return Equivocation(packets[0], packets[1])


def test_a_newcomer_stands_at_the_floor() -> None:
    scorer = TrustScorer(["a", "b"])
    assert scorer.scores() == {"a": 0.1, "b": 0.1}


def test_good_contributions_raise_the_score_and_one_fault_costs_more_than_three_of_them_gain() -> None:
    scorer = TrustScorer(["a"])
    scores = []
    for _ in range(20):
        scorer.contributed("a")
        scores.append(scorer.score("a"))
    assert scores == sorted(scores)
    before = scorer.score("a")
    scorer.refused(reject("a", Code.SIGNATURE, "x"))
    fallen = scorer.score("a")
    for _ in range(3):
        scorer.contributed("a")
    assert fallen < scorer.score("a") < before


def test_an_on_off_attacker_scores_below_an_honest_member() -> None:
    scorer = TrustScorer(["honest", "on-off"])
    for turn in range(200):
        scorer.contributed("honest")
        scorer.contributed("on-off")
        if turn % 10 == 0:
            scorer.refused(reject("on-off", Code.NORM, "x"))
    assert scorer.score("on-off") < 0.75 * scorer.score("honest")


def test_a_fault_is_remembered_longer_than_good_behaviour() -> None:
    def after_a_fault_and_thirty_rounds(bad_memory: float) -> float:
        scorer = TrustScorer(["a"], TrustConfig(bad_memory=bad_memory))
        scorer.refused(reject("a", Code.NORM, "x"))
        for _ in range(30):
            scorer.contributed("a")
        return scorer.score("a")

    assert after_a_fault_and_thirty_rounds(0.99) < after_a_fault_and_thirty_rounds(0.95) - 0.02


def test_silence_changes_nothing() -> None:
    scorer = TrustScorer(["a", "silent"])
    for _ in range(5):
        scorer.contributed("silent")
    before = scorer.score("silent")
    for _ in range(50):
        scorer.contributed("a")
    assert scorer.score("silent") == before


def test_a_spent_identity_is_never_below_a_fresh_one() -> None:
    scorer = TrustScorer(["spent", "fresh"])
    for _ in range(100):
        scorer.refused(reject("spent", Code.MALFORMED, "x"))
    assert scorer.score("spent") == scorer.score("fresh")


@pytest.mark.parametrize("code", sorted(HARMLESS, key=lambda code: code.value))
def test_late_and_resent_packets_are_no_faults(code: Code) -> None:
    scorer = TrustScorer(["a"])
    for _ in range(10):
        scorer.contributed("a")
    before = scorer.score("a")
    scorer.refused(reject("a", code, "x"))
    assert scorer.score("a") == before


def test_likeness_to_the_aggregate_is_weak_evidence() -> None:
    scorer = TrustScorer(["unlike", "faulty"])
    for name in ("unlike", "faulty"):
        for _ in range(10):
            scorer.contributed(name)
    start = scorer.score("unlike")
    scorer.resembled("unlike", 0.0)
    scorer.refused(reject("faulty", Code.NORM, "x"))
    assert 0 < start - scorer.score("unlike") < (start - scorer.score("faulty")) / 10
    with pytest.raises(ConfigError):
        scorer.resembled("unlike", math.nan)


def test_a_proof_means_quarantine_until_the_roster_drops_its_author() -> None:
    scorer = TrustScorer(["a", "b"])
    assert scorer.convict(release(1), PUBLIC)
    for _ in range(50):
        scorer.contributed("a")
    assert scorer.is_quarantined("a")
    assert scorer.score("a") == 0.0
    assert list(scorer.proofs) == ["a"]
    scorer.update_members(["a", "b"])
    assert scorer.is_quarantined("a")
    scorer.update_members(["b"])
    scorer.update_members(["a", "b"])
    assert not scorer.is_quarantined("a")


def test_a_false_proof_convicts_nobody() -> None:
    scorer = TrustScorer(["a"])
    two_rounds = Equivocation(release(1).first, release(1, round_id=2).second)
    forged = release(1, key=SigningKey(b"f" * 32))
    same_twice = release(0)
    for proof in (two_rounds, forged, same_twice, release(1, sender="stranger")):
        assert not scorer.convict(proof, PUBLIC)
    assert scorer.score("a") == 0.1


def test_strangers_are_not_scored() -> None:
    scorer = TrustScorer(["a"])
    scorer.refused(reject("stranger", Code.SIGNATURE, "x"))
    assert list(scorer.scores()) == ["a"]
    with pytest.raises(UnknownClientError, match="stranger"):
        scorer.contributed("stranger")
    with pytest.raises(UnknownClientError, match="stranger"):
        scorer.score("stranger")


def exact_quantile(good: int, bad: int) -> float:
    """5 % quantile of Beta(1 + good, 1 + bad): P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)."""
    n, low, high = good + bad + 1, 0.0, 1.0
    for _ in range(50):
        x = (low + high) / 2
        mass = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(good + 1, n + 1))
        low, high = (x, high) if mass < 0.05 else (low, x)
    return low


def test_the_lower_bound_stays_near_the_exact_quantile() -> None:
    errors = [lower_bound(good, bad, 1.645) - exact_quantile(good, bad) for good in range(21) for bad in range(21)]
    assert min(errors) > -0.041
    assert max(errors) < 0.064


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0.01, 100))
def test_more_good_evidence_never_lowers_the_bound_and_more_bad_never_raises_it(
    good: float, bad: float, more: float
) -> None:
    base = lower_bound(good, bad, 1.645)
    assert 0 <= base <= 1
    assert lower_bound(good, bad + more, 1.645) <= base + 1e-9
    assert lower_bound(good + more, bad, 1.645) >= base - 1e-9


@given(st.lists(st.sampled_from(["good", "fault", "like", "unlike"]), max_size=60))
def test_scores_stay_between_floor_and_one(events: list[str]) -> None:
    scorer = TrustScorer(["a"])
    for event in events:
        if event == "good":
            scorer.contributed("a")
        elif event == "fault":
            scorer.refused(reject("a", Code.NORM, "x"))
        else:
            scorer.resembled("a", float(event == "like"))
        assert 0.1 <= scorer.score("a") <= 1.0


@pytest.mark.parametrize(
    "bad", [{"floor": 0.0}, {"good_memory": 0.99, "bad_memory": 0.9}, {"fault_weight": 0.5}, {"weak_weight": math.nan}]
)
def test_settings_that_would_gain_faster_than_lose_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TrustConfig(**bad)
