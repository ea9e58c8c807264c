"""The training loop behind ``Client.train``.

A trainer is the loop. :func:`train_alone` is the plain one; an engine may give clients another,
which must do the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, repeat
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.optim.adamw import AdamW
from fedlt.optim.batch import Phase
from fedlt.optim.sgd import Optimizer, ParameterGroup, Sgd, climb

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.optim.batch import Batch


def step_factors(client: Client, phase: Phase) -> Iterator[float]:
    """Yield the factor of the learning rates step by step, without an end.

    A plugin that makes more batches than plain ones keeps the last step's factor.
    """
    if phase.schedule is None:
        yield from repeat(1.0)
        return
    steps = client.planned_steps(phase.epochs) if phase.batches is None else len(phase.batches)
    for step in count():
        yield phase.schedule(min(step, steps - 1), steps)


def phase_batches(client: Client, phase: Phase) -> Iterator[Batch]:
    """Yield the batches of a phase; for a straggler, only the first batches."""
    if phase.batches is None:
        yield from client.batches(phase.epochs)
    else:
        yield from phase.batches


def precision_of(client: Client) -> Callable[[], AbstractContextManager[object]]:
    """Return a factory of the autocast context for ``local.precision``."""
    if client.local.precision == "float32":
        return nullcontext
    return partial(torch.autocast, client.data.images.device.type, torch.bfloat16)


def check_loss(loss: Tensor) -> Tensor:
    """Return the loss of one batch.

    Raises:
        ValueError: If the loss is no scalar tensor.
    """
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the loss must be a scalar tensor with a gradient, not {shape}")
    return loss


def parameter_groups(client: Client, phase: Phase) -> dict[tuple[float, float], list[str]]:
    """Return the trained parameters' names by (learning rate, weight decay)."""
    groups: dict[tuple[float, float], list[str]] = {}
    spared = (*phase.no_decay, *client.plugin.traits.no_decay)
    for name in phase.trained:
        decay = 0.0 if name.startswith(spared) else client.local.weight_decay
        groups.setdefault((client.learning_rate(name), decay), []).append(name)
    return groups


def make_optimizer(client: Client, phase: Phase, parameters: Mapping[str, Tensor]) -> Optimizer:
    """Return the optimiser of a phase over its trained parameters, or over others of their names.

    Args:
        client: The client, for its settings.
        phase: The phase.
        parameters: The parameters by name.
    """
    local = client.local
    groups = [
        ParameterGroup([parameters[name] for name in names], lr=lr, weight_decay=decay)
        for (lr, decay), names in parameter_groups(client, phase).items()
    ]
    if phase.optimizer == "adamw":
        return AdamW(groups, clip=local.clip)
    return Sgd(groups, momentum=local.momentum, nesterov=local.nesterov, clip=local.clip)


def train_alone(client: Client, phase: Phase) -> dict[str, float]:
    """Train one client's model and return its metrics."""
    parameters = dict(client.model.named_parameters())
    trained = set(phase.trained)
    frozen = [p for n, p in parameters.items() if n not in trained and p.requires_grad]
    thawed = [parameters[n] for n in phase.trained if not parameters[n].requires_grad]
    optimizer, precision = make_optimizer(client, phase, parameters), precision_of(client)

    def backward(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        with precision():
            loss = check_loss(phase.objective(client, batch))
        if not loss.requires_grad:
            raise ValueError("the loss must be a scalar tensor with a gradient, this has none")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    loss_sum = torch.zeros((), device=client.data.images.device)
    examples = steps = 0
    for parameter in (*frozen, *thawed):
        parameter.requires_grad_(not parameter.requires_grad)
    try:
        for batch, factor in zip(
            phase_batches(client, phase), step_factors(client, phase), strict=False
        ):
            loss = backward(batch)
            if phase.ascent:
                moved = [parameters[name] for name in phase.trained]
                with climb(moved, [p.grad for p in moved], client.model.buffers(), phase.ascent):
                    backward(batch)
            optimizer.step(factor)
            loss_sum += loss * len(batch.labels)
            examples += len(batch.labels)
            steps += 1
    finally:
        for parameter in (*frozen, *thawed):
            parameter.requires_grad_(not parameter.requires_grad)
    return {"loss": float(loss_sum), "examples": float(examples), "steps": float(steps)}
