"""Search for the tensors of a strategy's generic linear head, by predictions, not by names.

A pair of tensors (C, D) and (C,) in the broadcast is the linear head if one of the strategy's
generic heads gives exactly the logits of that linear map. So a cosine classifier, or a linear layer
in the middle of a head, is not a linear head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from fedlt.errors import FedltError
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.models import Model
    from fedlt.strategy import HeadFunction, Strategy


@dataclass(frozen=True)
class LinearNames:
    """Linear head: the names of its tensors, and the strategy's name of the head."""

    head: str
    weight: str
    bias: str | None
    is_fixed: bool = False  # the head lies in the model's fixed part, not in the broadcast


def find_head(
    strategy: Strategy, client: Client, fixed: Mapping[str, Tensor], *, name: str
) -> LinearNames:
    """Return the strategy's generic linear head; of several heads the first that is not fixed.

    Args:
        strategy: The run's strategy.
        client: A client with the models of the checkpoint loaded.
        fixed: The model's fixed part.
        name: The strategy's name in the configuration.

    Raises:
        FedltError: If the strategy has no linear head, with the reason.
    """
    model = client.model.eval()
    heads = strategy.generic(model, client.broadcast)
    if not heads:
        raise FedltError(f"realign: strategy {name!r} has no generic model, so no head to realign")
    for tensors, is_fixed in ((client.broadcast, False), (fixed, True)):
        found = _match(heads, tensors, model)
        if found is not None:
            return LinearNames(*found, is_fixed)
    raise FedltError(
        f"realign: no generic head of strategy {name!r} ({', '.join(heads)}) is a linear map of "
        "the features whose weight the server sends"
    )


def find_local_head(strategy: Strategy, client: Client) -> LinearNames | None:
    """Return the linear head in the model's personal part; None if clients keep no such head."""
    names = set(client.model.names("personal"))
    own = {name: tensor for name, tensor in client.personal.items() if name in names}
    heads = strategy.personal(client.model.eval(), client.broadcast, client.personal)
    found = _match(heads, own, client.model)
    return None if found is None else LinearNames(*found)


@torch.no_grad()
def _match(
    heads: Mapping[str, HeadFunction], tensors: Mapping[str, Tensor], model: Model
) -> tuple[str, str, str | None] | None:
    """Return the first head that is linear in the features, with the names of its tensors."""
    device = next(model.parameters()).device
    drawn = torch.rand(8, model.num_streams, model.num_features, generator=torch_generator(0, "f"))
    features = drawn.to(device)
    for head, function in heads.items():
        logits = function(features)
        for weight, bias in _pairs(tensors, (model.num_classes, model.num_features)):
            offset = None if bias is None else tensors[bias].to(device)
            if torch.allclose(linear(features, tensors[weight].to(device), offset), logits):
                return head, weight, bias
    return None


def _pairs(
    tensors: Mapping[str, Tensor], shape: tuple[int, int]
) -> Iterator[tuple[str, str | None]]:
    """Yield names of weights (C, D), each with the name of the bias beside it, or None."""
    for name, tensor in tensors.items():
        if tuple(tensor.shape) == shape and name.endswith("weight"):
            bias = f"{name.removesuffix('weight')}bias"
            yield name, bias if bias in tensors else None
