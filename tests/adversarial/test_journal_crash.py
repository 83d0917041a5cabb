"""kill -9 between every two steps around the ledger: after a restart, spent is never below what was released."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scarcity.node.journal import SqliteJournal
from scarcity.privacy import GaussianEvent, PrivacyAccountant, PrivacyParams, RecordState, epsilon_of

_STEPS = """before reserve, before append of reserve, after append of reserve, before noise, after noise,
after journal entry, after release, before append of commit, after append of commit, after commit, never""".replace(
    "\n", " "
).split(", ")
_ROOT = Path(__file__).parents[2]

# The child makes three releases: reserve, draw, journal the bytes, let them out, commit. It lets a release out by
# writing it to a file with fsync. In the second release it kills itself at the step that it was told.
_CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from scarcity.node.journal import SqliteJournal
from scarcity.privacy import *
path, outbox, deadly = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
current = -1

def step(name):
    if name == deadly and current == 1:
        os.kill(os.getpid(), signal.SIGKILL)

class Watched:
    def __init__(self, store):
        self.store, self.load, self.close = store, store.load, store.close
    def append(self, record):
        what = "reserve" if record.state is RecordState.RESERVED else "commit"
        step(f"before append of {what}")
        self.store.append(record)
        step(f"after append of {what}")

journal = SqliteJournal(path)
accountant = PrivacyAccountant(PrivacyParams(10.0, 1e-5), Watched(journal.ledger("client")), ledger_id="client")
for current in range(3):
    step("before reserve")
    reservation = accountant.reserve(GaussianEvent(3.0, 1.0), f"r{current}", "round")
    step("before noise")
    values = clip_to_lattice(np.ones(4), 1.0, 4096)
    sent = add_noise(values, rounded_gaussian(3.0 * 4096, 4, reservation, os.urandom))
    step("after noise")
    journal.append("release", reservation.release_id, sent.tobytes())
    step("after journal entry")
    with outbox.open("a") as stream:
        print(reservation.release_id, file=stream, flush=True)
        os.fsync(stream.fileno())
    step("after release")
    accountant.commit(reservation)
    step("after commit")
"""


@pytest.mark.parametrize("deadly", _STEPS)
def test_after_kill_nine_spent_is_never_below_what_was_released(tmp_path: Path, deadly: str) -> None:
    path, outbox = tmp_path / "journal", tmp_path / "outbox"
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), str(outbox), deadly],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == (0 if deadly == "never" else -signal.SIGKILL), child.stderr
    released = outbox.read_text().split()
    assert len(released) >= 1

    journal = SqliteJournal(path)  # the dead process let go of its lock
    accountant = PrivacyAccountant(PrivacyParams(10.0, 1e-5), journal.ledger("client"), ledger_id="client")
    states = {record.release_id: record.state for record in accountant.ledger()}
    assert set(released) <= set(states)
    assert RecordState.VOID not in states.values()
    assert accountant.spent.epsilon >= epsilon_of(math.sqrt(len(released)) / 3.0 * (1 - 1e-12), 1e-5)
    assert accountant.spent.epsilon == pytest.approx(epsilon_of(math.sqrt(len(states)) / 3.0, 1e-5), rel=1e-9)
    assert {key for key, _ in journal.entries("release")} >= set(released)
    accountant.commit(accountant.reserve(GaussianEvent(3.0, 1.0), "after the restart", "round"))
    accountant.verify()
    journal.close()


def test_the_steps_differ_in_what_they_leave_behind(tmp_path: Path) -> None:
    """The kill before the append leaves one reservation, the kill after it two: the steps are where they say."""
    left = {}
    for deadly in ("before append of reserve", "after append of reserve"):
        path = tmp_path / deadly.replace(" ", "_")
        command = [sys.executable, "-c", _CHILD, str(path), str(tmp_path / "outbox"), deadly]
        subprocess.run(command, cwd=_ROOT, capture_output=True, check=False)
        journal = SqliteJournal(path)
        left[deadly] = sum(record.state is RecordState.RESERVED for record in journal.ledger("client").load())
        journal.close()
    assert list(left.values()) == [1, 2]
