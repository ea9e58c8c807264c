"""BatchNorm policies for averaging clients: ``average``, ``pooled`` or ``local``.

* ``average`` averages running means and variances like weights.
* ``pooled`` gives the variance of the pooled activations,
  ``sum_k p_k (var_k + (mean_k - m)^2) - (mean - m)^2``, about the mean m that the server has sent:
  clients send second moments instead of variances. Every m gives the same variance in exact
  arithmetic. With m = 0, float32 would lose the digits of a variance small beside its mean.
* ``local`` keeps BatchNorm with the client: Li et al., FedBN, ICLR 2021,
  https://arxiv.org/abs/2102.07623.

A batch of one image can give a layer a single value per channel. A single value has no variance,
so torch refuses to train on it. Such a layer then normalises with its running statistics, as in
evaluation, and leaves these statistics unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedlt.errors import FedltError, nearest
from fedlt.models.index import Group
from fedlt.models.model import Model
from fedlt.models.modes import evaluating

Policy = Literal["average", "pooled", "local"]
POLICIES: Final[tuple[Policy, ...]] = ("average", "pooled", "local")
Pairs = Iterable[tuple[str, str]]  # (name of a running mean, name of its running variance)


def batchnorm_statistics(model: Model, group: Group | None = None) -> list[tuple[str, str]]:
    """Return the names of the running statistics of every BatchNorm layer of a model.

    Args:
        model: The model.
        group: Take only layers whose running mean is of this group; ``None`` for all layers.

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
    """Set the groups that a policy asks for: ``local`` makes every shared BatchNorm personal.

    Call this function last, after the strategy has built its parts. Fixed layers stay fixed.

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


def to_moments(
    tensors: Mapping[str, Tensor], pairs: Pairs, *, about: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return tensors whose variances are replaced by second moments, var + (mean - m)^2.

    Second moments can be averaged over clients.

    Args:
        tensors: Tensors by name; not written.
        pairs: From ``batchnorm_statistics``.
        about: The means m by name, as the server has sent them to every client.

    Returns:
        Tensors under the same names; tensors in no pair are passed through.
    """
    moments = {var: tensors[var] + (tensors[mean] - about[mean]).square() for mean, var in pairs}
    return {**tensors, **moments}


def from_moments(
    tensors: Mapping[str, Tensor], pairs: Pairs, *, about: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return tensors with variances again, after averaging the result of ``to_moments``.

    A variance is the averaged second moment - (mean - m)^2, at least 0.

    Args:
        tensors: Weighted means over clients by name; not written.
        pairs: From ``batchnorm_statistics``.
        about: The means m that ``to_moments`` had.

    Returns:
        Tensors under the same names; tensors in no pair are passed through.
    """
    variances = {
        var: (tensors[var] - (tensors[mean] - about[mean]).square()).clamp(min=0)
        for mean, var in pairs
    }
    return {**tensors, **variances}


def accept_single_values(model: nn.Module) -> None:
    """Let every BatchNorm of a model train on one value per channel, by its running statistics.

    A BatchNorm without running statistics stays as it is, and torch goes on refusing such a batch.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(_evaluate_single)
            module.register_forward_hook(_train_again, always_call=True)


def single_value_layers(module: nn.Module, image: Tensor) -> list[str]:
    """Return the paths of BatchNorm layers that see one value per channel in a batch of one image.

    Args:
        module: Module that evaluates the image; left unchanged.
        image: (1, Ch, H, W).
    """
    found: list[str] = []

    def look(path: str) -> Any:  # noqa: ANN401 (as torch types its hooks)
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found.extend([path] if _is_single(given[0]) else [])

        return hook

    handles = [
        part.register_forward_pre_hook(look(path))
        for path, part in module.named_modules()
        if isinstance(part, _BatchNorm)
    ]
    try:
        with evaluating(module), torch.no_grad():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_single(values: Tensor) -> bool:
    """Whether a tensor (B, channels, ...) holds one value per channel."""
    return values.ndim > 1 and values.numel() == values.shape[1]


def _evaluate_single(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    if module.training and _is_single(given[0]):
        module.training = False
        module.__dict__["was_single"] = True


def _train_again(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
    if module.__dict__.pop("was_single", False):
        module.training = True
