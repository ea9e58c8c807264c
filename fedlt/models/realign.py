"""Realigned heads: GLA-FR of FedLoGe, tau-normalisation, scaled rows, logit adjustment.

* FedLoGe: Xiao et al., ICLR 2024, https://openreview.net/forum?id=V3j5d0GQgH.
* tau-normalisation and LWS: Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217.
* Logit adjustment: Menon et al., ICLR 2021, https://arxiv.org/abs/2007.07314.

All functions take weights with one row per class, (C, D), or biases (C,). No input is written. A
row of zeros has no direction and stays zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _row_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
    return norms  # (C, 1)


def tau_norm(weight: Tensor, tau: float) -> Tensor:
    """Return class vectors divided by their norm to the power ``tau``.

    Args:
        weight: Class vectors (C, D).
        tau: 0 changes nothing, 1 makes all norms one.

    Returns:
        New class vectors (C, D), ``w_c / |w_c|^tau``.
    """
    norms = _row_norms(weight)
    return weight / torch.where(norms > 0, norms, 1.0).pow(tau)


def global_realign(weight: Tensor, scale: float = 1.0) -> Tensor:
    """Return the class vectors of the global auxiliary head scaled to one norm (GA-FR).

    Args:
        weight: Class vectors psi (C, D).
        scale: The norm, 1 in FedLoGe's paper. The norm matters only relative to a bias.

    Returns:
        New class vectors (C, D), ``scale * psi_c / |psi_c|``.
    """
    return scale * tau_norm(weight, 1.0)


def local_realign(global_weight: Tensor, local_weight: Tensor) -> Tensor:
    """Return the global class vectors scaled by the norms of a client's class vectors (LA-FR).

    Args:
        global_weight: Class vectors psi (C, D) of the global auxiliary head.
        local_weight: Class vectors phi_k (C, D) of the client's head.

    Returns:
        New class vectors (C, D), ``psi_c * |phi_kc|``. psi is not normalised first.
    """
    return global_weight * _row_norms(local_weight)


def scaled_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """Return class vectors multiplied by one factor per class: LWS, ``s_c w_c``.

    Args:
        weight: Class vectors (C, D).
        scales: (C,).

    Returns:
        New class vectors (C, D).
    """
    return scales[:, None] * weight


def adjusted_bias(bias: Tensor, class_counts: Tensor, tau: float) -> Tensor:
    """Return biases minus the log prior: post-hoc logit adjustment (Menon et al., eq. 9).

    Args:
        bias: Biases (C,).
        class_counts: (C,) class counts of the prior; an empty class counts as one image.
        tau: 0 changes nothing, 1 is Bayes-consistent for the balanced error.

    Returns:
        New biases (C,), ``b_c - tau log pi_c`` with pi_c the share of class c.
    """
    counts = class_counts.double().clamp(min=1)
    offsets = tau * (counts / counts.sum()).log()
    return bias - offsets.to(bias.dtype)
