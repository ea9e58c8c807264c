"""A comparison file: an experiment with a section ``compare`` that names rows of a table.

```yaml
name: digits            # every key of an experiment: the common part of all rows
seeds: [1, 2, 3]
compare:
  search: {local.lr: [0.05, 0.1]}   # values that fedlt sweep tries in every row; or log:0.01..1
  trial_rounds: 20                  # rounds of the runs of a search; as many as all runs by default
  rows:
    FedAvg: {}                                        # changes to the common part
    FedProx: {strategy: {name: fedprox, mu: 0.1}, search: {strategy.mu: [0.01, 0.1]}}
```

A row's ``strategy`` and ``client`` replace the common ones; other sections change key by key.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlt.comparing.grid import row_folder
from fedlt.comparing.search import Choices, Range, Space, check_key, parse_choices
from fedlt.config import Config, build_config, user_code
from fedlt.config.load import parse_options
from fedlt.config.loading import announce
from fedlt.config.paths import with_paths
from fedlt.config.yaml12 import read_mapping
from fedlt.engines import check_engine
from fedlt.errors import FedltError, nearest
from fedlt.methods.lookup import client_control, resolve_client, resolve_strategy

_WHOLE = ("strategy", "client")  # sections that a row replaces
_KEYS = ("rows", "search", "trial_rounds")
_COMMON = ("name", "output", "seed", "seeds")  # keys that no row may change
_TAKEN = ("sweep",)  # folder names that no row may have


@dataclass(frozen=True)
class Row:
    """Row of a comparison: one method."""

    label: str  # name in the table
    slug: str  # the folder of the row's runs
    tree: Mapping[str, Any]  # the common part with this row's changes
    search: Space  # dotted key -> values or range that a sweep tries
    is_control: bool = False  # a control run that its row's client plugin asks for
    chosen: tuple[str, ...] = ()  # values of a search, ``key=value``; stronger than other overrides
    own_rate: bool = False  # the row's changes have a `local.lr`


@dataclass(frozen=True)
class Comparison:
    """Comparison: rows and their common part."""

    path: Path
    name: str
    overrides: tuple[str, ...]
    rows: tuple[Row, ...]
    trial_rounds: int | None = None  # rounds of a trial of a search; None: of every other run

    def folder(self) -> Path:
        """Return the folder of all runs, ``output/<name>``."""
        return Path(self.configs(self.rows[0])[0].output)

    def configs(self, row: Row, *more: str, folder: str = "") -> list[Config]:
        """Return a row's configurations, one per seed, in ``output/<name>/<row>/<seed>``.

        Args:
            row: A row of ``rows``.
            more: Further overrides, ``key=value``.
            folder: Between the comparison's folder and the row's.

        Raises:
            FedltError: If a configuration is not valid, or its method cannot be resolved.
        """
        tree = copy.deepcopy(dict(row.tree))
        given = [*self.overrides, *row.chosen, *more]
        config = build_config(tree, self.path, given, what=f"row {row.label!r}")
        output = str(Path(config.output) / self.name / folder)
        config = config.model_copy(update={"output": output, "name": row.slug})
        for key, spec in user_code(config).items():  # also code that its processes execute
            announce(spec, key)
        check_engine(config.engine.name)
        resolve_strategy(config)
        resolve_client(config)
        return config.runs()

    def trial_config(self, row: Row, given: Sequence[str], folder: str) -> Config:
        """Return the configuration of a trial: first seed, validation images, ``trial_rounds``.

        Rounds of the command line are stronger than ``trial_rounds``.

        Args:
            row: A row of ``rows``.
            given: The tried values, ``key=value``.
            folder: Between the comparison's folder and the row's.

        Raises:
            FedltError: As of :meth:`configs`.
        """
        is_given = any(text.partition("=")[0].strip() == "rounds" for text in self.overrides)
        short = [] if self.trial_rounds is None or is_given else [f"rounds={self.trial_rounds}"]
        return self.configs(row, "data.split=tune", *short, *given, folder=folder)[0]

    def is_point(self, row: Row) -> bool:
        """Return True if a row is a reference point that is not federated."""
        config = self.configs(row)[0]
        return bool(resolve_strategy(config).traits.reference or resolve_client(config).reference)


def read_comparison(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    strategies: Sequence[str] = (),
    clients: Sequence[str] = (),
    only: Sequence[str] = (),
    search: Space | None = None,
    content: Mapping[str, Any] | None = None,
) -> Comparison:
    """Return the comparison of a comparison file, or of an experiment file with given rows.

    Args:
        path: The YAML file.
        overrides: ``key=value``, for every row.
        strategies: Rows are these strategies instead of the file's rows, ...
        clients: ... each with these plugins.
        only: Labels of the rows to keep.
        search: The search of a sweep in every row, in place of the file's search.
        content: The content of the file, if the caller has read the file and changed the content.

    Raises:
        FedltError: If the file is not valid; one line names the mistake.
    """
    path = Path(path)
    tree = dict(read_mapping(path) if content is None else content)
    if "reproduce" in tree:
        raise FedltError(f"{path}: has a section 'reproduce'; fedlt reproduce FILE runs it")
    section = tree.pop("compare", None)
    tree = with_paths(tree, path.absolute().parent)
    if strategies or clients:
        grid = _grid(strategies or [None], clients or [None])
        section = {**_mapping(section), "rows": grid}
    if section is None and search:
        section = {"rows": {_method(parse_options(overrides)) or _method(tree) or "fedavg": {}}}
    if section is None:
        raise FedltError(f"{path}: has no section 'compare'; give strategies")
    rows, common, trial_rounds = _read_section(path, section)
    chosen = [_row(path, tree, common, label, changes) for label, changes in rows.items()]
    chosen += _controls(chosen)
    if search:
        chosen = [replace(row, search=search) for row in chosen]
    _check_slugs(path, chosen)
    _check_own(overrides, section["rows"])
    for label in only:
        if label not in {row.label for row in chosen}:
            raise FedltError(f"{path}: no row {label!r}{nearest(label, [r.label for r in chosen])}")
    kept = [row for row in chosen if not only or row.label in only]
    kept += _controls(kept)
    name = parse_options(overrides).get("name", tree.get("name", path.stem))
    return Comparison(path, str(name), tuple(overrides), tuple(kept), trial_rounds)


def _method(tree: Mapping[str, Any]) -> str:
    """Return the method that the keys of ``tree`` name, as label of a single row; "" for none."""
    given = tree.get("strategy") or ""
    name = given.get("name", "") if isinstance(given, Mapping) else given
    return str(name).rpartition(":")[2]


def _grid(
    strategies: Sequence[str | None], clients: Sequence[str | None]
) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for option, names in (("--strategies", strategies), ("--clients", clients)):
        for number, name in enumerate(names):
            if name in names[:number]:
                raise FedltError(f"{option}: {name} is given twice")
    for strategy in strategies:
        for client in clients:
            named = {"strategy": strategy, "client": client}
            pair = {key: name for key, name in named.items() if name is not None}
            found = {key: {"name": with_paths(name, Path.cwd(), key)} for key, name in pair.items()}
            rows[" + ".join(pair.values())] = found
    return rows


def _mapping(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}


def _read_section(path: Path, section: object) -> tuple[Mapping[str, Any], Space, int | None]:
    """Return the rows, the common search, and the rounds of a trial."""
    if not isinstance(section, Mapping) or not isinstance(section.get("rows"), Mapping):
        raise FedltError(f"{path}: compare: expected a mapping with rows: {{label: changes}}")
    for key in section:
        if key not in _KEYS:
            raise FedltError(f"{path}: compare.{key}: unknown key{nearest(str(key), _KEYS)}")
    if not section["rows"]:
        raise FedltError(f"{path}: compare.rows: no row")
    rounds = section.get("trial_rounds")
    if rounds is not None and (type(rounds) is not int or rounds < 1):
        words = f"expected a whole number from 1, got {rounds!r}"
        raise FedltError(f"{path}: compare.trial_rounds: {words}")
    return section["rows"], _searched(path, "compare.search", section.get("search", {})), rounds


def _searched(path: Path, where: str, given: object) -> Space:
    """Return a section ``search`` with parsed ranges."""
    found: dict[str, Choices] = {}
    for key, value in _mapping(given).items():
        try:
            check_key(str(key))
            choices = value if isinstance(value, Range) else parse_choices(value)
        except FedltError as error:
            raise FedltError(f"{path}: {where}: {error}") from error
        if choices is None:
            break
        if not isinstance(choices, Range):
            choices = [with_paths(one, path.absolute().parent, str(key)) for one in choices]
        found[str(key)] = choices
    if not isinstance(given, Mapping) or len(found) < len(given):
        raise FedltError(f"{path}: {where}: expected key: [values] or a range, got {given!r}")
    return found


def _row(
    path: Path,
    tree: Mapping[str, Any],
    search: Space,
    label: object,
    changes: object,
) -> Row:
    where = f"compare.rows.{label}"
    if changes is None:
        changes = {}
    if not isinstance(changes, Mapping):
        raise FedltError(f"{path}: {where}: expected a mapping of changes, got {changes!r}")
    for key in _COMMON:
        if key in changes:
            raise FedltError(f"{path}: {where}.{key}: all rows have the same; give it above")
    given = dict(changes)
    own = _searched(path, f"{where}.search", given.pop("search", dict(search)))
    changed = with_paths(given, path.absolute().parent)
    local = given.get("local")
    has_rate = isinstance(local, Mapping) and "lr" in local
    merged = _merged(tree, changed)
    return Row(str(label), row_folder(str(label)), merged, own, own_rate=has_rate)


def _controls(rows: Sequence[Row]) -> list[Row]:
    """Return the control rows that the rows' client plugins ask for and that are missing."""
    found: list[Row] = []
    for row in rows:
        client = row.tree.get("client")
        options = {"name": client} if isinstance(client, str) else dict(client or {})
        control = client_control(options.get("name"))
        left = {key: value for key, value in (options | control).items() if value is not None}
        tree = {**row.tree, "client": left}
        if control and tree not in [other.tree for other in (*rows, *found)]:
            set_to = " ".join(str(value) for value in control.values() if value is not None)
            label = f"{row.label} (control: {set_to})"
            slug, rate = row_folder(label), row.own_rate
            found.append(Row(label, slug, tree, {}, is_control=True, own_rate=rate))
    return found


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        old = merged.get(key)
        if key == "model" and isinstance(old, str):
            old = {"name": old}
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and key not in _WHOLE
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _check_own(overrides: Sequence[str], rows: Mapping[str, Any]) -> None:
    """Raise if an override replaces a row's own method, so that the label would be wrong."""
    for override in overrides:
        section, dot, leaf = override.partition("=")[0].strip().partition(".")
        if section in _WHOLE and (not dot or leaf == "name"):
            for label, changes in rows.items():
                if section in (changes or {}):
                    words = f"row {str(label)!r} has its own {section}"
                    raise FedltError(f"override {override!r}: {words}; rows chooses rows")


def _check_slugs(path: Path, rows: Sequence[Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        if "," in row.label:
            raise FedltError(f"{path}: compare.rows: label {row.label!r} has a comma")
        why = ""
        if not row.slug:
            why = "its folder is named by letters a to z and digits, and it has none"
        elif row.slug in _TAKEN:
            why = f"the folder {row.slug!r} is that of fedlt sweep"
        elif row.slug in seen:
            why = f"{seen[row.slug]!r} has the same folder"
        if why:
            raise FedltError(f"{path}: compare.rows: label {row.label!r} cannot be used; {why}")
        seen[row.slug] = row.label
