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
from fedlt.evaluation.scores import CONFIDENCE_UNIT, NLL_UNIT, GenericScores

Metric = float | int | None  # a metric's value; None where it is not defined


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def mean(values: Sequence[Metric]) -> float | None:
    """Return the mean; None where there is no value, or one of them is None."""
    present = [value for value in values if value is not None]
    is_whole = 0 < len(values) == len(present)
    return math.fsum(present) / len(values) if is_whole else None


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


def worst_class(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the lowest recall of those of ``classes`` (None: all) that have images."""
    seen = recalls(confusion)[slice(None) if classes is None else list(classes)]
    seen = seen[~np.isnan(seen)]
    return float(seen.min()) if seen.size else None


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


def nonfinite(scores: GenericScores, head: int, classes: Sequence[int] | None = None) -> int:
    """Return the images of ``classes`` whose -log p(true class) is not finite."""
    rows = slice(None) if classes is None else list(classes)
    return int(scores.nonfinite[head, rows].sum())
