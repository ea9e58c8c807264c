"""``fedlt status``: the state of every run in a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.completion import complete_run
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from rich.table import Table

    from fedlt.runs.overview import RunStatus

_COLOURS = {"finished": "green", "kept": "green", "running": "cyan", "unfinished": "yellow"}


def status(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder with runs at any depth.", autocompletion=complete_run),
    ] = Path("runs"),
) -> None:
    """Show which runs in a folder are finished, running, unfinished or damaged.

    An unfinished run has the command that goes on with it. Nothing is written.
    """
    from fedlt.runs.overview import overview

    found = list(overview(folder))
    if found:
        screen().show(_table(found))
    commands = [one.command for one in found if one.command]
    reasons = [one.reason for one in found if one.reason]
    screen().tell(*(f"to go on: {command}" for command in commands), *reasons)
    screen().tell(_summary(folder, found))
    screen().document({"folder": folder, "runs": [asdict(one) for one in found]})


def _table(found: list[RunStatus]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fedlt.progress import round_time

    table = Table("run", "state", "round", "time", box=box.SIMPLE_HEAD)
    for one in found:
        state = Text(one.state, style=_COLOURS.get(one.state, "bold red"))
        saved = "?" if one.round is None else str(one.round)
        rounds = "?" if one.rounds is None else str(one.rounds)
        time = "" if one.seconds is None else round_time(one.seconds)
        table.add_row(Text(str(one.path), overflow="fold"), state, f"{saved} of {rounds}", time)
    return table


def _summary(folder: Path, found: list[RunStatus]) -> str:
    if not found:
        return f"no run below {folder}"
    states = [one.state for one in found]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
