"""``fedlt report``: write one HTML page and figures about finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedlt.cli.completion import complete_run


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories, folders of seeds, or a comparison's folder.",
            autocompletion=complete_run,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Where to write the page.")
    ] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="FOLDER", help="Write every picture there, PNG and SVG."),
    ] = None,
    against: Annotated[
        str,
        typer.Option("--against", metavar="METHOD", help="What the others are compared with."),
    ] = "",
) -> None:
    """Write one HTML page about finished runs; trains nothing and needs no network."""
    from fedlt.cli.destinations import check_place
    from fedlt.cli.screen import screen
    from fedlt.report.build import write_report

    check_place(output, "--output")
    check_place(figures, "--figures", is_folder=True)
    paths = write_report(runs, output, figures=figures, against=against)
    screen().tell(*paths)
    screen().document({"files": paths})
