"""Training and evaluation mode of modules, and the parameters that a phase trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from torch import nn

from fedlt.errors import nearest

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


def chosen_names(
    model: Model, only: Iterable[str] | Literal["heads", "body"] | None, network: str | None
) -> tuple[str, ...]:
    """Return the names of the parameters that a phase trains, in the model's order.

    Args:
        model: The model.
        only: Names of parameters, ``heads``, or ``body`` (no heads); None: all.
        network: Name of a network of the plugin to train instead of the model.

    Raises:
        ValueError: If ``only`` has a name of no parameter.
    """
    parameters = dict(model.named_parameters())
    if only in ("heads", "body"):
        only = [n for n in parameters if n.startswith("heads.") == (only == "heads")]
    chosen = set(parameters) if only is None else set(only)
    for name in chosen - set(parameters):
        raise ValueError(f"only: no parameter {name!r}{nearest(name, parameters)}")
    wanted = {n for n, p in parameters.items() if p.requires_grad}
    if network is not None:
        own = (n for n in parameters if n.startswith(f"networks.{network}."))
        wanted = {name for name in own if model.group_of(name) != "fixed"}
    return tuple(n for n in parameters if n in chosen & wanted)


def set_training_modes(model: Model, trained: Sequence[str]) -> None:
    """Put a model into training mode, but parts without a trained parameter into evaluation mode.

    A part is the backbone, a frozen part of it, or a network of the client plugin. Evaluation mode
    keeps the BatchNorm statistics of an untrained part unchanged.

    Args:
        model: The model, changed in place.
        trained: Names of the parameters that are trained.
    """
    model.train()
    networks = {f"networks.{name}.": part for name, part in model.networks.items()}
    for prefix, part in {"backbone.": model.backbone, **networks}.items():
        part.train(any(name.startswith(prefix) for name in trained))
    for part in model.frozen_parts():
        part.eval()
