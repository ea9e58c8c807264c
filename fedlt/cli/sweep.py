"""``fedlt sweep``: a search for hyperparameters, on validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedlt.cli.compare import FileArgument, Jobs, Overrides, Rows, resumable, split, teller, write

if TYPE_CHECKING:
    from fedlt.compare.comparison import Comparison

__all__ = ["sweep"]


def sweep(
    file: FileArgument, overrides: Overrides = None, rows: Rows = "", jobs: Jobs = None
) -> None:
    """Try the values that a comparison file lists under search, on data.split: tune."""
    from fedlt.compare.comparison import read_comparison

    comparison = read_comparison(file, overrides or [], only=split(rows))
    with resumable("sweep", file):
        _sweep(comparison, jobs)


def _sweep(comparison: Comparison, jobs: int | None) -> None:
    from rich.console import Console

    from fedlt.compare.schedule import jobs_for
    from fedlt.compare.sweep import make_trials, run_trials, sweep_markdown

    console = Console()
    trials = make_trials(comparison)
    cells = [trial.cell for trial in trials]
    found = run_trials(trials, jobs=jobs_for(cells, jobs), tell=teller(console))
    text = sweep_markdown(found)
    teller(console)(text)
    write(Path(cells[0].config.output).parent / "sweep.md", text, console)
