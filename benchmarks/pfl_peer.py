"""Federated averaging with pfl-research's public interface: the peer of pfl_round.py.

    python benchmarks/pfl_peer.py DATA USERS_PER_ROUND BATCH LR ROUNDS

takes turns (turns.py) of one round. DATA is an .npz file with ``images`` (N, H, W, Ch) float32,
normalised, ``labels`` (N,) and ``users`` (U, n), the positions of each user's images. Set up as the
project's own CIFAR-10 benchmark: users drawn at random, weighted alike, SGD without momentum on the
user, SGD with learning rate 1 on the server. Nothing is evaluated after round 1.

Where ``PFL_WORKER_ADDRESSES`` and ``PFL_WORKER_RANK`` are set, it is one of several processes that
share every cohort.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from simple_cnn import SimpleCnn
from torch import Tensor, nn
from torch.nn import functional
from turns import Turns


class Classifier(nn.Module):
    """The network with the two methods that pfl asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SimpleCnn()
        self.head = nn.Linear(self.backbone.num_features, 10)
        nn.init.xavier_uniform_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, H, W, Ch) to logits (B, 10)."""
        logits: Tensor = self.head(self.backbone(images.permute(0, 3, 1, 2))[:, 0])
        return logits

    def loss(self, images: Tensor, labels: Tensor, eval: bool = False) -> Tensor:
        """Return the mean cross-entropy."""
        self.train(not eval)
        return functional.cross_entropy(self(images), labels)

    @torch.no_grad()
    def metrics(self, images: Tensor, labels: Tensor, eval: bool = True) -> dict[str, Any]:
        """Return the mean cross-entropy with its weight."""
        self.train(not eval)
        total = functional.cross_entropy(self(images), labels, reduction="sum").item()
        return {"loss": Weighted(total, len(images))}


class EndOfRound(TrainingProcessCallback):
    """Ends a turn when a round is finished."""

    def __init__(self, turns: Turns, facts: dict[str, object]) -> None:
        self.turns, self.facts = turns, facts

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """Say that the peer is ready."""
        self.turns.next(**self.facts)
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """End the turn; stop where there is no next one."""
        return not self.turns.next(), Metrics()


def main() -> None:
    """Run the rounds."""
    path, cohort, batch, lr, rounds = sys.argv[1:]
    turns = Turns()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    np.random.seed(1)
    data = np.load(path)
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    users = {number: (images[own], labels[own]) for number, own in enumerate(data["users"])}
    dataset = FederatedDataset.from_slices(users, get_user_sampler("random", list(users)))
    network = Classifier()
    model = PyTorchModel(
        model=network,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=int(rounds),
            evaluation_frequency=10**9,
            train_cohort_size=int(cohort),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(
            training_data=dataset, val_data=dataset, postprocessors=[WeightByUser()]
        ),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=float(lr), local_num_epochs=1, local_batch_size=int(batch)
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[EndOfRound(turns, {"parameters": sum(p.numel() for p in network.parameters())})],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main()
