"""Client plugin with a teacher: a second network whose predictions the model learns from.

co_teacher             shared: averaged like the model; clients train the teacher every round
pretrained_federated   fixed: the model of a finished run, sent once
local                  personal: every client trains its own
none                   no teacher: to compare with

DeiT-LT (clients/deit_lt.py) is such a plugin. Nothing here depends on the student.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Final, Literal

import torch
from pydantic import Field
from torch import nn

from fedlt.client import Batch, ClientPlugin
from fedlt.config.ranges import Count, NotNegative, Positive, Share, ShareBelowOne
from fedlt.data.mixing import mix
from fedlt.losses import ldam, ldam_margins, reweighting
from fedlt.methods.teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Client
    from fedlt.models import Group, Model

GROUPS: Final[dict[str, Group]] = {
    "co_teacher": "shared",
    "pretrained_federated": "fixed",
    "local": "personal",
}
_SCALE, _MARGIN = 30.0, 0.5  # of the teacher's cosines: LDAM's s and largest margin


def mix_batch(
    batch: Batch,
    images: Tensor,
    num_classes: int,
    generator: torch.Generator,
    *,
    mixup: float,
    cutmix: float,
    smoothing: float,
) -> Batch:
    """Return a batch of mixed views with soft ``targets`` (B, C).

    The labels are the classes of the larger parts. A mixture of the client's own image and of
    another image does not count as the client's own.

    Args:
        batch: The images' labels and extras.
        images: A view of each image, (B, Ch, H, W).
        num_classes: C.
        generator: For :func:`fedlt.data.mixing.mix`, which has the other arguments.
        mixup: Alpha of mixup.
        cutmix: Alpha of CutMix.
        smoothing: Label smoothing.
    """
    rule = {"mixup": mixup, "cutmix": cutmix, "smoothing": smoothing}
    mixed, targets, larger = mix(images, batch.labels, num_classes, generator, **rule)
    extra = {**batch.extra, "targets": targets}
    if "own" in extra and (mixup or cutmix):
        extra["own"] = torch.minimum(extra["own"], extra["own"].roll(1, 0))
    return Batch(mixed, larger, extra)


@dataclass(frozen=True)
class TaughtPlugin(ClientPlugin):
    """Client plugin with a CNN teacher, trained on weak views by LDAM or cross-entropy, DRW, SAM.

    LDAM-DRW: Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413. With SAM: Rangwani et al.,
    Escaping saddle points for effective generalization on class-imbalanced data, NeurIPS 2022,
    https://arxiv.org/abs/2212.13827. The class counts are global where ``prior.source`` lets the
    server know the counts, else the client's own.
    """

    teacher: Literal["co_teacher", "pretrained_federated", "local", "none"] = "co_teacher"
    weights_path: str = ""  # the run directory of a pretrained teacher
    teacher_loss: Literal["ldam", "ce"] = "ldam"
    teacher_epochs: Count = 1  # passes over the client's images a round
    teacher_lr: Positive = 0.05  # highest rate; the optimiser is SGD with local.momentum
    teacher_schedule: Literal["cosine", "step", "constant"] = "cosine"  # over all rounds, to 0
    teacher_rho: NotNegative = 0.8  # of SAM; 0: plain SGD
    teacher_drw_start: Share = 0.8  # share of the rounds before class weights start
    beta: ShareBelowOne = 0.9999  # of the effective numbers
    drw_cap: Annotated[float, Field(ge=1)] | None = None  # of two weights' ratio; None: no cap

    def __post_init__(self) -> None:
        """Compare the hyperparameters with each other."""
        if bool(self.weights_path) != (self.teacher == "pretrained_federated"):
            reason = "the directory of the run that trained the teacher"
            raise ValueError(
                f"weights_path: teacher pretrained_federated, and no other, needs {reason}; "
                f"it is {self.weights_path!r} with teacher {self.teacher!r}"
            )

    def add_teacher(self, model: Model, backbone: nn.Module) -> None:
        """Add the network ``teacher``, made from a backbone, unless the method has no teacher.

        Raises:
            FedltError: If the weights cannot be loaded or do not fit.
        """
        if self.teacher == "none":
            return
        scale = _SCALE if self.teacher_loss == "ldam" else None
        network = Teacher(backbone, model.num_classes, scale=scale)
        if self.weights_path:
            load_teacher(network, self.weights_path)
        model.add_network("teacher", network, group=GROUPS[self.teacher])

    def class_weights(self, client: Client, start: float) -> Tensor:
        """Return the class weights (C,) of a loss that re-weights after a share of the rounds."""
        cap = math.inf if self.drw_cap is None else self.drw_cap
        weights = reweighting(client.tensors["known_counts"], beta=self.beta, cap=cap)
        return weights if client.round > start * client.rounds else torch.ones_like(weights)

    def setup(self, client: Client) -> None:
        """Set the teacher's margins and this round's class weights."""
        counts = client.tensors["known_counts"]
        margins = _SCALE * ldam_margins(counts, max_margin=_MARGIN)
        is_ldam = self.teacher_loss == "ldam"
        client.tensors["teacher_margins"] = margins if is_ldam else torch.zeros_like(margins)
        client.tensors["teacher_weights"] = self.class_weights(client, self.teacher_drw_start)

    def teaching(self, client: Client, batch: Batch) -> Tensor:
        """Return the teacher's own loss, divided by the sum of the batch's class weights."""
        logits = client.model.networks["teacher"](batch.images)  # (B, C)
        tensors = client.tensors
        return ldam(logits, batch.labels, tensors["teacher_margins"], tensors["teacher_weights"])

    def train_networks(self, client: Client) -> dict[str, float]:
        """Train a teacher that is not fixed; return how often the teacher names the view's label.

        ``agreement`` is the share in the first batch, before this round's training. DeiT-LT wants a
        low agreement, by strong and mixed views.
        """
        metrics = {}
        if self.teacher in ("co_teacher", "local"):
            metrics["teacher_loss"] = self._train_teacher(client)
        if self.teacher != "none":
            batch = next(client.epoch_batches(0), None)
            named = None if batch is None else self.answers(client, batch.images) == batch.labels
            metrics["agreement"] = 0.0 if named is None else float(named.float().mean())
        return metrics

    def teacher_rate(self, client: Client) -> float:
        """Return the teacher's learning rate in this round."""
        return self.teacher_lr * rate_factor(self.teacher_schedule, client.round, client.rounds)

    def _train_teacher(self, client: Client) -> float:
        """Train on plain batches, skipping single images, which give BatchNorm no statistics."""
        epochs = range(self.teacher_epochs)
        plain = chain.from_iterable(ClientPlugin.batches(self, client, epoch) for epoch in epochs)
        weak = islice(plain, client.steps_in(self.teacher_epochs))
        done = client.train(
            self.teaching,
            network="teacher",
            no_decay=("networks.",),  # the file's is the student's
            batches=[batch for batch in weak if len(batch.labels) > 1],
            schedule=partial(_constant, self.teacher_rate(client) / client.local.lr),
            ascent=self.teacher_rho,
            optimizer="sgd",
        )
        return done["loss"] / max(done["examples"], 1.0)

    def answers(self, client: Client, images: Tensor) -> Tensor:
        """Return the predicted classes (B,) of the teacher as of the beginning of the round."""
        received = {**client.broadcast, **client.personal}
        return client.frozen_network("teacher", received, images).argmax(dim=-1)


def rate_factor(schedule: str, round_: int, rounds: int) -> float:
    """Return the factor of a teacher's learning rate in a round.

    Args:
        schedule: ``cosine``: (1 + cos(pi t)) / 2, t the share of the rounds that are over.
            ``step``: the recipe of LDAM-DRW with SAM on CIFAR, 200 epochs: growth over the first 5
            (2.5 %), 0.01 after 160 (80 %) and 0.0001 after 180 (90 %). ``constant``: 1.
        round_: From 1.
        rounds: Of the run.
    """
    over = (round_ - 1) / rounds
    if schedule == "cosine":
        return (1 + math.cos(math.pi * over)) / 2
    if schedule == "step":
        grown = min(1.0, round_ / (0.025 * rounds))
        return grown * (1e-4 if over >= 0.9 else 0.01 if over >= 0.8 else 1.0)
    return 1.0


def _constant(rate: float, step: int, steps: int) -> float:
    return rate
