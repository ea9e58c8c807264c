"""DP-SGD: training of which every step sums clipped gradients of single images, plus noise.

Abadi et al., Deep learning with differential privacy, CCS 2016, https://arxiv.org/abs/1607.00133,
algorithm 1. A batch is drawn anew for every step, as the accountant assumes: every image by itself
with probability B / n (``poisson``), or B images without replacement (``fixed``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from fedlt.data.batches import make_batches
from fedlt.losses import under_vmap
from fedlt.optim.batch import Batch, Phase
from fedlt.privacy.noise import gaussian
from fedlt.rng import numpy_generator, torch_generator
from fedlt.worker.template import TemplateClient, TemplateModel
from fedlt.worker.training import check_loss, make_optimizer, step_factors

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.update import Tensors

CHUNK = 64  # images whose gradients are in memory at once


def train_on_samples(
    client: Client,
    phase: Phase,
    *,
    norm: float | None,
    noise: float,
    sampling: Literal["poisson", "fixed"],
) -> dict[str, float]:
    """Train one client's model by DP-SGD and return its metrics.

    A step is the optimiser's on (sum of clipped gradients + normal noise) / B, where B is the
    batch size of the file, or the client's images where these are fewer.

    Args:
        client: The client.
        phase: What to train.
        norm: Longest gradient of an image, all trained parameters as one vector; None: any.
        noise: Standard deviation of the noise over the norm.
        sampling: How the images of a step are drawn.

    Raises:
        ValueError: If the phase brings batches of its own, or takes steps of SAM.
    """
    if phase.batches is not None or phase.ascent:
        raise ValueError("privacy.mechanism sample: the strategy has batches or steps of its own")
    parameters = dict(client.model.named_parameters())
    optimizer = make_optimizer(client, phase, parameters)
    gradients = SampleGradients(client, phase)
    size = min(client.local.batch_size, client.data.num_examples)
    whole = client.planned_steps(phase.epochs) if size else 0
    steps = min(whole, client.steps_in(phase.epochs) or whole)  # fewer for a straggler
    done, deviation = client.steps_done, noise * (norm or 0.0)
    loss_sum, examples, clipped = 0.0, 0, 0
    for step, factor in zip(range(steps), step_factors(client, phase), strict=False):
        batch = _drawn(client, done + step, size, sampling)
        total, loss, cut = gradients.clipped_sum(batch, norm)
        key = (client.round, client.cid, done + step)
        if deviation:
            drawn = gaussian(parameters, phase.trained, deviation, *key, seed=client.seed)
            total = {name: total[name] + drawn[name].to(total[name].device) for name in total}
        for name in phase.trained:
            parameters[name].grad = total[name] / size
        optimizer.step(factor)
        loss_sum += loss
        clipped += cut
        examples += 0 if batch is None else len(batch.labels)
    optimizer.zero_grad()
    sums = {"loss": loss_sum, "examples": float(examples), "clipped": float(clipped)}
    return {**sums, "steps": float(steps)}


class SampleGradients:
    """Gradients of the loss on single images, clipped and summed.

    The objective is evaluated for many images at once under ``torch.func.vmap``, each with the
    model of its own image in a batch of one. What an objective may read is that of the stacked
    engine: :class:`fedlt.worker.template.TemplateClient`.
    """

    def __init__(self, client: Client, phase: Phase) -> None:
        self._client, self._phase = client, phase
        self._template = TemplateModel(client.model)
        self._seen = TemplateClient(client, client.model)
        self._trained = [name in set(phase.trained) for name in self._template.names]

    def clipped_sum(self, batch: Batch | None, norm: float | None) -> tuple[Tensors, float, int]:
        """Return the sum of the images' clipped gradients by name.

        And the sum of their losses, and the number of images whose gradient was longer than the
        norm.
        """
        state = self._client.model.state()
        total = {n: torch.zeros_like(state[n], requires_grad=False) for n in self._phase.trained}
        loss_sum, clipped = 0.0, 0
        if batch is None:
            return total, loss_sum, clipped
        for images, labels in zip(
            torch.split(batch.images, CHUNK), torch.split(batch.labels, CHUNK), strict=True
        ):
            losses, found = self._of(images, labels)
            squares = [g.square().reshape(len(g), -1).sum(1) for g in found.values()]
            lengths = torch.stack(squares).sum(0).sqrt()  # (k,)
            factors = torch.ones_like(lengths)
            if norm is not None:
                clipped += int((lengths > norm).sum())
                factors = torch.where(lengths > norm, norm / lengths, factors)
            for name, gradient in found.items():
                total[name] += torch.einsum("k,k...->...", factors, gradient)
            loss_sum += float(losses.sum())
        return total, loss_sum, clipped

    def _of(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensors]:
        """Return the losses (k,) and the gradients (k, ...) of some images."""
        state = self._client.model.state()
        names, count = self._template.names, len(labels)
        rows = [state[name].detach().expand(count, *state[name].shape) for name in names]
        leaves = {
            name: row.requires_grad_()
            for name, row, is_trained in zip(names, rows, self._trained, strict=True)
            if is_trained
        }
        tensors = dict(self._client.tensors)

        def loss_of(image: Tensor, label: Tensor, *values: Tensor) -> Tensor:
            self._template.put(values, self._trained)
            self._seen.tensors = tensors
            single = Batch(image.unsqueeze(0), label.unsqueeze(0))
            return check_loss(self._phase.objective(cast("Client", self._seen), single))

        with self._template.lent(), under_vmap():
            losses: Tensor = vmap(loss_of, randomness="different")(images, labels, *rows)
            found = torch.autograd.grad(losses.sum(), [*leaves.values()], allow_unused=True)
        zeros = (torch.zeros_like(leaf) for leaf in leaves.values())
        return losses.detach(), {
            name: nothing if gradient is None else gradient
            for (name, _), gradient, nothing in zip(leaves.items(), found, zeros, strict=True)
        }


def _drawn(
    client: Client, step: int, size: int, sampling: Literal["poisson", "fixed"]
) -> Batch | None:
    """Return the batch of a step; None for an empty one."""
    data, key = client.data, (client.round, client.cid, step)
    draw, count = numpy_generator(client.seed, "dp batch", *key), data.num_examples
    if sampling == "poisson":
        chosen = np.flatnonzero(draw.random(count) < size / count)
    else:
        chosen = np.sort(draw.choice(count, size, replace=False))
    for images, rows in _images(client, chosen, key):
        return Batch(images, data.labels[rows], origin=(data.images, rows))
    return None


def _images(
    client: Client, chosen: np.ndarray, key: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    data = client.data
    indices = data.indices[torch.from_numpy(chosen).to(data.indices.device)]
    yield from make_batches(
        data.images,
        indices,
        batch_size=max(len(chosen), 1),
        augment=client.local.augment,
        mean=data.mean,
        std=data.std,
        generator=torch_generator(client.seed, "dp images", *key),
    )
