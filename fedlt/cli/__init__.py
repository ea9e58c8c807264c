"""Command line: one verb per file; heavy imports happen inside the verbs.

    fedlt list WHAT                       fedlt copy NAME [FOLDER]
    fedlt inspect FILE [key=value ...]    fedlt estimate FILE [key=value ...]
    fedlt run FILE [key=value ...]        fedlt status [FOLDER]
    fedlt compare FILE [key=value ...]    fedlt sweep FILE [key=value ...]
    fedlt reproduce RECIPE [key=value ...]
    fedlt realign RUN --method NAME       fedlt rescore RUN ...
    fedlt leaderboard FOLDER ...
    fedlt data prepare FILE [key=value ...]
    fedlt privacy FILE [key=value ...]
    fedlt export RUN -o FILE              fedlt app FILE [DIR] [key=value ...]
    fedlt generate FILE [key=value ...]
    fedlt new strategy|client NAME        fedlt check NAME [key=value ...]

A user's mistake is one line on standard error and exit code 2.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# No data leave the machine unasked, and offline machines do not wait. Set before flwr and ray.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import click
import typer

from fedlt.cli.app import make_app
from fedlt.cli.check import check
from fedlt.cli.compare import compare
from fedlt.cli.copy import copy
from fedlt.cli.data import data
from fedlt.cli.estimate import estimate
from fedlt.cli.export import export
from fedlt.cli.generate import generate
from fedlt.cli.help import MODES, Verb, Verbs
from fedlt.cli.inspect import inspect
from fedlt.cli.leaderboard import leaderboard
from fedlt.cli.list import list_names
from fedlt.cli.new import new
from fedlt.cli.privacy import privacy
from fedlt.cli.realign import realign
from fedlt.cli.report import report
from fedlt.cli.reproduce import reproduce
from fedlt.cli.rescore import rescore
from fedlt.cli.run import run
from fedlt.cli.status import status
from fedlt.cli.sweep import sweep
from fedlt.config.loading import add_import_paths
from fedlt.config.raised import described, raised_at
from fedlt.errors import FedltError, RunError, shortened
from fedlt.machine.installed import installed_version

__all__ = ["app", "main"]

_MOST_LINE = 2000  # characters of an error line

app = typer.Typer(
    name="fedlt",
    cls=Verbs,
    help="Simulate federated learning on long-tailed images: one file, one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("app", cls=Verb)(make_app)
app.command("list", cls=Verb)(list_names)
for verb in (
    check, compare, copy, data, estimate, export, generate, inspect, leaderboard, new, privacy,
    realign, report, reproduce, rescore, run, status, sweep,
):  # fmt: skip
    app.command(verb.__name__, cls=Verb)(verb)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedlt {installed_version()}")
        raise typer.Exit


@app.callback()
def _options(
    json: bool = typer.Option(False, "--json", help=MODES["json"]),
    quiet: bool = typer.Option(False, "--quiet", help=MODES["quiet"]),
    verbose: bool = typer.Option(False, "--verbose", help=MODES["verbose"]),
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def _fail(message: str, code: int = 2) -> int:
    typer.echo(f"error: {' '.join(message.split())[:_MOST_LINE]}", err=True)
    return code


def _fail_unforeseen(error: BaseException) -> int:
    """Return the exit code of an unforeseen error: print one line, keep the traceback in a file."""
    line = f"fedlt itself fails: {described(error)}"
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="fedlt-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
        line = f"{line[: _MOST_LINE // 2]}; the traceback is in {name}"
    return _fail(line, 1)


def _once(message: str) -> str:
    """Return a message without a doubled hint: typer and newer clicks add the same hint."""
    first, mark, hint = message.partition(" Did you mean")
    return f"{first}{mark}{hint.partition(' Did you mean')[0]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The arguments; ``sys.argv[1:]`` by default.

    Returns:
        0; 2 after a user's mistake and 1 after a run that could not go on (one line on standard
        error each); 1 after a fault of fedlt itself, with a traceback in a file; 130 after
        Ctrl-C or SIGTERM.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]  # `list` is a verb here
    added = add_import_paths([str(Path.cwd())])  # module:Class may lie in the working directory
    try:
        code = app(args=given, prog_name="fedlt", standalone_mode=False)
    except FedltError as error:
        return _fail(str(error))
    except RunError as error:
        return _fail(str(error), 1)
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "fedlt"
        return _fail(f"{_once(error.format_message())} See '{command} --help'.")
    except (click.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of the output has exited
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the interpreter flushes it at its end)
        return 1
    except SystemExit as error:
        if raised_at(error):
            return _fail_unforeseen(error)
        return error.code if isinstance(error.code, int) else 1  # rich's answer to a broken pipe
    except OSError as error:
        if not isinstance(error.filename, str):
            return _fail_unforeseen(error)
        return _fail(f"{shortened(error.filename, 300)}: {error.strerror}")
    except BaseException as error:
        return _fail_unforeseen(error)
    finally:
        sys.path[:] = [path for path in sys.path if path not in added]
    return code if isinstance(code, int) else 0
