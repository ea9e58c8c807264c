"""SCoRe: Majee et al., Submodular combinatorial representation learning, ICML 2024.

https://arxiv.org/abs/2310.00165. The loss is the paper's total information. A_k are the batch's
images of class k, f is a submodular function, and S_ij is the cosine of the embeddings of i and j:

    L = sum_k f(A_k) / |A_k|

The loss is small where classes lie far from each other and, for the graph cut, where each class is
compact. Here L is also divided by the batch size, so that the loss does not grow with the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def facility_location(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the loss with f(A) = sum over all images i of the largest S_ij with j in A.

    Images i in A_k are left out: they would only add the constant |A_k| / |A_k|.

    Args:
        embeddings: (B, S, D); the streams are averaged.
        labels: Classes (B,), int64.
        num_classes: C; classes that the batch lacks add nothing.

    Returns:
        A scalar. Memory grows as S B^2 C.
    """
    similar = _cosines(embeddings)  # (S, B, B)
    members = _members(labels, num_classes)  # (B, C)
    masked = torch.where(members, similar[..., None], -2.0)  # (S, B, B, C)
    nearest = masked.amax(dim=2)  # (S, B, C): largest cosine of image i to class k
    counted = ~members & members.any(dim=0)  # (B, C): class k is in the batch, i is not in it
    sizes = members.sum(dim=0).clamp(min=1)  # (C,)
    each = torch.where(counted, nearest, 0.0) / sizes
    return each.sum(dim=(1, 2)).mean() / len(labels)


def graph_cut(embeddings: Tensor, labels: Tensor, num_classes: int, *, within: float) -> Tensor:
    """Return the loss with f(A) = sum of S_ij (i in A, j outside) - lambda sum of S_ij (both in A).

    Args:
        embeddings: (B, S, D); the streams are averaged.
        labels: Classes (B,), int64.
        num_classes: C; classes that the batch lacks add nothing.
        within: lambda.

    Returns:
        A scalar.
    """
    similar = _cosines(embeddings)  # (S, B, B)
    sizes = _members(labels, num_classes).sum(dim=0)  # (C,)
    same = labels[:, None] == labels  # (B, B)
    each = torch.where(same, -within * similar, similar).sum(dim=2)  # (S, B): sum for image i
    return (each / sizes[labels]).sum(dim=1).mean() / len(labels)


def _members(labels: Tensor, num_classes: int) -> Tensor:
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


def _cosines(embeddings: Tensor) -> Tensor:
    unit = normalize(embeddings, dim=-1, eps=1e-8).transpose(0, 1)  # (S, B, D)
    return unit @ unit.transpose(1, 2)
