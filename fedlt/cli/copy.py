"""``fedlt copy``: copy an experiment that comes with fedlt, to change the copy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedlt.cli.completion import complete_experiment


def copy(
    name: Annotated[
        str,
        typer.Argument(
            help="A name of 'fedlt list experiments'.", autocompletion=complete_experiment
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(help="The folder to copy to; made if missing.")
    ] = Path(),
) -> None:
    """Copy an experiment that comes with fedlt, and the files that the experiment names.

    Nothing is overwritten.
    """
    from fedlt.cli.destinations import write_new
    from fedlt.cli.screen import screen
    from fedlt.config.experiments import named_experiment, needed_files
    from fedlt.config.yaml12 import read_mapping

    source = named_experiment(name)
    files = [Path(source.name), *needed_files(source)]
    paths = {folder / file: source.parent / file for file in files}
    write_new({path: original.read_bytes() for path, original in paths.items()})
    verb = _verb_of(read_mapping(source))
    following = shlex.join(["fedlt", verb, str(folder / source.name)])
    screen().tell(*paths, f"next: {following}")
    screen().document({"files": list(paths), "next": [following]})


def _verb_of(content: Mapping[str, Any]) -> str:
    """Return the verb that runs a file with this content."""
    if "reproduce" in content:
        return "reproduce"
    return "compare" if "compare" in content else "run"
