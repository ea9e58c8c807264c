"""Training and evaluation mode of modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from fedlt.models.model import Model


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside the block; every submodule's mode is restored."""
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in was_training:
            part.training = True


def set_training_modes(model: Model, trained: Sequence[str]) -> None:
    """Put a model into training mode, but parts without a trained parameter into evaluation mode.

    A part is the backbone or a network of the client plugin. Evaluation mode keeps the BatchNorm
    statistics of an untrained part unchanged.

    Args:
        model: The model, changed in place.
        trained: Names of the parameters that are trained.
    """
    model.train()
    networks = {f"networks.{name}.": part for name, part in model.networks.items()}
    for prefix, part in {"backbone.": model.backbone, **networks}.items():
        part.train(any(name.startswith(prefix) for name in trained))
