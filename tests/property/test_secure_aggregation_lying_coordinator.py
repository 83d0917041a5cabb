"""A coordinator that says anything it can, in any order, to honest clients: what they say must never be too much."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scarcity.federation.secure_aggregation import ClientState
from scarcity.federation.secure_aggregation.messages import (
    Advertise,
    Boxes,
    Confirm,
    Keys,
    Macs,
    Masked,
    Reveal,
    Shares,
    Survivors,
)
from tests.secure_aggregation_world import World, messages_of, signed, tell

N = 7  # t = 5
MEMBERS = st.sets(st.integers(0, N - 1), min_size=2, max_size=N)
WHO = st.integers(0, N - 1)


def rows(parts: list[np.ndarray], width: int) -> np.ndarray:
    return np.stack(parts) if parts else np.zeros((0, width), dtype=np.uint8)


def others(members: list[int], me: int) -> list[int]:
    return [member for member in members if member != me]


class LyingCoordinator(RuleBasedStateMachine):
    """It holds all that the clients have sent and composes any subset of it for any of them, as often as it likes."""

    @initialize(attempt=st.integers(0, 1))
    def meet(self, attempt: int) -> None:
        self.world = World(N, d=1)
        self.clients = list(self.world.clients().values())
        self.true_shares: dict[tuple[bytes, int, int], tuple[bytes, bytes]] = {}  # (ctx, owner, holder) -> of key, seed
        self.said: list[dict[tuple[bytes, type], Any]] = [{} for _ in range(N)]
        self.u3_of: dict[tuple[int, bytes], set[int]] = {}
        self.over: dict[int, ClientState] = {}
        self.attempt = attempt
        self.open(set(range(N)))

    def tell(self, i: int, message: Any) -> None:
        client = self.clients[i]
        before = client.state
        outputs = tell(client, message)
        if before in (ClientState.REVEALED, ClientState.ABORTED) and type(message).__name__ != "SumConfigMessage":
            assert messages_of(outputs) == [], "a terminal state answered"
        for said in messages_of(outputs):
            self.hear(i, said)

    def hear(self, i: int, said: Any) -> None:
        place = (said.ctx, type(said))
        if type(said) in (Masked, Confirm, Reveal):
            assert place not in self.said[i], f"c{i} said {type(said).__name__} twice"
        if isinstance(said, Masked):
            assert sum(kind is Masked for _, kind in self.said[i]) == 0, "one input masked in two sums"
        self.said[i][place] = said
        if isinstance(said, Reveal):
            peers = others(sorted(self.u2_of[i]), i)
            assert len(said.slots) == len(peers)
            for peer, slot in zip(peers, said.slots, strict=True):
                key, seed = self.true_shares[(said.ctx, peer, i)]
                wanted = seed if peer in self.u3_of[(i, said.ctx)] else key
                assert slot.tobytes() == wanted, "a share of the wrong kind"
            assert len(self.u3_of[(i, said.ctx)]) >= self.config.min_survivors

    @rule(who=MEMBERS, really=st.integers(0, 7))
    def retry(self, who: set[int], really: int) -> None:
        """Once in a while open the next attempt, to some of them."""
        if really == 7:
            self.open(who)

    @rule(members=st.sets(st.integers(0, N - 1), min_size=4, max_size=N))
    def go_on(self, members: set[int]) -> None:
        """Take the next step of an honest coordinator, but for the choice of U3."""
        if not self.heard(Shares):
            self.keys_to_all()
        elif not self.heard(Masked):
            self.boxes_to_all()
        elif not self.heard(Confirm):
            self.survivors_to_all(members)
        else:
            self.macs_to_all()

    @rule()
    def go_on_honestly(self) -> None:
        """The same with all who masked in U3."""
        self.go_on(set(self.heard(Masked)))

    def open(self, who: set[int]) -> None:
        self.config = self.world.config(attempt=self.attempt)
        self.attempt += 1
        self.u2_of: dict[int, set[int]] = {}
        for i in sorted(who):
            self.tell(i, signed(self.config))
            self.clients[i].provide(np.array([i]))

    def heard(self, kind: type) -> dict[int, Any]:
        place = (self.config.ctx, kind)
        return {i: said[place] for i, said in enumerate(self.said) if place in said}

    @rule(who=WHO, members=MEMBERS)
    def keys(self, who: int, members: set[int]) -> None:
        told = self.heard(Advertise)
        u1 = sorted(members & set(told))
        self.send_keys(who, u1, told)

    def keys_to_all(self) -> None:
        told = self.heard(Advertise)
        for i in sorted(told):
            self.send_keys(i, sorted(told), told)

    def send_keys(self, who: int, u1: list[int], told: dict[int, Any]) -> None:
        def column(name: str, width: int) -> np.ndarray:
            return rows([np.frombuffer(getattr(told[i], name), dtype=np.uint8) for i in u1], width)

        message = Keys(
            self.config.ctx,
            np.array(u1, dtype="<u4"),
            column("mask_key", 32),
            column("commitment", 32),
            column("epoch_key", 32),
            column("epoch_signature", 64),
        )
        session = self.clients[who]._session
        self.tell(who, message)
        if session is not None and session._u1_members and session is self.clients[who]._session:
            self.u1 = u1

    @rule(who=WHO, members=MEMBERS)
    def boxes(self, who: int, members: set[int]) -> None:
        self.send_boxes(who, sorted(members & set(self.heard(Shares))))

    def boxes_to_all(self) -> None:
        for i in sorted(self.heard(Shares)):
            self.send_boxes(i, sorted(self.heard(Shares)))

    def send_boxes(self, who: int, u2: list[int]) -> None:
        shares = self.heard(Shares)
        session = self.clients[who]._session
        places = {
            i: others(session._u1_members if session else [], i).index(who)
            for i in others(u2, who)
            if session and who in others(session._u1_members, i)
        }
        picked = [shares[i].boxes[place] for i, place in places.items() if place < len(shares[i].boxes)]
        self.tell(who, Boxes(self.config.ctx, np.array(u2, dtype="<u4"), rows(picked, 84)))
        live = self.clients[who]._session
        if live is not None and live._peer_shares is not None and who not in self.u2_of:
            self.u2_of[who] = set(u2)
            for peer, pair in zip(live._u2_peers, live._peer_shares, strict=True):
                kept = (pair[0].tobytes(), pair[1].tobytes())
                self.true_shares[(self.config.ctx, peer, who)] = kept

    @rule(who=WHO, members=MEMBERS)
    def survivors(self, who: int, members: set[int]) -> None:
        self.send_survivors(who, members)

    def survivors_to_all(self, members: set[int]) -> None:
        for i in range(N):
            self.send_survivors(i, members)

    def send_survivors(self, who: int, members: set[int]) -> None:
        before = self.clients[who].state
        self.tell(who, Survivors(self.config.ctx, np.array(sorted(members), dtype="<u4")))
        if before is ClientState.MASKED and self.clients[who].state is ClientState.CONFIRMED:
            self.u3_of[(who, self.config.ctx)] = set(members)

    @rule(who=WHO, members=MEMBERS)
    def macs(self, who: int, members: set[int]) -> None:
        self.send_macs(who, members)

    def macs_to_all(self) -> None:
        for i in range(N):
            self.send_macs(i, set(range(N)) - {i})

    def send_macs(self, who: int, members: set[int]) -> None:
        confirms = self.heard(Confirm)
        picked = {}
        for i in sorted(members & set(confirms)):
            alive = others(sorted(self.u3_of[(i, self.config.ctx)]), i)
            if who in alive:
                picked[i] = confirms[i].macs[alive.index(who)]
        senders = np.array(list(picked), dtype="<u4")
        self.tell(who, Macs(self.config.ctx, senders, rows(list(picked.values()), 32)))

    @invariant()
    def those_who_reveal_agree(self) -> None:
        """No two honest clients reveal for different survivors of one sum: t of each would open a difference."""
        revealed = [self.u3_of[(i, ctx)] for i in range(N) for ctx, kind in self.said[i] if kind is Reveal]
        assert all(u3 == revealed[0] for u3 in revealed)


TestLyingCoordinator = LyingCoordinator.TestCase
TestLyingCoordinator.settings = settings(max_examples=60, stateful_step_count=24, deadline=None)
