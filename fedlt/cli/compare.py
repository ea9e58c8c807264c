"""``fedlt compare``: many runs from one file, their table, and the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from fedlt.cli.screen import screen
from fedlt.machine.stopping import stopped_by_terminate

if TYPE_CHECKING:
    from fedlt.comparing.comparison import Comparison
    from fedlt.comparing.conditions import Results
    from fedlt.comparing.grid import Setting
    from fedlt.comparing.sweep import Found


def compare(
    file: FileArgument,
    overrides: Overrides = None,
    strategies: StrategiesOption = None,
    clients: ClientsOption = None,
    seeds: SeedsOption = None,
    rows: RowsOption = None,
    settings: SetOption = None,
    which: Annotated[
        str, typer.Option(help="final, last_k, selected, best_on_test, or all side by side.")
    ] = "last_k",
    against: Annotated[
        str, typer.Option(help="The row that the others are tested against; the first by default.")
    ] = "",
    jobs: JobsOption = None,
    tune: Annotated[
        bool, typer.Option(help="Search every row first, and run it with its best values.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="With --tune: trials a row, as of fedlt sweep.")
    ] = None,
    rounds_to: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="A column: rounds to this generic accuracy, as 0.9."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Whether to write report.html, too.")
    ] = True,
) -> None:
    """Run every row of a comparison with every seed, print the table and the verdicts.

    Finished runs are read, interrupted runs are resumed: repeat the command to continue.
    """
    from fedlt.comparing.comparison import read_comparison
    from fedlt.comparing.grid import make_settings
    from fedlt.config.experiments import find_experiment
    from fedlt.errors import FedltError

    check_moment(which)
    given = [*(overrides or []), *seeds_override(seeds, overrides or [])]
    comparison = read_comparison(
        find_experiment(file),
        given,
        strategies=split(strategies, "--strategies"),
        clients=split(clients, "--clients"),
        only=split(rows, "--rows"),
    )
    grid = make_settings(settings or [], given)
    if settings and tune:
        raise FedltError("--tune: not with --set: tune every value by a command of its own")
    if trials is not None and not tune:
        raise FedltError("--trials: is for the search of --tune; give both")
    if rounds_to is not None and not 0 < rounds_to < 1:
        raise FedltError(f"--rounds-to: {rounds_to:g} is no share between 0 and 1, such as 0.9")
    shown = {"which": which, "against": against, "rounds_to": rounds_to}
    with resumable("compare", file):
        if tune:
            comparison = _tuned(comparison, trials, jobs)
        _compare(comparison, grid, shown, jobs=jobs, report=report)


def _tuned(comparison: Comparison, trials: int | None, jobs: int | None) -> Comparison:
    """Return a comparison with the values that a search of its rows chose."""
    from fedlt.comparing.tuning import tuned, write_tuned

    found, _ = search_rows(comparison, trials, jobs)
    screen().tell(write_tuned(comparison.folder(), comparison, found))
    return tuned(comparison, found)


def search_rows(
    comparison: Comparison, trials: int | None, jobs: int | None
) -> tuple[Found, list[Path]]:
    """Search every row, print and write the trials; return the trials and the written files."""
    from fedlt.comparing.display import make_runs_progress
    from fedlt.comparing.sweep import make_searches, run_search, sweep_csv, sweep_markdown

    progress = make_runs_progress(screen().progress())
    found = run_search(comparison, make_searches(comparison, trials), jobs=jobs, progress=progress)
    text, folder = sweep_markdown(found), comparison.folder() / "sweep"
    screen().tell(text)
    return found, write({folder / "sweep.md": text, folder / "sweep.csv": sweep_csv(found)})


def seeds_override(given: str | None, overrides: Sequence[str]) -> list[str]:
    """Return ``--seeds`` as an override.

    Raises:
        FedltError: If ``--seeds`` holds no seed, or the overrides name other seeds.
    """
    from fedlt.errors import FedltError

    if given is None:
        return []
    for override in overrides:
        key, _, value = override.replace(" ", "").partition("=")
        if key in ("seed", "seeds") and value.strip("[]") != given.replace(" ", ""):
            raise FedltError(f"override {override!r}: --seeds {given} says another; give one")
    return [f"seeds=[{', '.join(split(given, '--seeds'))}]"]


def _compare(
    comparison: Comparison,
    grid: Sequence[Setting],
    shown: Mapping[str, Any],
    *,
    jobs: int | None,
    report: bool,
) -> None:
    from fedlt.comparing.display import make_runs_progress
    from fedlt.comparing.grid_runs import planned_runs, raise_failed, run_grid
    from fedlt.comparing.rounds_to import with_rounds_to
    from fedlt.comparing.tuning import write_rates
    from fedlt.comparing.verdicts import pick_reference

    which, level = shown["which"], shown["rounds_to"]
    points = [row.label for row in comparison.rows if comparison.is_point(row)]
    labels = [row.label for row in comparison.rows]
    against = pick_reference(labels, shown["against"], points=points)
    runs = planned_runs(comparison, grid)
    _check_selected(which, runs[0].config.evaluate.selected_round)
    progress = make_runs_progress(screen().progress())
    tables, outcomes = run_grid(comparison, grid, runs, jobs=jobs, progress=progress)
    folder = comparison.folder()
    if tables:
        write_rates(comparison)
    if level is not None:
        tables = {name: with_rounds_to(table, level) for name, table in tables.items()}
    content = show(comparison.name, tables, which=which, against=against, folder=folder)
    if report:
        content["files"] += _write_reports(folder, grid, tables, against)
    failed = [{"run": str(o.planned), "reason": o.reason} for o in outcomes if o.result is None]
    screen().document({**content, "failed": failed})
    raise_failed(outcomes)


def _write_reports(
    folder: Path, grid: Sequence[Setting], tables: dict[str, Results], against: str
) -> list[Path]:
    """Write ``report.html`` about every setting's finished rows, with the command's verdicts."""
    from fedlt.comparing.verdicts import verdicts
    from fedlt.report.build import write_report
    from fedlt.report.finished import MOMENT

    found, written = verdicts(tables, MOMENT, against), []
    for setting in grid:
        results = tables.get(str(setting), {})
        runs = {label: [Path(run["path"]) for run in own] for label, own in results.items()}
        if runs:
            page = folder / setting.folder / "report.html"
            own = [one for one in found if one.setting == str(setting)]
            written += write_report(runs, page, found=own)
    screen().tell(*written)
    return written


def show(
    name: str, tables: dict[str, Results], *, which: str, against: str, folder: Path | None
) -> dict[str, Any]:
    """Print tables, footnotes and verdicts, and write them to a folder.

    Args:
        name: The name of the comparison.
        tables: Setting -> its finished rows; "" without a grid.
        which: A moment, or ``all``.
        against: The reference row.
        folder: Gets ``<which>.md``, ``.tex`` and ``.csv``, and ``<which>_streams.csv`` if models
            have streams; None writes no files.

    Returns:
        What was printed, for a JSON document; ``files`` are the written files.
    """
    from fedlt.comparing import exports
    from fedlt.comparing.table import terminal_tables
    from fedlt.comparing.tuning import lines_above

    content: dict[str, Any] = {"name": name, "which": which, "against": against, "files": []}
    if not tables:
        return content | {"tables": [], "verdicts": [], "notes": []}
    for setting, results in tables.items():
        title = exports.caption(name, which, results)
        screen().tell(f"\n{setting}" if setting else "", title, *lines_above(results))
        screen().show(terminal_tables(results, which))
    found, notes = exports.conclusions(tables, which, against)
    screen().tell("", *notes)
    if folder is not None:
        content["files"] = exports.write_tables(folder, name, which, tables, notes, found)
        screen().tell(*content["files"])
    content["tables"] = [
        {"setting": setting, "rows": _rows_of(results, which)}
        for setting, results in tables.items()
    ]
    above = dict.fromkeys(line for results in tables.values() for line in lines_above(results))
    notes = [*above, *notes]
    return content | {"verdicts": [asdict(one) for one in found], "notes": notes}


def _rows_of(results: Results, which: str) -> list[dict[str, Any]]:
    """Return the rows of a table for a JSON document: each run with its metrics, by moment."""
    from fedlt.comparing.cells import MOMENTS

    moments = MOMENTS if which == "all" else [which]
    return [
        {
            "method": label,
            "runs": [
                {"seed": run["seed"], "path": run["path"]}
                | {name: run.get(name) for name in moments}
                for run in runs
            ],
        }
        for label, runs in results.items()
    ]


def write(texts: Mapping[Path, str]) -> list[Path]:
    """Write files, print their paths, and return the paths.

    Raises:
        FedltError: If a file cannot be written.
    """
    from fedlt.errors import writing

    for path, text in texts.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        screen().tell(path)
    return list(texts)


def split(text: str | None, option: str) -> Sequence[str]:
    """Return the words of a list with commas; [] for an option that was not given.

    Raises:
        FedltError: If the list of ``option`` is empty.
    """
    from fedlt.errors import FedltError

    words = [part.strip() for part in (text or "").split(",") if part.strip()]
    if text is not None and not words:
        raise FedltError(f"{option}: {text!r} names nothing; expected a list such as a,b")
    return words


def check_moment(which: str) -> None:
    """Raise unless ``which`` is a moment, or ``all``."""
    from fedlt.comparing.cells import MOMENTS
    from fedlt.errors import FedltError, nearest

    if which not in (*MOMENTS, "all"):
        raise FedltError(f"--which: unknown {which!r}{nearest(which, (*MOMENTS, 'all'))}")


def _check_selected(which: str, selected: int | None) -> None:
    from fedlt.errors import FedltError

    if which == "selected" and selected is None:
        raise FedltError(
            "--which selected: no round is fixed; set evaluate.selected_round to one that was "
            "chosen on data.split: tune"
        )


@contextmanager
def resumable(verb: str, file: str) -> Iterator[None]:
    """Print after Ctrl-C or SIGTERM that the same command continues."""
    try:
        with stopped_by_terminate():
            yield
    except KeyboardInterrupt:
        command = shlex.join(["fedlt", verb, file])
        typer.echo(f"interrupted; the same command goes on: {command} ...", err=True)
        raise typer.Exit(130) from None
