"""Train clients as one batched model: stacked tensors, ``torch.func.vmap`` of the objective.

    values   {name: (K, ...)}   the K models' parameters and buffers, one row a client
    step     the clients whose next batches look the same -> rows of values, batches (k, B, ...)
             losses (k,) = vmap(objective)(rows, batches);  gradients of their sum;  SGD on rows

A client's loss depends on its own row only, so the gradient of the sum is every client's own. No
row is padded: a client with a batch of another size waits for a step with batches of that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from torch import Tensor
from torch.func import vmap

from fedlt.client import Batch, Client
from fedlt.engines.lockstep import TrainRequest
from fedlt.engines.stack_batches import Stream, largest_group
from fedlt.losses import under_vmap
from fedlt.models.modes import set_training_modes
from fedlt.optim.adamw import AdamMoments, adamw
from fedlt.optim.sgd import climb, clipped, descend, descend_rows
from fedlt.update import Tensors
from fedlt.worker.template import TemplateClient, TemplateModel
from fedlt.worker.training import check_loss, parameter_groups, precision_of


class Momentum(TypedDict):
    """Arguments of :func:`fedlt.optim.sgd.descend` about momentum."""

    momentum: float
    nesterov: bool


@dataclass
class Rows:
    """Rows of some clients in a stack, ready for a step; one row alone has no first dimension."""

    index: Tensor  # (k,) their positions
    values: list[Tensor]  # (k, ...) each, in the template's order
    leaves: dict[str, Tensor]  # the trained values
    momentum: dict[str, Tensor | None]  # (k, ...) of the leaves
    squares: Tensors  # likewise: AdamW's second moments
    tensors: list[Tensor]  # (k, ...) the clients' own tensors
    is_copy: bool  # the rows are copies, written back after the step


class Stack:
    """Stack of clients that are trained together, once.

    Args:
        template: The model that stands for the models of all clients.
        requests: The clients' requests, of one group of :func:`fedlt.engines.alike.group_alike`.
    """

    def __init__(self, template: TemplateModel, requests: Sequence[TrainRequest]) -> None:
        self._requests = sorted(requests, key=lambda r: -r.client.data.num_examples)
        clients = [request.client for request in self._requests]
        first, self._phase = clients[0], self._requests[0].phase
        states = [client.model.state() for client in clients]
        self._template = template
        self._values = {n: torch.stack([state[n] for state in states]) for n in template.names}
        self._tensors = [torch.stack([c.tensors[name] for c in clients]) for name in first.tensors]
        self._names = tuple(first.tensors)
        self._groups = parameter_groups(first, self._phase)
        self._local, is_adam = first.local, self._phase.optimizer == "adamw"
        self._momentum: dict[str, Tensor | None] = {
            name: torch.zeros_like(self._values[name]) if self._local.momentum or is_adam else None
            for name in self._phase.trained
        }
        self._squares = {n: torch.zeros_like(self._values[n]) for n in self._momentum if is_adam}
        self._is_trained = [name in self._momentum for name in template.names]
        self._rule = Momentum(momentum=first.local.momentum, nesterov=first.local.nesterov)
        self._precision = precision_of(first)
        self._client = TemplateClient(first, template.model)
        self._losses = torch.zeros(len(clients), device=next(iter(states[0].values())).device)
        self._examples, self._steps = [0] * len(clients), [0] * len(clients)
        self._known: dict[tuple[int, ...], Rows] = {}
        self._stacked_loss = vmap(self._loss, randomness="error")

    def train(self) -> None:
        """Run the epochs of every client; write each client's model and metrics."""
        set_training_modes(self._template.model, self._phase.trained)
        streams = [Stream(request) for request in self._requests]
        with self._template.lent():
            while chosen := largest_group(streams):
                batches = [streams[position].take() for position in chosen]
                self._step(chosen, batches, [streams[position].factor for position in chosen])
        losses = self._losses.tolist()
        changed = (*self._phase.trained, *self._template.model.buffer_names())
        for position, request in enumerate(self._requests):
            own = {name: self._values[name][position] for name in changed}
            request.client.model.load(own, changed)
            request.metrics = {
                "loss": losses[position],
                "examples": float(self._examples[position]),
                "steps": float(self._steps[position]),
            }

    def _step(self, chosen: tuple[int, ...], batches: list[Batch], factors: list[float]) -> None:
        """Take one optimiser step with the clients at positions ``chosen``."""
        rows = self._known.get(chosen) or self._rows(chosen)
        losses, gradients = self._backward(rows, batches)
        if self._phase.ascent:
            leaves, rho = rows.leaves, self._phase.ascent
            uphill = [gradients[name] for name in leaves]
            kept = [value for value in rows.values if not value.requires_grad]  # buffers
            rows_apart = len(batches) > 1
            with climb(list(leaves.values()), uphill, kept, rho, rows=rows_apart):
                _, gradients = self._backward(rows, batches)
        if self._local.clip is not None:
            gradients = self._clipped(gradients, self._local.clip, rows_apart=len(batches) > 1)
        if self._squares:
            self._adapt(rows, gradients, factors, chosen)
        else:
            self._descend(rows, gradients, factors)
        if rows.is_copy:
            self._write_back(rows)
        size = len(batches[0].labels)
        self._losses.index_add_(0, rows.index, losses.detach().view(-1), alpha=size)
        for position in chosen:
            self._examples[position] += size
            self._steps[position] += 1

    def _forward(self, rows: Rows, batches: list[Batch]) -> Tensor:
        """Return the clients' losses."""
        first = batches[0]
        if len(batches) == 1:
            return self._loss(first.images, first.labels, first.extra, rows.tensors, rows.values)
        images = torch.stack([batch.images for batch in batches])  # (k, B, Ch, H, W)
        labels = torch.stack([batch.labels for batch in batches])  # (k, B)
        extra = {name: torch.stack([b.extra[name] for b in batches]) for name in first.extra}
        with under_vmap():
            losses: Tensor = self._stacked_loss(images, labels, extra, rows.tensors, rows.values)
        return losses

    def _loss(
        self,
        images: Tensor,
        labels: Tensor,
        extra: Tensors,
        tensors: list[Tensor],
        values: list[Tensor],
    ) -> Tensor:
        """Return the loss of one client; inside ``vmap``, the losses of all clients."""
        self._template.put(values, self._is_trained)
        self._client.tensors = dict(zip(self._names, tensors, strict=True))
        client = cast(Client, self._client)
        return check_loss(self._phase.objective(client, Batch(images, labels, extra)))

    def _backward(
        self, rows: Rows, batches: list[Batch]
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Return the losses, (k,) or () for one client, and the gradients of the leaves."""
        with self._precision():
            losses = self._forward(rows, batches)
        if not losses.requires_grad:
            raise ValueError("the loss must be a scalar tensor with a gradient, this has none")
        found = torch.autograd.grad(
            losses, list(rows.leaves.values()), torch.ones_like(losses), allow_unused=True
        )
        return losses, dict(zip(rows.leaves, found, strict=True))

    @staticmethod
    def _clipped(
        gradients: dict[str, Tensor | None], longest: float, *, rows_apart: bool
    ) -> dict[str, Tensor | None]:
        """Return the gradients, those of every client shortened to a norm of ``longest``."""
        given = {name: grad for name, grad in gradients.items() if grad is not None}
        short = clipped([*given.values()], longest, rows=rows_apart)
        return {**gradients, **dict(zip(given, short, strict=True))}

    def _descend(
        self, rows: Rows, gradients: dict[str, Tensor | None], factors: list[float]
    ) -> None:
        """Take an SGD step with every parameter that has a gradient."""
        same = len(set(factors)) == 1
        for (lr, decay), names in self._groups.items():
            given = {n: grad for n in names if (grad := gradients[n]) is not None}
            lists = (
                [rows.leaves[name] for name in given],
                list(given.values()),
                [rows.momentum[name] for name in given],
            )
            if same:
                rate = lr * factors[0]
                descend(*lists, lr=rate, weight_decay=decay, **self._rule)
            else:
                rates = lr * torch.tensor(factors, device=self._losses.device)
                descend_rows(*lists, rates=rates, weight_decay=decay, **self._rule)

    def _adapt(
        self,
        rows: Rows,
        gradients: dict[str, Tensor | None],
        factors: list[float],
        chosen: tuple[int, ...],
    ) -> None:
        """Take an AdamW step with every parameter that has a gradient."""
        taken = [[self._steps[position] + 1.0 for position in chosen], factors]
        steps, scales = torch.tensor(taken, dtype=torch.float64, device=self._losses.device)
        if len(chosen) == 1:
            steps, scales = steps[0], scales[0]
        for (lr, decay), names in self._groups.items():
            for name in names:
                first, gradient = rows.momentum[name], gradients[name]
                if first is not None and gradient is not None:
                    adamw(
                        rows.leaves[name],
                        gradient,
                        AdamMoments(first, rows.squares[name]),
                        steps=steps,
                        rates=lr * scales,
                        weight_decay=decay,
                    )

    def _rows(self, chosen: tuple[int, ...]) -> Rows:
        """Return the rows at positions ``chosen``: views of contiguous rows, else copies."""
        index = torch.tensor(chosen, device=self._losses.device)
        first, last = chosen[0], chosen[-1]
        is_copy = last - first >= len(chosen)

        def take(stacked: Tensor) -> Tensor:
            if is_copy:
                return stacked.index_select(0, index)
            return stacked[first] if len(chosen) == 1 else stacked[first : last + 1]

        values = [take(value).detach() for value in self._values.values()]
        leaves = {}
        for name, value, is_trained in zip(self._values, values, self._is_trained, strict=True):
            if is_trained:
                leaves[name] = value.requires_grad_()
        momentum = {n: None if m is None else take(m) for n, m in self._momentum.items()}
        tensors = [take(tensor) for tensor in self._tensors]
        squares = {name: take(square) for name, square in self._squares.items()}
        rows = Rows(index, values, leaves, momentum, squares, tensors, is_copy)
        if not is_copy:
            self._known[chosen] = rows
        return rows

    @torch.no_grad()
    def _write_back(self, rows: Rows) -> None:
        """Copy the values changed by a step from copied rows to the stack."""
        for name, row in zip(self._template.names, rows.values, strict=True):
            self._values[name].index_copy_(0, rows.index, row)
        for name, buffer in rows.momentum.items():
            own = self._momentum[name]
            if own is not None and buffer is not None:
                own.index_copy_(0, rows.index, buffer)
        for name, square in rows.squares.items():
            self._squares[name].index_copy_(0, rows.index, square)
