"""``fedlt reproduce``: compare the figures of a paper or its logs with new runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlt.cli.arguments import JobsOption, Overrides, RowsOption
from fedlt.cli.compare import resumable, split, write
from fedlt.cli.completion import complete_recipe
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.comparing.recipes import Recipe, RecipeSetting


def reproduce(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe of 'fedlt list recipes', or a file (YAML).",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Overrides = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds; the recipe's own by default.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="full, or a version that the recipe cuts down, as cpu.")
    ] = "full",
    settings: Annotated[
        str | None, typer.Option(help="Settings of the recipe to run, as a,b; all by default.")
    ] = None,
    rows: RowsOption = None,
    jobs: JobsOption = None,
) -> None:
    """Run a recipe and compare the results with its reference figures, within tolerances.

    Finished runs are read, interrupted runs are resumed: repeat the command to continue. At another
    scale than full, and with other values than the recipe's, numbers are shown and not judged.
    """
    from fedlt.comparing.recipes import read_recipe, seeds_of, with_seeds
    from fedlt.config.experiments import find_experiment

    given = list(overrides or ())
    _check_overrides(given)
    read = read_recipe(find_experiment(recipe), given, only=split(rows, "--rows"))
    chosen = split(settings, "--settings")
    grid = read.grid(scale, chosen, given)
    wanted = f"seeds={seeds_of(read, seeds or grid[0].scale.seeds)}"
    read = with_seeds(read, given, seeds or grid[0].scale.seeds)
    plain = read.grid(scale, chosen)
    with resumable("reproduce", recipe):
        changed = _is_changed(read, grid, plain, wanted)
        judged = _with_judged_curves(read, grid, read.grid("full", chosen), wanted)
        _reproduce(read, grid, is_changed=changed, judged=judged, jobs=jobs)


def _check_overrides(given: Sequence[str]) -> None:
    from fedlt.errors import FedltError

    for override in given:
        if override.partition("=")[0].strip() in ("seed", "seeds"):
            raise FedltError(f"override {override!r}: give --seeds N, the number of seeds")


def _is_changed(
    recipe: Recipe, grid: Sequence[RecipeSetting], plain: Sequence[RecipeSetting], seeds: str
) -> bool:
    """Return True if the command line changes a value that a result depends on."""
    from dataclasses import replace

    from fedlt.comparing.grid_runs import planned_runs
    from fedlt.config import config_hash

    if not any(setting.given for setting in grid):
        return False
    own = replace(recipe.comparison, overrides=(seeds,))
    return [config_hash(planned.config) for planned in planned_runs(recipe.comparison, grid)] != [
        config_hash(planned.config) for planned in planned_runs(own, plain)
    ]


def _with_judged_curves(
    recipe: Recipe, grid: Sequence[RecipeSetting], full: Sequence[RecipeSetting], seeds: str
) -> set[tuple[str, str]]:
    """Return the pairs (setting, row) whose runs are the recipe's, or its first rounds."""
    from dataclasses import replace

    from fedlt.comparing.published_curves import is_part_of

    if not recipe.curves:
        return set()
    found = set()
    own = replace(recipe.comparison, overrides=(seeds,))
    for setting, whole in zip(grid, full, strict=True):
        for row in recipe.comparison.rows:
            mine = recipe.comparison.configs(row, *setting.overrides_of(row.label))
            theirs = own.configs(row, *whole.overrides_of(row.label))
            if all(is_part_of(*pair) for pair in zip(mine, theirs, strict=True)):
                found.add((str(setting), row.label))
    return found


def _reproduce(
    recipe: Recipe,
    grid: Sequence[RecipeSetting],
    *,
    is_changed: bool,
    judged: Collection[tuple[str, str]],
    jobs: int | None,
) -> None:
    from fedlt.comparing import reproduction
    from fedlt.comparing.cells import notes_of
    from fedlt.comparing.display import make_runs_progress
    from fedlt.comparing.grid_runs import planned_runs, raise_failed, run_grid

    scale = grid[0].scale
    as_written = scale.is_full and not is_changed
    runs = planned_runs(recipe.comparison, grid)
    title = f"{recipe.about}; scale {scale.name}{', changed' if is_changed else ''}"
    screen().note(f"{title}: {len(runs)} runs", *_said(scale.purpose, scale.limits))
    comparison, progress = recipe.comparison, make_runs_progress(screen().progress())
    tables, outcomes = run_grid(comparison, grid, runs, jobs=jobs, progress=progress)
    every = {str(setting): tables.get(str(setting), {}) for setting in grid}
    level = recipe.level if scale.level is None else scale.level
    found = reproduction.reproduced(recipe, every, as_written=as_written, level=level)
    curves = reproduction.reproduced_curves(recipe, every, judged=judged)
    both: list[reproduction.Reproduced] = [*found, *curves]
    screen().tell(title)
    screen().show(reproduction.table(both))
    notes = [
        reproduction.summary(found, as_written=as_written),
        *reproduction.curves_summary(curves),
        *_said(scale.purpose, scale.limits),
    ]
    for setting, results in every.items():
        where = f" ({setting})" if setting else ""
        notes += [f"{line}{where}" for line in notes_of(results, "last_k")]
    notes += recipe.notes
    screen().tell("", *reproduction.sources(both), *notes)
    folder = Path(comparison.folder()) / scale.name
    files = write(
        {
            folder / "reproduction.md": reproduction.markdown(title, both, notes),
            folder / "reproduction.csv": reproduction.figures_csv(scale.name, both),
        }
    )
    content: dict[str, Any] = {
        "about": recipe.about,
        "scale": scale.name,
        "changed": is_changed,
        "files": files,
    }
    content["figures"] = [asdict(one) for one in found]
    content["curves"] = [asdict(one) for one in curves]
    screen().document({**content, "notes": notes})
    raise_failed(outcomes)


def _said(purpose: str, limits: str) -> list[str]:
    return [f"purpose: {purpose}", f"limits: {limits}"] if purpose else []
