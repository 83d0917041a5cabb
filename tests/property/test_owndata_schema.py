from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarcity.engine import Schema, Variable
from scarcity.engine.schema_file import read_schema
from scarcity.errors import ConfigError, LocalError
from scarcity.node.data.schema_inference import WARNING, infer_schema, schema_text
from scarcity.node.data.source import TableColumns

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
NUMBERS = st.floats(-1e12, 1e12)


@st.composite
def variables(draw: st.DrawFn) -> Variable:
    low = draw(NUMBERS)
    return Variable(
        draw(NAMES),
        kind=draw(st.sampled_from(["numeric", "binary"])),
        unit=draw(st.text(st.characters(codec="utf-8"), max_size=10)),
        scale=draw(st.none() | st.floats(1e-15, 1e15)),
        centre=draw(NUMBERS),
        bounds=draw(st.none() | st.just((low, low + abs(low) + 1))),
    )


@given(
    st.lists(variables(), min_size=1, max_size=4, unique_by=lambda v: v.name),
    st.integers(1, 64),
    st.integers(1, 10_000),
    st.floats(1e-6, 1e6),
    st.integers(16, 1 << 16),
)
def test_a_schema_that_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[Variable], lags: int, horizon: int, clip: float, lattice: int
) -> None:
    schema = Schema(made, lags=lags, horizon=horizon, clip_factor=clip, lattice=lattice)
    path = tmp_path_factory.getbasetemp() / "schema.toml"
    path.write_text(schema_text(schema, "a.csv"), encoding="utf-8")
    assert read_schema(path) == schema


def table(path: Path, columns: np.ndarray, parties: int = 4) -> Path:
    """Parties with levels of their own, equal numbers of days."""
    lines = ["who,day," + ",".join(f"v{i}" for i in range(columns.shape[1]))]
    rows = len(columns) // parties
    for index, values in enumerate(columns[: rows * parties].tolist()):
        lines.append(f"p{index // rows},{index % rows}," + ",".join(map(repr, values)))
    path.write_text("\n".join(lines) + "\n")
    return path


COLUMNS = TableColumns("who", "", "day")


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_an_inferred_scale_is_within_a_factor_of_two_and_a_round_number(
    tmp_path_factory: pytest.TempPathFactory, seed: int, spread: float, level: float
) -> None:
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.normal(level, 100 * spread, 4), 100)
    values = levels + rng.normal(0, spread, 400)
    path = table(tmp_path_factory.getbasetemp() / "table.csv", values[:, None])
    (variable,) = infer_schema(path, COLUMNS).variables
    assert variable.scale is not None
    # Sampling moves the median of four parties' deviations by some 10 %, rounding by sqrt(2.5) at most.
    assert 0.5 < variable.scale / spread < 2.0
    lead = variable.scale / 10.0 ** math.floor(math.log10(variable.scale) + 1e-9)
    assert min(abs(lead - step) for step in (1, 2, 5)) < 1e-6
    assert variable.bounds is not None
    low, high = variable.bounds
    assert low <= values.min() - 5 * variable.scale or low == 0
    assert values.max() + 5 * variable.scale <= high


def test_kinds_and_sparse_columns_are_recognised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sparse = np.where(rng.random(400) < 0.1, 3.0, 0.0)
    columns = np.column_stack(((rng.random(400) < 0.5).astype(float), sparse, rng.normal(size=400)))
    schema = infer_schema(table(tmp_path / "t.csv", columns), COLUMNS)
    assert [v.kind for v in schema.variables] == ["binary", "numeric", "numeric"]
    assert [v.scale for v in schema.variables] == [0.5, 1.0, 1.0]
    assert schema.variables[1].bounds == (0.0, 13.0)
    assert (schema.lags, schema.horizon) == (2, 10)


@pytest.mark.parametrize(
    ("times", "lags", "horizon"),
    [
        ([f"{1971 + i}" for i in range(16)], 1, 2),
        ([f"{2000 + i // 12}-{i % 12 + 1:02}-01" for i in range(200)], 2, 12),
        ([f"{2000 + i // 4}-{3 * (i % 4) + 1:02}-01" for i in range(80)], 2, 4),
        ([str(np.datetime64("2024-01-01") + i) for i in range(365)], 3, 7),
    ],
)
def test_lags_and_horizon_follow_the_calendar_and_the_length(
    tmp_path: Path, times: list[str], lags: int, horizon: int
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("when,x\n" + "".join(f"{time},{i % 7}\n" for i, time in enumerate(times)))
    schema = infer_schema(path, TableColumns(time="when"))
    assert (schema.lags, schema.horizon) == (lags, horizon)


def test_what_never_changes_within_a_party_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("who,day,x,c\na,1,1,5\na,2,2,5\nb,1,3,9\nb,2,1,9\n")
    with pytest.raises(ConfigError, match=r"column 'c': never changes within a party.*--variables"):
        infer_schema(path, COLUMNS)


def test_the_warning_stands_in_the_file(tmp_path: Path) -> None:
    text = schema_text(Schema([Variable("x", scale=1.0)]), "a.csv")
    assert WARNING in " ".join(text.replace("\n# ", " ").split())
    assert 'unit = ""' in text


@pytest.mark.parametrize("scale", ["0", "0.0", "-1", "nan", "inf"])
def test_a_scale_of_zero_is_refused_in_one_line_by_file_and_variable(tmp_path: Path, scale: str) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(f'[[variables]]\nname = "x"\nscale = {scale}\n')
    with pytest.raises(LocalError, match=r"schema .*schema.toml: variable 'x': scale must"):
        read_schema(path)


def test_a_nest_of_brackets_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("schema.json", "schema.toml"):
        path = tmp_path / name
        path.write_text(("x = " if name.endswith("toml") else "") + "[" * 100_000)
        with pytest.raises(ConfigError, match="not TOML or JSON"):
            read_schema(path)
