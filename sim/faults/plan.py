"""What goes wrong in a simulated federation, as frozen data: the network's laws, and faults.

A `FaultPlan` holds two lists, `network` and `faults`; `entries` is both, in this order, and an entry's index is its
place there. Times are virtual seconds from the start of the run. `of` names groups: a member id, a domain (its clients
and its basket), a role (`clients`, `baskets`, `coordinator`) or `*`.

Every entry has an identity of its own, `FaultPlan.ids`, which names its random decisions: taking one entry out, or
narrowing it, leaves the decisions of all others as they were. An identity is the digest of what the entry said when the
plan was made. `sim.faults.stage` decides, `sim.faults.files` reads and writes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, TypeVar

import attrs

from scarcity.errors import ConfigError
from scarcity.federation.roster import COORDINATOR, basket_id
from scarcity.node.setup.fields import Kind, choice, of_type, real, whole
from sim.faults.attacks import BEHAVIOURS
from sim.faults.fields import (
    ANY_OF,
    END,
    FLAG,
    HEALED,
    LASTING,
    MOST,
    POSITIVE,
    PROBABILITY,
    SHOWN,
    SOME_OF,
    START,
    Check,
    as_float,
    as_names,
    checked,
    of_kinds,
)
from sim.faults.network import (
    LAWS,
    NETWORK_KINDS,
    Bandwidth,
    Duplicate,
    Exponential,
    Fixed,
    Latency,
    Law,
    LogNormal,
    Loss,
    Network,
    Reorder,
    Uniform,
)
from sim.faults.stages import STAGE_NAMES

__all__ = [
    "BASKETS",
    "CLIENTS",
    "CUTS",
    "EVERYBODY",
    "FAULT_KINDS",
    "ISOLATE",
    "LAWS",
    "NETWORK_KINDS",
    "SPLIT",
    "Bandwidth",
    "Byzantine",
    "Churn",
    "ClockSkew",
    "Clog",
    "Crash",
    "Dropout",
    "Duplicate",
    "Entry",
    "Exponential",
    "Fault",
    "FaultPlan",
    "Fixed",
    "Latency",
    "Law",
    "LogNormal",
    "Loss",
    "Network",
    "Partition",
    "Reorder",
    "SlowHandler",
    "Uniform",
    "at_place",
    "clients_of",
    "entry_dict",
    "is_client",
    "kind_name",
    "members_of",
]

EVERYBODY, CLIENTS, BASKETS = "*", "clients", "baskets"
ISOLATE, SPLIT = CUTS = ("isolate", "split")
MAX_TURNS: Final = 10_000  # of a cut that comes and goes, which are drawn before the run
_ID_BYTES: Final = 6  # of an entry's digest: two of a plan's dozen collide once in 10^12 plans


# Faults.


@attrs.frozen
class Partition:
    """Some cannot reach others.

    Attributes:
        at_s: when.
        until_s: when all can reach each other again.
        groups: who; no member is in two.
        symmetric: the cut loses both ways. Else: isolate, only what leaves a group; split, only what goes from an
            earlier group to a later one.
        mode: how the cut runs. isolate: around each group, which reaches nobody outside of it; split: between the
            groups alone, two or more, while who is in none of them reaches everybody. Clients of two baskets never
            talk to each other, so a split between these loses nothing.
        stability_s: how long a cut holds; then, as long, there is none, and so on. Chance draws each time between half
            and three halves of this. Infinity: the cut holds throughout.
    """

    at_s: float = attrs.field(converter=as_float, validator=START)
    until_s: float = attrs.field(converter=as_float, validator=HEALED)
    groups: tuple[str, ...] = attrs.field(converter=as_names, validator=SOME_OF)
    symmetric: bool = attrs.field(default=True, validator=FLAG)
    mode: str = attrs.field(default=ISOLATE, validator=checked(choice(*CUTS)))
    stability_s: float = attrs.field(default=math.inf, converter=as_float, validator=LASTING)

    def __attrs_post_init__(self) -> None:
        if self.mode == SPLIT and len(self.groups) < 2:
            raise ConfigError(f"groups is {self.groups}; allowed: two groups or more, where mode is {SPLIT}")
        least_s = (self.until_s - self.at_s) / MAX_TURNS
        if self.stability_s < least_s:
            raise ConfigError(
                f"stability_s is {self.stability_s}; allowed: {least_s} or more, for at most {MAX_TURNS} turns until "
                f"{self.until_s} s"
            )


@attrs.frozen
class Clog:
    """What is sent from or to these waits until `until_s`, and then takes its usual time."""

    at_s: float = attrs.field(converter=as_float, validator=START)
    until_s: float = attrs.field(converter=as_float, validator=HEALED)
    of: tuple[str, ...] = attrs.field(converter=as_names, validator=SOME_OF)


@attrs.frozen
class Crash:
    """Each of these stops at once and starts again from its disk after `down_s`; infinity: never.

    Torn: the record that was being written is half on disk.
    """

    at_s: float = attrs.field(converter=as_float, validator=START)
    of: tuple[str, ...] = attrs.field(converter=as_names, validator=SOME_OF)
    down_s: float = attrs.field(default=math.inf, converter=as_float, validator=LASTING)
    torn: bool = attrs.field(default=False, validator=FLAG)


@attrs.frozen
class Churn:
    """Crashes at random instants (a Poisson process), `per_minute` over all of these together."""

    per_minute: float = attrs.field(converter=as_float, validator=POSITIVE)
    down_s: float = attrs.field(converter=as_float, validator=POSITIVE)
    of: tuple[str, ...] = attrs.field(default=(CLIENTS,), converter=as_names, validator=SOME_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


@attrs.frozen
class Dropout:
    """A client falls silent in a round from a stage on; each (client, round) with this probability.

    In another round it speaks again. `round_id` None: in every round.
    """

    stage: str = attrs.field(validator=checked(choice(*STAGE_NAMES)))
    probability: float = attrs.field(default=1.0, converter=as_float, validator=PROBABILITY)
    of: tuple[str, ...] = attrs.field(default=(CLIENTS,), converter=as_names, validator=SOME_OF)
    round_id: int | None = attrs.field(
        default=None,
        validator=checked(
            Kind("a round, 1 or more; left out: every one", lambda v: v is None or whole(1, MOST).read(v))
        ),
    )


@attrs.frozen
class SlowHandler:
    """Each of these takes so long for every packet."""

    of: tuple[str, ...] = attrs.field(converter=as_names, validator=SOME_OF)
    seconds: float = attrs.field(converter=as_float, validator=POSITIVE)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


@attrs.frozen
class ClockSkew:
    """The clock of each of these shows offset_s + (1 + drift) * t at instant t."""

    of: tuple[str, ...] = attrs.field(converter=as_names, validator=SOME_OF)
    offset_s: float = attrs.field(
        converter=as_float, validator=checked(real("seconds, not inf", lambda v: abs(v) < math.inf))
    )
    drift: float = attrs.field(
        default=0.0,
        converter=as_float,
        validator=checked(real("seconds gained a second, between -1 and 1", lambda v: -1 < v < 1)),
    )


@attrs.frozen
class Byzantine:
    """Some clients lie: those in `of`, or a share of each domain's clients that chance picks (rounded down).

    Attributes:
        behaviour: a name of `sim.faults.attacks.BEHAVIOURS`, which says what each does.
        of: groups; only clients among them lie.
        share: of each domain's clients; give either `of` or `share`.
        strength: what it means, the behaviour says; None: the behaviour's own.
    """

    behaviour: str = attrs.field(validator=checked(choice(*BEHAVIOURS)))
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    share: float = attrs.field(default=0.0, converter=as_float, validator=PROBABILITY)
    strength: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(as_float),
        validator=attrs.validators.optional(POSITIVE),
    )

    def __attrs_post_init__(self) -> None:
        if bool(self.of) is bool(self.share):
            raise ConfigError(f"of is {self.of} and share {self.share}; allowed: one of them, and not both")


Fault = Partition | Clog | Crash | Churn | Dropout | SlowHandler | ClockSkew | Byzantine
Entry = Network | Fault
FAULT_KINDS: Final[Mapping[str, type[Fault]]] = MappingProxyType(
    {
        "partition": Partition,
        "clog": Clog,
        "crash": Crash,
        "churn": Churn,
        "dropout": Dropout,
        "slow-handler": SlowHandler,
        "clock-skew": ClockSkew,
        "byzantine": Byzantine,
    }
)
_E = TypeVar("_E")
_KIND_NAMES: Final = {kind: name for kinds in (NETWORK_KINDS, FAULT_KINDS) for name, kind in kinds.items()}


def kind_name(entry: Entry) -> str:
    """Return the name under which files know an entry's kind."""
    return _KIND_NAMES[type(entry)]


def entry_dict(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain values: its kind, and all that is not as by default."""
    named: dict[str, Any] = {"kind": kind_name(entry)}
    for field in attrs.fields(type(entry)):
        value = getattr(entry, field.name)
        if field.name == "law":
            named["law"] = next(name for name, law in LAWS.items() if law is type(value))
            named |= attrs.asdict(value)
        elif value != field.default:
            named[field.name] = list(value) if isinstance(value, tuple) else value
    return named


def _derived_ids(entries: Sequence[Entry], given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the given identities, and instead of each that is empty the digest of what the entry says.

    Of two that say the same, the second one has a number.
    """
    known = list(given) or [""] * len(entries)
    taken, ids = set(known), []
    for entry, identity in zip(entries, known, strict=True):
        text = json.dumps(entry_dict(entry), sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=_ID_BYTES, person=b"sim.faults").hexdigest()
        numbered = (f"{digest}-{number}" if number else digest for number in itertools.count())
        ids.append(identity or next(name for name in numbered if name not in taken))
        taken.add(ids[-1])
    return tuple(ids)


def _default_ids(plan: Any) -> tuple[str, ...]:
    return _derived_ids(plan.entries)


def require_keys(named: Mapping[str, Any], allowed: Iterable[str], needed: Iterable[str]) -> None:
    """Raise ConfigError unless a table has all needed keys and no others than the allowed ones."""
    names = list(allowed)
    for key in named:
        if key not in names:
            raise ConfigError(f"key {str(key)[:SHOWN]!r} is unknown; allowed: {', '.join(names)}")
    for key in needed:
        if key not in named:
            raise ConfigError(f"key {key!r} is missing; allowed: {', '.join(names)}")


def _read_entries(section: str, items: object, kinds: Mapping[str, type[_E]]) -> tuple[list[_E], list[str]]:
    if not isinstance(items, list):
        raise ConfigError(f"{section} is {repr(items)[:SHOWN]}; allowed: a list of tables")
    entries, ids = [], []
    for index, item in enumerate(items):
        with at_place(f"{section}[{index}]"):
            if not isinstance(item, dict):
                raise ConfigError(f"it is {repr(item)[:SHOWN]}; allowed: a table with the key kind")
            fields = dict(item)
            kind = _choose("kind", fields.pop("kind", None), kinds)
            ids.append(_read_id(fields.pop("id", "")))
            entries.append(_read_entry(kind, fields))
    return entries, ids


def _read_id(identity: object) -> str:
    if not isinstance(identity, str):
        raise ConfigError(f"id is {repr(identity)[:SHOWN]}; allowed: text")
    return identity


def _choose(key: str, name: object, known: Mapping[str, _E]) -> _E:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{key} is {repr(name)[:SHOWN]}; allowed: {', '.join(known)}")
    return known[name]


def _read_entry(kind: Any, fields: dict[str, Any]) -> Any:
    """Return the entry of a table; a latency's table holds its law's keys too."""
    if "law" in (field.name for field in attrs.fields(kind)):
        law: Any = _choose("law", fields.pop("law", None), LAWS)
        own = [field.name for field in attrs.fields(law)]
        others = [field.name for field in attrs.fields(kind) if field.name != "law"]
        require_keys(fields, [*own, *others], _needed(law))
        return kind(law(**{key: fields.pop(key) for key in own if key in fields}), **fields)
    require_keys(fields, [field.name for field in attrs.fields(kind)], _needed(kind))
    return kind(**fields)


def _needed(kind: Any) -> list[str]:
    return [field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING]


def _entries_of(kinds: Mapping[str, type]) -> Check:
    return checked(Kind(f"a tuple of {', '.join(kind.__name__ for kind in kinds.values())}", _all_of(kinds)))


def _all_of(kinds: Mapping[str, type]) -> Callable[[Any], Any]:
    return lambda value: [of_kinds(entry, tuple(kinds.values())) for entry in of_type(tuple, value)]


@attrs.frozen
class FaultPlan:
    """All that goes wrong in a run.

    Attributes:
        network: laws of the network.
        faults: everything else.
        ids: identity of each entry, in the order of `entries`; left out: made from what each says.
    """

    network: tuple[Network, ...] = attrs.field(default=(), validator=_entries_of(NETWORK_KINDS))
    faults: tuple[Fault, ...] = attrs.field(default=(), validator=_entries_of(FAULT_KINDS))
    ids: tuple[str, ...] = attrs.field(default=attrs.Factory(_default_ids, takes_self=True), validator=ANY_OF)

    def __attrs_post_init__(self) -> None:
        if len(self.ids) != len(self.entries):
            raise ConfigError(f"ids has {len(self.ids)} names; allowed: one for each of {len(self.entries)} entries")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The network's laws, then the faults: an index of the plan is a place here."""
        return (*self.network, *self.faults)

    @property
    def derived_ids(self) -> tuple[str, ...]:
        """The identities that the entries would have in a plan made of them now."""
        return _derived_ids(self.entries)

    def place(self, index: int) -> str:
        """Return where an entry stands, as a file's keys say it: `network[0]`, `faults[2]`."""
        num_laws = len(self.network)
        return f"network[{index}]" if index < num_laws else f"faults[{index - num_laws}]"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values for JSON or TOML; an identity stands only where it is not the derived one."""
        entries = [entry_dict(entry) for entry in self.entries]
        for named, identity, derived in zip(entries, self.ids, self.derived_ids, strict=True):
            if identity != derived:
                named["id"] = identity
        return {"network": entries[: len(self.network)], "faults": entries[len(self.network) :]}

    @classmethod
    def from_dict(cls, named: Mapping[str, Any]) -> FaultPlan:
        """Return the plan of plain values.

        Raises:
            ConfigError: a key, kind or value is unknown, missing or out of range; the message names where.
        """
        require_keys(named, ("network", "faults"), ())
        network, network_ids = _read_entries("network", named.get("network", []), NETWORK_KINDS)
        faults, fault_ids = _read_entries("faults", named.get("faults", []), FAULT_KINDS)
        ids = _derived_ids([*network, *faults], [*network_ids, *fault_ids])
        return cls(tuple(network), tuple(faults), ids)

    def without(self, index: int) -> FaultPlan:
        """Return the plan without one entry; the others keep their identities, and with them their decisions."""
        kept = [i for i in range(len(self.entries)) if i != index % len(self.entries)]
        return self.only(kept)

    def only(self, indices: Iterable[int]) -> FaultPlan:
        """Return the plan of these entries alone, with the identities that they have here."""
        kept = sorted(indices)
        num_laws = len(self.network)
        return FaultPlan(
            tuple(self.network[i] for i in kept if i < num_laws),
            tuple(self.faults[i - num_laws] for i in kept if i >= num_laws),
            tuple(self.ids[i] for i in kept),
        )

    def replaced(self, index: int, entry: Entry) -> FaultPlan:
        """Return the plan with another entry of the same kind in one place, under the same identity."""
        entries: list[Any] = list(self.entries)
        entries[index] = entry
        num_laws = len(self.network)
        return FaultPlan(tuple(entries[:num_laws]), tuple(entries[num_laws:]), self.ids)


@contextmanager
def at_place(place: str) -> Iterator[None]:
    """Prefix a ConfigError with the place in the plan that it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def members_of(group: str, seats: Mapping[str, str]) -> tuple[str, ...]:
    """Return the members of a group, sorted.

    Args:
        group: `*`, a role, a member id or a domain, looked for in this order.
        seats: member id -> its domain, empty for the coordinator.

    Raises:
        ConfigError: it has no members; the message lists the groups that have.
    """
    if group == EVERYBODY:
        found = list(seats)
    elif group == CLIENTS:
        found = [name for name, domain in seats.items() if is_client(name, domain)]
    elif group == BASKETS:
        found = [name for name, domain in seats.items() if domain and name == basket_id(domain)]
    elif group in seats:
        found = [group]
    else:
        found = [name for name, domain in seats.items() if domain and domain == group]
    if not found:
        domains = sorted({domain for domain in seats.values() if domain})
        known = ", ".join((EVERYBODY, CLIENTS, BASKETS, *domains, *sorted(seats)))
        raise ConfigError(f"group {group!r} has no members; known groups are {known[: 10 * SHOWN]}")
    return tuple(sorted(found))


def clients_of(groups: Iterable[str], seats: Mapping[str, str]) -> tuple[str, ...]:
    """Return the clients among the members of groups, sorted.

    Raises:
        ConfigError: a group has no members, or none that is a client.
    """
    clients: set[str] = set()
    for group in groups:
        found = {name for name in members_of(group, seats) if is_client(name, seats[name])}
        if not found:
            raise ConfigError(f"group {group!r} has no clients; allowed: groups that have, for only clients do this")
        clients |= found
    return tuple(sorted(clients))


def is_client(member: str, domain: str) -> bool:
    """Return whether a member is a client: it has a domain, and is not that domain's basket."""
    return bool(domain) and member != COORDINATOR and member != basket_id(domain)
