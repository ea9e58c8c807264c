"""``fedlt list``: list the names that a file may use."""

from __future__ import annotations

import functools
import inspect
from enum import StrEnum
from typing import Annotated

import typer


class Listing(StrEnum):
    """Kind of names to list."""

    STRATEGIES = "strategies"
    CLIENTS = "clients"
    MODELS = "models"
    DATASETS = "datasets"
    ENGINES = "engines"
    EXPERIMENTS = "experiments"
    RECIPES = "recipes"


def list_names(
    what: Annotated[
        Listing,
        typer.Argument(
            metavar="WHAT",
            help="strategies, clients, models, datasets, engines, experiments or recipes.",
        ),
    ],
) -> None:
    """List the names that a file may use, each with one line."""
    from rich.console import Console
    from rich.table import Table

    from fedlt.methods.lookup import client_kinds

    table = Table.grid(padding=(0, 2))
    kinds = client_kinds() if what is Listing.CLIENTS else {}  # data, loss or whole
    for name, line in _names(what).items():
        table.add_row(name, *([kinds[name]] if kinds else []), line)
    console = Console(markup=False, highlight=False)
    if table.row_count and what is Listing.EXPERIMENTS:
        for name, line in _names(what).items():  # whole, on a line
            console.print(f"{name}  {line}".rstrip(), soft_wrap=True)
    elif table.row_count:
        console.print(table)
    else:
        console.print(f"no {what} here")


def _names(what: Listing) -> dict[str, str]:
    match what:
        case Listing.STRATEGIES | Listing.CLIENTS:
            from fedlt.methods.lookup import known_plugins

            return known_plugins("strategy" if what is Listing.STRATEGIES else "client")
        case Listing.MODELS:
            from fedlt.models import BACKBONES

            return {name: spec.summary for name, spec in BACKBONES.items()}
        case Listing.DATASETS:
            from fedlt.data import DATASETS

            return {name: _first_line(loader) for name, loader in DATASETS.items()}
        case Listing.ENGINES:
            from fedlt.engines import ENGINES, engine_class

            lines = {name: _first_line(engine_class(name)) for name in ENGINES}
            picks = "Measures a few steps of the real task and picks the engine that ends first."
            return lines | {"auto": picks}
        case Listing.EXPERIMENTS:
            return _experiments()
        case Listing.RECIPES:
            from fedlt.comparing.recipes import about_of
            from fedlt.config.experiments import recipes

            return {name: about_of(path) for name, path in recipes().items()}


def _first_line(of: object) -> str:
    if isinstance(of, functools.partial):
        return "Read from data.root; downloaded if missing."
    return (inspect.getdoc(of) or "").partition("\n")[0]


def _experiments() -> dict[str, str]:
    """Return the first lines of the experiments that come with fedlt, by name."""
    from fedlt.config.experiments import experiments

    found = {}
    for name, path in experiments().items():
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(500).rstrip("\n")
        found[name] = first.lstrip("# ") if first.startswith("#") else ""
    return found
