"""Facts about an exported model: what its file and the JSON beside it say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.data.arrays import IntArray
from fedlt.evaluation.personal_metrics import client_accuracies
from fedlt.machine.installed import installed_version

if TYPE_CHECKING:
    from fedlt.export.finished_run import FinishedRun
    from fedlt.runs.evaluations import Evaluation


def describe(
    run: FinishedRun, heads: Sequence[str], *, head: str, client: int | None, is_own: bool
) -> dict[str, Any]:
    """Return the facts about a model of a run, as JSON values.

    Args:
        run: The finished run.
        heads: The names of the model's heads, the primary head first.
        head: Name of the head that is exported.
        client: The client, or None for the generic model.
        is_own: False if the client is scored with the generic model.
    """
    config, images, evaluation = run.config, run.result["images"], run.evaluation
    return {
        "fedlt": installed_version(),
        "run": run.directory.run,
        "name": config.name,
        "seed": config.seed,
        "rounds": config.rounds,
        "strategy": config.strategy.name,
        "plugin": config.client.label,
        "backbone": config.model.name,
        "client": client,  # null: the generic model
        "is_generic": not is_own,
        "head": head,
        "heads": list(heads),
        "class_names": run.result["class_names"],
        "input": {
            "shape": ["batch", *images["shape"]],
            "dtype": images["dtype"],
            "range": value_range(images["shape"], images["dtype"]),
        },
        "normalisation": {"mean": images["mean"], "std": images["std"]},
        "output": {"shape": ["batch", len(run.result["class_names"])], "dtype": "float32"},
        "score": _score(evaluation, config.data.split, head, client)
        | {"batch_size": config.evaluate.batch_size},
    }


def value_range(shape: Sequence[int], dtype: str) -> list[int] | None:
    """Return the least and the largest value of images; None for features, (d, 1, 1)."""
    if list(shape[1:]) == [1, 1]:
        return None
    return [0, 255] if dtype == "uint8" else [0, 1]


def _score(evaluation: Evaluation, split: str, head: str, client: int | None) -> dict[str, Any]:
    """Return the run's own score of a head: hits and images by class, and the accuracy.

    A client's accuracy is that of its view. All is None for a client that was not evaluated.
    """
    personal, generic = evaluation.personal, evaluation.generic
    hits: IntArray | None = None
    images: IntArray | None = None
    accuracy: float | None = None
    if client is None and not generic.heads:  # a deployment without a public test set
        pass
    elif client is None:
        hits = generic.confusion[generic.heads.index(head)].diagonal()
        images = evaluation.test_counts
        accuracy = float(hits.sum() / images.sum())
    elif personal is not None and client in personal.cids:
        view = evaluation.view()
        row, column = int(np.flatnonzero(personal.cids == client)[0]), personal.heads.index(head)
        hits, images = personal.hits[row, column], view.scored_images[client]
        found = float(client_accuracies(personal, view)[row, column])
        accuracy = None if math.isnan(found) else found  # an empty view
    return {
        "split": split,
        "view": "all test images" if client is None else evaluation.local_test,
        "accuracy": accuracy,
        "class_hits": None if hits is None else hits.tolist(),
        "class_images": None if images is None else images.tolist(),
    }
