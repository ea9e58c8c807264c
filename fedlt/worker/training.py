"""One call of ``Client.train``: what it asks for, and the loop that answers it.

A trainer is the loop. :func:`train_alone` is the plain one; an engine may give clients another,
which must do the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, repeat
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.optim.adamw import AdamW
from fedlt.optim.sgd import ParameterGroup, Sgd, climb
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Batch, Client, Objective
    from fedlt.models import Model


@dataclass(frozen=True)
class Phase:
    """What one call of ``Client.train`` asks for."""

    objective: Objective  # gives the mean loss of a batch
    epochs: int  # passes over the client's data
    trained: tuple[str, ...]  # the parameters that SGD moves, in the model's order
    no_decay: tuple[str, ...] = ()  # prefixes of parameters that get no weight decay
    schedule: Schedule | None = None  # factor of every learning rate; None: always 1
    ascent: float = 0.0  # SAM's rho: the gradient is taken this far uphill
    batches: tuple[Batch, ...] | None = None  # these, instead of epochs of the plugin's
    optimizer: str = "sgd"  # or adamw

    def set_modes(self, model: Model) -> None:
        """Put a model into training mode; a backbone of which nothing is trained evaluates.

        So does a plugin's network.
        """
        model.train()
        networks = {f"networks.{name}.": part for name, part in model.networks.items()}
        for prefix, part in {"backbone.": model.backbone, **networks}.items():
            part.train(any(name.startswith(prefix) for name in self.trained))

    def factors(self, client: Client) -> Iterator[float]:
        """Yield the factor of the learning rates step by step, without an end.

        A plugin that makes more batches than plain ones keeps the last step's factor.
        """
        if self.schedule is None:
            yield from repeat(1.0)
            return
        planned = client.planned_steps(self.epochs) if self.batches is None else len(self.batches)
        for step in count():
            yield self.schedule(min(step, planned - 1), planned)


Schedule = Callable[[int, int], float]  # (step from 0, planned steps) -> factor
Trainer = Callable[["Client", Phase], dict[str, float]]


def phase_batches(client: Client, phase: Phase) -> Iterator[Batch]:
    """Yield the batches of a phase; of a client that is cut short, the first ones."""
    if phase.batches is None:
        yield from batches_of(client, phase.epochs)
    else:
        yield from phase.batches


def batches_of(client: Client, epochs: int) -> Iterator[Batch]:
    """Yield the batches of the next epochs; of a client that is cut short, the first ones."""
    start = client.epochs_done
    client.epochs_done += epochs
    every = chain.from_iterable(epoch_batches(client, start + e) for e in range(epochs))
    return islice(every, client.steps_in(epochs))


def epoch_batches(client: Client, epoch: int) -> Iterator[Batch]:
    """Yield an epoch of the plugin's batches, as its loss wants to see them."""
    generator = torch_generator(client.seed, "views", client.round, client.cid, epoch)
    return client.plugin.views(client, client.plugin.batches(client, epoch), generator)


def precision_of(client: Client) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the context in which ``local.precision`` wants an objective computed."""
    if client.local.precision == "float32":
        return nullcontext
    return partial(torch.autocast, client.data.images.device.type, torch.bfloat16)


def check_loss(loss: Tensor) -> Tensor:
    """Return the loss of one batch.

    Raises:
        ValueError: If it is no scalar tensor.
    """
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the loss must be a scalar tensor with a gradient, not {shape}")
    return loss


def parameter_groups(client: Client, phase: Phase) -> dict[tuple[float, float], list[str]]:
    """Return the trained parameters' names by (learning rate, weight decay)."""
    groups: dict[tuple[float, float], list[str]] = {}
    spared = (*phase.no_decay, *client.plugin.no_decay)
    for name in phase.trained:
        decay = 0.0 if name.startswith(spared) else client.local.weight_decay
        groups.setdefault((client.learning_rate(name), decay), []).append(name)
    return groups


def train_alone(client: Client, phase: Phase) -> dict[str, float]:
    """Train one client's model and return its metrics."""
    parameters = dict(client.model.named_parameters())
    trained = set(phase.trained)
    frozen = [p for n, p in parameters.items() if n not in trained and p.requires_grad]
    thawed = [parameters[n] for n in phase.trained if not parameters[n].requires_grad]
    groups = [
        ParameterGroup([parameters[name] for name in names], lr=lr, weight_decay=decay)
        for (lr, decay), names in parameter_groups(client, phase).items()
    ]
    is_adam = phase.optimizer == "adamw"
    optimizer = AdamW(groups) if is_adam else Sgd(groups, momentum=client.local.momentum)
    precision = precision_of(client)

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
        for batch, factor in zip(phase_batches(client, phase), phase.factors(client), strict=False):
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
