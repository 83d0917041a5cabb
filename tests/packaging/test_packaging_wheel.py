from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
POINTS = {
    **PROJECT["scripts"],
    **{name: target for group in PROJECT["entry-points"].values() for name, target in group.items()},
}
FLOORED = ("scarcity", "actors", "sim")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_owns_exactly_three_roots(wheel: zipfile.ZipFile) -> None:
    roots = {name.split("/")[0] for name in wheel.namelist()}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"actors", "scarcity", "sim"}


def test_the_wheel_holds_every_module_and_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    ours = {path.relative_to(ROOT).as_posix() for root in FLOORED for path in (ROOT / root).rglob("*.py")}
    held = set(wheel.namelist())
    assert ours <= held
    assert {f"{root}/py.typed" for root in FLOORED} <= held
    assert {"sim/pages/page.css", "sim/timelines/timeline.css"} <= held
    assert not [name for name in held if "__pycache__" in name or name.startswith("tests")]


def test_a_plain_installation_is_at_most_22_packages() -> None:
    """Resolved from what is installed here, which the constraints pin: no network."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        extras = requirement.extras or {""}
        for text in distribution(requirement.name).requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                waiting.append(inner)
    assert len(found) + 1 <= 22, sorted(found)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_every_entry_point_loads(name: str) -> None:
    module, _, attribute = POINTS[name].partition(":")
    loaded = importlib.import_module(module)
    assert not attribute or callable(getattr(loaded, attribute))  # a pytest plugin is a module


def test_the_installed_distribution_declares_what_the_project_does() -> None:
    try:
        installed = distribution("scarcity-federation")
    except PackageNotFoundError:
        pytest.skip("the project is not installed here")
    assert {p.name: p.value for p in installed.entry_points} == POINTS
    for point in installed.entry_points:
        assert callable(point.load()) or point.group == "pytest11"


@pytest.mark.parametrize("absent", ["numpy", "trio", "anyio", "rich", "click", "pandas"])
def test_importing_scarcity_imports_nothing_heavy(absent: str) -> None:
    code = f"import sys, scarcity; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_is_shown_without_the_engine() -> None:
    code = "import sys, scarcity.cli.main; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def sources() -> list[Path]:
    files = [path for root in (*FLOORED, "scripts", "tests") for path in (ROOT / root).rglob("*") if path.is_file()]
    return [path for path in files if path.suffix in {"", ".py", ".sh", ".toml", ".txt"} and path != Path(__file__)]


def test_nothing_pickles() -> None:
    pattern = re.compile(r"^\s*(import|from)\s+(pickle|cPickle|dill|cloudpickle|shelve|marshal)\b", re.MULTILINE)
    assert [
        path for path in sources() if "tests" not in path.parts and pattern.search(path.read_text(encoding="utf-8"))
    ] == []
    allowing = re.compile(r"allow_pickle\s*=\s*True")
    assert [
        path for path in sources() if "tests" not in path.parts and allowing.search(path.read_text(encoding="utf-8"))
    ] == []


def test_no_file_names_a_registry() -> None:
    pattern = re.compile(r"pypi\.org|pythonhosted|--(extra-)?index-url|--find-links|--trusted-host")
    files = [*sources(), ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "README.md", ROOT / ".ci" / "run"]
    assert [path for path in files if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_constraints_are_names_and_versions_alone() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    wanted = {canonicalize_name(Requirement(text).name) for text in (*PROJECT["dependencies"], *extras)}
    assert wanted <= pinned
