"""Teacher: a network whose predictions another network learns from, and loading its weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.heads import CosineHead, LinearHead
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.strategy import prefixed, under

_TEACHER = "the teacher, which is the file's `model:` with the head of teacher_loss"


class Teacher(nn.Module):
    """Teacher network: a backbone with one head of its own.

    Args:
        backbone: Module ``(B, Ch, H, W) -> (B, S, D)`` with ``num_features`` (D).
        num_classes: Number of classes C.
        scale: Scale of a cosine head; None for a linear head.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, *, scale: float | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        size = (int(backbone.num_features), num_classes)  # type: ignore[arg-type]
        self.head = LinearHead(*size) if scale is None else CosineHead(*size, scale)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to logits (B, C), the mean over the backbone's streams."""
        logits: Tensor = self.head(self.backbone(images))
        return logits.mean(dim=1)


def load_teacher(
    teacher: Teacher, folder: str, *, option: str = "weights_path", what: str = _TEACHER
) -> None:
    """Load a finished run's generic model into a teacher: the backbone, and the head ``head``.

    Args:
        teacher: The teacher whose tensors are written.
        folder: The run directory.
        option: The name of the option, for errors.
        what: The required kind of run, for errors.

    Raises:
        FedltError: If there is no checkpoint, or the checkpoint's model does not fit.
    """
    found = load_checkpoint(Path(folder) / "checkpoints")
    if found is None:
        raise FedltError(f"{option}: no run with a checkpoint lies in {folder!r}")
    sent = {**found.tensors.get("fixed", {}), **found.tensors.get("broadcast", {})}
    head = prefixed("head.", under("heads.head.", sent))
    given = {**prefixed("backbone.", under("backbone.", sent)), **head}
    own = teacher.state_dict()
    for name in {**own, **given}:
        if name not in given or name not in own or given[name].shape != own[name].shape:
            raise FedltError(
                f"{option}: the model of {folder!r} does not fit {what}: they differ in {name!r}"
            )
    teacher.load_state_dict(given)
