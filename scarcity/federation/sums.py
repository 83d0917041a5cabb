"""Carry a secure sum's messages in packets: both sides, for whichever role hosts or joins a sum.

A basket hosts the sum of its clients and joins Layer 2's; the coordinator hosts Layer 2's; a client joins its basket's.
The protocol itself, its checks and its secrets stay in `secure_aggregation`; here its outputs become effects, in order:
a high-water mark is durable before the Advertise behind it leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

from scarcity.errors import CodecError
from scarcity.federation.effects import Effect, EntropySource, Entry, Persist, Reject, Send, SetTimer, Waiting
from scarcity.federation.identity import Identity
from scarcity.federation.packets import IntArray, Packet, RoundConfig, RoundSettings, SecureSum, TrustMode
from scarcity.federation.secure_aggregation import (
    Mark,
    Outgoing,
    Output,
    Refused,
    SecureAggClient,
    SecureAggCoordinator,
    SecureAggPolicy,
    SumConfig,
    SumResult,
    decode_message,
    encode_message,
)

SumMark = Mark
MARK = "sum-mark"
TIMER = "sum"


class SumParticipant:
    """One member's side of the sums that it joins; at most one is live.

    Args:
        identity: the member's voice.
        policy: scope -> pinned policy; a weaker config is refused.
        entropy: source of the sum's secrets.
        marks: scope -> high-water mark, replayed from the journal.
    """

    def __init__(
        self,
        identity: Identity,
        policy: Callable[[str], SecureAggPolicy],
        entropy: EntropySource,
        marks: Mapping[str, Mark],
    ) -> None:
        roster = identity.roster
        self._identity = identity
        self._machine = SecureAggClient(
            identity.member_id,
            identity.signing_key,
            roster=roster.keys,
            federation=roster.federation,
            roster_root=roster.root,
            epoch=roster.epoch,
            policies=policy,
            entropy=entropy((identity.member_id, "", roster.epoch, 0, 0, "secure-sum")),
            marks=marks,
        )

    @property
    def live(self) -> bool:
        """Whether a sum is under way."""
        return self._machine.live

    @property
    def min_survivors(self) -> int:
        """The fewest members whose sum the live config lets be opened."""
        return self._machine.min_survivors

    def receive(self, packet: Packet, host: str) -> list[Effect]:
        """Take a message of the sum; answers go to its host."""
        try:
            message = decode_message(cast("SecureSum", packet.body).payload)
        except CodecError as error:
            return [Reject(host, f"secure sum: {error}")]
        outputs = self._machine.begin(message) if isinstance(message, SumConfig) else self._machine.receive(message)
        return self._carry(outputs, packet, host)

    def provide(self, vector: IntArray, packet: Packet, host: str) -> list[Effect]:
        """Give the input: integers, noised already where the mode has noise."""
        return self._carry(self._machine.provide(vector), packet, host)

    def abort(self) -> None:
        """Wipe the live sum, if there is one."""
        self._machine.abort()

    def _carry(self, outputs: list[Output], packet: Packet, host: str) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, Mark):
                effects.append(Persist(Entry(MARK, output.scope, encode_mark(output))))
            elif isinstance(output, Refused):
                effects.append(Reject(output.peer or host, f"secure sum: {output.reason}"))
            else:
                body = SecureSum(encode_message(output.message))
                effects.append(Send(host, self._identity.say(packet.header.scope, packet.header.round_id, body)))
        return effects


class SumHost:
    """The host's side of one sum: it owns the deadlines, the machine owns the protocol.

    Attributes:
        silent: member id -> stage in which it was last waited for in vain.
    """

    def __init__(self, identity: Identity, machine: SecureAggCoordinator, *, scope: str, round_id: int, stage_s: float):
        self._identity = identity
        self._machine = machine
        self._scope = scope
        self._round_id = round_id
        self._stage_s = stage_s
        self._stage_at = 0.0
        self.silent: dict[str, str] = {}

    @property
    def result(self) -> SumResult | None:
        """The opened sum."""
        return self._machine.result

    @property
    def failed(self) -> str | None:
        """Why there will be no sum."""
        return self._machine.failed

    def open(self, now: float) -> list[Effect]:
        """Send the signed config to all participants."""
        return self._carry(self._machine.open(), now)

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a participant's message."""
        try:
            message = decode_message(cast("SecureSum", packet.body).payload)
        except CodecError as error:
            return [Reject(sender, f"secure sum: {error}")]
        before = self._machine.state
        outputs = self._machine.receive(sender, message)
        return self._carry(outputs, now, moved=self._machine.state is not before)

    def close_stage(self, now: float) -> list[Effect]:
        """Go on without those that this stage still waits for."""
        stage = self._machine.state.value
        self.silent |= dict.fromkeys(self._machine.waiting_for, stage)
        return self._carry(self._machine.close_stage(), now)

    def waiting(self, who: str) -> tuple[Waiting, ...]:
        """Return what the current stage waits for."""
        missing = self._machine.waiting_for
        if not missing or self.result is not None or self.failed is not None:
            return ()
        total, until = len(self._machine.config.participants), self._stage_at + self._stage_s
        what = f"stage {self._machine.state.value} of the secure sum in {self._scope}"
        return (Waiting(who, what, total - len(missing), total, tuple(missing), self._stage_at, until),)

    def _carry(self, outputs: list[To | Refused], now: float, *, moved: bool = True) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, Refused):
                effects.append(Reject(output.peer, f"secure sum: {output.reason}"))
            else:
                body = SecureSum(encode_message(output.message))
                effects.append(Send(output.recipient, self._identity.say(self._scope, self._round_id, body)))
        if moved:
            self._stage_at = now
            over = self.result is not None or self.failed is not None
            effects.append(SetTimer(TIMER, math.inf if over else now + self._stage_s))
        return effects
