"""What a node is doing, as one frozen value: for `scarcity status`, as JSON and as text.

The daemon hands over plain facts (`status_of`), with instants on the event loop's clock, as cores and links give them;
here they become seconds ago and seconds left, so that the value means the same to a process with another clock. No
values of vectors are in it, and no secrets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from actors.mailbox import MailboxStatistics
from actors.transport import LinkStatistics, TransportStatistics
from scarcity.errors import FederationError
from scarcity.federation.effects import Waiting
from scarcity.node.text import table_text

_MISSING_SHOWN = 5
REASONS_MAX = 64  # the most frequent ones; a hostile peer can make up any number of them


@attrs.frozen(kw_only=True)
class MemberFacts:
    """What the daemon knows of one of its members.

    Attributes:
        id: its id.
        role: "client", "basket" or "coordinator".
        state: the core's state, in words.
        round_id: its newest round, 0 before the first.
        waiting: what its core waits for.
        epsilon_spent: of its ledger; None where it has none.
        epsilon_budget: of its ledger; None where it has none.
        mailbox: of its actor; None while it starts again.
        num_restarts: of its actor.
        num_rows: rows that it has read; None for who has none.
    """

    id: str
    role: str
    state: str
    round_id: int = 0
    waiting: tuple[Waiting, ...] = ()
    epsilon_spent: float | None = None
    epsilon_budget: float | None = None
    mailbox: MailboxStatistics | None = None
    num_restarts: int = 0
    num_rows: int | None = None


@attrs.frozen(kw_only=True)
class Absent:
    """Somebody who is waited for: when they were last heard of, and whether there is a link to their node."""

    id: str
    node: str
    linked: bool
    seen_s_ago: float | None

    def describe(self) -> str:
        """Return one phrase for people."""
        seen = "never seen" if self.seen_s_ago is None else f"last seen {_span(self.seen_s_ago)} ago"
        return f"{self.id} {seen}" if self.linked else f"{self.id} {seen}, no link to {self.node or 'any known node'}"


@attrs.frozen(kw_only=True)
class Wait:
    """What a member waits for, from whom, for how long already and how much longer (None: no deadline)."""

    what: str
    have: int
    need: int
    missing: tuple[Absent, ...]
    since_s_ago: float
    left_s: float | None

    def describe(self) -> str:
        """Return one line for people: "waiting for 3 of 10: hospital_4 last seen 12 s ago"."""
        names = ", ".join(each.describe() for each in self.missing[:_MISSING_SHOWN])
        more = f" and {len(self.missing) - _MISSING_SHOWN} more" if len(self.missing) > _MISSING_SHOWN else ""
        left = "no deadline" if self.left_s is None else f"until {_span(self.left_s)} from now"
        whom = f": {names}{more}" if names else ""
        count = f", {self.have} of {self.need}" if self.need else ""
        return f"waiting for {self.what}{count}{whom} (for {_span(self.since_s_ago)} already, {left})"


@attrs.frozen(kw_only=True)
class MemberStatus:
    """A member, as it is shown; the fields are those of `MemberFacts`."""

    id: str
    role: str
    state: str
    round_id: int
    waiting: tuple[Wait, ...]
    epsilon_spent: float | None
    epsilon_budget: float | None
    mailbox_queued: int
    mailbox_high_water: int
    mailbox_capacity: int
    mailbox_lost: int
    num_restarts: int
    num_rows: int | None


@attrs.frozen(kw_only=True)
class LinkStatus:
    """A link, as it is shown: since when it is as it is, and its counts."""

    node: str
    up: bool
    since_s_ago: float | None
    last_reason: str
    counts: Mapping[str, int]


@attrs.frozen(kw_only=True)
class NodeStatus:
    """What a node is doing.

    Attributes:
        node: its name.
        pid: its process.
        federation: the federation's id.
        federation_digest: hexadecimal; parties that see the same one have agreed on the same rules.
        epoch: of the directory in force.
        uptime_s: since the daemon started.
        listening: "host:port", empty when it only dials out.
        links: one for each peer, by name.
        members: those that this node hosts, in the daemon's order.
        models: rounds whose models are in the node's model file.
        refusals: reason -> how often a member, a link or the post refused something.
        failures: what failed last, in words, newest last.
        journal_bytes: of the journal's files.
        outbox_bytes: of the outbox.
        outbox_records: packets that left, ever.
        unlogged: log records that were not written because there were too many of them.
    """

    node: str
    pid: int
    federation: str
    federation_digest: str
    epoch: int
    uptime_s: float
    listening: str
    links: tuple[LinkStatus, ...]
    members: tuple[MemberStatus, ...]
    models: tuple[int, ...]
    refusals: Mapping[str, int]
    failures: tuple[str, ...]
    journal_bytes: int
    outbox_bytes: int
    outbox_records: int
    unlogged: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values for JSON: dicts, tuples, text and numbers, none of them infinite."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> NodeStatus:
        """Return the status of plain values.

        Raises:
            FederationError: they are of another version.
        """
        try:
            links = tuple(LinkStatus(**link) for link in plain["links"])
            members = tuple(
                MemberStatus(**{**member, "waiting": tuple(_wait(each) for each in member["waiting"])})
                for member in plain["members"]
            )
            lists = {name: tuple(plain[name]) for name in ("failures", "models")}
            return cls(**{**plain, **lists, "links": links, "members": members})
        except (TypeError, KeyError) as error:
            raise FederationError(f"the daemon is of another version, --json shows what it says: {error}") from None


def _wait(plain: Mapping[str, Any]) -> Wait:
    return Wait(**{**plain, "missing": tuple(Absent(**each) for each in plain["missing"])})


def status_of(
    *,
    node: str,
    pid: int,
    federation: str,
    federation_digest: bytes,
    epoch: int,
    now: float,
    started_at: float,
    listening: str,
    transport: TransportStatistics,
    link_changed_at: Mapping[str, float],
    members: Sequence[MemberFacts],
    node_of: Callable[[str], str],
    seen_at: Mapping[str, float],
    refusals: Mapping[str, int],
    models: Iterable[int] = (),
    failures: Iterable[str] = (),
    journal_bytes: int = 0,
    outbox_bytes: int = 0,
    outbox_records: int = 0,
    unlogged: int = 0,
) -> NodeStatus:
    """Return the status of a node.

    Args:
        node: its name.
        pid: its process.
        federation: the federation's id.
        federation_digest: of what was agreed on.
        epoch: of the directory in force.
        now: the event loop's clock, on which all instants here and in `Waiting` are.
        started_at: when the daemon started.
        listening: "host:port", empty when it only dials out.
        transport: of the links, `ActorSystem.transport_statistics()`.
        link_changed_at: node -> when its link last went up or down.
        members: facts of this node's members.
        node_of: member id -> the node that hosts it; a FederationError for a stranger.
        seen_at: member id -> when its last packet came.
        refusals: reason -> count, of cores and of the post; those of links are added.
        models: rounds whose models are in the node's model file.
        failures: what failed, newest last.
        journal_bytes: of the journal's files.
        outbox_bytes: `Outbox.size_bytes`.
        outbox_records: `len(Outbox)`.
        unlogged: `RepeatFilter.num_suppressed`.
    """
    absent = _Absence(node, now, transport, node_of, seen_at)
    reasons = {f"link: {reason}": count for reason, count in transport.reasons.items()}
    return NodeStatus(
        node=node,
        pid=pid,
        federation=federation,
        federation_digest=federation_digest.hex(),
        epoch=epoch,
        uptime_s=now - started_at,
        listening=listening,
        links=tuple(_link(transport.links[peer], link_changed_at, now) for peer in sorted(transport.links)),
        members=tuple(_member(facts, absent, now) for facts in members),
        models=tuple(models),
        refusals=_most_frequent({**reasons, **refusals}),
        failures=tuple(failures),
        journal_bytes=journal_bytes,
        outbox_bytes=outbox_bytes,
        outbox_records=outbox_records,
        unlogged=unlogged,
    )


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the most frequent reasons, by name, and how often all others came together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(count for _, count in ranked[REASONS_MAX:])
    return dict(sorted(ranked[:REASONS_MAX])) | ({"other reasons": others} if others else {})


def _link(link: LinkStatistics, changed_at: Mapping[str, float], now: float) -> LinkStatus:
    counts = {
        field.name: getattr(link, field.name)
        for field in attrs.fields(LinkStatistics)
        if field.name not in ("node", "up", "last_reason")
    }
    since = now - changed_at[link.node] if link.node in changed_at else None
    return LinkStatus(node=link.node, up=link.up, since_s_ago=since, last_reason=link.last_reason, counts=counts)


@attrs.frozen
class _Absence:
    """What is known of somebody who is waited for."""

    own_node: str
    now: float
    transport: TransportStatistics
    node_of: Callable[[str], str]
    seen_at: Mapping[str, float]

    def of(self, member_id: str) -> Absent:
        try:
            node = self.node_of(member_id)
        except FederationError:
            node = ""
        link = self.transport.links.get(node)
        seen = self.now - self.seen_at[member_id] if member_id in self.seen_at else None
        linked = node == self.own_node or (link is not None and link.up)
        return Absent(id=member_id, node=node, linked=linked, seen_s_ago=seen)


def _member(facts: MemberFacts, absent: _Absence, now: float) -> MemberStatus:
    box = facts.mailbox
    return MemberStatus(
        id=facts.id,
        role=facts.role,
        state=facts.state,
        round_id=facts.round_id,
        waiting=tuple(
            Wait(
                what=waiting.what,
                have=waiting.have,
                need=waiting.need,
                missing=tuple(absent.of(who) for who in waiting.missing),
                since_s_ago=max(0.0, now - waiting.since),
                left_s=None if math.isinf(waiting.until) else max(0.0, waiting.until - now),
            )
            for waiting in facts.waiting
        ),
        epsilon_spent=_finite(facts.epsilon_spent),
        epsilon_budget=_finite(facts.epsilon_budget),
        mailbox_queued=0 if box is None else box.queued,
        mailbox_high_water=0 if box is None else box.high_water,
        mailbox_capacity=0 if box is None else box.capacity,
        mailbox_lost=0 if box is None else box.rejected + box.dropped + box.conflated + box.expired,
        num_restarts=facts.num_restarts,
        num_rows=facts.num_rows,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _span(seconds: float) -> str:
    """Return a span of time in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ranges(numbers: Sequence[int]) -> str:
    """Return increasing numbers as "1-3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(str(end) for end in run) for run in runs)


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def render(status: NodeStatus) -> str:
    """Return a status as text, at most 80 columns wide where names allow it."""
    where = f", listens on {status.listening}" if status.listening else ", dials out only"
    parts = [
        f"node {status.node} of {status.federation}, epoch {status.epoch}, up {_span(status.uptime_s)}{where}, "
        f"pid {status.pid}\n"
        f"federation {status.federation_digest[:16]}, journal {_size(status.journal_bytes)}, "
        f"outbox {status.outbox_records} packets, {_size(status.outbox_bytes)}, "
        f"models of {f'round {_ranges(status.models)}' if status.models else 'no round yet'}\n"
    ]
    if status.links:
        parts.append(
            table_text(
                ("node", "link", "for", "sent", "received", "lost"),
                (_link_row(link) for link in status.links),
                text_columns=2,
            )
        )
    if status.members:
        parts.append(
            table_text(
                ("member", "state", "round", "epsilon", "rows", "mailbox", "restarts"),
                (_member_row(member) for member in status.members),
                text_columns=2,
            )
        )
    waits = [f"{member.id}: {wait.describe()}" for member in status.members for wait in member.waiting]
    problems = [_problem(reason, count) for reason, count in status.refusals.items()]
    problems += [f"failed: {failure}" for failure in status.failures]
    problems += [f"{status.unlogged} log records were not written, there were too many"] if status.unlogged else []
    parts += ["".join(f"{line}\n" for line in lines) for lines in (waits, problems) if lines]
    return "\n".join(parts)


def _problem(reason: str, count: int) -> str:
    """Return how often something was refused; of links also how often there was none, or no more."""
    times = "once" if count == 1 else f"{count} times"
    kind, colon, rest = reason.partition(": ")
    return f"no link, {times}: {rest}" if colon and kind == "link" else f"refused {times}: {reason}"


def _link_row(link: LinkStatus) -> tuple[str, ...]:
    counts = link.counts
    lost = sum(counts.get(name, 0) for name in ("num_dropped", "num_full", "num_given_up"))
    state = "up" if link.up else f"down: {link.last_reason}" if link.last_reason else "down"
    since = "-" if link.since_s_ago is None else _span(link.since_s_ago)
    sizes = (_size(counts.get("sent_bytes", 0)), _size(counts.get("received_bytes", 0)))
    return (link.node, state, since, *sizes, str(lost))


def _member_row(member: MemberStatus) -> tuple[str, ...]:
    spent = "-" if member.epsilon_spent is None else f"{member.epsilon_spent:.3g}"
    budget = "" if member.epsilon_budget is None else f" of {member.epsilon_budget:.3g}"
    rows = "-" if member.num_rows is None else str(member.num_rows)
    box = f"{member.mailbox_queued} of {member.mailbox_capacity}"
    box += f", {member.mailbox_lost} lost" if member.mailbox_lost else ""
    return (member.id, member.state, str(member.round_id), f"{spent}{budget}", rows, box, str(member.num_restarts))
