"""The command `scarcity`: finds its subcommands, and turns errors into one line and an exit status.

Subcommands are entry points of the group `scarcity.commands`, and only those of our own distribution are loaded: a
stranger's package cannot add a command that runs with this one's name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution
from typing import Final

import click

from scarcity import __version__
from scarcity.errors import FederationError, LocalError, PrivacyBudgetExceeded

DISTRIBUTION: Final = "scarcity-federation"
GROUP: Final = "scarcity.commands"
STATUS_FAILED: Final = 1
STATUS_WRONG_USE: Final = 2
STATUS_BUDGET_SPENT: Final = 4
STATUS_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
_UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def entry_points() -> dict[str, EntryPoint]:
    """Return our own subcommands by name; none when the distribution is not installed."""
    try:
        ours = distribution(DISTRIBUTION).entry_points
    except PackageNotFoundError:
        return {}
    return {point.name: point for point in sorted(ours) if point.group == GROUP}


class Commands(click.Group):
    """A group whose commands are loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return sorted({*super().list_commands(ctx), *entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand of a name."""
        points = entry_points()
        if cmd_name not in points:
            return super().get_command(ctx, cmd_name)
        command = points[cmd_name].load()
        assert isinstance(command, click.Command), f"{points[cmd_name].value} is no command"
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="scarcity")
def scarcity() -> None:
    """Find out together what drives what in everybody's data, without showing a record."""


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors of ours are one line on stderr, never a traceback."""
    try:
        status = command.main(args=arguments, prog_name="scarcity", standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of an interrupt
        click.echo("interrupted", err=True)
        return STATUS_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except FederationError as error:
        click.echo(f"scarcity: {' '.join(str(error).split())}", err=True)
        if isinstance(error, PrivacyBudgetExceeded):
            return STATUS_BUDGET_SPENT
        return STATUS_WRONG_USE if isinstance(error, LocalError) else STATUS_FAILED
    except OSError as error:
        if error.errno not in _UNWRITTEN or error.filename is not None:
            raise
        # It is the output: commands name the files of their own that fail.
        _say_unwritten(error)
        return STATUS_FAILED
    # Without standalone mode click returns the status of `context.exit`, and None where nobody set one.
    return status if isinstance(status, int) else 0


def _say_unwritten(error: OSError) -> None:
    """Say that the output cannot be written, and keep the interpreter from trying once more when it goes."""
    with contextlib.suppress(OSError):  # stderr may be the same file
        click.echo(f"scarcity: the output cannot be written: {error.strerror or error}", err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main() -> None:
    """Run `scarcity` with the process's arguments and exit."""
    try:
        status = run(scarcity)
    except KeyboardInterrupt:  # a second one, while the first was being answered
        status = STATUS_INTERRUPTED
    # All is said: one more must not put a traceback behind it while the interpreter goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    main()
