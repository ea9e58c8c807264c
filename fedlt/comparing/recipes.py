"""Recipe: a comparison file with the figures of a paper or its logs, for ``fedlt reproduce``.

```yaml
compare: {rows: {...}}                         # as in every comparison file
reproduce:
  about: FedLoGe, ICLR 2024                    # one line
  settings: {a: {data.imbalance_factor: 50}}   # one table each; none: one table of the file
  scales:
    cpu: {purpose: ..., limits: ..., set: {rounds: 20}, rows: {FedLoGe: {local.lr: 1.5}}}
  quantity: {rounds_to: 0.97}                  # the level of figures with moment: rounds_to
  tolerances: why they are as wide as they are
  deviations: [what the setting could not take over]
  missing: what there are no figures for
  figures:
    - {row: FedLoGe, metric: generic/accuracy, moment: last_k, unit: percent, tolerance: 3.0,
       source: table 1, values: {a: 79.4}}     # differs: why it is another quantity, if it is
  curves:
    - {row: FedLoGe, metric: generic/accuracy, unit: percent, path: curves.csv, source: logs}
```

A scale is a cut-down version of the recipe: ``set`` of the scale overrides a setting's values, and
``rows`` of the scale overrides single rows. ``seeds`` of a scale is the number of seeds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from fedlt.comparing.cells import MOMENTS
from fedlt.comparing.comparison import Comparison, read_comparison
from fedlt.comparing.grid import Setting
from fedlt.comparing.published_curves import Curve, read_curves
from fedlt.config.explain import refusal
from fedlt.config.paths import absolute, with_paths
from fedlt.config.yaml12 import read_mapping
from fedlt.errors import FedltError, nearest

FULL = "full"
ROUNDS_TO = "rounds_to"  # moment of a figure: the rounds in which its metric reaches a level
UNITS = {"percent": 100.0, "number": 1.0}  # factor of a result's number
_OWN = ("name", "output", "seed", "seeds")  # keys that no setting or scale may change
_METRIC = re.compile(r"(generic|personal|train)(/[a-z0-9_]+)+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Figure:
    """Reference figure of a recipe."""

    setting: str  # "" where the recipe has no settings
    row: str
    metric: str  # as in result.json, with view and head
    moment: str  # final, last_k or best_on_test
    value: float  # in `unit`
    unit: str
    tolerance: float  # in `unit`
    source: str  # table number, or which log
    differs: str = ""  # why fedlt measures another quantity; "": the same quantity


@dataclass(frozen=True)
class Scale:
    """Scale of a recipe: the full recipe, or a cut-down version."""

    name: str
    purpose: str = ""
    limits: str = ""
    seeds: int | None = None  # number of seeds; None: the recipe's
    values: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value, in every row
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # and in one row
    level: float | None = None  # of the moment `rounds_to`; None: the recipe's

    @property
    def is_full(self) -> bool:
        """True if figures may be judged at this scale."""
        return self.name == FULL


@dataclass(frozen=True)
class RecipeSetting(Setting):
    """Setting of a recipe at a scale, with the overrides of the command line."""

    name: str = ""
    scale: Scale = Scale(FULL)
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name of the setting."""
        return self.name

    def overrides_of(self, row: str) -> list[str]:
        """Return the overrides of a row: setting, scale, row of the scale, command line."""
        parts = (self.values, self.scale.values, self.scale.rows.get(row, {}))
        words = [f"{key}={json.dumps(value)}" for part in parts for key, value in part.items()]
        return [*words, *self.given]

    @property
    def folder(self) -> str:
        """Folder of this setting: ``<scale>/<setting>``."""
        return f"{self.scale.name}/{self.name}".rstrip("/")


@dataclass(frozen=True)
class Recipe:
    """Recipe: a comparison with reference figures."""

    path: Path
    comparison: Comparison
    about: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Mapping[str, Any]]  # {"": {}} without settings
    scales: Mapping[str, Scale]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]  # tolerances, deviations, what is missing
    level: float | None = None  # of the moment `rounds_to`; None: no figure is of that moment
    curves: tuple[Curve, ...] = ()  # published curves, one for each setting, row and metric

    def grid(
        self, scale: str, only: Sequence[str] = (), given: Sequence[str] = ()
    ) -> list[RecipeSetting]:
        """Return the settings at a scale.

        Args:
            scale: A name of ``scales``.
            only: Settings to keep; none: all.
            given: Overrides of the command line.

        Raises:
            FedltError: If a scale or setting does not exist.
        """
        if scale not in self.scales:
            raise FedltError(f"--scale: {self.path} has no {scale!r}{nearest(scale, self.scales)}")
        for name in only:
            if name not in self.settings:
                choices = nearest(name, self.settings) if any(self.settings) else "; it has none"
                raise FedltError(f"--settings: {self.path} has no setting {name!r}{choices}")
        kept = {name: v for name, v in self.settings.items() if not only or name in only}
        chosen = self.scales[scale]
        return [RecipeSetting(v, name, chosen, tuple(given)) for name, v in kept.items()]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Scale(_Part):
    purpose: StrictStr
    limits: StrictStr
    set: dict[StrictStr, Any]
    seeds: int | None = Field(default=None, strict=True, ge=1)
    rows: dict[StrictStr, dict[StrictStr, Any]] = Field(default_factory=dict)
    rounds_to: float | None = Field(default=None, strict=True, gt=0, lt=1)


class _Figures(_Part):
    row: StrictStr
    metric: StrictStr
    moment: StrictStr
    unit: StrictStr
    tolerance: float = Field(ge=0)
    source: StrictStr = Field(min_length=1)
    differs: StrictStr = ""
    value: float | None = None
    values: dict[StrictStr, float] = Field(default_factory=dict)


class _Curve(_Part):
    row: StrictStr
    metric: StrictStr
    unit: StrictStr
    path: StrictStr = Field(min_length=1)  # relative to the recipe's folder
    source: StrictStr = Field(min_length=1)
    differs: StrictStr = ""


class _Quantity(_Part):
    rounds_to: float = Field(strict=True, gt=0, lt=1)


class _Section(_Part):
    about: StrictStr
    quantity: _Quantity | None = None
    settings: dict[StrictStr, dict[StrictStr, Any]] = Field(default_factory=dict)
    scales: dict[StrictStr, _Scale] = Field(default_factory=dict)
    tolerances: StrictStr = ""
    deviations: list[StrictStr] = Field(default_factory=list)
    missing: StrictStr = ""
    figures: list[_Figures] = Field(default_factory=list)
    curves: list[_Curve] = Field(default_factory=list)


_KEYS: dict[str, type[_Part]] = {"scales": _Scale, "figures": _Figures, "curves": _Curve}


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, only: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of a file.

    Args:
        path: The YAML file.
        overrides: ``key=value``, for every row.
        only: Labels of the rows to keep.

    Raises:
        FedltError: If the recipe is not valid; one line names the mistake.
    """
    path = Path(path)
    tree = read_mapping(path)
    if "reproduce" not in tree:
        raise FedltError(f"{path}: has no section 'reproduce'; it is for fedlt compare or run")
    section = _validated(path, _placed(tree.pop("reproduce"), path.absolute().parent))
    seeds = tree.get("seeds") or [tree.get("seed", 1)]
    every = {row.label for row in read_comparison(path, content=tree).rows}
    kept = read_comparison(path, overrides, only=only, content=tree)
    _check_names(path, section, every)
    figures = [
        one for number, given in enumerate(section.figures, start=1)
        for one in _figures(f"{path}: reproduce.figures[{number}]", given, section, every)
    ]  # fmt: skip
    curves = [
        one for number, given in enumerate(section.curves, start=1)
        for one in _curves(path, f"reproduce.curves[{number}]", given, section, every)
    ]  # fmt: skip
    scales = {
        name: Scale(name, one.purpose, one.limits, one.seeds, one.set, one.rows, one.rounds_to)
        for name, one in section.scales.items()
    }
    labels = {row.label for row in kept.rows}
    notes = [f"tolerances: {section.tolerances}"] * bool(section.tolerances)
    notes += [f"the setting deviates: {line}" for line in section.deviations]
    notes += [f"no figures: {section.missing}"] * bool(section.missing)
    return Recipe(
        path=path,
        comparison=kept,
        about=section.about,
        seeds=tuple(seeds),
        settings=section.settings or {"": {}},
        scales={FULL: Scale(FULL), **scales},
        figures=tuple(one for one in figures if one.row in labels),
        notes=tuple(notes),
        level=None if section.quantity is None else section.quantity.rounds_to,
        curves=tuple(one for one in curves if one.row in labels),
    )


def about_of(path: Path) -> str:
    """Return the ``about`` line of a recipe, or the error of a bad file; no code is executed."""
    try:
        section = read_mapping(path).get("reproduce")
    except FedltError as error:
        return str(error)
    if not isinstance(section, Mapping) or not isinstance(section.get("about"), str):
        return f"{path}: has no section 'reproduce' with a line 'about'"
    return str(section["about"])


def _placed(section: object, folder: Path) -> object:
    """Return a section with absolute paths in the values of settings and scales."""

    def placed(values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {key: with_paths(value, folder, str(key)) for key, value in values.items()}

    def placed_part(key: str, part: object) -> object:
        if key == "rows" and isinstance(part, Mapping):
            return {row: placed(values) for row, values in part.items()}
        return placed(part) if key == "set" else part

    if not isinstance(section, Mapping):
        return section
    found = dict(section)
    if isinstance(settings := section.get("settings"), Mapping):
        found["settings"] = {name: placed(values) for name, values in settings.items()}
    if isinstance(scales := section.get("scales"), Mapping):
        found["scales"] = {
            name: {key: placed_part(key, part) for key, part in scale.items()}
            if isinstance(scale, Mapping) else scale
            for name, scale in scales.items()
        }  # fmt: skip
    return found


def _validated(path: Path, given: object) -> _Section:
    try:
        return _Section.model_validate(given)
    except ValidationError as error:
        every = error.errors(include_url=False)
        first = min(every, key=lambda one: one["type"] != "extra_forbidden")  # a slip of the pen
        place = "reproduce"
        for part in first["loc"]:
            place += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
        if first["type"] == "extra_forbidden":
            known = _KEYS.get(str(first["loc"][0]) if first["loc"][1:] else "", _Section)
            choices = nearest(str(first["loc"][-1]), known.model_fields)
            raise FedltError(f"{path}: {place}: unknown key{choices}") from error
        if first["type"] == "missing":
            raise FedltError(f"{path}: {place} is missing") from error
        raise FedltError(f"{path}: {refusal(place, first['input'], [first])}") from error


def _check_names(path: Path, section: _Section, rows: set[str]) -> None:
    for kind, names in (("settings", section.settings), ("scales", section.scales)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise FedltError(f"{path}: reproduce.{kind}: {name!r} cannot name a folder")
    written = [(f"settings.{name}", values) for name, values in section.settings.items()]
    for name, scale in section.scales.items():
        written += [(f"scales.{name}.set", scale.set)]
        written += [(f"scales.{name}.rows.{row}", values) for row, values in scale.rows.items()]
    for place, values in written:
        for key in values:
            if key in _OWN:
                raise FedltError(f"{path}: reproduce.{place}: {key} cannot be set here")
    if FULL in section.scales:
        raise FedltError(f"{path}: reproduce.scales: {FULL!r} is the recipe as it is")
    for name, scale in section.scales.items():
        if scale.rounds_to is not None and section.quantity is None:
            raise FedltError(f"{path}: reproduce.scales.{name}.rounds_to: there is no quantity")
        for row in scale.rows:
            if row not in rows:
                where = f"{path}: reproduce.scales.{name}.rows"
                raise FedltError(f"{where}: no row {row!r}{nearest(row, sorted(rows))}")


def _figures(where: str, given: _Figures, section: _Section, rows: set[str]) -> list[Figure]:
    """Return the figures of an entry, one per setting."""
    moments = [name for name in MOMENTS if name != "selected"]
    if section.quantity is not None:
        moments = [ROUNDS_TO, *moments]
    _check_quantity(where, given, rows)
    if given.moment not in moments:
        hint = nearest(given.moment, moments)
        raise FedltError(f"{where}.moment: unknown {given.moment!r}{hint}")
    if given.moment == ROUNDS_TO and given.unit != "number":
        raise FedltError(f"{where}.unit: rounds are a number, not {given.unit}")
    if section.settings and (given.value is not None or not given.values):
        raise FedltError(f"{where}: expected values: {{setting: figure}}")
    if not section.settings and (given.value is None or given.values):
        raise FedltError(f"{where}: expected value: figure; the recipe has no settings")
    for name in given.values:
        if name not in section.settings:
            raise FedltError(
                f"{where}.values: no setting {name!r}{nearest(name, section.settings)}"
            )
    values = given.values or {"": given.value or 0.0}
    return [
        Figure(
            setting, given.row, given.metric, given.moment, value, given.unit, given.tolerance,
            given.source, given.differs,
        )
        for setting, value in values.items()
    ]  # fmt: skip


def _check_quantity(where: str, given: _Figures | _Curve, rows: set[str]) -> None:
    named = {"row": (given.row, sorted(rows)), "unit": (given.unit, list(UNITS))}
    for key, (value, known) in named.items():
        if value not in known:
            raise FedltError(f"{where}.{key}: unknown {value!r}{nearest(value, known)}")
    if not _METRIC.fullmatch(given.metric):
        raise FedltError(f"{where}.metric: {given.metric!r} is no name such as generic/accuracy")


def _curves(path: Path, key: str, given: _Curve, section: _Section, rows: set[str]) -> list[Curve]:
    """Return the curves of an entry: those of its row and metric in the entry's file."""
    where = f"{path}: {key}"
    _check_quantity(where, given, rows)
    file = Path(absolute(given.path, path.absolute().parent, f"{key}.path"))
    named = (given.row, given.metric)
    found = read_curves(file, section.settings or {"": {}}, f"{where}.path")
    own = [one for one in found if (one.row, one.metric) == named]
    if not own:
        raise FedltError(f"{where}: {file} has no line of {given.row}, {given.metric}")
    return [
        replace(one, unit=given.unit, source=given.source, differs=given.differs) for one in own
    ]


def with_seeds(recipe: Recipe, given: Sequence[str], wanted: int | None) -> Recipe:
    """Return a recipe whose comparison has overrides, and :func:`seeds_of` as its seeds."""
    overrides = (*given, f"seeds={seeds_of(recipe, wanted)}")
    return replace(recipe, comparison=replace(recipe.comparison, overrides=overrides))


def seeds_of(recipe: Recipe, wanted: int | None) -> list[int]:
    """Return the first ``wanted`` seeds, continued above the largest; None: the recipe's seeds."""
    own = list(recipe.seeds)
    if wanted is None:
        return own
    last = max(own)
    return [*own, *range(last + 1, last + 1 + wanted)][:wanted]
