"""What a federation's model says about the rows of a party: the next one, and how well it predicts held-out ones.

A model holds no party's level: rows are predicted around the party's own mean, which nobody else knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from scarcity.engine import OnlineDiscoveryEngine, Schema, VarFit, fit_var
from scarcity.errors import InsufficientInputs, InvalidRow, InvalidUpdate
from scarcity.node.data.model_file import ModelFile, read_model
from scarcity.node.data.prediction import Skills, held_out_windows, skills
from scarcity.node.data.source import LEARN_SHARE, Party, Table, TableColumns, chosen, read_rows
from scarcity.node.text import table_text


@attrs.frozen
class NextRow:
    """The row that should come next for a party.

    Attributes:
        party: its id.
        time: of the row that is predicted, as the file would write it.
        last: variable -> its value in the last row.
        mean: variable -> the party's own mean.
        next: variable -> predicted value; empty when nothing can be predicted.
        reason: why not.
    """

    party: str
    time: str
    last: Mapping[str, float] = attrs.field(factory=dict)
    mean: Mapping[str, float] = attrs.field(factory=dict)
    next: Mapping[str, float] = attrs.field(factory=dict)
    reason: str = ""


@attrs.frozen
class Forecast:
    """What a model says about a file: the next rows, or the score of held-out ones.

    Attributes:
        model: with its provenance.
        rows: one a party, sorted by id; empty for a score.
        overall: skill over all parties; None for next rows.
        parties: party -> (held-out rows that could be predicted, skill); empty for next rows.
    """

    model: ModelFile
    rows: tuple[NextRow, ...] = ()
    overall: Skills | None = None
    parties: Mapping[str, tuple[int, Skills]] = attrs.field(factory=dict)


def predict(
    model_path: Path,
    path: Path,
    columns: TableColumns,
    schema: Schema | None = None,
    *,
    who: str | None = None,
    score: bool = False,
) -> Forecast:
    """Return what a model says about each party of a file.

    Args:
        model_path: a file of `scarcity swarm --model`.
        path: CSV or Parquet file with the model's variables among its columns.
        columns: which column is what; no variables, they are the model's.
        schema: refused unless it is the model's; None: the model's is used.
        who: one party's id; None: all.
        score: hold out the last third of the time that the file covers, and score the model on it; else predict the
            row behind each party's last.

    Raises:
        ConfigError: a file cannot be read or is no model of this version, columns are missing, nobody has that id.
        SchemaMismatchError: the schema is not the model's.
        InvalidRow: a bad cell.
        InsufficientInputs: the model has too few rows for a fit, or no row of the file can be predicted.
    """
    model = read_model(model_path)
    if schema is not None:
        model.require_schema(schema, model_path)
    fit = model.fit()
    table = read_rows(path, columns, model.schema)
    parties = chosen(table.parties(LEARN_SHARE if score else 1.0), who)
    if score:
        return _score(model, fit, path, parties)
    rows = tuple(_next_row(model.schema, fit, table, party) for party in parties)
    if all(row.reason for row in rows):
        raise InsufficientInputs(f"{path}: nothing to predict from; {rows[0].party}: {rows[0].reason}")
    return Forecast(model, rows=rows)


def _next_row(schema: Schema, fit: VarFit, table: Table, party: Party) -> NextRow:
    time = table.calendar.text(int(party.times[-1]) + 1)
    recent = party.rows[-schema.lags :]
    span = len(recent) == schema.lags and party.times[-1] - party.times[-schema.lags] == schema.lags - 1
    if not span or not np.isfinite(recent).all():
        rows = "row is" if schema.lags == 1 else f"{schema.lags} rows are"
        return NextRow(party.id, time, reason=f"the last {rows} not complete and without a gap")
    mean = party.rows[np.isfinite(party.rows).all(axis=1)].mean(axis=0)
    last, level, predicted = (
        dict(zip(schema.names, map(float, row), strict=True)) for row in (recent[-1], mean, fit.predict(recent, mean))
    )
    return NextRow(party.id, time, last, level, predicted)


def _score(model: ModelFile, fit: VarFit, path: Path, parties: tuple[Party, ...]) -> Forecast:
    usable = [party for party in parties if np.isfinite(party.rows).all(axis=1).any()]
    counts = {party.id: len(held_out_windows(party, model.schema.lags).target) for party in usable}
    scored = [party for party in usable if counts[party.id]]
    if not scored:
        raise InsufficientInputs(f"{path}: no held-out row can be predicted: none has {model.schema.lags} before it")
    own = {party.id: _own_fit(model.schema, party) for party in scored}
    predictors = {"model": lambda _party: fit, "alone": lambda party: own[party.id]}
    each = {party.id: (counts[party.id], skills(model.schema, [party], predictors)) for party in scored}
    return Forecast(model, overall=skills(model.schema, scored, predictors), parties=each)


def _own_fit(schema: Schema, party: Party) -> VarFit | None:
    engine = OnlineDiscoveryEngine(schema)
    try:
        engine.process_rows(party.rows, at=party.times.tolist())
        return fit_var(engine.statistics())
    except (InsufficientInputs, InvalidUpdate, InvalidRow):
        return None


def forecast_json(forecast: Forecast) -> str:
    """Return {model, variables, rows} or {model, variables, skill}.

    `model` is the provenance. `rows` is a list of {party, time, last, mean, next, reason}, each a mapping by variable.
    `skill` is {median, variables, parties}: skill over persistence by predictor: "model", "alone" (the party's own
    fit of the rows before), of the median variable, of each variable, and of each party with its number of rows.
    """
    plain: dict[str, Any] = {
        "model": attrs.asdict(forecast.model.provenance),
        "variables": list(forecast.model.schema.names),
    }
    overall = forecast.overall
    if overall is None:
        plain["rows"] = [attrs.asdict(row) for row in forecast.rows]
    else:
        plain["skill"] = {
            "median": _medians(overall),
            "variables": {
                name: {who: skill[index] for who, skill in overall.per_variable.items()}
                for index, name in enumerate(overall.variables)
            },
            "parties": {party: {"rows": count} | _medians(skill) for party, (count, skill) in forecast.parties.items()},
        }
    return json.dumps(plain, indent=1, allow_nan=False)


def _medians(skill: Skills) -> dict[str, float | None]:
    return {who: skill.median(who) for who in skill.per_variable}


def forecast_text(forecast: Forecast) -> str:
    """Return where the model comes from, and its predictions or its score."""
    made = forecast.model.provenance
    budget = "" if made.mode == "none" else f", epsilon {made.epsilon:g}, delta {made.delta:g}"
    lines = [
        f"model of {made.clients} clients in {made.baskets} baskets ({made.made_by}, {made.mode}{budget})\n",
        "noise reproducible: not private\n" if made.reproducible else "",
    ]
    return "".join([*lines, _rows_text(forecast) if forecast.overall is None else _score_text(forecast)])


def _rows_text(forecast: Forecast) -> str:
    rows = [
        (row.party, row.time, name, f"{row.last[name]:.4g}", f"{row.mean[name]:.4g}", f"{value:.4g}")
        for row in forecast.rows
        for name, value in row.next.items()
    ]
    reasons = [f"{row.party}: {row.reason}\n" for row in forecast.rows if row.reason]
    table = table_text(("party", "time", "variable", "last", "own mean", "next"), rows, text_columns=3)
    return "".join([table, *reasons])


def _score_text(forecast: Forecast) -> str:
    overall = forecast.overall
    assert overall is not None, "a score has an overall skill"
    who = [name for name in ("model", "alone") if name in overall.per_variable]
    parties = [
        (party, str(count), *(_skill(skill.median(name)) for name in who))
        for party, (count, skill) in forecast.parties.items()
    ]
    variables = [
        (name, *(_skill(overall.per_variable[predictor][index]) for predictor in who))
        for index, name in enumerate(overall.variables)
    ]
    total = sum(count for count, _ in forecast.parties.values())
    median = ("median", *(_skill(overall.median(name)) for name in who))
    return "".join(
        [
            table_text(("party", "rows", *who), parties),
            f"\nAll {total} rows of {len(parties)} parties\n",
            table_text(("variable", *who), [*variables, median]),
            "skill over persistence; alone: each party's own fit of its earlier rows\n",
        ]
    )


def _skill(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
