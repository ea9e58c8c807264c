"""Finished runs, read for a report: nothing is trained, and no data set is needed.

paths -> stored runs -> RunRecord (one seed) -> Method (its seeds) -> figures, facts, page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedlt.comparing.cells import is_average, mark, values
from fedlt.comparing.conditions import check_comparable
from fedlt.comparing.sheet import Cell, spread
from fedlt.comparing.stored import collect, read_finished
from fedlt.config.identity import flatten
from fedlt.config.yaml12 import read_mapping
from fedlt.data.arrays import BoolArray, FloatArray, IntArray
from fedlt.data.shots import ShotGroups
from fedlt.evaluation.generic import recalls
from fedlt.evaluation.headline import ScoredSet, scored_set
from fedlt.evaluation.metrics import spec_of
from fedlt.evaluation.personal_metrics import client_accuracies, client_recalls
from fedlt.runs.directory import RunDirectory
from fedlt.runs.evaluations import Evaluation

MOMENT = "last_k"  # moment of pages and pictures, unless they name another


@dataclass(frozen=True)
class ClientFigures:
    """Figures of the E scored clients in a run's last round."""

    cids: IntArray  # (E,)
    sizes: IntArray  # (E,) training images
    accuracy: FloatArray  # (E,) of the client's own model on its own class mix
    generic: FloatArray | None  # (E,) of the generic model on the same; None: no generic model
    gain: FloatArray | None  # (E,) the difference
    owns_few: BoolArray | None  # (E,) holds an image of a few-class; None: no groups


@dataclass(frozen=True)
class RunRecord:
    """Content of a run directory."""

    path: Path
    result: Mapping[str, Any]  # with path and conditions
    rounds: Sequence[Mapping[str, Any]]  # rows of rounds.jsonl
    config: Mapping[str, Any]  # dotted key -> value
    environment: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.result["seed"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """Counts of the last evaluation, without logits, which take too much memory."""
        found = RunDirectory(self.path).evaluation(int(self.result["rounds"]))
        return replace(found, generic=replace(found.generic, logits=None), labels=None)

    @cached_property
    def client_names(self) -> tuple[str, ...]:
        """Names of the clients (K,); () unless the run's configuration lets a report show them."""
        return RunDirectory(self.path).client_names()

    @property
    def class_names(self) -> list[str]:
        """Names (C,) of the classes; their numbers in a result without names."""
        numbers = range(len(self.evaluation.test_counts))
        return list(map(str, self.result.get("class_names") or numbers))

    @cached_property
    def shots(self) -> ShotGroups:
        """Class groups of the run."""
        return ShotGroups.from_json(self.result["shots"])

    @property
    def class_counts(self) -> IntArray:
        """Training images per class (C,), over all clients."""
        counts: IntArray = self.evaluation.client_counts.sum(axis=0)
        return counts

    @cached_property
    def generic_recalls(self) -> FloatArray | None:
        """Recalls (C,) of the primary generic head by class; None: no generic model."""
        confusion = self.evaluation.generic.confusion
        return recalls(confusion[0]) if len(confusion) else None

    @cached_property
    def personal_recalls(self) -> FloatArray | None:
        """Recalls (C,) of personal models by class, averaged over the clients holding the class."""
        evaluation = self.evaluation
        if evaluation.personal is None:
            return None
        cids = evaluation.personal.cids
        own = client_recalls(evaluation.personal, evaluation.view())  # (E, C)
        held = (evaluation.client_counts[cids] > 0) & ~np.isnan(own)
        owners = held.sum(axis=0)
        sums = np.where(held, own, 0).sum(axis=0)
        return np.where(owners > 0, sums / np.maximum(owners, 1), np.nan)

    @cached_property
    def majority_guesses(self) -> FloatArray:
        """Accuracies (K,) of always guessing a client's largest class; NaN for an empty view."""
        view = self.evaluation.view()
        tested = np.where(view.tested, view.client_counts, 0)  # (K, C)
        weights = view.weights
        guesses = np.take_along_axis(weights, tested.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(weights.sum(axis=1) > 0, guesses, np.nan)

    @cached_property
    def clients(self) -> ClientFigures | None:
        """Figures per client; None if the last round has no personal view."""
        scores = self.evaluation.personal
        if scores is None:
            return None
        counts, view = self.evaluation.client_counts, self.evaluation.view()
        own = client_accuracies(scores, view)[:, 0]
        keep = ~np.isnan(own)
        cids = scores.cids[keep]
        generic = gain = None
        if self.result.get("generic_model") != "none":
            base = scores.generic_hits[:, None]
            alone = replace(scores, heads=("generic",), hits=base)
            generic = client_accuracies(alone, view)[keep, 0]
            hits, nothing = scores.hits - base, np.zeros_like(scores.generic_hits)
            difference = replace(scores, hits=hits, generic_hits=nothing)
            gain = client_accuracies(difference, view)[keep, 0]
        few = list(self.shots.few)
        owns = counts[cids][:, few].sum(axis=1) > 0 if few else None
        return ClientFigures(cids, counts[cids].sum(axis=1), own[keep], generic, gain, owns)


@dataclass(frozen=True)
class Method:
    """Method of a report: its runs, one per seed."""

    label: str
    runs: tuple[RunRecord, ...]  # by seed, at least one
    is_baseline: bool = False  # True: the other methods of the report are tested against it

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Results of the runs."""
        return [run.result for run in self.runs]

    @property
    def reference(self) -> str:
        """What a reference point is that is not federated, such as "pooled data"; else ""."""
        return str(next((one["reference"] for one in self.results if one.get("reference")), ""))

    @property
    def is_average(self) -> bool:
        """Whether the generic model is averaged from personal parts; the method has none."""
        return is_average(self.results)

    @property
    def scored_on(self) -> ScoredSet:
        """Test images, which are the same in all runs of a report."""
        return scored_set(self.runs[0].result)

    def values(self, metric: str, which: str) -> list[float]:
        """Return a metric over the seeds; [] if a run lacks the metric."""
        return values(self.results, which, metric)

    def cell(self, metric: str) -> Cell:
        """Return the cell of a metric's mean and interval over the seeds, with the usual mark."""
        own, is_signed = self.values(metric, MOMENT), spec_of(metric).signed
        return spread(own, signed=is_signed, mark=mark(self.results, metric))

    def known(self, metric: str, which: str) -> list[float]:
        """Return a metric over the seeds that have the metric."""
        return [value for one in self.results for value in values([one], which, metric)]

    def numbers(self, key: str) -> list[float]:
        """Return a number at the top level of ``result.json``, over the seeds."""
        return [float(one[key]) for one in self.results if one.get(key) is not None]


@dataclass(frozen=True)
class Reading:
    """Runs of a report, by method."""

    methods: tuple[Method, ...]
    unfinished: tuple[str, ...]  # folders that were left out

    @property
    def runs(self) -> list[RunRecord]:
        """All runs of all methods."""
        return [run for method in self.methods for run in method.runs]


def read_runs(paths: Sequence[Path] | Mapping[str, Sequence[Path]]) -> Reading:
    """Return the runs of run directories, methods (folders of seeds) and comparisons.

    Args:
        paths: Folders of any of these kinds; or finished run directories by method label.

    Raises:
        FedltError: If a path holds no finished run, a run cannot be read, or runs cannot stand
            side by side: other data, another split or view, other class groups for a seed.
    """
    rows: Mapping[str, Sequence[RunDirectory]]
    unfinished: tuple[Path, ...] = ()
    if isinstance(paths, Mapping):
        rows = {label: [RunDirectory(run) for run in runs] for label, runs in paths.items()}
    else:
        stored = collect(paths)
        rows, unfinished = stored.rows, stored.unfinished
    methods = tuple(
        Method(label, tuple(sorted(map(read_record, runs), key=lambda run: run.seed)))
        for label, runs in rows.items()
    )
    check_comparable({method.label: method.results for method in methods}, paired=False)
    return Reading(methods, tuple(map(str, unfinished)))


def read_record(directory: RunDirectory) -> RunRecord:
    """Return the content of a finished run's directory.

    Raises:
        FedltError: If the run is not finished or not whole, or a file was changed.
    """
    folder = directory.path
    result, rounds = read_finished(directory), directory.rounds()
    config = flatten(read_mapping(folder / "config.yaml"))
    return RunRecord(folder, result, rounds, config, directory.environment())
