"""``fedlt sweep``: search for hyperparameters on validation images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.arguments import FileArgument, JobsOption, Overrides, RowsOption
from fedlt.cli.compare import resumable, search_rows, split
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.comparing.comparison import Comparison
    from fedlt.comparing.search import Choices


def sweep(
    file: FileArgument,
    overrides: Overrides = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=CHOICES",
            help="Choices in place of the file's: A,B,C or a range as log:0.003..0.3; repeatable.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials a row, proposed by Optuna; ranges need it.")
    ] = None,
    rows: RowsOption = None,
    jobs: JobsOption = None,
) -> None:
    """Try the values that a comparison file lists under search, on data.split: tune.

    Finished trials are read, interrupted trials are resumed: repeat the command to continue.
    """
    from fedlt.comparing.comparison import read_comparison
    from fedlt.config.experiments import find_experiment

    _check_split(overrides or [])
    comparison = read_comparison(
        find_experiment(file),
        overrides or [],
        only=split(rows, "--rows"),
        search=_space(search or []),
    )
    with resumable("sweep", file):
        _sweep(comparison, trials, jobs)


def _sweep(comparison: Comparison, trials: int | None, jobs: int | None) -> None:
    found, files = search_rows(comparison, trials, jobs)
    rows = {
        label: [{"values": dict(trial.values), "score": score} for trial, score in trials_of_row]
        for label, trials_of_row in found.items()
    }
    screen().document({"name": comparison.name, "rows": rows, "files": files})


def _check_split(overrides: list[str]) -> None:
    """Raise if the overrides ask for another split."""
    from fedlt.errors import FedltError

    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() == "data.split" and value.strip() != "tune":
            raise FedltError(f"{override}: a sweep is scored on data.split: tune, never on final")


def _space(given: list[str]) -> dict[str, Choices]:
    """Return the choices of ``--search``: a list or a range per key."""
    from fedlt.comparing.grid import read_values
    from fedlt.comparing.search import check_key, parse_choices
    from fedlt.errors import FedltError

    found: dict[str, Choices] = {}
    for text in given:
        key, equals, choices = text.partition("=")
        known = parse_choices(choices) if equals else None
        if known is None:
            key, known = read_values(text, "--search")
        key = key.strip()
        check_key(key)
        if key in found:
            raise FedltError(f"--search: {key} is given twice")
        found[key] = known
    return found
