"""The pytest plugin as users have it: in pytest processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "own-aggregator"
PAGE = (ROOT / "docs" / "how-to-simulate.md").read_text(encoding="utf-8")
INSTALLED = any(point.value == "sim.testing.pytest_plugin" for point in entry_points(group="pytest11"))
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
RunPytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run_pytest(tmp_path_factory: pytest.TempPathFactory) -> RunPytest:
    """Run pytest where the plugin is installed: here, or by the metadata of a distribution that is only declared."""
    path = [str(ROOT)]
    if not INSTALLED:
        site = tmp_path_factory.mktemp("site")
        info = site / "scarcity_federation-0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scarcity-federation\nVersion: 0.0\n")
        points = "".join(f"{name} = {target}\n" for name, target in DECLARED.items())
        (info / "entry_points.txt").write_text(f"[pytest11]\n{points}")
        path.append(str(site))

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "OMP_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


def write_test(folder: Path, body: str) -> None:
    (folder / "test_mine.py").write_text(f"import sys\nimport pytest\nimport sim\n\n{body}\n")


def test_the_page_shows_how_an_aggregator_is_tested_in_less_than_25_lines(
    tmp_path: Path, run_pytest: RunPytest
) -> None:
    code = next(sample for sample in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "pytest" in sample)
    assert len(code.splitlines()) < 25
    assert "probability=0.2" in code
    assert "Latency.fixed(0.2)" in code
    (tmp_path / "test_page.py").write_text(code)
    done = run_pytest(tmp_path, "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_example_project_passes_its_tests(run_pytest: RunPytest) -> None:
    done = run_pytest(EXAMPLE, "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_broken_promise_fails_the_test_with_seed_and_capsule(tmp_path: Path, run_pytest: RunPytest) -> None:
    body = """
@pytest.mark.faults(sim.Dropout("unprotected", probability=1.0))
def test_it(swarm):
    swarm.clients(4).settings(rounds=3, quorum=1.0)
    from sim.worlds.checkers import Checker
    class Never(Checker):
        def end(self, view):
            yield "this never holds"
    swarm.run(until_s=10, heal_s=0, watch=[Never()])
"""
    write_test(tmp_path, body)
    done = run_pytest(tmp_path, f"--basetemp={tmp_path / 'base'}", "--swarm-seed", "11")
    assert done.returncode == 1
    assert "this never holds" in done.stdout
    assert "--swarm-seed 11 runs it again" in done.stdout
    assert len(list(tmp_path.rglob("swarm.json"))) == 1


def test_a_fault_that_never_struck_fails_the_test(tmp_path: Path, run_pytest: RunPytest) -> None:
    write_test(
        tmp_path,
        "@pytest.mark.faults(sim.Crash(at_s=900, of=('c0000',)))\ndef test_it(swarm):\n    swarm.run(until_s=5)\n",
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "never struck, so nothing was tested by it: faults[0] (crash)" in done.stdout


@pytest.mark.parametrize(
    ("marker", "said"),
    [("sim.Loss(0.1), 7", "7 is neither a law of the network nor a fault"), ("rate=0.2", "takes laws and faults, not")],
)
def test_a_wrong_marker_says_what_is_allowed(marker: str, said: str, tmp_path: Path, run_pytest: RunPytest) -> None:
    write_test(tmp_path, f"@pytest.mark.faults({marker})\ndef test_it(swarm):\n    pass\n")
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert said in done.stdout


def test_faults_of_module_and_test_add_up_and_a_seed_follows_from_the_name(
    tmp_path: Path, run_pytest: RunPytest
) -> None:
    body = """
pytestmark = pytest.mark.faults(sim.Loss(0.1))
seeds = []

@pytest.mark.faults(sim.Latency.fixed(0.1))
def test_it(swarm):
    assert len(swarm.plan.entries) == 2
    seeds.append(swarm.config.seed)

def test_another(swarm):
    assert swarm.plan.entries == (sim.Loss(0.1),)
    assert swarm.config.seed != seeds[0]
"""
    write_test(tmp_path, body)
    assert run_pytest(tmp_path).returncode == 0


@pytest.mark.parametrize("absent", ["numpy", "trio", "anyio", "msgpack", "sim.worlds.world"])
def test_nothing_heavy_is_imported_until_a_test_asks_for_a_swarm(absent: str) -> None:
    code = f"import sys, sim.testing.pytest_plugin; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_other_tests_and_modes_of_async_tests_are_left_alone(tmp_path: Path, run_pytest: RunPytest) -> None:
    body = """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_loop(anyio_backend):
    import sniffio
    assert sniffio.current_async_library() == anyio_backend

def test_nothing_was_loaded():
    assert "sim.worlds.world" not in sys.modules
"""
    write_test(tmp_path, body)
    done = run_pytest(tmp_path, "-W", "error")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_actors_of_ones_own_are_asked_over_a_slow_network(tmp_path: Path, run_pytest: RunPytest) -> None:
    body = """
import anyio
from actors import Actor, ActorSystem, handles, message
from actors.transport import MemoryHub, MemoryTransport

@message("mine.ping")
class Ping:
    number: int

class Echo(Actor):
    @handles(Ping)
    def ping(self, msg, ctx):
        return msg

@pytest.mark.anyio
@pytest.mark.faults(sim.Latency.fixed(0.05))
async def test_it(swarm):
    hub = MemoryHub(["a", "b"])
    at = lambda node: ActorSystem(node, transport=swarm.transport(MemoryTransport(node, hub), hub.nodes))
    async with at("b") as b, at("a") as a:
        await b.spawn(Echo, name="echo")
        asked_at = anyio.current_time()
        assert await a.ref("scarcity://b/echo").ask(Ping(1), deadline=5.0) == Ping(1)
        assert anyio.current_time() - asked_at >= 0.1
"""
    write_test(tmp_path, body)
    done = run_pytest(tmp_path, "-k", "asyncio or trio")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_plugin_can_be_left_out(tmp_path: Path, run_pytest: RunPytest) -> None:
    write_test(tmp_path, "def test_it(swarm):\n    pass\n")
    done = run_pytest(tmp_path, "-p", "no:scarcity-swarm")
    assert "fixture 'swarm' not found" in done.stdout
