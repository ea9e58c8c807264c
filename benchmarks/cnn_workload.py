"""The work of cnn_round.py, and a plain PyTorch loop that does it without any framework.

100 clients with 160 CIFAR-10 images each, the model ``cnn`` of width 16, batches of 32, SGD with
momentum, no augmentation: 5 steps an epoch. The stock Flower peer trains with the plain loop, too,
so that what differs between the peers is the framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from fedlt_peer import make_federation
from torch import Tensor
from torch.nn import functional

from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.federation import Parties

CLIENTS, IMAGES, BATCH = 100, 160, 32
STEPS = IMAGES // BATCH  # an epoch
LR, MOMENTUM = 0.1, 0.5


def cnn_federation(steps: int, cohort: int, engine: str = "serial", workers: int = 1) -> Parties:
    """Return the federation; ``steps`` is a multiple of the steps of an epoch."""
    local = {"epochs": steps // STEPS, "batch_size": BATCH, "lr": LR, "momentum": MOMENTUM}
    model = {"name": "cnn", "width": 16}
    settings = {"model": model, "local": local, "clients_per_round": cohort}
    return make_federation(settings, clients=CLIENTS, images=IMAGES, engine=engine, workers=workers)


class PlainLoop:
    """A client's training in plain PyTorch: fedlt's batches, arithmetic and bits."""

    def __init__(self, federation: Parties) -> None:
        self.federation = federation
        self.model = federation.view.build_model()
        data = federation.observer.data
        self._images = torch.from_numpy(data.train_images.copy())
        self._labels = torch.from_numpy(data.train_labels.copy())
        self._clients = [torch.from_numpy(indices.copy()) for indices in data.partition.clients]
        self._scale = (1 / (255 * torch.tensor(data.std))).view(-1, 1, 1)
        self._shift = (torch.tensor(data.mean) / torch.tensor(data.std)).view(-1, 1, 1)

    def train(self, cid: int, round_: int, start: Mapping[str, Tensor]) -> float:
        """Load ``start``, take the steps of one client's task, and return the last loss."""
        model = self.model
        model.load_state_dict(start)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        loss = torch.zeros(())
        for epoch in range(self.federation.view.config.local.epochs or 1):
            for images, labels in self._batches(cid, round_, epoch):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(images)[:, 0], labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return loss.item()

    def _batches(self, cid: int, round_: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch_generator(self.federation.view.seed, "batches", round_, cid, epoch)
        own = self._clients[cid]
        for chosen in own[torch.randperm(len(own), generator=generator)].split(BATCH):
            yield self._images[chosen] * self._scale - self._shift, self._labels[chosen]
