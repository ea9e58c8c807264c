"""The generic view: one model, the whole test set (``docs/metrics.md``, part "Generic view").

Recalls of classes weigh alike, images weigh alike in accuracy, likelihood and calibration; on a
balanced test set the two are the same. A class without test images weighs nothing anywhere.

Calibration error after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
arXiv:1706.04599, with 15 equal-width bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedlt.data.arrays import FloatArray, IntArray
from fedlt.data.shots import ShotGroups
from fedlt.evaluation.scores import CONFIDENCE_UNIT, NLL_UNIT, GenericScores

Metric = float | int | None  # a metric's value; None where it is not defined


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def recalls(confusion: IntArray) -> FloatArray:
    """Return the (C,) recalls of a (C, C) confusion; NaN for a class without images."""
    total = confusion.sum(axis=1)
    values = np.diagonal(confusion) / np.maximum(total, 1)
    return np.where(total > 0, values, np.nan)


def accuracy(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the share of correctly predicted images of ``classes`` (None: all).

    Args:
        confusion: (C, C), rows are true classes.
        classes: True classes whose images count; predictions may name any class.

    Returns:
        The share, or None without an image.
    """
    rows = slice(None) if classes is None else list(classes)
    correct = np.diagonal(confusion)[rows]
    return _ratio(int(correct.sum()), int(confusion[rows].sum()))


def mean_recall(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the mean recall over those of ``classes`` (None: all) that have images.

    Recalls are added over a common denominator, in whole numbers: where the classes have equally
    many images the mean is :func:`accuracy`, to the last bit.

    Args:
        confusion: (C, C), rows are true classes.
        classes: True classes; predictions may name any class.

    Returns:
        The mean, or None without an image.
    """
    rows = slice(None) if classes is None else list(classes)
    hits, images = np.diagonal(confusion)[rows].tolist(), confusion.sum(axis=1)[rows].tolist()
    known = [(hit, total) for hit, total in zip(hits, images, strict=True) if total]
    common = math.lcm(*(total for _, total in known))
    return _ratio(sum(hit * (common // total) for hit, total in known), common * len(known))


def mean_nll(
    scores: GenericScores, head: int, classes: Sequence[int] | None = None
) -> float | None:
    """Return the mean of -log p(true class) in nats over the images of ``classes``.

    None without an image, or where one of them is not finite (a diverged model).
    """
    rows = slice(None) if classes is None else list(classes)
    if scores.nonfinite[head, rows].any():
        return None
    images = int(scores.confusion[head, rows].sum())
    return int(scores.nll[head, rows].sum()) * NLL_UNIT / images if images else None


def expected_calibration_error(
    scores: GenericScores, head: int, classes: Sequence[int] | None = None
) -> float | None:
    """Return ECE = sum over bins b of (n_b / n) |accuracy_b - confidence_b|.

    Bins are (i/15, (i+1)/15] of the predicted class's probability; n_b / n cancels against the
    means, so the sum runs over ``|correct_b - sum of confidences_b| / n``.

    Args:
        scores: The scores.
        head: Index of the head.
        classes: True classes whose images count; None: all.

    Returns:
        A number in [0, 1], or None without an image.
    """
    rows = slice(None) if classes is None else list(classes)
    images = int(scores.bin_counts[head, rows].sum())
    if images == 0:
        return None
    confidence = scores.bin_confidence[head, rows].sum(axis=0) * CONFIDENCE_UNIT  # (bins,)
    correct = scores.bin_correct[head, rows].sum(axis=0)
    return float(np.abs(correct - confidence).sum()) / images


def _no_model(shots: ShotGroups) -> dict[str, Metric]:
    """Return the same names as for a model, each None."""
    groups = [f"{name}{kind}" for name, _ in shots.items() for kind in ("", "_nll", "_ece")]
    names = ("accuracy", "balanced", "worst_class", "nll", "ece", "nonfinite", *groups)
    return {f"generic/{name}": None for name in names}


def _primary(scores: GenericScores, shots: ShotGroups) -> dict[str, Metric]:
    if not scores.heads:
        return _no_model(shots)
    confusion = scores.confusion[0]
    seen = recalls(confusion)
    seen = seen[~np.isnan(seen)]
    metrics: dict[str, Metric] = {
        "generic/accuracy": accuracy(confusion),
        "generic/balanced": mean_recall(confusion),
        "generic/worst_class": float(seen.min()) if seen.size else None,
        "generic/nll": mean_nll(scores, 0),
        "generic/ece": expected_calibration_error(scores, 0),
        "generic/nonfinite": int(scores.nonfinite[0].sum()),
    }
    for name, classes in shots.items():
        metrics[f"generic/{name}"] = mean_recall(confusion, classes)
        metrics[f"generic/{name}_nll"] = mean_nll(scores, 0, classes)
        metrics[f"generic/{name}_ece"] = expected_calibration_error(scores, 0, classes)
    return metrics


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
    metrics = _primary(scores, shots)
    beside = [
        *zip(scores.streams, scores.stream_confusion, strict=True),
        *zip(scores.heads[1:], scores.confusion[1:], strict=True),
    ]
    for one, confusion in beside:
        metrics[f"generic/{one}/accuracy"] = accuracy(confusion)
        metrics[f"generic/{one}/balanced"] = mean_recall(confusion)
        for name, classes in shots.items():
            metrics[f"generic/{one}/{name}"] = mean_recall(confusion, classes)
    return metrics
