"""Finished runs, read back for a report: nothing is trained, and no data set is needed.

paths -> find_runs -> RunRecord (one seed) -> Method (its seeds) -> figures, facts, page
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlt.compare.stored import check_unmixed
from fedlt.config.yaml12 import read_mapping
from fedlt.errors import FedltError
from fedlt.evaluation import Evaluation, ShotGroups, evaluation_path, load_evaluation, local_test
from fedlt.evaluation.personal import client_accuracies
from fedlt.runs import RunDirectory

__all__ = ["ClientFigures", "Method", "Reading", "RunRecord", "flatten", "read_runs"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_DEPTHS = ("", "*", "*/*")  # a run, a method's seeds, a comparison's methods


@dataclass(frozen=True)
class ClientFigures:
    """The scored clients of a run's last round: E of them."""

    cids: IntArray  # (E,)
    sizes: IntArray  # (E,) training images
    accuracy: FloatArray  # (E,) of the client's own model on its own class mix
    generic: FloatArray | None  # (E,) of the generic model on the same; None: there is none
    gain: FloatArray | None  # (E,) the difference
    owns_few: npt.NDArray[np.bool_] | None  # (E,) holds an image of a few-class; None: no groups


@dataclass(frozen=True)
class RunRecord:
    """What one run directory holds."""

    path: Path
    result: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]  # rows of rounds.jsonl
    config: Mapping[str, Any]  # dotted key -> value
    environment: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.result["seed"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """What the last round counted, without logits: those of many runs fill the memory."""
        found = load_evaluation(evaluation_path(self.path, int(self.result["rounds"])))
        return replace(found, generic=replace(found.generic, logits=None), labels=None)

    @cached_property
    def shots(self) -> ShotGroups:
        """The run's class groups."""
        return ShotGroups.from_json(self.result["shots"])

    @property
    def class_counts(self) -> IntArray:
        """(C,) training images per class, of all clients together."""
        counts: IntArray = self.evaluation.client_counts.sum(axis=0)
        return counts

    @cached_property
    def generic_recalls(self) -> FloatArray | None:
        """(C,) recall of the primary generic model by class; None: there is no such model."""
        confusion = self.evaluation.generic.confusion
        if not len(confusion):
            return None
        recalls: FloatArray = np.diag(confusion[0]) / np.maximum(confusion[0].sum(axis=1), 1)
        return recalls

    @cached_property
    def personal_recalls(self) -> FloatArray | None:
        """(C,) mean over the clients that hold a class of their own model's recall on it."""
        scores, counts = self.evaluation.personal, self.evaluation.client_counts
        if scores is None:
            return None
        view = self._view()
        seen = self.evaluation.participated[scores.cids]
        hits = np.where(seen[:, None], scores.hits[:, 0], scores.generic_hits)
        images = view.scored_images[scores.cids]
        held = (counts[scores.cids] > 0) & (images > 0)
        sums = (hits / np.maximum(images, 1) * held).sum(axis=0)
        owners = held.sum(axis=0)
        return np.where(owners > 0, sums / np.maximum(owners, 1), np.nan)

    @cached_property
    def clients(self) -> ClientFigures | None:
        """The clients' figures; None where the last round has no personal view."""
        scores = self.evaluation.personal
        if scores is None:
            return None
        seen, counts = self.evaluation.participated, self.evaluation.client_counts
        view = self._view()
        own = client_accuracies(scores, view, participated=seen)[:, 0]
        keep = ~np.isnan(own)
        cids = scores.cids[keep]
        generic = gain = None
        if self.result.get("generic_model") != "none":
            base = scores.generic_hits[:, None]
            alone = replace(scores, heads=("generic",), hits=base)
            generic = client_accuracies(alone, view, participated=seen)[keep, 0]
            hits, nothing = scores.hits - base, np.zeros_like(scores.generic_hits)
            difference = replace(scores, hits=hits, generic_hits=nothing)
            gain = client_accuracies(difference, view, participated=seen)[keep, 0]
        few = list(self.shots.few)
        owns = counts[cids][:, few].sum(axis=1) > 0 if few else None
        return ClientFigures(cids, counts[cids].sum(axis=1), own[keep], generic, gain, owns)

    def _view(self) -> Any:  # noqa: ANN401 (a LocalTest)
        evaluation = self.evaluation
        return local_test(
            evaluation.client_counts,
            evaluation.test_counts,
            scheme=evaluation.local_test,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Method:
    """One row of a comparison: its runs, a seed each."""

    label: str
    runs: tuple[RunRecord, ...]  # by seed, at least one

    def values(self, metric: str, which: str) -> list[float]:
        """Return a metric over the seeds; [] where a run does not have it."""
        known = self.known(metric, which)
        return known if len(known) == len(self.runs) else []

    def known(self, metric: str, which: str) -> list[float]:
        """Return a metric over the seeds that have it."""
        found = [(run.result.get(which) or {}).get(metric) for run in self.runs]
        return [float(value) for value in found if value is not None]

    def results(self, key: str) -> list[float]:
        """Return a number that stands in ``result.json`` itself, over the seeds."""
        return [float(run.result[key]) for run in self.runs if run.result.get(key) is not None]


@dataclass(frozen=True)
class Reading:
    """Everything that a report is made of."""

    methods: tuple[Method, ...]
    unfinished: tuple[str, ...]  # folders that were left out

    @property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [run for method in self.methods for run in method.runs]


def read_runs(paths: Sequence[Path] | Mapping[str, Sequence[Path]]) -> Reading:
    """Read runs, methods (folders of seeds) and comparisons (folders of methods).

    Args:
        paths: Folders of any of these; or each method's finished run directories by its label.

    Raises:
        FedltError: If a path holds no finished run, a run cannot be read, or runs cannot stand
            side by side: other class groups for a seed, another split or view.
    """
    if isinstance(paths, Mapping):
        methods = tuple(_method(label, map(_read, runs)) for label, runs in paths.items())
        _check_comparable(methods)
        return Reading(methods, ())
    folders: dict[Path, None] = {}
    unfinished: dict[Path, None] = {}
    for path in paths:
        found, rest = _find(path)
        folders |= dict.fromkeys(found)
        unfinished |= dict.fromkeys(rest)
    grouped: dict[Path, list[RunRecord]] = {}
    for folder in folders:
        grouped.setdefault(folder.resolve().parent, []).append(_read(folder))
    labels = _labels(list(grouped))
    methods = tuple(
        _method(label, runs) for label, runs in zip(labels, grouped.values(), strict=True)
    )
    _check_comparable(methods)
    return Reading(_ordered(methods, list(grouped)), tuple(map(str, unfinished)))


def _method(label: str, runs: Iterable[RunRecord]) -> Method:
    found = tuple(sorted(runs, key=lambda run: run.seed))
    for one, other in pairwise(found):
        if one.seed == other.seed:
            raise FedltError(f"{one.path} and {other.path} have the same seed; name one of them")
    return Method(label, found)


def _find(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the finished and the unfinished run directories that a path stands for."""
    if not path.is_dir():
        raise FedltError(f"{path} is not a folder; give a run directory or a comparison's folder")
    check_unmixed(path)
    for depth in _DEPTHS:
        folders = [path] if not depth else sorted(path.glob(depth), key=_by_number)
        runs = [one for one in folders if (one / "config.yaml").is_file()]
        done = [one for one in runs if (one / "result.json").is_file()]
        if done:
            return done, [one for one in runs if one not in done]
        if runs:
            raise FedltError(f"{path} holds no finished run; fedlt run ... --resume finishes one")
    raise FedltError(f"{path} holds no run: no config.yaml in it or two folders below")


def _by_number(path: Path) -> tuple[str, int, str]:
    number = int(path.name) if path.name.isdecimal() else -1
    return str(path.parent), number, path.name


def _read(folder: Path) -> RunRecord:
    run, config = RunDirectory(folder), read_mapping(folder / "config.yaml")
    return RunRecord(folder, run.result(), run.rounds(), flatten(config), _environment(folder))


def _environment(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FedltError(f"{path} cannot be read: it says which versions the run had") from error
    if not isinstance(found, dict):
        raise FedltError(f"{path} is damaged: it says which versions the run had")
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``tree`` with dotted keys; an empty section stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= (
            flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
        )
    return flat


def _labels(folders: Sequence[Path]) -> list[str]:
    """Name methods as their comparison's table does, else by their folder; each name once."""
    names = [_table_labels(folder.parent).get(folder.name, folder.name) for folder in folders]
    return [
        f"{name} ({folder.parent.name})" if names.count(name) > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _table_labels(comparison: Path) -> dict[str, str]:
    """Return folder -> label from the comparison's table, in its order; {} without one."""
    for path in sorted(comparison.glob("*.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [row.get("method") for row in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error):  # somebody's own file
            continue
        labels = [label for label in dict.fromkeys(rows) if label]
        if labels:
            return {re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-"): label for label in labels}
    return {}


def _ordered(methods: tuple[Method, ...], folders: Sequence[Path]) -> tuple[Method, ...]:
    """Return the methods in the order of their comparison's table, where there is one."""
    parents = {folder.parent for folder in folders}
    if len(parents) != 1:
        return methods
    order = list(_table_labels(parents.pop()).values())
    place = {label: n for n, label in enumerate(order)}
    return tuple(sorted(methods, key=lambda method: place.get(method.label, len(order))))


def _check_comparable(methods: Iterable[Method]) -> None:
    """Raise unless runs of the same seed have the same class groups, and all one split and view."""
    first: dict[object, tuple[str, object]] = {}
    for method in methods:
        for run in method.runs:
            groups = {name: run.result["shots"][name] for name in ("many", "medium", "few")}
            for what, scope, value in (
                ("class groups", run.seed, groups),
                ("data.split", None, run.result["split"]),
                ("evaluate.local_test", None, run.config.get("evaluate.local_test")),
            ):
                label, known = first.setdefault((what, scope), (method.label, value))
                if value != known:
                    raise FedltError(
                        f"{method.label!r} and {label!r} differ in {what}: not comparable"
                    )
