"""`scarcity status` and `scarcity stop`: questions to a daemon that runs. Options in, text out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import click

from scarcity.cli.main import STATUS_FAILED
from scarcity.cli.options import FILE, SECONDS
from scarcity.errors import ConfigError
from scarcity.node.setup.config import read_node_config
from scarcity.node.watch.awaited import Goal, wait_until
from scarcity.node.watch.control import ask_control, stop_and_wait
from scarcity.node.watch.status import NodeStatus, render

CONTROL: Final = "control.sock"
_WATCH_S: Final = 2.0
_WAIT_S: Final = 60.0
_CONFIG: Final = click.option("--config", required=True, type=FILE, metavar="FILE", help="The node's TOML file.")


@click.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it anew every 2 s, until Ctrl-C.")
@click.option(
    "--wait-round", type=click.IntRange(min=1), metavar="N", help="First wait for a model of round N or later."
)
@click.option("--wait-epoch", type=click.IntRange(min=1), metavar="N", help="First wait for the roster of epoch N.")
@click.option(
    "--timeout", "timeout_s", type=SECONDS, metavar="S",
    help=f"Longest wait for either, in seconds.  [default: {_WAIT_S:g}]",
)  # fmt: skip
def status(
    config: Path,
    *,
    as_json: bool,
    watch: bool,
    wait_round: int | None,
    wait_epoch: int | None,
    timeout_s: float | None,
) -> None:
    """Show what a node is doing: who is linked, what each member waits for, from whom and until when.

    With --wait-round or --wait-epoch, for scripts, it waits first, for a daemon that is about to start too, and says
    on standard error what for.

    Status: 0 done, 1 no daemon runs or what is waited for did not come in time, 2 wrong use.
    """
    goal = Goal(wait_round, wait_epoch)
    if goal == Goal() and timeout_s is not None:
        raise ConfigError("--timeout: there is nothing to wait for; give --wait-round N or --wait-epoch N")
    path = read_node_config(config).data_dir / CONTROL
    if goal != Goal():
        limit_s = _WAIT_S if timeout_s is None else timeout_s
        wait_until(
            lambda: ask_control(path, "status"), goal, timeout_s=limit_s, say=lambda text: click.echo(text, err=True)
        )
    while True:
        said = ask_control(path, "status")
        text = json.dumps(said, indent=None if watch else 2) + "\n" if as_json else render(NodeStatus.from_json(said))
        if watch and not as_json:
            click.clear()
        click.echo(text, nl=False)
        if not watch:
            return
        time.sleep(_WATCH_S)


@click.command()
@_CONFIG
@click.option("--wait", is_flag=True, help="Return when its process is gone.")
@click.option(
    "--timeout", "timeout_s", type=SECONDS, default=30.0, show_default=True, metavar="S",
    help="Longest wait in seconds.",
)  # fmt: skip
@click.pass_context
def stop(context: click.Context, config: Path, *, wait: bool, timeout_s: float) -> None:
    """Ask a node to finish: its members handle what waits, its links say goodbye, its files are closed.

    Status: 0 done, 1 no daemon runs or it is still there after --timeout, 2 wrong use.
    """
    path = read_node_config(config).data_dir / CONTROL
    if not wait:
        ask_control(path, "stop")
        click.echo("stopping")
    elif stop_and_wait(path, timeout_s=timeout_s):
        click.echo("stopped")
    else:
        click.echo(f"scarcity: still there after {timeout_s:g} s", err=True)
        context.exit(STATUS_FAILED)
