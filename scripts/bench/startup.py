"""How long `import scarcity` and `scarcity --version` take: one JSON line, the best of several fresh processes.

python scripts/bench/startup.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

_RUNS = 7


def best_seconds(*arguments: str) -> float:
    """Return the shortest wall time of `python ARGUMENTS`; the shortest is what the machine can do undisturbed."""
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    bare = best_seconds("-c", "pass")
    figures = {
        "python_s": bare,
        "import_scarcity_s": best_seconds("-c", "import scarcity") - bare,
        "scarcity_version_s": best_seconds("-m", "scarcity.cli.main", "--version") - bare,
        "import_scarcity_s_max": 0.3,
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
