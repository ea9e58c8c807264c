"""FedALA: Zhang et al., FedALA: Adaptive local aggregation for personalized federated learning.

AAAI 2023, https://arxiv.org/abs/2212.01197, algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from fedlt.config.ranges import Count, NotNegative, ShareAboveZero
from fedlt.strategy import StrategyTraits, Tensors, Update, prefixed, under
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.models import Model


def blend(weights: Tensors, received: Tensors, own: Tensors) -> Tensors:
    """Return own + weight * (received - own) entry by entry; weights of 1 give ``received``.

    Written from the other end, so that it is ``received`` to the last bit.
    """
    return {n: received[n] + (w - 1) * (received[n] - own[n]) for n, w in weights.items()}


@dataclass(frozen=True)
class FedALA(FedAvg):
    """FedAvg that starts at a mixture of the received and the client's last model.

    The mixing weights of the top layers are learnt entry by entry before each training; the lower
    layers are taken as received. The client's model is what it trained last.
    """

    traits = StrategyTraits(own_model="own.")

    layers: Count = 1  # p: how many of the top layers are mixed; the head is the first
    share: ShareAboveZero = 0.8  # s: share of the client's batches that the weights are learnt on
    eta: NotNegative = 1.0  # learning rate of the weights; 0 leaves them at 1, which is FedAvg
    start_epochs: Count = 10  # passes when the weights are learnt first; later it is one

    def local_update(self, client: Client) -> Update:
        """Mix, if the client has a model of its own, then train as FedAvg does."""
        own, kept = under(self.traits.own_model, client.personal), {}
        if own:
            weights = under("weight.", client.personal)
            epochs = 1 if weights else self.start_epochs
            weights = weights or {
                name: torch.ones_like(own[name]) for name in self.top_layers(client.model)
            }
            weights = self.learn(client, own, weights, epochs=epochs)
            client.model.load(blend(weights, dict(client.broadcast), own), weights)
            kept = prefixed("weight.", weights)
        metrics = client.train(self.objective)
        return client.update(metrics, personal={**kept, **client.snapshot(self.traits.own_model)})

    def top_layers(self, model: Model) -> list[str]:
        """Return the names of the shared parameters of the last ``layers`` modules."""
        names = [n for n in model.parameter_names("shared") if not n.startswith("networks.")]
        modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        chosen = set(modules[-self.layers :])
        return [name for name in names if name.rpartition(".")[0] in chosen]

    def learn(self, client: Client, own: Tensors, weights: Tensors, *, epochs: int) -> Tensors:
        """Return weights after gradient steps on the loss of the mixture, kept in [0, 1].

        Nothing else is trained, and BatchNorm's statistics stay as received. The batches are those
        of an epoch that training does not reach.
        """
        received = dict(client.broadcast)
        batches = list(client.epoch_batches(client.local.epochs))
        batches = batches[: math.ceil(self.share * len(batches))]
        client.model.eval()
        for _ in range(epochs):
            for batch in batches:
                mixed = blend(weights, received, own)
                for tensor in mixed.values():
                    tensor.requires_grad_()
                logits: Tensor = functional_call(client.model, mixed, (batch.images,))
                loss = client.plugin.loss(logits, batch, client)
                slopes = torch.autograd.grad(loss, list(mixed.values()))
                weights = {
                    name: (w - self.eta * slope * (received[name] - own[name])).clamp(0, 1)
                    for (name, w), slope in zip(weights.items(), slopes, strict=True)
                }
        return weights
