"""The personal view: every client's model on its own class mix (``docs/metrics.md``, same part).

Notation of the docstrings: n_kc training images of class c at client k; w_kc the view's weights
(``exact``: n_kc / n_k); a_kc the recall of client k's model on test images of class c, g_kc that of
the primary generic model on the same images; A_k = sum over c of w_kc a_kc, G_k likewise. Means run
over the scored clients, those whose view is not empty; the others are ``personal/excluded``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import BoolArray, FloatArray, IntArray
from fedlt.data.shots import GROUPS, ShotGroups
from fedlt.errors import FedltError
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.local_test import LocalTest
from fedlt.evaluation.scores import PersonalScores

_COMPARES = re.compile(r"personal/(generic|gain|hurt)(_.*)?")
ROUNDING = 1e-12  # accuracies of a client closer than this are equal


def compares_with_generic(metric: str) -> bool:
    """Say whether a number of the personal view rests on the generic model, too."""
    return _COMPARES.fullmatch(metric) is not None


@dataclass(frozen=True)
class _Table:
    """The scored clients' rows: E of them, C classes."""

    weights: FloatArray  # (E, C) w_kc
    images: IntArray  # (E, C) denominators of the recalls
    counts: IntArray  # (E, C) n_kc
    tested: BoolArray  # (C,) classes that have test images
    groups: dict[str, BoolArray]  # (E, C) membership, by group name

    def recalls(self, hits: IntArray) -> FloatArray:
        """(E, C) hits over images; 0 where there is no image (and no weight)."""
        return hits / np.maximum(self.images, 1)

    def accuracies(self, hits: IntArray) -> FloatArray:
        """(E,) A_k = sum over c of w_kc a_kc."""
        values: FloatArray = (self.weights * self.recalls(hits)).sum(axis=1)
        return values


def _membership(view: LocalTest, cids: IntArray, shots: ShotGroups) -> dict[str, BoolArray]:
    members = {
        name: np.zeros((len(cids), view.client_counts.shape[1]), dtype=bool) for name in GROUPS
    }
    for row, cid in enumerate(cids.tolist()):
        for name, classes in view.groups(cid, shots).items():
            members[name][row, list(classes)] = True
    return members


def _check(scores: PersonalScores, view: LocalTest) -> None:
    if scores.sampled != (view.scheme == "sampled"):
        counted = "drawn images" if scores.sampled else "all test images"
        raise FedltError(
            f"evaluate.local_test: {view.scheme} needs other scores; on {counted} here"
        )


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size else None


def _spread(values: FloatArray) -> dict[str, Metric]:
    """Distribution of A_k over clients; the standard deviation is the population's."""
    if values.size == 0:
        return dict.fromkeys(("personal/p10", "personal/worst10", "personal/worst", "personal/std"))
    lowest = np.sort(values)[: math.ceil(values.size / 10)]
    return {
        "personal/p10": float(np.percentile(values, 10)),
        "personal/worst10": float(lowest.mean()),
        "personal/worst": float(lowest[0]),
        "personal/std": float(values.std()),
    }


def _group_metrics(table: _Table, hits: IntArray, suffix: str = "") -> dict[str, Metric]:
    """Mean over clients with mass in the group of sum of w_kc a_kc / sum of w_kc; their number."""
    metrics: dict[str, Metric] = {}
    recalls = table.recalls(hits)
    for name, members in table.groups.items():
        inside = table.weights * members
        mass = inside.sum(axis=1)
        owners = mass > 0
        values = (inside * recalls).sum(axis=1)[owners] / mass[owners]
        metrics[f"personal/{name}{suffix}"] = _mean(values)
        if not suffix:
            metrics[f"personal/{name}_clients"] = int(owners.sum())
    return metrics


def _balanced(table: _Table, hits: IntArray) -> float | None:
    """Mean over clients of the mean recall over the classes that the client holds."""
    held = (table.counts > 0) & (table.images > 0)
    sums = (table.recalls(hits) * held).sum(axis=1)
    return _mean(sums / np.maximum(held.sum(axis=1), 1))


def _majority(table: _Table) -> float | None:
    """Mean accuracy of always guessing the client's largest class: w_kc at argmax_c n_kc.

    The largest of those that have test images: the view's mix, like w_kc, knows no others.
    """
    if len(table.counts) == 0:
        return None
    largest = np.where(table.tested, table.counts, 0).argmax(axis=1)
    return _mean(np.take_along_axis(table.weights, largest[:, None], axis=1)[:, 0])


def _mass_lost(table: _Table) -> float | None:
    """Mean over clients of the share of n_k in classes without test images."""
    lost = table.counts[:, ~table.tested].sum(axis=1)
    return _mean(lost / table.counts.sum(axis=1))


def _gain_metrics(
    table: _Table, hits: IntArray, generic_hits: IntArray, few: tuple[int, ...]
) -> dict[str, Metric]:
    """Gain_k = A_k - G_k, summed from differences of recalls so that equal hits give exactly 0."""
    gain = table.accuracies(hits - generic_hits)
    owns = table.counts[:, list(few)].sum(axis=1) > 0 if few else None
    return {
        "personal/generic": _mean(table.accuracies(generic_hits)),
        "personal/gain": _mean(gain),
        "personal/hurt": _mean((gain < -ROUNDING).astype(np.float64)),
        "personal/gain_few_owners": None if owns is None else _mean(gain[owns]),
        "personal/gain_others": None if owns is None else _mean(gain[~owns]),
        "personal/few_owners": None if owns is None else int(owns.sum()),
    }


def _primary_metrics(
    table: _Table, hits: IntArray, generic_hits: IntArray, shots: ShotGroups
) -> dict[str, Metric]:
    """Everything that is cut from the primary head without a mask."""
    accuracies = table.accuracies(hits)
    return {
        "personal/accuracy": _mean(accuracies),
        **_spread(accuracies),
        "personal/balanced": _balanced(table, hits),
        **_group_metrics(table, hits),
        "personal/majority_guess": _majority(table),
        **_gain_metrics(table, hits, generic_hits, shots.few),
    }


def _masked_metrics(
    table: _Table, hits: IntArray, generic_hits: IntArray, suffix: str
) -> dict[str, Metric]:
    """Accuracy, reference and gain where both models' predictions are masked alike."""
    return {
        f"personal/accuracy_{suffix}": _mean(table.accuracies(hits)),
        f"personal/generic_{suffix}": _mean(table.accuracies(generic_hits)),
        f"personal/gain_{suffix}": _mean(table.accuracies(hits - generic_hits)),
    }


def _reference_metrics(table: _Table, scores: PersonalScores, keep: BoolArray) -> dict[str, Metric]:
    """``reference`` only: the accuracies under the mask of the local test's classes."""
    if scores.hits_test is None or scores.generic_hits_test is None:
        return {}
    base = scores.generic_hits_test[keep]
    hits = scores.hits_test[keep][:, 0]
    masked = _masked_metrics(table, hits, base, "test_held")
    return masked | _group_metrics(table, hits, "_test_held")


def client_accuracies(scores: PersonalScores, view: LocalTest) -> FloatArray:
    """Return (E, H) A_k per evaluated client and head, without a mask; NaN for an empty view.

    Args:
        scores: The evaluated clients' hits.
        view: The view they were counted on.
    """
    _check(scores, view)
    weights, images = view.weights_of(scores.cids), view.scored_images[scores.cids]
    values = (weights[:, None] * (scores.hits / np.maximum(images, 1)[:, None])).sum(axis=2)
    return np.where(weights.sum(axis=1)[:, None] > 0, values, np.nan)


def client_recalls(scores: PersonalScores, view: LocalTest) -> FloatArray:
    """Return (E, C) a_kc of the primary head, without a mask; NaN for a class without images.

    Args:
        scores: The evaluated clients' hits.
        view: The view they were counted on.
    """
    _check(scores, view)
    images = view.scored_images[scores.cids]
    return np.where(images > 0, scores.hits[:, 0] / np.maximum(images, 1), np.nan)


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

    ``accuracy`` = mean of A_k (no mask) and ``accuracy_held`` (predictions restricted to classes
    with n_kc > 0); ``mass_lost``, the share of n_k in classes without test images, whose weight the
    client's other classes take; ``p10`` (linear interpolation), ``worst10`` (mean of the ceil(E/10)
    lowest), ``worst``, ``std``; ``balanced``; the groups with their number of clients;
    ``majority_guess``;
    ``generic``, ``gain``, ``hurt`` and the gain of owners of few-classes and of others;
    ``generic_held`` and ``gain_held`` mask both models. Under ``reference`` also
    ``accuracy_test_held`` and the like, masked by the test's classes. Other heads:
    ``personal/<head>/accuracy`` and ``personal/<head>/accuracy_held``, for information only.

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
    _check(scores, view)
    everyone = np.asarray(participated, dtype=bool)
    keep = view.local_counts[scores.cids].sum(axis=1) > 0
    cids = scores.cids[keep]
    table = _Table(
        weights=view.weights_of(cids),
        images=view.scored_images[cids],
        counts=view.client_counts[cids],
        tested=view.test_counts > 0,
        groups=_membership(view, cids, shots),
    )
    base, base_held = scores.generic_hits[keep], scores.generic_hits_held[keep]
    hits, held = scores.hits[keep], scores.hits_held[keep]
    metrics: dict[str, Metric] = {
        **_primary_metrics(table, hits[:, 0], base, shots),
        **_masked_metrics(table, held[:, 0], base_held, "held"),
        **_reference_metrics(table, scores, keep),
        "personal/clients": len(cids),
        "personal/excluded": int((~keep).sum()),
        "personal/mass_lost": _mass_lost(table),
        "personal/participated": int(everyone.sum()),
        "personal/never": int((~everyone).sum()),
    }
    if steps is not None:
        metrics["personal/steps"] = _mean(np.asarray(steps, dtype=np.float64)[cids])
    for index, head in enumerate(scores.heads[1:], start=1):
        metrics[f"personal/{head}/accuracy"] = _mean(table.accuracies(hits[:, index]))
        metrics[f"personal/{head}/accuracy_held"] = _mean(table.accuracies(held[:, index]))
    if has_generic:
        return metrics
    return {n: None if compares_with_generic(n) else value for n, value in metrics.items()}


def coverage_metrics(
    participated: npt.ArrayLike, client_counts: npt.ArrayLike, shots: ShotGroups
) -> dict[str, Metric]:
    """Return what training has seen so far.

    ``train/coverage`` = share of clients sampled at least once; ``train/coverage_few`` = share of
    the few-classes' training images that those clients hold (None without a few group).

    Args:
        participated: (K,) True for clients sampled at least once.
        client_counts: (K, C) training images n_kc.
        shots: The run's groups.
    """
    seen = np.asarray(participated, dtype=bool)
    few = np.asarray(client_counts, dtype=np.int64)[:, list(shots.few)].sum(axis=1)
    total = int(few.sum())
    return {
        "train/coverage": int(seen.sum()) / len(seen),
        "train/coverage_few": int(few[seen].sum()) / total if total else None,
    }
