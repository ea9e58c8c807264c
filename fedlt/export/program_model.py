"""``ProgramModel``: a module that runs the steps of a program; no code of a file is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.export.operators import find
from fedlt.export.program import Program, tensors_digest


@dataclass(frozen=True)
class _Value:
    """Argument that stands for the value of an earlier step."""

    name: str


class _Device:
    """Argument that stands for the device of the images."""


@dataclass(frozen=True)
class _Step:
    """Step of a program, ready to run."""

    value: str
    operator: Callable[..., Any]
    arguments: list[Any]
    keywords: dict[str, Any]
    last: tuple[str, ...]  # values that no later step reads


class ProgramModel(nn.Module):
    """Model read from a file: images (B, Ch, H, W) in, logits (B, C) out.

    The names of its tensors are those of the exported model, so ``state_dict()`` has them.

    Args:
        program: The program.
        tensors: Its tensors by name.

    Raises:
        ValueError: If the tensors are not those of the program, or a step is malformed.
        FedltError: If a step has an operator that a file may not name.
    """

    def __init__(self, program: Program, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        if tensors_digest(tensors) != program.sha256:
            raise ValueError("its tensors do not match their checksum")
        self.info = dict(program.info)
        self._images, self._logits = program.images, program.logits
        self._inputs = dict(program.inputs)
        self._steps = _prepared(program)
        for name, tensor in tensors.items():
            owner, last = _owner(self, name)
            if name in program.parameters:
                setattr(owner, last, nn.Parameter(tensor, requires_grad=False))
            else:
                owner.register_buffer(last, tensor)
        for name in self._inputs.values():
            if name not in tensors:
                raise ValueError(f"it lacks the tensor {name!r}")
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images, as the data set holds them, to logits.

        Raises:
            FedltError: If the images have another shape or type than those of the run.
        """
        check_images(self.info, tuple(images.shape), str(images.dtype).removeprefix("torch."))
        values: dict[str, Any] = {self._images: images}
        for value, name in self._inputs.items():
            owner, last = _owner(self, name)
            values[value] = getattr(owner, last)
        for step in self._steps:
            given = [_filled(one, values, images.device) for one in step.arguments]
            named = {k: _filled(one, values, images.device) for k, one in step.keywords.items()}
            values[step.value] = step.operator(*given, **named)
            for name in step.last:
                del values[name]
        logits: Tensor = values[self._logits]
        return logits


def check_images(info: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless images fit the model, whose normalisation would make nonsense of others."""
    wanted = info["input"]
    if len(shape) != 4 or list(shape[1:]) != wanted["shape"][1:] or dtype != wanted["dtype"]:
        size = ", ".join(map(str, wanted["shape"][1:]))
        raise FedltError(
            f"the model takes {wanted['dtype']} images (batch, {size}), not {dtype} {shape}"
        )


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has the tensor of a dotted name, made if missing, and its own name."""
    *path, last = name.split(".")
    for part in path:
        if part not in model._modules:
            model.add_module(part, nn.Module())
        model = model.get_submodule(part)
    return model, last


def _prepared(program: Program) -> list[_Step]:
    """Return the steps with operators looked up.

    Raises:
        ValueError: If a step is malformed or reads a value that no earlier step has made.
        FedltError: If a file may not name an operator.
    """
    known = {program.images, *program.inputs}
    steps: list[tuple[_Step, set[str]]] = []
    for value, name, arguments, keywords in program.steps:
        operator, read = find(name), set[str]()
        given = [_decoded(one, known, read) for one in arguments]
        named = {key: _decoded(one, known, read) for key, one in keywords.items()}
        steps.append((_Step(value, operator, given, named, ()), read))
        known.add(value)
    if program.logits not in known:
        raise ValueError("it has no logits")
    done, seen = [], {program.logits}
    for step, read in reversed(steps):
        last = tuple(sorted({*read, step.value} - seen))
        seen |= read
        done.append(_Step(step.value, step.operator, step.arguments, step.keywords, last))
    return done[::-1]


def _decoded(value: Any, known: set[str], read: set[str]) -> Any:  # noqa: ANN401 (an argument)
    """Return an argument of JSON; the values that it names are added to ``read``."""
    if isinstance(value, list):
        return [_decoded(one, known, read) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "value" and content in known:
        read.add(content)
        return _Value(content)
    if kind == "device":
        return _Device()
    found = getattr(torch, content, None) if kind == "torch" else None
    if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
        raise ValueError(f"it has an argument {kind} {content!r}")
    return found


def _filled(value: Any, values: Mapping[str, Any], device: torch.device) -> Any:  # noqa: ANN401
    """Return an argument with the values that it stands for."""
    if isinstance(value, _Value):
        return values[value.name]
    if isinstance(value, _Device):
        return device
    return [_filled(one, values, device) for one in value] if isinstance(value, list) else value
