"""``ScoredModel``: images as the data set holds them in, fused logits of one head out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fedlt.data.augment import normalize
from fedlt.update import HeadFunction


class BoundHead(nn.Module):
    """Head of a bound function, ``functools.partial``, whose tensors and modules become its own.

    The names of the tensors are those of the arguments: ``weight``, ``bias``.

    Args:
        bound: The function of features (B, S, D) with its other arguments.
    """

    def __init__(self, bound: partial[Tensor]) -> None:
        super().__init__()
        self.function: Callable[..., Tensor] = as_module(bound.func)
        self.positional = [self._own(name, value) for name, value in _named(bound)]
        self.keywords = [self._own(name, value) for name, value in bound.keywords.items()]

    def _own(self, name: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401 (an argument)
        """Register an argument; return its name, and its value where it is no tensor or module."""
        if isinstance(value, Tensor):
            self.register_buffer(name, value.detach())
        elif isinstance(value, nn.Module | partial):
            self.add_module(name, as_module(value))
        else:
            return name, value
        return name, None

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C)."""
        given = [getattr(self, name, value) for name, value in self.positional]
        named = {name: getattr(self, name, value) for name, value in self.keywords}
        return self.function(*given, features, **named)


def _named(bound: partial[Tensor]) -> list[tuple[str, Any]]:
    """Return the positional arguments of a bound function by the names of its parameters."""
    function = bound.func.forward if isinstance(bound.func, nn.Module) else bound.func
    parameters = inspect.signature(function).parameters.values()
    names = [one.name if one.kind is one.POSITIONAL_OR_KEYWORD else "" for one in parameters]
    pairs = zip(names, bound.args, strict=False)
    return [(name or f"argument_{n}", value) for n, (name, value) in enumerate(pairs)]


def as_module(function: Any) -> Any:  # noqa: ANN401 (a head function, or a function in it)
    """Return a head function as a module where its tensors can be found, else as it is."""
    return BoundHead(function) if isinstance(function, partial) else function


class ScoredModel(nn.Module):
    """Model as fedlt scores it: normalisation, backbone, one head, and the fusion of its streams.

    The tensors are copies with memory of their own, and require no gradient.

    Args:
        backbone: Maps normalised images (B, Ch, H, W) to features (B, S, D).
        head: Maps features to logits (B, S, C).
        predict: Fuses logits (B, S, C) to (B, C).
        mean: (Ch,) of pixel / 255 for uint8 images, of the pixels for float images.
        std: (Ch,) likewise.
        info: Facts about the model, see `docs/export.md`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: HeadFunction,
        predict: Callable[[Tensor], Tensor],
        *,
        mean: Iterable[float],
        std: Iterable[float],
        info: dict[str, Any],
    ) -> None:
        super().__init__()
        self.info = info
        self.backbone = backbone
        self.head: HeadFunction = as_module(head)
        self.predict = predict
        self.register_buffer("mean", torch.as_tensor(tuple(mean)))
        self.register_buffer("std", torch.as_tensor(tuple(std)))
        for tensor in chain(self.parameters(), self.buffers()):
            tensor.data = tensor.data.to("cpu").clone(memory_format=torch.contiguous_format)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, Ch, H, W), as the data set holds them, to logits (B, C)."""
        features = self.backbone(normalize(images, self.mean, self.std))
        return self.predict(self.head(features))
