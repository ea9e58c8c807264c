"""Arguments that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

FileArgument = Annotated[
    str,
    typer.Argument(help="An experiment of 'fedlt list experiments', or a file (YAML)."),
]
