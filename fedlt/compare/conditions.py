"""What rows of one table must have in common, and the error where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.config import Config

__all__ = ["Results", "check_alike", "check_comparable", "conditions"]

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # label -> results, one a seed

_DATA = ("dataset", "imbalance_factor", "profile", "class_order", "options")
_VIEW = ("local_test", "clients")  # which masks and which clients


def conditions(config: Config) -> dict[str, Any]:
    """Return what a run is measured on and how, beside what its result says; by dotted key."""
    data, evaluate = config.data, config.evaluate
    found = {f"data.{name}": getattr(data, name) for name in _DATA}
    return found | {f"evaluate.{name}": getattr(evaluate, name) for name in _VIEW}


def _facts(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return what must be equal, in the order in which it is looked at; a value a seed."""
    keys = [key for run in runs for key in run.get("conditions", {})]
    named = {key: [run.get("conditions", {}).get(key) for run in runs] for key in keys}
    return {
        "seeds": [run["seed"] for run in runs],
        "data.split": [run["split"] for run in runs],
        **named,
        "shots (the class lists of many, medium and few)": [run["shots"] for run in runs],
        "partition (another deal of images to clients)": [run["partition_hash"] for run in runs],
    }


def check_alike(configs: Mapping[str, Config]) -> None:
    """Raise, before anything runs, where rows say that they are measured otherwise.

    Args:
        configs: A row's label -> one of its configurations.

    Raises:
        FedltError: It names the first row that differs, and in what.
    """
    first: tuple[str, dict[str, Any]] | None = None
    for label, config in configs.items():
        mine = {"data.split": config.data.split, **conditions(config)}
        first = first or (label, mine)
        for what, value in mine.items():
            if value != first[1][what]:
                raise FedltError(f"{label!r} and {first[0]!r} differ in {what}: not comparable")


def check_comparable(results: Results) -> None:
    """Raise unless all runs have the same data, split, class lists, masks, seeds and partitions.

    Raises:
        FedltError: It names the first row that differs, and in what.
    """
    first: tuple[str, dict[str, list[Any]]] | None = None
    for label, runs in results.items():
        mine = _facts(runs)
        for seed in mine["seeds"]:
            if mine["seeds"].count(seed) > 1:
                raise FedltError(f"{label!r} has two runs with seed {seed}; name one of them")
        first = first or (label, mine)
        for what, value in mine.items():
            if value != first[1].get(what):
                raise FedltError(f"{label!r} and {first[0]!r} differ in {what}: not comparable")
