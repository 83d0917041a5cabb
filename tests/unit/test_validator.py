"""What may reach a core, and the reason when something may not."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nacl.signing import SigningKey

from scarcity.errors import ConfigError, UnknownClientError
from scarcity.federation.codec import sign_packet
from scarcity.federation.content import Expected, check_body, expected_in, norm_of
from scarcity.federation.packets import (
    KINDS,
    LAYER2,
    Aborted,
    Absent,
    Ack,
    BasketReport,
    Body,
    Declined,
    GossipPull,
    GossipPush,
    Header,
    Model,
    ModelRequest,
    NoiseTerms,
    Packet,
    Ready,
    Release,
    RosterNotice,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unit,
    Unprotected,
    basket_scope,
)
from scarcity.federation.refusals import HARMLESS, Code, code_of
from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id
from scarcity.federation.validator import MAY_SAY, Validator, ValidatorLimits, scope_between

DOMAINS = {"h1": "health", "h2": "health", "b1": "finance"}
BASKETS = {basket_id(domain): domain for domain in ("health", "finance")}
KEYS = {name: SigningKey(name.encode().ljust(32)) for name in [COORDINATOR, *BASKETS, *DOMAINS]}
ROSTER = Roster(
    "fed",
    1,
    tuple(
        Member(
            name,
            Role.CLIENT if name in DOMAINS else Role.BASKET if name in BASKETS else Role.COORDINATOR,
            {**DOMAINS, **BASKETS}.get(name, ""),
            bytes(key.verify_key),
        )
        for name, key in KEYS.items()
    ),
)
HEALTH = basket_id("health")
SCHEMA = b"s" * 32
EXPECTED = Expected(round_id=5, mode=TrustMode.LOCAL, dimension=3, schema_hash=SCHEMA, norm_bound=100.0)
RELEASE = Release(SCHEMA, np.array([1, 2, 3]), 1)
MODEL = Model(5, SCHEMA, np.ones(3), 2.0, 2, 0.0, b"c")
CONFIG = RoundConfig(RoundSettings(), NoiseTerms(), SCHEMA, 3, b"r", b"")
BODIES: dict[type, Body] = {
    RoundConfig: CONFIG,
    RosterNotice: RosterNotice(b"", b""),
    ModelRequest: ModelRequest(),
    Ready: Ready(1),
    Declined: Declined("budget"),
    Release: RELEASE,
    TrustedUpdate: TrustedUpdate(SCHEMA, np.array([1, 2, 3]), 1),
    Unprotected: Unprotected(SCHEMA, np.ones(3), 1),
    Ack: Ack(b"d"),
    SecureSum: SecureSum(b""),
    BasketReport: BasketReport(2.0, 2, 0.0),
    Absent: Absent("quorum", 1, 2),
    Aborted: Aborted("quorum"),
    Model: MODEL,
    GossipPush: GossipPush(()),
    GossipPull: GossipPull(()),
}
MODE_OF: dict[type, TrustMode] = {
    TrustedUpdate: TrustMode.CENTRAL,
    Unprotected: TrustMode.NONE,
    Ready: TrustMode.DISTRIBUTED,
}


def packet_from(author: str, body: Body, receiver: str = HEALTH, *, round_id: int = 5, **place: Any) -> Packet:
    scope = scope_between(ROSTER.member(author), ROSTER.member(receiver))
    header = attrs.evolve(Header("fed", 1, scope, round_id, author), **place)
    return sign_packet(header, body, KEYS[author])


def verdict(validator: Validator, packet: Packet, sender: str = "h1", **kwargs: Any) -> Code | None:
    refusal = validator.check(packet, sender, kwargs.pop("now", 0.0), kwargs.pop("expected", EXPECTED))
    return None if refusal is None else code_of(refusal)


def basket(**limits: Any) -> Validator:
    return Validator(HEALTH, ROSTER, ValidatorLimits(**limits))


def test_the_table_of_who_may_say_what_names_every_kind() -> None:
    assert set(MAY_SAY) == set(KINDS.values()) == set(BODIES)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize(
    ("author", "receiver"),
    [(a, r) for a in KEYS for r in ("h1", HEALTH, COORDINATOR) if a != r],
)
def test_only_what_the_table_allows_inside_one_basket_passes(kind: type, author: str, receiver: str) -> None:
    expected = attrs.evolve(EXPECTED, mode=MODE_OF.get(kind, TrustMode.LOCAL))
    one, other = ROSTER.member(author), ROSTER.member(receiver)
    allowed = (one.role, other.role) in MAY_SAY[kind]
    at_home = COORDINATOR in (author, receiver) or one.domain == other.domain
    code = verdict(Validator(receiver, ROSTER), packet_from(author, BODIES[kind], receiver), author, expected=expected)
    assert code is (None if allowed and at_home else Code.NOT_ALLOWED)


def test_a_basket_hands_on_what_the_coordinator_signed_and_nobody_else_does() -> None:
    for body in (CONFIG, MODEL, Aborted("x")):
        packet = packet_from(COORDINATOR, body, "h1")
        assert verdict(Validator("h1", ROSTER), packet, HEALTH) is None
        for relay in ("h2", basket_id("finance")):
            assert verdict(Validator("h1", ROSTER), packet, relay) is Code.NOT_THE_AUTHOR
    assert verdict(basket(), packet_from(COORDINATOR, CONFIG, HEALTH), "h1") is Code.NOT_THE_AUTHOR


def test_nobody_speaks_for_somebody_else() -> None:
    assert verdict(basket(), packet_from("h2", RELEASE), "h1") is Code.NOT_THE_AUTHOR
    assert verdict(basket(), packet_from("h1", RELEASE), "stranger") is Code.UNKNOWN_SENDER
    assert verdict(basket(), packet_from("h1", RELEASE, sender="stranger"), "h1") is Code.UNKNOWN_SENDER


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ({"federation": "other"}, Code.FEDERATION),
        ({"epoch": 2}, Code.STALE_ROSTER),
        ({"scope": LAYER2}, Code.SCOPE),
        ({"scope": basket_scope("finance")}, Code.SCOPE),
        ({"round_id": 2}, Code.STALE),
        ({"round_id": -1}, Code.RANGE),
        ({"round_id": 7}, Code.AHEAD),
        ({"round_id": 2**62}, Code.AHEAD),
    ],
)
def test_a_packet_of_another_place_is_refused(place: dict[str, Any], code: Code) -> None:
    assert verdict(basket(), packet_from("h1", RELEASE, **place)) is code


def test_rounds_within_staleness_and_the_next_one_pass() -> None:
    for round_id in (3, 4, 5, 6):
        assert verdict(basket(), packet_from("h1", RELEASE, round_id=round_id)) is None


def test_the_coordinator_may_be_far_ahead_of_one_who_slept() -> None:
    packet = packet_from(COORDINATOR, CONFIG, "h1", round_id=500)
    assert verdict(Validator("h1", ROSTER), packet, COORDINATOR) is None


def test_a_notice_of_a_new_roster_comes_with_its_new_epoch() -> None:
    packet = packet_from(COORDINATOR, RosterNotice(b"", b""), "h1", epoch=2)
    assert verdict(Validator("h1", ROSTER), packet, COORDINATOR) is None


def test_without_an_open_round_contributions_are_refused_and_may_come_again() -> None:
    validator, packet = basket(), packet_from("h1", RELEASE)
    assert verdict(validator, packet, expected=None) is Code.NO_ROUND
    assert verdict(validator, packet) is None


@pytest.mark.parametrize("mode", TrustMode)
@pytest.mark.parametrize("kind", [Release, TrustedUpdate, Unprotected, Ready])
def test_a_contribution_belongs_to_one_trust_mode(mode: TrustMode, kind: type) -> None:
    code = verdict(basket(), packet_from("h1", BODIES[kind]), expected=attrs.evolve(EXPECTED, mode=mode))
    assert code is (None if MODE_OF.get(kind, TrustMode.LOCAL) is mode else Code.NOT_ALLOWED)


def test_the_same_body_again_is_a_duplicate_and_no_fault() -> None:
    validator = basket()
    assert verdict(validator, packet_from("h1", RELEASE)) is None
    assert verdict(validator, packet_from("h1", RELEASE)) is Code.DUPLICATE
    assert Code.DUPLICATE in HARMLESS
    assert validator.counts == {Code.DUPLICATE: 1}


def test_another_body_with_a_valid_signature_is_an_equivocation_and_both_are_kept() -> None:
    validator = basket()
    one, two = packet_from("h1", RELEASE), packet_from("h1", attrs.evolve(RELEASE, vector=np.array([3, 2, 1])))
    assert verdict(validator, one) is None
    assert verdict(validator, two) is Code.EQUIVOCATION
    assert verdict(validator, two) is Code.EQUIVOCATION
    (proof,) = validator.proofs.values()
    assert (proof.first, proof.second, proof.author) == (one, two, "h1")
    assert proof.holds(ROSTER.keys["h1"])
    assert not proof.holds(ROSTER.keys["h2"])


def test_a_second_body_out_of_bounds_is_an_equivocation_too() -> None:
    validator = basket()
    assert verdict(validator, packet_from("h1", RELEASE)) is None
    assert verdict(validator, packet_from("h1", attrs.evolve(RELEASE, weight=9))) is Code.EQUIVOCATION


def test_a_forged_second_body_proves_nothing_against_its_alleged_author() -> None:
    validator = Validator("h1", ROSTER)
    assert verdict(validator, packet_from(COORDINATOR, MODEL, "h1"), COORDINATOR) is None
    forged = attrs.evolve(packet_from(COORDINATOR, MODEL, "h1"), body=attrs.evolve(MODEL, count=9))
    refusal = validator.check(forged, HEALTH, 0.0, EXPECTED)
    assert refusal is not None
    assert (code_of(refusal), refusal.peer) == (Code.SIGNATURE, HEALTH)
    assert validator.proofs == {}


def test_two_models_of_the_coordinator_are_its_own_fault_whoever_relays_them() -> None:
    validator = Validator("h1", ROSTER)
    validator.check(packet_from(COORDINATOR, MODEL, "h1"), COORDINATOR, 0.0, EXPECTED)
    other = packet_from(COORDINATOR, attrs.evolve(MODEL, count=9), "h1")
    refusal = validator.check(other, HEALTH, 0.0, EXPECTED)
    assert refusal is not None
    assert (code_of(refusal), refusal.peer) == (Code.EQUIVOCATION, COORDINATOR)


def test_a_statement_that_could_not_be_kept_may_come_again() -> None:
    validator, packet = basket(), packet_from("h1", RELEASE)
    assert verdict(validator, packet) is None
    validator.forget(packet)
    assert verdict(validator, packet) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (attrs.evolve(RELEASE, schema_hash=b"other"), Code.SCHEMA),
        (attrs.evolve(RELEASE, vector=np.array([1, 2])), Code.SHAPE),
        (attrs.evolve(RELEASE, vector=np.array([[1, 2, 3]])), Code.SHAPE),
        (attrs.evolve(RELEASE, vector=np.array(1)), Code.SHAPE),
        (attrs.evolve(RELEASE, vector=np.ones(3)), Code.SHAPE),
        (attrs.evolve(RELEASE, vector=np.array([1, 2, 3], dtype=np.int32)), Code.SHAPE),
        (attrs.evolve(RELEASE, vector=np.array([100, 1, 0])), Code.NORM),
        (attrs.evolve(RELEASE, vector=np.array([-(2**63), 0, 0])), Code.NORM),
        (attrs.evolve(RELEASE, weight=0), Code.RANGE),
        (attrs.evolve(RELEASE, weight=2), Code.RANGE),
        (attrs.evolve(RELEASE, weight=True), Code.RANGE),
        (Unprotected(SCHEMA, np.array([1.0, math.nan, 0.0]), 1), Code.NOT_FINITE),
        (Unprotected(SCHEMA, np.array([1.0, 0.0, -math.inf]), 1), Code.NOT_FINITE),
        (attrs.evolve(MODEL, vector=np.array([math.inf, 0.0, 0.0])), Code.NOT_FINITE),
        (attrs.evolve(MODEL, weight=math.inf), Code.RANGE),
        (attrs.evolve(MODEL, count=0), Code.RANGE),
        (attrs.evolve(MODEL, noise_std=-1.0), Code.RANGE),
        (BasketReport(0.0, 1, 0.0), Code.RANGE),
        (BasketReport(math.inf, 1, 0.0), Code.RANGE),
        (BasketReport(1.0, 0, 0.0), Code.RANGE),
        (BasketReport(1.0, 1, math.inf), Code.RANGE),
        (Ready(0), Code.RANGE),
        (Ready(7), Code.RANGE),
    ],
)
def test_content_outside_the_bounds_is_refused_with_its_code(body: Body, code: Code) -> None:
    fault = check_body(body, EXPECTED)
    assert fault is not None
    assert fault[0] is code


@pytest.mark.parametrize("worst", [17, -17, 2**63 - 1, -(2**63) + 1, -(2**63)])
@pytest.mark.parametrize("kind", [Release, TrustedUpdate])
def test_no_coordinate_of_rows_is_larger_than_they_can_make_it(kind: type, worst: int) -> None:
    expected = attrs.evolve(EXPECTED, norm_bound=math.inf, unit_bound=16.0)
    for largest in (16, -16):
        assert check_body(kind(SCHEMA, np.array([1, largest, 0]), 1), expected) is None
    fault = check_body(kind(SCHEMA, np.array([1, worst, 0]), 1), expected)
    assert fault is not None
    assert fault[0] is Code.NORM


def test_bad_content_is_refused_before_the_signature_is_checked_and_is_not_remembered() -> None:
    validator = basket()
    packet = packet_from("h1", attrs.evolve(RELEASE, weight=9))
    assert verdict(validator, attrs.evolve(packet, signature=b"")) is Code.RANGE
    assert verdict(validator, packet_from("h1", RELEASE)) is None


def test_a_missing_or_foreign_signature_is_refused_and_leaves_no_trace() -> None:
    validator = basket()
    packet = packet_from("h1", RELEASE)
    foreign = sign_packet(packet.header, RELEASE, KEYS["h2"])
    for bad in (attrs.evolve(packet, signature=b""), foreign):
        assert verdict(validator, bad) is Code.SIGNATURE
    assert verdict(validator, packet) is None


def test_a_fast_sender_is_slowed_down_alone_and_recovers() -> None:
    validator = basket(burst=3.0, packets_per_s=2.0)
    packet = packet_from("h1", GossipPull(()))
    assert [verdict(validator, packet) for _ in range(4)] == [None, None, None, Code.RATE]
    assert verdict(validator, packet_from("h2", GossipPull(())), "h2") is None
    assert verdict(validator, packet, now=0.5) is None
    assert verdict(validator, packet, now=0.5) is Code.RATE
    assert verdict(validator, packet, now=-100.0) is Code.RATE
    assert [verdict(validator, packet, now=1e9) for _ in range(4)] == [None, None, None, Code.RATE]
    assert validator.counts[Code.RATE] == 4


def test_a_member_that_asks_for_the_model_again_and_again_is_answered_once_a_second() -> None:
    validator = basket(answers_burst=2.0)
    packet = packet_from("h1", ModelRequest())
    assert [verdict(validator, packet) for _ in range(4)] == [None, None, Code.RATE, Code.RATE]
    assert verdict(validator, packet_from("h2", ModelRequest()), "h2") is None
    assert verdict(validator, packet_from("h1", GossipPull(()))) is None
    passed = sum(verdict(validator, packet, now=tick / 64) is None for tick in range(1, 641))
    assert passed == 10
    assert validator.counts[Code.RATE] == 2 + 630
    logical = basket(packets_per_s=math.inf)
    assert {verdict(logical, packet) for _ in range(1000)} == {None}


def test_a_logical_clock_can_switch_the_bucket_off() -> None:
    validator = basket(packets_per_s=math.inf)
    packet = packet_from("h1", GossipPull(()))
    assert {verdict(validator, packet) for _ in range(1000)} == {None}


def test_statements_of_stale_rounds_are_forgotten_and_the_bound_holds() -> None:
    validator = basket(max_statements=2)
    for round_id in (4, 5, 6):
        assert verdict(validator, packet_from("h1", RELEASE, round_id=round_id)) is None
    assert validator.num_forgotten == 1
    later = attrs.evolve(EXPECTED, round_id=50)
    assert verdict(validator, packet_from("h1", RELEASE, round_id=50), expected=later) is None
    assert len(validator._said) == 1


def test_proofs_have_a_bound() -> None:
    validator = basket(max_proofs=1)
    for round_id in (4, 5):
        for weight in (0, 1):
            vector = np.array([weight, 0, 0])
            verdict(validator, packet_from("h1", attrs.evolve(RELEASE, vector=vector), round_id=round_id))
    assert len(validator.proofs) == 1
    assert validator.num_forgotten == 1


def test_a_new_roster_takes_the_place_of_the_old_one() -> None:
    validator = basket()
    without = Roster("fed", 2, tuple(member for member in ROSTER.members if member.id != "h1"))
    assert verdict(validator, packet_from("h1", RELEASE)) is None
    validator.adopt(without)
    assert verdict(validator, packet_from("h1", RELEASE)) is Code.UNKNOWN_SENDER
    assert verdict(validator, packet_from("h2", RELEASE), "h2") is Code.STALE_ROSTER
    assert verdict(validator, packet_from("h2", RELEASE, epoch=2), "h2") is None
    assert verdict(validator, packet_from("h2", RELEASE, epoch=2), "h2") is Code.DUPLICATE
    with pytest.raises(UnknownClientError):
        Validator("h1", without)


def test_what_was_said_in_another_epoch_is_half_of_no_equivocation() -> None:
    validator = basket()
    assert verdict(validator, packet_from("h1", RELEASE)) is None
    validator.adopt(Roster("fed", 2, ROSTER.members))
    other = attrs.evolve(RELEASE, vector=np.array([3, 2, 1]))
    assert verdict(validator, packet_from("h1", other, epoch=2)) is None
    assert validator.proofs == {}


def test_a_reason_starts_with_its_code_and_says_what_came() -> None:
    refusal = basket().check(packet_from("h1", RELEASE, round_id=9), "h1", 0.0, EXPECTED)
    assert refusal is not None
    assert refusal.peer == "h1"
    assert refusal.reason == "ahead: round 9, round 5 is open"


def test_what_a_config_expects_bounds_the_norm_where_the_bound_is_public() -> None:
    noise = NoiseTerms(steps=1000, sensitivity=2000.0, sigma=50.0)
    for mode, unit, bounded, max_weight in (
        (TrustMode.LOCAL, Unit.CLIENT, True, 1),
        (TrustMode.LOCAL, Unit.RECORD, False, 400),
        (TrustMode.DISTRIBUTED, Unit.CLIENT, False, 1),
        (TrustMode.NONE, Unit.CLIENT, False, 400),
    ):
        config = RoundConfig(RoundSettings(mode=mode, unit=unit), noise, SCHEMA, 16, b"", b"")
        expected = expected_in(7, config, max_rows=400)
        assert (expected.round_id, expected.dimension, expected.mode) == (7, 16, mode)
        assert math.isfinite(expected.norm_bound) is bounded
        assert expected.max_weight == max_weight


def test_honest_noise_stays_within_the_bound() -> None:
    rng = np.random.default_rng(3)
    steps, sigma, d = 1000, 300.0, 64
    config = RoundConfig(RoundSettings(), NoiseTerms(steps, 2.0 * steps, sigma), SCHEMA, d, b"", b"")
    expected = expected_in(1, config, max_rows=1)
    for _ in range(2000):
        direction = rng.normal(size=d)
        vector = np.trunc(steps * direction / np.linalg.norm(direction)) + np.rint(rng.normal(0, sigma, d))
        assert check_body(Release(SCHEMA, vector.astype(np.int64), 1), expected) is None


@given(arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e150, 1e150)))
def test_the_norm_agrees_with_the_obvious_one(vector: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    assert norm_of(vector) == pytest.approx(math.sqrt(math.fsum(float(v) * float(v) for v in vector)), 1e-12, 1e-150)


def test_the_norm_neither_overflows_nor_warns() -> None:
    assert norm_of(np.array([1e308, 1e308])) == pytest.approx(math.sqrt(2) * 1e308)
    assert norm_of(np.array([1.7e308, 1.7e308])) == math.inf
    assert norm_of(np.array([-(2**63), 0])) == 2.0**63
    assert norm_of(np.zeros(3)) == 0.0


@pytest.mark.parametrize(
    "bad", [{"packets_per_s": 0.0}, {"burst": math.nan}, {"max_statements": 0}, {"max_proofs": -1}]
)
def test_limits_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ValidatorLimits(**bad)
