"""How far clients drift apart, whose images drive the gradient, and whether models agree.

Pure functions; names and formulas are in ``docs/metrics.md``, part "Diagnostics".
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

    ``drift_norm``: mean |u_k| / |w|; ``drift_spread``: sum |u_k - mean u|^2 / sum |u_k|^2, 0 where
    all agree and 1 - 1/m where they are orthogonal and of one length: 1 - 1/(m D) with the gradient
    diversity D of Yin et al., AISTATS 2018, arXiv:1706.05699. ``drift_cosine``: mean cosine over
    pairs. None where it needs more clients or longer updates.

    Args:
        updates: The clients' trained tensors, by name.
        start: The tensors that they started from; its names are compared.
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
    """Return the share of the cross-entropy's gradient that images of the few-classes make.

    An image's gradient by the logits is softmax(z) - e_y; g_c is the mean of its norm over class
    c's images. ``tail_gradient``: sum of n_c g_c over the few-classes, over that of all classes;
    ``tail_images``: the same share of the images n_c.

    Args:
        logits: (N, C) fused.
        labels: (N,) int64.
        counts: (C,) training images n_c.
        few: The few-classes.
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
    """Return how often personal and generic model predict the same class, right or wrong.

    For a client: the sum over classes of its share n_kc / n_k times the share of the class's test
    images with equal predictions; then the mean over clients.

    Args:
        own: Per client the classes (B,) that its model predicts.
        generic: (B,) those of the generic model.
        labels: (B,) int64.
        counts: Per client its training images n_kc (C,).
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
