"""Metrics of the personal view: every client's model on its own class mix (``docs/metrics.md``).

Notation: n_kc are the training images of class c at client k, and w_kc the view's weights
(``exact``: n_kc / n_k). a_kc is the recall of client k's model on test images of class c, and g_kc
the recall of the global model on the same images. A_k = sum over c of w_kc a_kc is the personal
accuracy, G_k = sum over c of w_kc g_kc the global model's. Means run over the scored clients, whose
view is not empty; the number of the others is ``personal/excluded``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import BoolArray, FloatArray, IntArray
from fedlt.data.shots import GROUPS, ShotGroups
from fedlt.errors import FedltError
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.local_test import LocalTest
from fedlt.evaluation.scores import PersonalScores

ROUNDING = 1e-12  # two accuracies of a client that differ by less count as equal


@dataclass(frozen=True)
class ScoredClients:
    """Counts of E scored clients, under one mask of predictions; C classes."""

    weights: FloatArray  # (E, C) w_kc
    images: IntArray  # (E, C) denominators of the recalls
    counts: IntArray  # (E, C) n_kc
    tested: BoolArray  # (E, C) classes that have test images for the client
    groups: dict[str, BoolArray]  # (E, C) mask of classes in the group, by group name
    few: tuple[int, ...]  # class ids of the few classes
    head_hits: IntArray  # (E, P, C) hits of the P personal heads
    generic_hits: IntArray  # (E, C) hits of the global model's primary head
    excluded: int  # number of evaluated clients left out, since their view is empty
    participated: BoolArray  # (K,) clients of the population sampled at least once
    steps: FloatArray | None  # (E,) local steps that made the personal part; None: not known
    head: int = 0  # index of the personal head that :attr:`hits` reads

    @property
    def hits(self) -> IntArray:
        """Hits (E, C) of the chosen personal head."""
        return self.head_hits[:, self.head]

    def recalls(self, hits: IntArray) -> FloatArray:
        """Return hits / images (E, C); 0 for a class without images (its weight is 0 too)."""
        return hits / np.maximum(self.images, 1)

    def accuracies(self, hits: IntArray) -> FloatArray:
        """Return accuracies (E,) on the clients' class mixes: sum over c of w_kc * recall."""
        values: FloatArray = (self.weights * self.recalls(hits)).sum(axis=1)
        return values

    @cached_property
    def own(self) -> FloatArray:
        """Accuracies A_k (E,) of the personal models."""
        return self.accuracies(self.hits)

    @cached_property
    def gains(self) -> FloatArray:
        """Gains A_k - G_k (E,), from differences of hits, so that equal hits give exactly 0."""
        return self.accuracies(self.hits - self.generic_hits)

    @cached_property
    def owns_few(self) -> BoolArray | None:
        """Mask (E,) of clients that hold an image of a few class; None without few classes."""
        owns: BoolArray = self.counts[:, list(self.few)].sum(axis=1) > 0
        return owns if self.few else None


def _membership(view: LocalTest, cids: IntArray, shots: ShotGroups) -> dict[str, BoolArray]:
    members = {
        name: np.zeros((len(cids), view.client_counts.shape[1]), dtype=bool) for name in GROUPS
    }
    for row, cid in enumerate(cids.tolist()):
        for name, classes in view.groups(cid, shots).items():
            members[name][row, list(classes)] = True
    return members


def _check(scores: PersonalScores, view: LocalTest) -> None:
    if (scores.sampled, scores.own) != (view.scheme == "sampled", view.scheme == "own"):
        raise FedltError(
            f"evaluate.local_test: {view.scheme} needs other scores; on {scores.counted} here"
        )


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size else None


def accuracy(clients: ScoredClients) -> Metric:
    """Return the mean of A_k."""
    return _mean(clients.own)


def p10(clients: ScoredClients) -> Metric:
    """Return the 10th percentile of A_k, linearly interpolated."""
    return float(np.percentile(clients.own, 10)) if clients.own.size else None


def worst10(clients: ScoredClients) -> Metric:
    """Return the mean of the ceil(E / 10) lowest A_k."""
    return _mean(np.sort(clients.own)[: math.ceil(clients.own.size / 10)])


def worst(clients: ScoredClients) -> Metric:
    """Return the lowest A_k."""
    return float(clients.own.min()) if clients.own.size else None


def std(clients: ScoredClients) -> Metric:
    """Return the standard deviation of A_k over clients (population: divided by E)."""
    return float(clients.own.std()) if clients.own.size else None


def balanced(clients: ScoredClients) -> Metric:
    """Return the mean over clients of the mean recall over the classes that the client holds."""
    held = (clients.counts > 0) & (clients.images > 0)
    sums = (clients.recalls(clients.hits) * held).sum(axis=1)
    return _mean(sums / np.maximum(held.sum(axis=1), 1))


def group_accuracy(clients: ScoredClients, group: str) -> Metric:
    """Return the mean accuracy in a group: sum of w_kc a_kc / sum of w_kc over its classes c.

    The mean runs over clients with some weight w_kc in the group.
    """
    inside = clients.weights * clients.groups[group]
    mass = inside.sum(axis=1)
    owners = mass > 0
    return _mean((inside * clients.recalls(clients.hits)).sum(axis=1)[owners] / mass[owners])


def group_clients(clients: ScoredClients, group: str) -> Metric:
    """Return the number of clients with some weight w_kc in a group."""
    return int(((clients.weights * clients.groups[group]).sum(axis=1) > 0).sum())


def majority_guess(clients: ScoredClients) -> Metric:
    """Return the mean accuracy of always guessing the client's largest class: w_kc at argmax n_kc.

    Only classes with test images are considered, as for w_kc.
    """
    if len(clients.counts) == 0:
        return None
    largest = np.where(clients.tested, clients.counts, 0).argmax(axis=1)
    return _mean(np.take_along_axis(clients.weights, largest[:, None], axis=1)[:, 0])


def generic(clients: ScoredClients) -> Metric:
    """Return the mean of G_k."""
    return _mean(clients.accuracies(clients.generic_hits))


def gain(clients: ScoredClients) -> Metric:
    """Return the mean of gain_k = A_k - G_k."""
    return _mean(clients.gains)


def hurt(clients: ScoredClients) -> Metric:
    """Return the share of clients with gain_k < 0, beyond rounding."""
    return _mean((clients.gains < -ROUNDING).astype(np.float64))


def accuracy_few_owners(clients: ScoredClients) -> Metric:
    """Return the mean accuracy of the clients that hold an image of a few class."""
    owns = clients.owns_few
    return None if owns is None else _mean(clients.accuracies(clients.hits)[owns])


def accuracy_others(clients: ScoredClients) -> Metric:
    """Return the mean accuracy of the clients that hold no image of a few class."""
    owns = clients.owns_few
    return None if owns is None else _mean(clients.accuracies(clients.hits)[~owns])


def gain_few_owners(clients: ScoredClients) -> Metric:
    """Return the mean of gain_k over the clients that hold an image of a few class."""
    return None if clients.owns_few is None else _mean(clients.gains[clients.owns_few])


def gain_others(clients: ScoredClients) -> Metric:
    """Return the mean of gain_k over the clients that hold no image of a few class."""
    return None if clients.owns_few is None else _mean(clients.gains[~clients.owns_few])


def few_owners(clients: ScoredClients) -> Metric:
    """Return the number of clients that hold an image of a few class."""
    return None if clients.owns_few is None else int(clients.owns_few.sum())


def scored(clients: ScoredClients) -> Metric:
    """Return the number of scored clients."""
    return len(clients.counts)


def excluded(clients: ScoredClients) -> Metric:
    """Return the number of evaluated clients whose view is empty."""
    return clients.excluded


def mass_lost(clients: ScoredClients) -> Metric:
    """Return the mean over clients of the share of n_k in classes without test images."""
    lost = (clients.counts * ~clients.tested).sum(axis=1)
    return _mean(lost / clients.counts.sum(axis=1))


def participated(clients: ScoredClients) -> Metric:
    """Return the number of clients sampled at least once."""
    return int(clients.participated.sum())


def never(clients: ScoredClients) -> Metric:
    """Return the number of clients not sampled yet."""
    return int((~clients.participated).sum())


def steps(clients: ScoredClients) -> Metric:
    """Return the mean number of local steps since the last broadcast behind a personal part."""
    return None if clients.steps is None else _mean(clients.steps)


def client_accuracies(scores: PersonalScores, view: LocalTest) -> FloatArray:
    """Return A_k (E, H) by evaluated client and head, without a mask; NaN for an empty view.

    Args:
        scores: The evaluated clients' hits.
        view: The view on which the hits were counted.
    """
    _check(scores, view)
    weights, images = view.weights_of(scores.cids), view.scored_images[scores.cids]
    values = (weights[:, None] * (scores.hits / np.maximum(images, 1)[:, None])).sum(axis=2)
    return np.where(weights.sum(axis=1)[:, None] > 0, values, np.nan)


def client_recalls(scores: PersonalScores, view: LocalTest) -> FloatArray:
    """Return a_kc (E, C) of the primary head, without a mask; NaN for a class without images.

    Args:
        scores: The evaluated clients' hits.
        view: The view on which the hits were counted.
    """
    _check(scores, view)
    images = view.scored_images[scores.cids]
    return np.where(images > 0, scores.hits[:, 0] / np.maximum(images, 1), np.nan)


def scored_clients(
    scores: PersonalScores,
    view: LocalTest,
    shots: ShotGroups,
    *,
    participated: npt.ArrayLike,
    steps: npt.ArrayLike | None = None,
) -> dict[str, ScoredClients]:
    """Return the scored clients by mask: "" (no mask), ``_held``, and ``_test_held`` if counted.

    Arguments and errors are those of :func:`fedlt.evaluation.cutting.personal_metrics`.
    """
    _check(scores, view)
    keep = view.local_counts[scores.cids].sum(axis=1) > 0
    cids = scores.cids[keep]
    plain = ScoredClients(
        weights=view.weights_of(cids),
        images=view.scored_images[cids],
        counts=view.client_counts[cids],
        tested=view.tested[cids],
        groups=_membership(view, cids, shots),
        few=shots.few,
        head_hits=scores.hits[keep],
        generic_hits=scores.generic_hits[keep],
        excluded=int((~keep).sum()),
        participated=np.asarray(participated, dtype=bool),
        steps=None if steps is None else np.asarray(steps, dtype=np.float64)[cids],
    )
    pairs = {
        "_held": (scores.hits_held, scores.generic_hits_held),
        "_test_held": (scores.hits_test, scores.generic_hits_test),
    }
    return {"": plain} | {
        mask: replace(plain, head_hits=hits[keep], generic_hits=base[keep])
        for mask, (hits, base) in pairs.items()
        if hits is not None and base is not None
    }


def coverage_metrics(
    participated: npt.ArrayLike, client_counts: npt.ArrayLike, shots: ShotGroups
) -> dict[str, Metric]:
    """Return the shares of clients and of few-class images that training has seen so far.

    ``train/coverage`` is the share of clients sampled at least once. ``train/coverage_few`` is the
    share of the few classes' training images that these clients hold (None without few classes).

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
