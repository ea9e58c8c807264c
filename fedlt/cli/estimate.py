"""``fedlt estimate``: time, memory and disk of all runs of a file, before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.arguments import (
    ClientsOption,
    FileArgument,
    JobsOption,
    Overrides,
    RowsOption,
    SeedsOption,
    SetOption,
    StrategiesOption,
)
from fedlt.cli.compare import seeds_override, split
from fedlt.cli.screen import screen
from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.comparing.schedule import PlannedRun
    from fedlt.progress import Progress


def estimate(
    file: FileArgument,
    overrides: Overrides = None,
    strategies: StrategiesOption = None,
    clients: ClientsOption = None,
    seeds: SeedsOption = None,
    rows: RowsOption = None,
    settings: SetOption = None,
    scale: Annotated[
        str, typer.Option("--scale", help="Of a recipe: full, or a version that it cuts down.")
    ] = "full",
    parts: Annotated[
        str | None, typer.Option("--settings", help="Of a recipe: its settings to run, as a,b.")
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Estimate the time, memory and disk of all runs of an experiment, comparison or recipe.

    Each row trains a few trial steps, as it would before a run. Estimates are good to a factor of
    two; finished runs cost nothing. No run is written.
    """
    from fedlt.comparing.estimate import cost_sheet, estimate_runs, total_text
    from fedlt.comparing.sheet import to_terminal

    given = [*(overrides or []), *seeds_override(seeds, overrides or [])]
    named = (split(strategies, "--strategies"), split(clients, "--clients"), split(rows, "--rows"))
    runs = _planned(file, given, named, settings or [], (scale, split(parts, "--settings")))
    costs, total = estimate_runs(runs, jobs=jobs, progress=_progress)
    screen().show(to_terminal(cost_sheet(costs)))
    screen().tell(total_text(total))
    screen().document({"rows": [asdict(cost) for cost in costs], "total": asdict(total)})


def _progress(label: str) -> Progress:
    from fedlt.progress import make_progress

    screen().note(f"{label}: a few trial steps")
    return make_progress(screen().progress(), label)


def _planned(
    file: str,
    given: Sequence[str],
    named: tuple[Sequence[str], Sequence[str], Sequence[str]],
    settings: Sequence[str],
    version: tuple[str, Sequence[str]],
) -> list[PlannedRun]:
    """Return the runs that ``run``, ``compare`` or ``reproduce`` would do.

    Args:
        file: The name or path of the file.
        given: Overrides.
        named: Strategies, client plugins and rows of the command line.
        settings: Values of ``--set``.
        version: The scale and the settings of a recipe.
    """
    from fedlt.comparing.comparison import read_comparison
    from fedlt.comparing.grid import make_settings
    from fedlt.comparing.grid_runs import planned_runs
    from fedlt.comparing.schedule import PlannedRun
    from fedlt.config import load_config
    from fedlt.config.experiments import find_experiment
    from fedlt.config.yaml12 import read_mapping

    path = find_experiment(file)
    content = read_mapping(path)
    strategies, clients, rows = named
    if "reproduce" in content:
        own = [one for one in given if one.partition("=")[0].strip() in ("seed", "seeds")]
        _refuse(path, "a recipe", strategies=strategies, clients=clients, set=settings, seeds=own)
        return _of_recipe(path, given, rows, version)
    _refuse(path, "no recipe", scale=version[0].removeprefix("full"), settings=version[1])
    if "compare" in content or strategies or clients:
        comparison = read_comparison(path, given, strategies=strategies, clients=clients, only=rows)
        return planned_runs(comparison, make_settings(settings, given))
    _refuse(path, "no comparison", rows=rows, set=settings)
    config = load_config(path, given)
    return [PlannedRun(config.name, one) for one in config.runs()]


def _refuse(path: Path, what: str, **options: Sequence[str]) -> None:
    """Raise if an option is given that a file of this kind has no use for."""
    for name, values in options.items():
        if values:
            raise FedltError(f"--{name}: {path} is {what}")


def _of_recipe(
    path: Path, given: Sequence[str], rows: Sequence[str], version: tuple[str, Sequence[str]]
) -> list[PlannedRun]:
    from fedlt.comparing.grid_runs import planned_runs
    from fedlt.comparing.recipes import read_recipe, with_seeds

    recipe = read_recipe(path, given, only=rows)
    grid = recipe.grid(*version, given)
    return planned_runs(with_seeds(recipe, given, grid[0].scale.seeds).comparison, grid)
