"""What one party's own rows show, without a federation: relations with standard errors, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

import scarcity
from scarcity.engine import OnlineDiscoveryEngine, Relation, Schema, fit_var, relations_of
from scarcity.errors import InsufficientInputs, InvalidUpdate
from scarcity.node.data.source import Party, TableColumns, chosen, read_rows
from scarcity.node.text import table_text


@attrs.frozen
class Finding:
    """What one party's rows show.

    Attributes:
        party: its id.
        rows: how many it has.
        relations: links found, those of a variable's own past too.
        reason: why there is no fit; empty when there is one.
    """

    party: str
    rows: int
    relations: tuple[Relation, ...] = ()
    reason: str = ""


@attrs.frozen
class Discovery:
    """What the parties of a file show, each alone.

    Attributes:
        schema: names and lags.
        alpha: false discovery rate of each party's links.
        min_effect: smallest effect of interest, deviations per deviation.
        findings: one a party, sorted by id.
    """

    schema: Schema
    alpha: float
    min_effect: float
    findings: tuple[Finding, ...]


def discover_alone(
    path: Path,
    columns: TableColumns,
    schema: Schema | None = None,
    *,
    who: str | None = None,
    lags: int | None = None,
    alpha: float = 0.05,
    min_effect: float = 0.02,
) -> Discovery:
    """Return what each party's rows show, all of them: nothing is held out and nothing leaves the machine.

    Args:
        path: CSV or Parquet file.
        columns: which column is what.
        schema: names and lags; None: all other columns, and the default number of lags.
        who: one party's id; None: all.
        lags: rows back that a cause may lie; None: the schema's.
        alpha: false discovery rate.
        min_effect: smallest effect of interest.

    Raises:
        ConfigError: the file cannot be read, the schema contradicts it, nobody has that id, a setting is out of range.
        InvalidRow: a bad cell.
        InsufficientInputs: no party has more rows than parameters; the message says what would help.
    """
    table = read_rows(path, columns, schema)
    wanted = table.schema if lags is None else attrs.evolve(table.schema, lags=lags)
    parties = chosen(table.parties(learn_share=1.0), who)
    findings = tuple(_finding(party, wanted, alpha, min_effect) for party in parties)
    if all(finding.reason for finding in findings):
        first = findings[0]
        raise InsufficientInputs(f"{path}: party {first.party!r} has {first.rows} rows: {first.reason} (--lags)")
    return Discovery(wanted, alpha, min_effect, findings)


def _finding(party: Party, schema: Schema, alpha: float, min_effect: float) -> Finding:
    engine = OnlineDiscoveryEngine(schema)
    engine.process_rows(party.rows, at=party.times.tolist())
    try:
        fit = fit_var(engine.statistics())
    except (InsufficientInputs, InvalidUpdate) as error:
        return Finding(party.id, len(party.rows), reason=str(error))
    return Finding(party.id, len(party.rows), tuple(relations_of(fit, alpha, min_effect)))


def discovery_json(found: Discovery) -> str:
    """Return {version, variables, lags, alpha, min_effect, parties: [{party, rows, relations, reason}]}.

    A relation is {kind, sources, targets, lag, effect, se, p}.
    """
    plain = {
        "version": scarcity.__version__,
        "variables": list(found.schema.names),
        "lags": found.schema.lags,
        "alpha": found.alpha,
        "min_effect": found.min_effect,
        "parties": [attrs.asdict(finding) for finding in found.findings],
    }
    return json.dumps(plain, indent=1, allow_nan=False)


def discovery_text(found: Discovery) -> str:
    """Return each party's relations, strongest first."""
    parts = []
    for finding in found.findings:
        parts.append(f"{finding.party}: {finding.rows} rows, {_count(finding)}\n")
        if finding.relations:
            ordered = sorted(finding.relations, key=lambda relation: (-abs(relation.effect), relation.key))
            parts.append(table_text(("link", "effect", "se", "p"), [_row(relation) for relation in ordered]))
    if any(finding.relations for finding in found.findings):
        parts.append("effect: deviations per deviation, the other links held fixed; not a cause\n")
    return "".join(parts)


def _count(finding: Finding) -> str:
    if finding.reason:
        return f"no fit: {finding.reason}"
    number = len(finding.relations)
    return "no relation found" if not number else "1 relation" if number == 1 else f"{number} relations"


def _row(relation: Relation) -> tuple[str, str, str, str]:
    name = f"{', '.join(relation.sources)} -> {', '.join(relation.targets)}, lag {relation.lag}"
    return name, f"{relation.effect:+.3f}", f"{relation.se:.3f}", f"{relation.p:.1e}"
