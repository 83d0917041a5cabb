"""The example that the API is designed for: a basket that counts updates, loses one, fails and starts again."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import numpy as np
import pytest

from actors import Actor, ActorRef, ActorSystem, Context, Down, Mailbox, MailboxFull, Restart, handles, message

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@message("demo.update")
class Update:
    round_id: int
    vector: np.ndarray[Any, Any]


@message("demo.tick")
class Tick:
    pass


@message("demo.get_summary")
class GetSummary:
    pass


@message("demo.summary")
class Summary:
    num_clients: int
    num_ticks: int


@message("demo.submit")
class Submit:
    to: ActorRef
    update: Update


class Basket(Actor):
    mailbox = Mailbox(256, overflow="reject")
    restart = Restart("transient", max_restarts=5, within_s=30.0)

    def __init__(self) -> None:
        self.latest: dict[ActorRef | None, np.ndarray[Any, Any]] = {}
        self.ticks = 0

    async def on_start(self, ctx: Context) -> None:
        ctx.every(1.0, Tick())

    @handles(Tick)
    def tick(self, msg: Tick, ctx: Context) -> None:
        self.ticks += 1

    @handles(Update)
    def update(self, msg: Update, ctx: Context) -> None:
        if not np.isfinite(msg.vector).all():
            raise ValueError(f"round {msg.round_id}: not finite")
        if ctx.sender is not None and ctx.sender not in self.latest:
            ctx.monitor(ctx.sender)
        self.latest[ctx.sender] = msg.vector

    @handles(GetSummary)
    def summary(self, msg: GetSummary, ctx: Context) -> Summary:
        return Summary(len(self.latest), self.ticks)

    @handles(Down)
    def peer_down(self, down: Down, ctx: Context) -> None:
        self.latest.pop(down.ref, None)


class Client(Actor):
    @handles(Submit)
    def submit(self, msg: Submit, ctx: Context) -> None:
        ctx.tell(msg.to, msg.update)


@pytest.mark.parametrize("copy", ["reference", "wire"])
async def test_a_basket_counts_clients_loses_one_fails_and_goes_on(copy: Literal["reference", "wire"]) -> None:
    vector = np.arange(4.0)
    async with ActorSystem("hospital-1", copy=copy) as system:
        basket = await system.spawn(Basket, name="healthcare/basket")
        assert system.ref("scarcity://hospital-1/healthcare/basket") == basket
        clients = [await system.spawn(Client) for _ in range(3)]
        for client in clients:
            await client.ask(Submit(basket, Update(1, vector)), deadline=2.0)
        assert await basket.ask(GetSummary(), deadline=2.0) == Summary(3, 0)

        system.stop(clients[0])
        await anyio.sleep(2.5)
        assert await basket.ask(GetSummary(), deadline=2.0) == Summary(2, 2)

        before = system.actor_statistics(basket)
        basket.tell(Update(2, vector * np.nan))
        basket.tell(Update(2, vector))
        # The next instance answers; what the first one had in memory only is gone, what waited in the mailbox is not.
        assert await basket.ask(GetSummary(), deadline=2.0) == Summary(1, 0)
        await anyio.sleep(3.5)
        assert await basket.ask(GetSummary(), deadline=2.0) == Summary(1, 3)
        after = system.actor_statistics(basket)
        assert (after.incarnation, after.num_restarts) == (before.incarnation + 1, 1)
        assert len(system.dead_letters) == 1
        assert system.failures == ()

        for round_id in range(256):
            basket.tell(Update(round_id, vector))
        with pytest.raises(MailboxFull):
            basket.tell(Update(256, vector))
