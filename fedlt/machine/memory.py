"""Tensors over foreign memory, and named tensors that lie in one block of memory.

A round copies the same tensors many times: into the scratch model, out of the scratch model, into
the sum. For tensors in one block each copy is one call over one piece of memory, and a worker
sends one buffer. A block only saves time: tensors outside a block give the same bits.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 16  # entries: every tensor of a block begins on a cache line

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # torch warns of read-only memory once a process
    torch.from_numpy(np.frombuffer(b"once", dtype=np.uint8))


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor over an array's memory, not copied; a read-only array (Ray) is allowed."""
    return torch.from_numpy(array)


@dataclass(frozen=True)
class Layout:
    """Places of named float32 tensors in one block; the gaps between tensors hold zeros."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    strides: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]  # entry of the block at which each tensor begins
    size: int  # entries of the block

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_layout, (self._text,)

    @cached_property
    def _text(self) -> str:
        shapes = [list(shape) for shape in self.shapes]
        return json.dumps([self.names, shapes, self.strides, self.offsets, self.size])

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return a layout of the float32 tensors among ``tensors``, in their order."""
        chosen = {name: t for name, t in tensors.items() if t.dtype == torch.float32}
        room = [-(-t.numel() // _ALIGNMENT) * _ALIGNMENT for t in chosen.values()]
        *offsets, size = itertools.accumulate(room, initial=0)
        shapes = tuple(tensor.shape for tensor in chosen.values())
        strides = tuple(torch.empty(shape, device="meta").stride() for shape in shapes)
        return cls(tuple(chosen), shapes, strides, tuple(offsets), size)

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether ``tensors`` hold every tensor of the layout, as float32 and of its shape."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != shape or tensor.dtype != torch.float32:
                return False
        return True

    def fill(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return views of a new block into which the tensors of the layout are copied."""
        if not self.names:
            return {}
        device = tensors[self.names[0]].device
        views = self.views(torch.zeros(self.size, device=device))
        with torch.no_grad():
            torch._foreach_copy_(list(views.values()), [tensors[name] for name in self.names])
        return views

    def views(self, block: Tensor) -> dict[str, Tensor]:
        """Return views of a block (size,) by name; :func:`find_block` finds the block from them."""
        block._layout = self  # type: ignore[attr-defined]  # a note on the object that views name
        geometry = zip(self.shapes, self.strides, self.offsets, strict=True)
        views = [block.as_strided(shape, stride, at) for shape, stride, at in geometry]
        return dict(zip(self.names, views, strict=True))


Block = tuple[Layout, Tensor]  # and the block (size,)


@lru_cache(maxsize=64)
def _load_layout(text: str) -> Layout:
    """Return a layout from its text: the same object each time, so it is quickly compared."""
    names, shapes, strides, offsets, size = json.loads(text)
    places = tuple(map(torch.Size, shapes)), tuple(map(tuple, strides)), tuple(offsets)
    return Layout(tuple(names), *places, size)


def find_block(tensors: Mapping[str, Tensor]) -> Block | None:
    """Return the layout and the block of the first of ``tensors``.

    The result is None if that tensor lies in no block, or ``tensors`` lack a view of the block.
    """
    for first in tensors.values():
        block = first._base
        layout: Layout | None = getattr(block, "_layout", None)
        if block is None or layout is None:
            return None
        for name, shape, at in zip(layout.names, layout.shapes, layout.offsets, strict=True):
            tensor = tensors.get(name)
            if (
                tensor is None
                or tensor._base is not block
                or tensor.storage_offset() != at
                or tensor.shape != shape
                or not tensor.is_contiguous()
            ):
                return None
        return layout, block
    return None


class Pieces:
    """Named tensors as pieces of memory: the block if there is one, then each other tensor.

    Args:
        tensors: The tensors.
        found: Result of :func:`find_block`, where it is known.
    """

    def __init__(self, tensors: Mapping[str, Tensor], found: Block | None = None) -> None:
        found = found or find_block(tensors)
        self.layout = None if found is None else found[0]
        inside = frozenset(self.layout.names) if self.layout is not None else frozenset()
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.others = [name for name in tensors if name not in inside]
        self.pieces = [tensors[name] for name in self.others]
        if found is not None:
            self.pieces.insert(0, found[1])

    def cut(self, tensors: Mapping[str, Tensor], found: Block | None = None) -> list[Tensor] | None:
        """Return other tensors cut into the same pieces; None if names or shapes differ.

        ``found`` is the result of :func:`find_block`, where it is known.
        """
        found = found or find_block(tensors)
        same = found is not None and found[0] == self.layout
        for name in self.others if same else self.shapes:
            if name not in tensors or tensors[name].shape != self.shapes[name]:
                return None
        if len(tensors) != len(self.shapes):
            return None
        others = [tensors[name] for name in self.others]
        if self.layout is None:
            return others
        packed = found if same else find_block(self.layout.fill(tensors))
        return others if packed is None else [packed[1], *others]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, in their first order, read from the present pieces."""
        layout = self.layout
        views = {} if layout is None else layout.views(self.pieces[0])
        others = self.pieces if layout is None else self.pieces[1:]
        found = {**views, **dict(zip(self.others, others, strict=True))}
        return {name: found[name] for name in self.shapes}
