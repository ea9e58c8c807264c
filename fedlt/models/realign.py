"""Realigned classifiers: GLA-FR of FedLoGe, and tau-normalisation.

* FedLoGe: Xiao et al., ICLR 2024, https://openreview.net/forum?id=V3j5d0GQgH.
* tau-normalisation: Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217.

Functions of weights with one row per class, (C, D). Biases are never touched, and no input is
written. A row of zeros has no direction and stays zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["global_realign", "local_realign", "tau_norm"]


def _row_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
    return norms  # (C, 1)


def tau_norm(weight: Tensor, tau: float) -> Tensor:
    """Divide every class vector by its norm to the power ``tau``.

    Args:
        weight: Class vectors (C, D).
        tau: 0 changes nothing, 1 makes all norms one.

    Returns:
        New class vectors (C, D), ``w_c / |w_c|^tau``.
    """
    norms = _row_norms(weight)
    return weight / torch.where(norms > 0, norms, 1.0).pow(tau)


def global_realign(weight: Tensor, scale: float = 1.0) -> Tensor:
    """Give every class vector of the global auxiliary head the same norm (GA-FR).

    Args:
        weight: Class vectors psi (C, D).
        scale: The norm they get; FedLoGe's paper has 1. It matters only relative to a bias.

    Returns:
        New class vectors (C, D), ``scale * psi_c / |psi_c|``.
    """
    return scale * tau_norm(weight, 1.0)


def local_realign(global_weight: Tensor, local_weight: Tensor) -> Tensor:
    """Give the global class vectors the norms that a client learnt (LA-FR).

    Args:
        global_weight: Class vectors psi (C, D) of the global auxiliary head.
        local_weight: Class vectors phi_k (C, D) of the client's head.

    Returns:
        New class vectors (C, D), ``psi_c * |phi_kc|``. psi is not normalised first.
    """
    return global_weight * _row_norms(local_weight)
