"""Accuracy under other test priors than the balanced one, cut from a confusion matrix.

The test-agnostic protocol of Zhang et al., "Self-Supervised Aggregation of Diverse Experts for
Test-Agnostic Long-Tailed Recognition" (SADE), NeurIPS 2022, arXiv:2107.09249: the test mix is
long-tailed in the training order (forward), uniform, or long-tailed in reverse (backward).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlt.errors import FedltError, nearest
from fedlt.evaluation.generic import recalls

__all__ = ["accuracy_under", "shifted_prior"]


def shifted_prior(
    class_counts: npt.ArrayLike, *, direction: str, imbalance_factor: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return an exponential test prior: p of the class of rank r is IF^(-r/(C-1)), normalised.

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


def accuracy_under(confusion: npt.NDArray[np.int64], prior: npt.ArrayLike) -> float:
    """Return sum over c of prior_c recall_c: the expected accuracy if classes came with ``prior``.

    Args:
        confusion: (C, C), rows are true classes, from any test set that has every class.
        prior: (C,) summing to 1.
    """
    return float((np.asarray(prior, dtype=np.float64) * recalls(confusion)).sum())
