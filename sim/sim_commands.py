"""`scarcity sim`: swarms in virtual time. What is decided here is only what is printed where.

Status of all four: 0 as it should be, 1 a promise was broken, a replay differs or a fault that was asked for never
struck; 2 wrong use; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from scarcity.errors import ConfigError
from scarcity.federation.packets import TrustMode, Unit
from scarcity.federation.roster import COORDINATOR, basket_id
from scarcity.node.files import require_writable, write_whole
from sim.faults.files import read_plan
from sim.faults.plan import FaultPlan
from sim.faults.shrink import MAX_RUNS, ShrinkStep
from sim.faults.shrink import shrink as shrink_plan
from sim.faults.stage import never_struck
from sim.interrupts import Interrupts
from sim.pages import require_page, write_page
from sim.sim_report import Progress, Stopped, named, render, to_json, violation_line
from sim.timelines import Recorder, Run, render_timeline
from sim.worlds.built import EXECUTORS, WorldConfig
from sim.worlds.capsule import Capsule, capsule_of, read_capsule, write_capsule
from sim.worlds.checkers import Checker
from sim.worlds.fuzz import MODES, UNITS, Case, Coverage, label, random_case, try_case
from sim.worlds.replay import Replayed, replay, tee
from sim.worlds.result import SimResult
from sim.worlds.world import World

STATUS_BROKEN: Final = 1
STATUS_INTERRUPTED: Final = 130
_FUZZ_SHRINK_RUNS: Final = 100  # a failing case of fuzz; `sim shrink` has more patience
_FILE = click.Path(dir_okay=False, path_type=Path)
_json = click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the result as JSON; - for stdout.")
_quiet = click.option("--quiet", is_flag=True, help="No progress on a terminal; elsewhere there is none.")
_report = click.option(
    "--report", "report_file", type=_FILE, metavar="FILE.html", help="Write the run as a page with a timeline."
)


@click.group()
def sim() -> None:
    """Run whole swarms in virtual time, with faults as data, and check what is promised.

    Status: 0 as it should be; 1 a promise was broken, a replay differs, or a fault that was asked for never struck; 2
    wrong use; 130 interrupted.
    """


@sim.command()
@click.option("--clients", type=int, default=6, show_default=True, help="How many.")
@click.option("--baskets", type=int, default=2, show_default=True, help="How many; client i is in basket i mod this.")
@click.option(
    "--mode", type=click.Choice([m.value for m in TrustMode]), default="none", show_default=True, help="Trust mode."
)
@click.option(
    "--unit", type=click.Choice([u.value for u in Unit]), default="record", show_default=True, help="Privacy unit."
)
@click.option("--until", "until_s", type=float, default=60.0, show_default=True, metavar="S", help="Virtual seconds.")
@click.option(
    "--heal",
    "heal_s",
    type=float,
    metavar="S",
    help="Last seconds without faults. Default: what healing takes, at most six tenths of the run.",
)
@click.option("--every", "round_every_s", type=float, default=1.0, show_default=True, help="Pause between rounds.")
@click.option("--rounds", type=int, default=0, show_default=True, help="How many; 0: as many as there is time for.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides keys, rows, noise and faults.")
@click.option("--executor", type=click.Choice(EXECUTORS), default="heap", show_default=True, help="Who runs it.")
@click.option("--plan", "plan_file", type=_FILE, metavar="FILE", help="What goes wrong: .toml or .json.")
@click.option("--trace", "trace_file", type=_FILE, metavar="FILE", help="Write every event, one JSON object a line.")
@click.option(
    "--capsule",
    "capsule_file",
    type=_FILE,
    metavar="FILE",
    help="Write the run as one file, for `replay` and `shrink`. When a promise was broken one is written anyway.",
)
@_json
@_report
@_quiet
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    until_s: float,
    heal_s: float | None,
    plan_file: Path | None,
    trace_file: Path | None,
    capsule_file: Path | None,
    json_file: Path | None,
    report_file: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run one world, and say what came of it and of every promise.

    A fault of the plan that never struck fails the run: it has not tested what the plan says.
    """
    for path, option in ((trace_file, "--trace"), (capsule_file, "--capsule")):
        if path is not None:
            require_writable(path, option)
    to_stdout = _checked_json(json_file)
    plan = FaultPlan() if plan_file is None else read_plan(plan_file)
    world = World.of(WorldConfig(**settings), plan)
    config = world.config_for(until_s, heal_s)
    report = _Report(report_file, config.until_s)
    with _Watched(context, config.until_s, quiet=quiet or to_stdout) as watched, ExitStack() as files:
        sink = tee(_lines_into(trace_file, files), report.sink)
        result = World.of(config, plan).run(heal_s=config.heal_s, watch=[watched.progress, *report.watch], sink=sink)
    if json_file is not None:
        _write(json_file, to_json(config, result), to_stdout=to_stdout)
    said = [render(config, result)]
    if capsule_file is None and result.violations:
        capsule_file = Path(f"sim-{config.seed}-{result.trace_hash[:8]}.json")
    if capsule_file is not None:
        write_capsule(capsule_file, capsule_of(world, config, result))
        said.insert(0, f"capsule: {capsule_file}")
    said[:0] = report.write(config, plan, result)
    if never := never_struck(plan, result.fired):
        said.insert(len(said) - bool(result.violations), f"never struck, so nothing was tested by it: {never}")
    click.echo("\n".join(said), err=to_stdout)
    context.exit(STATUS_BROKEN if result.violations or never else 0)


@sim.command(name="replay")
@click.argument("capsule_file", type=_FILE, metavar="CAPSULE")
@click.option("--against", type=_FILE, metavar="TRACE", help="Trace of the first run: says which event differs first.")
@click.option("--other-versions", is_flag=True, help="Run it although it was made by other versions.")
@_report
@_quiet
@click.pass_context
def replay_command(
    context: click.Context,
    /,
    *,
    capsule_file: Path,
    against: Path | None,
    other_versions: bool,
    report_file: Path | None,
    quiet: bool,
) -> None:
    """Run a capsule again: the trace hash must be the same.

    A capsule of other versions is refused: it may differ and be right.
    """
    capsule = read_capsule(capsule_file)
    if capsule.other_versions and not other_versions:
        raise ConfigError(
            f"{capsule_file}: {'; '.join(capsule.other_versions)}: this would be no replay; --other-versions runs it "
            "anyway"
        )
    report = _Report(report_file, capsule.config.until_s)
    with _Watched(context, capsule.config.until_s, quiet=quiet) as watched:
        done = replay(capsule, against, [watched.progress, *report.watch], report.sink)
    lines = _replay_lines(capsule, done)
    for line in (*report.write(capsule.config, capsule.plan, done.result, () if done.same else lines[-1:]), *lines):
        click.echo(line)
    context.exit(0 if done.same else STATUS_BROKEN)


def _replay_lines(capsule: Capsule, done: Replayed) -> list[str]:
    lines = [violation_line(violation) for violation in reversed(done.result.violations)]
    if capsule.other_versions:
        lines.insert(0, f"other versions: {'; '.join(capsule.other_versions)}")
    if done.difference is not None:
        number, was, now = done.difference.number, done.difference.was, done.difference.now
        lines.append(f"event {number} was: {was or 'the end'}")
        lines.append(f"event {number} is:  {now or 'the end'}")
    if done.same:
        return [*lines, f"same trace hash: {capsule.trace_hash}"]
    lines.append(f"violations: {len(capsule.violations)} then, {len(done.result.violations)} now")
    where = "" if done.difference is not None else "; --against TRACE of the first run says where"
    return [*lines, f"not the same run: trace hash {done.result.trace_hash}, was {capsule.trace_hash}{where}"]


@sim.command(name="shrink")
@click.argument("capsule_file", type=_FILE, metavar="CAPSULE")
@click.option("--out", type=_FILE, metavar="FILE", help="The smaller capsule. Default: CAPSULE with -small.")
@click.option("--runs", type=click.IntRange(1), default=MAX_RUNS, show_default=True, help="Most runs.")
@_quiet
@click.pass_context
def shrink_command(context: click.Context, /, *, capsule_file: Path, out: Path | None, runs: int, quiet: bool) -> None:
    """Find a smaller plan that breaks the same promise, and write its capsule.

    Ctrl-C ends the search; the smallest plan so far is written.
    """
    capsule = read_capsule(capsule_file)
    if not capsule.violations:
        raise ConfigError(f"{capsule_file}: violations is empty: there is nothing to shrink")
    out = out or capsule_file.with_name(f"{capsule_file.stem}-small.json")
    require_writable(out, "--out")
    with Interrupts() as interrupts:
        interrupts.hold()
        small = smaller(capsule, runs, lambda: interrupts.noted, _shown(quiet=quiet))
        write_capsule(out, small, "--out")
        interrupted = interrupts.noted
    click.echo("\n".join(_shrunk_lines(capsule, small, out)))
    context.exit(STATUS_INTERRUPTED if interrupted else 0)


def _shrunk_lines(before: Capsule, after: Capsule, out: Path) -> list[str]:
    entries = [
        f"{after.plan.place(at)}: {label(entry)}{named(getattr(entry, 'groups', getattr(entry, 'of', ())))}"
        for at, entry in enumerate(after.plan.entries)
    ]
    return [
        f"{len(before.plan.entries)} entries before, {len(after.plan.entries)} now",
        *entries,
        f"capsule: {out}",
        violation_line(after.violations[0]),
    ]


def smaller(
    capsule: Capsule,
    max_runs: int,
    stopped: Callable[[], bool] = lambda: False,
    show: Callable[[str], object] | None = None,
) -> Capsule:
    """Return the capsule of a smaller plan that breaks a promise which this one breaks.

    Raises:
        LocalError: it breaks none of them any more.
    """
    checkers = {violation.checker for violation in capsule.violations}
    best: list[tuple[FaultPlan, SimResult]] = []

    def fails(plan: FaultPlan) -> bool:
        if stopped() and best:
            return False  # what is left of the search passes in no time
        result = World.of(capsule.config, plan).run(heal_s=capsule.config.heal_s)
        failed = bool(checkers & {violation.checker for violation in result.violations})
        if failed:
            best[:] = [(plan, result)]
        return failed

    def tell(step: ShrinkStep) -> None:
        if show is not None and not stopped():
            show(f"run {step.runs} of at most {step.max_runs}: {len(step.plan.entries)} entries")

    config = capsule.config
    seats = {**config.seats, **{basket_id(domain): domain for domain in config.domains}, COORDINATOR: ""}
    shrink_plan(capsule.plan, fails, tell, max_runs=max_runs, until_s=config.until_s, seats=seats)
    plan, result = best[0]
    return Capsule(capsule.config, plan, result.trace_hash, result.violations)


@sim.command()
@click.option("--plans", type=click.IntRange(1), default=50, show_default=True, help="How many random plans.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides all of them.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first one.")
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help="Only this trust mode; repeatable.")
@click.option("--unit", "units", type=click.Choice(UNITS), multiple=True, help="Only this privacy unit.")
@click.option("--executor", type=click.Choice(EXECUTORS), default="heap", show_default=True, help="Who runs them.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where capsules of failing plans go. Default: here.",
)
@_json
@_quiet
@click.pass_context
def fuzz(
    context: click.Context,
    /,
    *,
    plans: int,
    seed: int,
    first: int,
    modes: tuple[str, ...],
    units: tuple[str, ...],
    executor: str,
    out: Path,
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Run random plans over random worlds; a plan that breaks a promise is shrunk and written.

    Plan N of a seed is always the same one: --first N --plans 1 runs it alone.
    """
    if not out.is_dir():
        raise ConfigError(f"--out {out}: is no folder")
    to_stdout = _checked_json(json_file)
    show = _shown(quiet=quiet or to_stdout)
    coverage, failures, shown_at = Coverage(), list[str](), time.monotonic()
    with Interrupts() as interrupts:
        interrupts.hold()
        for number in range(first, first + plans):
            if interrupts.noted:
                break
            case = random_case(seed, number, modes=modes or MODES, units=units or UNITS, executor=executor)
            tried = try_case(case)
            coverage.add(tried)
            if tried.result.violations:
                failures.append(_save(case, tried.result, out / f"sim-fuzz-{seed}-{number}.json", interrupts))
            if show is not None and time.monotonic() - shown_at >= 1.0:
                shown_at = time.monotonic()
                show(f"plan {number - first + 1} of {plans}: {len(failures)} failures, {case.config.mode}")
        interrupted = interrupts.noted
    if json_file is not None:
        told = {"seed": seed, "first": first, **coverage.to_dict(), "failures": failures, "interrupted": interrupted}
        _write(json_file, json.dumps(told, indent=1), to_stdout=to_stdout)
    click.echo("\n".join((coverage.describe(), *(failures or ["no promise was broken"]))), err=to_stdout)
    if interrupted:
        click.echo(f"interrupted after {coverage.plans} plans", err=True)
        context.exit(STATUS_INTERRUPTED)
    context.exit(STATUS_BROKEN if failures else 0)


def _save(case: Case, result: SimResult, path: Path, interrupts: Interrupts) -> str:
    """Shrink a failing case, write its capsule, and return the line about it."""
    capsule = capsule_of(case.world, case.config, result)
    small = smaller(capsule, _FUZZ_SHRINK_RUNS, lambda: interrupts.noted)
    write_capsule(path, small, "--out")
    left = ", ".join(label(entry) for entry in small.plan.entries) or "no fault at all"
    what = violation_line(small.violations[0])
    return f"plan {case.number} ({case.config.mode}), capsule {path}, shrunk to {left}: {what}"


class _Watched(ExitStack):
    """A run with progress on stderr that Ctrl-C ends at the next virtual second, with a line and its status."""

    def __init__(self, context: click.Context, until_s: float, *, quiet: bool) -> None:
        super().__init__()
        interrupts = self.enter_context(Interrupts())
        interrupts.hold()
        self.progress = Progress(until_s, _shown(quiet=quiet), time.monotonic, lambda: interrupts.noted)
        self.push(lambda _kind, error, _trace: self._stop(context, error))

    @staticmethod
    def _stop(context: click.Context, error: BaseException | None) -> bool:
        stopped = _stopped_in(error)
        if stopped is not None:
            click.echo(f"interrupted at {stopped.at_s:.0f} virtual s; nothing was written but the trace", err=True)
            context.exit(STATUS_INTERRUPTED)
        return False


def _stopped_in(error: BaseException | None) -> Stopped | None:
    """Return the end that was asked for; the executor `loop` has it in groups of its tasks."""
    if isinstance(error, Stopped):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_stopped_in, error.exceptions)), None)
    return None


class _Report:
    """The page of a run, where one was asked for; refused here, before the run, when it could not be written."""

    def __init__(self, path: Path | None, until_s: float) -> None:
        if path is not None:
            require_page(path)
        self._path = path
        self._recorder = Recorder(until_s)

    @property
    def watch(self) -> tuple[Checker, ...]:
        return () if self._path is None else (self._recorder,)

    @property
    def sink(self) -> Callable[[str], object] | None:
        return None if self._path is None else self._recorder.take

    def write(self, config: WorldConfig, plan: FaultPlan, result: SimResult, wrong: Iterable[str] = ()) -> list[str]:
        """Write it, and return the line that says where."""
        if self._path is None:
            return []
        run = Run(config=config, plan=plan, result=result, recording=self._recorder.recording())
        write_page(self._path, render_timeline(run, wrong))
        return [f"report: {self._path}"]


def _shown(*, quiet: bool) -> Callable[[str], object] | None:
    """Return what shows progress: nothing, where nobody looks on while it runs."""
    return None if quiet or not sys.stderr.isatty() else _to_stderr


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


def _lines_into(path: Path | None, files: ExitStack) -> Callable[[str], object] | None:
    """Return what writes lines into a file that `files` closes; None: there is no file."""
    if path is None:
        return None
    file = files.enter_context(path.open("w", encoding="utf-8"))
    return lambda line: file.write(f"{line}\n")


def _checked_json(json_file: Path | None) -> bool:
    """Say whether the JSON goes to stdout; ConfigError where its file cannot be written."""
    to_stdout = str(json_file) == "-"
    if json_file is not None and not to_stdout:
        require_writable(json_file, "--json")
    return to_stdout


def _write(path: Path, text: str, *, to_stdout: bool) -> None:
    if to_stdout:
        click.echo(text)
    else:
        write_whole(path, f"{text}\n".encode(), "--json")
