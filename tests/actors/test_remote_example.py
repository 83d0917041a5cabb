"""The program that the design shows to users, over TCP and mutual TLS: baskets of two hospitals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import Actor, ActorRef, ActorSystem, Context, Down, Mailbox, Restart, handles, message
from actors.links import TcpTransport
from tests.links_world import Authority, config, plain, until

pytestmark = pytest.mark.anyio


@message("example.update")
class Update:
    round_id: int
    vector: np.ndarray[Any, Any]


@message("example.get_summary")
class GetSummary:
    pass


@message("example.summary")
class Summary:
    count: int


@message("example.tick")
class Tick:
    pass


class Basket(Actor):
    mailbox = Mailbox(256, overflow="reject")
    restart = Restart("transient", max_restarts=5, within_s=30.0)

    def __init__(self) -> None:
        self.latest: dict[ActorRef | None, np.ndarray[Any, Any]] = {}
        self.num_ticks = 0

    async def on_start(self, ctx: Context) -> None:
        ctx.every(0.01, Tick())

    @handles(Tick)
    def tick(self, msg: Tick, ctx: Context) -> None:
        self.num_ticks += 1

    @handles(Update)
    def update(self, msg: Update, ctx: Context) -> None:
        if ctx.sender is not None:
            ctx.monitor(ctx.sender)
        self.latest[ctx.sender] = msg.vector

    @handles(GetSummary)
    def summary(self, msg: GetSummary, ctx: Context) -> Summary:
        return Summary(len(self.latest))

    @handles(Down)
    def peer_down(self, down: Down, ctx: Context) -> None:
        self.latest.pop(down.ref, None)


class Hospital(Actor):
    def __init__(self, basket: ActorRef) -> None:
        self.basket = basket

    @handles(Update)
    def pass_on(self, msg: Update, ctx: Context) -> None:
        ctx.tell(self.basket, msg)


@pytest.mark.parametrize("secure", ["tcp", "tls"])
async def test_the_users_view_holds_over_a_network(secure: str, tmp_path: Path) -> None:
    security = plain if secure == "tcp" else Authority(tmp_path).tls
    here, there = TcpTransport(config("a"), security("a")), TcpTransport(config("b"), security("b"))
    vector = np.arange(10_000.0)
    async with ActorSystem("b", transport=there) as far_system, ActorSystem("a", transport=here) as system:
        here.dial("b", "127.0.0.1", there.port)
        kept: list[Basket] = []

        def make() -> Basket:
            kept.append(Basket())
            return kept[-1]

        basket = await system.spawn(make, name="healthcare/basket")
        await far_system.spawn(make, name="finance/basket")
        far = system.ref("scarcity://b/finance/basket")
        assert await far.ask(GetSummary(), deadline=5.0) == Summary(0)
        for one in (basket, far):
            one.tell(Update(1, vector))
            assert await one.ask(GetSummary(), deadline=5.0) == Summary(1)  # the ask does not overtake the tell
        hospital = await system.spawn(lambda: Hospital(far))
        hospital.tell(Update(2, vector))
        await until(lambda: len(kept[1].latest) == 2)
        np.testing.assert_array_equal(kept[1].latest[far_system.ref(str(hospital.address))], vector)
        system.stop(hospital)
        await until(lambda: len(kept[1].latest) == 1)  # its Down came
        await until(lambda: kept[0].num_ticks > 0)
