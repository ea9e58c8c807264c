"""Metrics of both views, computed from counts for every line of the table of metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy.typing as npt

import fedlt.evaluation.personal_metrics as personal
from fedlt.data.shots import ShotGroups
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.local_test import LocalTest
from fedlt.evaluation.metrics import expand
from fedlt.evaluation.scores import GenericScores, PersonalScores


def generic_metrics(scores: GenericScores, shots: ShotGroups) -> dict[str, Metric]:
    """Return every ``generic/...`` metric of the global model, computed from its scores.

    The first head is the primary head, which gives ``generic/accuracy`` and so on. The primary
    head's streams, and all other heads, give ``generic/<name>/accuracy``, ``/balanced`` and the
    three groups, for information only. Metrics of an empty group are None, and all metrics are None
    without a head.

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
    """Return every ``personal/...`` metric of the personal models, computed from the scores.

    In metrics ending with ``_held``, both models may only predict classes that the client holds
    (n_kc > 0). In metrics ending with ``_test_held``, both may only predict classes of the local
    test; only the view ``reference`` has these. Heads other than the primary head give
    ``personal/<head>/accuracy`` and ``accuracy_held``, for information only.

    Args:
        scores: The evaluated clients' hits.
        view: The view on which hits were counted, or another view on the same images (``exact``
            and ``reference`` both use all test images).
        shots: The run's groups.
        participated: (K,) True for clients sampled at least once; only counted, no client is left
            out for it.
        steps: (K,) local steps that made the personal part since the last broadcast, if known.
        has_generic: False: metrics that compare with the global model are None.

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
    """Return the ending of a metric's name that says the mask of predictions; "" for no mask."""
    return next((mask for mask in ("_test_held", "_held") if name.endswith(mask)), "")
