"""`scarcity node`: run this host's members until somebody stops them."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import click

from scarcity.cli.main import STATUS_INTERRUPTED
from scarcity.node.service import serve
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.deployment import open_deployment
from scarcity.node.watch.logs import configure_logs


@click.command()
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The node's TOML file; `scarcity init node` writes one.",
)
@click.option("--check", is_flag=True, help="Read and check all files that the config names, start nothing.")
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio", help="Event loop.")
@click.pass_context
def node(context: click.Context, path: Path, check: bool, backend: str) -> None:
    """Run the clients, baskets or coordinator that this host is to host.

    It ends on SIGTERM, Ctrl-C or `scarcity stop`, after what waits is handled. `scarcity status` says what it does,
    `scarcity outbox` what has left it. Killed and started again it goes on where its journal ends.
    """
    config = read_node_config(path)
    deployment = open_deployment(config, time.time())
    if check:
        deployment.transport()
        rows = ", ".join(f"{name} {count}" for name, count in deployment.rows().items())
        members = ", ".join(sorted(deployment.member_keys))
        click.echo(
            f"{path}: node {config.name} of {deployment.directory.federation}, epoch "
            f"{deployment.directory.epoch}, hosts {members}; nothing is wrong with its files"
        )
        click.echo(f"rows of its clients so far: {rows or 'it has no client'}")
        return
    repeats = configure_logs(config.log_format)
    if anyio.run(serve, deployment, lambda: repeats.num_suppressed, backend=backend):
        context.exit(STATUS_INTERRUPTED)
