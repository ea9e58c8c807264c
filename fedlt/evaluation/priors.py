"""Accuracy under shifted test priors, computed from a confusion matrix without new images.

The protocol is that of Zhang et al., "Self-Supervised Aggregation of Diverse Experts for
Test-Agnostic Long-Tailed Recognition" (SADE), NeurIPS 2022, arXiv:2107.09249: the test mix is
long-tailed in the training order (forward), uniform, or long-tailed in reverse (backward).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import FloatArray, IntArray
from fedlt.errors import FedltError, nearest
from fedlt.evaluation.generic import Metric, recalls

_FACTORS = (50.0, 25.0, 10.0, 5.0, 2.0)
TEST_PRIORS = (  # (name, direction, imbalance factor), from forward to backward
    *((f"forward_{factor:g}", "forward", factor) for factor in _FACTORS),
    ("uniform", "uniform", 1.0),
    *((f"backward_{factor:g}", "backward", factor) for factor in reversed(_FACTORS)),
)


def shifted_prior(
    class_counts: npt.ArrayLike, *, direction: str, imbalance_factor: float = 1.0
) -> FloatArray:
    """Return an exponential test prior: the class of rank r has IF^(-r/(C-1)), normalised.

    Args:
        class_counts: (C,) training counts; rank 0 is the largest class, ties by class id.
        direction: ``forward`` (as in training), ``uniform`` or ``backward`` (reversed).
        imbalance_factor: Largest over smallest prior, >= 1.

    Returns:
        (C,) float64 summing to 1, by class id.

    Raises:
        FedltError: For an unknown direction.
    """
    known = ("forward", "uniform", "backward")
    if direction not in known:
        raise FedltError(f"test prior: unknown direction {direction!r}{nearest(direction, known)}")
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    ranks = np.arange(len(order)) / max(len(order) - 1, 1)
    falling = imbalance_factor ** -(ranks if direction != "backward" else ranks[::-1])
    prior = np.empty(len(order))
    prior[order] = np.ones(len(order)) if direction == "uniform" else falling
    prior /= prior.sum()
    return prior


def prior_metrics(
    class_counts: npt.ArrayLike,
    *,
    confusion: IntArray | None,
    client_recalls: FloatArray | None,
    test_counts: npt.ArrayLike,
) -> dict[str, Metric]:
    """Return both views' accuracies under every test prior of :data:`TEST_PRIORS`.

    ``generic/under_<prior>`` is the accuracy of the global model. ``personal/under_<prior>`` is the
    mean over clients of sum over c of prior_c a_kc. Here the prior replaces the client's class mix,
    so this metric shows how well personal models know all classes.

    Args:
        class_counts: (C,) training counts.
        confusion: (C, C) of the global model; None if there is no global model.
        client_recalls: (E, C) of the personal models; None if they were not scored.
        test_counts: (C,) test images; a class without test images gives its prior to the others.
    """
    known = np.asarray(test_counts) > 0
    metrics: dict[str, Metric] = {}
    for name, direction, factor in TEST_PRIORS:
        prior = shifted_prior(class_counts, direction=direction, imbalance_factor=factor)
        prior = np.where(known, prior, 0.0) / prior[known].sum()
        own = None if confusion is None else accuracy_under(confusion, prior)
        metrics[f"generic/under_{name}"] = own
        if client_recalls is not None and len(client_recalls):
            metrics[f"personal/under_{name}"] = _mean_under(client_recalls, prior)
    return {n: None if v is None or np.isnan(v) else v for n, v in metrics.items()}


def accuracy_under(confusion: IntArray, prior: npt.ArrayLike) -> float:
    """Return sum over c of prior_c recall_c: the expected accuracy if classes came with ``prior``.

    Args:
        confusion: (C, C), rows are true classes, from any test set.
        prior: (C,) summing to 1; 0 for a class without a test image.
    """
    return _mean_under(recalls(confusion)[None], np.asarray(prior, dtype=np.float64))


def _mean_under(rows: FloatArray, prior: FloatArray) -> float:
    """Return the mean over rows (E, C) of the recalls' sum weighted by ``prior``.

    The mean is NaN if a class with a prior above 0 has no recall.
    """
    weighs = prior > 0
    return float((rows[:, weighs] @ prior[weighs]).mean())
