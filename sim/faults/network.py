"""The network of a simulated federation, as frozen data: how long packets take, and which are lost.

`of` names groups (`sim.faults.plan`); empty means everybody, and otherwise a packet counts when its sender or its
receiver belongs. Where several laws hold at once, delays add up and losses are independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from types import MappingProxyType
from typing import Final

import attrs

from scarcity.errors import ConfigError
from scarcity.node.setup.fields import Kind
from sim.faults.fields import (
    ANY_OF,
    DELAY,
    END,
    POSITIVE,
    PROBABILITY,
    START,
    as_float,
    as_names,
    checked,
    of_kinds,
)

_NORMAL: Final = NormalDist()
_LEAST_DRAW: Final = 2.0**-54  # stands for 0, below which no packet stays: half of the least draw above it

# Laws of delay.


@attrs.frozen
class Fixed:
    """Every packet takes this long."""

    seconds: float = attrs.field(converter=as_float, validator=DELAY)

    def delay_s(self, _draw: float) -> float:
        """Return the delay."""
        return self.seconds


@attrs.frozen
class Uniform:
    """Anything between the two is equally likely."""

    low_s: float = attrs.field(converter=as_float, validator=DELAY)
    high_s: float = attrs.field(converter=as_float, validator=DELAY)

    def __attrs_post_init__(self) -> None:
        if self.high_s < self.low_s:
            raise ConfigError(f"high_s is {self.high_s}; allowed: at least low_s, which is {self.low_s}")

    def delay_s(self, draw: float) -> float:
        """Return the delay that a share `draw` of all packets stays below."""
        return self.low_s + draw * (self.high_s - self.low_s)


@attrs.frozen
class Exponential:
    """At least `floor_s`; what comes on top is exponential; `mean_s` is the mean of the whole."""

    mean_s: float = attrs.field(converter=as_float, validator=DELAY)
    floor_s: float = attrs.field(default=0.0, converter=as_float, validator=DELAY)

    def __attrs_post_init__(self) -> None:
        if self.mean_s < self.floor_s:
            raise ConfigError(f"mean_s is {self.mean_s}; allowed: at least floor_s, which is {self.floor_s}")

    def delay_s(self, draw: float) -> float:
        """Return the delay that a share `draw` of all packets stays below."""
        return self.floor_s - (self.mean_s - self.floor_s) * math.log(1.0 - draw)


@attrs.frozen
class LogNormal:
    """Half of all packets take less than `median_s`; `sigma` is the standard deviation of the delay's logarithm."""

    median_s: float = attrs.field(converter=as_float, validator=POSITIVE)
    sigma: float = attrs.field(converter=as_float, validator=POSITIVE)

    def delay_s(self, draw: float) -> float:
        """Return the delay that a share `draw` of all packets stays below."""
        return self.median_s * math.exp(self.sigma * _NORMAL.inv_cdf(draw or _LEAST_DRAW))


Law = Fixed | Uniform | Exponential | LogNormal
LAWS: Final[Mapping[str, type[Law]]] = MappingProxyType(
    {"fixed": Fixed, "uniform": Uniform, "exponential": Exponential, "lognormal": LogNormal}
)
_LAW = checked(Kind(f"one of the laws {', '.join(LAWS)}", lambda v: of_kinds(v, tuple(LAWS.values()))))


# The network.


@attrs.frozen
class Latency:
    """A packet takes time. Make it by `fixed`, `uniform`, `exponential` or `lognormal`."""

    law: Law = attrs.field(validator=_LAW)
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)

    @classmethod
    def fixed(
        cls, seconds: float, *, of: tuple[str, ...] = (), at_s: float = 0.0, until_s: float = math.inf
    ) -> Latency:
        """Return the law of one delay for all."""
        return cls(Fixed(seconds), of, at_s, until_s)

    @classmethod
    def uniform(
        cls, low_s: float, high_s: float, *, of: tuple[str, ...] = (), at_s: float = 0.0, until_s: float = math.inf
    ) -> Latency:
        """Return the law of equally likely delays in [low_s, high_s)."""
        return cls(Uniform(low_s, high_s), of, at_s, until_s)

    @classmethod
    def exponential(
        cls,
        mean_s: float,
        floor_s: float = 0.0,
        *,
        of: tuple[str, ...] = (),
        at_s: float = 0.0,
        until_s: float = math.inf,
    ) -> Latency:
        """Return the law of delays with mean `mean_s` of which `floor_s` is certain."""
        return cls(Exponential(mean_s, floor_s), of, at_s, until_s)

    @classmethod
    def lognormal(
        cls, median_s: float, sigma: float, *, of: tuple[str, ...] = (), at_s: float = 0.0, until_s: float = math.inf
    ) -> Latency:
        """Return the law of delays with a long tail, as measured on the Internet."""
        return cls(LogNormal(median_s, sigma), of, at_s, until_s)


@attrs.frozen
class Loss:
    """A packet is lost with this probability."""

    probability: float = attrs.field(converter=as_float, validator=PROBABILITY)
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


@attrs.frozen
class Duplicate:
    """A packet passes a second time with this probability; latency and loss decide anew about the copy."""

    probability: float = attrs.field(converter=as_float, validator=PROBABILITY)
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


@attrs.frozen
class Reorder:
    """A packet takes `by_s` longer with this probability, so that later ones overtake it."""

    probability: float = attrs.field(converter=as_float, validator=PROBABILITY)
    by_s: float = attrs.field(converter=as_float, validator=POSITIVE)
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


@attrs.frozen
class Bandwidth:
    """Each directed pair has a line of its own: packets leave one after another, size / bytes_per_s seconds each."""

    bytes_per_s: float = attrs.field(converter=as_float, validator=POSITIVE)
    of: tuple[str, ...] = attrs.field(default=(), converter=as_names, validator=ANY_OF)
    at_s: float = attrs.field(default=0.0, converter=as_float, validator=START)
    until_s: float = attrs.field(default=math.inf, converter=as_float, validator=END)


Network = Latency | Loss | Duplicate | Reorder | Bandwidth
NETWORK_KINDS: Final[Mapping[str, type[Network]]] = MappingProxyType(
    {"latency": Latency, "loss": Loss, "duplicate": Duplicate, "reorder": Reorder, "bandwidth": Bandwidth}
)
