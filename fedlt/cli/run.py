"""``fedlt run``: do one run, or one run per seed, from a file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlt.cli.arguments import FileArgument
from fedlt.machine.stopping import stopped_by_terminate

if TYPE_CHECKING:
    from rich.console import Console

    from fedlt.config import Config


def run(
    file: FileArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Values to use instead, as local.lr=0.1."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished run from its checkpoint.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, in place of a run that is there.")
    ] = False,
) -> None:
    """Run an experiment file, or show its stored result.

    A finished run of the same configuration is not repeated unless --overwrite is given.
    """
    from fedlt.config import load_config
    from fedlt.config.experiments import find_experiment
    from fedlt.errors import StoppedError
    from fedlt.runs.endings import first_unfinished

    command = shlex.join(["fedlt", "run", file, *(overrides or []), "--resume"])
    config: Config | None = None
    try:
        with stopped_by_terminate():
            config = load_config(find_experiment(file), overrides or [])
            _run(config, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {first_unfinished(config)}: {command}", err=True)
        raise typer.Exit(130) from None
    except StoppedError as error:
        raise StoppedError(f"{error}; {first_unfinished(config)}: {command}") from error


def _run(config: Config, *, resume: bool, overwrite: bool) -> None:
    from rich.console import Console

    from fedlt.simulate import check_runs

    check_runs(config, resume=resume, overwrite=overwrite)
    console = Console()
    results = _run_all(config, console, resume=resume, overwrite=overwrite)
    _report(config, results, console)


def _run_all(
    config: Config, console: Console, *, resume: bool, overwrite: bool
) -> list[dict[str, Any]]:
    from fedlt.progress import make_progress
    from fedlt.simulate import run as run_one

    results = []
    for one in config.runs():
        progress = make_progress(console, f"{one.name} seed {one.seed}")
        try:
            done = run_one(
                one, resume=resume, overwrite=overwrite, progress=progress, estimate=True
            )
            results.append(done)
        finally:
            progress.stop()
    return results


def _report(config: Config, results: Sequence[dict[str, Any]], console: Console) -> None:
    from fedlt.comparing.terminal import result_table, seeds_table
    from fedlt.runs.directory import RunDirectory

    console.print(result_table(results[0]) if len(results) == 1 else seeds_table(results))
    for one in config.runs():
        console.print(str(RunDirectory.of(one).path), markup=False, highlight=False, soft_wrap=True)
