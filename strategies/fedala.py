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
    """Return own + weight * (received - own) entry by entry.

    The code computes received + (weight - 1) * (received - own), so that weights of 1 give
    ``received`` to the last bit.
    """
    return {n: received[n] + (w - 1) * (received[n] - own[n]) for n, w in weights.items()}


@dataclass(frozen=True)
class FedALA(FedAvg):
    """FedAvg; a client starts from a learnt mixture of the global model and its own last model.

    Before each training the client learns mixing weights for every entry of the top layers; lower
    layers start as received. The personal model is the model that the client trained last.
    """

    traits = StrategyTraits(own_model="own.", sends="")

    layers: Count = 1  # p: number of mixed top layers, counted from the head
    share: ShareAboveZero = 0.8  # s: share of the client's batches that the weights are learnt on
    eta: NotNegative = 1.0  # learning rate of the weights; 0 leaves them at 1, which is FedAvg
    start_epochs: Count = 10  # passes when the weights are first learnt; later one pass

    def local_update(self, client: Client) -> Update:
        """Train as FedAvg does, from the mixture if the client already has a model of its own."""
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
        """Return the weights after gradient steps on the loss of the mixture, clipped to [0, 1].

        The model stays as it is, with BatchNorm's statistics as received. The batches have random
        numbers of their own: those of an epoch that training does not reach.
        """
        received = dict(client.broadcast)
        batches = list(client.epoch_batches(client.local.epochs or client.planned_steps()))
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
