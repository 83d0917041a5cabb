"""A node in a process of its own under attack: floods, no descriptors left, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.testing import Probe
from tests.links_node import node_process
from tests.links_world import Authority, node, stranger, until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bench" / "hostile.py"
NUM_STRANGERS = 40


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def siege(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One run of everything at once, a second of flood in it; each test looks at one side of it."""
    command = [sys.executable, str(SCRIPT), "--seconds", "1", "--loop", request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_flood_of_connects_and_every_other_attack_at_once_cost_the_bystander_nothing(siege: dict[str, Any]) -> None:
    bystander = siege["bystander"]
    assert bystander["links"] == 1
    assert bystander["in_order"]
    assert bystander["back"] == bystander["sent"] > 50
    # How many is the machine's affair (scripts/bench/hostile.py prints it), but more than there are half-open places.
    assert siege["connects_per_s"]["through"] > 64


def test_memory_stays_within_the_documented_budgets_while_it_lasts(siege: dict[str, Any]) -> None:
    memory = siege["memory_mib"]
    assert 0.0 < memory["resident_growth"] < memory["budget"]
    assert 7.0 < siege["held_max_mib"]["deaf"] <= 8.0  # that attack worked, and met its bound


def test_every_attack_is_counted_under_its_reason(siege: dict[str, Any]) -> None:
    assert siege["reasons"].keys() >= {"bad frame", "not TLS 1.3", "no connection, or it ended"}


@pytest.mark.anyio
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_a_node_without_descriptors_keeps_its_links_and_accepts_again_when_there_are_some(
    tmp_path: Path, loop: str
) -> None:
    log, tls, at_a, at_c = tmp_path / "log", Authority(tmp_path).tls, Probe(), Probe()
    async with (
        node_process("b", "--tls", str(tmp_path), "--loop", loop, errors=log) as b,
        node("a", at_a, tls("a")) as a,
        node("c", at_c, tls("c")) as c,
    ):
        port = await b.until("port", 1)
        a.dial("b", "127.0.0.1", port)
        await b.until_link("a", up=True)
        await b.ask(descriptors=10)
        await b.statistics()
        async with AsyncExitStack() as stack:
            for number in range(NUM_STRANGERS):
                await stack.enter_async_context(stranger(port, f"127.0.1.{number}"))
            await until(lambda: b"cannot accept" in log.read_bytes())
            assert 0 < (await b.statistics())["half_open"] < NUM_STRANGERS / 2
            for number in range(100):
                a.send("b", 1, number.to_bytes(4), reliable=True)
            await b.until("got", 100)
            assert at_a.links == [("b", True, "")]
        c.dial("b", "127.0.0.1", port)
        await b.until_link("c", up=True)
        c.send("b", 1, bytes(4), reliable=True)
        await b.until("got", 101)
        assert b.of("got") == [["a", number] for number in range(100)] + [["c", 0]]
    assert at_a.links[0] == ("b", True, "")
