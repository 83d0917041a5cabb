"""Gossip's own work in a swarm of mode local: every client has a view of its basket that no basket has told it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import attrs
import numpy as np
import pytest

from scarcity.engine.arrays import FloatArray
from scarcity.federation.effects import ModelMade
from sim.swarms.live import execute
from sim.swarms.plan import GossipSeen, Observer, Outcome, Said, SwarmPlan
from sim.swarms.report import JSON_KEYS, render, to_json
from sim.swarms.settle import Views
from sim.swarms.swarm import SwarmConfig, run_swarm

LOCAL = SwarmConfig(synthetic=12, seed=1, privacy="local", epsilon=10.0)


@attrs.define
class Held:
    """A client with a view that a test gives it."""

    view: FloatArray | None
    asked: int = 0

    @property
    def has_local_view(self) -> bool:
        return self.view is not None

    def local_view(self) -> FloatArray | None:
        self.asked += 1
        return self.view


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_by_gossip_alone_every_client_has_its_baskets_aggregate(backend: str) -> None:
    result = run_swarm(attrs.evolve(LOCAL, backend=backend, rounds=2))
    assert result.status == 0
    assert result.gossip == GossipSeen(12, 12, pytest.approx(1.0, abs=1e-9), "nnm+trmean")
    assert "Gossip: 12 of 12 clients have a robust view of their basket by gossip alone," in render(result)
    assert max(map(len, render(result).splitlines())) <= 80
    assert tuple(json.loads(to_json(result))) == JSON_KEYS


def test_who_has_fallen_silent_is_not_counted() -> None:
    def impatient(plan: SwarmPlan, observe: Observer) -> Outcome:
        waits = {"ready_s": 1.0, "close_s": 1.0, "deadline_s": 2.0, "stage_s": 1.0}
        return execute(attrs.evolve(plan, settings=attrs.evolve(plan.settings, **waits)), observe)

    result = run_swarm(attrs.evolve(LOCAL, synthetic=18, drop=0.2, quorum=0.5), execute=impatient)
    assert result.status == 0, result.last_line
    assert result.gossip is not None
    silent = {reason.who for reason in result.dropped}
    assert silent
    assert result.gossip.clients == result.gossip.with_view == 18 - len(silent)


def test_where_gossip_carries_no_releases_nothing_is_said_of_it() -> None:
    result = run_swarm(attrs.evolve(LOCAL, privacy="none"))
    assert result.gossip is None
    assert "Gossip" not in render(result)


@pytest.fixture
def listening() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_interrupts_does_not_wait_for_gossip(backend: str) -> None:
    def interrupt(said: Said, _now: float) -> None:
        if isinstance(said, ModelMade):
            signal.raise_signal(signal.SIGINT)

    result = run_swarm(attrs.evolve(LOCAL, backend=backend), observe=interrupt)
    assert (result.status, result.gossip) == (130, None)
    assert result.last_line == "interrupted: 12 contributions had been made, 1 models"


def test_views_have_settled_when_each_is_its_baskets_aggregate() -> None:
    mean = np.array([3.0, 4.0])
    first, second, elsewhere = Held(mean.copy()), Held(None), Held(None)
    views = Views([(first, mean), (second, mean), (elsewhere, None)], "median")
    assert not views.settled()
    second.view = np.array([4.0, 3.0])
    assert not views.settled()
    assert views.seen() == GossipSeen(3, 2, pytest.approx((1.0 + 0.96) / 2), "median")
    second.view = 2 * mean
    assert views.settled()
    asked = second.asked
    assert views.settled()
    assert second.asked == asked


def test_without_an_aggregate_there_is_nothing_to_wait_for_or_compare() -> None:
    views = Views([(Held(np.ones(2)), None)], "average")
    assert views.settled()
    assert views.seen() == GossipSeen(1, 1, None, "average")
