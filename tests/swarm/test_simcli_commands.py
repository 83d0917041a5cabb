"""`scarcity sim`: what is printed where, which files are written, and the status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from scarcity.cli.main import run
from sim.faults.files import plan_toml
from sim.faults.plan import Crash, Duplicate, FaultPlan, Loss
from sim.sim_commands import sim
from sim.worlds.capsule import read_capsule
from sim.worlds.checkers import Checker, View
from sim.worlds.safety import OneModel

ROOT = Path(__file__).parents[2]
PLAN = FaultPlan((Loss(0.1), Duplicate(0.2)), (Crash(2.0, ("basket/basket-0",), down_s=1.0, torn=True),))
SMALL = ("run", "--clients", "4", "--baskets", "1", "--until", "8", "--heal", "2", "--seed", "3", "--quiet")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("storm.toml").write_text(plan_toml(PLAN))


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break a promise whenever somebody has crashed: what a bug looks like from outside."""

    def end(_self: Checker, view: View) -> Iterable[str]:
        return ["two models"] if any(f.name == "crash" and f.count for f in view.built.stage.fired(view.now)) else []

    monkeypatch.setattr(OneModel, "end", end)


def test_a_sound_run_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--plan", "storm.toml", "--trace", "t.jsonl", "--capsule", "c.json"]) == 0
    out = capsys.readouterr().out
    assert "8 virtual s of 4 clients in 1 baskets, mode none" in out
    assert "fault 2, crash: 1 on basket/basket-0" in out
    assert out.endswith("no promise was broken\n")
    events = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert {"at", "kind", "member", "peer", "what"} == set(events[0])
    assert read_capsule(Path("c.json")).plan == PLAN


def test_a_run_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--json", "-"]) == 0
    said = capsys.readouterr()
    named: dict[str, Any] = json.loads(said.out)
    assert named["models"] > 0
    assert named["violations"] == []
    assert named["trace_hash"] in said.err


def test_progress_has_virtual_time_rounds_and_what_is_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ticks = iter(range(10_000))
    monkeypatch.setattr("sim.sim_commands.time.monotonic", lambda: float(next(ticks)))
    assert run(sim, [argument for argument in SMALL if argument != "--quiet"]) == 0
    first = capsys.readouterr().err.splitlines()[2]
    assert first.startswith("3 of 8 virtual s: round ")
    assert "waits for" in first


@pytest.mark.parametrize("arguments", [[], ["--json", "-"], ["--quiet"]])
def test_where_nobody_looks_on_there_is_no_progress(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(arguments))
    ticks = iter(range(10_000))
    monkeypatch.setattr("sim.sim_commands.time.monotonic", lambda: float(next(ticks)))
    assert run(sim, [*(argument for argument in SMALL if argument != "--quiet"), *arguments]) == 0
    assert "virtual s: round" not in capsys.readouterr().err


def test_fuzz_tells_a_terminal_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr("sim.sim_commands.time.monotonic", lambda: float(next(ticks)))
    for watched in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda told=watched: told)
        assert run(sim, ["fuzz", "--plans", "1", "--mode", "none"]) == 0
        assert ("plan 1 of 1: 0 failures" in capsys.readouterr().err) is watched


def test_a_broken_promise_writes_a_capsule_that_replays_and_shrinks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert run(sim, [*SMALL, "--plan", "storm.toml", "--trace", "t.jsonl"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "violation at 8.000 s, OneModel: two models"
    (written,) = Path().glob("sim-3-*.json")
    assert f"capsule: {written}" in out
    assert run(sim, ["replay", str(written), "--against", "t.jsonl", "--quiet"]) == 0
    assert "same trace hash" in capsys.readouterr().out
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(sim, ["shrink", str(written), "--out", "small.json"]) == 0
    said = capsys.readouterr()
    assert "3 entries before, 1 now" in said.out
    assert said.out.splitlines()[-1].endswith("OneModel: two models")
    assert "run 1 of at most" in said.err
    small = read_capsule(Path("small.json"))
    assert [type(entry) for entry in small.plan.entries] == [Crash]
    assert run(sim, ["replay", "small.json", "--quiet"]) == 0


def test_a_failure_that_one_client_brings_shrinks_to_that_client(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_self: Checker, view: View) -> Iterable[str]:
        struck = {member for fired in view.built.stage.fired(view.now) for member in fired.on if fired.name == "crash"}
        return ["two models"] if "c0002" in struck else []

    monkeypatch.setattr(OneModel, "end", end)
    Path("all.toml").write_text(plan_toml(FaultPlan(faults=(Crash(2.0, ("*",), down_s=1.0),))))
    assert run(sim, [*SMALL, "--plan", "all.toml", "--capsule", "all.json"]) == 1
    assert run(sim, ["shrink", "all.json", "--quiet"]) == 0
    assert "faults[0]: crash on c0002\n" in capsys.readouterr().out
    (entry,) = read_capsule(Path("all-small.json")).plan.entries
    assert isinstance(entry, Crash)
    assert entry.of == ("c0002",)


def test_a_run_that_is_another_one_says_where_it_leaves_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--plan", "storm.toml", "--trace", "t.jsonl", "--capsule", "c.json"]) == 0
    named = json.loads(Path("c.json").read_text())
    Path("c.json").write_text(json.dumps({**named, "seed": 4}))
    capsys.readouterr()
    assert run(sim, ["replay", "c.json", "--against", "t.jsonl", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "was: {" in out
    assert "not the same run: trace hash" in out
    assert run(sim, ["replay", "c.json", "--quiet"]) == 1
    assert "--against TRACE of the first run says where" in capsys.readouterr().out


def test_a_trace_of_another_run_is_not_compared_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--plan", "storm.toml", "--capsule", "c.json"]) == 0
    assert run(sim, [*SMALL, "--plan", "storm.toml", "--seed", "4", "--trace", "other.jsonl"]) == 0
    for name in ("other.jsonl", "storm.toml"):
        capsys.readouterr()
        assert run(sim, ["replay", "c.json", "--against", name, "--quiet"]) == 2
        said = capsys.readouterr()
        assert f"--against {name}: is no trace of this run" in said.err
        assert "same trace hash" not in said.out


def test_a_capsule_of_another_version_is_not_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--capsule", "c.json"]) == 0
    named = json.loads(Path("c.json").read_text())
    named["versions"]["scarcity"] = "9.9"
    Path("c.json").write_text(json.dumps(named))
    assert run(sim, ["replay", "c.json", "--quiet"]) == 2
    assert "scarcity was 9.9, here it is" in capsys.readouterr().err
    assert run(sim, ["replay", "c.json", "--quiet", "--other-versions"]) == 0
    assert "other versions: scarcity was 9.9" in capsys.readouterr().out


def test_a_fault_that_never_struck_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("late.toml").write_text(plan_toml(FaultPlan((), (Crash(900.0, ("c0001",)),))))
    assert run(sim, [*SMALL, "--plan", "late.toml"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == ("never struck, so nothing was tested by it: faults[0] (crash)")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--clients", "0"], "clients must be positive"),
        (["run", "--until", "-1"], "until_s must be"),
        (["run", "--mode", "central"], "baskets is 2 for 6 clients; allowed in mode central: at least 3 baskets"),
        (["run", "--until", "5", "--heal", "9"], "heal_s must be at most until_s"),
        (["run", "--plan", "none.toml"], "none.toml: cannot be read"),
        (["run", "--trace", "no/such/t.jsonl"], "--trace"),
        (["run", "--capsule", "."], "--capsule"),
        (["run", "--mode", "loud"], "loud"),
        (["run", "--executor", "tape"], "tape"),
        (["replay", "storm.toml"], "storm.toml: "),
        (["shrink", "none.json"], "none.json: cannot be read"),
        (["fuzz", "--out", "nowhere"], "--out nowhere: is no folder"),
        (["fuzz", "--plans", "0"], "0"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sim, arguments) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_a_group_without_members_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("who.toml").write_text(plan_toml(FaultPlan((), (Crash(1.0, ("basket-9",)),))))
    assert run(sim, [*SMALL, "--plan", "who.toml"]) == 2
    assert "faults[0]: group 'basket-9' has no members; known groups are *, clients" in capsys.readouterr().err


def test_a_sound_capsule_has_nothing_to_shrink(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, [*SMALL, "--capsule", "c.json"]) == 0
    assert run(sim, ["shrink", "c.json"]) == 2
    assert "there is nothing to shrink" in capsys.readouterr().err


def test_fuzz_shrinks_and_saves_what_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    # Case 7 of every seed has a crash: kinds are dealt in turn.
    assert run(sim, ["fuzz", "--plans", "1", "--first", "7", "--mode", "none", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "shrunk to crash: violation at" in out
    assert len(read_capsule(Path("sim-fuzz-0-7.json")).plan.entries) == 1


def test_fuzz_says_what_it_has_tried_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sim, ["fuzz", "--plans", "6", "--json", "-", "--quiet"]) == 0
    out, err = capsys.readouterr()
    tried = json.loads(out)
    assert (tried["plans"], tried["first"], tried["failures"], tried["interrupted"]) == (6, 0, [], False)
    num_stages = len({stage for _mode, stage in tried["stages"]})
    assert f"distinct fault combinations: {len(tried['combinations'])}; kinds that struck: {len(tried['kinds'])}" in err
    assert f"protocol stages hit: {num_stages} of 9" in err
    assert run(sim, ["fuzz", "--plans", "1", "--json", "there/is/no.json"]) == 2


@pytest.mark.parametrize("command", ["run --until 100000", "run --executor loop --until 100000", "fuzz --plans 100000"])
def test_ctrl_c_ends_with_a_line_and_status_130(command: str) -> None:
    code = "import sys; from scarcity.cli.main import run; from sim.sim_commands import sim; sys.exit(run(sim))"
    terminal, its_end = pty.openpty()  # progress is for those who look on
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=its_end,
    )
    os.close(its_end)
    try:
        said = os.read(terminal, 4096)  # the first progress: it runs
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of the file of a terminal that nobody has any more
            while more := os.read(terminal, 4096):
                said += more
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        os.close(terminal)
    assert b"interrupted" in said
    assert b"Traceback" not in said
