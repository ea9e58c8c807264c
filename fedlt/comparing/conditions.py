"""Conditions that the rows of one table must share, and the error if rows differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError
from fedlt.evaluation.headline import scored_set

if TYPE_CHECKING:
    from fedlt.config import Config

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # label -> results, one per seed

_DATA = ("dataset", "imbalance_factor", "profile", "class_order", "options")
_VIEW = ("local_test", "clients")  # which masks and which clients


def conditions(config: Config) -> dict[str, Any]:
    """Return the configured data and evaluation of a run, by dotted key."""
    data, evaluate, refresh = config.data, config.evaluate, config.personal.refresh
    found = {f"data.{name}": getattr(data, name) for name in _DATA}
    found |= {f"evaluate.{name}": getattr(evaluate, name) for name in _VIEW}
    return found | {"personal.refresh": refresh.model_dump() if refresh.epochs else None}


def _facts(run: Mapping[str, Any]) -> dict[tuple[str, int | None], Any]:
    """Return the facts that must be equal between runs, in the order of checking.

    Keys are pairs (words, seed): a fact must be equal in all runs of that seed; None: in all runs.
    """
    seed, shots = int(run["seed"]), run["shots"]
    scored_on = scored_set(run)
    lists = {name: classes for name, classes in shots.items() if name != "scheme"}
    return {
        ("data.split", None): run["split"],
        (f"the {scored_on.name} (images per class)", None): scored_on.counts,
        **{(key, None): value for key, value in run.get("conditions", {}).items()},
        ("shots (the class lists of many, medium and few)", seed): lists,
        **{(f"the {name}", seed): digest for name, digest in run.get("data", {}).items()},
    }


def check_alike(configs: Mapping[str, Config]) -> None:
    """Raise before any run starts if the rows' configurations differ in data or evaluation.

    Args:
        configs: A row's label -> one of its configurations.

    Raises:
        FedltError: If a row differs; the error names the first row and the difference.
    """
    first: tuple[str, dict[str, Any]] | None = None
    for label, config in configs.items():
        mine = {"data.split": config.data.split, **conditions(config)}
        first = first or (label, mine)
        for what, value in mine.items():
            if value != first[1][what]:
                raise FedltError(f"{label!r} and {first[0]!r} differ in {what}: not comparable")


def check_comparable(results: Results, *, paired: bool = True) -> None:
    """Raise unless all runs have the same data, split, test images, class lists and views.

    Args:
        results: The rows.
        paired: True if runs must also have the same seeds and, for a seed, the same partition.

    Raises:
        FedltError: If a row differs; the error names the first row and the difference.
    """
    first: dict[tuple[str, int | None], tuple[str, Any]] = {}
    for label, runs in results.items():
        seeds = [run["seed"] for run in runs]
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise FedltError(f"{label!r} has two runs with seed {seed}; name one of them")
        facts = [pair for run in runs for pair in _facts(run).items()]
        if paired:
            deal = "partition (another deal of images to clients)"
            facts.insert(0, (("seeds", None), seeds))
            facts += [((deal, int(run["seed"])), run["partition_hash"]) for run in runs]
        for what, value in facts:
            other, known = first.setdefault(what, (label, value))
            if value != known:
                raise FedltError(f"{label!r} and {other!r} differ in {what[0]}: not comparable")
