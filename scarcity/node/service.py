"""A daemon as a process: signals end it, gently the first time."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import anyio

from scarcity.node.daemon import NodeDaemon
from scarcity.node.setup.deployment import Deployment

log = logging.getLogger("scarcity.node")


async def serve(deployment: Deployment, num_unlogged: Callable[[], int]) -> bool:
    """Run a node's daemon until it is stopped; return whether that was by Ctrl-C.

    Args:
        deployment: checked config, directory and keys.
        num_unlogged: how many log records were not written so far.

    Raises:
        FederationError: what ended it, with the cause.
    """
    daemon = NodeDaemon(deployment, num_unlogged=num_unlogged)
    failure: Exception | None = None
    by_hand = False
    async with anyio.create_task_group() as group:

        async def listen() -> None:
            nonlocal by_hand
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for number in signals:
                    by_hand |= number == signal.SIGINT
                    if daemon.stopping:
                        log.warning("%s again: what waits is given up", signal.Signals(number).name)
                        group.cancel_scope.cancel()
                    log.info("%s: finishing", signal.Signals(number).name)
                    daemon.stop()

        group.start_soon(listen)
        try:
            await daemon.run()
        except Exception as error:  # noqa: BLE001 - raised again below, not wrapped in the group's own exception
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return by_hand
