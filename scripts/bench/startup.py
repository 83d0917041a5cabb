"""How long `import scarcity`, its first use and `scarcity --version` take, beside a bare interpreter: one JSON line.

The best of several fresh processes, less the bare interpreter's own time. `import scarcity` loads nothing below it;
the first use of a name loads what that name needs, numpy and the cryptography among it.

python scripts/bench/startup.py
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

_RUNS = 7
_COMMANDS = {
    "python_s": ("-c", "pass"),
    "import_scarcity_s": ("-c", "import scarcity"),
    "first_use_s": ("-c", "from scarcity import HierarchicalFederation"),
    "scarcity_version_s": ("-m", "scarcity.cli.main", "--version"),
}


def seconds_of(arguments: tuple[str, ...]) -> float:
    """Return the wall time of one fresh `python ARGUMENTS`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    best = dict.fromkeys(_COMMANDS, math.inf)
    for _ in range(_RUNS):  # The commands take turns, so that a slow spell of the machine hits all.
        for name, arguments in _COMMANDS.items():
            best[name] = min(best[name], seconds_of(arguments))
    bare = best["python_s"]
    figures = {name: seconds - (0.0 if name == "python_s" else bare) for name, seconds in best.items()}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()} | {"import_scarcity_s_max": 0.3}))


if __name__ == "__main__":
    main()
