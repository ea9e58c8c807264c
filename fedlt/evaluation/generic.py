"""Metrics of the generic view: the global model on the whole test set (``docs/metrics.md``).

In mean recalls, all classes have the same weight. In accuracy, likelihood and calibration error,
all images have the same weight. On a balanced test set both weights are the same. A class without
test images is left out of every metric.

The calibration error is that of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
arXiv:1706.04599, with 15 equal-width bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedlt.data.arrays import FloatArray, IntArray
from fedlt.evaluation.scores import CONFIDENCE_UNIT, NLL_UNIT, GenericScores

Metric = float | int | None  # value of a metric; None: not defined


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def mean(values: Sequence[Metric]) -> float | None:
    """Return the mean of the values; None if there is no value, or if any value is None."""
    present = [value for value in values if value is not None]
    is_whole = 0 < len(values) == len(present)
    return math.fsum(present) / len(values) if is_whole else None


def recalls(confusion: IntArray) -> FloatArray:
    """Return the recalls (C,) in a confusion matrix (C, C); NaN for a class without images."""
    total = confusion.sum(axis=1)
    values = np.diagonal(confusion) / np.maximum(total, 1)
    return np.where(total > 0, values, np.nan)


def accuracy(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the share of correctly predicted images of ``classes`` (None: all).

    Args:
        confusion: (C, C), rows are true classes.
        classes: True classes whose images count; predictions may name any class.

    Returns:
        The share; None if there is no image.
    """
    rows = slice(None) if classes is None else list(classes)
    correct = np.diagonal(confusion)[rows]
    return _ratio(int(correct.sum()), int(confusion[rows].sum()))


def mean_recall(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the mean recall over the classes in ``classes`` (None: all) that have images.

    Recalls are added as integers over a common denominator. For classes with equally many images
    the mean therefore equals :func:`accuracy` to the last bit.

    Args:
        confusion: (C, C), rows are true classes.
        classes: True classes; predictions may name any class.

    Returns:
        The mean; None if there is no image.
    """
    rows = slice(None) if classes is None else list(classes)
    hits, images = np.diagonal(confusion)[rows].tolist(), confusion.sum(axis=1)[rows].tolist()
    known = [(hit, total) for hit, total in zip(hits, images, strict=True) if total]
    common = math.lcm(*(total for _, total in known))
    return _ratio(sum(hit * (common // total) for hit, total in known), common * len(known))


def worst_class(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the lowest recall of the classes in ``classes`` (None: all) that have images."""
    seen = recalls(confusion)[slice(None) if classes is None else list(classes)]
    seen = seen[~np.isnan(seen)]
    return float(seen.min()) if seen.size else None


def mean_nll(
    scores: GenericScores, head: int, classes: Sequence[int] | None = None
) -> float | None:
    """Return the mean of -log p(true class) in nats over the images of ``classes`` (None: all).

    The result is None if there is no image, or if any value is not finite (a diverged model).
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

    The bins are (i/15, (i+1)/15] of the predicted class's probability. The factor n_b cancels, so
    the sum is computed as ``|correct_b - sum of confidences in b| / n``.

    Args:
        scores: The scores.
        head: Index of the head.
        classes: True classes whose images count; None: all.

    Returns:
        A number in [0, 1]; None if there is no image.
    """
    rows = slice(None) if classes is None else list(classes)
    images = int(scores.bin_counts[head, rows].sum())
    if images == 0:
        return None
    confidence = scores.bin_confidence[head, rows].sum(axis=0) * CONFIDENCE_UNIT  # (bins,)
    correct = scores.bin_correct[head, rows].sum(axis=0)
    return float(np.abs(correct - confidence).sum()) / images


def nonfinite(scores: GenericScores, head: int, classes: Sequence[int] | None = None) -> int:
    """Return the number of images of ``classes`` (None: all) with -log p(true class) not finite."""
    rows = slice(None) if classes is None else list(classes)
    return int(scores.nonfinite[head, rows].sum())
