"""Seats, packets and plans for tests of faults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scarcity.federation.packets import (
    Body,
    GossipPull,
    Header,
    Packet,
    Ready,
    Release,
    SecureSum,
    TrustedUpdate,
    Unprotected,
)
from scarcity.federation.secure_aggregation import encode
from scarcity.federation.secure_aggregation.messages import Advertise, Confirm, Masked, Reveal, Shares
from sim.chance import Chance
from sim.faults.attacks import BEHAVIOURS
from sim.faults.plan import (
    CUTS,
    Bandwidth,
    Byzantine,
    Churn,
    ClockSkew,
    Clog,
    Crash,
    Dropout,
    Duplicate,
    Exponential,
    FaultPlan,
    Fixed,
    Latency,
    LogNormal,
    Loss,
    Partition,
    Reorder,
    SlowHandler,
    Uniform,
)
from sim.faults.stage import FaultStage
from sim.faults.stages import STAGE_NAMES

SEATS = {
    "coordinator": "",
    "basket/basket-0": "basket-0",
    "basket/basket-1": "basket-1",
    **{f"c{i:04d}": f"basket-{i % 2}" for i in range(10)},
}
CLIENTS = tuple(name for name in SEATS if name.startswith("c0"))
END_S = 60.0


def packet_of(sender: str, body: Body | None = None, round_id: int = 1) -> Packet:
    """Return an unsigned packet of a sender."""
    return Packet(Header("fed", 0, "basket/basket-0", round_id, sender), body or GossipPull(()))


def resigned(header: Header, body: Body) -> Packet:
    """Return a packet with a signature that a test recognises."""
    return Packet(header, body, b"signed".ljust(64))


def stage_of(*entries: Any, seed: int = 7, plan: FaultPlan | None = None) -> FaultStage:
    """Return the stage of a plan of these entries, laws and faults in any order."""
    return FaultStage(plan or plan_of(*entries), SEATS, Chance(seed), END_S, sign=resigned)


def plan_of(*entries: Any) -> FaultPlan:
    """Return the plan of laws and faults in any order."""
    laws = Latency | Loss | Duplicate | Reorder | Bandwidth
    network = tuple(entry for entry in entries if isinstance(entry, laws))
    return FaultPlan(network, tuple(entry for entry in entries if not isinstance(entry, laws)))


def stage_bodies() -> dict[str, Body]:
    """Return a body for every stage of every mode, by the stage's name."""
    key, rows = bytes(32), np.zeros((1, 32), dtype=np.uint8)
    sums = {
        "advertise": Advertise(key, 0, key, key, key, bytes(64), bytes(64)),
        "shares": Shares(key, 0, np.zeros((1, 84), dtype=np.uint8)),
        "masked": Masked(key, 0, 32, 2, np.zeros(8, dtype=np.uint8), bytes(64)),
        "confirm": Confirm(key, 0, rows),
        "reveal": Reveal(key, 0, bytes(34), np.zeros((1, 34), dtype=np.uint8)),
    }
    return {
        "ready": Ready(1),
        **{name: SecureSum(encode(message)) for name, message in sums.items()},
        "release": Release(b"", np.array([1, -2, 3]), 1),
        "trustedupdate": TrustedUpdate(b"", np.array([1, -2, 3]), 1),
        "unprotected": Unprotected(b"", np.array([1.0, -2.0, 3.0]), 1),
    }


# Plans.

_GROUPS = ("*", "clients", "baskets", "coordinator", "basket-0", "basket-1", *CLIENTS[:4])
_SECONDS = st.floats(0.001, 50.0)
_SHARES = st.floats(0.0, 1.0)
_WINDOWS = st.one_of(
    st.just((0.0, math.inf)),
    st.tuples(st.floats(0.0, 30.0), st.floats(0.01, 30.0)).map(lambda w: (w[0], w[0] + w[1])),
)
_HEALED = st.tuples(st.floats(0.0, 30.0), st.floats(0.01, 30.0)).map(lambda w: (w[0], w[0] + w[1]))


def _groups(least: int, of: Sequence[str] = _GROUPS) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(of), min_size=least, max_size=3, unique=True).map(tuple)


_LAWS = st.one_of(
    st.builds(Fixed, _SECONDS),
    st.tuples(_SECONDS, _SECONDS).map(lambda pair: Uniform(min(pair), max(pair))),
    st.tuples(_SECONDS, _SECONDS).map(lambda pair: Exponential(max(pair), min(pair))),
    st.builds(LogNormal, _SECONDS, st.floats(0.1, 3.0)),
)


def _windowed(kind: Any, *parts: Any) -> st.SearchStrategy[Any]:
    return st.tuples(st.tuples(*parts), _groups(0), _WINDOWS).map(lambda made: kind(*made[0], made[1], *made[2]))


NETWORKS = st.one_of(
    _windowed(Latency, _LAWS),
    _windowed(Loss, _SHARES),
    _windowed(Duplicate, _SHARES),
    _windowed(Reorder, _SHARES, _SECONDS),
    _windowed(Bandwidth, st.floats(1.0, 1e9)),
)
_CLIENT_GROUPS = ("*", "clients", "basket-0", "basket-1", *CLIENTS[:4])
FAULTS = st.one_of(
    st.builds(
        lambda window, groups, symmetric, mode, stability_s: Partition(*window, groups, symmetric, mode, stability_s),
        _HEALED,
        st.sampled_from([("basket-0", "basket-1"), ("coordinator", "c0001", "c0002"), ("clients", "coordinator")]),
        st.booleans(),
        st.sampled_from(CUTS),
        st.one_of(st.just(math.inf), st.floats(0.01, 50.0)),
    ),
    st.builds(lambda window, group: Partition(*window, (group,)), _HEALED, st.sampled_from(["basket-0", "clients"])),
    st.builds(lambda window, of: Clog(*window, of), _HEALED, _groups(1)),
    st.builds(Crash, _SECONDS, _groups(1), st.one_of(st.just(math.inf), _SECONDS), st.booleans()),
    st.builds(Churn, st.floats(0.1, 100.0), _SECONDS, _groups(1)),
    st.builds(
        Dropout, st.sampled_from(STAGE_NAMES), _SHARES, _groups(1, _CLIENT_GROUPS), st.none() | st.integers(1, 5)
    ),
    st.builds(lambda of, s, window: SlowHandler(of, s, *window), _groups(1), _SECONDS, _WINDOWS),
    st.builds(ClockSkew, _groups(1), st.floats(-10.0, 10.0), st.floats(-0.5, 0.5)),
    st.builds(
        Byzantine, st.sampled_from(sorted(BEHAVIOURS)), _groups(1, _CLIENT_GROUPS), strength=st.none() | _SECONDS
    ),
    st.builds(Byzantine, st.sampled_from(sorted(BEHAVIOURS)), share=st.floats(0.25, 1.0)),
)
PLANS = st.builds(
    lambda network, faults: FaultPlan(tuple(network), tuple(faults)),
    st.lists(NETWORKS, max_size=5),
    st.lists(FAULTS, max_size=5),
)
