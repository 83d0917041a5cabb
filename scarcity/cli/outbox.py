"""`scarcity outbox`: what left a node, and whether its list of that is whole. Options in, a table out."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any, Final

import click

from scarcity.cli.main import STATUS_FAILED
from scarcity.cli.options import FILE
from scarcity.errors import ConfigError, OutboxCorrupt
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.directory import read_directory
from scarcity.node.text import table_text
from scarcity.node.watch.outbox import OutboxRecord, iterate_outbox

OUTBOX: Final = "outbox.jsonl"
_LONG_AGO: Final = 0.0  # the list of an epoch that has expired is as true as before


@click.command()
@click.option("--config", type=FILE, metavar="FILE", help="The node's TOML file.")
@click.option("--file", "file", type=FILE, metavar="FILE", help="A list without its node, with --key.")
@click.option("--key", metavar="HEX", help="The node's public link key, with --file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all records that are asked for.")
@click.option("--verify", is_flag=True, help="Check every signature, too; the chain always is.")
@click.option("--kind", metavar="K", help="Only packets of this kind: release, secure-sum, model, ..")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Show the last N records, after the totals.")
@click.pass_context
def outbox(
    context: click.Context,
    *,
    config: Path | None,
    file: Path | None,
    key: str | None,
    as_json: bool,
    verify: bool,
    kind: str | None,
    last: int | None,
) -> None:
    """Show what left a node: how much of which kind to whom, and what was charged for it. It never holds a value.

    Everybody who has the node's public link key can check the list: --file outbox.jsonl --key HEX --verify.

    Status: 0 done, 1 the list is broken, 2 wrong use.
    """
    path, public_key = _list_of(config, file, key)
    told = _read(path, public_key if verify else None, kind, last if not as_json or last else None, keep=as_json)
    if as_json:
        click.echo(json.dumps(told.to_json(verified=verify), indent=2))
    else:
        click.echo(told.text(verified=verify), nl=False)
    context.exit(STATUS_FAILED if told.broken else 0)


def _list_of(config: Path | None, file: Path | None, key: str | None) -> tuple[Path, bytes]:
    """Return the file and the public key that signs it."""
    if config is not None and file is None and key is None:
        node = read_node_config(config)
        directory = read_directory(node.roster, node.federation.operator_key, _LONG_AGO).directory
        return node.data_dir / OUTBOX, directory.entry(node.name).key
    if config is not None or file is None or key is None:
        raise ConfigError("give either --config FILE, or --file FILE and --key HEX")
    try:
        public_key = bytes.fromhex(key)
    except ValueError:
        public_key = b""
    if len(public_key) != 32:
        raise ConfigError(f"--key: expected 64 hexadecimal digits, got {key!r}")
    return file, public_key


class _Told:
    """Totals and the records that are to be shown."""

    def __init__(self, last: int | None, *, keep: bool) -> None:
        self.totals: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.records: deque[OutboxRecord] = deque(maxlen=last if last or keep else 0)
        self.num_records = 0
        self.kinds: set[str] = set()
        self.broken = ""

    def add(self, record: OutboxRecord) -> None:
        place = (record.kind, record.to, record.node)
        count, size = self.totals.get(place, (0, 0))
        self.totals[place] = (count + 1, size + record.size_bytes)
        self.records.append(record)

    def verdict(self, *, verified: bool) -> str:
        if self.broken:
            return f"broken: {self.broken}"
        what = "every signature and the chain hold" if verified else "the chain holds (--verify checks the signatures)"
        return f"{self.num_records} records; {what}"

    def to_json(self, *, verified: bool) -> dict[str, Any]:
        totals = [
            {"kind": kind, "to": to, "node": node, "packets": count, "bytes": size}
            for (kind, to, node), (count, size) in sorted(self.totals.items())
        ]
        return {
            "num_records": self.num_records,
            "whole": not self.broken,
            "signatures_checked": verified,
            "broken": self.broken,
            "totals": totals,
            "records": [record.to_json() for record in self.records],
        }

    def text(self, *, verified: bool) -> str:
        rows = [(*place, str(count), f"{size:,}") for place, (count, size) in sorted(self.totals.items())]
        parts = [table_text(("kind", "to", "node", "packets", "bytes"), rows, text_columns=3)] if rows else []
        if self.records:
            parts.append("".join(f"{_line(record)}\n" for record in self.records))
        if self.kinds and not self.totals:
            parts.append(f"no record is of that kind; there are {', '.join(sorted(self.kinds))}\n")
        return "\n".join([*parts, f"{self.verdict(verified=verified)}\n"])


def _line(record: OutboxRecord) -> str:
    shapes = " ".join("x".join(map(str, shape)) for shape in record.shapes[:4]) + (" .." * (len(record.shapes) > 4))
    said = f"{record.seq} {record.at} {record.sender} -> {record.to} on {record.node}: {record.kind}, round "
    said += f"{record.round_id}, {record.size_bytes} bytes" + (f", arrays {shapes}" if shapes else "")
    said += "" if record.noise is None else f", noise {record.noise:.4g}"
    return said + (f", charged {record.charge}" if record.charge else "")


def _read(path: Path, key: bytes | None, kind: str | None, last: int | None, *, keep: bool) -> _Told:
    told = _Told(last, keep=keep)
    try:
        for record in iterate_outbox(path, key):
            told.num_records += 1
            told.kinds.add(record.kind)
            if kind is None or record.kind == kind or record.kind.startswith(f"{kind}/"):
                told.add(record)
    except OutboxCorrupt as error:
        told.broken = str(error)
    return told
