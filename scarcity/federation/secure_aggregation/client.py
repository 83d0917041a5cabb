"""`SecureAggClient`: a participant of secure sums as a pure state machine; messages in, outputs out.

Who says what when: the coordinator sends the config, Keys, Boxes, Survivors and Macs; the client answers Advertise,
Shares, Masked, Confirm and Reveal. Nothing here has a clock, a socket or randomness of its own.

    state       accepts                        then
    IDLE        config (begin)                 Mark, Advertise        -> ADVERTISED
    ADVERTISED  Keys; the input                Shares                 -> SHARED
    SHARED      Boxes; the input               Masked if input is in  -> MASKED, else READY
    READY       the input                      Masked                 -> MASKED
    MASKED      Survivors                      Confirm                -> CONFIRMED
    CONFIRMED   Macs                           Reveal                 -> REVEALED, wiped
    any live    another config, abort          wiped                  -> ABORTED (or ADVERTISED in the new sum)

A message that breaks the protocol of the live sum aborts it and wipes its secrets; one of another sum, of another state
or one that was seen before is refused and changes nothing.

The coordinator is not trusted for privacy: it cannot get more than the sum over one U3 of at least min_survivors, out
of one context, as long as fewer than n/3 of the participants help it. It is trusted to be available and to report the
right sum. Not defended against: members that send nonsense as input, or refuse to finish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
from nacl.signing import SigningKey
from numpy.typing import NDArray

from scarcity.errors import ConfigError, InvalidUpdate, LocalError
from scarcity.federation.secure_aggregation.channel import EpochChannel, EpochPlace, signature_holds
from scarcity.federation.secure_aggregation.config import (
    SUITE,
    RoundSumConfig,
    SecureAggPolicy,
    noise_tail,
    policy_breaches,
)
from scarcity.federation.secure_aggregation.messages import (
    Boxes,
    Keys,
    Macs,
    Members,
    SumConfigMessage,
    SumMessage,
    Survivors,
    Withdrawn,
    encode,
)
from scarcity.federation.secure_aggregation.outputs import SPENT, ClientState, Mark, Outgoing, Output
from scarcity.federation.secure_aggregation.reasons import Reason, Refused
from scarcity.federation.secure_aggregation.session import Session

Policies = Mapping[str, SecureAggPolicy] | Callable[[str], SecureAggPolicy | None]

_OVER: Final = (ClientState.IDLE, ClientState.REVEALED, ClientState.ABORTED)
_BEFORE_MASKED: Final = (ClientState.ADVERTISED, ClientState.SHARED, ClientState.READY)


class SecureAggClient:
    """One participant; it has at most one live sum in the whole federation.

    Args:
        own_id: roster id.
        signing_key: Ed25519 identity.
        roster: id -> Ed25519 public key, the whole federation.
        federation: federation id.
        roster_root: 32-byte root of the roster.
        epoch: the roster's epoch.
        policies: scope -> pinned policy (mapping or function); a scope without one is refused.
        entropy: source of keys and shares (os.urandom in production).
        marks: the marks made durable before a restart, in any order.

    Raises:
        ConfigError: own_id or a key does not fit the roster.
    """

    def __init__(
        self,
        own_id: str,
        signing_key: SigningKey,
        roster: Mapping[str, bytes],
        federation: str,
        roster_root: bytes,
        epoch: int,
        policies: Policies,
        entropy: Callable[[int], bytes],
        marks: Iterable[Mark] = (),
    ) -> None:
        self._own_id = own_id
        self._signing_key = signing_key
        self._federation = federation
        self._policy_of = policies.get if isinstance(policies, Mapping) else policies
        self._entropy = entropy
        self._marks: dict[str, Mark] = {}
        for mark in marks:
            self._keep(mark)
        self._floors: dict[tuple[str, int], int] = {}  # (scope, round) -> min_survivors of the first attempt
        self._channel: EpochChannel | None = None
        self._session: Session | None = None
        self._policy: SecureAggPolicy | None = None
        self._config: RoundSumConfig | None = None
        self._seen: dict[type, bytes] = {}
        self._state = ClientState.IDLE
        self._enter_epoch(roster, roster_root, epoch)
        # What a sum in progress needs is never on disk: this party is a dropout of every round it had a mark in.
        self._restarted_in = max((mark.round_id for mark in self._marks.values()), default=-1)

    @property
    def state(self) -> ClientState:
        """Where this participant stands."""
        return self._state

    @property
    def participants(self) -> tuple[str, ...]:
        """Ids of the last accepted config, () before the first."""
        return self._config.participants if self._config else ()

    @property
    def min_survivors(self) -> int:
        """Smallest number of inputs in the sum, by the last accepted config; 0 before the first."""
        return self._config.min_survivors if self._config else 0

    @property
    def ctx(self) -> bytes:
        """Digest of the last accepted config, empty before the first."""
        return self._config.ctx if self._config else b""

    def enter_epoch(self, roster: Mapping[str, bytes], roster_root: bytes, epoch: int) -> None:
        """Take a new roster: the live sum ends, the old channel key is deleted and its epoch closed for good.

        Raises:
            ConfigError: the epoch is not newer, or the roster does not hold one's own key.
        """
        if epoch <= self._epoch:
            raise ConfigError(f"epoch {epoch} is not newer than {self._epoch}")
        self._enter_epoch(roster, roster_root, epoch)

    def _enter_epoch(self, roster: Mapping[str, bytes], roster_root: bytes, epoch: int) -> None:
        if roster.get(self._own_id) != self._signing_key.verify_key.encode():
            raise ConfigError(f"the roster does not hold {self._own_id!r} with this signing key")
        self.abort()
        if self._channel:
            self._channel.wipe()
        self._channel = None
        self._roster, self._roster_root, self._epoch = dict(roster), roster_root, epoch

    # The life of one sum.

    def begin(self, config: SumConfigMessage) -> list[Output]:
        """Take a config: check it against everything pinned, and advertise.

        Returns:
            [Mark, Outgoing(Advertise)]; or a refusal, then `Withdrawn` where the coordinator itself is the right one.
        """
        terms = config.config
        policy = self._policy_of(terms.scope)
        if policy is None:
            return [Refused(Reason.NO_POLICY, detail=terms.scope)]
        if refused := self._not_from_its_coordinator(config, policy) or self._not_newer(terms, policy):
            return [refused]
        if refused := self._breach(terms, policy):
            # It takes a signed, fresh config of our own coordinator to get an answer, and it says nothing secret.
            reason = refused.reason.name
            return [refused, Outgoing(Withdrawn(terms.ctx, terms.participants.index(self._own_id), reason))]
        self.abort()
        self._config, self._policy, self._seen = terms, policy, {}
        self._floors = {(terms.scope, terms.round_id): self._first_floor(terms)}
        self._channel = self._channel or self._new_channel()
        self._session = Session(terms, terms.participants.index(self._own_id), self._entropy)
        self._state = ClientState.ADVERTISED
        mark = self._keep(Mark(terms.scope, terms.epoch, terms.round_id, terms.attempt))
        return [mark, Outgoing(self._session.advertise(self._signing_key, self._channel))]

    def _new_channel(self) -> EpochChannel:
        place = EpochPlace(SUITE, self._federation, self._roster_root, self._epoch)
        return EpochChannel(self._own_id, self._signing_key, self._roster, place, self._entropy)

    def _first_floor(self, terms: RoundSumConfig) -> int:
        return self._floors.get((terms.scope, terms.round_id), terms.min_survivors)

    def _not_from_its_coordinator(self, message: SumConfigMessage, policy: SecureAggPolicy) -> Refused | None:
        terms = message.config
        key = self._roster.get(policy.coordinator)
        if key is None or key != terms.coordinator_key:
            return Refused(Reason.BAD_SIGNATURE, detail=f"scope {terms.scope!r} is pinned to {policy.coordinator!r}")
        if not signature_holds(key, b"ssa1.config", terms.canonical, message.signature):
            return Refused(Reason.BAD_SIGNATURE, policy.coordinator)
        theirs = (terms.federation, terms.epoch, terms.roster_root)
        if theirs != (self._federation, self._epoch, self._roster_root):
            return Refused(Reason.WRONG_FEDERATION, policy.coordinator, f"epoch {terms.epoch}, here {self._epoch}")
        if self._own_id not in terms.participants:
            return Refused(Reason.BAD_MEMBERS, policy.coordinator, "this party is not among the participants")
        return None

    def _not_newer(self, terms: RoundSumConfig, policy: SecureAggPolicy) -> Refused | None:
        """Refuse whatever could sum one input twice: an old sum, or another sum of a round whose input has gone out."""
        last = self._marks.get(terms.scope)
        if last and ((terms.round_id, terms.attempt) <= (last.round_id, last.attempt) or terms.epoch < last.epoch):
            return Refused(Reason.REPLAYED, detail=f"last {last}")
        # An input belongs to a round, whatever scope or epoch a second coordinator would sum it under.
        spent = max((mark.round_id for mark in self._marks.values() if mark.attempt == SPENT), default=-1)
        if terms.round_id <= spent and not policy.inputs_released:
            return Refused(Reason.ROUND_SPENT, detail=f"round {terms.round_id}, spent up to {spent}")
        return None

    def _breach(self, terms: RoundSumConfig, policy: SecureAggPolicy) -> Refused | None:
        if terms.round_id <= self._restarted_in:
            return Refused(Reason.RESTARTED, detail=f"round {terms.round_id}, restarted in {self._restarted_in}")
        if unknown := [name for name in terms.participants if name not in self._roster]:
            return Refused(Reason.BAD_MEMBERS, detail=f"{unknown[0]!r} is not on the roster")
        # An input that is released already shows nothing new in a smaller sum, so its retry may do without the lost.
        if not policy.inputs_released and terms.min_survivors < self._first_floor(terms):
            return Refused(Reason.WEAKER_RETRY, detail=f"{terms.min_survivors} of {self._first_floor(terms)}")
        return next(policy_breaches(terms, policy), None)

    def _keep(self, mark: Mark) -> Mark:
        last = self._marks.get(mark.scope)
        if last is None or (last.round_id, last.attempt, last.epoch) < (mark.round_id, mark.attempt, mark.epoch):
            self._marks[mark.scope] = mark
        return mark

    def provide(self, vector: NDArray[np.int64]) -> list[Output]:
        """Give the input: quantised, multiplied and noised integers, nothing is added or scaled any more.

        Args:
            vector: shape (d,), int64; not kept and not changed.

        Raises:
            InvalidUpdate: another shape or dtype, or a value beyond what the config has proved to fit.
            LocalError: an input was given already.
        """
        if self._state not in _BEFORE_MASKED or not self._session or not self._policy:
            return [Refused(Reason.WRONG_STATE, detail=f"an input in state {self._state.name}")]
        if self._session.has_input:
            raise LocalError("this sum has its input already")
        terms = self._session.config
        dtype, shape = getattr(vector, "dtype", type(vector)), np.shape(vector)
        if dtype != np.int64 or shape != (terms.dimension,):
            raise InvalidUpdate(f"expected int64 of shape ({terms.dimension},), got {dtype} of shape {shape}")
        bound = terms.input_bound + noise_tail(terms, self._policy.max_colluders)
        if int(vector.max()) > bound or int(vector.min()) < -bound:
            raise InvalidUpdate(f"a value is beyond {bound}, which the config has proved to fit the ring")
        self._session.hold(vector)
        return self._send_masked(self._session) if self._state is ClientState.READY else []

    def receive(self, message: SumMessage) -> list[Output]:
        """Take a message of the live sum's coordinator; the caller has authenticated the sender."""
        if self._state in _OVER or not self._session or not self._channel:
            return [Refused(Reason.TERMINAL, detail=self._state.name)]
        if isinstance(message, SumConfigMessage):
            return [Refused(Reason.WRONG_STATE, detail="a config goes to begin()")]
        if message.ctx != self._session.ctx:
            return [Refused(Reason.WRONG_CONTEXT, detail=type(message).__name__)]
        digest = hashlib.blake2b(encode(message), digest_size=32).digest()
        if (first := self._seen.get(type(message))) is not None:
            # U1, U2, U3 and the confirmations are write-once.
            repeated = [Refused(Reason.DUPLICATE, detail=type(message).__name__)]
            return list(repeated) if first == digest else self._fail(Reason.EQUIVOCATION, detail=type(message).__name__)
        outputs = self._dispatch(message, self._session, self._channel)
        if outputs is None:
            return [Refused(Reason.WRONG_STATE, detail=f"{type(message).__name__} in state {self._state.name}")]
        self._seen[type(message)] = digest
        return outputs

    def _dispatch(self, message: SumMessage, live: Session, channel: EpochChannel) -> list[Output] | None:
        match self._state, message:
            case ClientState.ADVERTISED, Keys():
                return self._take_keys(message, live, channel)
            case ClientState.SHARED, Boxes():
                return self._take_boxes(message, live, channel)
            case ClientState.MASKED, Survivors():
                return self._take_survivors(message, live, channel)
            case ClientState.CONFIRMED, Macs():
                return self._take_macs(message, live, channel)
        return None

    # One round each.

    def _take_keys(self, message: Keys, live: Session, channel: EpochChannel) -> list[Output]:
        members = message.members
        if int(members[-1] if len(members) else 0) >= live.config.n or live.position not in members:
            return self._fail(Reason.BAD_MEMBERS, detail="U1 is not of the config's participants and oneself")
        if len(members) < live.config.threshold:
            return self._fail(Reason.TOO_FEW, detail=f"U1 has {len(members)}, threshold {live.config.threshold}")
        if not live.keys_are_sound(message):
            return self._fail(Reason.BAD_KEY, detail="mask keys: one's own is changed, or one is doubled or unsound")
        rows = zip(members.tolist(), message.epoch_keys, message.epoch_signatures, strict=True)
        for position, key, signature in rows:
            peer = live.config.participants[position]
            if peer == self._own_id:
                fault = None if key.tobytes() == channel.public_key else Reason.BAD_KEY
            else:
                fault = channel.pin(peer, key.tobytes(), signature.tobytes(), live.config.round_id)
            if fault:
                return self._fail(fault, peer, "epoch key")
        self._state = ClientState.SHARED
        return [Outgoing(live.deal(message, channel))]

    def _take_boxes(self, message: Boxes, live: Session, channel: EpochChannel) -> list[Output]:
        members = message.members
        if not live.in_u1(members) or live.position not in members or len(message.boxes) != len(members) - 1:
            return self._fail(Reason.BAD_MEMBERS, detail="U2 is not within U1, lacks oneself, or not one box each")
        # Without this size check, a coordinator that shows one victim U2 = {victim} gets its input by itself.
        if len(members) < live.config.threshold:
            return self._fail(Reason.TOO_FEW, detail=f"U2 has {len(members)}, threshold {live.config.threshold}")
        if (peer := live.open(message, channel)) is not None:
            return self._fail(Reason.BAD_BOX, peer)
        self._state = ClientState.READY
        return self._send_masked(live) if live.has_input else []

    def _send_masked(self, live: Session) -> list[Output]:
        masked = live.mask(self._signing_key)
        if isinstance(masked, str):
            return self._fail(Reason.BAD_KEY, masked)
        self._state = ClientState.MASKED
        terms = live.config
        if self._policy and self._policy.inputs_released:
            return [Outgoing(masked)]
        # From here on some t others can open a sum that holds this input, whatever this party is told.
        return [self._keep(Mark(terms.scope, terms.epoch, terms.round_id, SPENT)), Outgoing(masked)]

    def _take_survivors(self, message: Survivors, live: Session, channel: EpochChannel) -> list[Output]:
        members: Members = message.members
        if not live.in_u2(members) or live.position not in members:
            return self._fail(Reason.BAD_MEMBERS, detail="U3 is not within U2, or lacks oneself")
        if len(members) < live.config.min_survivors:
            return self._fail(
                Reason.TOO_FEW, detail=f"U3 has {len(members)}, min_survivors {live.config.min_survivors}"
            )
        self._state = ClientState.CONFIRMED
        return [Outgoing(live.confirm(members, channel))]

    def _take_macs(self, message: Macs, live: Session, channel: EpochChannel) -> list[Output]:
        if not live.confirmers_are_survivors(message.senders):
            return self._fail(Reason.BAD_MEMBERS, detail="a confirmation from outside of U3, or one's own")
        if (peer := live.check(message, channel)) is not None:
            return self._fail(Reason.BAD_MAC, peer)
        if len(message.senders) < live.config.threshold - 1:
            return self._fail(
                Reason.TOO_FEW, detail=f"{len(message.senders)} confirmations of {live.config.threshold - 1}"
            )
        reveal = live.reveal()
        live.wipe()
        self._session, self._state = None, ClientState.REVEALED
        return [Outgoing(reveal)]

    def abort(self) -> None:
        """Give the live sum up, if there is one, and wipe its secrets."""
        if self._session:
            self._session.wipe()
            self._session, self._state = None, ClientState.ABORTED

    def _fail(self, reason: Reason, peer: str = "", detail: str = "") -> list[Output]:
        assert self._session, "_fail() without a live sum"
        withdrawn = Withdrawn(self._session.ctx, self._session.position, reason.name)
        self.abort()
        return [Refused(reason, peer, detail), Outgoing(withdrawn)]
