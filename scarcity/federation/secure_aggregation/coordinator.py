"""`SecureAggCoordinator`: one secure sum from the coordinator's side, as a pure state machine.

    state      collects    from   closes into                    needs
    NEW                           open(): the config to all
    ADVERTISE  Advertise   all    Keys to U1                     min_survivors
    SHARES     Shares      U1     Boxes to U2                    min_survivors
    MASKED     Masked      U2     Survivors to U3                min_survivors
    CONFIRM    Confirm     U3     Macs to those who confirmed    t
    REVEAL     Reveal      those  the result -> DONE             t
    FAILED                        from any of them, with a reason

A stage closes by itself when all that it waits for have answered or withdrawn, else when the role core, which owns the
deadlines, calls `close_stage`. Whoever has not answered by then is out of this sum; what it sends later is refused
unread. One coordinator object serves one context; a retry is a new config and a new object.

This side is trusted to be available and to report the right sum, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from nacl.signing import SigningKey
from numpy.typing import NDArray

from scarcity.errors import ConfigError
from scarcity.federation.secure_aggregation.channel import EpochKeys, EpochPlace, sign, signature_holds
from scarcity.federation.secure_aggregation.config import RoundSumConfig, weaknesses
from scarcity.federation.secure_aggregation.masks import is_sound_point, member_set_digest
from scarcity.federation.secure_aggregation.messages import (
    BOX_BYTES,
    KEY_BYTES,
    SHARE_BYTES,
    Advertise,
    Boxes,
    Confirm,
    FromClient,
    FromCoordinator,
    Keys,
    Macs,
    Masked,
    Members,
    Reveal,
    Rows,
    Shares,
    SumConfigMessage,
    SumMessage,
    Survivors,
    Withdrawn,
)
from scarcity.federation.secure_aggregation.outputs import CoordinatorState, SumResult, To
from scarcity.federation.secure_aggregation.reasons import Reason, Refused
from scarcity.federation.secure_aggregation.ring import from_ring, word
from scarcity.federation.secure_aggregation.session import advertise_body, masked_body
from scarcity.federation.secure_aggregation.shamir import Limbs, decode_shares
from scarcity.federation.secure_aggregation.unmask import Advertised, recover, secret_holds, unmask

_COLLECTS: Final[dict[CoordinatorState, type]] = {
    CoordinatorState.ADVERTISE: Advertise,
    CoordinatorState.SHARES: Shares,
    CoordinatorState.MASKED: Masked,
    CoordinatorState.CONFIRM: Confirm,
    CoordinatorState.REVEAL: Reveal,
}


class SecureAggCoordinator:
    """The coordinator of one sum.

    Args:
        config: the terms; signed by `open`.
        signing_key: identity of the sum's coordinator; its public key stands in the config.
        roster: id -> Ed25519 public key.
        epoch_keys: the members' channel keys. Give the same book to all sums of an epoch: a member that changes its key
            within a round, or goes back to an old one, is refused here, by name, instead of stopping all its peers.

    Raises:
        ConfigError: a config that every client would refuse, an unknown participant, or another key than the config's.
    """

    def __init__(
        self,
        config: RoundSumConfig,
        signing_key: SigningKey,
        roster: Mapping[str, bytes],
        *,
        epoch_keys: EpochKeys | None = None,
    ) -> None:
        if fault := next(weaknesses(config), None):
            raise ConfigError(fault.describe())
        if unknown := [name for name in config.participants if name not in roster]:
            raise ConfigError(f"participant {unknown[0]!r} is not on the roster")
        if config.coordinator_key != signing_key.verify_key.encode():
            raise ConfigError("coordinator_key of the config is not the public key of the signing key")
        self._config = config
        self._signing_key = signing_key
        self._roster = roster
        self._place = EpochPlace(config.suite, config.federation, config.roster_root, config.epoch)
        self._epoch_keys = EpochKeys() if epoch_keys is None else epoch_keys
        self._positions = {name: position for position, name in enumerate(config.participants)}
        self._state = CoordinatorState.NEW
        self._expected: list[int] = []
        self._answers: dict[int, Any] = {}
        self._withdrawn: set[int] = set()
        self._advertised = Advertised(config.ctx, b"", {}, {})
        self._u1: list[int] = []
        self._u2: list[int] = []
        self._u3: list[int] = []
        self._total: NDArray[Any] = np.zeros(config.dimension, dtype=word(config.bits))
        self._result: SumResult | None = None
        self._failed: Refused | None = None

    @property
    def state(self) -> CoordinatorState:
        """Where the sum stands."""
        return self._state

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Ids whose answer would close the stage, sorted; () when nothing is awaited."""
        return tuple(self._config.participants[position] for position in self._missing())

    @property
    def result(self) -> SumResult | None:
        """The sum, once it is there."""
        return self._result

    @property
    def failed(self) -> Refused | None:
        """Why there will be no sum; None as long as there may be one."""
        return self._failed

    @property
    def needed(self) -> int:
        """How many answers the stage needs."""
        late = self._state in (CoordinatorState.CONFIRM, CoordinatorState.REVEAL)
        return self._config.threshold if late else self._config.min_survivors

    @property
    def answered(self) -> int:
        """How many answers the stage has."""
        return len(self._answers)

    def _missing(self) -> list[int]:
        return [p for p in self._expected if p not in self._answers and p not in self._withdrawn]

    def open(self) -> list[To]:
        """Return the signed config for every participant."""
        if self._state is not CoordinatorState.NEW:
            return []
        self._enter(CoordinatorState.ADVERTISE, list(range(self._config.n)))
        signature = sign(self._signing_key, b"ssa1.config", self._config.canonical)
        return [self._to(position, SumConfigMessage(self._config, signature)) for position in self._expected]

    def receive(self, sender_id: str, message: SumMessage) -> list[To | Refused]:
        """Take a message from the authenticated `sender_id`; what only a coordinator may say is refused."""
        if not isinstance(message, FromClient):
            return [Refused(Reason.WRONG_STATE, sender_id, type(message).__name__)]
        refused = self._unwelcome(sender_id, message)
        if refused is not None:
            return [Refused(refused, sender_id, type(message).__name__)]
        outputs: list[To | Refused] = []
        if isinstance(message, Withdrawn):
            self._withdrawn.add(message.position)
            outputs.append(Refused(Reason.WITHDRAWN, sender_id, message.reason[:40]))
        elif (reason := self._check(sender_id, message)) is not None:
            return [Refused(reason, sender_id, type(message).__name__)]
        else:
            self._answers[message.position] = self._kept(message)
        return outputs + ([] if self._missing() else self.close_stage())

    def _unwelcome(self, sender_id: str, message: FromClient) -> Reason | None:
        if self._state not in _COLLECTS:
            return Reason.TERMINAL
        if message.ctx != self._config.ctx:
            return Reason.WRONG_CONTEXT
        if self._positions.get(sender_id) != message.position:
            return Reason.WRONG_SENDER
        if isinstance(message, Withdrawn):
            return Reason.DUPLICATE if message.position in self._withdrawn else None
        if type(message) is not _COLLECTS[self._state] or message.position not in self._expected:
            return Reason.WRONG_STATE
        if message.position in self._withdrawn:
            return Reason.WITHDRAWN
        return Reason.DUPLICATE if message.position in self._answers else None

    def _check(self, sender_id: str, message: FromClient) -> Reason | None:
        match message:
            case Advertise():
                return self._check_advertise(sender_id, message)
            case Shares():
                return None if len(message.boxes) == len(self._u1) - 1 else Reason.MALFORMED
            case Masked():
                return self._check_masked(sender_id, message)
            case Confirm():
                return None if len(message.macs) == len(self._u3) - 1 else Reason.MALFORMED
            case Reveal():
                return None if len(message.slots) == len(self._u2) - 1 else Reason.MALFORMED
        return Reason.WRONG_STATE

    def _check_advertise(self, sender_id: str, message: Advertise) -> Reason | None:
        key = self._roster[sender_id]
        body = advertise_body(message.ctx, message.position, message.mask_key, message.commitment)
        if not signature_holds(key, b"ssa1.adv", body, message.signature):
            return Reason.BAD_SIGNATURE
        doubled = any(answer.mask_key == message.mask_key for answer in self._answers.values())
        if doubled or not is_sound_point(message.mask_key):
            return Reason.BAD_KEY
        round_id = self._config.round_id
        if self._epoch_keys.uses(sender_id, message.epoch_key, round_id):
            return None
        claim = self._place.claim(sender_id, message.epoch_key)
        if not signature_holds(key, b"ssa1.epoch", claim, message.epoch_signature):
            return Reason.BAD_SIGNATURE
        if fault := self._epoch_keys.fault(sender_id, message.epoch_key, round_id):
            return fault
        self._epoch_keys.take(sender_id, message.epoch_key, round_id)
        return None

    def _check_masked(self, sender_id: str, message: Masked) -> Reason | None:
        if (message.bits, message.dimension) != (self._config.bits, self._config.dimension):
            return Reason.MALFORMED
        body = masked_body(message.ctx, self._advertised.u1, message.position, message.words)
        holds = signature_holds(self._roster[sender_id], b"ssa1.masked", body, message.signature)
        return None if holds else Reason.BAD_SIGNATURE

    def _kept(self, message: FromClient) -> FromClient | None:
        """Return what is kept of an answer: a masked vector is added at once, whatever the order of arrival."""
        if isinstance(message, Masked):
            self._total += message.words.view(self._total.dtype)
            return None
        return message

    # Closing a stage.

    def close_stage(self) -> list[To | Refused]:
        """Go on with those who have answered; nothing happens when no stage is open."""
        if self._state not in _COLLECTS:
            return []
        members = sorted(self._answers)
        if len(members) < self.needed:
            detail = f"{self._state.value}: {len(members)} answered, {self.needed} needed"
            return self._fail(Refused(Reason.TOO_FEW, detail=detail))
        close: dict[CoordinatorState, Callable[[list[int]], list[To | Refused]]] = {
            CoordinatorState.ADVERTISE: self._close_advertise,
            CoordinatorState.SHARES: self._close_shares,
            CoordinatorState.MASKED: self._close_masked,
            CoordinatorState.CONFIRM: self._close_confirm,
            CoordinatorState.REVEAL: self._close_reveal,
        }
        return close[self._state](members)

    def _close_advertise(self, members: list[int]) -> list[To | Refused]:
        rows = [self._answers[member] for member in members]
        keys = Keys(
            ctx=self._config.ctx,
            members=_members(members),
            mask_keys=_table([row.mask_key for row in rows], KEY_BYTES),
            commitments=_table([row.commitment for row in rows], KEY_BYTES),
            epoch_keys=_table([row.epoch_key for row in rows], KEY_BYTES),
            epoch_signatures=_table([row.epoch_signature for row in rows], 64),
        )
        self._u1 = members
        self._advertised = Advertised(
            ctx=self._config.ctx,
            u1=member_set_digest(self._config.ctx, keys.members, keys.mask_keys, keys.commitments),
            mask_keys={row.position: row.mask_key for row in rows},
            commitments={row.position: row.commitment for row in rows},
        )
        self._enter(CoordinatorState.SHARES, members)
        return [self._to(member, keys) for member in members]

    def _close_shares(self, members: list[int]) -> list[To | Refused]:
        sent = {member: self._answers[member].boxes for member in members}
        boxes = _transpose(sent, self._u1, members, BOX_BYTES)
        self._u2 = members
        self._enter(CoordinatorState.MASKED, members)
        ids = _members(members)
        return [self._to(member, Boxes(self._config.ctx, ids, boxes[member])) for member in members]

    def _close_masked(self, members: list[int]) -> list[To | Refused]:
        self._u3 = members
        self._enter(CoordinatorState.CONFIRM, members)
        survivors = Survivors(self._config.ctx, _members(members))
        return [self._to(member, survivors) for member in members]

    def _close_confirm(self, members: list[int]) -> list[To | Refused]:
        macs = _transpose({m: self._answers[m].macs for m in members}, self._u3, members, KEY_BYTES)
        self._enter(CoordinatorState.REVEAL, members)
        return [
            self._to(member, Macs(self._config.ctx, _members([m for m in members if m != member]), macs[member]))
            for member in members
        ]

    def _close_reveal(self, members: list[int]) -> list[To | Refused]:
        survivors, threshold = frozenset(self._u3), self._config.threshold
        tables: dict[int, Limbs] = {}
        garbled: set[int] = set()
        for member in members:
            table = decode_shares(self._shares_by_owner(self._answers[member]))
            if table is None:
                garbled.add(member)
            else:
                tables[member] = table
        if len(tables) < threshold:
            return self._fail(Refused(Reason.BAD_SHARE, self._name(min(garbled)), "not the form of shares"))
        shares = {o: {h: table[i] for h, table in tables.items()} for i, o in enumerate(self._u2)}
        # A dropout keeps no share of its own mask key to reveal, and it reveals nothing anyway.
        found = recover(shares, threshold, lambda o, secret: secret_holds(self._advertised, survivors, o, secret))
        if isinstance(found, int):
            return self._fail(Refused(Reason.BAD_SHARE, detail=f"the secret of {self._name(found)} does not open"))
        if (bad := unmask(self._total, self._advertised, survivors, found.secrets)) is not None:
            return self._fail(Refused(Reason.BAD_KEY, self._name(bad)))
        culprits = sorted(found.culprits | garbled)
        self._result = SumResult(
            from_ring(self._total),
            tuple(self._name(member) for member in self._u3),
            tuple(self._name(member) for member in culprits),
        )
        self._enter(CoordinatorState.DONE, [])
        return [Refused(Reason.BAD_SHARE, self._name(member)) for member in culprits]

    def _shares_by_owner(self, reveal: Reveal) -> Rows:
        """Return shape (|U2|, 34): the holder's own share stands in its own row."""
        at = self._u2.index(reveal.position)
        own = np.frombuffer(reveal.own, dtype=np.uint8).reshape(1, SHARE_BYTES)
        return np.concatenate([reveal.slots[:at], own, reveal.slots[at:]])

    def _enter(self, state: CoordinatorState, expected: list[int]) -> None:
        self._state, self._expected, self._answers = state, expected, {}

    def _fail(self, refused: Refused) -> list[To | Refused]:
        self._failed = refused
        self._total = np.zeros(0, dtype=self._total.dtype)
        self._enter(CoordinatorState.FAILED, [])
        return [refused]

    def _name(self, position: int) -> str:
        return self._config.participants[position]

    def _to(self, position: int, message: FromCoordinator) -> To:
        return To(self._name(position), message)


def _members(positions: list[int]) -> Members:
    return np.asarray(positions, dtype="<u4")


def _table(rows: list[bytes], width: int) -> Rows:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width)


def _transpose(sent: dict[int, Rows], addressed: list[int], members: list[int], width: int) -> dict[int, Rows]:
    """Turn what each member sent to all others of `addressed` into what each member gets from all others.

    Args:
        sent: member -> rows (len(addressed) - 1, width), one for each other one of `addressed`, in order.
        addressed: positions that rows were made for, sorted.
        members: positions that sent and receive, sorted, within `addressed`.
        width: bytes of a row.

    Returns:
        member -> rows (len(members) - 1, width), senders in order.
    """
    place = {position: index for index, position in enumerate(addressed)}
    square = np.zeros((len(members), len(addressed), width), dtype=np.uint8)
    for row, member in zip(square, members, strict=True):
        row[np.arange(len(addressed)) != place[member]] = sent[member]
    return {
        member: np.ascontiguousarray(square[np.arange(len(members)) != index, place[member]])
        for index, member in enumerate(members)
    }
