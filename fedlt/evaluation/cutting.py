"""From counts to numbers: every metric of the table that an evaluation gives, by name."""

from __future__ import annotations

from dataclasses import replace

import numpy.typing as npt

from fedlt.data.shots import ShotGroups
from fedlt.evaluation import personal_metrics as personal
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.local_test import LocalTest
from fedlt.evaluation.metrics import expand
from fedlt.evaluation.scores import GenericScores, PersonalScores


def generic_metrics(scores: GenericScores, shots: ShotGroups) -> dict[str, Metric]:
    """Cut every ``generic/...`` number from the scores.

    The first head is the primary one and the only one that is ``generic/accuracy`` and so on; its
    streams, and any other head, have ``generic/<name>/accuracy``, ``/balanced`` and three groups,
    for information only. An absent group is None; without a head everything is.

    Args:
        scores: Scores of the whole test set.
        shots: The run's groups.

    Returns:
        Plain floats, ints and None by name.
    """
    groups = dict(shots.items())
    metrics: dict[str, Metric] = {
        name: one.value(scores, 0, groups.get(group)) if scores.heads else None
        for name, one, group in expand("generic", groups)
    }
    streams = replace(scores, confusion=scores.stream_confusion)
    beside = [(streams, place, name) for place, name in enumerate(scores.streams)]
    beside += [(scores, place, name) for place, name in enumerate(scores.heads) if place]
    for counted, place, head in beside:
        for name, one, group in expand("generic/<head>", groups):
            metrics[name.replace("<head>", head)] = one.value(counted, place, groups.get(group))
    return metrics


def personal_metrics(
    scores: PersonalScores,
    view: LocalTest,
    shots: ShotGroups,
    *,
    participated: npt.ArrayLike,
    steps: npt.ArrayLike | None = None,
    has_generic: bool = True,
) -> dict[str, Metric]:
    """Cut every ``personal/...`` number from the scores.

    A name that ends with ``_held`` restricts the predictions of both models to the classes with
    n_kc > 0. ``_test_held`` restricts them to the local test's classes; only ``reference`` has it.
    Heads beside the primary one have ``personal/<head>/accuracy`` and ``accuracy_held``, for
    information only.

    Args:
        scores: The evaluated clients' hits.
        view: The view they were counted on; another one than ``sampled`` may be swapped in.
        shots: The run's groups.
        participated: (K,) True for clients sampled at least once; it is only counted: the rows of
            the others are those of the model that they were scored with.
        steps: (K,) local steps that made the personal part since the last broadcast, if known.
        has_generic: False: what compares with a generic model is None.

    Returns:
        Plain floats, ints and None by name.

    Raises:
        FedltError: If the scores were counted on other images than the view's.
    """
    masked = personal.scored_clients(scores, view, shots, participated=participated, steps=steps)
    metrics: dict[str, Metric] = {}
    for name, one, group in expand("personal", masked[""].groups):
        clients = masked.get(_mask(name))
        if clients is None or (one.of is personal.steps and steps is None):
            continue
        is_known = has_generic or not one.uses_generic
        given = (clients, group) if group else (clients,)
        metrics[name] = one.value(*given) if is_known else None
    for place, head in enumerate(scores.heads[1:], start=1):
        for name, one, _ in expand("personal/<head>", ()):
            clients = replace(masked[_mask(name)], head=place)
            metrics[name.replace("<head>", head)] = one.value(clients)
    return metrics


def _mask(name: str) -> str:
    """Return the mask of predictions that a metric's name ends with; "" for none."""
    return next((mask for mask in ("_test_held", "_held") if name.endswith(mask)), "")
