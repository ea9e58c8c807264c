"""``fedlt rescore``: recompute the metrics of finished runs, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlt.cli.compare import check_moment, show, write
from fedlt.cli.completion import complete_run
from fedlt.cli.destinations import check_place
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.comparing.conditions import Results
    from fedlt.runs.rescoring import Cut


def rescore(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directories, their folders, or a comparison's folder.",
            autocompletion=complete_run,
        ),
    ],
    shots: Annotated[
        str | None,
        typer.Option(
            help="auto, count, rank, cumulative, given, or many/medium/few as 0-2/3-6/7-9."
        ),
    ] = None,
    local_test: Annotated[
        str | None, typer.Option(help="exact, sampled, reference or own: each client's test view.")
    ] = None,
    mask: Annotated[
        str, typer.Option(help="none, held or test: classes that personal predictions may name.")
    ] = "none",
    which: Annotated[
        str, typer.Option(help="final, last_k, selected, best_on_test, or all side by side.")
    ] = "last_k",
    against: Annotated[
        str, typer.Option(help="The row that the others are tested against; the first by default.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write Markdown, LaTeX and CSV into this folder.")
    ] = None,
) -> None:
    """Recompute all metrics of finished runs from saved evaluations, without training.

    Also shows calibration per class group, and accuracies under long-tailed test priors.
    """
    from fedlt.comparing.conditions import check_comparable
    from fedlt.comparing.stored import collect
    from fedlt.comparing.verdicts import pick_reference
    from fedlt.errors import FedltError
    from fedlt.runs.rescoring import Cut

    check_moment(which)
    check_place(output, "--output", is_folder=True)
    cut = Cut(shots, local_test, mask)
    stored = collect(runs)
    if stored.unfinished:
        raise FedltError(f"{stored.unfinished[0]} is not finished; fedlt run ... --resume goes on")
    points = [label for label, own in stored.rows.items() if own[0].result().get("reference")]
    against = pick_reference(list(stored.rows), against, points=points)
    results = {label: [_read(one, cut) for one in own] for label, own in stored.rows.items()}
    check_comparable(results)
    if which == "selected" and any(
        one["selected"] is None for own in results.values() for one in own
    ):
        raise FedltError("--which selected: the runs have no evaluate.selected_round")
    named = {"shots": shots, "local_test": local_test, "mask": None if mask == "none" else mask}
    words = " ".join(f"{name}={value}" for name, value in named.items() if value is not None)
    name = f"rescored {words}" if words else "rescored"
    content = show(name, {"": results}, which=which, against=against, folder=output)
    content["files"] += _show_more(results, "last_k" if which == "all" else which, output)
    screen().document(content)


def _read(directory: Any, cut: Cut) -> dict[str, Any]:  # noqa: ANN401 (a RunDirectory)
    from fedlt.comparing.conditions import conditions
    from fedlt.runs.rescoring import rescore

    known = conditions(directory.config()) | {"mask": cut.mask}
    if cut.local_test is not None:
        known["evaluate.local_test"] = cut.local_test
    named = {"path": str(directory.path), "data": dict(directory.recorded().data)}
    return rescore(directory, cut) | named | {"conditions": known}


def _show_more(results: Results, which: str, output: Path | None) -> list[Path]:
    """Print and write calibration and test priors; write all metrics as CSV."""
    from fedlt.comparing.cells import SPREAD
    from fedlt.comparing.exports import metrics_csv
    from fedlt.comparing.sheet import to_markdown, to_terminal
    from fedlt.comparing.table import metric_sheet
    from fedlt.data.shots import GROUPS
    from fedlt.evaluation.metrics import by_heading
    from fedlt.evaluation.priors import TEST_PRIORS

    names = [name for name, _, _ in TEST_PRIORS]
    short = {name: _short(name) for name in names}
    parts: Sequence[tuple[str, str, Mapping[str, str]]] = (
        ("calibration", "generic model: expected calibration error in %",
         {"all": "generic/ece"} | by_heading(*(f"generic/{group}_ece" for group in GROUPS))),
        *(
            (f"{view}_priors", f"{view}: accuracy in % under test priors, forward to backward",
             {short[name]: f"{view}/under_{name}" for name in names})
            for view in ("generic", "personal")
        ),
    )  # fmt: skip
    written: list[Path] = []
    for file, title, columns in parts:
        screen().tell(f"\n{title}, {which}")
        shown = metric_sheet(results, which, columns, spread=len(columns) < len(names))
        screen().show(to_terminal(shown))
        if output is not None:
            table = to_markdown(metric_sheet(results, which, columns))
            text = f"{title}, {which}: {SPREAD}\n\n{table}"
            written += write({output / f"{which}_{file}.md": text})
    if output is not None:
        written += write({output / f"{which}_metrics.csv": metrics_csv(results, which)})
    return written


def _short(name: str) -> str:
    """Return ``F50`` for ``forward_50``, ``U`` for ``uniform``, ``B2`` for ``backward_2``."""
    direction, _, factor = name.partition("_")
    return direction[0].upper() + factor
