"""Whatever a peer sends, the validator returns and never raises."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nacl.signing import SigningKey

from scarcity.federation.content import Expected
from scarcity.federation.effects import Reject
from scarcity.federation.packets import (
    BasketReport,
    Body,
    Declined,
    GossipPush,
    Header,
    Model,
    Packet,
    Ready,
    Release,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unprotected,
)
from scarcity.federation.refusals import code_of
from scarcity.federation.roster import COORDINATOR, Member, Role, Roster, basket_id
from scarcity.federation.validator import Validator

KEYS = {name: SigningKey(name.encode().ljust(32)) for name in (COORDINATOR, "basket/d", "c1", "c2")}
ROLES = {COORDINATOR: Role.COORDINATOR, basket_id("d"): Role.BASKET}
ROSTER = Roster(
    "fed",
    1,
    tuple(
        Member(name, ROLES.get(name, Role.CLIENT), "" if name == COORDINATOR else "d", bytes(key.verify_key))
        for name, key in KEYS.items()
    ),
)
IDS = st.sampled_from([*KEYS, "stranger", ""])
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 8)
SHAPES = st.sampled_from([(), (0,), (3,), (4,), (1, 3)])
NUMBERS = st.floats()
BLOB = st.sampled_from([b"", b"s", b"\x00" * 64])
BODIES: st.SearchStrategy[Body] = st.one_of(
    st.builds(Release, BLOB, arrays(np.int64, SHAPES), INTS),
    st.builds(TrustedUpdate, BLOB, arrays(np.int64, SHAPES), INTS),
    st.builds(Unprotected, BLOB, arrays(np.float64, SHAPES), INTS),
    st.builds(Model, INTS, BLOB, arrays(np.float64, SHAPES), NUMBERS, INTS, NUMBERS, BLOB),
    st.builds(BasketReport, NUMBERS, INTS, NUMBERS),
    st.builds(Ready, INTS),
    st.builds(Declined, st.text(max_size=3)),
    st.builds(SecureSum, BLOB),
    st.builds(GossipPush, st.just((b"garbage",))),
)
HEADERS = st.builds(
    Header,
    st.sampled_from(["fed", "other"]),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from(["basket/d", "layer2", "x"]),
    INTS,
    IDS,
)
EXPECTED = st.none() | st.builds(
    Expected,
    round_id=st.just(4),
    mode=st.sampled_from(TrustMode),
    dimension=st.just(3),
    schema_hash=st.just(b"s"),
    norm_bound=st.sampled_from([10.0, float("inf")]),
)


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.builds(Packet, HEADERS, BODIES, BLOB), IDS, EXPECTED), min_size=1, max_size=8),
    st.sampled_from([COORDINATOR, "basket/d", "c1"]),
)
def test_any_unsigned_packet_is_refused_with_a_code_or_needs_no_signature(
    packets: list[tuple[Packet, str, Expected | None]], own_id: str
) -> None:
    validator = Validator(own_id, ROSTER)
    for packet, sender, expected in packets:
        refusal = validator.check(packet, sender, 0.0, expected)
        if refusal is None:
            assert isinstance(packet.body, SecureSum | GossipPush)
        else:
            assert isinstance(refusal, Reject)
            code_of(refusal)
    assert validator.proofs == {}
