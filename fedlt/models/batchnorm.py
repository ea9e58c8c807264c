"""What becomes of BatchNorm when clients are averaged: ``average``, ``pooled`` or ``local``.

``average`` averages running means and variances like weights. ``pooled`` gives the variance of the
pooled activations, ``sum_k p_k (var_k + mean_k^2) - mean^2``: clients send second moments instead
of variances. ``local`` keeps BatchNorm with the client: Li et al., FedBN, ICLR 2021,
https://arxiv.org/abs/2102.07623.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedlt.errors import FedltError, nearest
from fedlt.models.index import Group
from fedlt.models.model import Model

__all__ = [
    "POLICIES",
    "Pairs",
    "Policy",
    "apply_policy",
    "batchnorm_statistics",
    "from_moments",
    "to_moments",
]

Policy = Literal["average", "pooled", "local"]
POLICIES: Final[tuple[Policy, ...]] = ("average", "pooled", "local")
Pairs = Iterable[tuple[str, str]]  # (name of a running mean, name of its running variance)


def batchnorm_statistics(model: Model, group: Group | None = None) -> list[tuple[str, str]]:
    """List the running statistics of every BatchNorm, found by type.

    Args:
        model: The model.
        group: Only those whose running mean is of this group; ``None`` for all.

    Returns:
        ``(mean name, variance name)``, in module order.
    """
    known = set(model.names(group))
    return [
        (f"{path}.running_mean", f"{path}.running_var")
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and f"{path}.running_mean" in known
    ]


def apply_policy(model: Model, policy: str) -> None:
    """Declare the groups that a policy asks for: ``local`` makes every BatchNorm personal.

    Call it last, after the strategy has built its parts. What is fixed stays fixed.

    Raises:
        FedltError: If the policy is unknown.
    """
    if policy not in POLICIES:
        raise FedltError(f"batchnorm: unknown policy {policy!r}{nearest(policy, POLICIES)}")
    if policy != "local":
        return
    names = model.names("shared")
    norms = [path for path, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for path in norms:
        if any(name.startswith(f"{path}.") for name in names):
            model.set_group(path, "personal")


def to_moments(tensors: Mapping[str, Tensor], pairs: Pairs) -> dict[str, Tensor]:
    """Replace every variance by the second moment, which may be averaged: var + mean^2.

    Args:
        tensors: Tensors by name; not written.
        pairs: From ``batchnorm_statistics``.

    Returns:
        The same names; what is in no pair is passed through.
    """
    moments = {var: tensors[var] + tensors[mean].square() for mean, var in pairs}
    return {**tensors, **moments}


def from_moments(tensors: Mapping[str, Tensor], pairs: Pairs) -> dict[str, Tensor]:
    """Undo ``to_moments`` after a weighted mean: second moment - mean^2, at least 0.

    Args:
        tensors: Weighted means over clients by name; not written.
        pairs: From ``batchnorm_statistics``.

    Returns:
        The same names; what is in no pair is passed through.
    """
    variances = {var: (tensors[var] - tensors[mean].square()).clamp(min=0) for mean, var in pairs}
    return {**tensors, **variances}
