"""Template that an objective sees in a stack: one model and one client that stand for all.

Inside ``torch.func.vmap`` the template's parameters, buffers and client tensors have the shapes of
one client and hold the values of all clients. Other values that differ from client to client cannot
be read, since an objective would get the value of the first client.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fedlt.client import Client
from fedlt.models.index import find_parts

if TYPE_CHECKING:
    from fedlt.models import Model

_COMMON = ("round", "rounds", "seed", "broadcast", "local", "plugin")


class UnstackableError(Exception):
    """Error: a method reads a value or acts in a way that has no meaning for a stack of clients."""


class TemplateClient:
    """Client with the part of :class:`Client` that an objective may read; other reads raise."""

    def __init__(self, client: Client, model: Model) -> None:
        for name in _COMMON:
            setattr(self, name, getattr(client, name))
        self.model = model
        self.tensors: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (methods of Client, and the refusal)
        method = inspect.getattr_static(Client, name, None)
        if name not in Client.__dataclass_fields__ and hasattr(method, "__get__"):
            return cast(Any, method).__get__(self, Client)
        raise UnstackableError(
            f"the objective reads client.{name}, which is each client's own; "
            "put what it needs into client.tensors"
        )


class BatchClient:
    """Client that ``batches`` gets: the model lies in the stack and cannot be read."""

    def __init__(self, client: Client) -> None:
        object.__setattr__(self, "_client", client)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever Client has)
        if name == "model":
            raise UnstackableError("batches reads client.model, which changes between its batches")
        method = inspect.getattr_static(Client, name, None)
        if inspect.isfunction(method) and name != "frozen_network":  # reads its arguments only
            return method.__get__(self, Client)
        return getattr(self._client, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._client, name, value)


class TemplateModel:
    """Model whose parameters and buffers are replaced, step by step, by the rows of a stack."""

    def __init__(self, model: Model) -> None:
        self.model = model
        parts = find_parts(model)
        self.names = tuple(part.name for part in parts)
        self._tensors = [part.tensor for part in parts]
        self._places = _places(model, self._tensors)

    def put(self, tensors: Sequence[Tensor], trained: Sequence[bool]) -> None:
        """Replace every tensor; mark the trained tensors as requiring a gradient."""
        for places, tensor in zip(self._places, tensors, strict=True):
            for table, key in places:
                table[key] = tensor
        torch._C._functorch.set_inplace_requires_grad_allowed(True)
        try:
            for tensor, is_trained in zip(tensors, trained, strict=True):
                if is_trained:
                    tensor.requires_grad_(True)
        finally:
            torch._C._functorch.set_inplace_requires_grad_allowed(False)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Restore the model's own tensors at the end of the block."""
        try:
            yield
        finally:
            self.put(self._tensors, [False] * len(self._tensors))


def _places(
    model: Model, tensors: Sequence[Tensor]
) -> list[list[tuple[MutableMapping[str, Any], str]]]:
    """Return for each tensor the modules' tables and keys that hold the tensor."""
    found: dict[int, list[tuple[MutableMapping[str, Any], str]]] = {id(t): [] for t in tensors}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if id(tensor) in found:
                    found[id(tensor)].append((cast("MutableMapping[str, Any]", table), key))
    return [found[id(tensor)] for tensor in tensors]
