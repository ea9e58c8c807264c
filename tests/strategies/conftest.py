"""A second implementation of rounds with parts: plain PyTorch loops over deep copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker


def train_by_hand(model, client, epochs, trained, momentum):
    """Run epochs of torch's own SGD on some parameters, the others frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(chosen, lr=client.local.lr, momentum=momentum)
    model.train()
    model.backbone.train(trained("backbone."))
    for epoch in epochs:
        for batch in client.plugin.batches(client, epoch):
            optimizer.zero_grad()
            logits = model(batch.images).squeeze(1)
            functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step()


@pytest.fixture
def by_hand(lab):
    """Return what trains every client for some rounds and averages the tensors that travel."""

    def run(travels, *, phases, rounds=2, **changes):
        """Return the models of all clients after the last round's mean, by cid.

        Args:
            travels: Says of a name whether it is averaged, weighted by examples.
            phases: (epoch numbers, which names are trained), one after another.
            rounds: How many.
            changes: Of the tiny configuration; the strategy gives the model its heads.
        """
        federation = lab.federation(**changes, clients_per_round=None)
        worker, server = Worker(federation.shares), make_server_half(federation.view)
        models = [
            copy.deepcopy(federation.view.build_model()) for _ in range(federation.view.num_clients)
        ]
        sizes = federation.observer.data.client_sizes
        state = server.state
        for round_ in range(1, rounds + 1):
            for cid, model in enumerate(models):
                client = worker.client(cid, round_, state.broadcast, fixed=state.fixed, personal={})
                for epochs, trained in phases:
                    momentum = federation.view.config.local.momentum
                    train_by_hand(model, client, epochs, trained, momentum)
            states = [model.state_dict() for model in models]
            for name, first in states[0].items():
                if travels(name) and first.is_floating_point():
                    parts = [own[name] * float(n) for own, n in zip(states, sizes, strict=True)]
                    mean = torch.stack(parts).sum(0) / float(sizes.sum())
                    for own in states:
                        own[name].copy_(mean)
        return [model.state_dict() for model in models]

    return run
