"""Index of a model's tensors by name and group, cached so that reading and loading are cheap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.machine.memory import find_block

Group = Literal["shared", "personal", "fixed"]
TensorKind = Literal["all", "parameter", "buffer", "integer"]
GROUPS: Final[tuple[Group, ...]] = ("shared", "personal", "fixed")

_MAX_CACHED_TARGETS: Final = 64


@dataclass(frozen=True)
class Part:
    """One parameter or buffer of a model."""

    name: str  # dotted name from the model's root
    owner: Mapping[str, Tensor | None]  # the submodule's dictionary of parameters or of buffers
    key: str  # name of the tensor in that dictionary
    tensor: Tensor  # the live tensor
    is_parameter: bool  # False: a persistent buffer

    def is_of(self, kind: TensorKind) -> bool:
        """Whether this part is of a kind: a parameter, a buffer or an integer buffer."""
        if kind == "integer":
            return not self.is_parameter and not self.tensor.is_floating_point()
        return kind == "all" or self.is_parameter == (kind == "parameter")


def find_parts(model: nn.Module) -> list[Part]:
    """Return the parameters and persistent buffers in state_dict order, tied tensors once."""
    parts: list[Part] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        transient = module._non_persistent_buffers_set
        tables = ((True, module._parameters), (False, module._buffers))
        for is_parameter, table in tables:
            for key, tensor in table.items():
                if tensor is None or id(tensor) in seen or (not is_parameter and key in transient):
                    continue
                seen.add(id(tensor))
                name = f"{path}.{key}" if path else key
                owner = cast("Mapping[str, Tensor | None]", table)
                parts.append(Part(name, owner, key, tensor, is_parameter))
    return parts


def lies_under(name: str, prefix: str) -> bool:
    """Whether a dotted name lies under a dotted prefix; every name lies under ``""``."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def resolve_group(name: str, groups: Mapping[str, Group]) -> Group:
    """Return the group declared for the longest prefix of ``name``."""
    return groups[max((prefix for prefix in groups if lies_under(name, prefix)), key=len)]


def frozen_parts(
    module: nn.Module, prefix: str, groups: Mapping[str, Group]
) -> Iterator[nn.Module]:
    """Yield the largest parts of a module that have tensors, all of them ``fixed``.

    Args:
        module: The module.
        prefix: Its dotted name.
        groups: Group of every tensor, by its name.
    """
    own = [group for name, group in groups.items() if lies_under(name, prefix)]
    if own and all(group == "fixed" for group in own):
        yield module
    elif "fixed" in own:
        for name, child in module.named_children():
            yield from frozen_parts(child, f"{prefix}.{name}", groups)


class Index:
    """Names, groups and live tensors of a model at one moment.

    Args:
        model: The model to read.
        groups: Declared prefixes and their groups; must hold the prefix ``""``.
        packed: Views by name into the block of memory that holds tensors of the model, if any.
    """

    def __init__(
        self, model: nn.Module, groups: Mapping[str, Group], packed: Mapping[str, Tensor]
    ) -> None:
        self.parts = find_parts(model)
        self.live = {part.name: _live(part.tensor, packed.get(part.name)) for part in self.parts}
        self.order = tuple(self.live)
        self.groups = {name: resolve_group(name, groups) for name in self.order}
        self._tensors = [part.tensor for part in self.parts]
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._names: dict[tuple[Group | None, TensorKind], tuple[str, ...]] = {}
        self._targets: dict[tuple[str, ...], _Targets] = {}
        self.frozen: tuple[nn.Module, ...] | None = None  # of the backbone; None: not looked for

    def is_live(self) -> bool:
        """Whether every indexed tensor is still in the model, at the same memory address."""
        for part in self.parts:
            if part.owner.get(part.key) is not part.tensor:
                return False
        return [tensor.data_ptr() for tensor in self._tensors] == self._addresses

    def names(self, group: Group | None, kind: TensorKind) -> tuple[str, ...]:
        """Return the names of the tensors of a group (``None``: all) and kind, in order."""
        found = self._names.get((group, kind))
        if found is None:
            found = tuple(
                part.name
                for part in self.parts
                if group in (None, self.groups[part.name]) and part.is_of(kind)
            )
            self._names[group, kind] = found
        return found

    def copy(self, tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
        """Copy ``tensors[name]`` into the live tensor for each name, after checking all of them.

        Raises:
            FedltError: If a name is missing or unknown, or a shape or number kind differs.
        """
        if not names:
            return
        targets = self._targets_of(names)
        found = None if targets.block is None else find_block(tensors)
        block = found[1] if found is not None and found[0] == targets.layout else None
        singly = names if block is None else targets.others
        try:
            sources = [tensors[name] for name in singly]
        except KeyError as error:
            raise FedltError(f"model: no value given for {error.args[0]!r}") from None
        live = [self.live[name] for name in singly]
        for name, source, target in zip(singly, sources, live, strict=True):
            if source.shape != target.shape or (
                source.dtype != target.dtype
                and source.is_floating_point() != target.is_floating_point()
            ):
                raise FedltError(
                    f"model: {name!r} is {target.dtype} {tuple(target.shape)}, "
                    f"got {source.dtype} {tuple(source.shape)}"
                )
        if targets.block is not None and block is not None:
            targets.block.copy_(block)
        if sources:
            with torch.no_grad():
                torch._foreach_copy_(live, sources)

    def _targets_of(self, names: tuple[str, ...]) -> _Targets:
        found = self._targets.get(names)
        if found is None:
            unknown = [name for name in names if name not in self.live]
            if unknown:
                raise FedltError(f"model: no parameter or buffer {unknown[0]!r}")
            if len(self._targets) >= _MAX_CACHED_TARGETS:
                self._targets.clear()
            found = self._targets[names] = _Targets({name: self.live[name] for name in names})
        return found


class _Targets:
    """Target tensors of a copy: the block that holds some of them, and the names of the others."""

    def __init__(self, live: Mapping[str, Tensor]) -> None:
        found = find_block(live)
        self.layout = None if found is None else found[0]
        self.block = None if found is None else found[1]
        inside = set(self.layout.names) if self.layout is not None else set()
        self.others = tuple(name for name in live if name not in inside)


def _live(tensor: Tensor, view: Tensor | None) -> Tensor:
    """Return the tensor without gradient; its block's ``view`` where this view is the tensor."""
    return view if view is not None and view.data_ptr() == tensor.data_ptr() else tensor.detach()
