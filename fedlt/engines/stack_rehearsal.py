"""Rehearsal of a stack before a run: train two clients on a few images, stacked and alone.

A method may stack without an error although its objective reads values that differ from client to
client and that the engine does not stack. Comparing the results with training alone shows this.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedlt.client import Trainer
from fedlt.engines.alike import describe_difference, group_alike
from fedlt.engines.lockstep import Task, TrainRequest, run_together
from fedlt.engines.probe import measure_seconds, method_name
from fedlt.engines.stack import Stack
from fedlt.errors import FedltError, one_line
from fedlt.optim.batch import Phase
from fedlt.worker.template import TemplateModel, UnstackableError
from fedlt.worker.training import train_alone

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.flower.adapter import ServerHalf
    from fedlt.worker.worker import Worker

IMAGES = 4  # a client: BatchNorm needs some
TRIALS = 3  # rounding may push an activation across zero in one trial, hardly in three
TOLERANCE = 0.05  # of the way that training moves the clients; rounding takes far less


@dataclass(frozen=True)
class _Trial:
    """Task of one client on a few images, one epoch a phase."""

    server: ServerHalf
    worker: Worker
    cid: int
    images: int
    number: int = 0  # which of the client's images

    def run(self, trainer: Trainer) -> Tensor:
        """Return the change of all tensors in the task's reply, as one flat tensor."""

        def train(client: Client, phase: Phase) -> dict[str, float]:
            epochs = 1 if phase.epochs is None else min(1, phase.epochs)
            return trainer(client, replace(phase, epochs=epochs))

        self.worker.trainer = train
        counts = self.server.prior_counts([self.cid])
        client = self.worker.first_client(self.server.state, self.cid, counts)
        indices = client.data.indices.roll(-self.number * self.images)[: self.images]
        client.data = replace(client.data, indices=indices)
        start = {**client.broadcast, **client.personal}
        update = self.worker.train(client)
        answer = {**update.plain, **update.personal, **update.sums}
        moved = [t.detach() - start[n] if n in start else t.detach() for n, t in answer.items()]
        return torch.cat([tensor.double().flatten() for tensor in moved])


def rehearse_stack(server: ServerHalf, workers: Sequence[Worker], template: TemplateModel) -> None:
    """Train the clients with the most images on a few of these images, alone and stacked.

    Raises:
        FedltError: If the clients cannot be stacked, with the reason.
    """
    config, sizes = server.view.config, workers[0].shares.sizes
    cids = np.resize(np.argsort(-sizes, kind="stable"), len(workers))
    images = int(min(IMAGES, config.local.batch_size, sizes[cids].min()))
    if images == 0:
        return
    trials = [_Trial(server, w, int(cid), images) for w, cid in zip(workers, cids, strict=True)]
    names = method_name(server.view)
    apart = np.inf
    for number in range(TRIALS):
        own = [replace(trial, number=number) for trial in trials]
        try:
            alone = torch.cat([trial.run(train_alone) for trial in own])
        except Exception as error:
            text = f"{names}: a trial on {images} images fails: {_reason(error)}"
            raise FedltError(text) from error
        try:
            tasks = [Task(trial.run) for trial in own]
            stacked = torch.cat(run_together(tasks, lambda requests: _train(requests, template)))
        except Exception as error:
            raise FedltError(_refusal(names, _reason(error))) from error
        apart = min(apart, _distance(alone, stacked))
        if apart <= TOLERANCE:
            return
    reason = f"a client's update is {apart:.1%} off the one that it makes alone: its objective is "
    raise FedltError(_refusal(names, f"{reason}not pure in parameters, batch and client.tensors"))


def time_stack(
    server: ServerHalf, workers: Sequence[Worker], template: TemplateModel, *, batches: int
) -> float:
    """Return the seconds for one batch of one client in a stack of ``workers``.

    Args:
        server: The server from whose state the clients begin.
        workers: One worker per client.
        template: The model that stands for the models of all clients.
        batches: Most batches of each client.
    """
    sizes, local = workers[0].shares.sizes, server.view.config.local
    cids = np.resize(np.argsort(-sizes, kind="stable"), len(workers))
    images = int(min(batches * local.batch_size, np.median(sizes[cids])))
    trials = [_Trial(server, w, int(cid), images) for w, cid in zip(workers, cids, strict=True)]

    def train() -> None:
        tasks = [Task(trial.run) for trial in trials]
        run_together(tasks, lambda requests: _train(requests, template))

    taken = sum(-(-min(images, int(size)) // local.batch_size) for size in sizes[cids])
    return measure_seconds(train) / max(taken, 1)


def _refusal(names: str, reason: str) -> str:
    return f"engine.name: 'stacked' cannot run {names}: {reason}; 'serial' and 'ray' can"


def _train(requests: list[TrainRequest], template: TemplateModel) -> None:
    first, *others = group_alike(requests)
    if others and len(requests) == 1 + len(others):
        what = describe_difference(first[0], others[0][0])
        raise UnstackableError(f"two clients differ in {what}")
    for group in (first, *others):
        Stack(template, group).train()


def _distance(alone: Tensor, stacked: Tensor) -> float:
    """Return the distance between stacked and separate training, relative to the change."""
    way, error = float(alone.norm()), float((stacked - alone).norm())
    return error / way if way and np.isfinite(way) else 0.0


def _reason(error: Exception) -> str:
    """Return an error in one line, with its place in the method's code.

    Torch's own messages are cut after their first sentence.
    """
    text = re.split(r"(?<=\.) (?=[A-Z])", one_line(error))[0].rstrip(". ")
    text = text.removeprefix(f"{UnstackableError.__name__}: ")
    machinery = (torch.__file__, __file__, inspect.getfile(TemplateModel))
    homes = {Path(file).parent for file in machinery}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not homes & set(Path(frame.filename).parents)
    ]
    if not frames:
        return text
    place = frames[-1]
    return f"{text} (in {place.name}, line {place.lineno} of {place.filename})"
