"""DeiT-LT: Rangwani et al., Distillation strikes back for vision transformers on long-tailed data.

CVPR 2024, https://arxiv.org/abs/2404.02900
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedlt.client import PluginTraits
from fedlt.config.ranges import Count, NotNegative, Share
from fedlt.data.views import single_view
from fedlt.errors import FedltError
from fedlt.losses import mean_weight, soft_cross_entropy, weighted_distillation
from fedlt.methods.taught import TaughtPlugin, mix_batch
from fedlt.models.vit import NO_DECAY, DistilledViT, fuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.models import Model

_SMALL = 16  # images; in smaller batches, dividing by the sum of the weights undoes them


@dataclass(frozen=True)
class DeitLT(TaughtPlugin):
    """Vision transformer: its CLS token learns the labels, its DIST token a CNN's predictions.

    The CNN is the teacher, built by the file's ``model:``. The teacher predicts on the student's
    mixed strong views, on which it was never trained. From ``drw_start`` on images are not mixed,
    and the DIST loss weights the classes that the teacher predicts.
    """

    traits = PluginTraits(
        stream_heads=True,
        weighs_images=True,
        views_images=True,
        normed_features=True,
        no_decay=NO_DECAY,
    )

    alpha: Share = 0.5  # share of the DIST loss
    warmup: Share = 0.1  # share of the rounds before the DIST loss starts; for a co-teacher
    drw_start: Share = 0.9  # share of the rounds with mixing, without class weights
    drw_norm: Literal["auto", "batch", "fixed"] = "auto"  # batch: the paper; auto: from 16 images
    mixup: NotNegative = 0.8  # alpha of mixup; 0: no mixup
    cutmix: NotNegative = 1.0  # alpha of CutMix; 0: no CutMix
    smoothing: Annotated[float, Field(ge=0, le=0.999)] = 0.1  # of labels, while images are mixed
    strong: Literal["autoaugment", "distort", "none"] = "autoaugment"  # distort: cheaper
    head_fusion: Literal["logits", "probs", "cls", "dist"] = "logits"
    patch: Count | None = None  # pixels a side; None: chosen by image size
    width: Annotated[int, Field(ge=1, le=4096)] = 64  # features of a token
    depth: Annotated[int, Field(ge=1, le=100)] = 4  # blocks
    heads: Annotated[int, Field(ge=1, le=4096)] = 4  # attention heads
    mlp_ratio: Annotated[float, Field(ge=0, le=100)] = 2.0
    drop_path: Annotated[float, Field(ge=0, le=0.999)] = 0.0  # 0.1 in the paper

    def build(self, model: Model) -> None:
        """Replace the model's backbone by the student; the old backbone becomes the teacher."""
        if model.image_shape is None:
            raise FedltError("client deit_lt: the model says no image_shape to size a student for")
        cnn, shape = model.backbone, model.image_shape
        sizes = ("patch", "width", "depth", "heads", "mlp_ratio", "drop_path")
        model.backbone = DistilledViT(shape, **{n: getattr(self, n) for n in sizes})
        model.name_streams("cls", "dist")
        model.use_stream_heads()
        self.add_teacher(model, cnn)

    def setup(self, client: Client) -> None:
        """Compute this round's class weights of the DIST loss, and their mean over images."""
        super().setup(client)
        weights = self.class_weights(client, self.drw_start)
        client.tensors["dist_weights"] = weights
        client.tensors["dist_mean"] = mean_weight(client.tensors["known_counts"], weights)

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the student's views, with soft targets and the teacher's predicted classes."""
        is_late, data = client.round > self.drw_start * client.rounds, client.data
        rule = {"mixup": self.mixup, "cutmix": self.cutmix, "smoothing": self.smoothing}
        rule = dict.fromkeys(rule, 0.0) if is_late else rule
        for batch in batches:
            view = single_view(batch.images, data.mean, data.std, generator, kind=self.strong)
            mixed = mix_batch(batch, view, len(data.class_counts), generator, **rule)
            if self.teacher != "none":
                mixed.extra["taught"] = self.answers(client, mixed.images)  # the student's tensor
            yield mixed

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return (1 - alpha) CE(cls, targets) + alpha CE(dist, teacher); late: class-weighted."""
        cls, dist = logits.unbind(dim=1)  # (B, C) each
        targets, taught = batch.extra["targets"], batch.extra.get("taught")
        labelled = soft_cross_entropy(cls, targets)
        if taught is None:
            return (1 - self.alpha) * labelled + self.alpha * soft_cross_entropy(dist, targets)
        begins = self.teacher != "pretrained_federated"
        share = 0.0 if begins and client.round <= self.warmup * client.rounds else self.alpha
        by_batch = self.drw_norm == "batch" or (self.drw_norm == "auto" and len(taught) >= _SMALL)
        mean = None if by_batch else client.tensors["dist_mean"]
        tail = weighted_distillation(dist, taught, client.tensors["dist_weights"], mean=mean)
        return (1 - share) * labelled + share * tail

    def predict(self, logits: Tensor) -> Tensor:
        """Return logits (B, C), fused from the logits (B, 2, C) of the two tokens."""
        return fuse(logits, self.head_fusion)
