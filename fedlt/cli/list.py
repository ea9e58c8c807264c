"""``fedlt list``: list the names that a file may use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table


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
    from fedlt.cli.screen import screen

    names = _names(what)
    kinds = _kinds() if what is Listing.CLIENTS else {}
    if what is Listing.EXPERIMENTS:
        screen().tell(*(f"{name}  {line}".rstrip() for name, line in names.items()))  # whole
    else:
        screen().show(_table(names, kinds))
    entries = [
        {"name": name, **({"kind": kinds[name]} if kinds else {}), "about": line}
        for name, line in names.items()
    ]
    screen().document({what.value: entries})


def _kinds() -> Mapping[str, str]:
    """Return the kind of each client plugin: data, loss or whole."""
    from fedlt.methods.lookup import client_kinds

    return client_kinds()


def _table(names: Mapping[str, str], kinds: Mapping[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, line in names.items():
        table.add_row(*map(Text, (name, *([kinds[name]] if kinds else []), line)))
    return table


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
