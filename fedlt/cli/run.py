"""``fedlt run``: do one run, or one run per seed, from a file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlt.cli.arguments import FileArgument, Overrides
from fedlt.cli.screen import screen
from fedlt.machine.stopping import stopped_by_terminate

if TYPE_CHECKING:
    from fedlt.config import Config


def run(
    file: FileArgument,
    overrides: Overrides = None,
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
    from fedlt.simulate import check_runs

    check_runs(config, resume=resume, overwrite=overwrite)
    _report(config, _run_all(config, resume=resume, overwrite=overwrite))


def _run_all(config: Config, *, resume: bool, overwrite: bool) -> list[dict[str, Any]]:
    from fedlt.progress import make_progress
    from fedlt.simulate import run as run_one

    results = []
    for one in config.runs():
        label, every = f"{one.name} seed {one.seed}", screen().verbose
        progress = make_progress(screen().progress(), label, every_round=every)
        try:
            done = run_one(
                one, resume=resume, overwrite=overwrite, progress=progress, estimate=True
            )
            results.append(done)
        finally:
            progress.stop()
    return results


def _report(config: Config, results: Sequence[dict[str, Any]]) -> None:
    from fedlt.comparing.terminal import result_table, seeds_table
    from fedlt.runs.directory import RunDirectory

    paths = [RunDirectory.of(one).path for one in config.runs()]
    if any(RunDirectory(path).lacks_names(config) for path in paths):
        words = "the finished run holds no names; another name=... or --overwrite runs it anew"
        screen().note(f"report.client_names: {words}, with names")
    screen().show(result_table(results[0]) if len(results) == 1 else seeds_table(results))
    screen().tell(*paths)
    pairs = zip(paths, results, strict=True)
    screen().document({"runs": [{"path": path, **result} for path, result in pairs]})
