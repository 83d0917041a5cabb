from __future__ import annotations

import signal
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

import scarcity as package
from scarcity.cli import main as cli
from scarcity.errors import ConfigError, LedgerInUse, PrivacyBudgetExceeded, ThresholdError

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def _declared_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that pyproject.toml declares, whether or not the project is installed here."""
    points = {name: EntryPoint(name, value, cli.GROUP) for name, value in DECLARED["entry-points"][cli.GROUP].items()}
    monkeypatch.setattr(cli, "entry_points", lambda: points)


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def test_version_and_help_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, ["--version"]) == 0
    assert package.__version__ in capsys.readouterr().out
    assert cli.run(cli.scarcity, ["--help"]) == 0
    assert "swarm" in capsys.readouterr().out


def test_the_help_of_swarm_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, ["swarm", "--help"]) == 0
    text = capsys.readouterr().out
    options = "data party domain time variables schema synthetic privacy epsilon delta unit aggregator rounds drop"
    options += " latency liars attack seed backend json quorum quiet help"
    for option in options.split():
        assert f"--{option}" in text, option
    command = cli.scarcity.get_command(click.Context(cli.scarcity), "swarm")
    assert command is not None
    for parameter in command.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help, parameter.name


def test_an_unknown_command_or_option_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, ["swarn"]) == 2
    assert cli.run(cli.scarcity, ["swarm", "--colour", "red"]) == 2
    assert "No such" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("quorum must\nlie in (0, 1]"), 2),
        (ThresholdError("2 of 5 are left"), 1),
        (PrivacyBudgetExceeded("sigma 1", "nothing", "a"), 4),
        (LedgerInUse("somebody has it"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_and_a_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(failing(error), []) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len([line for line in shown.err.splitlines() if line]) == 1
    assert "Traceback" not in shown.err


def test_an_interrupt_while_one_is_answered_is_a_status_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_command: click.Command) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epsilon", "0"], "epsilon must lie in (0, 1e+06], got 0.0"),
        (["--party", "a"], "--data needs --domain, --time as well"),
        (["--data", "no.csv", "--party", "a", "--domain", "b", "--time", "c"], "no.csv: No such file or directory"),
        (["--aggregator", "krum"], "aggregator krum needs privacy local"),
        (["--attack", "bribe"], "known are sign-flip"),
    ],
)
def test_bad_settings_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, ["swarm", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1


def test_an_unwritable_json_file_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.scarcity, ["swarm", "--json", "/nowhere/at/all.json"]) == 2
    assert "/nowhere/at/all.json" in capsys.readouterr().err
