"""Fed-GraB: Xiao et al., Federated long-tailed learning with self-adjusting gradient balancer.

NeurIPS 2023, https://arxiv.org/abs/2310.07587
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from fedlt.config.ranges import NotNegative, Positive, ShareBelowOne
from fedlt.methods.composition import is_plain
from fedlt.models.balancer import BalancedHead, GradientBalancer, norm_prior, rare_classes
from fedlt.strategy import StrategyTraits
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client, ClientPlugin
    from fedlt.models import Model
    from fedlt.strategy import ServerState, Total

_RARE, _PRIOR, _SEEN = "fed_grab.rare", "fed_grab.prior", "fed_grab.rounds"


@dataclass(frozen=True)
class FedGraB(FedAvg):
    """FedAvg with a one-vs-all loss; each client re-balances the gradients of rare classes.

    A PID controller per class does the balancing. Controllers are personal and last the whole run.
    The server decides which classes are rare from the norms of the averaged classifier (the direct
    prior analyser).
    """

    traits = StrategyTraits(needs_linear_heads=True, reads_labels=True, sends="")

    kp: NotNegative = 10.0  # gains of the incremental PID controllers
    ki: NotNegative = 0.01
    kd: NotNegative = 0.1
    slope: Positive = 0.5  # slope of the gradient's weight over the controller's output
    limit: Positive = 100.0  # largest absolute output of a controller
    covered: ShareBelowOne = 0.95  # estimated prior of all classes not rare; 0: all are rare

    def refuses(self, plugin: ClientPlugin) -> str | None:
        """Return why ``plugin`` cannot run, such as a loss of its own; None where it can."""
        if not is_plain(plugin):
            return "the strategy has a loss of its own, one-vs-all cross-entropy"
        return super().refuses(plugin)

    def build(self, model: Model) -> None:
        """Add the one-vs-all head, whose controllers are personal."""
        gains = (self.kp, self.ki, self.kd)
        balancer = GradientBalancer(model.num_classes, gains, self.slope, self.limit)
        model.add_head("head", BalancedHead(model.num_features, balancer))
        model.set_group("heads.head.balancer", "personal")

    def init(self, model: Model) -> ServerState:
        """Return the first state: no class counts as rare yet."""
        state, none = super().init(model), torch.zeros(model.num_classes)
        return replace(
            state,
            broadcast={**state.broadcast, _RARE: none},
            private={_PRIOR: none.clone(), _SEEN: torch.zeros(())},
        )

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the balanced one-vs-all cross-entropy; every call also steps the controllers."""
        head = cast(BalancedHead, client.model.heads["head"])
        logits = head(client.model.features(batch.images))  # (B, S, C)
        loss: Tensor = head.balancer(logits, batch.labels, client.broadcast[_RARE])
        return loss

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the mean model and the rare classes by the running mean of estimated priors."""
        after = super().aggregate(state, total)
        seen = state.private[_SEEN] + 1
        found = norm_prior(after.broadcast["heads.head.weight"])
        prior = state.private[_PRIOR] + (found - state.private[_PRIOR]) / seen
        rare = rare_classes(prior, covered=self.covered)
        return replace(
            after,
            broadcast={**after.broadcast, _RARE: rare},
            private={_PRIOR: prior, _SEEN: seen},
        )
