"""What holds at every instant of a run, whatever struck: one class a promise."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgpack
import numpy as np

from scarcity.federation.codec import body_digest, decode_packet
from scarcity.federation.effects import BasketClosed, Entry, ModelAccepted, ModelMade, Send
from scarcity.federation.layers import layer2_bits, layer2_input, layer2_scale, model_of_sum
from scarcity.federation.packets import (
    CONTRIBUTIONS,
    SIGNED,
    Aborted,
    Absent,
    Ack,
    Aggregate,
    BasketReport,
    Declined,
    Model,
    Release,
    RoundConfig,
    SecureSum,
    TrustedUpdate,
    TrustMode,
    Unprotected,
    digest_of,
)
from scarcity.federation.privacy_guard import LEDGER, open_filter, replay_ledger, trusted_update
from scarcity.federation.recovery import (
    ABORTED,
    CONFIG,
    CONTRIBUTION,
    DECLINED,
    EQUIVOCATION,
    MODEL,
    OUTCOME,
    RECEIPT,
    ROWS,
)
from scarcity.federation.secure_aggregation import SumConfigMessage, decode
from scarcity.federation.secure_aggregation.messages import FromClient, Masked
from scarcity.privacy.ledger import RecordState, decode_record
from sim.worlds.built import FEDERATION, Built
from sim.worlds.checkers import Checker, Died, Seen, View

_ROUNDS = 32  # that a checker keeps in mind: far above max_staleness
_LENGTH = struct.Struct("<I")  # of a packet's envelope, as `codec` writes it
_ROUNDING = 1e-9  # relative, of a sum of floats
_NOISE_SIGMAS = 12.0  # P(a Gaussian beyond) = 4e-33


class Rounds:
    """A mapping of the newest rounds: (round, place) -> value."""

    def __init__(self, num_rounds: int = _ROUNDS) -> None:
        self._num_rounds = num_rounds
        self._by_round: dict[int, dict[Any, Any]] = {}

    def of(self, round_id: int) -> dict[Any, Any]:
        """Return what is kept of a round."""
        if round_id not in self._by_round:
            self._by_round[round_id] = {}
            oldest = max(self._by_round) - self._num_rounds
            for old in [at for at in self._by_round if at < oldest]:
                del self._by_round[old]
        return self._by_round.setdefault(round_id, {})


class BudgetKept(Checker):
    """No contribution leaves before its charge is on the disk, no charge of one that left is given back, none is twice.

    At the end each ledger is replayed: its chain holds and its spending is within the budget.
    """

    watches = (LEDGER, SecureSum, Release, TrustedUpdate)

    def __init__(self, built: Built) -> None:
        self._built = built
        self._charged: set[str] = set()
        self._left: set[str] = set()

    def note(self, seen: Seen) -> Iterable[str]:
        """Follow charges and what leaves."""
        member, what = seen.member, seen.what
        if member not in self._built.clients:
            return
        if isinstance(what, Entry):
            yield from self._on_record(what)
            return
        body, round_id = what.packet.body, what.packet.header.round_id
        if isinstance(body, SecureSum) and not isinstance(decode(body.payload), Masked):
            return
        name = f"{FEDERATION}/{round_id}/{member}"
        if name not in self._charged:
            yield f"{name} left before it was charged"
        self._left.add(name)

    def _on_record(self, entry: Entry) -> Iterator[str]:
        record = decode_record(entry.payload)
        name, _, _layer = record.release_id.rpartition("/")
        if record.state is RecordState.RESERVED:
            if record.release_id in self._charged:
                yield f"{record.release_id} was charged twice"
            self._charged |= {name, record.release_id}
        elif record.state is RecordState.VOID and name in self._left:
            yield f"{record.release_id} was refunded after it had left"

    def end(self, _view: View) -> Iterable[str]:
        """Replay the ledgers."""
        built = self._built
        for member in built.clients:
            owner = built.seats.keys[member].verify_key.encode().hex()
            ledger = open_filter(built.settings, built.assembly.budget, owner)
            if ledger is None:
                return
            replay_ledger(ledger, [entry.payload for entry in built.disks[member].entries(LEDGER)])
            if ledger.spent.epsilon > built.config.epsilon * (1 + 1e-9):
                yield f"{member} has spent epsilon {ledger.spent.epsilon}, its budget is {built.config.epsilon}"


class RowsOnce(Checker):
    """No row is in two contributions of its client, whether there is a ledger or not."""

    watches = (LEDGER, ROWS)

    def __init__(self) -> None:
        self._spent: dict[tuple[str, str], list[tuple[str, tuple[int, int]]]] = {}

    def note(self, seen: Seen) -> Iterable[str]:
        """Compare with the newest intervals."""
        member, what = seen.member, seen.what
        if what.kind == ROWS:
            layer, name, rows = "none", what.key, tuple(msgpack.unpackb(what.payload))
        else:
            record = decode_record(what.payload)
            name, _, layer = record.release_id.rpartition("/")
            if record.rows is None or record.state is RecordState.COMMITTED:
                return
            rows = record.rows
            if record.state is RecordState.VOID:
                kept = self._spent.get((member, layer), [])
                self._spent[member, layer] = [(other, spent) for other, spent in kept if other != name]
                return
        spent = self._spent.setdefault((member, layer), [])
        for other, (a, b) in spent:
            if rows[0] < b and a < rows[1]:
                yield f"rows {rows} of {name} ({layer}) were given in {other} as {(a, b)}"
        spent.append((name, (rows[0], rows[1])))
        del spent[:-_ROUNDS]


class SubmissionsKept(Checker):
    """An acknowledged submission is on its basket's disk, counts unless its sender has a newer one, and counts once.

    None counts that is older than max_staleness, and a receipt that is on the disk is acknowledged in the same step.
    """

    watches = (RECEIPT, Ack, OUTCOME, EQUIVOCATION, Died)

    def __init__(self, built: Built) -> None:
        self._stale = built.settings.max_staleness
        self._digests = Rounds()  # round -> (basket, sender) -> digest of what is on the disk
        self._due: dict[str, set[tuple[str, int]]] = {}  # basket -> acknowledged, not counted yet
        self._used: dict[str, dict[tuple[str, int], int]] = {}  # basket -> place -> in which round
        self._closed: dict[str, set[int]] = {}
        self._unanswered: dict[str, set[tuple[str, int]]] = {}

    def note(self, seen: Seen) -> Iterable[str]:
        """Follow receipts, acknowledgements and what rounds take."""
        member, what = seen.member, seen.what
        if isinstance(what, Died):
            self._unanswered.pop(member, None)
        elif isinstance(what, Send):
            yield from self._on_ack(member, what)
        elif what.kind == RECEIPT:
            at_round, _, sender = what.key.partition("/")
            place = (sender, int(at_round))
            self._digests.of(place[1])[member, sender] = _digest_of_record(what.payload)
            self._due.setdefault(member, set()).add(place)
            self._unanswered.setdefault(member, set()).add(place)
        elif what.kind == EQUIVOCATION:
            round_id, _, sender = what.key.partition("/")
            self._due.get(member, set()).discard((sender, int(round_id)))
        else:
            yield from self._on_outcome(member, int(what.key), msgpack.unpackb(what.payload)[2])

    def _on_ack(self, member: str, sent: Send) -> Iterator[str]:
        round_id = sent.packet.header.round_id
        held = self._digests.of(round_id).get((member, sent.to))
        if held != cast("Ack", sent.packet.body).digest:
            yield f"the contribution of {sent.to} to round {round_id} was acknowledged, and another or none is durable"
        self._unanswered.get(member, set()).discard((sent.to, round_id))

    def _on_outcome(self, member: str, round_id: int, taken: list[tuple[str, int]] | None) -> Iterator[str]:
        closed = self._closed.setdefault(member, set())
        if round_id in closed:
            yield f"round {round_id} has two outcomes"
        closed.add(round_id)
        if taken is None:
            return
        used, due = self._used.setdefault(member, {}), self._due.setdefault(member, set())
        counted = {(name, at) for name, at in taken}
        for name, at in sorted(counted):
            if (name, at) in used:
                yield f"{name}'s contribution to round {at} counts in round {round_id} and in {used[name, at]}"
            if at < round_id - self._stale:
                yield f"{name}'s contribution to round {at} counts in round {round_id}, max_staleness {self._stale}"
        newest_used: dict[str, int] = {}
        for name, at in used:
            newest_used[name] = max(at, newest_used.get(name, 0))
        newest: dict[str, int] = {}
        for name, at in due:
            if round_id - self._stale <= at <= round_id and at > newest_used.get(name, 0):
                newest[name] = max(at, newest.get(name, 0))
        if lost := sorted(set(newest.items()) - counted):
            yield f"acknowledged and lost in round {round_id}: {lost[:3]}"
        used.update(dict.fromkeys(counted, round_id))
        self._due[member] = {place for place in due if place[1] > round_id}
        self._used[member] = {place: at for place, at in used.items() if at > round_id - _ROUNDS}
        self._closed[member] = {at for at in closed if at > round_id - _ROUNDS}

    def tick(self, view: View) -> Iterable[str]:
        """Receipt and acknowledgement are effects of one step."""
        for basket, places in self._unanswered.items():
            if places and basket in view.cores:
                yield f"{basket} has {sorted(places)[:3]} on its disk and acknowledges nothing"
                places.clear()


def _digest_of_record(payload: bytes) -> bytes:
    """Return the digest of the body of an encoded packet; it is the tail of its bytes, and need not be decoded."""
    return digest_of(payload[_LENGTH.size + _LENGTH.unpack_from(payload)[0] :])


class DurableFirst(Checker):
    """What a member says in its own name is on its disk before it leaves: it says the same again after a crash."""

    _RECORDS: Final[Mapping[type, str]] = {
        RoundConfig: CONFIG,
        Release: CONTRIBUTION,
        TrustedUpdate: CONTRIBUTION,
        Unprotected: CONTRIBUTION,
        Declined: DECLINED,
        BasketReport: OUTCOME,
        Absent: OUTCOME,
        Aborted: ABORTED,
        Model: MODEL,
    }
    watches = (*_RECORDS, *sorted(set(_RECORDS.values())))

    def __init__(self) -> None:
        self._written = Rounds()

    def note(self, seen: Seen) -> Iterable[str]:
        """Compare what leaves with what was written."""
        member, what = seen.member, seen.what
        if isinstance(what, Entry):
            self._written.of(int(what.key)).setdefault((member, what.kind))
            return
        head, kind = what.packet.header, self._RECORDS[type(what.packet.body)]
        if head.sender == member and (member, kind) not in self._written.of(head.round_id):
            yield f"{type(what.packet.body).__name__} of round {head.round_id} left before its {kind!r} was written"


class OneAnswer(Checker):
    """What a member says in its own name at a stage of a round is one thing: said again, it is the same bytes.

    So nobody reveals for two sets of survivors or masks one input in two sums, and no round ends twice.
    """

    watches = (*sorted(SIGNED, key=lambda kind: kind.__name__), SecureSum)
    _EITHER: Final = (("Absent", "BasketReport"), ("Aborted", "Model"), ("Declined", "contribution"))

    def __init__(self, built: Built) -> None:
        self._built = built
        self._said = Rounds()

    def note(self, seen: Seen) -> Iterable[str]:
        """Compare with what was said at this stage before."""
        packet = seen.what.packet
        said, body = self._said.of(packet.header.round_id), packet.body
        if isinstance(body, SecureSum):
            yield from self._on_sum(said, seen.member, seen.what.to, body)
            return
        author = packet.header.sender
        stage = (author, "contribution" if isinstance(body, CONTRIBUTIONS) else type(body).__name__)
        if said.get(stage) is packet:
            return  # the very packet that was passed on or said again
        digest = said[stage].body if stage in said else None
        if digest is not None and body_digest(digest) != body_digest(body):
            yield f"{author} said two of {stage[1]} in round {packet.header.round_id}"
        said[stage] = packet
        for one, other in self._EITHER:
            if {(author, one), (author, other)} <= said.keys():
                yield f"{author} said {one} and {other} in round {packet.header.round_id}"

    def _on_sum(self, said: dict[Any, Any], member: str, to: str, body: SecureSum) -> Iterator[str]:
        message = decode(body.payload)
        if isinstance(message, SumConfigMessage):
            c = message.config
            stage: tuple[Any, ...] = (member, "sum config", c.scope, c.epoch, c.round_id, c.attempt)
        elif isinstance(message, FromClient):
            stage = (member, type(message).__name__, message.ctx)
        else:
            stage = (member, to, type(message).__name__, message.ctx)
        if said.setdefault(stage, body.payload) != body.payload:
            yield f"{member} answered {stage[1:-1]} of a secure sum twice"
        clean = member in self._built.clients or self._built.settings.mode is TrustMode.CENTRAL
        if isinstance(message, Masked) and clean and said.setdefault((member, "masked"), message.ctx) != message.ctx:
            yield f"{member} masked one input in two sums"


class OneModel(Checker):
    """No two models for one round, whoever holds them; and no round has a model and was given up."""

    watches = (ModelMade, ModelAccepted, Model)

    def __init__(self) -> None:
        self._models = Rounds()

    def note(self, seen: Seen) -> Iterable[str]:
        """Compare with the model of this round that was seen first."""
        what = seen.what
        model = cast("Model", what.packet.body if isinstance(what, Send) else what.model)
        first = self._models.of(model.round_id).setdefault("model", model)
        if first is not model and first.identity != model.identity:
            yield f"two models for round {model.round_id}"


class SumExact(Checker):
    """A secure sum is exact or absent: Layer 2's to the bit, a basket's up to the noise that its members put in."""

    watches = (RoundConfig, RECEIPT, OUTCOME, BasketClosed, ModelMade)

    def __init__(self, built: Built) -> None:
        self._built = built
        self._rounds = Rounds()

    def note(self, seen: Seen) -> Iterable[str]:
        """Sum in the open what was summed in secret."""
        what = seen.what
        if isinstance(what, Send):
            self._rounds.of(what.packet.header.round_id).setdefault("config", what.packet.body)
        elif isinstance(what, Entry) and what.kind == OUTCOME:
            self._rounds.of(int(what.key))["taken", seen.member] = msgpack.unpackb(what.payload)[2]
        elif isinstance(what, Entry):
            round_id, _, sender = what.key.partition("/")
            self._rounds.of(int(round_id))["receipt", seen.member, sender] = what.payload
        elif isinstance(what, BasketClosed):
            self._rounds.of(what.round_id)[what.basket_id] = what.aggregate
            if what.aggregate is not None:
                yield from self._layer1(what, what.aggregate)
        else:
            yield from self._layer2(what)

    def _layer2(self, made: ModelMade) -> Iterator[str]:
        held = self._rounds.of(made.model.round_id)
        config: RoundConfig | None = held.get("config")
        aggregates: list[Aggregate | None] = [held.get(basket) for basket in made.baskets]
        if config is None or config.layer2_noise.sigma > 0 or not np.isinf(config.settings.layer2_clip):
            return
        bits, scale = layer2_bits(len(self._built.config.domains)), layer2_scale(config)
        known = [aggregate for aggregate in aggregates if aggregate is not None]
        if len(known) < len(aggregates):
            return  # mode central shows them to nobody
        total = np.sum([layer2_input(aggregate, scale, bits) for aggregate in known], axis=0)
        reports = [BasketReport(a.weight, a.count, a.noise_variance) for a in known]
        if model_of_sum(total, reports, config=config, round_id=made.model.round_id).identity != made.model.identity:
            yield f"the model of round {made.model.round_id} is not the sum over {made.baskets}"

    def _layer1(self, closed: BasketClosed, aggregate: Aggregate) -> Iterator[str]:
        mode, slack = self._built.settings.mode, 0.0
        inputs: Sequence[TrustedUpdate | Unprotected] | None = None
        if mode is TrustMode.NONE:
            inputs = self._received(closed)
        elif mode is TrustMode.DISTRIBUTED:
            inputs = self._given(closed)
            slack = _NOISE_SIGMAS * float(aggregate.noise_variance) ** 0.5 + len(closed.members)
        if inputs is None:
            return  # the inputs are not summed, a late one counts for less, or they are too old to be known
        name = f"{closed.basket_id}'s aggregate of round {closed.round_id}"
        weight = sum(update.weight for update in inputs)
        # In a secure sum a weight is what its member says beforehand, in public; a liar may say another one.
        if mode is TrustMode.NONE and weight != aggregate.weight:
            yield f"{name} weighs {aggregate.weight}, its members' {weight}"
        total = np.sum([np.asarray(update.vector, dtype=np.float64) for update in inputs], axis=0)
        off = float(np.abs(np.asarray(aggregate.total, dtype=np.float64) - total).max())
        if off > slack + _ROUNDING * float(np.abs(total).max(initial=1.0)):
            yield f"{name} is {off:.6g} off the sum of its members'"

    def _received(self, closed: BasketClosed) -> list[Unprotected] | None:
        """Return what is on the basket's disk, None if a contribution of another round counts."""
        held = self._rounds.of(closed.round_id)
        if any(at != closed.round_id for _, at in held.get(("taken", closed.basket_id)) or ()):
            return None
        kept = [held.get(("receipt", closed.basket_id, name), b"") for name in closed.members]
        return [cast("Unprotected", decode_packet(payload).body) for payload in kept] if all(kept) else None

    def _given(self, closed: BasketClosed) -> list[TrustedUpdate] | None:
        """Return the members' integers, before noise and masks."""
        built = self._built
        given = [built.given.get((name, closed.round_id)) for name in closed.members]
        updates = [update for update in given if update is not None]
        if len(updates) < len(given):
            return None
        return [trusted_update(update, built.settings, built.layout) for update in updates]


class MailboxesBounded(Checker):
    """What waits at a member stays within its mailbox's bound."""

    def __init__(self, bound: int) -> None:
        self._bound = bound

    def tick(self, view: View) -> Iterable[str]:
        """Look at all mailboxes."""
        for member, size in view.mailbox_sizes().items():
            if size > self._bound:
                yield f"{size} messages wait at {member}, its bound is {self._bound}"
