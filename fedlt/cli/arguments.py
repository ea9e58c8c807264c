"""Arguments and options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

from fedlt.cli.completion import (
    complete_clients,
    complete_file,
    complete_override,
    complete_strategies,
)

FileArgument = Annotated[
    str,
    typer.Argument(
        help="An experiment of 'fedlt list experiments', or a file (YAML).",
        autocompletion=complete_file,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Values to use instead, as local.lr=0.1 or seed=2.",
        autocompletion=complete_override,
    ),
]
StrategiesOption = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        help="Compare these strategies instead, such as fedavg,ditto.",
        autocompletion=complete_strategies,
    ),
]
ClientsOption = Annotated[
    str | None,
    typer.Option(
        "--clients",
        help="Compare these client plugins with each of the strategies.",
        autocompletion=complete_clients,
    ),
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", help="Seeds to use instead, as 1,2,3.")]
RowsOption = Annotated[
    str | None, typer.Option("--rows", help="Labels of the rows to run, separated by commas.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=A,B,...", help="A table for every value; repeatable."),
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Runs at once; one a core by default.")
]
