"""APFL: Deng, Kamani, Mahdavi, Adaptive personalized federated learning, 2020.

https://arxiv.org/abs/2003.13461, algorithm 1 with the paper's gradient step on alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from fedlt.config.ranges import Share
from fedlt.models.modes import set_training_modes
from fedlt.optim.batch import Phase
from fedlt.strategy import StrategyTraits, Tensors, Update, prefixed, under
from fedlt.worker.training import make_optimizer, precision_of
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.client import Client


def mix(alpha: Tensor, own: Mapping[str, Tensor], common: Mapping[str, Tensor]) -> Tensors:
    """Return alpha * own + (1 - alpha) * common for every name of ``common``."""
    return {name: alpha * own[name] + (1 - alpha) * value for name, value in common.items()}


@dataclass(frozen=True)
class APFL(FedAvg):
    """FedAvg plus a local model per client; the personal model is a learnt mixture of the two.

    w is FedAvg's model and v the local one. Each step trains w on its own loss, and v on the loss
    of the mixture alpha v + (1 - alpha) w. v starts at the global model of the client's first
    round.
    """

    traits = StrategyTraits(
        needs_sgd=True, knows=("nesterov", "clip"), own_model="mixed.", sends=""
    )

    alpha: Share = 0.5  # share of v in the mixture; its first value if it is adaptive
    adaptive: bool = True  # alpha takes a gradient step at the first batch of each round

    def local_update(self, client: Client) -> Update:
        """Train w and v in the same steps; v, the final mixture and alpha stay personal."""
        model = client.model
        w: Tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
        start = {name: tensor for name, tensor in client.snapshot().items() if name not in w}
        kept = under("own.", client.personal) or model.state()
        v = {name: kept[name].clone().requires_grad_() for name in w}
        first = torch.tensor(self.alpha, device=client.data.images.device)
        alpha = client.personal.get("alpha", first)  # ()
        floats = {name: t for name, t in start.items() if t.is_floating_point()}
        buffers = {
            **start,
            **mix(alpha, under(self.traits.own_model, client.personal) or start, floats),
        }
        buffers = {name: tensor.clone() for name, tensor in buffers.items()}
        alpha, metrics = self._train(client, w, v, buffers, alpha)
        with torch.no_grad():
            mixed = {**buffers, **mix(alpha, v, w)}
        own = {**prefixed("own.", v), **prefixed(self.traits.own_model, mixed), "alpha": alpha}
        return client.update(metrics, personal={name: t.detach() for name, t in own.items()})

    def _train(
        self, client: Client, w: Tensors, v: Tensors, buffers: Tensors, alpha: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return alpha and the metrics, after a step of w and one of v on every batch.

        Args:
            client: The client.
            w: The model's trainable parameters; changed in place.
            v: The local model's parameters; changed in place.
            buffers: The mixture's BatchNorm statistics; changed in place.
            alpha: Share of v, shape ().
        """
        model, precision = client.model, precision_of(client)
        phase = Phase(self.objective, None, tuple(w))
        set_training_modes(model, phase.trained)
        optimizers = [make_optimizer(client, phase, tensors) for tensors in (w, v)]
        loss_sum, examples, steps = torch.zeros_like(alpha), 0, 0
        for batch in client.batches():
            mixed = mix(alpha, v, {name: p.detach() for name, p in w.items()})
            for tensor in mixed.values():
                tensor.retain_grad()
            for optimizer in optimizers:
                optimizer.zero_grad()
            with precision():
                logits = functional_call(model, {**mixed, **buffers}, (batch.images,))
                loss = self.objective(client, batch) + client.plugin.loss(logits, batch, client)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.adaptive and steps == 0:  # alpha - lr <v - w, gradient at the mixture>
                alpha = (alpha - client.local.lr * _slope(v, w, mixed)).clamp(0, 1)
            for optimizer in optimizers:
                optimizer.step()
            loss_sum += loss.detach() * len(batch.labels)
            examples, steps = examples + 2 * len(batch.labels), steps + 1
        sums = {"loss": float(loss_sum), "examples": float(examples), "steps": 2.0 * steps}
        return alpha, {**sums, "personal_steps": float(steps)}


@torch.no_grad()
def _slope(v: Tensors, w: Tensors, mixed: Tensors) -> Tensor:
    """Return <v - w, gradient at the mixture>, shape (): d loss(mixture) / d alpha."""
    terms = [((v[n] - w[n]) * t.grad).sum() for n, t in mixed.items() if t.grad is not None]
    return torch.stack(terms).sum()
