"""The pytest plugin: fixture `swarm`, marker `faults`, option `--swarm-seed`.

It is loaded by every pytest run of an environment that has us installed. So it costs nothing until a test asks for a
swarm: no numpy, no event loop, no hook that looks at other tests. `-p no:scarcity-swarm` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sim.testing.pytest_swarm import Swarm

_MARKER = (
    "faults(*entries): what goes wrong in the test's `swarm`: network laws and faults of `sim`, such as "
    'Loss(0.2), Latency.fixed(0.2), Dropout("release", probability=0.2)'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs a failure's seed again."""
    group = parser.getgroup("swarm", "simulated swarms")
    group.addoption("--swarm-seed", type=int, metavar="N", help="seed of every swarm; default: from the test's name")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def swarm(request: pytest.FixtureRequest) -> Swarm:
    """Return a `sim.World` with the faults of the test's markers, whose `run` fails the test for a broken promise.

    Its seed follows from the test's name, so that a test fails again or never; it is in every failure's message.
    """
    from sim.testing.pytest_swarm import Swarm, seed_of_name

    seed = request.config.getoption("swarm_seed", None)
    made = Swarm(
        seed_of_name(request.node.nodeid) if seed is None else seed,
        lambda: request.getfixturevalue("tmp_path"),
    )
    # From the outermost marker (a module's) to the test's own, as they are read.
    for marker in reversed(list(request.node.iter_markers("faults"))):
        if marker.kwargs:
            raise pytest.UsageError(f"marker faults takes laws and faults, not {', '.join(sorted(marker.kwargs))}=")
        made.go_wrong(*marker.args)
    return made
