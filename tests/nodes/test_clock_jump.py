"""The wall clock jumps under a daemon: rounds go on, and a roster is valid or expired by what the clock says now."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from scarcity.cli.keys import keys
from scarcity.errors import ConfigError
from scarcity.node.daemon import OUTBOX, NodeDaemon
from scarcity.node.setup.config import read_node_config
from scarcity.node.setup.deployment import open_deployment
from scarcity.node.watch.outbox import read_outbox
from tests.nodes_world import Host, command, found, write_rows

HOUR, DAY = 3600.0, 86400.0
SETTINGS = {"gossip_s": 0.2, "ready_s": 0.5, "close_s": 0.3, "deadline_s": 0.5, "stage_s": 0.5}


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_s


async def until(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    with anyio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 - a daemon's state has no event
            await anyio.sleep(0.02)
    assert condition(), what


@pytest.mark.anyio
async def test_a_clock_that_jumps_ends_no_round_and_expires_only_what_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scarcity.node.daemon._WATCH_S", 0.05)
    host = Host("all", (("a0", "a"), ("a1", "a")), ("a",), coordinator=True)
    federation = found(tmp_path, [host], settings=SETTINGS, rounds=1000, interval_s=0.1)
    folder, operator = federation.daemons["all"].folder, federation.operator
    num_rows = 0

    def add_rows(number: int) -> None:
        nonlocal num_rows
        for client in range(2):
            write_rows(folder / f"a{client}.csv", num_rows, num_rows + number, client)
        num_rows += number

    clock = Clock()
    config = read_node_config(federation.daemons["all"].config)
    daemon = NodeDaemon(open_deployment(config, clock()), wall=clock)

    def status() -> dict[str, object]:
        return dict(daemon._status())

    def has_model_after(round_id: int) -> bool:
        add_rows(1)
        return max(status()["models"], default=0) > round_id  # type: ignore[call-overload] - JSON has no types

    async def a_round_comes() -> None:
        newest = max(status()["models"], default=0)  # type: ignore[call-overload] - JSON has no types
        await until(f"a model after round {newest}", lambda: has_model_after(newest))

    def renew(days: int) -> None:
        place = ("--federation-dir", operator / "keys", "--expires-days", days, "--out", folder / "new.json")
        command(keys, "roster", "sign", folder / "roster.json", *place)
        (folder / "new.json").replace(folder / "roster.json")

    add_rows(40)
    async with anyio.create_task_group() as group:
        group.start_soon(daemon.run)
        await until("the daemon", lambda: bool(daemon._listening) and len(daemon._members) == 4)
        await a_round_comes()
        for jump_s in (HOUR, -HOUR):
            clock.offset_s = jump_s
            await a_round_comes()
        # A clock that is two days ahead finds a list of one day expired; the list in force stays so.
        clock.offset_s = 2 * DAY
        renew(1)
        await anyio.sleep(0.3)
        await a_round_comes()
        assert status()["epoch"] == 1
        clock.offset_s = 0.0
        (folder / "roster.json").touch()
        await until("epoch 2", lambda: status()["epoch"] == 2)
        await a_round_comes()
        daemon.stop()
    assert read_outbox(config.data_dir / OUTBOX, config_key(config.path)) == []
    with pytest.raises(ConfigError, match="expired on"):
        open_deployment(config, time.time() + 2 * DAY)


def config_key(path: Path) -> bytes:
    deployment = open_deployment(read_node_config(path), time.time())
    return bytes(deployment.link_key.verify_key)
