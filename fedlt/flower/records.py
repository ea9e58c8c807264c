"""Flower records that hold tensors and serialise them only when they cross a wire.

``flwr.app.Array`` keeps serialised bytes. :class:`TensorArray` keeps the tensor: building a record
and reading it back copies nothing, pickling hands the buffer over out of band (Ray maps it), and
the bytes are made only if somebody asks for them (a SuperLink, ``count_bytes``). A tensor in a
record is never written again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SType
from torch import Tensor

from fedlt.machine.memory import Block, Layout, as_tensor, find_block


def _rebuild(array: np.ndarray[Any, Any]) -> TensorArray:
    return TensorArray(as_tensor(array))


class TensorArray(Array):
    """A Flower ``Array`` around a CPU tensor of any shape; equal on the wire to a plain one."""

    tensor: Tensor

    def __init__(self, tensor: Tensor) -> None:
        self.__dict__["tensor"] = tensor.detach() if tensor.requires_grad else tensor

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (the fields of Flower's dataclass)
        if name == "dtype":
            return str(self.tensor.dtype).removeprefix("torch.")
        if name == "shape":
            return tuple(self.tensor.shape)
        if name == "stype":
            return SType.NUMPY
        if name == "data":
            buffer = io.BytesIO()
            np.save(buffer, self.numpy(), allow_pickle=False)
            self.__dict__["data"] = buffer.getvalue()
            return self.__dict__["data"]
        raise AttributeError(name)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the tensor's memory as an array."""
        return self.tensor.cpu().numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.numpy()
        return _rebuild, (array if array.flags.c_contiguous else array.copy(),)


# Flower names a type on the wire by its qualified name and looks that name up to inflate it.
TensorArray.__qualname__ = "Array"


def _plain(arrays: dict[str, Array]) -> ArrayRecord:
    return _filled(TensorRecord(), arrays)


def _unpack(
    names: tuple[str, ...],
    layout: Layout,
    block: np.ndarray[Any, Any],
    rest: dict[str, Array],
) -> ArrayRecord:
    views = layout.views(as_tensor(block))
    return _plain({n: rest[n] if n in rest else TensorArray(views[n]) for n in names})


class TensorRecord(ArrayRecord):
    """A Flower ``ArrayRecord`` of tensors; those in one block are pickled as one buffer.

    The record knows its tensors by name, and their block, until an array is set or deleted.
    """

    def __setitem__(self, key: str, value: Array) -> None:
        self.__dict__.pop("_known", None)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.__dict__.pop("_known", None)
        super().__delitem__(key)

    def known(self) -> tuple[dict[str, Tensor], Block | None]:
        """Return the tensors by name, in a dictionary that is read only, and their block."""
        found: tuple[dict[str, Tensor], Block | None] | None = self.__dict__.get("_known")
        if found is None:
            tensors = {name: _tensor_of(array) for name, array in self.items()}
            found = self.__dict__["_known"] = tensors, find_block(tensors)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        _, found = self.known()
        if found is None:
            return _plain, (dict(self),)
        layout, block = found
        rest = {n: array for n, array in self.items() if n not in set(layout.names)}
        return _unpack, (tuple(self), layout, block.cpu().numpy(), rest)


TensorRecord.__qualname__ = "ArrayRecord"

Records = dict[str, ArrayRecord | ConfigRecord | MetricRecord]
AnyRecord = TypeVar("AnyRecord", ArrayRecord, ConfigRecord, MetricRecord, RecordDict)


def _filled(record: AnyRecord, values: Mapping[str, Any]) -> AnyRecord:
    """Fill a new record without Flower's setters, which look up abstract types for every item."""
    record.__dict__["_data"].update(values)
    return record


def array_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return a record of ``tensors``, sharing their memory."""
    return _filled(TensorRecord(), {n: TensorArray(tensor) for n, tensor in tensors.items()})


def config_of(message: Message) -> ConfigRecord:
    """Return the settings of a message: its record ``config``."""
    return cast(ConfigRecord, message.content["config"])


def metric_record(values: Mapping[str, float | list[float]]) -> MetricRecord:
    """Return a record of numbers and lists of numbers, which are not checked."""
    return _filled(MetricRecord(), values)


def record_dict(records: Records) -> RecordDict:
    """Return a dictionary of records, which are not checked."""
    return _filled(RecordDict(), records)


def tensors_of(record: ArrayRecord) -> dict[str, Tensor]:
    """Return a record's tensors by name; shared, or read from plain arrays."""
    if isinstance(record, TensorRecord):
        return dict(record.known()[0])
    return {name: _tensor_of(array) for name, array in record.items()}


def block_of(record: ArrayRecord) -> Block | None:
    """Return the block in which a record's tensors lie, and its layout; None if there is none."""
    return record.known()[1] if isinstance(record, TensorRecord) else find_block(tensors_of(record))


def _tensor_of(array: Array) -> Tensor:
    return array.tensor if isinstance(array, TensorArray) else torch.from_numpy(array.numpy())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and values of tensors, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message with the same metadata and other content; Flower's stubs leave this out."""
    make: Callable[..., Message] = Message
    return make(content, metadata=message.metadata)
