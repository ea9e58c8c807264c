"""Shell completion of names and folders: reads names only, and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

_KEYS = {  # key of an override -> what its value names
    "strategy": "strategies",
    "strategy.name": "strategies",
    "client": "clients",
    "client.name": "clients",
}


def complete_file(incomplete: str) -> list[str]:
    """Return experiments and YAML files that begin with ``incomplete``, and folders on the way."""
    return [*complete_experiment(incomplete), *_below(incomplete, _is_yaml)]


def complete_experiment(incomplete: str) -> list[str]:
    """Return experiments of fedlt, and recipes by their short names."""
    from fedlt.config.experiments import experiments, recipes

    return _beginning((*experiments(), *recipes()), incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Return recipes of fedlt, YAML files, and folders on the way."""
    from fedlt.config.experiments import recipes

    return [*_beginning(recipes(), incomplete), *_below(incomplete, _is_yaml)]


def complete_run(incomplete: str) -> list[str]:
    """Return run directories, and folders on the way."""
    return [*_below(incomplete, lambda path: (path / "config.yaml").is_file())]


def complete_strategies(incomplete: str) -> list[str]:
    """Return a list with commas, its last name completed to a strategy."""
    return _in_list("strategies", incomplete)


def complete_clients(incomplete: str) -> list[str]:
    """Return a list with commas, its last name completed to a client plugin."""
    return _in_list("clients", incomplete)


def complete_override(ctx: click.Context, incomplete: str) -> list[str]:
    """Return overrides ``strategy=NAME`` and ``client=NAME``, or the names alone.

    Bash breaks a word at ``=``: then the key, and the sign if a part of the value follows, are
    words before ``incomplete``.
    """
    given: list[str] = list(ctx.params.get("overrides") or [])
    before, last = ["", "", *given][-2:]
    if last in _KEYS or (last == "=" and before in _KEYS):
        return _names(_KEYS[before if last == "=" else last], incomplete)
    key, equals, value = incomplete.partition("=")
    if not equals:
        return _beginning((f"{one}=" for one in _KEYS), incomplete)
    return [f"{key}={name}" for name in _names(_KEYS[key], value)] if key in _KEYS else []


def _names(package: str, incomplete: str) -> list[str]:
    """Return the names of ``strategies`` or ``clients``; none of them is imported."""
    import importlib

    from fedlt.config.loading import check_packages, installed_points

    check_packages()  # else a folder of that name in the working directory would be executed
    table = vars(importlib.import_module(package))
    known = [*table[package.upper()], *table.get("FLOWER", {})]
    points = [point.name for point in installed_points(f"fedlt.{package}")]
    return _beginning(dict.fromkeys([*known, *points]), incomplete)


def _in_list(package: str, incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in _names(package, last) if name not in given]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and path.is_file()


def _below(incomplete: str, is_wanted: Callable[[Path], bool]) -> Iterator[str]:
    """Yield wanted paths that begin with ``incomplete``, and other folders with a slash."""
    head, slash, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(f"{head}{slash}" or ".").expanduser().iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            text = f"{head}{slash}{path.name}"
            if is_wanted(path):
                yield text
            elif path.is_dir():
                yield f"{text}/"
