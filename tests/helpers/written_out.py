"""Client loops written out, with which tests of strategies compare a client's task.

The model has no BatchNorm, so that a step is a function of parameters and batch alone.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker

SMALL = {"model": {"name": "mlp", "width": 4, "norm": "group"}}


def start(lab, strategy, *, cid=1, extra=None, personal=None, **changes):
    """Return a worker and one client of its first round, with more in its broadcast."""
    federation = lab.federation(strategy=strategy, **SMALL, **changes)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    broadcast = {**server.state.broadcast, **(extra or {})}
    return worker, worker.client(cid, 1, broadcast, fixed={}, personal=personal or {})


def parameters(client):
    """Return copies of a client's parameters."""
    return {name: p.detach().clone() for name, p in client.model.named_parameters()}


def drawn(client, prefix, seed):
    """Return a small random tensor for every parameter, by name after a prefix."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{prefix}{name}": 0.1 * torch.randn(p.shape, generator=generator)
        for name, p in client.model.named_parameters()
    }


def gradients(client, batch):
    """Return the gradient of the cross-entropy by parameter."""
    named = dict(client.model.named_parameters())
    loss = functional.cross_entropy(client.model(batch.images)[:, 0], batch.labels)
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def train(client, direction, *, factor=lambda k, steps: 1.0):
    """Train by hand: buffer <- momentum buffer + d, w <- w - factor lr buffer.

    Under Nesterov's momentum w moves along d + momentum buffer. With a clip, d is shortened first:
    times min(1, clip / (|d| + 1e-6)), d of all parameters as one vector.

    Args:
        client: Its model is trained.
        direction: ``(name, gradient, w) -> d``.
        factor: Of the learning rate in step k of so many.

    Returns:
        The plain gradients, step by step.
    """
    local, named = client.local, dict(client.model.named_parameters())
    buffers = {name: torch.zeros_like(p) for name, p in named.items()}
    batches, seen = list(client.batches()), []
    for k, batch in enumerate(batches):
        seen.append(gradients(client, batch))
        with torch.no_grad():
            along = {name: direction(name, seen[-1][name], w) for name, w in named.items()}
            if local.clip is not None:
                length = sum(float(d.double().square().sum()) for d in along.values()) ** 0.5
                along = {n: d * min(1.0, local.clip / (length + 1e-6)) for n, d in along.items()}
            for name, w in named.items():
                own = local.head_lr if name.startswith("heads.") and local.head_lr else local.lr
                buffers[name] = local.momentum * buffers[name] + along[name]
                d = along[name] + local.momentum * buffers[name]
                step = d if local.nesterov else buffers[name]
                w -= factor(k, len(batches)) * own * step
    return seen


def assert_close(found, wanted, *, rtol=1e-4, atol=1e-6):
    """Compare tensors by name."""
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=name)
