"""Runs the samples of a page as a reader would, in order, in one shell, and compares what they print.

A bash or python block is run, others say nothing. A text block right behind one is what that prints: a line `...`
stands for any lines, numbers may differ by 2 % (they depend on the machine's linear algebra), times in seconds by
anything. The block of the installation is left out: it needs a network.

    python -m tests.samples docs/tutorial.md     writes what is printed now into the page; lines behind `...` stay
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
INSTALLS = "pip install"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_SECONDS = re.compile(r"\d+\.\d+ s\b")
_SHIM = """
import sys, tomllib
from importlib.metadata import EntryPoint
from scarcity.cli import main as cli
with open({toml!r}, "rb") as file:
    points = tomllib.load(file)["project"]["entry-points"][cli.GROUP]
cli.entry_points = lambda: {{name: EntryPoint(name, value, cli.GROUP) for name, value in points.items()}}
sys.exit(cli.run(cli.scarcity))
"""


@attrs.frozen
class Sample:
    """A block that is run, and what the page says that it prints; None where it says nothing."""

    language: str
    code: str
    shown: str | None


def samples(page: str) -> list[Sample]:
    """Return the blocks of a page that can be run, in order."""
    blocks = [(match[1], match[2], match.start(), match.end()) for match in _FENCE.finditer(page)]
    found = []
    for index, (language, code, _, end) in enumerate(blocks):
        if language not in {"bash", "python"} or INSTALLS in code:
            continue
        following = blocks[index + 1] if index + 1 < len(blocks) else None
        behind = following is not None and following[0] == "text" and not page[end : following[2]].strip()
        found.append(Sample(language, code, following[1] if following and behind else None))
    return found


def run(page: str, folder: Path) -> list[str]:
    """Return what each sample prints, standard output and error together."""
    (folder / "docs").mkdir()
    (folder / "docs" / "data").symlink_to(ROOT / "docs" / "data")
    commands = folder / "bin"
    commands.mkdir()
    shim = commands / "scarcity"
    code = _SHIM.format(toml=str(ROOT / "pyproject.toml"))
    shim.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}")
    shim.chmod(0o755)
    mark = "=== next sample ==="
    script = [f"exec 2>&1\nset -u\nPYTHON={sys.executable}\n"]
    for number, sample in enumerate(samples(page)):
        if sample.language == "python":
            path = folder / f"sample_{number}.py"
            path.write_text(sample.code)
            script.append(f"$PYTHON {path}\n")
        else:
            script.append(sample.code)
        script.append(f"echo '{mark}'\n")
    # A session of its own: daemons that a page leaves running end with it, however it ends.
    with subprocess.Popen(
        ["bash", "-c", "".join(script)],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
        },
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=110)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return printed.split(f"{mark}\n")[:-1]


def difference(shown: str, printed: str) -> str:
    """Return the first line that differs, empty when nothing does."""
    waiting = printed.splitlines()
    anywhere = False
    for line in shown.splitlines():
        if line.strip() == "...":
            anywhere = True
            continue
        at = next((index for index, other in enumerate(waiting) if _alike(line, other)), None)
        if at is None or (at and not anywhere):
            return f"the page shows {line!r}, printed is {waiting[:1] if not anywhere else waiting}"
        waiting, anywhere = waiting[at + 1 :], False
    return "" if anywhere or not waiting else f"printed beyond what the page shows: {waiting[0]!r}"


def _alike(shown: str, printed: str) -> bool:
    one, other = (_SECONDS.sub("S", line).rstrip() for line in (shown, printed))
    if _NUMBER.sub("#", " ".join(one.split())) != _NUMBER.sub("#", " ".join(other.split())):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= 0.02 * abs(float(b)) + 0.002 for a, b in pairs)


def refreshed(page: str, printed: list[str]) -> str:
    """Return the page with what is printed now; blocks with `...` keep their choice of lines and are only compared."""
    for sample, output in zip(samples(page), printed, strict=True):
        if sample.shown is not None and "...\n" not in sample.shown:
            start = f"{sample.code}```\n\n```text\n"
            page = page.replace(f"{start}{sample.shown}```", f"{start}{output}```")
    return page


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        page = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            printed = run(page, Path(folder))
        path.write_text(refreshed(page, printed), encoding="utf-8")
        for sample, output in zip(samples(page), printed, strict=True):
            if sample.shown is not None and "...\n" in sample.shown and (why := difference(sample.shown, output)):
                sys.stdout.write(f"{name}: {why}\n{output}\n")


if __name__ == "__main__":
    main()
