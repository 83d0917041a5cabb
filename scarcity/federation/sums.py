"""Carry a secure sum's messages in packets: both sides, for whichever role hosts or joins a sum.

A basket hosts the sum of its clients and joins Layer 2's; the coordinator hosts Layer 2's; a client joins its basket's.
The protocol itself, its checks and its secrets stay in `secure_aggregation`; here its outputs become effects, in order:
a high-water mark is durable before the Advertise behind it leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgpack

from scarcity.errors import CodecError, LedgerCorrupt
from scarcity.federation.codec import body_digest
from scarcity.federation.effects import Effect, EntropySource, Entry, Persist, Reject, Send, SetTimer, Waiting
from scarcity.federation.identity import Identity
from scarcity.federation.layers import layer2_bits
from scarcity.federation.packets import (
    LAYER2,
    IntArray,
    Packet,
    RoundConfig,
    RoundSettings,
    SecureSum,
    TrustMode,
    Unit,
    basket_scope,
)
from scarcity.federation.roster import COORDINATOR, Roster, basket_id
from scarcity.federation.scheduler import quorum_need
from scarcity.federation.secure_aggregation import (
    DpTerms,
    EpochKeys,
    Mark,
    Mechanism,
    Outgoing,
    Output,
    Refused,
    RoundSumConfig,
    SecureAggClient,
    SecureAggCoordinator,
    SecureAggPolicy,
    SumConfigMessage,
    SumResult,
    To,
    decode,
    encode,
    share_sigma,
    threshold_for,
)

SumMark = Mark
MARK = "sum-mark"
TIMER = "sum"
# Below three members a sum shows each of them the other's input.
_MIN_MEMBERS = 3
MIN_CLEAN_BASKETS = 3


def mark_entry(mark: Mark) -> Entry:
    """Return a high-water mark as an entry of the role's journal."""
    fields = [mark.scope, mark.epoch, mark.round_id, mark.attempt]
    return Entry(MARK, mark.scope, bytes(msgpack.packb(fields)))


def marks_of(payloads: Iterable[bytes]) -> list[Mark]:
    """Return the marks that the journal holds, in any order.

    Raises:
        LedgerCorrupt: a record cannot be read.
    """
    return [_mark(payload) for payload in payloads]


def _mark(payload: bytes) -> Mark:
    try:
        scope, *numbers = msgpack.unpackb(payload)
        epoch, round_id, attempt = numbers
    except (ValueError, TypeError) as error:
        raise LedgerCorrupt(f"the journal's record of kind {MARK!r} cannot be read: {error}") from error
    if type(scope) is not str or any(type(number) is not int for number in numbers):
        raise LedgerCorrupt(f"the journal's record of kind {MARK!r} is no scope with three whole numbers")
    return Mark(scope, epoch, round_id, attempt)


# The terms of a sum: the same function gives the host's config and the participant's policy.


def min_members(settings: RoundSettings) -> int:
    """Return the smallest basket that sums: three, or enough that `max_colluders` are fewer than a third."""
    return max(_MIN_MEMBERS, 3 * settings.max_colluders + 1)


def min_survivors(settings: RoundSettings, participants: int) -> int:
    """Return how many inputs a basket's sum must contain; it sizes each member's share of the noise."""
    return max(threshold_for(participants), quorum_need(settings.quorum, participants))


def noise_share_std(config: RoundConfig, survivors_needed: int) -> float:
    """Return the standard deviation of one member's share of the noise, on a unit-scale coordinate."""
    return share_sigma(config.noise.sigma, survivors_needed, config.settings.max_colluders)


def _basket_terms(config: RoundConfig) -> dict[str, Any]:
    """Return what config and policy of a basket's sum must agree on."""
    noise, settings = config.noise, config.settings
    per_row = float(noise.steps)
    record = settings.unit is Unit.RECORD
    return {
        "model_hash": body_digest(config),
        "dimension": config.dimension,
        # A product of two coordinates of a row is at most K^2; a client's vector has norm K.
        "clip": per_row if record else 1.0,
        "scale": per_row,
        "w_max": settings.max_rows if record else 1,
        "dp": DpTerms(
            Mechanism.GAUSSIAN, noise.sensitivity / noise.sigma, noise.sigma * noise.least_scale, noise.sigma
        ),
    }


def _layer2_terms(config: RoundConfig, roster: Roster) -> dict[str, Any]:
    return {
        "model_hash": body_digest(config),
        "dimension": config.dimension,
        "clip": float(1 << layer2_bits(len(roster.baskets))),
        "scale": 1.0,
        "w_max": 1,
        "dp": DpTerms(),
    }


def basket_policy(config: RoundConfig, roster: Roster, domain: str) -> SecureAggPolicy:
    """Return what a client pins for its basket's sum of a round."""
    settings = config.settings
    return SecureAggPolicy(
        coordinator=basket_id(domain),
        members=frozenset(member.id for member in roster.clients_of(domain)),
        n_min=min_members(settings),
        max_colluders=settings.max_colluders,
        min_survivors=min_survivors(settings, min_members(settings)),
        **_basket_terms(config),
    )


def layer2_policy(config: RoundConfig, roster: Roster) -> SecureAggPolicy:
    """Return what a basket pins for Layer 2.

    In mode central the aggregates are clean, so a sum takes three of them and none is sent twice. Elsewhere they are
    released already, or mode none protects nobody.
    """
    clean = config.settings.mode is TrustMode.CENTRAL
    return SecureAggPolicy(
        coordinator=COORDINATOR,
        members=frozenset(basket.id for basket in roster.baskets),
        n_min=MIN_CLEAN_BASKETS if clean else 1,
        inputs_released=not clean,
        **_layer2_terms(config, roster),
    )


def open_basket_sum(
    identity: Identity,
    config: RoundConfig,
    round_id: int,
    participants: tuple[str, ...],
    epoch_keys: EpochKeys | None = None,
) -> SumHost:
    """Return the host of a basket's sum over `participants`, sorted ids."""
    domain = identity.member.domain
    needed = min_survivors(config.settings, len(participants))
    terms = _basket_terms(config)
    return SumHost(identity, config, basket_scope(domain), round_id, 0, participants, needed, terms, epoch_keys)


def open_layer2_sum(
    identity: Identity,
    config: RoundConfig,
    round_id: int,
    attempt: int,
    participants: tuple[str, ...],
    epoch_keys: EpochKeys | None = None,
) -> SumHost:
    """Return the host of Layer 2's sum over the baskets that are present, sorted ids."""
    needed = threshold_for(len(participants))
    terms = _layer2_terms(config, identity.roster)
    return SumHost(identity, config, LAYER2, round_id, attempt, participants, needed, terms, epoch_keys)


class SumParticipant:
    """One member's side of the sums that it joins; at most one is live.

    Args:
        identity: the member's voice.
        entropy: source of the sum's secrets.
        marks: high-water marks, replayed from the journal.
    """

    def __init__(self, identity: Identity, entropy: EntropySource, marks: Iterable[Mark] = ()) -> None:
        roster = identity.roster
        self._identity = identity
        self._policies: dict[str, SecureAggPolicy] = {}
        self._machine = SecureAggClient(
            identity.member_id,
            identity.signing_key,
            roster=roster.keys,
            federation=roster.federation,
            roster_root=roster.root,
            epoch=roster.epoch,
            policies=self._policies,
            entropy=entropy((identity.member_id, "", roster.epoch, 0, 0, "secure-sum")),
            marks=marks,
        )

    @property
    def min_survivors(self) -> int:
        """The fewest members whose sum the live config lets be opened."""
        return self._machine.min_survivors

    def adopt(self, roster: Roster) -> None:
        """Go over to a newer epoch: the live sum ends."""
        self._policies.clear()
        self._machine.enter_epoch(roster.keys, roster.root, roster.epoch)

    def pin(self, scope: str, policy: SecureAggPolicy) -> None:
        """Say what the scope's next sums must at least be."""
        self._policies[scope] = policy

    def receive(self, packet: Packet, host: str) -> tuple[list[Effect], bool]:
        """Take a message of the sum; answers go to its host.

        Returns:
            The effects, and whether this was the config of a sum that has begun here and now wants its input.
        """
        try:
            message = decode(cast("SecureSum", packet.body).payload)
        except CodecError as error:
            return [Reject(host, f"secure sum: {error}")], False
        if not isinstance(message, SumConfigMessage):
            return self._carry(self._machine.receive(cast("Any", message)), packet, host), False
        outputs = self._machine.begin(message)
        return self._carry(outputs, packet, host), any(isinstance(output, Mark) for output in outputs)

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
                effects.append(Persist(mark_entry(output)))
            elif isinstance(output, Outgoing):
                body = SecureSum(encode(output.message))
                effects.append(Send(host, self._identity.say(packet.header.scope, packet.header.round_id, body)))
            else:
                effects.append(Reject(output.peer or host, f"secure sum: {output.describe()}"))
        return effects


class SumHost:
    """The host's side of one sum: it owns the deadlines, the machine owns the protocol.

    Attributes:
        silent: member id -> stage in which it was last waited for in vain.
        num_needed: inputs without which nothing is opened.
    """

    def __init__(
        self,
        identity: Identity,
        config: RoundConfig,
        scope: str,
        round_id: int,
        attempt: int,
        participants: tuple[str, ...],
        num_needed: int,
        terms: dict[str, Any],
        epoch_keys: EpochKeys | None = None,
    ) -> None:
        roster = identity.roster
        self._identity = identity
        self._scope = scope
        self._round_id = round_id
        self._stage_s = config.settings.stage_s
        self._stage_at = 0.0
        self._participants = participants
        self.silent: dict[str, str] = {}
        self.num_needed = num_needed
        sum_config = RoundSumConfig(
            federation=roster.federation,
            scope=scope,
            epoch=roster.epoch,
            round_id=round_id,
            attempt=attempt,
            roster_root=roster.root,
            participants=participants,
            threshold=threshold_for(len(participants)),
            min_survivors=num_needed,
            bits=64,
            stage_s=self._stage_s,
            coordinator_key=identity.signing_key.verify_key.encode(),
            **terms,
        )
        self._machine = SecureAggCoordinator(sum_config, identity.signing_key, roster.keys, epoch_keys=epoch_keys)

    @property
    def result(self) -> SumResult | None:
        """The opened sum."""
        return self._machine.result

    @property
    def failed(self) -> str | None:
        """Why there will be no sum."""
        failed = self._machine.failed
        return None if failed is None else failed.describe()

    @property
    def num_left(self) -> int:
        """Participants that have not fallen silent."""
        return len(self._participants) - len(self.silent)

    def open(self, now: float) -> list[Effect]:
        """Send the signed config to all participants."""
        return self._carry(self._machine.open(), now)

    def receive(self, packet: Packet, sender: str, now: float) -> list[Effect]:
        """Take a participant's message."""
        try:
            message = decode(cast("SecureSum", packet.body).payload)
        except CodecError as error:
            return [Reject(sender, f"secure sum: {error}")]
        before = self._machine.state
        outputs = self._machine.receive(sender, cast("Any", message))
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
        total, until = len(self._participants), self._stage_at + self._stage_s
        what = f"stage {self._machine.state.value} of the secure sum in {self._scope}"
        return (Waiting(who, what, total - len(missing), total, tuple(missing), self._stage_at, until),)

    def _carry(self, outputs: Sequence[To | Refused], now: float, *, moved: bool = True) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, Refused):
                effects.append(Reject(output.peer, f"secure sum: {output.describe()}"))
            else:
                body = SecureSum(encode(output.message))
                effects.append(Send(output.recipient, self._identity.say(self._scope, self._round_id, body)))
        if moved:
            self._stage_at = now
            over = self.result is not None or self.failed is not None
            effects.append(SetTimer(TIMER, math.inf if over else now + self._stage_s))
        return effects
