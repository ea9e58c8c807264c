"""A network that teaches another one by its answers, and where its weights may come from."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.heads import CosineHead, LinearHead
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.strategy import prefixed, under

_TEACHER = "the teacher, which is the file's `model:` with the head of teacher_loss"


class Teacher(nn.Module):
    """A backbone with one head of its own.

    Args:
        backbone: Module ``(B, Ch, H, W) -> (B, S, D)`` with ``num_features`` (D).
        num_classes: Number of classes C.
        scale: Of a cosine head; None for a linear one.
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
    """Load the generic model of a finished run: its backbone, and its head called ``head``.

    Args:
        teacher: Its tensors are written.
        folder: The run's directory.
        option: Names it in errors.
        what: Says in errors what it has to be.

    Raises:
        FedltError: If there is no checkpoint, or its model is another one.
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
