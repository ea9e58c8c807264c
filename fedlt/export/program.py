"""``Program``: a traced model as tensors and a list of operators, which JSON holds.

    ScoredModel --torch.export--> ExportedProgram --program_of--> Program --> ProgramModel

The steps run the same operators in the same order as the model, so they give the same bits.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from fedlt.errors import FedltError, one_line
from fedlt.export.operators import name_of
from fedlt.export.scored_model import ScoredModel

FORMAT = 1
_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range")  # left out


@dataclass(frozen=True)
class Program:
    """Traced model without its tensors: what a file says in JSON."""

    format: int
    info: Mapping[str, Any]  # facts about the model
    tensors: dict[str, list[Any]]  # name -> type and shape
    parameters: list[str]  # names of the tensors that were trained; the others are buffers
    inputs: dict[str, str]  # value -> name of its tensor
    images: str  # the value of the images
    steps: list[list[Any]]  # [value, operator, arguments, keywords]
    logits: str  # the value of the logits
    sha256: str  # of the tensors, by :func:`tensors_digest`

    def to_text(self) -> str:
        """Return the program as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the program of a JSON text.

        Raises:
            ValueError: If the text is no program of this format.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it is of another version of fedlt")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError("it lacks a field of a model") from error


def trace(model: ScoredModel) -> ExportedProgram:
    """Return a model traced by ``torch.export``, for any number of images.

    The traces of the source code, which hold paths of this machine, are left out.

    Raises:
        FedltError: If the model cannot be traced.
    """
    given = model.info["input"]
    example = torch.zeros(2, *given["shape"][1:], dtype=getattr(torch, given["dtype"]))
    shapes = {"images": {0: Dim("batch")}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:
        raise FedltError(f"{_named(model.info)} cannot be exported: {one_line(error)}") from error
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    return exported


def _named(info: Mapping[str, Any]) -> str:
    return f"{info['strategy']} + {info['plugin']} with {info['backbone']}"


def program_of(
    exported: ExportedProgram, info: Mapping[str, Any]
) -> tuple[Program, dict[str, Tensor]]:
    """Return a traced model as a program, and its tensors by name.

    Raises:
        FedltError: If a step has an operator or an argument that a file may not have.
    """
    nodes = list(exported.graph.nodes)
    used = {node.name for node in nodes if node.users}
    inputs, images, parameters = {}, "", []
    for spec in exported.graph_signature.input_specs:
        name, tensor = spec.arg.name, str(spec.target)
        if spec.kind is InputKind.USER_INPUT:
            images = name
        elif name in used:
            inputs[name] = tensor
        if spec.kind is InputKind.PARAMETER:
            parameters.append(tensor)
    steps = [_step(node) for node in nodes if node.op == "call_function" and not _checks(node)]
    logits = nodes[-1].args[0][0].name
    constants = {name for name in inputs.values() if name not in exported.state_dict}
    tensors = {**exported.state_dict, **{name: exported.constants[name] for name in constants}}
    program = Program(
        FORMAT,
        info=dict(info),
        tensors={n: [_plain(t.dtype), list(t.shape)] for n, t in tensors.items()},
        parameters=parameters,
        inputs=inputs,
        images=images,
        steps=steps,
        logits=logits,
        sha256=tensors_digest(tensors),
    )
    return program, tensors


def _plain(value: torch.dtype | torch.layout | torch.memory_format) -> str:
    return str(value).removeprefix("torch.")


def _checks(node: torch.fx.Node) -> bool:
    """Return True for a step that only checks its arguments."""
    return str(node.target).removeprefix("aten.").partition(".")[0] in _CHECKS


def _step(node: torch.fx.Node) -> list[Any]:
    arguments = [_encoded(value) for value in node.args]
    keywords = {key: _encoded(value) for key, value in node.kwargs.items()}
    return [node.name, name_of(node.target), arguments, keywords]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encoded(value: Any) -> Any:  # noqa: ANN401 (an argument of an operator)
    """Return an argument for JSON; a dictionary of one entry stands for what JSON lacks."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    if isinstance(value, torch.fx.Node):
        return {"value": value.name}
    if isinstance(value, torch.device):
        return {"device": "of the images"}
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return {"torch": _plain(value)}
    raise FedltError(f"an argument of type {type(value).__name__} cannot be written to a file")
