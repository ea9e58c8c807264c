"""``fedlt leaderboard``: finished comparisons of several data sets in one table, and ranks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.completion import complete_run
from fedlt.cli.destinations import check_place
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.comparing.board_tables import Leaderboard

FIGURE = "ranks"  # file name of the figure, without its ending


def leaderboard(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...",
            help="Folders of comparisons, each as FOLDER or HEADING=FOLDER.",
            autocompletion=complete_run,
        ),
    ],
    which: Annotated[str, typer.Option(help="final, last_k or selected.")] = "last_k",
    against: Annotated[
        str, typer.Option(help="The row that the others are tested against; the first by default.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write Markdown, CSV and the figure into this folder.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Copy results and rounds of all runs below this folder, to publish."),
    ] = None,
) -> None:
    """Rank finished comparisons: a table over data sets, verdicts, and mean ranks.

    Folders with the same partitions are one data set, so that own rows stand beside published ones.
    """
    from fedlt.comparing.board_tables import (
        make_leaderboard,
        notes,
        results_rows,
        write_leaderboard,
    )
    from fedlt.comparing.leaderboard import keep_runs, pick_against, read_leaderboard
    from fedlt.errors import FedltError, nearest

    known = ("final", "last_k", "selected")
    if which not in known:
        raise FedltError(f"--which: unknown {which!r}{nearest(which, known)}")
    check_place(output, "--output", is_folder=True)
    check_place(keep, "--keep", is_folder=True)
    entries = read_leaderboard(folders)
    if which == "selected" and any(
        run["selected"] is None for e in entries for own in e.results.values() for run in own
    ):
        raise FedltError("--which selected: the runs have no evaluate.selected_round")
    board = make_leaderboard(entries, which, pick_against(entries, against))
    _show(board)
    files: list[Path] = []
    if output is not None:
        figure = f"{FIGURE}.svg" if board.rankings else ""
        files += [*write_leaderboard(board, output, figure), *_draw(board, output)]
    if keep is not None:
        files += [path for entry in entries for path in keep_runs(entry, keep)]
    screen().tell(*files)
    ranked = [asdict(one) for one in board.rankings]
    told = {"which": which, "against": board.against, "rows": results_rows(board)}
    screen().document({**told, "rankings": ranked, "notes": notes(board), "files": files})


def _show(board: Leaderboard) -> None:
    from fedlt.comparing.board_tables import chosen_sheet, notes, ranks_sheet, results_sheet
    from fedlt.comparing.sheet import to_terminal

    parts = [results_sheet(board, name) for name in board.tables]
    for sheet in (*parts, ranks_sheet(board) if board.rankings else None, chosen_sheet(board)):
        if sheet is not None:
            screen().show(to_terminal(sheet))
            screen().tell("")
    screen().tell(*notes(board))


def _draw(board: Leaderboard, folder: Path) -> list[Path]:
    from fedlt.report.rank_plot import rank_figure
    from fedlt.report.style import save, styled

    if not board.rankings:
        return []
    with styled():
        return list(save(rank_figure(board.rankings), folder, FIGURE, ["svg"]))
