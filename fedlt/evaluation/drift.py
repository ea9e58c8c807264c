"""Diagnostics: client drift, the tail classes' share of the gradient, and agreement of models.

Names and formulas are in ``docs/metrics.md``, part "Diagnostics".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedlt.data.arrays import IntArray
from fedlt.evaluation.generic import Metric


def update_drift(
    updates: Sequence[Mapping[str, Tensor]], start: Mapping[str, Tensor]
) -> dict[str, Metric]:
    """Return the size and the spread of client updates u_k = w_k - w, k = 1 to m.

    * ``drift_norm``: mean |u_k| / |w|.
    * ``drift_spread``: sum |u_k - mean u|^2 / sum |u_k|^2. The value is 0 for equal updates, and
      1 - 1/m for orthogonal updates of one length. In general the value is 1 - 1/(m D), with the
      gradient diversity D of Yin et al., AISTATS 2018, arXiv:1706.05699.
    * ``drift_cosine``: mean cosine over pairs of updates.

    A value is None if there are too few clients, or if a length to divide by is zero.

    Args:
        updates: The trained tensors of each client, by name.
        start: The tensors before training; only these names are compared.
    """
    names = sorted(start)
    first = _flat(start, names)
    moves = torch.stack([_flat(one, names) - first for one in updates]) if updates else None
    if moves is None or not names:
        return dict.fromkeys(("drift_norm", "drift_spread", "drift_cosine"))
    norms = torch.linalg.vector_norm(moves, dim=1)
    length, energy = float(torch.linalg.vector_norm(first)), float(norms.square().sum())
    several = len(moves) > 1
    values: dict[str, Metric] = {
        "drift_norm": float(norms.mean()) / length if length > 0 else None,
        "drift_spread": None,
        "drift_cosine": None,
    }
    if several and energy > 0:
        away = moves - moves.mean(dim=0)
        values["drift_spread"] = float(away.square().sum()) / energy
    if several and bool((norms > 0).all()):
        units = moves / norms[:, None]
        above = torch.triu_indices(len(units), len(units), offset=1)
        values["drift_cosine"] = float((units @ units.T)[above[0], above[1]].mean())
    return {n: v if v is None or math.isfinite(v) else None for n, v in values.items()}


def _flat(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.cat(
        [tensors[name].detach().double().flatten() for name in names] or [torch.empty(0)]
    )


def tail_gradient(
    logits: Tensor, labels: Tensor, counts: IntArray, few: Sequence[int]
) -> dict[str, Metric]:
    """Return the share of the cross-entropy's gradient that comes from images of the few classes.

    An image's gradient with respect to the logits is softmax(z) - e_y. g_c is the mean norm of this
    gradient over images of class c. ``tail_gradient`` is the sum of n_c g_c over the few classes
    divided by the sum over all classes. ``tail_images`` is the same ratio of the counts n_c alone.

    Args:
        logits: (N, C) fused logits.
        labels: (N,) int64.
        counts: Class counts n_c (C,) of the training images.
        few: Class ids of the few classes.
    """
    if not few:
        return {"tail_gradient": None, "tail_images": None}
    residual = logits.double().softmax(dim=1)
    residual[torch.arange(len(labels)), labels] -= 1
    norms = torch.linalg.vector_norm(residual, dim=1)
    pull = np.array(
        [
            counts[c] * float(norms[labels == c].mean()) if bool((labels == c).any()) else 0.0
            for c in range(len(counts))
        ]
    )
    total, chosen = float(pull.sum()), list(few)
    is_known = math.isfinite(total) and total > 0
    return {
        "tail_gradient": float(pull[chosen].sum()) / total if is_known else None,
        "tail_images": float(counts[chosen].sum() / counts.sum()),
    }


def agreement(
    own: Sequence[Tensor], generic: Tensor, labels: Tensor, counts: Sequence[IntArray]
) -> Metric:
    """Return the share of images for which personal and global model predict the same class.

    For client k, the share is the sum over classes c of n_kc / n_k times the share of equal
    predictions among test images of class c. The result is the mean over clients.

    Args:
        own: For each client, the classes (B,) that its personal model predicts.
        generic: The classes (B,) that the global model predicts.
        labels: (B,) int64.
        counts: For each client, its class counts n_kc (C,).
    """
    size = len(counts[0]) if counts else 0
    images = torch.bincount(labels, minlength=size).double()
    shares = []
    for predicted, held in zip(own, counts, strict=True):
        same = torch.bincount(labels[predicted == generic], minlength=size).double()
        weight = torch.as_tensor(held).double() * (images > 0)
        if float(weight.sum()) > 0:
            shares.append(float((weight / weight.sum()) @ (same / images.clamp_min(1))))
    return math.fsum(shares) / len(shares) if shares else None
